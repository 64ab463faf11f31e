package harness

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/miekg/dns"
)

// DNS is the world's name server. It answers for the names that tests gave it, says NXDOMAIN for the rest, and remembers every
// question.
type DNS struct {
	mu    sync.Mutex
	names map[string]func() []netip.Addr
	ech   map[string][]byte
	asked map[string]int
	heard []string // every message, as text; the most recent ones
}

func newDNS(addr string) (*DNS, error) {
	d := &DNS{names: map[string]func() []netip.Addr{}, ech: map[string][]byte{}, asked: map[string]int{}}
	pc, err := net.ListenPacket("udp", addr)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	all := func(dns.Header) dns.MsgAcceptAction { return dns.MsgAccept } // nothing that comes goes unseen
	for _, s := range []*dns.Server{{PacketConn: pc, Handler: d, MsgAcceptFunc: all}, {Listener: l, Handler: d, MsgAcceptFunc: all}} {
		go func() { _ = s.ActivateAndServe() }() // ends with the process
	}
	return d, nil
}

// Set makes name answer with addrs from now on; *.NAME is every name one label below NAME.
func (d *DNS) Set(name string, addrs ...netip.Addr) {
	d.SetFunc(name, func() []netip.Addr { return addrs })
}

// SetFunc makes name answer with what f returns, anew for each question: how a rebinding server behaves.
func (d *DNS) SetFunc(name string, f func() []netip.Addr) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.names[dns.CanonicalName(name)] = f
}

// SetECH makes name answer HTTPS questions with a list of ECH configurations.
func (d *DNS) SetECH(name string, list []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ech[dns.CanonicalName(name)] = list
}

// Asked counts the questions for name and for anything below it.
func (d *DNS) Asked(name string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	for q, count := range d.asked {
		if q == dns.CanonicalName(name) || strings.HasSuffix(q, "."+dns.CanonicalName(name)) {
			n += count
		}
	}
	return n
}

// Heard tells whether a message that came lately holds text in its presentation: names as they were written, options in hex.
func (d *DNS) Heard(text string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.ContainsFunc(d.heard, func(m string) bool { return strings.Contains(m, text) })
}

func (d *DNS) hear(req *dns.Msg) {
	const most = 4096
	d.mu.Lock()
	defer d.mu.Unlock()
	d.heard = append(d.heard, req.String())
	d.heard = d.heard[max(0, len(d.heard)-most):]
}

// ServeDNS answers one question.
func (d *DNS) ServeDNS(w dns.ResponseWriter, req *dns.Msg) {
	d.hear(req)
	m := new(dns.Msg)
	m.SetReply(req)
	defer func() { _ = w.WriteMsg(m) }() // a client that went away has no answer to miss
	if len(req.Question) != 1 {
		m.Rcode = dns.RcodeFormatError
		return
	}
	q := req.Question[0]
	name := dns.CanonicalName(q.Name)
	d.mu.Lock()
	d.asked[name]++
	f, ech := d.names[name], d.ech[name]
	if _, below, ok := strings.Cut(name, "."); ok && f == nil {
		f = d.names["*."+below]
	}
	d.mu.Unlock()
	if q.Qtype == dns.TypeHTTPS && ech != nil {
		m.Answer = append(m.Answer, &dns.HTTPS{SVCB: dns.SVCB{
			Hdr: dns.RR_Header{Name: q.Name, Class: dns.ClassINET, Rrtype: dns.TypeHTTPS, Ttl: 1}, Priority: 1, Target: ".",
			Value: []dns.SVCBKeyValue{&dns.SVCBAlpn{Alpn: []string{"h2"}}, &dns.SVCBECHConfig{ECH: ech}},
		}})
	}
	if f == nil {
		m.Rcode = dns.RcodeNameError
		return
	}
	for _, a := range f() {
		head := dns.RR_Header{Name: q.Name, Class: dns.ClassINET, Ttl: 1}
		switch {
		case q.Qtype == dns.TypeA && a.Is4():
			head.Rrtype = dns.TypeA
			m.Answer = append(m.Answer, &dns.A{Hdr: head, A: a.AsSlice()})
		case q.Qtype == dns.TypeAAAA && a.Is6():
			head.Rrtype = dns.TypeAAAA
			m.Answer = append(m.Answer, &dns.AAAA{Hdr: head, AAAA: a.AsSlice()})
		}
	}
}
