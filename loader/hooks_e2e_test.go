//go:build e2e

package loader

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/policy"
)

// one checks that exactly one event came, and returns it.
func (w *world) one(t *testing.T, h Hook, reason Reason, object string) Event {
	t.Helper()
	events := w.take()
	if len(events) != 1 {
		t.Fatalf("want one %s event, got%s", h, describe(events))
	}
	e := events[0]
	if e.Hook != h || e.Verdict != policy.Deny || e.Reason != reason || e.Object() != object || e.PID != w.in.cmd.Process.Pid ||
		e.Exe != w.exe || e.Args != w.in.args || e.Rule != RuleBuiltin {
		t.Errorf("want %s of %s because %q, got%s", h, object, reason, describe(events))
	}
	return e
}

func TestSockets(t *testing.T) {
	w := newWorld(t, Options{})
	before := w.count(t, HookSocket, policy.Allow)
	good := [][3]int{
		{unix.AF_INET, unix.SOCK_STREAM, 0}, {unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_TCP}, {unix.AF_INET6, unix.SOCK_STREAM, 0},
		{unix.AF_INET, unix.SOCK_DGRAM, 0}, {unix.AF_INET6, unix.SOCK_DGRAM, unix.IPPROTO_UDP},
	}
	for _, s := range good {
		w.in.wants("ok", "socket %d %d %d", s[0], s[1], s[2])
	}
	w.in.wants("ok", "socket %d %d 0", unix.AF_UNIX, unix.SOCK_STREAM)
	if n := w.count(t, HookSocket, policy.Allow) - before; n != uint64(len(good)) {
		t.Errorf("%d sockets counted, want %d", n, len(good))
	}
	bad := [][3]int{
		{unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP}, {unix.AF_INET6, unix.SOCK_STREAM, unix.IPPROTO_MPTCP},
		{unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP}, {unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_RAW},
		{unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_UDPLITE},
	}
	tried := 0
	for _, s := range bad {
		// What this kernel was built without can't be shown to work outside, nor be got inside.
		if out := w.out.try("socket %d %d %d", s[0], s[1], s[2]); out != "ok" {
			if out != "EPROTONOSUPPORT" {
				t.Errorf("socket %v outside: %s", s, out)
			}
			continue
		}
		tried++
		w.in.wants("EPERM", "socket %d %d %d", s[0], s[1], s[2])
		w.one(t, HookSocket, ReasonProtocol, fmt.Sprintf("family %d type %d protocol %d", s[0], s[1], s[2]))
	}
	if tried < 3 {
		t.Errorf("only %d kinds of sockets to refuse exist here", tried)
	}
	if n := w.count(t, HookSocket, policy.Deny); n != uint64(tried) {
		t.Errorf("%d refusals counted, want %d", n, tried)
	}
}

func TestDatagrams(t *testing.T) {
	w := newWorld(t, Options{})
	for _, to := range []string{"198.18.0.2:53", "9.9.9.9:53", "[fd6e:656d:6f63::2]:53", "[2001:db8::1]:53"} {
		for _, how := range []string{"sendto %s %s", "connect %s %s"} {
			fd := w.in.socket("udp", to)
			w.in.get(how, fd, to)
			if strings.HasPrefix(how, "connect") {
				w.in.get("send %s", fd)
			}
			// The resolver here answers from its own port: only a real one sets IP_PKTINFO, for connected clients.
			if answer := w.in.try("recv %s", fd); answer != "ok hello" && (strings.HasPrefix(how, "sendto") || strings.Contains(to, "::2") || strings.Contains(to, ".2:")) {
				t.Errorf(how+": %s", fd, to, answer)
			}
		}
	}
	// Loopback is the sandbox's own.
	server := w.in.socket("udp", "127.0.0.1:9000")
	w.in.get("bind %s 127.0.0.1:9000", server)
	client := w.in.socket("udp", "127.0.0.1:9000")
	w.in.wants("ok", "sendto %s 127.0.0.1:9000", client)
	w.in.wants("ok hello", "recv %s", server)
	if events := w.take(); len(events) != 0 {
		t.Errorf("events:%s", describe(events))
	}

	refused := uint64(0)
	for _, to := range []string{"198.18.1.1:443", "9.9.9.9:123", "[fd6e:656d:6f63::1:1]:443", "[::ffff:9.9.9.9]:123", "[2001:db8::1]:5353"} {
		fd := w.out.socket("udp", to)
		w.out.wants("ok", "sendto %s %s", fd, to)
		object := netip.MustParseAddrPort(to)
		object = netip.AddrPortFrom(object.Addr().Unmap(), object.Port())
		fd = w.in.socket("udp", to)
		w.in.wants("EPERM", "sendto %s %s", fd, to)
		w.one(t, HookSendto, ReasonNotDNS, object.String())
		// To connect sends nothing: resolvers do it to compare addresses. To send does.
		w.in.wants("ok", "connect %s %s", fd, to)
		if events := w.take(); len(events) != 0 {
			t.Errorf("connect %s: events:%s", to, describe(events))
		}
		w.in.wants("EPERM", "send %s", fd)
		w.one(t, HookSendto, ReasonNotDNS, object.String())
		refused += 2
	}
	fd := w.in.socket("udp", "127.0.0.1:9000")
	w.out.wants("ok", "sendfrom %s 127.0.0.1:9001 198.18.1.1", w.out.socket("udp", "127.0.0.1:9001"))
	w.in.wants("EPERM", "sendfrom %s 127.0.0.1:9000 198.18.1.1", fd)
	w.one(t, HookSendto, ReasonAddress, "127.0.0.1:9000")
	refused++
	if n := w.count(t, HookSendto, policy.Deny); n != refused {
		t.Errorf("%d refused datagrams counted, want %d", n, refused)
	}
}

func TestDNSAskerIsKnown(t *testing.T) {
	w := newWorld(t, Options{})
	for _, how := range []string{"sendto %s %s", "connect %s %s"} {
		for _, to := range []string{"198.18.0.2:53", "[fd6e:656d:6f63::2]:53", "[::ffff:198.18.0.2]:53"} {
			fd := w.in.socket("udp", to)
			from := "127.0.0.1:0"
			if strings.HasPrefix(to, "[fd") {
				from = "[::1]:0"
			} else if strings.HasPrefix(to, "[::ffff") {
				from = "[::ffff:127.0.0.1]:0"
			}
			client := netip.MustParseAddrPort(w.in.get("bind %s %s", fd, from))
			w.in.get(how, fd, to)
			if strings.HasPrefix(how, "connect") {
				w.in.get("send %s", fd)
			}
			p, ok := w.Asker(client)
			if !ok || p.PID != w.in.cmd.Process.Pid || p.Exe != w.exe || p.Args != w.in.args {
				t.Errorf("asker of %s from %s: %+v %v", to, client, p, ok)
			}
		}
	}
}

func TestBind(t *testing.T) {
	w := newWorld(t, Options{})
	for _, at := range []string{"127.0.0.1:0", "0.0.0.0:0", "127.3.2.1:53", "[::1]:0", "[::]:0", "[::ffff:127.0.0.1]:0", "[::ffff:0.0.0.0]:0"} {
		for _, kind := range []string{"tcp", "udp"} {
			w.in.wants("ok", "bind %s %s", w.in.socket(kind, at), at)
		}
	}
	// A server that binds to nothing gets a port of the kernel's choice: nobody but the sandbox gets to it.
	w.in.wants("ok", "listen %s", w.in.socket("tcp", "127.0.0.1:0"))
	w.in.wants("ok", "listen %s", w.in.socket("tcp", "[::1]:0"))
	if events := w.take(); len(events) != 0 {
		t.Errorf("events:%s", describe(events))
	}
	for _, at := range []string{"198.18.1.1:443", "198.18.0.2:53", "10.0.0.1:0", "[::ffff:198.18.1.1]:443"} {
		out := w.out.socket("udp", at)
		if got := w.out.try("bind %s %s", out, at); !strings.HasPrefix(got, "ok") && got != "EADDRINUSE" {
			t.Errorf("bind to %s outside: %s", at, got)
		}
		w.out.get("close %s", out)
		w.in.wants("EPERM", "bind %s %s", w.in.socket("udp", at), at)
		object := netip.MustParseAddrPort(at)
		w.one(t, HookBind, ReasonAddress, netip.AddrPortFrom(object.Addr().Unmap(), object.Port()).String())
	}
	// Without IPV6_FREEBIND the kernel has its own reason against these, but our hook is asked first.
	w.in.wants("EPERM", "bind %s [fd6e:656d:6f63::1:1]:443", w.in.socket("tcp", "[::1]:1"))
	w.one(t, HookBind, ReasonAddress, "[fd6e:656d:6f63::1:1]:443")
	if n := w.count(t, HookBind, policy.Deny); n != 5 {
		t.Errorf("%d refusals counted, want 5", n)
	}
}

// TestBackstop takes the socket hooks' word away: a socket that the sandbox got without connect4 having judged it.
func TestBackstop(t *testing.T) {
	w := newWorld(t, Options{})
	must(t, w.PutName(addr(name4), addr(name6), []PortRule{{Port: 443, Verdict: policy.Allow}}))
	for _, to := range []string{name4 + ":443", "[" + name6 + "]:443"} {
		_, fd := w.in.connect("tcp", to)
		a := w.proxy.next()
		w.in.wants("ok hello", "recv %s", fd)
		w.in.wants("ok", "send %s", fd)
		buf := make([]byte, 10)
		_ = a.conn.SetReadDeadline(time.Now().Add(time.Second))
		if n, err := a.conn.Read(buf); err != nil || string(buf[:n]) != "hello" {
			t.Errorf("read %q, %v", buf[:n], err)
		}
	}
	if n := w.count(t, HookPacket, policy.Deny); n != 0 {
		t.Errorf("%d packets dropped in ordinary traffic", n)
	}
	// A listener on any address would serve for an address that stands for a name, if steering ended and the source
	// were spoofed. The packets come from outside of the sandbox, to a socket of it.
	server := w.in.socket("udp", "0.0.0.0:7000")
	w.in.get("bind %s 0.0.0.0:7000", server)
	out := w.out.socket("udp", "198.18.1.1:7000")
	w.out.wants("ok", "sendto %s 198.18.1.1:7000", out)
	w.in.wants("EAGAIN", "recv %s", server)
	events := w.take()
	if len(events) != 1 || events[0].Hook != HookPacket || events[0].Reason != ReasonIngress || events[0].Addr != addr("127.0.0.1") {
		t.Errorf("events:%s", describe(events))
	}
	w.out.wants("ok", "sendto %s 127.0.0.1:7000", out)
	w.in.wants("ok hello", "recv %s", server)
	if n := w.count(t, HookPacket, policy.Deny); n != 1 {
		t.Errorf("%d packets dropped, want 1", n)
	}
}

func TestDevices(t *testing.T) {
	w := newWorld(t, Options{})
	node := func(name string, major, minor uint32) string {
		path := filepath.Join(t.TempDir(), name)
		must(t, unix.Mknod(path, unix.S_IFCHR|0o666, int(unix.Mkdev(major, minor))))
		return path
	}
	for _, path := range []string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/ptmx"} {
		w.in.wants("ok", "open %s", path)
	}
	kmsg := node("kmsg", 1, 11)
	w.out.wants("ok", "open %s", kmsg)
	w.in.wants("EPERM", "open %s", kmsg)
	e := w.one(t, HookDevice, ReasonRule, "c 1:11 rw")
	if e.Device.Major != 1 || e.Device.Minor != 11 {
		t.Errorf("device %+v", e.Device)
	}
	must(t, w.Devices([]Device{{CharDevice, 1, 11, DeviceRead | DeviceWrite}}))
	w.in.wants("ok", "open %s", kmsg)
	w.in.wants("EPERM", "open /dev/null")
	must(t, w.Devices([]Device{{CharDevice, 1, AnyMinor, DeviceRead}}))
	w.in.wants("EPERM", "open /dev/null") // for writing
	if n := w.count(t, HookDevice, policy.Deny); n != 3 {
		t.Errorf("%d refusals counted, want 3", n)
	}
}

func TestFloodIsCountedNotRecorded(t *testing.T) {
	w := newWorld(t, Options{})
	const tries = 500
	fd := w.in.socket("udp", "9.9.9.9:99")
	for range tries {
		w.in.wants("EPERM", "sendto %s 9.9.9.9:99", fd)
	}
	c, err := w.Counters()
	must(t, err)
	events := w.take()
	if c.Of(HookSendto, policy.Deny) != tries {
		t.Errorf("%d refusals counted, want %d", c.Of(HookSendto, policy.Deny), tries)
	}
	if c.Suppressed == 0 || uint64(len(events))+c.Suppressed+c.Lost != tries {
		t.Errorf("%d events, %d suppressed, %d lost: want %d together", len(events), c.Suppressed, c.Lost, tries)
	}
}

// TestFullRingIsCounted holds the reader while more events happen than the ring has room for.
func TestFullRingIsCounted(t *testing.T) {
	l := commonLoader(t)
	exe, ns := self(t, l), newNet(t)
	dir := makeCgroup(t, l)
	gate, got := make(chan struct{}), 0
	g, err := l.NewGuard(dir, Options{MaxConns: 1, OnEvent: func(Event) { <-gate; got++ }})
	must(t, err)
	must(t, g.SetExec([]ExecEntry{{File: exe, Quiet: true}}))
	v := startVictim(t, ns, dir)
	const tries = 1200
	fd := v.socket("tcp", name4+":1")
	for range tries {
		v.wants("EPERM", "connect %s %s:1", fd, name4)
	}
	close(gate)
	g.Drain()
	c, err := g.Counters()
	must(t, err)
	if c.Of(HookConnect, policy.Deny) != tries {
		t.Errorf("%d refusals counted, want %d", c.Of(HookConnect, policy.Deny), tries)
	}
	if c.Lost == 0 || uint64(got)+c.Lost+c.Suppressed != tries {
		t.Errorf("%d events, %d lost, %d suppressed: want %d together, and some lost", got, c.Lost, c.Suppressed, tries)
	}
	must(t, g.Close())
	_ = v.cmd.Process.Kill()
}

// TestFloodLeavesRoomForOthers: while nobody reads the ring one sandbox has more refused than the ring holds, and others have a little
// refused after it. They are reported, whatever the one tries.
func TestFloodLeavesRoomForOthers(t *testing.T) {
	cfg := privateConfig(t)
	cfg.Hold = true
	l := openLoader(t, cfg)
	exe, ns := self(t, l), newNet(t)
	start := func() (*box, *victim) {
		b := newBox(t, l, Options{})
		must(t, b.SetExec([]ExecEntry{{File: exe, Quiet: true}}))
		return b, startVictim(t, ns, b.dir)
	}
	flooding, attacker := start()
	other, v := start()
	const rounds, tries, little = 3, 3000, 6
	for range rounds {
		attacker.get("bench %s:1 %d", name4, tries)
		for range little {
			v.wants("EPERM", "reach %s:1", name4)
		}
		time.Sleep(1100 * time.Millisecond) // the kernel's window
	}
	l.Deliver()
	if got := len(other.take()); got != rounds*little {
		c, err := other.Counters()
		t.Errorf("%d of the other's refusals were reported, want %d (%d lost, %v)", got, rounds*little, c.Lost, err)
	}
	c, err := flooding.Counters()
	must(t, err)
	got := uint64(len(flooding.take()))
	if c.Of(HookConnect, policy.Deny) != rounds*tries || got+c.Lost+c.Suppressed != rounds*tries || c.Lost == 0 || got < 100 {
		t.Errorf("%d of the flood's refusals counted, %d reported, %d lost, %d suppressed", c.Of(HookConnect, policy.Deny), got, c.Lost, c.Suppressed)
	}
}

func TestStrayMayNothing(t *testing.T) {
	l := commonLoader(t)
	ns := newNet(t)
	dir := makeCgroup(t, l)
	// No exec is possible there, so the victim moves in when it runs.
	v := startVictim(t, ns, nil)
	v.get("new tcp 4")
	before, err := l.Strays()
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir.Name(), "cgroup.procs"), []byte(fmt.Sprint(v.cmd.Process.Pid)), 0))
	v.wants("EPERM", "socket %d %d 0", unix.AF_INET, unix.SOCK_STREAM)
	v.wants("EPERM", "open /dev/null")
	v.wants("ok", "open /etc/hostname")
	after, err := l.Strays()
	must(t, err)
	for _, h := range []Hook{HookSocket, HookDevice} {
		if after[h] != before[h]+1 {
			t.Errorf("strays at %s: %d, want %d", h, after[h], before[h]+1)
		}
	}
}
