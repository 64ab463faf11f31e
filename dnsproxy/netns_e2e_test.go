//go:build e2e

package dnsproxy

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/policy"
)

// airGap is a network namespace like a sandbox's: loopback only, every address local. Its functions run inside it.
type airGap struct{ calls chan func() }

func newAirGap(t *testing.T) *airGap {
	t.Helper()
	g := &airGap{calls: make(chan func())}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the namespace
		ready <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("make a network namespace (root is needed): %w", err)
			}
			lo, err := netlink.LinkByName("lo")
			if err != nil {
				return err
			}
			if err := netlink.LinkSetUp(lo); err != nil {
				return err
			}
			for _, r := range []struct{ dst, src string }{{"0.0.0.0/0", "127.0.0.1"}, {"::/0", "::1"}} {
				_, dst, _ := net.ParseCIDR(r.dst)
				route := &netlink.Route{LinkIndex: lo.Attrs().Index, Dst: dst, Src: net.ParseIP(r.src), Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL, Scope: netlink.SCOPE_HOST}
				if err := netlink.RouteAdd(route); err != nil {
					return fmt.Errorf("add route %s: %w", r.dst, err)
				}
			}
			return nil
		}()
		for f := range g.calls {
			f()
		}
	}()
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { close(g.calls) })
	return g
}

// do runs f on the namespace's thread.
func (g *airGap) do(f func()) {
	done := make(chan struct{})
	g.calls <- func() { defer close(done); f() }
	<-done
}

// socketTo makes a socket inside and hands it out as a connection: sockets stay in the namespace that they were made in.
func (g *airGap) dial(network, to string) (c net.Conn, err error) {
	g.do(func() { c, err = (&net.Dialer{Timeout: 5 * time.Second}).Dial(network, to) })
	return c, err
}

// The whole path with nothing put in its place: the wanted address is the accepted socket's own, answers leave from the
// address asked, in IPv4 and IPv6, and the host's network is reached from the host's side.
func TestAirGap(t *testing.T) {
	g := newAirGap(t)
	fake := newFakeDNS(t)
	srv := &http.Server{TLSConfig: serverTLS(t, "good.example"), Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(rw, "hello "+r.Host) })}
	up, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = srv.ServeTLS(up, "", "") }()
	defer func() { _ = srv.Close() }()
	fake.add("good.example", netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("2001:db8::9"))
	var mu sync.Mutex
	var records []policy.Decision
	s, err := New(Config{
		Policy:   compile(t, "network:\n  allow:\n    - domain: good.example\n      ports: [443]\n      protocol: https\n"),
		Identify: func(client, local netip.AddrPort) (Peer, bool) { return Peer{}, true },
		Record: func(d policy.Decision) {
			mu.Lock()
			defer mu.Unlock()
			records = append(records, d)
		},
		Upstream: NewResolver(ResolverConfig{Servers: []netip.AddrPort{fake.addr}, Hosts: "-"}),
		Dial: func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", up.Addr().String())
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	g.do(func() {
		lc := net.ListenConfig{}
		lc.SetMultipathTCP(false)
		for _, family := range []string{"4", "6"} {
			any := map[string]string{"4": "0.0.0.0", "6": "[::]"}[family]
			l, err := lc.Listen(t.Context(), "tcp"+family, any+":443")
			if err != nil {
				t.Error(err)
				return
			}
			pc, err := net.ListenPacket("udp"+family, any+":53")
			if err != nil {
				t.Error(err)
				return
			}
			go func() { _ = s.ServeTCP(l) }()
			go func() { _ = s.ServeDNS(pc) }()
		}
	})
	for _, server := range []string{"8.8.8.8:53", ResolverAddr4.String() + ":53", "[2001:4860:4860::8888]:53", "[" + ResolverAddr6.String() + "]:53"} {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
			t.Run(server+" "+dns.TypeToString[qtype], func(t *testing.T) {
				c, err := g.dial("udp", server) // connected: takes answers from that address only
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				q := new(dns.Msg)
				q.SetQuestion("good.example.", qtype)
				r, _, err := (&dns.Client{Timeout: 2 * time.Second}).ExchangeWithConn(q, &dns.Conn{Conn: c})
				if err != nil || len(r.Answer) != 1 {
					t.Fatalf("%v %v", r, err)
				}
				var ip net.IP
				switch rr := r.Answer[0].(type) {
				case *dns.A:
					ip = rr.A
				case *dns.AAAA:
					ip = rr.AAAA
				}
				tr := &http.Transport{
					TLSClientConfig: &tls.Config{RootCAs: roots()},
					DialContext: func(context.Context, string, string) (net.Conn, error) {
						return g.dial("tcp", net.JoinHostPort(ip.String(), "443"))
					},
				}
				defer tr.CloseIdleConnections()
				resp, err := (&http.Client{Transport: tr, Timeout: 5 * time.Second}).Get("https://good.example/")
				if err != nil {
					t.Fatal(err)
				}
				body, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				if string(body) != "hello good.example" {
					t.Errorf("%q", body)
				}
			})
		}
	}
	mu.Lock()
	records = nil
	mu.Unlock()
	for _, to := range []string{"198.18.0.1:443", "198.18.77.1:443", "[fd6e:656d:6f63::5]:443", "203.0.113.1:443"} {
		c, err := g.dial("tcp", to)
		if err == nil {
			c.SetDeadline(time.Now().Add(5 * time.Second))
			_ = tls.Client(c, &tls.Config{ServerName: "evil.example"}).Handshake()
			c.Close()
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(records) != 4 {
		t.Errorf("%d records: %+v", len(records), records)
	}
	for _, d := range records {
		if d.Verdict != policy.Deny {
			t.Errorf("%+v", d)
		}
	}
}
