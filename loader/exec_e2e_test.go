//go:build e2e

package loader

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/policy"
)

// held identifies a file and holds it open until the test ends, as whoever lists a file has to.
func held(t testing.TB, l *Loader, path string) FileID {
	t.Helper()
	f, err := os.OpenFile(path, unix.O_PATH, 0)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	id, err := l.Identify(int(f.Fd()))
	must(t, err)
	return id
}

// copyProgram copies a program to a directory.
func copyProgram(t testing.TB, from, to string) string {
	t.Helper()
	data, err := os.ReadFile(from)
	must(t, err)
	must(t, os.MkdirAll(filepath.Dir(to), 0o755))
	must(t, os.WriteFile(to, data, 0o755))
	return to
}

const killed = "ok killed"

func TestExec(t *testing.T) {
	w := newWorld(t, Options{Revision: 9})
	tmp := t.TempDir()
	marker := filepath.Join(tmp, "marker")
	allowed := held(t, w.l, "/usr/bin/touch")
	shell, err := filepath.EvalSymlinks("/bin/sh")
	must(t, err)
	must(t, w.SetExec([]ExecEntry{{File: w.exe, Quiet: true}, {File: allowed, Rule: 61}, {File: held(t, w.l, shell), Rule: 62}}))

	w.in.wants("ok", "exec /usr/bin/touch %s", marker)
	must(t, os.Remove(marker))
	events := w.take()
	if len(events) != 1 {
		t.Fatalf("events:%s", describe(events))
	}
	if e := events[0]; e.Hook != HookExec || e.Verdict != policy.Allow || e.Rule != 61 || e.Exe != allowed || e.Path != "/usr/bin/touch" ||
		e.Args != "/usr/bin/touch "+marker || e.Parent != w.in.cmd.Process.Pid || e.Revision != 9 {
		t.Errorf("event:%s exe %+v path %q parent %d", describe(events), e.Exe, e.Path, e.Parent)
	}

	static := buildStatic(t, tmp, marker)
	loaderPath := dynamicLoader(t)
	script := filepath.Join(tmp, "script")
	must(t, os.WriteFile(script, []byte("#!"+shell+"\n:\n"), 0o755))
	badScript := filepath.Join(tmp, "badscript")
	must(t, os.WriteFile(badScript, []byte("#!"+static+"\n"), 0o755))
	w.in.wants("ok", "exec %s", script)
	if events = w.take(); len(events) != 1 || events[0].Rule != 62 || events[0].Path != script {
		t.Errorf("script, events:%s", describe(events))
	}

	deleted := copyProgram(t, static, filepath.Join(tmp, "deleted"))
	f, err := os.Open(deleted)
	must(t, err)
	defer f.Close()
	must(t, os.Remove(deleted))
	long := copyProgram(t, static, filepath.Join(tmp, strings.Repeat("d", 100), strings.Repeat("e", 100)))
	for _, tt := range []struct{ name, try, path string }{
		{"static program", "exec " + static, static},
		{"a copy of an allowed program", "exec " + copyProgram(t, "/usr/bin/touch", filepath.Join(tmp, "touch")) + " " + marker, filepath.Join(tmp, "touch")},
		{"program in memory", "memfd " + static, ""},
		{"deleted program", "exec /proc/" + itoa(os.Getpid()) + "/fd/" + itoa(int(f.Fd())), "/proc/" + itoa(os.Getpid()) + "/fd/" + itoa(int(f.Fd()))},
		{"the dynamic loader as a command", "exec " + loaderPath + " /usr/bin/touch " + marker, loaderPath},
		{"script whose interpreter is not allowed", "exec " + badScript, badScript},
		{"path and arguments that are long", "exec " + long + " " + strings.Repeat("x", 200), long},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if !strings.HasPrefix(tt.try, "exec "+badScript) {
				w.out.wants("ok", "%s", tt.try)
				if _, err := os.Stat(marker); err != nil {
					t.Fatalf("outside it did nothing: %v", err)
				}
				must(t, os.Remove(marker))
			}
			w.in.wants(killed, "%s", tt.try)
			if _, err := os.Stat(marker); err == nil {
				t.Error("the program ran before it was killed")
				must(t, os.Remove(marker))
			}
			events := w.take()
			if len(events) != 1 || events[0].Verdict != policy.Deny || events[0].Rule != 0 || (tt.path != "" && events[0].Path != tt.path) {
				t.Errorf("events:%s", describe(events))
			}
			if len(events) == 1 && strings.HasPrefix(tt.try, "exec "+long) && len(events[0].Args) != 256 {
				t.Errorf("%d bytes of arguments, want 256", len(events[0].Args))
			}
		})
	}
	if n := w.count(t, HookExec, policy.Deny); n != 7 {
		t.Errorf("%d refusals counted, want 7", n)
	}
}

func TestExecTree(t *testing.T) {
	w := newWorld(t, Options{})
	tmp := t.TempDir()
	tree := filepath.Join(tmp, "tree")
	inside := copyProgram(t, "/bin/true", filepath.Join(tree, "a/b/c/true"))
	outside := copyProgram(t, "/bin/true", filepath.Join(tmp, "true"))
	denied := copyProgram(t, "/bin/true", filepath.Join(tree, "a/denied"))
	deniedTree := copyProgram(t, "/bin/true", filepath.Join(tree, "bad/true"))
	base := []ExecEntry{{File: w.exe, Quiet: true}}
	must(t, w.SetExec(append(base,
		ExecEntry{File: held(t, w.l, tree), Tree: true, Rule: 71}, ExecEntry{File: held(t, w.l, denied), Deny: true, Rule: 72},
		ExecEntry{File: held(t, w.l, filepath.Join(tree, "bad")), Tree: true, Deny: true, Rule: 73})))
	for _, tt := range []struct {
		path, want string
		rule       policy.RuleID
	}{{inside, "ok", 71}, {outside, killed, 0}, {denied, killed, 72}, {deniedTree, killed, 73}} {
		w.out.wants("ok", "exec %s", tt.path)
		w.in.wants(tt.want, "exec %s", tt.path)
		if events := w.take(); len(events) != 1 || events[0].Rule != tt.rule || events[0].Path != tt.path {
			t.Errorf("%s, events:%s", tt.path, describe(events))
		}
	}
	must(t, os.Rename(outside, filepath.Join(tree, "moved")))
	w.in.wants("ok", "exec %s", filepath.Join(tree, "moved"))
	must(t, w.SetExec(base))
	w.in.wants(killed, "exec %s", inside)

	deep := tmp
	for range 70 {
		deep = filepath.Join(deep, "d")
	}
	program := copyProgram(t, "/bin/true", filepath.Join(deep, "true"))
	must(t, w.SetExec(append(base, ExecEntry{File: held(t, w.l, tmp), Tree: true})))
	w.in.wants(killed, "exec %s", program)
}

func TestExecOfStray(t *testing.T) {
	l := commonLoader(t)
	dir := makeCgroup(t, l)
	cmd := exec.Command("/bin/true")
	cmd.SysProcAttr = inCgroup(dir)
	// Where LSM programs judge, they refuse it before it is a program.
	want, hook := "signal: killed", HookExec
	if l.Level() == policy.LevelFull {
		want, hook = "fork/exec /bin/true: permission denied", HookFile
	}
	before, err := l.Strays()
	must(t, err)
	if err := cmd.Run(); err == nil || err.Error() != want {
		t.Errorf("a program in a cgroup without a guard: %v", err)
	}
	after, err := l.Strays()
	must(t, err)
	if after[hook] == before[hook] {
		t.Errorf("no stray was counted: %v", after)
	}
	must(t, exec.Command("/bin/true").Run())
}

// TestExecOfInit executes as the first process of a pid namespace, which ignores ordinary signals.
func TestExecOfInit(t *testing.T) {
	l := commonLoader(t)
	b := newBox(t, l, Options{})
	run := func() error {
		cmd := exec.Command("/bin/true")
		cmd.SysProcAttr = inCgroup(b.dir)
		cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWPID
		return cmd.Run()
	}
	if err := run(); err == nil || err.Error() != "signal: killed" {
		t.Errorf("an init that is not allowed: %v", err)
	}
	must(t, b.SetExec([]ExecEntry{{File: held(t, l, "/bin/true"), Quiet: true}}))
	must(t, run())
}

// TestIdentifyOnOverlay executes files of an overlay, whose inodes stat describes otherwise.
func TestIdentifyOnOverlay(t *testing.T) {
	w := newWorld(t, Options{})
	tmp := t.TempDir()
	lower, upper, merged := filepath.Join(tmp, "lower"), filepath.Join(tmp, "upper"), filepath.Join(tmp, "merged")
	for _, d := range []string{lower, upper, merged} {
		must(t, os.Mkdir(d, 0o755))
	}
	// Another file system above: numbers of the two can collide, and stat shows made-up devices.
	must(t, unix.Mount("tmpfs", upper, "tmpfs", 0, ""))
	defer func() { must(t, unix.Unmount(upper, unix.MNT_DETACH)) }()
	must(t, os.Mkdir(filepath.Join(upper, "work"), 0o755))
	must(t, os.Mkdir(filepath.Join(upper, "up"), 0o755))
	copyProgram(t, "/bin/true", filepath.Join(lower, "low"))
	copyProgram(t, "/bin/true", filepath.Join(lower, "other"))
	must(t, unix.Mount("overlay", merged, "overlay", 0, "lowerdir="+lower+",upperdir="+upper+"/up,workdir="+upper+"/work"))
	defer func() { must(t, unix.Unmount(merged, unix.MNT_DETACH)) }()
	copyProgram(t, "/bin/true", filepath.Join(merged, "new"))

	low, fresh := held(t, w.l, filepath.Join(merged, "low")), held(t, w.l, filepath.Join(merged, "new"))
	must(t, w.SetExec([]ExecEntry{{File: w.exe, Quiet: true}, {File: low, Rule: 81}, {File: fresh, Rule: 82}}))
	w.in.wants("ok", "exec %s", filepath.Join(merged, "low"))
	w.in.wants("ok", "exec %s", filepath.Join(merged, "new"))
	w.in.wants(killed, "exec %s", filepath.Join(merged, "other"))
	w.in.wants(killed, "exec %s", filepath.Join(lower, "low"))
	must(t, w.SetExec([]ExecEntry{{File: w.exe, Quiet: true}, {File: held(t, w.l, merged), Tree: true, Rule: 83}}))
	w.in.wants("ok", "exec %s", filepath.Join(merged, "other"))
}

func TestIdentify(t *testing.T) {
	l := commonLoader(t)
	a, b := held(t, l, "/bin/true"), held(t, l, "/bin/true")
	if a != b || a.IsZero() || a.Ino == 0 || a.Dev == 0 {
		t.Errorf("two descriptors of one file: %+v, %+v", a, b)
	}
	var st unix.Stat_t
	must(t, unix.Stat("/bin/true", &st))
	if a.Ino != st.Ino {
		t.Errorf("inode %d, stat says %d", a.Ino, st.Ino)
	}
	if c := held(t, l, "/bin/false"); c == a {
		t.Errorf("two files, one identity %+v", c)
	}
	for _, fd := range []int{-1, 9999, 1 << 30} {
		if id, err := l.Identify(fd); err == nil {
			t.Errorf("descriptor %d has identity %+v", fd, id)
		}
	}
}

func TestIdentifyAll(t *testing.T) {
	l := commonLoader(t)
	var fds []int
	var want []FileID
	for i := range 30 {
		f, err := os.Create(filepath.Join(t.TempDir(), itoa(i)))
		must(t, err)
		defer f.Close()
		fds = append(fds, int(f.Fd()))
		id, err := l.Identify(int(f.Fd()))
		must(t, err)
		want = append(want, id)
	}
	got, err := l.IdentifyAll(fds)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v\n%+v\nwant\n%+v", err, got, want)
	}
	if _, err := l.IdentifyAll(append(fds, 5000)); err == nil || !strings.Contains(err.Error(), "5000") {
		t.Errorf("a descriptor that is not open: %v", err)
	}
}
