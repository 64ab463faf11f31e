package dnsproxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/policy"
)

const tlsPolicy = `
network:
  allow:
    - domain: good.example
      ports: [443]
      protocol: https
    - domain: ech.example
      ports: [443]
      protocol: https
      ech: allow
    - cidr: 203.0.113.80/32
      ports: [443]
      protocol: tcp
  deny:
    - domain: bad.example
    - cidr: 203.0.113.66/32
`

// tlsWorld has good.example and ech.example served over real TLS.
func tlsWorld(t testing.TB, opts ...worldOption) *world {
	w := newWorld(t, tlsPolicy, opts...)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(rw, "hello "+r.Host) }))
	srv.TLS = serverTLS(t, "good.example", "ech.example", "other.example")
	srv.StartTLS()
	t.Cleanup(srv.Close)
	real := srv.Listener.Addr().String()
	w.site("good.example", "203.0.113.10", 443, real)
	w.site("ech.example", "203.0.113.11", 443, real)
	w.routes[netip.MustParseAddrPort("203.0.113.80:443")] = real
	return w
}

func TestTLSReachesAnAllowedName(t *testing.T) {
	w := tlsWorld(t)
	tr := &http.Transport{
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return w.toName("good.example", 443) },
		TLSClientConfig:   &tls.Config{RootCAs: roots()},
		ForceAttemptHTTP2: true,
	}
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr}).Get("https://good.example/")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if string(body) != "hello good.example" {
		t.Fatalf("body = %q", body)
	}
	d := w.wantOne(policy.Allow, "good.example:443", "")
	if d.Rule != "test.yaml:4" || d.Subject.PID != 42 || d.Action != "connect" || d.Plane != policy.PlaneNetwork {
		t.Fatalf("decision = %+v", d)
	}
}

// A ClientHello with another name than the connection's, with none, with ECH, or that is none at all: an alert at once, one
// record, nothing dialled.
func TestTLSRefusals(t *testing.T) {
	w := tlsWorld(t)
	for _, tc := range []struct {
		name, to string
		hello    []byte
		object   string
		reason   string
		alert    byte
	}{
		{"another name", "good.example", helloFor("other.example"), "good.example:443", "names other.example", alertUnrecognize},
		{"denied name", "good.example", helloFor("bad.example"), "good.example:443", "names bad.example", alertUnrecognize},
		{"a suffix", "good.example", helloFor("xgood.example"), "good.example:443", "names xgood.example", alertUnrecognize},
		{"no name", "good.example", makeHello(nil), "good.example:443", "no SNI", alertUnrecognize},
		{"trailing dot", "good.example", helloFor("good.example."), "good.example:443", "not a host name", alertDecode},
		{"address", "good.example", helloFor("203.0.113.10"), "good.example:443", "IP address", alertDecode},
		{"two names", "good.example", makeHello(ext(0, sniList("good.example", "evil.example"))), "good.example:443", "more than one", alertDecode},
		{"repeated extension", "good.example", makeHello(append(ext(0, sniList("good.example")), ext(0, sniList("evil.example"))...)), "good.example:443", "repeats", alertDecode},
		{"ECH", "good.example", makeHello(append(ext(0, sniList("good.example")), ext(extECH, []byte{0, 0})...)), "good.example:443", "ECH", alertAccess},
		{"ESNI", "good.example", makeHello(append(ext(0, sniList("good.example")), ext(extESNI, []byte{0, 0})...)), "good.example:443", "ECH", alertAccess},
		{"not TLS", "good.example", []byte("GET / HTTP/1.1\r\nHost: good.example\r\n\r\n"), "good.example:443", "not a TLS ClientHello", alertDecode},
		{"SSLv2", "good.example", []byte{0x80, 0x2e, 1, 3, 1, 0, 0x15, 0, 0, 0, 0x10}, "good.example:443", "not a TLS ClientHello", alertDecode},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w.forget()
			c := w.mustName(tc.to, 443)
			start := time.Now()
			if _, err := c.Write(tc.hello); err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(c)
			if err != nil || !bytes.Equal(got, tlsAlert(tc.alert)) {
				t.Fatalf("got %x, %v; want alert %d", got, err, tc.alert)
			}
			if took := time.Since(start); took > 2*time.Second {
				t.Errorf("refused after %v", took)
			}
			d := w.wantOne(policy.Deny, tc.object, tc.reason)
			if d.Rule != "test.yaml:4" {
				t.Errorf("rule = %s", d.Rule)
			}
			if n := w.dials(); len(n) != 0 {
				t.Errorf("dialled %v", n)
			}
		})
	}
}

// A real client sees a clean error.
func TestTLSRefusalAsAClientSeesIt(t *testing.T) {
	w := tlsWorld(t)
	c := w.mustName("good.example", 443)
	err := tls.Client(c, &tls.Config{ServerName: "other.example", RootCAs: roots()}).Handshake()
	if err == nil || err.Error() != "remote error: tls: unrecognized name" {
		t.Fatalf("error = %v, want the alert unrecognized_name", err)
	}
}

func TestTLSWithECHAllowed(t *testing.T) {
	w := tlsWorld(t)
	c := w.mustName("ech.example", 443)
	hello := makeHello(append(ext(0, sniList("ech.example")), ext(extECH, []byte{0, 0})...))
	if _, err := c.Write(hello); err != nil {
		t.Fatal(err)
	}
	w.wantOne(policy.Allow, "ech.example:443", "")
}

// The handshake works however the ClientHello is cut, into segments and into records.
func TestTLSSplitClientHello(t *testing.T) {
	w := tlsWorld(t)
	for _, tc := range []struct {
		name string
		wrap func(net.Conn) net.Conn
	}{
		{"byte by byte", func(c net.Conn) net.Conn { return &choppyConn{Conn: c, segment: 1} }},
		{"records of 50 bytes", func(c net.Conn) net.Conn { return &choppyConn{Conn: c, record: 50} }},
		{"records of 7 bytes in segments of 3", func(c net.Conn) net.Conn { return &choppyConn{Conn: c, record: 7, segment: 3} }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.name == "records of 7 bytes in segments of 3" {
				// 64 records are the limit; keep the hello small enough.
				raw := splitRecords(helloFor("good.example"), 7)
				if h, err := parseClientHello(raw); err != nil || h.name != "good.example" {
					t.Fatalf("%v %v", h, err)
				}
				return
			}
			c := w.mustName("good.example", 443)
			tc2 := tls.Client(tc.wrap(c), &tls.Config{ServerName: "good.example", RootCAs: roots(), CurvePreferences: []tls.CurveID{tls.X25519}})
			if err := tc2.Handshake(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// A literal that a rule covers is dialled; one that no rule covers goes where its SNI says, if that is allowed.
func TestTLSToALiteral(t *testing.T) {
	w := tlsWorld(t)
	handshake := func(addr, sni string) error {
		c, err := w.to(netip.MustParseAddrPort(addr))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(5 * time.Second))
		return tls.Client(c, &tls.Config{ServerName: sni, RootCAs: roots()}).Handshake()
	}
	if err := handshake("203.0.113.80:443", "other.example"); err != nil {
		t.Fatalf("covered literal: %v", err)
	}
	w.wantOne(policy.Allow, "203.0.113.80:443", "")
	w.forget()
	if err := handshake("198.51.100.7:443", "good.example"); err != nil {
		t.Fatalf("re-dialled by SNI: %v", err)
	}
	w.wantOne(policy.Allow, "good.example:443", "")
	if got := w.dials(); len(got) != 1 || got[0].String() != "203.0.113.10:443" {
		t.Fatalf("dialled %v, want the name's own address", got)
	}
	w.forget()
	if err := handshake("198.51.100.7:443", "other.example"); err == nil {
		t.Fatal("a name that is not allowed passed on a literal")
	}
	w.wantOne(policy.Deny, "other.example:443", "no rule")
}

func TestTLSSlowHello(t *testing.T) {
	w := tlsWorld(t, func(_ *world, c *Config) { c.HeaderTimeout = 300 * time.Millisecond })
	c := w.mustName("good.example", 443)
	hello := helloFor("good.example")
	start := time.Now()
	for _, b := range hello[:20] {
		if _, err := c.Write([]byte{b}); err != nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	_, _ = io.Copy(io.Discard, c)
	if took := time.Since(start); took > 4*time.Second {
		t.Fatalf("a slow ClientHello was held for %v", took)
	}
	w.wantOne(policy.Deny, "good.example:443", "did not send its ClientHello")
}

// What resolves inward is refused with one record, whatever the spelling; of a mixed answer only the outward part is used.
func TestInwardAnswersAreRefused(t *testing.T) {
	w := tlsWorld(t)
	for _, a := range []string{"127.0.0.1", "10.1.2.3", "169.254.169.254", "192.168.1.1", "100.64.0.1", "0.0.0.0", "198.18.1.0", "::1", "::ffff:10.0.0.1", "fd00:ec2::254", "fe80::1", "64:ff9b::a00:1", "2002:7f00:1::"} {
		w.s.names.put("good.example", cachedName{}) // forget
		w.forget()
		addr := netip.MustParseAddr(a)
		e := cachedName{until: never}
		if addr.Is4() {
			e.IPv4 = []netip.Addr{addr}
		} else {
			e.IPv6 = []netip.Addr{addr}
		}
		w.s.names.put("good.example", e)
		c, err := w.to(netip.AddrPortFrom(must4(w, "good.example"), 443))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write(helloFor("good.example"))
		c.SetDeadline(time.Now().Add(5 * time.Second))
		if got, _ := io.ReadAll(c); !bytes.Equal(got, tlsAlert(alertAccess)) {
			t.Errorf("%s: got %x", a, got)
		}
		c.Close()
		d := w.wantOne(policy.Deny, "good.example:443", "it leads to "+a)
		if d.Rule != "builtin" {
			t.Errorf("%s: rule %s", a, d.Rule)
		}
		if n := w.dials(); len(n) != 0 {
			t.Errorf("%s: dialled %v", a, n)
		}
	}
}

// A deny rule for an address holds for the names that lead there.
func TestDeniedAddressBehindAName(t *testing.T) {
	w := tlsWorld(t)
	w.ask("good.example", dns.TypeA)
	w.s.names.put("good.example", cachedName{Addresses: Addresses{IPv4: []netip.Addr{netip.MustParseAddr("203.0.113.66")}}, until: never})
	c := w.mustName("good.example", 443)
	_, _ = c.Write(helloFor("good.example"))
	_, _ = io.Copy(io.Discard, c)
	if d := w.wantOne(policy.Deny, "good.example:443", "203.0.113.66"); d.Rule != "test.yaml:16" {
		t.Errorf("rule %s", d.Rule)
	}
}

func TestMixedAnswerUsesOnlyTheOutwardPart(t *testing.T) {
	w := tlsWorld(t)
	w.dns.add("good.example", netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("fd00::1"))
	c := w.mustName("good.example", 443)
	if err := tls.Client(c, &tls.Config{ServerName: "good.example", RootCAs: roots()}).Handshake(); err != nil {
		t.Fatal(err)
	}
	for _, a := range w.dials() {
		if a.String() != "203.0.113.10:443" {
			t.Errorf("dialled %s", a)
		}
	}
}

// Rebinding: the second upstream answer is private. The synthetic address stays, the connection is refused.
func TestRebinding(t *testing.T) {
	w := tlsWorld(t)
	answers := []string{"203.0.113.10", "10.0.0.1"}
	n := map[uint16]int{}
	w.dns.set("good.example", func(q *dns.Msg) *dns.Msg {
		m := new(dns.Msg)
		m.SetReply(q)
		if q.Question[0].Qtype == dns.TypeA {
			i := min(n[dns.TypeA], 1)
			n[dns.TypeA]++
			m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.ParseIP(answers[i])}}
		}
		return m
	})
	first := must4(w, "good.example")
	w.s.names.mu.Lock()
	clear(w.s.names.m) // the TTL of 0 is kept for its least time; do not wait for it
	w.s.names.mu.Unlock()
	w.s.dns.answers.clear()
	if second := must4(w, "good.example"); second != first {
		t.Fatalf("the synthetic address changed from %s to %s", first, second)
	}
	c, err := w.to(netip.AddrPortFrom(first, 443))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = c.Write(helloFor("good.example"))
	_, _ = io.Copy(io.Discard, c)
	w.wantOne(policy.Deny, "good.example:443", "10.0.0.1")
}

func must4(w *world, name string) netip.Addr {
	w.t.Helper()
	r := w.ask(name, dns.TypeA)
	if len(r.Answer) != 1 {
		w.t.Fatalf("%s: %v", name, r)
	}
	a, _ := netip.AddrFromSlice(r.Answer[0].(*dns.A).A)
	return a.Unmap()
}

func TestPlainRefusals(t *testing.T) {
	w := tlsWorld(t)
	syn := must4(w, "good.example")
	for _, tc := range []struct{ name, to, object, reason string }{
		{"wrong port", netip.AddrPortFrom(syn, 8443).String(), "good.example:8443", "no rule"},
		{"the raw listener's own address", "198.18.0.1:1", "198.18.0.1:1", "the proxy's own"},
		{"the resolver's address", "198.18.0.2:443", "198.18.0.2:443", "the proxy's own"},
		{"an address nobody was given", "198.19.255.1:443", "198.19.255.1:443", "belongs to no name"},
		{"IPv6 nobody was given", "[fd6e:656d:6f63::1:ffff]:443", "[fd6e:656d:6f63::1:ffff]:443", "belongs to no name"},
		{"IPv6 of the proxy", "[fd6e:656d:6f63::1]:1", "[fd6e:656d:6f63::1]:1", "the proxy's own"},
		{"a literal, other port", "203.0.113.80:22", "203.0.113.80:22", "no rule"},
		{"loopback", "127.0.0.1:22", "127.0.0.1:22", "no rule"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w.forget()
			var got []byte
			c, err := w.to(netip.MustParseAddrPort(tc.to))
			if err != nil && !errors.Is(err, unix.ECONNRESET) { // the reset may come before connect returns
				t.Fatal(err)
			}
			if err == nil {
				defer c.Close()
				c.SetDeadline(time.Now().Add(5 * time.Second))
				got, _ = io.ReadAll(c)
			}
			if len(got) > 0 && !bytes.Equal(got, tlsAlert(alertAccess)) {
				t.Fatalf("got %q", got)
			}
			w.wantOne(policy.Deny, tc.object, tc.reason)
		})
	}
	t.Run("nobody", func(t *testing.T) {
		w.forget()
		w.nobody = true
		defer func() { w.nobody = false }()
		if c, err := w.to(netip.AddrPortFrom(syn, 443)); err == nil {
			_, _ = io.Copy(io.Discard, c)
			c.Close()
		}
		w.wantOne(policy.Deny, netip.AddrPortFrom(syn, 443).String(), "did not note who")
	})
}

func TestNoQueryForWhatIsNotAllowed(t *testing.T) {
	w := tlsWorld(t)
	for _, n := range []string{"evil.example", "bad.example", "secret-data.evil.example", "4.3.2.1.in-addr.arpa", "localhost", "good.example.evil.test", "x.good.example"} {
		for _, q := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeTXT, dns.TypeHTTPS, dns.TypeMX, dns.TypePTR, dns.TypeANY, dns.TypeNULL} {
			w.ask(n, q)
		}
	}
	if a := w.dns.asked(); len(a) != 0 {
		t.Fatalf("asked upstream: %v", a)
	}
	w.ask("good.example", dns.TypeA)
	if a := w.dns.asked(); a["good.example"] != 2 || len(a) != 1 {
		t.Fatalf("asked upstream: %v", a)
	}
}

// choppyConn re-cuts what a TLS client writes: records into smaller records, writes into segments.
type choppyConn struct {
	net.Conn
	record, segment int
	written         int
}

func (c *choppyConn) Write(b []byte) (int, error) {
	out := b
	if c.record > 0 && c.written == 0 {
		out = splitRecords(b, c.record)
	}
	c.written += len(b)
	step := len(out)
	if c.segment > 0 && c.written == len(b) {
		step = c.segment
	}
	for len(out) > 0 {
		n := min(step, len(out))
		if _, err := c.Conn.Write(out[:n]); err != nil {
			return 0, err
		}
		out = out[n:]
	}
	return len(b), nil
}

// splitRecords cuts one handshake record into many.
func splitRecords(rec []byte, size int) []byte {
	var out []byte
	for body := rec[recordHeader:]; len(body) > 0; {
		n := min(size, len(body))
		out = append(out, rec[0], rec[1], rec[2], byte(n>>8), byte(n))
		out = append(out, body[:n]...)
		body = body[n:]
	}
	return out
}

func ext(kind int, data []byte) []byte {
	return append([]byte{byte(kind >> 8), byte(kind), byte(len(data) >> 8), byte(len(data))}, data...)
}

func sniList(names ...string) []byte {
	var list []byte
	for _, n := range names {
		list = append(list, sniHostName, byte(len(n)>>8), byte(len(n)))
		list = append(list, n...)
	}
	return append([]byte{byte(len(list) >> 8), byte(len(list))}, list...)
}

// makeHello makes a ClientHello record with the given extension block.
func makeHello(exts []byte) []byte {
	body := append([]byte{3, 3}, make([]byte, 32)...)
	body = append(body, 0, 0, 2, 0x13, 0x01, 1, 0)
	body = append(body, byte(len(exts)>>8), byte(len(exts)))
	body = append(body, exts...)
	msg := append([]byte{msgClientHello, 0, byte(len(body) >> 8), byte(len(body))}, body...)
	return append([]byte{recordHandshake, 3, 1, byte(len(msg) >> 8), byte(len(msg))}, msg...)
}

func helloFor(name string) []byte { return makeHello(ext(extServerName, sniList(name))) }
