package loader

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/nemoclaw/nemoclaw/bpf"
	"github.com/nemoclaw/nemoclaw/policy"
)

// Counters are the exact numbers of decisions of one sandbox since its start, whether or not an event told of them.
type Counters struct {
	n          [hooks][3]uint64
	Lost       uint64 // events that the ring had no room for
	Suppressed uint64 // events held back because one hook had too many in a second
}

// Of returns how often a hook decided so. Packets that pass are not counted.
func (c Counters) Of(h Hook, v policy.Verdict) uint64 { return c.n[h][v] }

// Denied returns how often anything was refused.
func (c Counters) Denied() uint64 {
	var sum uint64
	for _, h := range c.n {
		sum += h[policy.Deny]
	}
	return sum
}

// Counters returns the sums over all processors.
func (g *Guard) Counters() (Counters, error) {
	var perCPU []bpf.GateCounters
	if err := g.l.maps.counts.Lookup(g.cgid, &perCPU); err != nil {
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return Counters{}, errClosed
		}
		return Counters{}, fmt.Errorf("read the sandbox's counters: %w", err)
	}
	var sum Counters
	for i := range perCPU {
		c := &perCPU[i]
		for h := range c.N {
			for v := range c.N[h] {
				sum.n[h][v] += c.N[h][v]
			}
		}
		sum.Lost += c.Lost
		sum.Suppressed += c.Suppressed
	}
	return sum, nil
}

// Conns returns how many connections count against MaxConns now.
func (g *Guard) Conns() (int, error) {
	var n uint64
	if err := g.l.maps.conns.Lookup(g.cgid, &n); err != nil {
		return 0, fmt.Errorf("read the sandbox's connection count: %w", err)
	}
	return int(n), nil
}

// Strays returns how often each hook refused a process below the parent cgroup that is in no sandbox, over all agents
// of this version.
func (l *Loader) Strays() (map[Hook]uint64, error) {
	strays := make(map[Hook]uint64)
	for h := range hooks {
		var perCPU []uint64
		if err := l.maps.strays.Lookup(uint32(h), &perCPU); err != nil {
			return nil, fmt.Errorf("read the count of stray processes: %w", err)
		}
		for _, n := range perCPU {
			strays[h] += n
		}
	}
	return strays, nil
}
