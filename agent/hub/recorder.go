package hub

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nemoclaw/nemoclaw/policy"
)

// A Recorder takes the decisions of one sandbox. Its methods may be called from any goroutine.
type Recorder struct {
	hub     *Hub
	sandbox string
	counts  counts
	redact  atomic.Pointer[func(*policy.Decision)] // nil: records are as they are

	mu     sync.Mutex
	window window
	tally  tally
	watch  func(*policy.Decision)
	closed bool
	record policy.Decision // the one that Record is about: what it is passed to by its address would have it allocated each time
}

// Sandbox returns a recorder for a sandbox, with a tally and a budget of records of its own. Of a closed hub it takes
// nothing.
func (h *Hub) Sandbox(name string) *Recorder {
	r := &Recorder{hub: h, sandbox: name}
	r.counts.init()
	h.mu.Lock()
	defer h.mu.Unlock()
	if r.closed = h.closed; !r.closed {
		h.open[r] = struct{}{}
	}
	return r
}

// Record takes one decision. Seq, Time and Sandbox are the hub's to set, but a Time that the plane knows better (the
// kernel's own, of an event that waited in a ring) is kept. Long strings are cut: see Bound. After Close it does
// nothing. Failures of the log show on its Failed channel, not here: a plane could do nothing about them.
func (r *Recorder) Record(d policy.Decision) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	r.record = Bound(d)
	r.take(&r.record)
	r.record = policy.Decision{} // its texts may be large
}

// take is Record. The caller holds mu.
func (r *Recorder) take(d *policy.Decision) {
	now := r.hub.now()
	if d.Time.IsZero() {
		d.Time = now
	}
	d.Sandbox = r.sandbox
	r.counts.add(d)
	r.tally.add(d)
	if r.watch != nil {
		r.watch(d)
	}
	if r.window.over(now) {
		r.roll()
	}
	if !r.window.fold(d, now) {
		r.emit(d)
		return
	}
	r.counts.folded.Add(1)
	if r.window.timer == nil {
		r.window.timer = time.AfterFunc(r.window.end.Sub(now), r.tick)
	}
}

// Permit is Record for what goes on because of it. With strict it returns when the record is on the disk, with the counts of what
// was folded before it; the error says why it is not, and then nothing may go on.
func (r *Recorder) Permit(d policy.Decision, strict bool) error {
	r.Record(d)
	if !strict || r.hub.log == nil {
		return nil
	}
	r.mu.Lock()
	closed := r.closed
	if !closed && len(r.window.order) > 0 {
		r.roll()
	}
	seq := r.hub.log.Head().Seq
	r.mu.Unlock()
	if closed {
		return errors.New("the sandbox has ended")
	}
	return r.hub.log.Sync(seq)
}

// tick ends the window when nothing else came that would.
func (r *Recorder) tick() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed {
		r.roll()
	}
}

func (r *Recorder) roll() {
	for _, d := range r.window.next() {
		d.Sandbox = r.sandbox
		r.emit(d)
	}
}

// emit hands a record on, without what is not to be in it. It is the last thing that happens to it here: floods are folded, and a
// person is told, by what was attempted.
func (r *Recorder) emit(d *policy.Decision) {
	if redact := r.redact.Load(); redact != nil {
		(*redact)(d)
	}
	r.hub.emit(d)
}

// Redact has records changed before anybody else gets them: the log, and whoever listens. It may be called at any time; nil ends it.
func (r *Recorder) Redact(f func(*policy.Decision)) {
	if f == nil {
		r.redact.Store(nil)
		return
	}
	r.redact.Store(&f)
}

// Refusals returns what was refused so far, and how many refusals were beyond what the tally keeps apart.
func (r *Recorder) Refusals() (list []Refusal, more uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.tally.list(), r.tally.more
}

// Refused returns how many attempts were refused so far.
func (r *Recorder) Refused() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.tally.total
}

// Watch hands every record to f before floods are folded, so that none is missing. f is called in order, one at a time,
// must be quick, and must not keep the record. It is set before the first one.
func (r *Recorder) Watch(f func(*policy.Decision)) { r.watch = f }

// Close writes what is still folded. The tally can still be read.
func (r *Recorder) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	r.roll()
	r.closed = true
	r.hub.mu.Lock()
	defer r.hub.mu.Unlock()
	delete(r.hub.open, r)
}
