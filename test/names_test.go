//go:build e2e

package test

import (
	"encoding/base64"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/nemoclaw/nemoclaw/test/harness"
)

// noEntry wants no request at s.
func noEntry(t *testing.T, s *harness.Server, why string) {
	t.Helper()
	if r := s.Requests(); len(r) > 0 {
		t.Errorf("%s: the server was asked %+v", why, r)
	}
}

func firstWord(s string) string {
	w, _, _ := strings.Cut(s, " ")
	return w
}

func TestServerNameMustBeTheName(t *testing.T) {
	t.Parallel()
	a4, _ := harness.W.Addr()
	harness.W.DNS.Set("sni.test", a4)
	harness.W.DNS.Set("evil.sni.test", a4)
	server := harness.W.HTTPS(t, a4, 443, harness.Hello)
	policy := network(`{domain: sni.test, ports: [443], protocol: https}`)
	r, out := harness.W.Probe(t, harness.Box{Policy: policy, Env: harness.TrustCA()},
		"tls sni.test 443 evil.sni.test",
		"tls sni.test 443 -", // no server name at all
		"say sni.test 443 "+b64("GET / HTTP/1.1\r\nHost: sni.test\r\n\r\n"),
		"say sni.test 443 "+b64("SSH-2.0-probe\r\n"),
		"say sni.test 443 "+b64("CONNECT evil.sni.test:443 HTTP/1.1\r\n\r\n"),
	)
	for _, o := range out {
		if o.Errno == "" && strings.Contains(o.Out, "hello") {
			t.Errorf("%q reached the server: %s", o.Op, o.Out)
		}
	}
	noEntry(t, server, "a wrong server name")
	if n := len(r.Find("network", "deny", "")); n < len(out) {
		t.Errorf("%d refusals recorded, want one for each of %d attempts\n%s", n, len(out), r.Dump())
	}
	_, out = harness.W.Probe(t, harness.Box{Policy: policy, Env: harness.TrustCA()},
		"tls sni.test 443 sni.test", "tls-cut sni.test 443 sni.test 40", "tls-cut sni.test 443 sni.test 1",
		"tls-rec sni.test 443 sni.test 30", "tls-rec sni.test 443 sni.test 40")
	for _, o := range out {
		if o.Errno != "" || !strings.Contains(o.Out, "hello from sni.test") {
			t.Errorf("%q gave %q %q", o.Op, o.Errno, o.Out)
		}
	}
	_, out = harness.W.Probe(t, harness.Box{Policy: policy, Env: harness.TrustCA()},
		"tls-cut sni.test 443 evil.sni.test 20", "tls-rec sni.test 443 evil.sni.test 20")
	for _, o := range out {
		if o.Errno == "" {
			t.Errorf("%q reached the server: a split ClientHello hides the name", o.Op)
		}
	}
	for _, req := range server.Requests() {
		if req.SNI != "sni.test" {
			t.Errorf("the server was asked for %q", req.SNI)
		}
	}
}

func TestEncryptedClientHello(t *testing.T) {
	t.Parallel()
	a4, _ := harness.W.Addr()
	harness.W.DNS.Set("outer.ech.test", a4)
	key, configs, err := harness.ECH("outer.ech.test")
	if err != nil {
		t.Fatal(err)
	}
	server := harness.W.HTTPS(t, a4, 443, harness.Hello, key)
	attempt := "ech outer.ech.test 443 inner.ech.test " + base64.StdEncoding.EncodeToString(configs)
	rule := `{domain: outer.ech.test, ports: [443], protocol: https%s}`
	r, out := harness.W.Probe(t, harness.Box{Policy: network(fmt.Sprintf(rule, "")), Env: harness.TrustCA()}, attempt)
	if out[0].Errno == "" {
		t.Errorf("an encrypted ClientHello went through: %s", out[0].Out)
	}
	noEntry(t, server, "ECH without `ech: allow`")
	if e := r.Find("network", "deny", ""); len(e) != 1 || !strings.Contains(e[0].Reason, "ech: allow") {
		t.Errorf("the record does not say what to do\n%s", r.Dump())
	}
	_, out = harness.W.Probe(t, harness.Box{Policy: network(fmt.Sprintf(rule, ", ech: allow")), Env: harness.TrustCA()}, attempt)
	if out[0].Errno != "" || !strings.Contains(out[0].Out, "hello") {
		t.Errorf("with `ech: allow` the server did not answer: %q %q", out[0].Errno, out[0].Out)
	}
}

// TestAnswersThatLeadInside: the proxy resolves by itself and dials only what it has checked, so a name that is allowed
// does not open the host's own networks.
func TestAnswersThatLeadInside(t *testing.T) {
	t.Parallel()
	inside := []string{
		"127.0.0.1", "127.8.9.1", "0.0.0.0", "10.9.0.1", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1", "198.18.1.1", "224.0.0.1",
		"255.255.255.255", "::1", "::", "fe80::1", "fd00::1", "ff02::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "fd6e:656d:6f63::1:0",
	}
	local := harness.W.TCP(t, netip.MustParseAddr("127.0.0.1"), 4430)
	private := harness.W.TCP(t, netip.MustParseAddr("10.9.0.1"), 4430)
	var rules, attempts []string
	for i, a := range inside {
		name := fmt.Sprintf("n%d.inside.test", i)
		harness.W.DNS.Set(name, netip.MustParseAddr(a))
		rules = append(rules, fmt.Sprintf("{domain: %s, ports: [4430], protocol: tcp}", name))
		attempts = append(attempts, fmt.Sprintf("say %s 4430 %s", name, b64("let me in")))
	}
	r, out := harness.W.Probe(t, harness.Box{Policy: network(rules...)}, attempts...)
	for i, o := range out {
		if strings.Contains(o.Out, "let me in") {
			t.Errorf("the answer %s was dialled", inside[i])
		}
		once(t, r, "network", fmt.Sprintf("n%d.inside.test:4430", i))
	}
	if local.Conns()+private.Conns() > 0 {
		t.Errorf("%d connections reached loopback, %d a private network", local.Conns(), private.Conns())
	}
	quiet(t)

	// A policy that names the network opens it.
	policy := network(`{domain: n3.inside.test, ports: [4430], protocol: tcp}`, `{cidr: 10.9.0.0/16, ports: [4430], protocol: tcp}`)
	_, out = harness.W.Probe(t, harness.Box{Policy: policy}, attempts[3], "tcp 10.9.0.1 4430")
	if out[0].Out != "let me in" {
		t.Errorf("with a CIDR rule the private server did not answer: %q %q", out[0].Errno, out[0].Out)
	}
	check(t, out[1], "")
}

// TestRebinding: the name server gives a good answer to the first question and an address inside to the next ones.
func TestRebinding(t *testing.T) {
	t.Parallel()
	a4, _ := harness.W.Addr()
	good := harness.W.TCP(t, a4, 4431)
	bad := harness.W.TCP(t, netip.MustParseAddr("127.0.0.1"), 4431)
	var asked atomic.Int32
	harness.W.DNS.SetFunc("rebind.test", func() []netip.Addr {
		if asked.Add(1) <= 2 { // A and AAAA of the first look-up
			return []netip.Addr{a4}
		}
		return []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	})
	attempt := "say rebind.test 4431 " + b64("ping")
	_, out := harness.W.Probe(t, harness.Box{Policy: network(`{domain: rebind.test, ports: [4431], protocol: tcp}`)},
		"lookup rebind.test", attempt, "sleep 1500ms", attempt, attempt)
	if bad.Conns() > 0 {
		t.Errorf("%d connections were rebound to loopback", bad.Conns())
	}
	if strings.Contains(out[0].Out, a4.String()) || strings.Contains(out[0].Out, "127.") {
		t.Errorf("the sandbox sees real addresses: %s", out[0].Out)
	}
	_ = good
}

// TestEncodedAddresses: other spellings of an address are that address.
func TestEncodedAddresses(t *testing.T) {
	t.Parallel()
	a4, _ := harness.W.Addr()
	server := harness.W.HTTP(t, a4, 80, harness.Hello)
	b := a4.As4()
	number := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	policy := harness.Files + "process:\n  allow:\n    - {command: curl}\n    - {command: sh}\n" +
		"network:\n  allow:\n    - {domain: encoded.test, ports: [80], protocol: http}\n"
	var script strings.Builder
	hosts := []string{
		fmt.Sprint(number), fmt.Sprintf("0x%x", number), fmt.Sprintf("0%o", number), fmt.Sprintf("%d.%d.%d", b[0], b[1], uint32(b[2])<<8|uint32(b[3])),
		fmt.Sprintf("0%o.0%o.0%o.0%o", b[0], b[1], b[2], b[3]), fmt.Sprintf("[::ffff:%s]", a4), fmt.Sprintf("[::%s]", a4), fmt.Sprintf("[64:ff9b::%s]", a4),
		"[::ffff:127.0.0.1]", "2130706433", "0x7f.1",
	}
	for _, h := range hosts {
		fmt.Fprintf(&script, "curl -sS -m 5 'http://%s/' && echo REACHED %s\n", h, h)
	}
	r := harness.W.Run(t, harness.Box{Policy: policy}, "sh", "-c", script.String())
	if strings.Contains(r.Out, "REACHED") {
		t.Errorf("an encoded address was reached\n%s", r.Dump())
	}
	if server.Conns() > 0 {
		t.Errorf("%d connections reached the server", server.Conns())
	}
	quiet(t)
}

func TestResolver(t *testing.T) {
	t.Parallel()
	a4, a6 := harness.W.Addr()
	harness.W.DNS.Set("both.dns.test", a4, a6)
	harness.W.DNS.Set("four.dns.test", a4)
	harness.W.DNS.Set("wild.card.dns.test", a4)
	_, configs, err := harness.ECH("both.dns.test")
	if err != nil {
		t.Fatal(err)
	}
	harness.W.DNS.SetECH("both.dns.test", configs)
	policy := network(`{domain: both.dns.test, ports: [443], protocol: tls}`, `{domain: four.dns.test, ports: [443], protocol: tls}`,
		`{domain: missing.dns.test, ports: [443], protocol: tls}`, `{domain: "*.card.dns.test", ports: [443], protocol: tls}`)
	r, out := harness.W.Probe(t, harness.Box{Policy: policy},
		"dns 198.18.0.2 both.dns.test A", "dns 198.18.0.2 both.dns.test AAAA", "dns 198.18.0.2 four.dns.test AAAA",
		"dns 198.18.0.2 missing.dns.test A", "dns 198.18.0.2 wild.card.dns.test A", "dns 198.18.0.2 secret-data.elsewhere.test TXT",
		"dns 198.18.0.2 secret-data.elsewhere.test A", "dns 198.18.0.2 both.dns.test ANY", "dns fd6e:656d:6f63::2 both.dns.test A",
		"dns 198.51.100.53 secret-data.elsewhere.test A",
		"dns 198.18.0.2 both.dns.test HTTPS", "dns 198.18.0.2 0.1.18.198.in-addr.arpa PTR")
	want := []string{"NOERROR; both.dns.test. ", "NOERROR; both.dns.test. ", "NOERROR", "NXDOMAIN", "NOERROR; wild.card.dns.test. "}
	for i, w := range want {
		if !strings.HasPrefix(out[i].Out, w) {
			t.Errorf("%q: %q %s, want %q", out[i].Op, out[i].Out, out[i].Errno, w)
		}
	}
	if strings.Contains(out[0].Out, a4.String()) || strings.Contains(out[1].Out, a6.String()) {
		t.Errorf("real addresses are shown inside: %q, %q", out[0].Out, out[1].Out)
	}
	if out[2].Out != "NOERROR" {
		t.Errorf("a name without IPv6 has %q", out[2].Out)
	}
	if !strings.HasPrefix(out[8].Out, "NOERROR; both.dns.test. ") {
		t.Errorf("the resolver's IPv6 address gave %q %s", out[8].Out, out[8].Errno)
	}
	if https := out[10].Out; !strings.HasPrefix(https, "NOERROR") || strings.Contains(https, "ech=") {
		t.Errorf("an HTTPS record is shown as %q %s", https, out[10].Errno)
	}
	if ptr := out[11].Out; !strings.HasPrefix(ptr, "NOERROR; 0.1.18.198.in-addr.arpa. ") || !strings.Contains(ptr, "dns.test.") {
		t.Errorf("the name of a synthetic address is %q %s", ptr, out[11].Errno)
	}
	if n := harness.W.DNS.Asked("elsewhere.test"); n > 0 {
		t.Errorf("%d questions for a name without a rule left the host\n%s", n, r.Dump())
	}
	quiet(t)
}
