//go:build e2e

package loader

import (
	"context"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func ptr[T any](p *T) unsafe.Pointer { return unsafe.Pointer(p) }

// testNet is a network namespace as a sandbox has it: loopback only, every address local.
type testNet struct {
	fd   *os.File
	work chan func()
}

func newNet(t testing.TB) *testNet {
	t.Helper()
	n := &testNet{work: make(chan func())}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its namespace
		ready <- n.setUp()
		for f := range n.work {
			f()
		}
	}()
	must(t, <-ready)
	t.Cleanup(func() {
		close(n.work)
		n.fd.Close()
	})
	return n
}

func (n *testNet) setUp() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return err
	}
	var err error
	if n.fd, err = os.Open("/proc/thread-self/ns/net"); err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	for _, r := range []struct{ dst, src string }{{"0.0.0.0/0", "127.0.0.1"}, {"::/0", "::1"}} {
		dst, _ := netlink.ParseIPNet(r.dst)
		route := netlink.Route{
			LinkIndex: lo.Attrs().Index, Dst: dst, Src: net.ParseIP(r.src),
			Type: unix.RTN_LOCAL, Scope: unix.RT_SCOPE_HOST, Table: unix.RT_TABLE_LOCAL,
		}
		if err := netlink.RouteAdd(&route); err != nil {
			return err
		}
	}
	return nil
}

// do runs f on the thread of the namespace.
func (n *testNet) do(f func()) {
	done := make(chan struct{})
	n.work <- func() { f(); close(done) }
	<-done
}

// proxy is the agent's side: sockets that everything is steered to.
type proxy struct {
	t     testing.TB
	g     *Guard
	sock  Sockets
	stops []func()
	late  atomic.Int64 // nanoseconds that the proxy takes until it asks who connected

	mu    sync.Mutex
	conns []accepted
	more  chan struct{}
}

type accepted struct {
	slot           string
	client, server netip.AddrPort
	peer           Peer
	known          bool
	conn           net.Conn
}

// startProxy opens the agent's sockets, and steers the namespace to them. Each accepted connection gets a greeting,
// each datagram an echo.
func startProxy(t testing.TB, n *testNet, g *Guard) *proxy {
	t.Helper()
	p := &proxy{t: t, g: g, more: make(chan struct{}, 1000)}
	n.do(func() {
		p.sock.TCP4 = p.listen("tcp", "tcp4", "198.18.0.1:1")
		p.sock.TCP6 = p.listen("tcp", "tcp6", "[fd6e:656d:6f63::1]:1")
		p.sock.DNSTCP4 = p.listen("dns", "tcp4", "198.18.0.2:53")
		p.sock.DNSTCP6 = p.listen("dns", "tcp6", "[fd6e:656d:6f63::2]:53")
		p.sock.DNSUDP4 = p.echo("udp4", "198.18.0.2:53")
		p.sock.DNSUDP6 = p.echo("udp6", "[fd6e:656d:6f63::2]:53")
		p.sock.Connect4 = p.listen("connect", "tcp4", ConnectProxy4.String())
		p.sock.Connect6 = p.listen("connect", "tcp6", ConnectProxy6.String())
	})
	if t.Failed() {
		t.FailNow()
	}
	steering, err := g.AttachNetns(int(n.fd.Fd()), p.sock)
	must(t, err)
	p.stops = append(p.stops, func() {
		if err := steering.Close(); err != nil {
			t.Errorf("end steering: %v", err)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, c := range p.conns {
			c.conn.Close()
		}
	})
	t.Cleanup(p.stop)
	return p
}

// stop closes all sockets and ends the steering.
func (p *proxy) stop() {
	for _, f := range p.stops {
		f()
	}
	p.stops = nil
}

// freebind lets an IPv6 socket take an address that only a route makes local.
func freebind(_, _ string, raw syscall.RawConn) error {
	var err error
	if ctlErr := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1) }); ctlErr != nil {
		return ctlErr
	}
	return err
}

func (p *proxy) listen(slot, network, addr string) *net.TCPListener {
	lc := net.ListenConfig{Control: freebind}
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(context.Background(), network, addr)
	if err != nil {
		p.t.Errorf("listen: %v", err)
		return nil
	}
	p.stops = append(p.stops, func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			a := accepted{slot: slot, client: addrPort(c.RemoteAddr()), server: addrPort(c.LocalAddr()), conn: c}
			time.Sleep(time.Duration(p.late.Load()))
			a.peer, a.known = p.g.Peer(a.client, a.server)
			p.mu.Lock()
			p.conns = append(p.conns, a)
			p.mu.Unlock()
			_, _ = c.Write([]byte("hello"))
			select {
			case p.more <- struct{}{}:
			default: // a benchmark, which does not look
				c.Close()
			}
		}
	}()
	return l.(*net.TCPListener)
}

func (p *proxy) echo(network, addr string) *net.UDPConn {
	lc := net.ListenConfig{Control: freebind}
	pc, err := lc.ListenPacket(context.Background(), network, addr)
	if err != nil {
		p.t.Errorf("listen: %v", err)
		return nil
	}
	c := pc.(*net.UDPConn)
	p.stops = append(p.stops, func() { pc.Close() })
	go func() {
		buf := make([]byte, 512)
		for {
			n, from, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteToUDPAddrPort(buf[:n], from)
		}
	}()
	return c
}

func addrPort(a net.Addr) netip.AddrPort {
	ap := a.(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// next returns the next accepted connection.
func (p *proxy) next() accepted {
	p.t.Helper()
	select {
	case <-p.more:
	case <-time.After(5 * time.Second):
		p.t.Fatal("the proxy got no connection")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.conns[len(p.conns)-1-len(p.more)]
}

// none checks that no connection came.
func (p *proxy) none() {
	p.t.Helper()
	select {
	case <-p.more:
		p.mu.Lock()
		defer p.mu.Unlock()
		last := p.conns[len(p.conns)-1]
		p.t.Errorf("the proxy got a connection from %s to %s", last.client, last.server)
	case <-time.After(50 * time.Millisecond):
	}
}
