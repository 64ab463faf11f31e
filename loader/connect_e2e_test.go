//go:build e2e

package loader

import (
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/policy"
)

// self is the identity of this test binary, which the victims execute.
func self(t testing.TB, l *Loader) FileID {
	t.Helper()
	f, err := os.OpenFile("/proc/self/exe", unix.O_PATH, 0)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	id, err := l.Identify(int(f.Fd()))
	must(t, err)
	return id
}

// world is a sandbox with a network, a proxy and a victim in it, and a victim outside of any cgroup of ours.
type world struct {
	*box
	l       *Loader
	exe     FileID
	net     *testNet
	proxy   *proxy
	in, out *victim
}

func newWorld(t testing.TB, opt Options) *world {
	t.Helper()
	return newWorldOf(t, commonLoader(t), opt)
}

// newWorldAlone makes one whose maps are nobody else's.
func newWorldAlone(t testing.TB, opt Options) *world {
	t.Helper()
	return newWorldOf(t, openLoader(t, privateConfig(t)), opt)
}

func newWorldOf(t testing.TB, l *Loader, opt Options) *world {
	t.Helper()
	w := &world{l: l, exe: self(t, l), net: newNet(t)}
	w.box = newBox(t, l, opt)
	must(t, w.SetExec([]ExecEntry{{File: w.exe, Rule: 7, Quiet: true}}))
	w.proxy = startProxy(t, w.net, w.Guard)
	w.out = startVictim(t, w.net, nil)
	w.in = startVictim(t, w.net, w.dir)
	return w
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

const (
	name4 = "198.18.1.1"
	name6 = "fd6e:656d:6f63::1:1"
)

func TestConnect(t *testing.T) {
	w := newWorld(t, Options{Revision: 3})
	must(t, w.PutName(addr(name4), addr(name6), []PortRule{
		{Port: 443, Verdict: policy.Allow, Rule: 11}, {Port: 444, Verdict: policy.Ask, Rule: 12},
		{Port: 445, Verdict: policy.Deny, Rule: 13}, {Port: 446, Verdict: policy.Allow, Rule: 14, Expires: time.Now().Add(-time.Second)},
	}))
	must(t, w.PutName(addr("198.18.1.2"), addr("fd6e:656d:6f63::1:2"), []PortRule{
		{Port: 443, Verdict: policy.Allow, Rule: 15}, {Port: 0, Verdict: policy.Deny, Rule: 16},
	}))
	must(t, w.PutPrefix(netip.MustParsePrefix("10.0.0.0/8"), []PortRule{{Port: 80, Verdict: policy.Allow, Rule: 21}}))
	must(t, w.PutPrefix(netip.MustParsePrefix("10.1.0.0/16"), []PortRule{{Port: 80, Verdict: policy.Deny, Rule: 22}, {Port: 81, Verdict: policy.Allow, Rule: 23}}))
	must(t, w.PutPrefix(netip.MustParsePrefix("2001:db8::/32"), []PortRule{{Port: 80, Verdict: policy.Allow, Rule: 24}}))
	must(t, w.PutPrefix(netip.MustParsePrefix("::/0"), []PortRule{{Port: 90, Verdict: policy.Allow, Rule: 25}}))
	must(t, w.PutPrefix(netip.MustParsePrefix("0.0.0.0/0"), []PortRule{{Port: 91, Verdict: policy.Allow, Rule: 26}}))

	tests := []struct {
		to      string
		verdict policy.Verdict
		rule    policy.RuleID
	}{
		{"198.18.1.1:443", policy.Allow, 11},
		{"198.18.1.1:444", policy.Ask, 12},
		{"198.18.1.1:445", policy.Deny, 13},
		{"198.18.1.1:446", policy.Deny, 0}, // expired
		{"198.18.1.1:447", policy.Deny, 0},
		{"198.18.1.2:443", policy.Deny, 16}, // any port, more severe
		{"198.18.1.2:9", policy.Deny, 16},
		{"198.18.1.3:443", policy.Deny, 0},
		{"198.18.0.1:1", policy.Deny, RuleBuiltin}, // the proxy's own listener
		{"198.18.0.3:3129", policy.Deny, RuleBuiltin},
		{"[fd6e:656d:6f63::1]:1", policy.Deny, RuleBuiltin},
		{"[fd6e:656d:6f63::ffff]:443", policy.Deny, RuleBuiltin},
		{"[fd6e:656d:6f63:0:1::1]:443", policy.Deny, 0},
		{"[::ffff:198.18.1.1]:443", policy.Allow, 11},
		{"[::ffff:198.18.1.1]:445", policy.Deny, 13},
		{"[fd6e:656d:6f63::1:1]:443", policy.Allow, 11},
		{"[fd6e:656d:6f63::1:1]:444", policy.Ask, 12},
		{"[fd6e:656d:6f63::1:1]:445", policy.Deny, 13},
		{"[fd6e:656d:6f63::1:3]:443", policy.Deny, 0},
		{"10.2.3.4:80", policy.Allow, 21},
		{"[::ffff:10.2.3.4]:80", policy.Allow, 21},
		{"10.2.3.4:81", policy.Deny, 0},
		{"10.1.3.4:80", policy.Deny, 22},
		{"10.1.3.4:81", policy.Allow, 23},
		{"11.2.3.4:80", policy.Deny, 0},
		{"[2001:db8::1]:80", policy.Allow, 24},
		{"[2001:db9::1]:80", policy.Deny, 0},
		{"[2001:db9::1]:90", policy.Allow, 25},
		{"9.9.9.9:90", policy.Deny, 0}, // ::/0 says nothing of IPv4
		{"9.9.9.9:91", policy.Allow, 26},
		{"[2001:db9::1]:91", policy.Deny, 0},
		{"[::ffff:9.9.9.9]:91", policy.Allow, 26},
		{"198.18.0.3:3128", policy.Allow, RuleBuiltin},
		{"[fd6e:656d:6f63::3]:3128", policy.Allow, RuleBuiltin},
		{"8.8.8.8:53", policy.Allow, RuleBuiltin}, // steered to the resolver
		{"[2001:db9::1]:53", policy.Allow, RuleBuiltin},
	}
	counted := map[policy.Verdict]uint64{}
	for _, tt := range tests {
		t.Run(tt.to, func(t *testing.T) {
			counted[tt.verdict]++
			answer, fd := w.out.connect("tcp", tt.to)
			if !strings.HasPrefix(answer, "ok") {
				t.Fatalf("outside: %s", answer)
			}
			w.proxy.next()
			w.out.get("close %s", fd)
			w.take()

			answer, fd = w.in.connect("tcp", tt.to)
			defer w.in.get("close %s", fd)
			to := netip.MustParseAddrPort(tt.to)
			to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
			if tt.verdict != policy.Deny {
				if !strings.HasPrefix(answer, "ok ") {
					t.Fatalf("inside: %s", answer)
				}
				a := w.proxy.next()
				name, _ := strings.CutPrefix(answer, "ok ")
				if a.client.String() != name || a.server != to {
					t.Errorf("accepted %s to %s, want %s to %s", a.client, a.server, name, to)
				}
				p := a.peer
				if !a.known || p.PID != w.in.cmd.Process.Pid || p.Exe != w.exe || p.Verdict != tt.verdict || p.Rule != tt.rule ||
					p.Revision != 3 || p.Args != w.in.args {
					t.Errorf("peer %+v known %v", p, a.known)
				}
				if got := w.in.get("recv %s", fd); got != "hello" {
					t.Errorf("greeting %q", got)
				}
				if events := w.take(); len(events) != 0 {
					t.Errorf("events:%s", describe(events))
				}
				return
			}
			if answer != "EPERM" {
				t.Fatalf("inside: %s", answer)
			}
			w.proxy.none()
			events := w.take()
			if len(events) != 1 {
				t.Fatalf("events:%s", describe(events))
			}
			e := events[0]
			reason := ReasonRule
			if tt.rule == RuleBuiltin {
				reason = ReasonReserved
			}
			if e.Hook != HookConnect || e.Verdict != policy.Deny || e.Rule != tt.rule || e.Revision != 3 || e.Reason != reason ||
				e.PID != w.in.cmd.Process.Pid || e.Exe != w.exe || e.Args != w.in.args || e.Object() != to.String() || e.Protocol != unix.IPPROTO_TCP {
				t.Errorf("event:%s", describe(events))
			}
		})
	}
	for v, n := range counted {
		if got := w.count(t, HookConnect, v); got != n {
			t.Errorf("%s counted %d times, want %d", v, got, n)
		}
	}
	if got := w.count(t, HookPacket, policy.Deny); got != 0 {
		t.Errorf("the backstop dropped %d packets", got)
	}
}

func TestLoopbackIsTheSandboxsOwn(t *testing.T) {
	w := newWorld(t, Options{})
	for _, listen := range []string{"127.0.0.1:8080", "0.0.0.0:8081", "[::1]:8082", "[::]:8083", "[::ffff:127.0.0.1]:8084"} {
		server := w.in.socket("tcp", listen)
		w.in.get("bind %s %s", server, listen)
		w.in.get("listen %s", server)
	}
	for _, to := range []string{
		"127.0.0.1:8080", "127.0.0.1:8081", "127.9.9.9:8081", "[::1]:8082", "[::1]:8083", "127.0.0.1:8083",
		"[::ffff:127.0.0.1]:8084", "0.0.0.0:8080", "[::]:8082", "[::ffff:0.0.0.0]:8080",
	} {
		answer, fd := w.in.connect("tcp", to)
		if !strings.HasPrefix(answer, "ok") {
			t.Errorf("connect %s: %s", to, answer)
		}
		w.in.get("send %s", fd)
	}
	w.proxy.none()
	if events := w.take(); len(events) != 0 {
		t.Errorf("events:%s", describe(events))
	}
	if n, err := w.Connections(); n != 0 || err != nil {
		t.Errorf("%d connections to the sandbox itself count (%v)", n, err)
	}
}

func TestCommandSets(t *testing.T) {
	w := newWorld(t, Options{Default: policy.Ask})
	other, err := os.OpenFile("/bin/true", unix.O_PATH, 0)
	must(t, err)
	defer other.Close()
	otherID, err := w.l.Identify(int(other.Fd()))
	must(t, err)
	must(t, w.SetCommandSet(1, []Member{{w.exe, policy.Allow, 31}}))
	must(t, w.SetCommandSet(2, []Member{{otherID, policy.Allow, 32}}))
	must(t, w.PutName(addr(name4), netip.Addr{}, []PortRule{
		{Port: 1, Set: 1, Verdict: policy.Deny, Rule: 0}, {Port: 2, Set: 2, Verdict: policy.Deny, Rule: 33},
		{Port: 3, Set: 2, Verdict: policy.Ask, Rule: 34}, {Port: 4, Set: 9, Verdict: policy.Deny, Rule: 35},
	}))
	must(t, w.PutPrefix(netip.MustParsePrefix("10.0.0.0/8"), []PortRule{{Port: 1, Set: 1, Verdict: policy.Deny}}))
	for _, tt := range []struct {
		to      string
		verdict policy.Verdict
		rule    policy.RuleID
	}{
		{name4 + ":1", policy.Allow, 31}, {name4 + ":2", policy.Deny, 33}, {name4 + ":3", policy.Ask, 34}, {name4 + ":4", policy.Deny, 35},
		{"10.0.0.1:1", policy.Allow, 31}, {"11.0.0.1:1", policy.Ask, 0},
	} {
		w.take()
		answer, _ := w.in.connect("tcp", tt.to)
		if tt.verdict == policy.Deny {
			events := w.take()
			if answer != "EPERM" || len(events) != 1 || events[0].Rule != tt.rule {
				t.Errorf("%s: %s, events:%s", tt.to, answer, describe(events))
			}
			continue
		}
		if a := w.proxy.next(); a.peer.Verdict != tt.verdict || a.peer.Rule != tt.rule {
			t.Errorf("%s: %s, peer %+v", tt.to, answer, a.peer)
		}
	}
}

func TestGrants(t *testing.T) {
	w := newWorld(t, Options{})
	to := name4 + ":443"
	refused := func(what string) {
		t.Helper()
		if answer, _ := w.in.connect("tcp", to); answer != "EPERM" {
			t.Errorf("%s: %s, want EPERM", what, answer)
		}
	}
	passes := func(what string, rule policy.RuleID) {
		t.Helper()
		answer, _ := w.in.connect("tcp", to)
		if !strings.HasPrefix(answer, "ok") {
			t.Errorf("%s: %s", what, answer)
			return
		}
		if a := w.proxy.next(); a.peer.Rule != rule || a.peer.Verdict != policy.Allow {
			t.Errorf("%s: peer %+v", what, a.peer)
		}
	}
	refused("without a grant")
	once := Grant{Addr: addr(name4), Port: 443, Verdict: policy.Allow, Rule: 40, Once: true}
	must(t, w.Grant(once))
	passes("once", 40)
	refused("once used up")

	timed := Grant{Exe: w.exe, Addr: addr(name4), Port: 443, Verdict: policy.Allow, Rule: 41, Until: time.Now().Add(500 * time.Millisecond)}
	must(t, w.Grant(timed))
	passes("before its end", 41)
	time.Sleep(600 * time.Millisecond)
	refused("after its end")

	timed.Until = time.Time{}
	must(t, w.Grant(timed))
	passes("for this executable", 41)
	must(t, w.Revoke(timed))
	refused("revoked")

	must(t, w.PutName(addr(name4), netip.Addr{}, []PortRule{{Port: 443, Verdict: policy.Allow, Rule: 42}}))
	passes("by rule", 42)
	rejection := Grant{Addr: addr(name4), Port: 443, Verdict: policy.Deny, Rule: 43}
	must(t, w.Grant(rejection))
	w.take()
	refused("rejected")
	if events := w.take(); len(events) != 1 || events[0].Rule != 43 {
		t.Errorf("events:%s", describe(events))
	}
}

func TestOnceGrantIsUsedOnce(t *testing.T) {
	w := newWorld(t, Options{MaxConns: 1000})
	const victims, rounds = 4, 20
	var all []*victim
	for range victims {
		all = append(all, startVictim(t, w.net, w.dir))
	}
	for range rounds {
		must(t, w.Grant(Grant{Addr: addr(name4), Port: 443, Verdict: policy.Allow, Once: true}))
		answers := make(chan string, victims)
		for _, v := range all {
			go func() {
				answer, _ := v.connect("tcp", name4+":443")
				answers <- answer
			}()
		}
		passed := 0
		for range victims {
			if strings.HasPrefix(<-answers, "ok") {
				passed++
			}
		}
		if passed != 1 {
			t.Fatalf("%d connections passed on one once-grant", passed)
		}
	}
}

func TestSwap(t *testing.T) {
	w := newWorldAlone(t, Options{Revision: 1})
	must(t, w.PutName(addr(name4), netip.Addr{}, []PortRule{{Port: 443, Verdict: policy.Allow, Rule: 51}}))
	next := w.NewRuleset(2, policy.Deny)
	must(t, next.PutAddrs([]AddrRules{{addr(name4), []PortRule{{Port: 444, Verdict: policy.Allow, Rule: 52}}}}))
	if answer, _ := w.in.connect("tcp", name4+":444"); answer != "EPERM" {
		t.Errorf("a staged rule is in force: %s", answer)
	}
	old := w.Live()
	must(t, w.Swap(next))
	if answer, _ := w.in.connect("tcp", name4+":443"); answer != "EPERM" {
		t.Errorf("an old rule is in force: %s", answer)
	}
	if answer, _ := w.in.connect("tcp", name4+":444"); !strings.HasPrefix(answer, "ok") {
		t.Errorf("a new rule is not in force: %s", answer)
	}
	if err := old.PutAddrs([]AddrRules{{addr(name4), []PortRule{{Port: 1}}}}); err == nil {
		t.Error("a removed revision takes rules")
	}
	if n := entries(t, w.l.maps.rules); n != 1 {
		t.Errorf("%d rules in the kernel, want the new one alone", n)
	}
	dropped := w.NewRuleset(3, policy.Deny)
	must(t, dropped.PutAddrs([]AddrRules{{addr(name4), []PortRule{{Port: 1}}}}))
	must(t, w.Drop(dropped))
	if n := entries(t, w.l.maps.rules); n != 1 {
		t.Errorf("%d rules in the kernel after Drop, want 1", n)
	}
}

// TestSwapIsAtomic swaps between two revisions that both allow the same address while a victim connects.
func TestSwapIsAtomic(t *testing.T) {
	w := newWorld(t, Options{Revision: 1, MaxConns: 10000})
	rules := []AddrRules{{addr(name4), []PortRule{{Port: 443, Verdict: policy.Allow, Rule: 51}}}}
	must(t, w.Live().PutAddrs(rules))
	stop, swapped := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		for revision := uint32(2); ; revision++ {
			select {
			case <-stop:
				swapped <- n
				return
			default:
			}
			next := w.NewRuleset(revision, policy.Deny)
			if err := errors.Join(next.PutAddrs(rules), w.Swap(next)); err != nil {
				t.Error(err)
			}
			n++
		}
	}()
	for i := range 300 {
		answer, fd := w.in.connect("tcp", name4+":443")
		if !strings.HasPrefix(answer, "ok") {
			t.Errorf("connect %d: %s", i, answer)
			break
		}
		w.in.get("close %s", fd)
	}
	close(stop)
	if n := <-swapped; n < 2 {
		t.Errorf("only %d swaps happened", n)
	}
}
