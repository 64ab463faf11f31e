//go:build e2e

package loader

import (
	"os/exec"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// TestUses: what is in a map is counted as it is by walking it entry by entry, and what programs take as soon as the kernel measures it.
func TestUses(t *testing.T) {
	l := openLoader(t, privateConfig(t))
	dir := makeCgroup(t, l)
	g, err := l.NewGuard(dir, Options{MaxConns: 5})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if err := fillGuard(l, g); err != nil {
		t.Fatal(err)
	}
	uses, err := l.MapUses()
	if err != nil {
		t.Fatal(err)
	}
	byName := l.maps.byName()
	full := 0
	for _, u := range uses {
		m := *byName[u.Name]
		if m == nil {
			continue // one of the LSM programs'
		}
		n, err := walked(m)
		if err != nil || n != u.Entries || u.Capacity != int(m.MaxEntries()) || u.Entries > u.Capacity {
			t.Errorf("%+v, walked: %d, %v", u, n, err)
		}
		if n > 0 {
			full++
		}
	}
	if full < 4 {
		t.Errorf("only %d maps hold anything: %+v", full, uses)
	}
	stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		t.Fatal(err)
	}
	defer stats.Close()
	if err := exec.Command("true").Run(); err != nil { // a program looks at every execution of the host
		t.Fatal(err)
	}
	programs, err := l.ProgramUses()
	if err != nil || len(programs) == 0 {
		t.Fatalf("%+v, %v", programs, err)
	}
	for _, p := range programs {
		if p.Name == "" || p.Runs == 0 || p.Time <= 0 {
			t.Errorf("%+v", p)
		}
	}
}
