package histogram

import (
	"slices"
	"sync"
	"testing"
	"time"
)

func TestDurationsAreInTheirBuckets(t *testing.T) {
	t.Parallel()
	h := New(time.Millisecond, time.Second)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for _, d := range []time.Duration{0, time.Millisecond, time.Millisecond + 1, time.Second, time.Minute} {
				h.Observe(d)
			}
		})
	}
	wg.Wait()
	s := h.Snapshot()
	if want := []uint64{8, 8, 4}; !slices.Equal(s.Counts, want) || s.Count() != 20 || s.Sum != 4*(time.Minute+time.Second+2*time.Millisecond+1) {
		t.Errorf("%+v, want the counts %v", s, want)
	}
}

func TestCountingAllocatesNothing(t *testing.T) {
	h := New(time.Millisecond, time.Second)
	if n := testing.AllocsPerRun(100, func() { h.Observe(time.Second) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
