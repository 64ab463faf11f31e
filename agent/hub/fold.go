package hub

import (
	"fmt"
	"time"

	"github.com/nemoclaw/nemoclaw/policy"
)

// A program that tries in a loop can make a million records a second, and the log's disk is the host's. So in each
// second the first sameEach of identical records are written one by one, and of all records allEach at once and lasting
// a second after that; the rest of the second is written as counts when it is over. Nothing is left uncounted.
const (
	foldTime = time.Second
	sameEach = 32
	allEach  = 2000
	lasting  = 50 // about 2 GB of log in a day, at the longest command lines
)

// kindOf is what makes two records the same. The process id is left out: a loop that forks is a loop.
type kindOf struct {
	plane          policy.Plane
	action, object string
	exe, taint     string
	rule           string
	verdict        policy.Verdict
}

// window is one second of records.
type window struct {
	end   time.Time
	room  int       // records that may still be written one by one
	since time.Time // when room was last added to
	seen  map[kindOf]*seen
	order []*policy.Decision // what next returns, in the order of first folding
	timer *time.Timer        // set while something is folded
}

type seen struct {
	n      int
	folded *policy.Decision
}

func (w *window) over(now time.Time) bool { return !now.Before(w.end) }

// fold counts d and reports whether it was folded, so must not be written now.
func (w *window) fold(d *policy.Decision, now time.Time) bool {
	if d.Plane == policy.PlaneSystem {
		return false // few by nature, and each one matters
	}
	if c := d.Inference; c != nil && c.Model != "" && d.Action == "request" && d.Verdict == policy.Allow {
		return false // as many as models answer, each at somebody's cost
	}
	if w.end.IsZero() {
		w.end, w.seen = now.Add(foldTime), map[kindOf]*seen{}
		w.room = min(allEach, w.room+int(min(now.Sub(w.since), time.Hour).Seconds()*lasting))
		w.since = now
	}
	k := kindOf{d.Plane, d.Action, d.Object, d.Subject.Exe, d.Subject.Taint, d.Rule, d.Verdict}
	s := w.seen[k]
	if s == nil && w.room <= 0 {
		// Too many different ones: what they have in common is counted, what tells them apart is given up.
		k = kindOf{plane: d.Plane, action: d.Action, object: "(various)", verdict: d.Verdict}
		if s = w.seen[k]; s == nil {
			s = &seen{n: sameEach}
			w.seen[k] = s
		}
		if s.folded == nil {
			s.folded = &policy.Decision{Time: d.Time, Plane: k.plane, Action: k.action, Object: k.object, Verdict: k.verdict,
				Rule: "builtin", Revision: d.Revision,
				Reason: fmt.Sprintf("more than %d records at once, or %d a second: these are counted without their objects", allEach, lasting)}
			w.order = append(w.order, s.folded)
		}
		count(s.folded, d)
		return true
	}
	if s == nil {
		s = &seen{}
		w.seen[k] = s
	}
	w.room--
	if s.n++; s.n <= sameEach {
		return false
	}
	if s.folded == nil {
		c := *d
		c.Count = 0
		s.folded = &c
		w.order = append(w.order, s.folded)
	}
	count(s.folded, d)
	return true
}

// count adds a record to the one that stands for several.
func count(into, d *policy.Decision) {
	if into.Count == 0 {
		into.Inference = d.Inference
	} else {
		into.Inference = into.Inference.Sum(d.Inference)
	}
	into.Count += attempts(d)
}

// next ends the second and returns what was folded in it.
func (w *window) next() []*policy.Decision {
	if w.timer != nil {
		w.timer.Stop()
	}
	folded := w.order
	*w = window{room: w.room, since: w.since}
	return folded
}

// attempts is how many attempts a record stands for.
func attempts(d *policy.Decision) uint64 { return max(d.Count, 1) }
