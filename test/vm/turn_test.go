//go:build vm

package vm

import (
	"cmp"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"
)

// turns are the tests that wait for a machine. One that runs keeps one processor busy, most of the time.
var turns = struct {
	sync.Mutex
	free    int
	waiting []*waiter
}{free: runtime.NumCPU() + 1}

type waiter struct {
	seconds int
	begin   chan struct{}
}

// turn is t.Parallel of a test that has a machine. Of those that wait, the one whose machine takes most of a processor, in seconds,
// goes first: begun last, it would run alone while the other processors have nothing to do. What a machine took is in its test's log.
func turn(t *testing.T, seconds int) {
	t.Helper()
	t.Parallel()
	w := &waiter{seconds: seconds, begin: make(chan struct{})}
	turns.Lock()
	turns.waiting = append(turns.waiting, w)
	turns.Unlock()
	// Those that are let go together are not all here in the same moment.
	time.AfterFunc(time.Second, func() { admit(0) })
	<-w.begin
	t.Cleanup(func() { admit(1) })
}

// admit lets tests go for which there is a place, after some more places have become free.
func admit(more int) {
	turns.Lock()
	defer turns.Unlock()
	turns.free += more
	for ; turns.free > 0 && len(turns.waiting) > 0; turns.free-- {
		longest := slices.MaxFunc(turns.waiting, func(a, b *waiter) int { return cmp.Compare(a.seconds, b.seconds) })
		turns.waiting = slices.DeleteFunc(turns.waiting, func(w *waiter) bool { return w == longest })
		close(longest.begin)
	}
}
