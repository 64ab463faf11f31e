package forward

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/config"
)

// A receiver takes records. Its methods are called one at a time.
type receiver interface {
	// send hands over records, in order. An error says which of them are not the receiver's: all, unless it is a *partial.
	send(ctx context.Context, batch []record) error
	// settle returns when everything that was sent is the receiver's.
	settle(ctx context.Context) error
}

// newReceiver makes what speaks to a receiver. Nothing is connected yet.
func newReceiver(c config.Forward) (receiver, error) {
	if c.Syslog != "" {
		return newSyslog(c)
	}
	return newHTTP(c)
}

// later is an error that goes by, maybe.
type later struct {
	error
	after time.Duration // not before
}

func (l *later) Unwrap() error { return l.error }

// rejected says that a receiver does not take this request as it is. One of its records may be to blame, or the receiver.
type rejected struct{ reason string }

func (r *rejected) Error() string { return r.reason }

// partial says that of a request not all was taken.
type partial struct {
	refused map[int]string // why, by the places of records
	again   []int          // places of those that may be sent again
	unnamed int            // so many more were refused, and nobody knows which; nothing of the request may be sent again
	reason  string
}

func (p *partial) Error() string { return p.reason }

// doubt is a record that was refused once.
type doubt struct {
	r      record
	reason string
}

// deliver sends a batch. What is refused is given up when the receiver has taken a later record and refuses it again: a receiver that
// takes nothing, because something is wrong there, loses nothing. Where it refuses many in a row it is tried with one from further on.
func (s *stream) deliver(ctx context.Context, batch []record) error {
	size := len(batch)
	var doubted []doubt
	none, proved, hopeless := true, false, false // nothing was taken; it took a later record, or did not
	for len(batch) > 0 {
		chunk := batch[:min(size, len(batch))]
		rest := batch[len(chunk):]
		err := s.receiver.send(ctx, chunk)
		var no *rejected
		var part *partial
		took := err == nil
		switch {
		case took:
			size *= 2
		case errors.As(err, &part):
			took = len(part.refused)+len(part.again) < len(chunk)
			for i := range chunk {
				if reason, ok := part.refused[i]; ok {
					doubted = append(doubted, doubt{chunk[i], reason})
				}
			}
			if part.unnamed > 0 {
				s.refuse(uint64(part.unnamed), fmt.Sprintf("one of the records %d to %d", chunk[0].Seq, chunk[len(chunk)-1].Seq), part.reason)
			}
			if len(part.again) > 0 {
				err := &later{error: errors.New(part.reason)}
				s.failed(err)
				if !s.wait(ctx, err) {
					return ctx.Err()
				}
				left := make([]record, 0, len(part.again)+len(rest))
				for _, i := range part.again {
					left = append(left, chunk[i])
				}
				rest = append(left, rest...)
			}
		case !errors.As(err, &no):
			return err
		case len(chunk) > 1:
			size = len(chunk) / 2
			continue
		default:
			doubted = append(doubted, doubt{chunk[0], no.reason})
		}
		none = none && !took
		if took {
			if err := s.judge(ctx, doubted, nextOf(rest)); err != nil {
				return err
			}
			doubted = nil
		} else if len(doubted) >= maxDoubt && !hopeless {
			if proved, err = s.prove(ctx, doubted, nextOf(rest)); err != nil {
				return err
			}
			if hopeless = !proved; proved {
				doubted = nil
			}
		}
		if len(doubted) == 0 && (part == nil || len(part.again) == 0) {
			last := chunk[len(chunk)-1]
			s.sent = cursor{last.Seq, last.Hash}
		}
		batch = rest
	}
	n := len(doubted)
	if n == 0 {
		return nil
	}
	// Else what is doubted begins the next batch, in which later ones are.
	if (none || proved) && !hopeless {
		if proved, err := s.prove(ctx, doubted, math.MaxUint64); err != nil || proved {
			return err
		}
	}
	return fmt.Errorf("it refuses the record %d and %d after it, and takes none that is later, so something may be wrong there: %s", doubted[0].r.Seq, n-1, doubted[0].reason)
}

// judge sends what was refused once more, now that the receiver has taken something else. next is the first record that is still to come.
func (s *stream) judge(ctx context.Context, doubted []doubt, next uint64) error {
	slices.SortFunc(doubted, func(a, b doubt) int { return cmp.Compare(a.r.Seq, b.r.Seq) })
	for _, d := range doubted {
		err := s.receiver.send(ctx, []record{d.r})
		var no *rejected
		var part *partial
		switch {
		case err == nil:
		case errors.As(err, &part) && len(part.refused) > 0:
			s.refuse(1, fmt.Sprintf("the record %d", d.r.Seq), part.refused[0])
		case errors.As(err, &no):
			s.refuse(1, fmt.Sprintf("the record %d", d.r.Seq), no.reason)
		default:
			return err
		}
		if d.r.Seq < next && d.r.Seq > s.sent.seq {
			s.sent = cursor{d.r.Seq, d.r.Hash} // it is not judged, nor counted, again when the next one fails
		}
	}
	return nil
}
