package dnsproxy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/nemoclaw/nemoclaw/policy"
)

const dnsPolicy = `
network:
  allow:
    - domain: both.example
      ports: [443]
      protocol: https
    - domain: four.example
      ports: [443]
      protocol: https
    - domain: six.example
      ports: [443]
      protocol: https
    - domain: gone.example
      ports: [443]
      protocol: https
    - domain: "**.wild.example"
      ports: [443]
      protocol: https
    - domain: some.ports.example
      ports: [443]
      protocol: https
  ask:
    - domain: asked.example
      ports: [443]
      protocol: https
  deny:
    - domain: bad.example
    - domain: "**.bad.example"
    - domain: some.ports.example
      ports: [22]
`

func dnsWorld(t testing.TB, opts ...worldOption) *world {
	w := newWorld(t, dnsPolicy, opts...)
	four, six := netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("2001:db8::1")
	w.dns.add("both.example", four, six)
	w.dns.add("asked.example", four)
	w.dns.add("four.example", four)
	w.dns.add("six.example", six)
	w.dns.add("some.ports.example", four)
	w.dns.add("a.wild.example", four)
	return w
}

func ede(m *dns.Msg) int {
	if o := m.IsEdns0(); o != nil {
		for _, e := range o.Option {
			if x, ok := e.(*dns.EDNS0_EDE); ok {
				return int(x.InfoCode)
			}
		}
	}
	return -1
}

func TestDNSAnswers(t *testing.T) {
	w := dnsWorld(t)
	for _, tc := range []struct {
		name  string
		qtype uint16
		rcode int
		addrs int
		ede   int
	}{
		{"both.example", dns.TypeA, 0, 1, -1},
		{"both.example", dns.TypeAAAA, 0, 1, -1},
		{"BOTH.Example", dns.TypeA, 0, 1, -1},
		{"four.example", dns.TypeA, 0, 1, -1},
		{"four.example", dns.TypeAAAA, 0, 0, -1}, // NODATA is mirrored
		{"six.example", dns.TypeA, 0, 0, -1},
		{"six.example", dns.TypeAAAA, 0, 1, -1},
		{"asked.example", dns.TypeA, 0, 1, -1},
		{"some.ports.example", dns.TypeA, 0, 1, -1}, // denied on another port only
		{"gone.example", dns.TypeA, dns.RcodeNameError, 0, -1},
		{"gone.example", dns.TypeAAAA, dns.RcodeNameError, 0, -1},
		{"a.wild.example", dns.TypeA, 0, 1, -1},
		{"none.wild.example", dns.TypeA, dns.RcodeNameError, 0, -1},
		{"bad.example", dns.TypeA, dns.RcodeNameError, 0, edeBlocked},
		{"x.y.bad.example", dns.TypeAAAA, dns.RcodeNameError, 0, edeBlocked},
		{"unlisted.example", dns.TypeA, 0, 1, -1},
		{"unlisted.example", dns.TypeAAAA, 0, 0, edeBlocked},
		{"unlisted.example", dns.TypeTXT, 0, 0, edeBlocked},
		{"both.example", dns.TypeHTTPS, 0, 0, -1},
		{"both.example", dns.TypeSVCB, 0, 0, -1},
		{"gone.example", dns.TypeHTTPS, dns.RcodeNameError, 0, -1},
		{"both.example", dns.TypeANY, dns.RcodeRefused, 0, -1},
		{"both.example", dns.TypeAXFR, dns.RcodeRefused, 0, -1},
		{".", dns.TypeNS, dns.RcodeRefused, 0, -1},
		{"localhost", dns.TypeA, 0, 1, -1},
		{"db.localhost", dns.TypeAAAA, 0, 1, -1},
		{ProxyName, dns.TypeA, 0, 1, -1},
		{`a\ b.both.example`, dns.TypeA, dns.RcodeNameError, 0, -1},
		{`both\.example`, dns.TypeA, dns.RcodeNameError, 0, -1},
	} {
		for range 2 { // once made, once from memory
			r := w.ask(tc.name, tc.qtype)
			if r.Rcode != tc.rcode || len(r.Answer) != tc.addrs || ede(r) != tc.ede {
				t.Errorf("%s %s: %s, %d records, ede %d; want %s, %d, %d", tc.name, dns.TypeToString[tc.qtype],
					dns.RcodeToString[r.Rcode], len(r.Answer), ede(r), dns.RcodeToString[tc.rcode], tc.addrs, tc.ede)
			}
			if r.Question[0].Name != dns.Fqdn(tc.name) {
				t.Errorf("question came back as %s, not %s", r.Question[0].Name, tc.name)
			}
			for _, rr := range r.Answer {
				if rr.Header().Ttl > answerTTL || rr.Header().Name != r.Question[0].Name {
					t.Errorf("%v", rr)
				}
			}
		}
	}
	// Both families of a name have the same index, and nothing real is shown.
	a := w.ask("both.example", dns.TypeA).Answer[0].(*dns.A).A
	aaaa := w.ask("both.example", dns.TypeAAAA).Answer[0].(*dns.AAAA).AAAA
	a4, _ := netip.AddrFromSlice(a)
	a6, _ := netip.AddrFromSlice(aaaa)
	i4, ok4 := indexOf(a4.Unmap())
	i6, ok6 := indexOf(a6)
	if !ok4 || !ok6 || i4 != i6 {
		t.Errorf("%s and %s", a4, a6)
	}
}

func TestDNSRecords(t *testing.T) {
	w := dnsWorld(t)
	for range 3 {
		w.ask("bad.example", dns.TypeA)
		w.ask("bad.example", dns.TypeAAAA)
		w.ask("unlisted.example", dns.TypeA)
		w.ask("both.example", dns.TypeA)
	}
	d := w.wantOne(policy.Deny, "bad.example", "deny rule")
	if d.Plane != policy.PlaneDNS || d.Action != "resolve" || !strings.HasPrefix(d.Rule, "test.yaml:") {
		t.Errorf("%+v", d)
	}
	w.forget()
	w.ask("c2.payload.unlisted.example", dns.TypeTXT)
	w.wantOne(policy.Deny, "c2.payload.unlisted.example", "TXT")
	w.forget()
	w.ask("a.wild.example", dns.TypeA)
	w.ask("a.wild.example", dns.TypeA)
	w.wantOne(policy.Allow, "a.wild.example", "first query")
}

func TestDNSPointer(t *testing.T) {
	w := dnsWorld(t)
	for _, q := range []uint16{dns.TypeA, dns.TypeAAAA} {
		rr := w.ask("both.example", q).Answer[0]
		var ip net.IP
		if a, ok := rr.(*dns.A); ok {
			ip = a.A
		} else {
			ip = rr.(*dns.AAAA).AAAA
		}
		rev, _ := dns.ReverseAddr(ip.String())
		r := w.ask(rev, dns.TypePTR)
		if len(r.Answer) != 1 || r.Answer[0].(*dns.PTR).Ptr != "both.example." {
			t.Errorf("%s: %v", rev, r.Answer)
		}
	}
	for rev, want := range map[string]string{"1.0.0.127.in-addr.arpa.": "localhost.", "3.0.18.198.in-addr.arpa.": ProxyName + "."} {
		if r := w.ask(rev, dns.TypePTR); len(r.Answer) != 1 || r.Answer[0].(*dns.PTR).Ptr != want {
			t.Errorf("%s: %v", rev, r.Answer)
		}
	}
	if r := w.ask("8.8.8.8.in-addr.arpa.", dns.TypePTR); r.Rcode != dns.RcodeNameError {
		t.Errorf("%v", r)
	}
}

// Other types are forwarded for listed names only, and come back without addresses.
func TestDNSOtherTypes(t *testing.T) {
	w := dnsWorld(t)
	w.dns.set("both.example", func(q *dns.Msg) *dns.Msg {
		m := new(dns.Msg)
		m.SetReply(q)
		h := dns.RR_Header{Name: q.Question[0].Name, Rrtype: q.Question[0].Qtype, Class: dns.ClassINET, Ttl: 100}
		switch q.Question[0].Qtype {
		case dns.TypeMX:
			m.Answer = []dns.RR{&dns.MX{Hdr: h, Preference: 10, Mx: "mail.both.example."}}
			m.Extra = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: "mail.both.example.", Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.ParseIP("203.0.113.9")}}
		case dns.TypeTXT:
			for i := range 100 {
				m.Answer = append(m.Answer, &dns.TXT{Hdr: h, Txt: []string{fmt.Sprintf("%0200d", i)}})
			}
		}
		return m
	})
	r := w.ask("both.example", dns.TypeMX)
	if len(r.Answer) != 1 || r.Answer[0].(*dns.MX).Mx != "mail.both.example." || len(r.Extra) != 1 /* OPT */ {
		t.Errorf("%v", r)
	}
	r = w.ask("both.example", dns.TypeTXT)
	if !r.Truncated || len(r.Answer) != 0 {
		t.Errorf("too large for UDP: truncated %v, %d records", r.Truncated, len(r.Answer))
	}
	q := new(dns.Msg)
	q.SetQuestion("both.example.", dns.TypeTXT)
	r, _, err := (&dns.Client{Net: "tcp"}).Exchange(q, w.tcpDNS)
	if err != nil || r.Truncated || len(r.Answer) != maxRecords {
		t.Errorf("over TCP: %v, %d records: %v", err, len(r.Answer), r.MsgHdr)
	}
}

func TestDNSMalformed(t *testing.T) {
	w := dnsWorld(t)
	head := func(id uint16, flags, qd, an, ns, ar uint16) []byte {
		var b []byte
		for _, v := range []uint16{id, flags, qd, an, ns, ar} {
			b = binary.BigEndian.AppendUint16(b, v)
		}
		return b
	}
	question := append(packName("both.example"), 0, 1, 0, 1)
	opt := []byte{0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0}
	cat := func(bs ...[]byte) (out []byte) {
		for _, b := range bs {
			out = append(out, b...)
		}
		return out
	}
	for _, tc := range []struct {
		name  string
		pkt   []byte
		rcode int // -1: no answer
	}{
		{"empty", nil, -1},
		{"short", []byte{1, 2, 3}, -1},
		{"a response", cat(head(1, 0x8000, 1, 0, 0, 0), question), -1},
		{"no question", head(1, 0, 0, 0, 0, 0), dns.RcodeFormatError},
		{"two questions", cat(head(1, 0, 2, 0, 0, 0), question, question), dns.RcodeFormatError},
		{"with an answer", cat(head(1, 0, 1, 1, 0, 0), question), dns.RcodeFormatError},
		{"opcode", cat(head(1, 0x2800, 1, 0, 0, 0), question), dns.RcodeNotImplemented},
		{"name cut", cat(head(1, 0, 1, 0, 0, 0), question[:5]), dns.RcodeFormatError},
		{"type cut", cat(head(1, 0, 1, 0, 0, 0), question[:len(question)-3]), dns.RcodeFormatError},
		{"pointer to itself", cat(head(1, 0, 1, 0, 0, 0), []byte{0xc0, 12, 0, 1, 0, 1}), dns.RcodeFormatError},
		{"pointer backwards", cat(head(1, 0, 1, 0, 0, 0), []byte{1, 'a', 0xc0, 12, 0, 1, 0, 1}), dns.RcodeFormatError},
		{"label of 64", cat(head(1, 0, 1, 0, 0, 0), []byte{64}, make([]byte, 64), []byte{0, 0, 1, 0, 1}), dns.RcodeFormatError},
		{"name of 256", cat(head(1, 0, 1, 0, 0, 0), []byte(strings.Repeat("\x3faaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 5)), []byte{0, 0, 1, 0, 1}), dns.RcodeFormatError},
		{"bytes behind", cat(head(1, 0, 1, 0, 0, 0), question, []byte{1}), dns.RcodeFormatError},
		{"EDNS version", cat(head(1, 0, 1, 0, 0, 1), question, []byte{0, 0, 41, 4, 208, 0, 1, 0, 0, 0, 0}), dns.RcodeBadVers},
		{"EDNS cut", cat(head(1, 0, 1, 0, 0, 1), question, opt[:8]), dns.RcodeFormatError},
		{"EDNS length", cat(head(1, 0, 1, 0, 0, 1), question, []byte{0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 9}), dns.RcodeFormatError},
		{"not EDNS", cat(head(1, 0, 1, 0, 0, 1), question, []byte{0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0}), dns.RcodeFormatError},
		{"CHAOS", cat(head(1, 0, 1, 0, 0, 0), packName("version.bind"), []byte{0, 16, 0, 3}), dns.RcodeRefused},
		{"good", cat(head(1, 0x100, 1, 0, 0, 1), question, opt), 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, err := net.Dial("udp", w.udpDNS)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_, _ = c.Write(tc.pkt)
			wait := 5 * time.Second
			if tc.rcode < 0 {
				wait = 50 * time.Millisecond
			}
			c.SetReadDeadline(time.Now().Add(wait))
			var b [1500]byte
			n, err := c.Read(b[:])
			if tc.rcode < 0 {
				if err == nil {
					t.Fatalf("answered %x", b[:n])
				}
				return
			}
			m := new(dns.Msg)
			if err != nil || m.Unpack(b[:n]) != nil || m.Rcode != tc.rcode || !m.Response || m.Id != 1 {
				t.Fatalf("%v %x %v", err, b[:n], m)
			}
		})
	}
}

// Queries over TCP, several in one write, in one connection; a silent or lying client is cut off.
func TestDNSOverTCP(t *testing.T) {
	w := dnsWorld(t)
	c, err := net.Dial("tcp", w.tcpDNS)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	var out []byte
	names := []string{"both.example.", "four.example.", "bad.example.", "unlisted.example."}
	for i, n := range names {
		q := new(dns.Msg)
		q.SetQuestion(n, dns.TypeA)
		q.Id = uint16(i)
		b, _ := q.Pack()
		out = append(binary.BigEndian.AppendUint16(out, uint16(len(b))), b...)
	}
	_, _ = c.Write(out)
	dc := &dns.Conn{Conn: c}
	for i := range names {
		m, err := dc.ReadMsg()
		if err != nil || m.Id != uint16(i) || m.Question[0].Name != names[i] {
			t.Fatalf("%d: %v %v", i, err, m)
		}
	}
	_, _ = c.Write([]byte{0xff, 0xff, 0, 0})
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && err == nil {
		t.Error("a query of 65,535 bytes was waited for")
	}
}

func TestDNSUpstreamFailures(t *testing.T) {
	w := dnsWorld(t)
	fail := func(rcode int) func(*dns.Msg) *dns.Msg {
		return func(q *dns.Msg) *dns.Msg {
			m := new(dns.Msg)
			m.SetRcode(q, rcode)
			return m
		}
	}
	w.dns.set("both.example", fail(dns.RcodeServerFailure))
	w.dns.set("four.example", fail(dns.RcodeRefused))
	w.dns.set("six.example", func(*dns.Msg) *dns.Msg { return nil }) // silence
	for _, n := range []string{"both.example", "four.example", "six.example"} {
		if r := w.ask(n, dns.TypeA); r.Rcode != dns.RcodeServerFailure || ede(r) != edeNoReach {
			t.Errorf("%s: %v", n, r)
		}
	}
}

// An answer counts only for the name that was asked, or the end of its CNAME chain.
func TestDNSPoison(t *testing.T) {
	w := dnsWorld(t)
	h := func(n string, rt uint16) dns.RR_Header {
		return dns.RR_Header{Name: n, Rrtype: rt, Class: dns.ClassINET, Ttl: 60}
	}
	reply := func(f func(m *dns.Msg)) func(*dns.Msg) *dns.Msg {
		return func(q *dns.Msg) *dns.Msg {
			m := new(dns.Msg)
			m.SetReply(q)
			f(m)
			return m
		}
	}
	w.dns.set("both.example", reply(func(m *dns.Msg) {
		m.Answer = []dns.RR{&dns.A{Hdr: h("evil.example.", dns.TypeA), A: net.ParseIP("203.0.113.66")}}
	}))
	if r := w.ask("both.example", dns.TypeA); len(r.Answer) != 0 {
		t.Errorf("another name's address was taken: %v", r)
	}
	w.dns.set("four.example", reply(func(m *dns.Msg) {
		m.Answer = []dns.RR{
			&dns.A{Hdr: h("end.example.", dns.TypeA), A: net.ParseIP("203.0.113.7")}, // order does not matter
			&dns.CNAME{Hdr: h("four.example.", dns.TypeCNAME), Target: "mid.example."},
			&dns.CNAME{Hdr: h("mid.example.", dns.TypeCNAME), Target: "end.example."},
			&dns.A{Hdr: h("other.example.", dns.TypeA), A: net.ParseIP("203.0.113.66")},
		}
	}))
	a, err := w.s.cfg.Upstream.Lookup(t.Context(), "four.example")
	if err != nil || len(a.IPv4) != 1 || a.IPv4[0].String() != "203.0.113.7" {
		t.Errorf("%v %v", a, err)
	}
	w.dns.set("six.example", reply(func(m *dns.Msg) {
		m.Answer = []dns.RR{
			&dns.CNAME{Hdr: h("six.example.", dns.TypeCNAME), Target: "x.example."},
			&dns.CNAME{Hdr: h("x.example.", dns.TypeCNAME), Target: "six.example."},
		}
	}))
	if r := w.ask("six.example", dns.TypeA); r.Rcode != 0 || len(r.Answer) != 0 {
		t.Errorf("a CNAME loop: %v", r)
	}
	// An answer to another question (or with another id) is not an answer.
	w.dns.set("asked.example", func(q *dns.Msg) *dns.Msg {
		m := new(dns.Msg)
		m.SetReply(q)
		m.Question[0].Name = "evil.example."
		m.Answer = []dns.RR{&dns.A{Hdr: h("asked.example.", dns.TypeA), A: net.ParseIP("203.0.113.66")}}
		return m
	})
	if r := w.ask("asked.example", dns.TypeA); r.Rcode != dns.RcodeServerFailure {
		t.Errorf("an answer to another question was taken: %v", r)
	}
}

func TestDNSTruncatedUpstreamIsAskedOverTCP(t *testing.T) {
	w := dnsWorld(t)
	n := 0
	w.dns.set("four.example", func(q *dns.Msg) *dns.Msg {
		m := new(dns.Msg)
		m.SetReply(q)
		if n++; q.Question[0].Qtype == dns.TypeA && n == 1 {
			m.Truncated = true
		} else if q.Question[0].Qtype == dns.TypeA {
			m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: "four.example.", Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 9}, A: net.ParseIP("203.0.113.7")}}
		}
		return m
	})
	var mu sync.Mutex
	inner := w.dns.custom["four.example"]
	w.dns.set("four.example", func(q *dns.Msg) *dns.Msg {
		mu.Lock()
		defer mu.Unlock()
		if q.Question[0].Qtype != dns.TypeA {
			m := new(dns.Msg)
			m.SetReply(q)
			return m
		}
		return inner(q)
	})
	a, err := w.s.cfg.Upstream.Lookup(t.Context(), "four.example")
	if err != nil || len(a.IPv4) != 1 {
		t.Fatalf("%v %v", a, err)
	}
}

// A thousand questions at once for one name are two queries upstream.
func TestDNSSingleFlight(t *testing.T) {
	w := dnsWorld(t)
	w.dns.set("both.example", func(q *dns.Msg) *dns.Msg {
		time.Sleep(50 * time.Millisecond)
		m := new(dns.Msg)
		m.SetReply(q)
		return m
	})
	var wg sync.WaitGroup
	for range 100 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			w.ask("both.example", dns.TypeA)
		}()
	}
	wg.Wait()
	if n := w.dns.asked()["both.example"]; n != 2 {
		t.Errorf("%d queries", n)
	}
}

func TestDNSLearntCap(t *testing.T) {
	learned := map[string]netip.Addr{}
	var mu sync.Mutex
	w := dnsWorld(t, func(_ *world, c *Config) {
		c.MaxLearnt = 20
		c.Learn = func(name string, a4, a6 netip.Addr) error {
			mu.Lock()
			defer mu.Unlock()
			if _, twice := learned[name]; twice {
				t.Errorf("%s learnt twice", name)
			}
			learned[name] = a4
			return nil
		}
	})
	for i := range 30 {
		r := w.ask(fmt.Sprintf("n%d.unlisted.example", i), dns.TypeA)
		if i < 20 {
			a, _ := netip.AddrFromSlice(r.Answer[0].(*dns.A).A)
			if mu.Lock(); learned[fmt.Sprintf("n%d.unlisted.example", i)] != a.Unmap() {
				t.Errorf("answered %s before the kernel knew it", a)
			}
			mu.Unlock()
		} else if r.Rcode != dns.RcodeServerFailure {
			t.Errorf("name %d: %v", i, r)
		}
	}
	if r := w.ask("both.example", dns.TypeA); len(r.Answer) != 1 {
		t.Error("an exact name is not answered when the cap is reached")
	}
	w.wantOne(policy.Deny, "n20.unlisted.example", "20 different names")
}

func TestDNSWildcardRate(t *testing.T) {
	w := dnsWorld(t, func(_ *world, c *Config) { c.WildcardBurst, c.WildcardRate = 10, 0.001 })
	served := 0
	for i := range 30 {
		if w.ask(fmt.Sprintf("data-%d.wild.example", i), dns.TypeA).Rcode != dns.RcodeServerFailure {
			served++
		}
	}
	asked := 0
	for range w.dns.asked() {
		asked++
	}
	if served != 10 || asked != 10 {
		t.Errorf("%d names answered, %d asked upstream; want 10", served, asked)
	}
	denied := 0
	for _, d := range w.decisions() {
		if d.Verdict == policy.Deny {
			denied++
		}
	}
	if denied != 1 {
		t.Errorf("%d denials recorded for one flood", denied)
	}
}

func TestDNSLearnFailureGivesNoAddress(t *testing.T) {
	var ok atomic.Bool
	w := dnsWorld(t, func(_ *world, c *Config) {
		c.Learn = func(name string, _, _ netip.Addr) error {
			if strings.HasPrefix(name, "unlisted") && !ok.Load() {
				return errors.New("map full")
			}
			return nil
		}
	})
	if r := w.ask("unlisted.example", dns.TypeA); r.Rcode != dns.RcodeServerFailure {
		t.Fatalf("%v", r)
	}
	ok.Store(true)
	time.Sleep(failureKeep + 50*time.Millisecond)
	if r := w.ask("unlisted.example", dns.TypeA); len(r.Answer) != 1 {
		t.Fatalf("%v", r)
	}
}

func TestBookSurvives(t *testing.T) {
	file := filepath.Join(t.TempDir(), "names")
	open := func(max int) *book {
		t.Helper()
		b, err := openBook(file, max, nil)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	b := open(4096)
	_, _, _ = b.add("exact.example", true)
	a4, a6, err := b.add("learnt.example", false)
	if err != nil || a4.String() != "198.18.1.1" || a6.String() != "fd6e:656d:6f63::1:1" {
		t.Fatal(a4, a6, err)
	}
	if _, _, ok := b.lookup("other.example"); ok {
		t.Error("found what was never added")
	}
	_ = b.close()
	f, _ := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
	_, _ = f.WriteString("learnt 2 torn.exam")
	f.Close()
	b = open(2)
	if n := b.pendingNames(); len(n) != 2 {
		t.Fatalf("%v", n)
	}
	if _, ok := b.name(a4); ok {
		t.Error("a name is visible before the kernel was told again")
	}
	for _, n := range b.pendingNames() {
		_, _, _ = b.add(n, false)
	}
	if n, ok := b.name(a4); !ok || n != "learnt.example" {
		t.Error(n, ok)
	}
	if n, ok := b.name(a6); !ok || n != "learnt.example" {
		t.Error(n, ok)
	}
	if c4, _, err := b.add("next.example", false); err != nil || c4.String() != "198.18.1.2" {
		t.Error(c4, err)
	}
	if _, _, err := b.add("over.example", false); !errors.Is(err, ErrBookFull) {
		t.Error(err)
	}
	if c4, _, err := b.add("more.exact.example", true); err != nil || c4.String() != "198.18.1.3" {
		t.Error(c4, err)
	}
	_ = b.close()
	_ = os.WriteFile(file, []byte("exact 0 a.example\nlearnt 5 b.example\n"), 0o600)
	if _, err := openBook(file, 10, nil); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Error(err)
	}
}

func TestIndexes(t *testing.T) {
	for _, i := range []uint32{0, 1, 255, 256, 65535, 65536, bookSize - 1} {
		a4, a6 := pair(i)
		if !Synthetic4.Contains(a4) || !Synthetic6.Contains(a6) {
			t.Errorf("%d: %s %s", i, a4, a6)
		}
		for _, a := range []netip.Addr{a4, a6} {
			if got, ok := indexOf(a); !ok || got != i {
				t.Errorf("%s: %d %v", a, got, ok)
			}
		}
	}
	for _, s := range []string{"198.18.0.255", "198.18.0.0", "198.20.0.0", "fd6e:656d:6f63::ffff", "fd6e:656d:6f63:0:1::1:0", "8.8.8.8", "::1"} {
		if i, ok := indexOf(netip.MustParseAddr(s)); ok {
			t.Errorf("%s has index %d", s, i)
		}
	}
}

func TestHostFiles(t *testing.T) {
	dir := t.TempDir()
	hosts, conf := filepath.Join(dir, "hosts"), filepath.Join(dir, "resolv.conf")
	_ = os.WriteFile(hosts, []byte("# c\n10.1.1.1 Intern.Example intern # x\n::1 intern.example\nbogus line\n"), 0o600)
	_ = os.WriteFile(conf, []byte("search corp.example\nnameserver 127.0.0.53 \nnameserver bogus\nnameserver 2001:db8::53\noptions ndots:5\n"), 0o600)
	r := NewResolver(ResolverConfig{ResolvConf: conf, Hosts: hosts})
	a, err := r.Lookup(t.Context(), "intern.example")
	if err != nil || fmt.Sprint(a.IPv4, a.IPv6) != "[10.1.1.1] [::1]" {
		t.Error(a, err)
	}
	s, err := r.conf.get()
	if err != nil || fmt.Sprint(s) != "[127.0.0.53:53 [2001:db8::53]:53]" {
		t.Error(s, err)
	}
	if _, err := NewResolver(ResolverConfig{ResolvConf: filepath.Join(dir, "none"), Hosts: "-"}).Lookup(t.Context(), "x.example"); err == nil || !strings.Contains(err.Error(), "none") {
		t.Error(err)
	}
}

// The answer leaves from the address that was asked, with both families, on sockets bound to a wildcard.
func TestDNSAnswersFromTheAddressAsked(t *testing.T) {
	w := dnsWorld(t)
	port := w.udpDNS[strings.LastIndexByte(w.udpDNS, ':'):]
	for _, addr := range []string{"127.0.0.1", "127.0.0.2", "127.9.9.9"} {
		q := new(dns.Msg)
		q.SetQuestion("both.example.", dns.TypeA)
		// A connected socket takes answers from that address only.
		if _, _, err := (&dns.Client{Timeout: 2 * time.Second}).Exchange(q, addr+port); err != nil {
			t.Errorf("%s: %v", addr, err)
		}
	}
	pc, err := net.ListenPacket("udp6", "[::]:0")
	if err != nil {
		t.Skip("no IPv6 on this host")
	}
	go func() { _ = w.s.ServeDNS(pc) }()
	q := new(dns.Msg)
	q.SetQuestion("both.example.", dns.TypeA)
	to := fmt.Sprintf("[::1]:%d", pc.LocalAddr().(*net.UDPAddr).Port)
	if _, _, err := (&dns.Client{Timeout: 2 * time.Second}).Exchange(q, to); err != nil {
		t.Errorf("%s: %v", to, err)
	}
}
