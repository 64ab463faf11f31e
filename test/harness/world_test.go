//go:build e2e

package harness

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"
)

func TestMain(m *testing.M) { Main(m) }

// The tests above this package prove absences (no packet, no query, nothing left). These prove that the world would have
// noticed.

func TestServersCountWhatReachesThem(t *testing.T) {
	a4, a6 := W.Addr()
	s := W.HTTP(t, a4, 80, Hello)
	raw := W.TCP(t, a6, 7)
	r, err := http.Get("http://" + a4.String() + "/path")
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if s.Conns() != 1 || len(s.Requests()) != 1 || s.Requests()[0].Path != "/path" {
		t.Errorf("the server saw %d connections, %v", s.Conns(), s.Requests())
	}
	c, err := net.Dial("tcp", raw.Addr.String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if raw.Bytes() != "x" {
		t.Errorf("the raw server read %q", raw.Bytes())
	}
}

func TestCaptureSeesWhatLeaves(t *testing.T) {
	away := netip.MustParseAddr("198.51.100.9")
	c, err := net.Dial("udp", netip.AddrPortFrom(away, 9).String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "a stranger"); err != nil {
		t.Fatal(err)
	}
	near, _ := W.Addr()
	if _, err := net.DialTimeout("tcp", netip.AddrPortFrom(near, 9).String(), time.Second); err == nil {
		t.Error("somebody listens where nobody should")
	}
	deadline := time.Now().Add(5 * time.Second)
	for len(W.Packets(away)) == 0 || len(W.Packets(near)) == 0 || len(W.Strangers()) == 0 {
		if time.Now().After(deadline) {
			t.Fatalf("the capture holds %v and %v", W.Packets(away), W.Packets(near))
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestNameServerRemembersQuestions(t *testing.T) {
	a4, _ := W.Addr()
	W.DNS.Set("known.harness.test", a4)
	r := &net.Resolver{PreferGo: true, Dial: func(_ context.Context, network, _ string) (net.Conn, error) {
		return net.Dial(network, Resolver.String())
	}}
	got, err := r.LookupNetIP(t.Context(), "ip4", "known.harness.test")
	if err != nil || len(got) != 1 || got[0].Unmap() != a4 {
		t.Errorf("the name has %v, %v", got, err)
	}
	if _, err := r.LookupNetIP(t.Context(), "ip4", "unknown.harness.test"); err == nil {
		t.Error("an unknown name was answered")
	}
	if W.DNS.Asked("unknown.harness.test") == 0 || W.DNS.Asked("never.harness.test") != 0 {
		t.Error("the questions were not remembered as asked")
	}
}
