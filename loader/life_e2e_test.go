//go:build e2e

package loader

import (
	"bufio"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/bpf"
	"github.com/nemoclaw/nemoclaw/policy"
)

// agentEnv makes the test binary an agent that guards a cgroup and then waits to be killed. Its value is the
// configuration and the cgroup.
const agentEnv = "NEMOCLAW_LOADER_AGENT"

func agentMain() {
	f := strings.Split(os.Getenv(agentEnv), "|")
	l, err := Open(Config{BPFFS: f[0], Parent: f[1]})
	if err != nil {
		fmt.Println(err)
		return
	}
	dir, err := os.Open(f[2])
	var g *Guard
	if err == nil {
		if g, err = l.NewGuard(dir, Options{MaxConns: 5, Hold: true}); err == nil {
			err = fillAgent(l, g, f[3])
		}
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("ready")
	time.Sleep(time.Hour)
}

// fillAgent fills an agent's guard; the argument is what startAgentWith was given.
var fillAgent = func(l *Loader, g *Guard, _ string) error {
	if err := fillGuard(l, g); err != nil || l.maps.nodes == nil {
		return err
	}
	return readOnly(l, g)
}

// fillGuard puts an entry into every map.
func fillGuard(l *Loader, g *Guard) error {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	exe, err := l.Identify(int(self.Fd()))
	if err != nil {
		return err
	}
	return errors.Join(
		g.SetExec([]ExecEntry{{File: exe, Quiet: true}}),
		g.PutName(addr(name4), addr(name6), []PortRule{{Port: 443, Verdict: policy.Allow}, {Port: 80, Set: 1}}),
		g.PutPrefix(netip.MustParsePrefix("10.0.0.0/8"), []PortRule{{Port: 1}}),
		g.SetCommandSet(1, []Member{{File: exe}}),
		g.Grant(Grant{Addr: addr(name4), Port: 444, Verdict: policy.Allow}),
		g.Grant(Grant{Addr: addr(name4), Port: 446, Verdict: policy.Allow, Once: true}),
	)
}

// readOnly lets a sandbox read everything on the root's file system.
func readOnly(l *Loader, g *Guard) error {
	root, err := os.Open("/")
	if err != nil {
		return err
	}
	defer root.Close()
	id, err := l.Identify(int(root.Fd()))
	if err != nil {
		return err
	}
	return g.SetFiles([]FileNode{{File: id, Mount: true, Allow: policy.Read | List}})
}

// startAgent runs an agent in another process.
func startAgent(t *testing.T, cfg Config, dir *os.File) *exec.Cmd {
	t.Helper()
	return startAgentWith(t, cfg, dir, "")
}

func startAgentWith(t *testing.T, cfg Config, dir *os.File, arg string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), agentEnv+"="+cfg.BPFFS+"|"+cfg.Parent+"|"+dir.Name()+"|"+arg)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	must(t, err)
	if line != "ready\n" {
		t.Fatalf("agent: %s", line)
	}
	return cmd
}

// TestAdopt kills an agent, has things refused while nobody is there, and lets the next agent take the sandbox over: it has
// every entry, hears of what happened meanwhile, and its Close leaves nothing.
func TestAdopt(t *testing.T) {
	cfg := privateConfig(t)
	first := openLoader(t, cfg) // keeps ring of its own
	ns := newNet(t)
	path := filepath.Join(first.CgroupParent(), "adopted")
	must(t, os.Mkdir(path, 0o755))
	t.Cleanup(func() { _ = os.Remove(path) })
	dir, err := os.Open(path)
	must(t, err)
	defer dir.Close()
	agent := startAgent(t, cfg, dir)
	var entry bpf.GateSandbox
	id, err := cgroupID(dir)
	must(t, err)
	must(t, first.maps.sandboxes.Lookup(id, &entry))
	v := startVictim(t, ns, dir)
	before := total(t, first) - 1 // without what was allowed once: whether it was used meanwhile nobody knows
	must(t, agent.Process.Kill())
	_ = agent.Wait()
	if answer, _ := v.connect("tcp", name4+":445"); answer != "EPERM" {
		t.Errorf("with nobody there: %s", answer)
	}

	cfg.Ring, cfg.Hold = int(entry.Ring)+1, true
	l := openLoader(t, cfg)
	if l.Ring() != cfg.Ring {
		t.Errorf("ring %d was claimed, want that of the killed agent, %d", l.Ring(), cfg.Ring)
	}
	events := make(chan Event, 16)
	g, err := l.Adopt(dir, Options{OnEvent: func(e Event) { events <- e }})
	must(t, err)
	if _, err := l.Adopt(dir, Options{}); err == nil {
		t.Error("a sandbox was adopted twice")
	}
	if n := total(t, l); n != before {
		t.Errorf("%d entries after adopting, want %d", n, before)
	}
	if answer, _ := v.connect("tcp", name4+":446"); answer != "EPERM" {
		t.Errorf("what a killed agent allowed once: %s", answer)
	}
	l.Deliver()
	l.ring.drain()
	select {
	case e := <-events:
		if e.Hook != HookConnect || e.Port != 445 || e.Verdict != policy.Deny {
			t.Errorf("%+v", e)
		}
	default:
		t.Error("what was refused while nobody was there is lost")
	}

	// A change that its agent did not get through with goes; the next one takes a number of its own.
	must(t, g.NewRuleset(7, policy.Deny).PutAddrs([]AddrRules{{Addr: addr(name4), Ports: []PortRule{{Port: 1}}}}))
	highest, err := g.DropStaged()
	must(t, err)
	if n := total(t, l); highest != 7 || n != before {
		t.Errorf("highest %d, %d entries, want 7 and %d", highest, n, before)
	}
	rs := g.NewRuleset(8, policy.Deny)
	must(t, rs.PutAddrs([]AddrRules{{Addr: addr(name4), Ports: []PortRule{{Port: 445, Verdict: policy.Allow}}}}))
	must(t, g.Swap(rs))
	if answer, _ := v.connect("tcp", name4+":445"); answer == "EPERM" {
		t.Error("the adopted guard's new rules are not in force")
	}
	v.wants(killed, "exec /bin/true")
	must(t, g.Close())
	if n := total(t, l); n != 0 {
		t.Errorf("%d entries are left after Close", n)
	}
	if _, err := l.Adopt(dir, Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("adopting what has no guard: %v", err)
	}
}

// total counts all entries of sandboxes in all maps, but for those that go by themselves: the askers, and what is known of a process.
func total(t *testing.T, l *Loader) int {
	t.Helper()
	n := 0
	for name, m := range l.maps.byName() {
		switch name {
		case bpf.GateMapAskers, bpf.GateMapDeparted, bpf.GateMapStrays, bpf.GateMapIdentities, bpf.GateMapEnvirons:
		case bpf.GateMapCounts:
			var key uint64
			var value []bpf.GateCounters
			it := (*m).Iterate()
			for it.Next(&key, &value) {
				n++
			}
			must(t, it.Err())
		default:
			n += entries(t, *m)
		}
	}
	return n
}

func TestKilledAgent(t *testing.T) {
	cfg := privateConfig(t)
	l := openLoader(t, cfg)
	ns := newNet(t)
	path := filepath.Join(l.CgroupParent(), "killed")
	must(t, os.Mkdir(path, 0o755))
	dir, err := os.Open(path)
	must(t, err)
	defer dir.Close()

	agent := startAgent(t, cfg, dir)
	v := startVictim(t, ns, dir)
	check := func(when string) {
		t.Helper()
		if answer, _ := v.connect("tcp", name4+":445"); answer != "EPERM" {
			t.Errorf("%s: a refused connection: %s", when, answer)
		}
		v.wants("EPERM", "socket %d %d %d", unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP)
		v.wants(killed, "exec /bin/true")
		v.wants("ok", "open /dev/null")
	}
	check("while the agent runs")
	must(t, agent.Process.Kill())
	_ = agent.Wait()
	check("after the agent was killed")

	must(t, l.Sweep())
	if n := total(t, l); n == 0 {
		t.Error("the sweep removed a sandbox whose cgroup exists")
	}
	check("after a sweep")
	must(t, v.cmd.Process.Kill())
	for range 100 {
		if err = os.Remove(path); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	must(t, err)
	other := newBox(t, l, Options{})
	must(t, fillGuard(l, other.Guard))
	must(t, l.Sweep())
	must(t, other.Close())
	if n := total(t, l); n != 0 {
		t.Errorf("%d entries left after the sweep", n)
	}
}

// TestSweepSparesTheLiving checks that a sweep leaves the others' entries alone.
func TestSweepSparesTheLiving(t *testing.T) {
	l := openLoader(t, privateConfig(t))
	living := newBox(t, l, Options{})
	must(t, fillGuard(l, living.Guard))
	n := total(t, l)
	dead := bpf.GateRuleKey{Cgid: 1 << 40, Port: 1}
	must(t, l.maps.sandboxes.Put(dead.Cgid, bpf.GateSandbox{}))
	must(t, l.maps.rules.Put(dead, bpf.GateRule{}))
	must(t, l.maps.prefixes.Put(bpf.GatePrefixKey{Bits: prefixBits, Cgid: dead.Cgid}, bpf.GateRule{}))
	must(t, l.Sweep())
	if got := total(t, l); got != n {
		t.Errorf("%d entries after the sweep, want %d", got, n)
	}
	must(t, living.Close())
	if got := total(t, l); got != 0 {
		t.Errorf("%d entries after the last guard was closed", got)
	}
}

func TestOpenAtTheSameTime(t *testing.T) {
	cfg := privateConfig(t)
	const n = 6
	loaders := make([]*Loader, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Add(1)
		go func() {
			defer wg.Done()
			var err error
			if loaders[i], err = Open(cfg); err != nil {
				t.Error(err)
			}
		}()
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	used := map[uint32]bool{}
	ids := map[ebpf.MapID]bool{}
	for _, l := range loaders {
		info, err := l.maps.sandboxes.Info()
		must(t, err)
		id, _ := info.ID()
		ids[id] = true
		used[l.ring.index] = true
	}
	if len(ids) != 1 || len(used) != n {
		t.Errorf("%d loaders share %d sets of maps and have %d rings, want 1 and %d", n, len(ids), len(used), n)
	}
	if err := Unload(cfg); !errors.Is(err, errInUse) {
		t.Errorf("unload while open: %v", err)
	}
	for _, l := range loaders {
		must(t, l.Close())
	}
	pins, err := os.ReadDir(filepath.Join(cfg.BPFFS, pinsRoot))
	must(t, err)
	if len(pins) != 1 {
		t.Errorf("%d directories of pins, want 1", len(pins))
	}
}

func TestRingsRunOut(t *testing.T) {
	cfg := privateConfig(t)
	for range rings {
		openLoader(t, cfg)
	}
	if l, err := Open(cfg); err == nil {
		must(t, l.Close())
		t.Error("one more agent than there are rings")
	} else if !strings.Contains(err.Error(), "64") {
		t.Errorf("error %q does not say how many", err)
	}
}

func TestUnfinishedPinsAreReplaced(t *testing.T) {
	cfg := privateConfig(t)
	l, err := Open(cfg)
	must(t, err)
	pins := l.pins
	must(t, l.Close())
	must(t, os.Rename(pins, pins+unfinished))
	l = openLoader(t, cfg)
	if left, err := os.ReadDir(filepath.Dir(pins)); err != nil || len(left) != 1 {
		t.Errorf("left: %v %v", left, err)
	}
	must(t, fillGuard(l, newBox(t, l, Options{}).Guard))
}

// TestOtherPlaceForPins checks that nobody attaches a second set of programs to a parent cgroup: each would refuse the
// sandboxes of the other.
func TestOtherPlaceForPins(t *testing.T) {
	cfg := privateConfig(t)
	openLoader(t, cfg)
	elsewhere := Config{BPFFS: privateConfig(t).BPFFS, Parent: cfg.Parent}
	l, err := Open(elsewhere)
	if err == nil {
		must(t, l.Close())
		must(t, os.RemoveAll(filepath.Join(elsewhere.BPFFS, pinsRoot)))
		t.Fatal("two sets of programs on one parent cgroup")
	}
	if !strings.Contains(err.Error(), elsewhere.BPFFS) || !strings.Contains(err.Error(), "--cgroup-parent") {
		t.Errorf("error %q says neither where the programs are not nor what to do", err)
	}
	if left, err := os.ReadDir(filepath.Join(elsewhere.BPFFS, pinsRoot)); err != nil || len(left) != 0 {
		t.Errorf("left: %v %v", left, err)
	}
}

func TestParentThatWasRemoved(t *testing.T) {
	cfg := privateConfig(t)
	l, err := Open(cfg)
	must(t, err)
	must(t, os.Remove(l.CgroupParent()))
	must(t, os.Mkdir(l.CgroupParent(), 0o755))
	orphan := filepath.Join(l.CgroupParent(), "orphan")
	must(t, os.Mkdir(orphan, 0o755))
	dir, err := os.Open(orphan)
	must(t, err)
	if _, err := l.NewGuard(dir, Options{}); err == nil {
		t.Error("a guard for a cgroup below a parent without programs")
	}
	dir.Close()
	must(t, os.Remove(orphan))
	must(t, l.Close())
	again := openLoader(t, cfg)
	if again.parent.id == l.parent.id || again.pins == l.pins {
		t.Error("the pins of the removed parent are used")
	}
	if _, err := os.Stat(l.pins); err == nil {
		t.Error("the pins of the removed parent are still there")
	}
}

func TestOtherVersions(t *testing.T) {
	cfg := privateConfig(t)
	root, err := findCgroup2()
	must(t, err)
	// A set of pins as an agent of another version makes it.
	makeOld := func() (path, pins string, lock *os.File) {
		path = filepath.Join(root, cfg.Parent+"-00c0ffee")
		must(t, os.Mkdir(path, 0o755))
		dir, err := os.Open(path)
		must(t, err)
		defer dir.Close()
		id, err := cgroupID(dir)
		must(t, err)
		pins, lock, err = ensureLoaded(cfg, cgroup{path, dir, id})
		must(t, err)
		return path, pins, lock
	}
	reopen := func() {
		must(t, Unload(cfg))
		l, err := Open(cfg)
		must(t, err)
		must(t, l.Close())
	}
	path, pins, lock := makeOld()
	reopen()
	if !exists(pins) || !exists(path) {
		t.Error("another version's programs were removed while its agent runs")
	}
	lock.Close()
	must(t, os.Mkdir(filepath.Join(path, "box"), 0o755))
	reopen()
	if !exists(pins) || !exists(path) {
		t.Error("another version's programs were removed while a sandbox of it exists")
	}
	must(t, os.Remove(filepath.Join(path, "box")))
	reopen()
	if exists(pins) || exists(path) {
		t.Error("another version's idle programs were left")
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func TestGuardRefuses(t *testing.T) {
	cfg := privateConfig(t)
	l := openLoader(t, cfg)
	b := newBox(t, l, Options{})
	must(t, fillGuard(l, b.Guard))
	before := total(t, l)
	if _, err := l.NewGuard(b.dir, Options{}); err == nil {
		t.Error("a second guard for one cgroup")
	}
	if n := total(t, l); n != before {
		t.Errorf("%d entries after a second guard was refused, want %d", n, before)
	}
	if _, ok := b.Peer(netip.MustParseAddrPort("127.0.0.1:1"), netip.MustParseAddrPort("10.0.0.1:1")); ok {
		t.Error("a peer nobody has seen")
	}
	if answer := b.SetExec([]ExecEntry{{}}); answer == nil {
		t.Error("a program without identity")
	}
	parent, err := os.Open(l.CgroupParent())
	must(t, err)
	defer parent.Close()
	for _, dir := range []string{l.CgroupParent(), filepath.Dir(l.CgroupParent()), t.TempDir()} {
		f, err := os.Open(dir)
		must(t, err)
		if _, err := l.NewGuard(f, Options{}); err == nil || !strings.Contains(err.Error(), "not below") {
			t.Errorf("guard %s: %v", dir, err)
		}
		f.Close()
	}
	if _, err := l.NewGuard(makeCgroup(t, l), Options{Default: policy.Allow}); err == nil {
		t.Error("a default of allow")
	}
	must(t, b.Close())
	if err := errors.Join(b.Close()); err != nil {
		t.Errorf("close twice: %v", err)
	}
	if b.Grant(Grant{Addr: addr(name4), Port: 1}) == nil || b.PutName(addr(name4), netip.Addr{}, []PortRule{{Port: 1}}) == nil ||
		b.SetExec(nil) == nil || b.Devices(nil) == nil {
		t.Error("a closed guard takes entries")
	}
	if n := total(t, l); n != 0 {
		t.Errorf("%d entries left", n)
	}
}

func TestOpenRefuses(t *testing.T) {
	for _, tt := range []struct {
		cfg  Config
		want string
	}{
		{Config{Cgroup2: t.TempDir()}, "not a cgroup v2"},
		{Config{Parent: "a/b"}, "without slashes"},
		{Config{Parent: ".."}, "without slashes"},
	} {
		if _, err := Open(tt.cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("open %+v: %v", tt.cfg, err)
		}
	}
}
