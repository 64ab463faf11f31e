package hub

import (
	"slices"
	"sync/atomic"

	"github.com/nemoclaw/nemoclaw/policy"
)

var (
	planes   = policy.Planes()
	verdicts = []policy.Verdict{policy.Deny, policy.Ask, policy.Allow}
)

// counts are how many decisions a recorder has taken. There is a place for each from the beginning, so counting is one addition,
// and reading holds nobody up.
type counts struct {
	decisions [][]atomic.Uint64 // by the place of the plane in planes, and by verdict
	folded    atomic.Uint64
}

func (c *counts) init() {
	c.decisions = make([][]atomic.Uint64, len(planes))
	for i := range c.decisions {
		c.decisions[i] = make([]atomic.Uint64, len(verdicts))
	}
}

func (c *counts) add(d *policy.Decision) {
	if i := slices.Index(planes, d.Plane); i >= 0 {
		c.decisions[i][d.Verdict].Add(attempts(d))
	}
}

// Decisions calls f with how often it was decided so, for each plane and verdict. Each attempt counts, also where records stand for
// many.
func (r *Recorder) Decisions(f func(p policy.Plane, v policy.Verdict, n uint64)) {
	for i, p := range planes {
		for _, v := range verdicts {
			f(p, v, r.counts.decisions[i][v].Load())
		}
	}
}

// Folded returns how many records were not written one by one, because there were too many at once.
func (r *Recorder) Folded() uint64 { return r.counts.folded.Load() }
