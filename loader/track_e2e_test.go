//go:build e2e

package loader

import (
	"errors"
	"io"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/nemoclaw/nemoclaw/policy"
)

// settles waits until the number of counted connections is as wanted.
func (w *world) settles(t *testing.T, want int) {
	t.Helper()
	var n int
	var err error
	for range 200 {
		if n, err = w.Connections(); err == nil && n == want {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Errorf("%d connections counted, want %d (%v)", n, want, err)
}

func TestConnectionCap(t *testing.T) {
	w := newWorld(t, Options{MaxConns: 3})
	must(t, w.PutName(addr(name4), addr(name6), []PortRule{{Port: 443, Verdict: policy.Allow, Rule: 1}}))
	var fds []string
	for _, to := range []string{name4 + ":443", "[" + name6 + "]:443", "[::ffff:" + name4 + "]:443"} {
		answer, fd := w.in.connect("tcp", to)
		if !strings.HasPrefix(answer, "ok") {
			t.Fatalf("connect %s: %s", to, answer)
		}
		fds = append(fds, fd)
		w.proxy.next()
	}
	w.settles(t, 3)
	if answer, _ := w.in.connect("tcp", name4+":443"); answer != "EPERM" {
		t.Errorf("the fourth of three connections: %s", answer)
	}
	w.one(t, HookConnect, ReasonConnections, name4+":443")
	w.in.get("close %s", fds[0])
	// The client's end lingers until the proxy closes too.
	w.proxy.mu.Lock()
	w.proxy.conns[0].conn.Close()
	w.proxy.mu.Unlock()
	w.settles(t, 2)
	if answer, _ := w.in.connect("tcp", name4+":443"); !strings.HasPrefix(answer, "ok") {
		t.Errorf("a connection after one was closed: %s", answer)
	}
	w.proxy.next()
	w.settles(t, 3)
}

// TestConnectionsAreForgotten ends connections in every way there is; each time both entry and count go.
func TestConnectionsAreForgotten(t *testing.T) {
	w := newWorldAlone(t, Options{})
	must(t, w.PutName(addr(name4), addr(name6), []PortRule{{Port: 0, Verdict: policy.Allow, Rule: 1}}))
	to := name4 + ":443"
	open := func() (string, accepted) {
		t.Helper()
		answer, fd := w.in.connect("tcp", to)
		if !strings.HasPrefix(answer, "ok") {
			t.Fatal(answer)
		}
		a := w.proxy.next()
		w.settles(t, 1)
		return fd, a
	}
	gone := func(a accepted) {
		t.Helper()
		w.settles(t, 0)
		if n := entries(t, w.l.maps.flows); n != 0 {
			t.Errorf("%d connections in the kernel", n)
		}
	}
	t.Run("client closes", func(t *testing.T) {
		fd, a := open()
		w.in.get("recv %s", fd)
		w.in.get("close %s", fd)
		a.conn.Close()
		gone(a)
	})
	t.Run("client resets", func(t *testing.T) {
		fd, a := open()
		time.Sleep(20 * time.Millisecond)
		w.in.get("close %s", fd) // with the greeting unread
		gone(a)
	})
	t.Run("proxy closes", func(t *testing.T) {
		fd, a := open()
		a.conn.Close()
		w.in.get("close %s", fd)
		gone(a)
	})
	t.Run("client disconnects and goes elsewhere", func(t *testing.T) {
		fd, a := open()
		w.in.get("disconnect %s", fd)
		gone(a)
		w.in.wants("EPERM", "connect %s 198.18.1.9:443", fd)
		w.settles(t, 0)
		to6 := netip.MustParseAddrPort(name4 + ":99")
		w.in.get("connect %s %s", fd, to6)
		b := w.proxy.next()
		if b.server != to6 || !b.known {
			t.Errorf("accepted %+v", b)
		}
		w.settles(t, 1)
		w.in.get("disconnect %s", fd)
		gone(b)
	})
	t.Run("a judged socket may not send elsewhere", func(t *testing.T) {
		fd, a := open()
		w.in.get("disconnect %s", fd)
		gone(a)
		w.in.wants("EPERM", "tfo %s 198.18.1.9:443", fd)
		w.proxy.none()
	})
	t.Run("process killed", func(t *testing.T) {
		other := startVictim(t, w.net, w.dir)
		answer, _ := other.connect("tcp", to)
		if !strings.HasPrefix(answer, "ok") {
			t.Fatal(answer)
		}
		a := w.proxy.next()
		_ = other.cmd.Process.Kill()
		a.conn.Close()
		gone(a)
	})
}

// TestClientIsGoneBeforeAccept sends and closes at once, as a program does that logs by TCP.
func TestClientIsGoneBeforeAccept(t *testing.T) {
	w := newWorld(t, Options{})
	must(t, w.PutName(addr(name4), addr(name6), []PortRule{{Port: 443, Verdict: policy.Allow, Rule: 6}}))
	w.proxy.late.Store(int64(100 * time.Millisecond))
	for _, to := range []string{name4 + ":443", "[" + name6 + "]:443"} {
		fd := w.in.socket("tcp", to)
		name := w.in.get("connect %s %s", fd, to)
		w.in.get("send %s", fd)
		w.in.get("close %s", fd)
		w.settles(t, 0)
		if a := w.proxy.next(); !a.known || a.client.String() != name || a.peer.Rule != 6 || a.peer.PID != w.in.cmd.Process.Pid {
			t.Errorf("accepted %+v", a)
		}
	}
}

func TestRefusedConnectIsForgotten(t *testing.T) {
	l := commonLoader(t)
	w := &world{l: l, exe: self(t, l), net: newNet(t)}
	w.box = newBox(t, l, Options{})
	must(t, w.SetExec([]ExecEntry{{File: w.exe, Quiet: true}}))
	must(t, w.PutName(addr(name4), addr(name6), []PortRule{{Port: 443, Verdict: policy.Allow}}))
	// Every slot is empty: nobody serves, and a server of the sandbox's own on any address does not either.
	steering, err := w.AttachNetns(int(w.net.fd.Fd()), Sockets{})
	must(t, err)
	defer steering.Close()
	w.in = startVictim(t, w.net, w.dir)
	server := w.in.socket("tcp", "0.0.0.0:443")
	w.in.get("bind %s 0.0.0.0:443", server)
	w.in.get("listen %s", server)
	if answer, _ := w.in.connect("tcp", name4+":443"); answer != "ECONNREFUSED" && answer != "EINPROGRESS" && answer != "ETIMEDOUT" && answer != "EAGAIN" {
		t.Errorf("connect with nobody to serve: %s", answer)
	}
	w.in.wants("ok", "connect %s 127.0.0.1:443", w.in.socket("tcp", "127.0.0.1:443"))
}

func TestFastOpenIsJudged(t *testing.T) {
	w := newWorld(t, Options{})
	must(t, w.PutName(addr(name4), addr(name6), []PortRule{{Port: 443, Verdict: policy.Allow, Rule: 5}}))
	w.out.wants("ok", "tfo %s %s:80", w.out.socket("tcp", name4+":80"), name4)
	w.proxy.next()
	for _, to := range []string{name4 + ":80", "[" + name6 + "]:80", "[::ffff:" + name4 + "]:80"} {
		w.in.wants("EPERM", "tfo %s %s", w.in.socket("tcp", to), to)
		object := netip.MustParseAddrPort(to)
		events := w.take()
		if len(events) != 1 || events[0].Object() != netip.AddrPortFrom(object.Addr().Unmap(), object.Port()).String() || events[0].Hook != HookConnect ||
			events[0].Verdict != policy.Deny || events[0].Rule != 0 || events[0].Args != w.in.args || events[0].Exe != w.exe {
			t.Errorf("events:%s", describe(events))
		}
	}
	w.proxy.none()
	// The option lets connect return at once; the connection starts with the first byte sent.
	w.in.wants("EPERM", "defer %s %s:80", w.in.socket("tcp", name4+":80"), name4)
	fd := w.in.socket("tcp", name4+":443")
	w.in.get("defer %s %s:443", fd, name4)
	w.in.get("send %s", fd)
	if a := w.proxy.next(); !a.known || a.peer.Rule != 5 {
		t.Errorf("accepted %+v", a)
	}
	for _, to := range []string{name4 + ":443", "[" + name6 + "]:443", "[::ffff:" + name4 + "]:443"} {
		name := w.in.get("tfo %s %s", w.in.socket("tcp", to), to)
		if a := w.proxy.next(); !a.known || a.client.String() != name || a.peer.Rule != 5 {
			t.Errorf("accepted %+v, want from %s", a, name)
		}
	}
}

func TestSteering(t *testing.T) {
	w := newWorld(t, Options{Default: policy.Ask})
	for _, tt := range []struct{ to, slot string }{
		{"198.18.1.1:80", "tcp"}, {"9.9.9.9:1", "tcp"}, {"[2001:db8::1]:80", "tcp"}, {"198.18.255.1:1", "tcp"},
		{"9.9.9.9:53", "dns"}, {"[2001:db8::1]:53", "dns"},
		{"198.18.0.3:3128", "connect"}, {"[fd6e:656d:6f63::3]:3128", "connect"}, {"198.18.1.3:3128", "tcp"},
	} {
		answer, _ := w.in.connect("tcp", tt.to)
		if !strings.HasPrefix(answer, "ok") {
			t.Errorf("connect %s: %s", tt.to, answer)
			continue
		}
		if a := w.proxy.next(); a.slot != tt.slot || a.server.String() != tt.to || !a.known {
			t.Errorf("%s: accepted by %s for %s, known %v", tt.to, a.slot, a.server, a.known)
		}
	}
}

// TestTwoSandboxesSameAddresses opens a connection between the same addresses in two sandboxes.
func TestTwoSandboxesSameAddresses(t *testing.T) {
	l := commonLoader(t)
	exe := self(t, l)
	var client netip.AddrPort
	for i := range 2 {
		w := &world{l: l, exe: exe, net: newNet(t), box: newBox(t, l, Options{})}
		must(t, w.SetExec([]ExecEntry{{File: exe, Quiet: true}}))
		must(t, w.PutName(addr(name4), netip.Addr{}, []PortRule{{Port: 443, Verdict: policy.Allow, Rule: policy.RuleID(100 + i)}}))
		w.proxy = startProxy(t, w.net, w.Guard)
		w.in = startVictim(t, w.net, w.dir)
		fd := w.in.socket("tcp", name4+":443")
		w.in.get("bind %s 127.0.0.1:40000", fd)
		client = netip.MustParseAddrPort(w.in.get("connect %s %s:443", fd, name4))
		if a := w.proxy.next(); a.client != client || a.peer.PID != w.in.cmd.Process.Pid || a.peer.Rule != policy.RuleID(100+i) {
			t.Errorf("sandbox %d: %+v", i, a)
		}
	}
}

// TestSteerIsReused: the next namespace gets the same program, and none of the sockets that the one before left open.
func TestSteerIsReused(t *testing.T) {
	l := openLoader(t, privateConfig(t))
	attach := func(s func(*proxy) Sockets) (*world, io.Closer) {
		w := &world{l: l, exe: self(t, l), net: newNet(t), box: newBox(t, l, Options{Default: policy.Ask})}
		must(t, w.SetExec([]ExecEntry{{File: w.exe, Quiet: true}}))
		w.proxy = &proxy{t: t, g: w.Guard, more: make(chan struct{}, 10)}
		w.net.do(func() { w.proxy.sock.TCP4 = w.proxy.listen("tcp", "tcp4", "198.18.0.1:1") })
		t.Cleanup(w.proxy.stop)
		steering, err := w.AttachNetns(int(w.net.fd.Fd()), s(w.proxy))
		must(t, err)
		w.in = startVictim(t, w.net, w.dir)
		return w, steering
	}
	w, first := attach(func(p *proxy) Sockets { return p.sock })
	if answer, _ := w.in.connect("tcp", "9.9.9.9:1"); !strings.HasPrefix(answer, "ok") {
		t.Fatalf("with its socket: %s", answer)
	}
	must(t, first.Close())
	program := l.steers[0].program
	var cookie uint64
	if err := l.steers[0].sockets.Lookup(uint32(0), &cookie); !errors.Is(err, ebpf.ErrKeyNotExist) {
		t.Errorf("the open socket of the namespace before is still there: %v", err)
	}

	w, second := attach(func(*proxy) Sockets { return Sockets{} })
	if answer, _ := w.in.connect("tcp", "9.9.9.9:1"); strings.HasPrefix(answer, "ok") {
		t.Errorf("without a socket of its own: %s", answer)
	}
	must(t, second.Close())
	if len(l.steers) != 1 || l.steers[0].program != program {
		t.Errorf("%d steers are free, and the first one was not used twice", len(l.steers))
	}
	pins, err := filepath.Glob(filepath.Join(l.ring.dir, "steer*"))
	must(t, err)
	if len(pins) != 1 {
		t.Errorf("pinned: %q", pins)
	}
}
