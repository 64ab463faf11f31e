package dnsproxy

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"github.com/nemoclaw/nemoclaw/policy"
)

// TestStatsOfConnections: each connection counts once, by what became of it first, and a person's time is not the network's.
func TestStatsOfConnections(t *testing.T) {
	const thinks = 300 * time.Millisecond
	w, port := rawWorld(t, tcpServer(t, echo), func(_ *world, c *Config) {
		c.MaxConns = 2
		c.Ask = func(context.Context, policy.Decision) policy.Verdict {
			time.Sleep(thinks)
			return policy.Allow
		}
	})
	w.dns.add("nobody.example", netip.MustParseAddr("127.0.0.1"))
	for _, name := range []string{"local.example", "local.example", "asked.example"} {
		c := w.mustName(name, port)
		_, _ = io.WriteString(c, "x")
		_, _ = io.ReadFull(c, make([]byte, 1))
		c.Close()
		w.idle()
	}
	ends := func(port uint16) {
		if c, err := w.toName("local.example", port); err == nil { // else it was reset at once
			_, _ = io.ReadAll(c)
			c.Close()
		}
	}
	ends(port + 1)
	w.idle()
	a, b := w.mustName("local.example", port), w.mustName("local.example", port)
	for _, c := range []io.ReadWriter{a, b} {
		_, _ = io.WriteString(c, "x")
		_, _ = io.ReadFull(c, make([]byte, 1))
	}
	ends(port)
	s := w.s.Stats()
	want := map[ConnOutcome]uint64{ConnRelayed: 5, ConnLocal: 0, ConnRefused: 1, ConnFailed: 0, ConnFull: 1, ConnAbandoned: 0}
	if diff := cmp.Diff(want, s.Conns); diff != "" || s.Open != 2 || s.Sent != 5 || s.Received != 5 {
		t.Errorf("%s\n%+v", diff, s)
	}
	if s.Setup.Count() != 5 || s.Setup.Sum >= thinks {
		t.Errorf("%d were set up in %v", s.Setup.Count(), s.Setup.Sum)
	}
}

// TestStatsOfQueries: each query counts, from memory or not.
func TestStatsOfQueries(t *testing.T) {
	w := dnsWorld(t)
	for range 2 {
		for name, qtype := range map[string]uint16{
			"both.example": dns.TypeA, "four.example": dns.TypeAAAA, "gone.example": dns.TypeA, "bad.example": dns.TypeA,
			"unlisted.example": dns.TypeA, "more.unlisted.example": dns.TypeTXT, ".": dns.TypeNS,
		} {
			w.ask(name, qtype)
		}
	}
	want := map[DNSOutcome]uint64{DNSAnswered: 4, DNSNoName: 2, DNSBlocked: 2, DNSUnlisted: 4, DNSLimited: 0, DNSFailed: 0, DNSRefused: 2, DNSDropped: 0}
	if diff := cmp.Diff(want, w.s.Stats().Queries); diff != "" {
		t.Error(diff)
	}
}

// idle waits until no connection is open.
func (w *world) idle() {
	w.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); w.s.Stats().Open > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatal(fmt.Errorf("%d connections stay", w.s.Stats().Open))
		}
	}
}
