package approvals

import (
	"time"

	"github.com/nemoclaw/nemoclaw/histogram"
	"github.com/nemoclaw/nemoclaw/policy"
)

// An Outcome is how an attempt stopped waiting.
type Outcome uint8

// The outcomes.
const (
	Allowed    Outcome = iota
	Denied             // by a person, or because what it was about has changed or ended
	Unanswered         // nobody answered in time, or the caller went away
	outcomes
)

// String returns the outcome's word.
func (o Outcome) String() string { return [...]string{"allowed", "denied", "unanswered"}[o] }

// waited is how long attempts have waited for a person.
type waited struct {
	in [outcomes]*histogram.Durations
}

func newWaited() (w waited) {
	for o := range w.in {
		w.in[o] = histogram.New(time.Second, 2*time.Second, 5*time.Second, 10*time.Second, 30*time.Second, time.Minute, 2*time.Minute,
			5*time.Minute, 10*time.Minute, 30*time.Minute, time.Hour)
	}
	return w
}

// answered counts one that has a verdict, and returns it.
func (w *waited) answered(since time.Time, v policy.Verdict) policy.Verdict {
	o := Denied
	if v == policy.Allow {
		o = Allowed
	}
	w.in[o].Observe(time.Since(since))
	return v
}

// Counts are the numbers of a desk.
type Counts struct {
	Held     int    // attempts that wait now
	Open     int    // requests that can be answered
	Unlisted uint64 // attempts that were denied without being listed, because there were too many
	Waited   map[Outcome]histogram.Snapshot
}

// Counts returns them.
func (k *Desk) Counts() Counts {
	c := Counts{Waited: map[Outcome]histogram.Snapshot{}}
	for o, h := range k.waited.in {
		c.Waited[Outcome(o)] = h.Snapshot()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	c.Open, c.Unlisted = len(k.requests), k.unlisted
	for _, r := range k.requests {
		c.Held += r.held
	}
	return c
}
