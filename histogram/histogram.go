// Package histogram counts durations by how long they were, for whoever asks later. Counting is two atomic additions: it never
// waits, never allocates, and forgets the durations themselves.
package histogram

import (
	"math"
	"sync/atomic"
	"time"
)

// Durations counts durations. Its methods may be called from any goroutine.
type Durations struct {
	bounds []time.Duration
	counts []atomic.Uint64 // one more than bounds: of what is longer than all of them
	sum    atomic.Int64
}

// New returns a histogram with a bucket for each bound, which must ascend.
func New(bounds ...time.Duration) *Durations {
	return &Durations{bounds: bounds, counts: make([]atomic.Uint64, len(bounds)+1)}
}

// Observe counts one duration.
func (h *Durations) Observe(d time.Duration) {
	i := 0
	for i < len(h.bounds) && d > h.bounds[i] {
		i++
	}
	h.counts[i].Add(1)
	h.sum.Add(int64(d))
}

// Snapshot reads what was counted so far.
func (h *Durations) Snapshot() Snapshot {
	s := Snapshot{Bounds: h.bounds, Counts: make([]uint64, len(h.counts)), Sum: time.Duration(h.sum.Load())}
	for i := range h.counts {
		s.Counts[i] = h.counts[i].Load()
	}
	return s
}

// Snapshot is how many durations there were, by how long they were.
type Snapshot struct {
	Bounds []time.Duration // the longest of each bucket but the last, which has no bound
	Counts []uint64
	Sum    time.Duration
}

// Count is how many there were.
func (s Snapshot) Count() (n uint64) {
	for _, c := range s.Counts {
		n += c
	}
	return n
}

// Quantile is what a share of the durations are not longer than: the bound of its bucket; of those that have none, the last bound. 0:
// there were no durations.
func (s Snapshot) Quantile(share float64) time.Duration {
	rank := uint64(math.Ceil(share * float64(s.Count())))
	var n uint64
	for i, c := range s.Counts {
		if n += c; n >= rank && n > 0 {
			return s.Bounds[min(i, len(s.Bounds)-1)]
		}
	}
	return 0
}
