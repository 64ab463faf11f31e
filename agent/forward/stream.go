package forward

import (
	"context"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"sync"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/audit"
	"github.com/nemoclaw/nemoclaw/agent/config"
	"github.com/nemoclaw/nemoclaw/agent/text"
	"github.com/nemoclaw/nemoclaw/policy"
)

// The bounds of a batch.
const (
	maxRecords = 500
	maxBytes   = 1 << 20
)

// stream takes the records to one receiver.
type stream struct {
	name, kind string
	flt        audit.Filter
	format     string
	file       string // of how far the receiver has come
	note       Note
	receiver   receiver

	pace           time.Duration // records are sent no more often, unless there is a whole batch
	first, longest time.Duration // waits after a failure
	patience       time.Duration // a failure of so long is recorded
	tellEvery      time.Duration // refusals are recorded no more often: the record of one is refused too, maybe

	log *audit.Writer

	// Of the goroutine that runs it:
	batch   []record
	bytes   int
	read    cursor // the last record that was taken from the log
	sent    cursor // the last one that was sent, as were all before it
	savedAt time.Time
	waits   int // after failures, since something arrived

	mu      sync.Mutex
	acked   cursor // the last one that the receiver has
	saved   cursor // the same, as the file says
	oldest  time.Time
	refused tally
	removed uint64
	goneTo  uint64    // the last one that is counted in removed
	err     error     // why nothing arrives now
	since   time.Time // that
	told    bool      // that was recorded
	unsaved bool      // it was said that the file can't be written
}

func newStream(c config.Forward, file string, note Note) (*stream, error) {
	s := &stream{name: c.Name, format: c.Format, file: file, note: note, pace: time.Second, first: time.Second, longest: time.Minute, patience: 30 * time.Second, tellEvery: time.Hour}
	s.kind, _ = c.Kind()
	if s.format == "" {
		s.format = "json"
	}
	for _, p := range c.Planes {
		s.flt.Planes = append(s.flt.Planes, policy.Plane(p))
	}
	for _, word := range c.Verdicts {
		var v policy.Verdict
		if err := v.UnmarshalText([]byte(word)); err != nil {
			return nil, err
		}
		s.flt.Verdicts = append(s.flt.Verdicts, v)
	}
	var err error
	if s.acked, err = readCursor(file); err != nil {
		return nil, err
	}
	s.saved = s.acked
	s.receiver, err = newReceiver(c)
	return s, err
}

// run sends what is in the log, and what comes.
func (s *stream) run(ctx context.Context, log *audit.Writer) {
	s.log = log
	s.begin(ctx)
	for {
		err := s.pass(ctx)
		if ctx.Err() != nil || err == nil || log.Err() != nil {
			return // the daemon ends, or its log
		}
		s.failed(err)
		if !s.wait(ctx, err) {
			return
		}
	}
}

// begin looks whether the log is the one that the receiver was sent records of.
func (s *stream) begin(ctx context.Context) {
	if s.acked.seq == 0 {
		return
	}
	other := s.log.Head().Seq < s.acked.seq
	_ = s.log.Query(ctx, audit.Filter{Since: s.acked.seq - 1, Last: 0}, func(seq uint64, line []byte) error { // what can't be read is met by pass
		e, _ := audit.ReadEntry(line)
		other = other || seq == s.acked.seq && e.Hash != s.acked.hash
		return errEnough
	})
	if other {
		s.note("forward", s.name, fmt.Sprintf("the log is another one than that of which the receiver has the records up to %d: it is sent all of this one", s.acked.seq))
		s.mu.Lock()
		s.acked, s.saved = cursor{}, cursor{}
		s.mu.Unlock()
	}
}

var errEnough = errors.New("enough")

// pass sends what comes after what the receiver has, until something fails.
func (s *stream) pass(ctx context.Context) error {
	s.batch, s.bytes = s.batch[:0], 0
	s.read, s.sent = s.acked, s.acked
	err := s.log.Tail(ctx, audit.Filter{Since: s.acked.seq}, func(seq uint64, line []byte) error {
		return s.take(ctx, seq, line)
	}, func() error { return s.rest(ctx) })
	// What was sent before is the receiver's all the same, where it said so; even if the daemon ends.
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTime)
	defer cancel()
	if e := s.settle(end); err == nil {
		err = e
	}
	return err
}

// endTime is how long a receiver has to acknowledge what it was sent when the daemon ends.
const endTime = 2 * time.Second

// take puts a record into the batch, and sends it when it is whole.
func (s *stream) take(ctx context.Context, seq uint64, line []byte) error {
	if first, last, gone := audit.Gap(s.read.seq, line); gone && s.read.seq > 0 {
		s.gone(first, last)
	}
	e, _ := audit.ReadEntry(line)
	s.read = cursor{seq, e.Hash}
	if s.flt.Selects(line) {
		r := newRecord(e, line, s.format)
		if len(s.batch) == 0 {
			s.mu.Lock()
			s.oldest = e.Time
			s.mu.Unlock()
		}
		s.batch = append(s.batch, r)
		s.bytes += len(r.body)
	}
	if len(s.batch) < maxRecords && s.bytes < maxBytes {
		return nil
	}
	if err := s.flush(ctx); err != nil || time.Since(s.savedAt) < s.pace {
		return err
	}
	return s.settle(ctx)
}

// rest sends what is left, and waits a while so that more comes together.
func (s *stream) rest(ctx context.Context) error {
	if err := s.flush(ctx); err != nil {
		return err
	}
	if err := s.settle(ctx); err != nil {
		return err
	}
	s.refusedSince()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(s.pace):
		return nil
	}
}

// flush sends the batch.
func (s *stream) flush(ctx context.Context) error {
	if len(s.batch) > 0 {
		if err := s.deliver(ctx, s.batch); err != nil {
			return err
		}
	}
	s.sent = s.read
	clear(s.batch)
	s.batch, s.bytes = s.batch[:0], 0
	return nil
}

// settle waits until the receiver has what was sent, and keeps that.
func (s *stream) settle(ctx context.Context) error {
	s.savedAt = time.Now()
	if s.sent == s.acked {
		return nil
	}
	if err := s.receiver.settle(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	s.acked, s.oldest = s.sent, time.Time{}
	s.mu.Unlock()
	s.arrived()
	s.save()
	return nil
}

// save writes down how far the receiver has come. What a power cut could take from the log is not written down as sent, since its
// numbers would be given again.
func (s *stream) save() {
	err := s.log.Sync(s.acked.seq)
	if err == nil {
		err = s.acked.write(s.file)
	}
	s.mu.Lock()
	tell := err != nil && !s.unsaved
	s.unsaved = err != nil
	if err == nil {
		s.saved = s.acked
	}
	s.mu.Unlock()
	if tell {
		s.note("forward", s.name, "how far it has come can't be written down, so after a restart it is sent records again: "+text.Short(err.Error(), 300))
	}
}

// wait waits after a failure: longer each time, and as long as the receiver wants. It returns false when ctx has ended.
func (s *stream) wait(ctx context.Context, err error) bool {
	d := s.longest
	if s.waits < 16 {
		d = min(s.first<<s.waits, s.longest)
	}
	s.waits++
	d = d/2 + mathrand.N(d) // who failed together does not come back together
	var l *later
	if errors.As(err, &l) {
		d = max(d, l.after)
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
