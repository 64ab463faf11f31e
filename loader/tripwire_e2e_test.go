//go:build e2e

package loader

import (
	"net/netip"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/policy"
)

func TestTripwire(t *testing.T) {
	w := newWorld(t, Options{Default: policy.Ask})
	got := make(chan TripEvent, 100)
	start := time.Now()
	wire, err := Tripwire(int(w.net.fd.Fd()), func(e TripEvent) { got <- e })
	must(t, err)
	t.Logf("set in %v", time.Since(start))

	// What a sandbox does, allowed and refused.
	for _, to := range []string{name4 + ":443", "[" + name6 + "]:443", "198.18.0.3:3128", "9.9.9.9:53", "198.18.0.1:1"} {
		_, fd := w.in.connect("tcp", to)
		w.in.try("send %s", fd)
		w.in.try("recv %s", fd)
		w.in.get("close %s", fd)
	}
	for _, to := range []string{"198.18.0.2:53", "[fd6e:656d:6f63::2]:53", "9.9.9.9:123", "127.0.0.1:9", "[::1]:9"} {
		fd := w.in.socket("udp", to)
		w.in.try("sendto %s %s", fd, to)
		w.in.try("recv %s", fd)
	}
	if n, err := wire.Count(); n != 0 || err != nil {
		t.Errorf("%d packets of a sandbox tripped (%v): %v", n, err, <-got)
	}

	// What only a hole would let out: the same from outside of the sandbox's cgroup.
	n := uint64(0)
	for _, to := range []string{"9.9.9.9:123", "[2001:db8::1]:123"} {
		fd := w.out.socket("udp", to)
		w.out.wants("ok", "sendto %s %s", fd, to)
		n++
		select {
		case e := <-got:
			if e.To != netip.MustParseAddrPort(to) || !e.From.Addr().IsLoopback() || e.Protocol != 17 {
				t.Errorf("reported %+v, want one to %s", e, to)
			}
		case <-time.After(5 * time.Second):
			t.Errorf("nothing reported for %s", to)
		}
	}
	if count, err := wire.Count(); count != n || err != nil {
		t.Errorf("%d packets counted, want %d (%v)", count, n, err)
	}
	_, fd := w.out.connect("tcp", "198.18.0.1:1")
	w.out.get("close %s", fd)
	if e := <-got; e.Protocol != 6 || e.To != netip.MustParseAddrPort("198.18.0.1:1") {
		t.Errorf("reported %+v", e)
	}
	start = time.Now()
	must(t, wire.Close())
	t.Logf("closed in %v", time.Since(start))
}
