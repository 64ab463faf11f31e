//go:build e2e

package loader

import (
	"testing"
	"time"
)

func TestOpenCost(t *testing.T) {
	cfg := privateConfig(t)
	start := time.Now()
	l := openLoader(t, cfg)
	t.Logf("first open: %v", time.Since(start))
	for range 5 {
		start = time.Now()
		again, err := Open(cfg)
		must(t, err)
		t.Logf("open with pins: %v", time.Since(start))
		must(t, again.Close())
	}
	dir := makeCgroup(t, l)
	for range 5 {
		start = time.Now()
		g, err := l.NewGuard(dir, Options{MaxConns: 10})
		must(t, err)
		a := time.Since(start)
		start = time.Now()
		must(t, g.Close())
		t.Logf("guard: %v, close %v", a, time.Since(start))
	}
}
