//go:build e2e && lsm

package loader

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/bpf"
	"github.com/nemoclaw/nemoclaw/policy"
)

// openBox is a sandbox whose policy allows everything, on the disk and in the kernel's file systems: only the guards are left.
type openBox struct {
	*fileBox
	outside, target, peer *victim // the host's, one to try things on, another of the sandbox
}

// newOpenBox makes one whose rules are not in force yet.
func newOpenBox(t *testing.T, l *Loader) *openBox {
	t.Helper()
	b := &openBox{fileBox: &fileBox{box: newBox(t, l, Options{}), l: l}}
	var err error
	b.fileBox.dir, err = os.MkdirTemp("/var/tmp", "nemoclaw-guard-")
	must(t, err)
	dir := b.fileBox.dir
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	must(t, os.WriteFile(dir+"/file", []byte("x"), 0o644))
	for _, d := range []string{"mnt", "mounted"} {
		must(t, os.Mkdir(filepath.Join(dir, d), 0o755))
	}
	must(t, unix.Mount("tmpfs", dir+"/mounted", "tmpfs", 0, ""))
	t.Cleanup(func() { must(t, unix.Unmount(dir+"/mounted", 0)) })
	program, err := os.ReadFile("/bin/true")
	must(t, err)
	must(t, os.WriteFile(dir+"/true", program, 0o755))
	must(t, b.SetExec([]ExecEntry{{File: self(t, l), Quiet: true}, {File: b.id(t, dir+"/true"), Quiet: true}}))
	ns := newNet(t)
	b.victim = startVictim(t, ns, b.box.dir)
	b.peer = startVictim(t, ns, b.box.dir)
	b.outside, b.target = startVictim(t, ns, nil), startVictim(t, ns, nil)
	return b
}

// everything allows all files but those of debugfs, which have no rule.
func (b *openBox) everything(t *testing.T) []FileNode {
	t.Helper()
	var nodes []FileNode
	for _, root := range []string{"/", "/proc", "/sys", "/sys/fs/cgroup", "/sys/kernel/tracing", "/dev", b.l.pins} {
		nodes = append(nodes, FileNode{File: b.id(t, root), Mount: true, Allow: policy.Read | policy.Write | policy.Execute | List,
			Rules: [3]policy.RuleID{ruleRead, ruleWrite, ruleProgram}})
	}
	return nodes
}

func (b *openBox) fill(try string) string {
	return strings.NewReplacer("TARGET", itoa(b.target.cmd.Process.Pid), "PEER", itoa(b.peer.cmd.Process.Pid), "SELF", itoa(b.cmd.Process.Pid), "DIR", b.fileBox.dir, "PINS", b.l.pins,
		"CGROUP", b.box.dir.Name()).Replace(try)
}

// refused checks that a try inside is refused, with one event that says so.
func (b *openBox) refused(t *testing.T, want, try string, fits func(Event) bool) {
	t.Helper()
	b.box.take()
	b.wants(want, "%s", b.fill(try))
	events := b.box.take()
	// Linux 7 asks for a capability when it was refused a look at a process.
	if len(events) == 2 && events[0].Guard.Op == GuardTrace && events[1].Guard.Op == GuardCapability {
		events = events[:1]
	}
	if len(events) != 1 || events[0].Verdict != policy.Deny || events[0].Rule != RuleBuiltin || events[0].Args != b.args ||
		events[0].PID != b.cmd.Process.Pid && !strings.Contains(try, "true") || !fits(events[0]) {
		t.Errorf("%s: %d events: %s", try, len(events), describe(events))
	}
}

// TestGuardHooks tries what no sandbox needs: before the rules are in force, after that from outside, and inside.
func TestGuardHooks(t *testing.T) {
	// Debian asks for capabilities first.
	setting(t, "/proc/sys/kernel/perf_event_paranoid", "2")
	setting(t, "/proc/sys/kernel/dmesg_restrict", "0")
	b := newOpenBox(t, lsmLoader(t))
	tries := []struct {
		try, native, want string
		ops               []GuardOp // one of them: which hook comes first depends on the kernel
	}{
		{"bpf-make", "ok", "EPERM", []GuardOp{GuardBPF}},
		{"bpf-list", "ok", "EPERM", []GuardOp{GuardBPF}},
		{"bpf-pin PINS/maps/sandboxes", "ok", "EPERM", []GuardOp{GuardBPF}},
		{"attach TARGET", "ok", "EPERM", []GuardOp{GuardTrace}},
		{"attach PEER", "ok", "EPERM", []GuardOp{GuardTrace}},
		{"traced DIR/true", "ok", "EPERM", []GuardOp{GuardTrace}},
		{"mem TARGET", "ok", "EACCES", []GuardOp{GuardTrace}},
		{"mem PEER", "ok", "EACCES", []GuardOp{GuardTrace}},
		{"environ TARGET", "ok", "EACCES", []GuardOp{GuardTrace}},
		{"peek TARGET", "ok", "EPERM", []GuardOp{GuardTrace}},
		{"poke TARGET", "ok", "EPERM", []GuardOp{GuardTrace}},
		{"steal TARGET", "ok", "EPERM", []GuardOp{GuardTrace}},
		{"kill TARGET 28", "ok", "EPERM", []GuardOp{GuardSignal}},
		{"kill 2 0", "ok", "EPERM", []GuardOp{GuardSignal}}, // a thread of the kernel's
		{"pidfd-kill TARGET", "ok", "EPERM", []GuardOp{GuardSignal}},
		{"limit TARGET", "ok", "EPERM", []GuardOp{GuardLimit}},
		{"nice TARGET", "ok", "EPERM", []GuardOp{GuardPriority}},
		{"ioprio TARGET", "ok", "EPERM", []GuardOp{GuardPriority}},
		{"affinity TARGET", "ok", "EPERM", []GuardOp{GuardPriority}},
		{"mount DIR/mnt", "ok", "EPERM", []GuardOp{GuardMount}},
		{"bind DIR/mounted DIR/mnt", "ok", "EPERM", []GuardOp{GuardMount}},
		{"umount DIR/mounted", "ok", "EPERM", []GuardOp{GuardMount, GuardCapability}},
		{"fsopen", "ok", "EPERM", []GuardOp{GuardCapability}},
		{"open-tree DIR/mounted", "ok", "EPERM", []GuardOp{GuardCapability}},
		{"attach-tree DIR/mounted DIR/mnt", "ok", "EPERM", []GuardOp{GuardCapability}},
		{"mount-setattr DIR/mounted", "ok", "EPERM", []GuardOp{GuardCapability}},
		{"remount DIR/mounted", "ok", "EPERM", []GuardOp{GuardMount}},
		{"setns", "ok", "EPERM", []GuardOp{GuardCapability}},
		{"setns-mounts", "ok", "EPERM", []GuardOp{GuardCapability}},
		{"unshare-mounts", "ok", "EPERM", []GuardOp{GuardCapability}},
		{"unshare-pids", "ok", "EPERM", []GuardOp{GuardCapability}},
		{"new-mounts DIR/true", "ok", "EPERM", []GuardOp{GuardCapability}},
		{"new-users DIR/true", "ok", "EPERM", []GuardOp{GuardNamespace}},
		{"perf", "ok", "EPERM", []GuardOp{GuardPerf}},
		{"log", "ok", "EPERM", []GuardOp{GuardLog}},
		{"key", "ok", "EACCES", []GuardOp{GuardKey}},
		{"module", "ENOEXEC", "EPERM", []GuardOp{GuardCapability}},
		{"kexec", "ok", "EPERM", []GuardOp{GuardCapability}},
		{"family", "EAFNOSUPPORT", "EAFNOSUPPORT", []GuardOp{GuardModule}},
		{"settime", "ok", "EPERM", []GuardOp{GuardCapability}},
		{"account", "ok", "EPERM", []GuardOp{GuardCapability}},
		{"setuid", "ok", "EPERM", []GuardOp{GuardCapability}},
		{"uring-poll", "ok", "EPERM", []GuardOp{GuardURing}},
		{"uring-as", "ok", "EPERM", []GuardOp{GuardURing}},
		{"uring-command", "ok", "EPERM", []GuardOp{GuardURing}},
	}
	reset := func() { // what the tries change, for those that follow
		pid := b.target.cmd.Process.Pid
		must(t, unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1024, Max: 4096}, nil))
		must(t, unix.Setpriority(unix.PRIO_PROCESS, pid, 0))
	}
	for _, c := range tries { // the sandbox's set-up is not hindered
		b.wants(c.native, "guard %s", b.fill(c.try))
	}
	if events := b.box.take(); len(events) != 0 {
		t.Errorf("before the rules are in force:%s", describe(events))
	}
	b.target.wants("ok 43", "word")
	b.outside.wants("ok", "guard poke %d", b.peer.cmd.Process.Pid)
	reset()

	must(t, b.SetFiles(b.everything(t)))
	target := b.target
	b.target = startVictim(t, newNet(t), nil)
	b.target.wants("ok 42", "word") // its runtime has set its limits
	before := state(t, b.target)
	for _, c := range tries {
		b.refused(t, c.want, "guard "+c.try, func(e Event) bool {
			of := 0
			if strings.Contains(c.try, "TARGET") {
				of = b.target.cmd.Process.Pid
			}
			return e.Hook == HookGuard && e.Reason == ReasonGuard && slices.Contains(c.ops, e.Guard.Op) && (of == 0 || e.Guard.Target == of)
		})
	}
	b.refused(t, "EPERM", "guard kill TARGET 9", func(e Event) bool { return e.Guard.Detail == 9 })
	b.target.wants("ok 42", "word")
	if after := state(t, b.target); after != before {
		t.Errorf("the target was %s, and is %s", before, after)
	}
	for _, try := range []string{"kill SELF 0", "peek SELF", "shm", "kill PEER 28", "pidfd-kill PEER", "environ PEER", "limit PEER", "nice PEER", "affinity PEER", "code", "code-shared", "code-memfd"} {
		b.wants("ok", "guard %s", b.fill(try))
	}

	// The kernel's own file systems, though the policy allows to write everywhere.
	for _, try := range []string{
		"write /proc/sys/kernel/hostname", "write /proc/sysrq-trigger", "write /sys/kernel/mm/ksm/run", "mkdir /sys/fs/cgroup/mine", "mkdir CGROUP/below",
		"write CGROUP/cgroup.procs", "write /sys/kernel/tracing/tracing_on", "unlink PINS/maps/sandboxes", "rename PINS/maps/names PINS/maps/nodes",
		"chmod PINS/maps", "rmdir CGROUP",
	} {
		b.refused(t, "EACCES", "file "+try, func(e Event) bool { return e.Hook == HookFile && e.Reason == ReasonKernel && e.File.Below != "" })
	}
	b.refused(t, "EPERM", "file read /sys/kernel/tracing/trace", func(e Event) bool { return e.Guard.Op == GuardLockdown })
	b.wants("ok", "file write /proc/self/comm")
	b.wants("ok", "file write %s/file", b.fileBox.dir)
	b.wants("EACCES", "file list /sys/kernel/debug") // it has no rule, and the kernel mounts it itself

	b.target = target
	for _, c := range tries { // who is outside notices nothing
		b.outside.wants(c.native, "guard %s", b.fill(c.try))
	}
	b.outside.wants("ok", "guard kill %d 28", b.peer.cmd.Process.Pid)
	b.outside.wants("ok", "guard attach %d", b.peer.cmd.Process.Pid)
	if events := b.box.take(); len(events) != 1 { // of debugfs
		t.Error(describe(events))
	}
	reset()
}

// setting sets a sysctl for the time of the test.
func setting(t *testing.T, path, value string) {
	t.Helper()
	was, err := os.ReadFile(path)
	must(t, err)
	must(t, os.WriteFile(path, []byte(value), 0))
	t.Cleanup(func() { must(t, os.WriteFile(path, was, 0)) })
}

// state is what others could change of a process.
func state(t *testing.T, v *victim) string {
	t.Helper()
	dir := "/proc/" + itoa(v.cmd.Process.Pid)
	limits, err := os.ReadFile(dir + "/limits")
	must(t, err)
	stat, err := os.ReadFile(dir + "/stat")
	must(t, err)
	status, err := os.ReadFile(dir + "/status")
	must(t, err)
	allowed := ""
	for _, line := range strings.Split(string(status), "\n") {
		if strings.HasPrefix(line, "Cpus_allowed:") || strings.HasPrefix(line, "TracerPid:") {
			allowed += line
		}
	}
	f := strings.Fields(string(stat))
	return "nice " + f[18] + allowed + string(limits)
}

// TestGuardWithoutLoader kills the agent: what it put into force stays.
func TestGuardWithoutLoader(t *testing.T) {
	l := lsmLoader(t)
	path := filepath.Join(l.CgroupParent(), "killed")
	must(t, os.Mkdir(path, 0o755))
	t.Cleanup(func() { must(t, errors.Join(removeCgroup(path), l.Sweep())) })
	dir, err := os.Open(path)
	must(t, err)
	defer dir.Close()
	agent := startAgent(t, common.cfg, dir)
	ns := newNet(t)
	v, target := startVictim(t, ns, dir), startVictim(t, ns, nil)
	check := func() {
		t.Helper()
		v.wants("ok", "file read /etc/hostname")
		v.wants("EACCES", "file write /etc/hostname")
		v.wants("EPERM", "guard bpf-pin %s/maps/sandboxes", l.pins)
		v.wants("EPERM", "guard kill %d 9", target.cmd.Process.Pid)
		v.wants("EPERM", "guard attach %d", target.cmd.Process.Pid)
		v.wants("EPERM", "guard mount /mnt")
		target.wants("ok 42", "word")
	}
	check()
	must(t, agent.Process.Kill())
	_ = agent.Wait()
	check()
	must(t, l.Sweep())
	check()
}

// TestGuardFailsClosed: a ring that nobody reads, maps that are full, and a sandbox without an entry.
func TestGuardFailsClosed(t *testing.T) {
	lsmLoader(t)
	cfg := common.cfg // its programs, and a ring of its own
	cfg.Hold = true
	b := newOpenBox(t, openLoader(t, cfg))
	dir := b.fileBox.dir
	rules := append(b.everything(t), FileNode{File: b.id(t, dir+"/mnt"), Allow: List})
	must(t, os.WriteFile(dir+"/mnt/secret", nil, 0o644))
	must(t, b.SetFiles(rules))

	const files, guards = 1500, 700
	b.wants("ok", "opens %d %s/mnt/secret EACCES %s/file ok", files, dir, dir)
	b.wants("ok", "guards %d EPERM kill %d 9", guards, b.target.cmd.Process.Pid)
	b.l.Deliver()
	delivered := len(b.box.take())
	c, err := b.Counters()
	must(t, err)
	if n := c.Of(HookFile, policy.Deny); n != files {
		t.Errorf("%d refusals of files counted, want %d", n, files)
	}
	if n := c.Of(HookGuard, policy.Deny); n != guards {
		t.Errorf("%d refusals of guards counted, want %d", n, guards)
	}
	t.Logf("%d delivered, %d lost, %d suppressed", delivered, c.Lost, c.Suppressed)
	if c.Lost == 0 || c.Suppressed == 0 || uint64(delivered)+c.Lost+c.Suppressed != files+guards {
		t.Errorf("%d delivered, %d lost, %d suppressed: together not %d", delivered, c.Lost, c.Suppressed, files+guards)
	}

	fill(t, b.l.maps.names, 1<<16, func(i int) bpf.LsmNameKey {
		return bpf.LsmNameKey{Dir: bpf.LsmPlace{Cgid: 1, Ino: uint64(i)}}
	}, bpf.LsmNode{})
	t.Cleanup(func() {
		must(t, sweep[bpf.LsmNameKey, bpf.LsmNode](b.l.maps.names, func(k bpf.LsmNameKey) uint64 { return k.Dir.Cgid }, map[uint64]struct{}{1: {}}))
	})
	nodes := entries(t, b.l.maps.nodes)
	named := FileNode{File: b.id(t, dir+"/mnt"), Name: "secret", Allow: policy.Read}
	if err := b.SetFiles(append(slices.Clone(rules), named)); err == nil || !strings.Contains(err.Error(), "file rules") || !strings.Contains(err.Error(), "full") {
		t.Errorf("rules that do not fit: %v", err)
	}
	if n := entries(t, b.l.maps.nodes); n != nodes {
		t.Errorf("%d nodes after rules that did not fit, %d before", n, nodes)
	}
	b.wants("EACCES", "file read %s/mnt/secret", dir)
	b.wants("ok", "file read %s/file", dir)

	before, err := b.l.Strays()
	must(t, err)
	must(t, b.l.maps.sandboxes.Delete(b.cgid))
	pid := strconv.Itoa(b.target.cmd.Process.Pid)
	for try, want := range map[string]string{
		"file read " + dir + "/file": "EACCES", "file write /dev/null": "EPERM", "file mkdir " + dir + "/d": "EACCES", "guard become " + dir + "/true": "EACCES",
		"guard bpf-list": "EPERM", "guard kill " + pid + " 28": "EPERM", "guard attach " + pid: "EPERM", "guard settime": "EPERM",
		"guard mount " + dir + "/mnt": "EPERM", "new tcp 4": "EPERM",
	} {
		b.wants(want, "%s", try)
	}
	after, err := b.l.Strays()
	must(t, err)
	if after[HookFile] <= before[HookFile] || after[HookGuard] < before[HookGuard]+5 || after[HookSocket] == before[HookSocket] {
		t.Errorf("strays before %v, after %v", before, after)
	}
	b.target.wants("ok 42", "word")
}

// TestGuardHookMissing: a kernel without one of the hooks is refused by name.
func TestGuardHookMissing(t *testing.T) {
	kernel, err := btf.LoadKernelSpec()
	must(t, err)
	spec := &ebpf.CollectionSpec{Programs: map[string]*ebpf.ProgramSpec{"a": {AttachTo: "file_open"}, "b": {AttachTo: "no_such"}, "c": {AttachTo: "another"}}}
	if err := checkHooks(spec, kernel); err == nil || !strings.Contains(err.Error(), "another, no_such,") {
		t.Errorf("%v", err)
	}
}
