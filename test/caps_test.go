//go:build e2e

package test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/nemoclaw/nemoclaw/test/harness"
)

// The documented caps of one sandbox: docs/security.md.
const (
	connectionCap = 1024
	nameCap       = 4096
)

// TestConnectionCap: one connection more than the cap is refused in the call, with a record, and a closed one makes room.
func TestConnectionCap(t *testing.T) {
	t.Parallel()
	a4, _ := harness.W.Addr()
	harness.W.DNS.Set("cap.test", a4)
	server := harness.W.TCP(t, a4, 7000)
	const tries = connectionCap + 200
	r, out := harness.W.Probe(t, harness.Box{Policy: network(`{domain: cap.test, ports: [7000], protocol: tcp}`)},
		fmt.Sprintf("hold cap.test 7000 %d", tries), "sleep 500ms", "say cap.test 7000 "+b64("room again"))
	// Never more. A few less on a busy machine: a dial that was begun a second time counts until it is over.
	if n := number(t, out[0].Out); n > connectionCap || n < connectionCap-8 || out[0].Errno != "EPERM" {
		t.Errorf("%d connections, then %q; want %d, then EPERM\n%s", n, out[0].Errno, connectionCap, r.Dump())
	}
	// For the same reason a few more may have reached the server.
	if n := server.Conns(); n > connectionCap+8 {
		t.Errorf("%d connections reached the server", n)
	}
	if out[2].Out != "room again" {
		t.Errorf("after the others were closed: %q %q", out[2].Errno, out[2].Out)
	}
	if len(r.Find("network", "deny", "cap.test:7000")) == 0 {
		t.Errorf("no record of a refused connection\n%s", r.Dump())
	}
}

// TestNameCaps: the label below a wildcard is a channel, so new names come at a bounded rate, and there is an end to them. A name
// that was learnt goes on working.
func TestNameCaps(t *testing.T) {
	t.Parallel()
	const zones, perZone = 24, 190 // below the burst of one wildcard, above the cap together
	a4, _ := harness.W.Addr()
	var rules, attempts []string
	for z := range zones {
		zone := fmt.Sprintf("z%d.namecap.test", z)
		for i := range perZone {
			harness.W.DNS.Set(fmt.Sprintf("n%d.%s", i, zone), a4)
		}
		rules = append(rules, fmt.Sprintf(`{domain: "*.%s", ports: [443], protocol: tls}`, zone))
		attempts = append(attempts, fmt.Sprintf("lookups 0 %d %s", perZone, zone))
	}
	attempts = append(attempts, "dns 198.18.0.2 n0.z0.namecap.test A", fmt.Sprintf("dns 198.18.0.2 n%d.z%d.namecap.test A", perZone-1, zones-1))
	r, out := harness.W.Probe(t, harness.Box{Policy: network(rules...)}, attempts...)
	known := 0
	for _, o := range out[:zones] {
		known += number(t, o.Out)
	}
	if known != nameCap {
		t.Errorf("%d names were learnt, want %d", known, nameCap)
	}
	if first := out[zones].Out; !strings.HasPrefix(first, "NOERROR") {
		t.Errorf("a name that was learnt gives %q now", first)
	}
	if last := out[zones+1].Out; !strings.HasPrefix(last, "SERVFAIL") {
		t.Errorf("one name too many gives %q", last)
	}
	if n := len(r.Find("dns", "deny", "")); n != 1 {
		t.Errorf("%d records of it, want one\n%s", n, r.Dump())
	}
}

func TestNameRate(t *testing.T) {
	t.Parallel()
	const burst, tries = 200, 600
	a4, _ := harness.W.Addr()
	for i := range tries {
		harness.W.DNS.Set(fmt.Sprintf("n%d.namerate.test", i), a4)
	}
	r, out := harness.W.Probe(t, harness.Box{Policy: network(`{domain: "*.namerate.test", ports: [443], protocol: tls}`)}, fmt.Sprintf("lookups 0 %d namerate.test", tries))
	if n := number(t, out[0].Out); n < burst || n > burst+100 {
		t.Errorf("%d new names at once, want about %d", n, burst)
	}
	if n := harness.W.DNS.Asked("namerate.test"); n > 2*(burst+100) {
		t.Errorf("%d of them were asked upstream", n)
	}
	if n := len(r.Find("dns", "deny", "")); n != 1 {
		t.Errorf("%d records of it, want one\n%s", n, r.Dump())
	}
}
