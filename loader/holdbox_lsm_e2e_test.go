//go:build e2e && lsm

package loader

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/bpf"
	"github.com/nemoclaw/nemoclaw/policy"
)

// holdBox is a sandbox whose rules ask, and a victim in it.
type holdBox struct {
	*box
	*victim
	l    *Loader
	tree string
}

// patience is how long a test waits for what has to come. Only a failure takes as long.
const patience = 2 * time.Minute

// What the rules of holdRules are numbered by.
const (
	ruleAsk policy.RuleID = 1 + iota
	ruleRun
	ruleNever
	ruleSystem
)

// holdTree makes a tree on the disk:
//
//	ask/    everything is asked about     file, other, dir/
//	run/    read, and execution is asked  prog, script (of prog)
//	never/  a rule denies everything      file
//	none/   has no rule                   file
func holdTree(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "nemoclaw-hold-")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	for _, d := range []string{"ask/dir", "run", "never", "none"} {
		must(t, os.MkdirAll(filepath.Join(dir, d), 0o755))
	}
	for _, f := range []string{"ask/file", "ask/other", "never/file", "none/file"} {
		must(t, os.WriteFile(filepath.Join(dir, f), []byte(f), 0o644))
	}
	data, err := os.ReadFile("/bin/true")
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "run/prog"), data, 0o755))
	return dir
}

// holdRules puts the rules of a tree into force. The victim and the shell may be executed.
func holdRules(l *Loader, g *Guard, dir string) error {
	var failed error
	id := func(path string) FileID {
		f, err := os.OpenFile(path, unix.O_PATH, 0)
		if err != nil {
			failed = err
			return FileID{}
		}
		defer f.Close() // the files stay as long as the test
		id, err := l.Identify(int(f.Fd()))
		if err != nil {
			failed = err
		}
		return id
	}
	node := func(path string, allow, ask policy.Access, rule policy.RuleID) FileNode {
		return FileNode{File: id(filepath.Join(dir, path)), Allow: allow, Ask: ask, Rules: [3]policy.RuleID{rule, rule, rule}}
	}
	nodes := []FileNode{
		{File: id("/"), Allow: List, Mount: true},
		node("ask", 0, anyAccess, ruleAsk),
		node("run", policy.Read|List, policy.Execute, ruleRun),
		node("never", 0, 0, ruleNever),
	}
	for _, system := range []string{"/usr", "/lib", "/lib64", "/bin", "/etc", "/dev", "/proc", "/sys", "/srv"} {
		if at, err := filepath.EvalSymlinks(system); err == nil {
			n := FileNode{File: id(at), Allow: policy.Read | List, Mount: at == "/proc" || at == "/dev" || at == "/sys", Rules: [3]policy.RuleID{ruleSystem, ruleSystem, ruleSystem}}
			if at == "/dev" {
				n.Allow |= policy.Write
			}
			nodes = append(nodes, n)
		}
	}
	programs := []ExecEntry{{File: id("/proc/self/exe"), Quiet: true}, {File: id("/bin/sh"), Quiet: true}}
	if failed != nil {
		return failed
	}
	if err := g.SetExec(programs); err != nil {
		return err
	}
	return g.SetFiles(nodes)
}

func newHoldBox(t *testing.T) *holdBox {
	t.Helper()
	b := &holdBox{l: lsmLoader(t), tree: holdTree(t)}
	b.box = newBox(t, b.l, Options{Hold: true})
	must(t, holdRules(b.l, b.Guard, b.tree))
	b.victim = startVictim(t, newNet(t), b.box.dir)
	b.wants("ok", "file stat /")
	b.quiet(t)
	return b
}

// start lets the victim try something. The answer comes when it is there.
func (v *victim) start(format string, args ...any) <-chan string {
	v.t.Helper()
	_, err := fmt.Fprintf(v.in, format+"\n", args...)
	must(v.t, err)
	return v.line()
}

// line reads the victim's next line.
func (v *victim) line() <-chan string {
	answer := make(chan string, 1)
	go func() {
		line, err := v.out.ReadString('\n')
		if err != nil {
			line = err.Error()
		}
		answer <- strings.TrimSpace(line)
	}()
	return answer
}

// gets checks an answer.
func gets(t *testing.T, answer <-chan string, want string) {
	t.Helper()
	select {
	case got := <-answer:
		if got != want {
			t.Errorf("the call gives %s, want %s", got, want)
		}
	case <-time.After(patience):
		t.Fatalf("the call does not return, want %s", want)
	}
}

// until waits for something that has to come.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for start := time.Now(); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Since(start) > patience {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// files returns the events of files that nobody has taken.
func (b *holdBox) files() []Event {
	var files []Event
	for _, e := range b.box.take() {
		if e.Hook == HookFile {
			files = append(files, e)
		}
	}
	return files
}

// some waits for events of files.
func (b *holdBox) some(t *testing.T) []Event {
	t.Helper()
	var got []Event
	until(t, "a call asks", func() bool {
		got = b.files()
		return len(got) > 0
	})
	return got
}

// next waits for the next n events of files.
func (b *holdBox) next(t *testing.T, n int) []Event {
	t.Helper()
	var got []Event
	for len(got) < n {
		got = append(got, b.some(t)...)
	}
	if len(got) > n {
		t.Errorf("%d events, want %d", len(got), n)
	}
	return got
}

// held waits for a call that asks and for its process to have stopped.
func (b *holdBox) held(t *testing.T) Event {
	t.Helper()
	e := b.next(t, 1)[0]
	if e.Verdict != policy.Ask || e.File.Held.IsZero() {
		t.Fatalf("%s of %s (%s) is not held: %s by rule %d", e.File.Op, e.File.Below, e.Args, e.Verdict, e.Rule)
	}
	b.stops(t, e.File.Held)
	return e
}

func (b *holdBox) stops(t *testing.T, h HeldCall) {
	t.Helper()
	until(t, "the caller stops", func() bool {
		state, _, err := h.stat()
		must(t, err)
		return state == 'T'
	})
}

// quiet checks that nothing was recorded, and that nobody waits.
func (b *holdBox) quiet(t *testing.T) {
	t.Helper()
	if events := b.files(); len(events) != 0 {
		t.Errorf("events: %+v", events)
	}
	if n := b.waiting(t); n != 0 {
		t.Errorf("%d calls wait", n)
	}
	unused, err := collect[bpf.LsmCallKey, bpf.LsmCallAnswer](b.l.maps.answers, func(k bpf.LsmCallKey) bool { return k.Cgid == b.cgid })
	must(t, err)
	if len(unused) != 0 {
		t.Errorf("%d answers were not used", len(unused))
	}
}

// waiting is how many calls wait.
func (b *holdBox) waiting(t *testing.T) int {
	t.Helper()
	pending, err := collect[bpf.LsmHeldKey, bpf.LsmHeld](b.l.maps.pending, func(k bpf.LsmHeldKey) bool { return k.What.Cgid == b.cgid })
	must(t, err)
	return len(pending)
}

// grant is the grant that would let what an event says.
func grant(e Event) FileGrant {
	return FileGrant{Object: e.File.Object, Access: e.File.Missing, Verdict: policy.Allow, Rule: 77}
}

// shell starts a shell inside that runs a script.
func (b *holdBox) shell(t *testing.T, script string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/bin/sh", append([]string{"-c", script, "sh"}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(b.box.dir.Fd())}
	cmd.Stderr = os.Stderr
	return cmd
}
