package dnsproxy

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/policy"
)

// never is when an entry of the name cache ends that is not to end.
const never = int64(1) << 62

// world is a proxy with real sockets on loopback: a DNS server that stands for the host's resolvers and counts what is
// asked, servers that stand for the internet, and clients. Only two things differ from a sandbox: an accepted connection's
// wanted address is looked up by the client's port instead of read from the socket, and addresses of the internet are
// dialled on loopback.
type world struct {
	t      testing.TB
	s      *Server
	dns    *fakeDNS
	tcp    string // the transparent listener
	proxy  string // the explicit proxy
	udpDNS string
	tcpDNS string

	mu      sync.Mutex
	wanted  map[netip.AddrPort]netip.AddrPort
	records []policy.Decision
	routes  map[netip.AddrPort]string // internet address -> where it really is
	dialled []netip.AddrPort
	command string // what the client is
	taint   string // what other code may run in it by
	nobody  bool   // the kernel knows no peer
}

type worldOption func(*world, *Config)

func compile(t testing.TB, yaml string) *policy.Compiled {
	t.Helper()
	p, err := policy.Parse("test.yaml", []byte(yaml))
	if err != nil {
		t.Fatalf("policy: %v", err)
	}
	c, err := policy.Compile(p)
	if err != nil {
		t.Fatalf("policy: %v", err)
	}
	return c
}

func newWorld(t testing.TB, yaml string, opts ...worldOption) *world {
	t.Helper()
	w := &world{t: t, wanted: map[netip.AddrPort]netip.AddrPort{}, routes: map[netip.AddrPort]string{}, command: "node"}
	w.dns = newFakeDNS(t)
	cfg := Config{
		Policy: compile(t, yaml),
		Identify: func(client, local netip.AddrPort) (Peer, bool) {
			return Peer{Subject: policy.Subject{PID: 42, Exe: "/usr/bin/" + w.command, Taint: w.taint}, Caller: policy.Caller{Is: func(c string) bool { return c == w.command }, Tainted: w.taint != ""}}, !w.nobody
		},
		Record: func(d policy.Decision) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.records = append(w.records, d)
		},
		Upstream: NewResolver(ResolverConfig{Servers: []netip.AddrPort{w.dns.addr}, Hosts: "-", Timeout: 2 * time.Second, Attempts: 1}),
		Dial:     w.dial,
	}
	for _, o := range opts {
		o(w, &cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w.s = s
	s.wanted = func(fd int, client netip.AddrPort) (netip.AddrPort, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if a, ok := w.wanted[client]; ok {
			return a, nil
		}
		return sysLocal(fd)
	}
	var done sync.WaitGroup
	serve := func(f func() error) {
		done.Add(1)
		go func() {
			defer done.Done()
			if err := f(); !errors.Is(err, errClosed) {
				t.Errorf("serve: %v", err)
			}
		}()
	}
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	raw, conn, dt := listen(), listen(), listen()
	pc, err := net.ListenPacket("udp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	w.tcp, w.proxy, w.tcpDNS = raw.Addr().String(), conn.Addr().String(), dt.Addr().String()
	w.udpDNS = fmt.Sprintf("127.0.0.1:%d", pc.LocalAddr().(*net.UDPAddr).Port)
	serve(func() error { return s.ServeTCP(raw) })
	serve(func() error { return s.ServeConnect(conn) })
	serve(func() error { return s.ServeDNSTCP(dt) })
	serve(func() error { return s.ServeDNS(pc) })
	t.Cleanup(func() {
		closed := make(chan error, 1)
		go func() { closed <- s.Close() }()
		select {
		case err := <-closed:
			if err != nil {
				t.Errorf("close: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("the proxy did not close within 10 s")
		}
		done.Wait()
	})
	return w
}

// dial stands for the internet.
func (w *world) dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	w.mu.Lock()
	w.dialled = append(w.dialled, to)
	real, ok := w.routes[to]
	w.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("connect %s: %w", to, unix.ECONNREFUSED)
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", real)
}

// site makes a name resolve to an address of the internet behind which a real server is.
func (w *world) site(name, addr string, port uint16, real string) {
	a := netip.MustParseAddr(addr)
	w.dns.add(name, a)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.routes[netip.AddrPortFrom(a, port)] = real
}

// to dials a wanted address through the transparent listener.
func (w *world) to(wanted netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{Timeout: 5 * time.Second, Control: func(_, _ string, rc syscall.RawConn) error {
		var err error
		if cerr := rc.Control(func(fd uintptr) {
			if err = unix.Bind(int(fd), &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
				return
			}
			var local netip.AddrPort
			if local, err = sysLocal(int(fd)); err == nil {
				w.mu.Lock()
				w.wanted[local] = wanted
				w.mu.Unlock()
			}
		}); cerr != nil {
			return cerr
		}
		return err
	}}
	return d.Dial("tcp", w.tcp)
}

// toName resolves a name as a sandboxed program would and dials what it gets.
func (w *world) toName(name string, port uint16) (net.Conn, error) {
	w.t.Helper()
	r := w.ask(name, dns.TypeA)
	if len(r.Answer) == 0 {
		return nil, fmt.Errorf("%s: %s without an address", name, dns.RcodeToString[r.Rcode])
	}
	a, _ := netip.AddrFromSlice(r.Answer[0].(*dns.A).A)
	return w.to(netip.AddrPortFrom(a.Unmap(), port))
}

func (w *world) mustName(name string, port uint16) net.Conn {
	w.t.Helper()
	c, err := w.toName(name, port)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		w.t.Fatal(err)
	}
	return c
}

// ask sends one DNS query over UDP.
func (w *world) ask(name string, qtype uint16) *dns.Msg {
	w.t.Helper()
	q := new(dns.Msg)
	q.SetQuestion(dns.Fqdn(name), qtype)
	q.SetEdns0(1232, false)
	c := dns.Client{Timeout: 5 * time.Second}
	r, _, err := c.Exchange(q, w.udpDNS)
	if err != nil {
		w.t.Fatalf("ask for %s: %v", name, err)
	}
	return r
}

// refused waits for the next denial and checks what it says.
func (w *world) decisions() []policy.Decision {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]policy.Decision(nil), w.records...)
}

func (w *world) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.records, w.dialled = nil, nil
}

func (w *world) dials() []netip.AddrPort {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]netip.AddrPort(nil), w.dialled...)
}

// wantOne checks that exactly one decision was recorded (waiting briefly for it) and returns it.
func (w *world) wantOne(v policy.Verdict, object, reason string) policy.Decision {
	w.t.Helper()
	var ds []policy.Decision
	for range 200 {
		if ds = w.decisions(); len(ds) > 0 {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	if len(ds) != 1 {
		w.t.Fatalf("decisions = %d, want one: %+v", len(ds), ds)
	}
	d := ds[0]
	if d.Verdict != v || d.Object != object || !strings.Contains(d.Reason, reason) {
		w.t.Fatalf("decision = %s %s %q, want %s %s with %q", d.Verdict, d.Object, d.Reason, v, object, reason)
	}
	return d
}

// fakeDNS is a real DNS server on loopback with a table of answers.
type fakeDNS struct {
	addr netip.AddrPort

	mu      sync.Mutex
	table   map[string][]netip.Addr
	custom  map[string]func(q *dns.Msg) *dns.Msg
	queries map[string]int
}

func newFakeDNS(t testing.TB) *fakeDNS {
	t.Helper()
	f := &fakeDNS{table: map[string][]netip.Addr{}, custom: map[string]func(*dns.Msg) *dns.Msg{}, queries: map[string]int{}}
	var pc net.PacketConn
	var l net.Listener
	for { // until a port is free for both
		var err error
		if pc, err = net.ListenPacket("udp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		f.addr = pc.LocalAddr().(*net.UDPAddr).AddrPort()
		if l, err = net.Listen("tcp", f.addr.String()); err == nil {
			break
		}
		pc.Close()
	}
	for _, srv := range []*dns.Server{{PacketConn: pc, Handler: f}, {Listener: l, Handler: f}} {
		up := make(chan struct{})
		srv.NotifyStartedFunc = func() { close(up) }
		go func() { _ = srv.ActivateAndServe() }()
		<-up
		t.Cleanup(func() { _ = srv.Shutdown() })
	}
	return f
}

func (f *fakeDNS) add(name string, addrs ...netip.Addr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.table[name] = append(f.table[name], addrs...)
}

func (f *fakeDNS) set(name string, fn func(*dns.Msg) *dns.Msg) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.custom[name] = fn
}

func (f *fakeDNS) asked() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := map[string]int{}
	for k, v := range f.queries {
		out[k] = v
	}
	return out
}

// ServeDNS implements dns.Handler.
func (f *fakeDNS) ServeDNS(rw dns.ResponseWriter, q *dns.Msg) {
	name := strings.ToLower(strings.TrimSuffix(q.Question[0].Name, "."))
	f.mu.Lock()
	f.queries[name]++
	fn, addrs := f.custom[name], f.table[name]
	_, known := f.table[name]
	f.mu.Unlock()
	if fn != nil {
		if m := fn(q); m != nil {
			if rw.LocalAddr().Network() == "udp" {
				m.Truncate(ednsSize)
			}
			_ = rw.WriteMsg(m)
		}
		return
	}
	m := new(dns.Msg)
	m.SetReply(q)
	if !known {
		m.Rcode = dns.RcodeNameError
	}
	for _, a := range addrs {
		h := dns.RR_Header{Name: q.Question[0].Name, Class: dns.ClassINET, Ttl: 300}
		switch {
		case a.Is4() && q.Question[0].Qtype == dns.TypeA:
			h.Rrtype = dns.TypeA
			m.Answer = append(m.Answer, &dns.A{Hdr: h, A: a.AsSlice()})
		case a.Is6() && q.Question[0].Qtype == dns.TypeAAAA:
			h.Rrtype = dns.TypeAAAA
			m.Answer = append(m.Answer, &dns.AAAA{Hdr: h, AAAA: a.AsSlice()})
		}
	}
	_ = rw.WriteMsg(m)
}

// authority signs certificates for test servers.
var authority = sync.OnceValue(func() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	tpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	leaf, _ := x509.ParseCertificate(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
})

func serverTLS(t testing.TB, names ...string) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tpl := &x509.Certificate{SerialNumber: big.NewInt(2), DNSNames: names, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	ca := authority()
	der, err := x509.CreateCertificate(rand.Reader, tpl, ca.Leaf, &key.PublicKey, ca.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

func roots() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(authority().Leaf)
	return p
}

// tcpServer runs f for each connection to a new loopback listener.
func tcpServer(t testing.TB, f func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				f(c)
			}()
		}
	}()
	return l.Addr().String()
}
