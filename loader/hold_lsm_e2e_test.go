//go:build e2e && lsm

package loader

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/policy"
)

// TestHold: calls that wait for an answer.
func TestHold(t *testing.T) {
	for _, test := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"Calls", holdCalls},
		{"Rename", holdRename},
		{"Not", holdNot},
		{"Grants", holdGrants},
		{"SIGCONT", holdSIGCONT},
		{"Signal", holdSignal},
		{"Init", holdInit},
		{"Wait", holdWait},
		{"Threads", holdThreads},
		{"Latency", holdLatency},
	} {
		t.Run(test.name, test.run)
	}
}

// place puts the tree into the paths of a try.
func (b *holdBox) place(try string) string {
	f := strings.Fields(try)
	for i := range f {
		if strings.Contains(f[i], "/") {
			f[i] = filepath.Join(b.tree, f[i])
		}
	}
	return strings.Join(f, " ")
}

// holdTries are calls that can be held, what they ask for, and about which path. Each leaves what the next needs, when it is allowed.
var holdTries = []struct {
	try  string
	op   FileOp
	miss policy.Access
	path string
}{
	{"file read ask/file", OpOpen, policy.Read, "ask/file"},
	{"file write ask/file", OpOpen, policy.Write, "ask/file"},
	{"file readwrite ask/file", OpOpen, policy.Read | policy.Write, "ask/file"},
	{"file trunc ask/file", OpOpen, policy.Read | policy.Write, "ask/file"},
	{"file list ask/dir", OpOpen, List, "ask/dir"},
	{"file handle ask/file", OpOpen, policy.Read, "ask/file"},
	{"file creat ask/made", OpCreate, policy.Write, "ask/made"},
	{"file mkdir ask/d", OpCreate, policy.Write, "ask/d"},
	{"file mkfifo ask/p", OpCreate, policy.Write, "ask/p"},
	{"file symlink ask/s x", OpCreate, policy.Write, "ask/s"},
	{"file link ask/file ask/linked", OpLink, policy.Write, "ask/linked"},
	{"file unlink ask/made", OpRemove, policy.Write, "ask/made"},
	{"file rmdir ask/d", OpRemove, policy.Write, "ask/d"},
	{"file watch ask/other", OpWatch, policy.Write, "ask/other"},
	{"exec run/prog", OpExecute, policy.Execute, "run/prog"},
}

// holdCalls: a call waits until it is answered. Approved it succeeds, rejected it gives EACCES, and may be tried again. Each time there is
// one event, which names the call, and one answer.
func holdCalls(t *testing.T) {
	b := newHoldBox(t)
	for _, c := range holdTries {
		for _, v := range []policy.Verdict{policy.Deny, policy.Allow} {
			answer := b.start("%s", b.place(c.try))
			e := b.held(t)
			path := strings.TrimPrefix(filepath.Join(b.tree, c.path), "/")
			if f := e.File; f.Op != c.op || f.Missing != c.miss || f.Below != path || e.Rule < ruleAsk || e.Rule > ruleRun {
				t.Errorf("%s: the event says %s of %q for %d, rule %d", c.try, f.Op, f.Below, f.Missing, e.Rule)
			}
			if len(answer) != 0 {
				t.Errorf("%s: it did not wait: %s", c.try, <-answer)
			}
			must(t, b.Resume(e.File.Held, v))
			gets(t, answer, map[policy.Verdict]string{policy.Deny: "EACCES", policy.Allow: "ok"}[v])
			if err := b.Resume(e.File.Held, v); !errors.Is(err, ErrNotHeld) {
				t.Errorf("%s: answered twice: %v", c.try, err)
			}
			b.quiet(t)
		}
	}
}

// holdRename: a name is taken from one place and given to another; each is asked about, and neither answer is used before the other is there.
func holdRename(t *testing.T) {
	b := newHoldBox(t)
	for _, try := range []string{"file rename ask/file ask/new", "file rename ask/new ask/other", "file exchange ask/other ask/dir"} {
		answer := b.start("%s", b.place(try))
		first := b.held(t)
		must(t, b.Resume(first.File.Held, policy.Allow))
		second := b.held(t)
		if first.File.Below == second.File.Below {
			t.Errorf("%s: asked twice about %s", try, first.File.Below)
		}
		must(t, b.Resume(second.File.Held, policy.Allow))
		gets(t, answer, "ok")
		b.quiet(t)
	}
	for _, verdicts := range [][]policy.Verdict{{policy.Deny}, {policy.Allow, policy.Deny}} {
		answer := b.start("%s", b.place("file rename ask/dir ask/moved"))
		for _, v := range verdicts {
			must(t, b.Resume(b.held(t).File.Held, v))
		}
		gets(t, answer, "EACCES")
		b.quiet(t)
	}
}

// holdNot: what is not held is denied at once, and the record says so.
func holdNot(t *testing.T) {
	b := newHoldBox(t)
	for try, miss := range map[string]policy.Access{
		"file truncate ask/file": policy.Write, "file chmod ask/file": policy.Write, "file utimes ask/file": policy.Write,
		"file uring ask/file":                              policy.Read, // it has no system call to make again
		"file read none/file":                              policy.Read, // nobody asked to be asked
		"file creat ask/" + strings.Repeat("n", NameMax+1): 0,
		"file read never/file":                             0,
	} {
		b.wants("EACCES", "%s", b.place(try))
		e := b.next(t, 1)[0]
		if !e.File.Held.IsZero() || e.File.Missing != miss {
			t.Errorf("%s: held %v, missing %d", try, e.File.Held, e.File.Missing)
		}
		// With a grant the caller can try again, unless a rule denies.
		if miss == 0 {
			continue
		}
		g := grant(e)
		must(t, b.GrantFile(g))
		b.wants("ok", "%s", b.place(try))
		must(t, b.RevokeFile(g))
		b.quiet(t)
	}
	never, err := os.Open(filepath.Join(b.tree, "never/file"))
	must(t, err)
	defer never.Close()
	id, err := b.l.Identify(int(never.Fd()))
	must(t, err)
	must(t, b.GrantFile(FileGrant{Object: FileObject{File: id}, Access: policy.Read, Verdict: policy.Allow}))
	b.wants("EACCES", "%s", b.place("file read never/file"))
	b.next(t, 1)
	b.quiet(t)
}

// holdGrants: an answer that is remembered holds for its executable, file and access, until it ends or is taken back.
func holdGrants(t *testing.T) {
	b := newHoldBox(t)
	answer := b.start("%s", b.place("file readwrite ask/file"))
	e := b.held(t)
	g := grant(e)
	g.Exe = e.Exe
	must(t, b.GrantFile(g))
	must(t, b.Resume(e.File.Held, policy.Allow))
	gets(t, answer, "ok")
	for _, try := range []string{"file readwrite ask/file", "file read ask/file", "file write ask/file", "file chmod ask/file"} {
		b.wants("ok", "%s", b.place(try))
	}
	b.quiet(t)
	other := FileID{Inode: 1, Ino: 1, Dev: 1}
	must(t, b.RevokeFile(g))
	g.Exe = other
	must(t, b.GrantFile(g)) // somebody else's

	ask := func(try string) Event {
		t.Helper()
		answer := b.start("%s", b.place(try))
		e := b.held(t)
		must(t, b.Resume(e.File.Held, policy.Deny))
		gets(t, answer, "EACCES")
		return e
	}
	e = ask("file read ask/file")

	soon := grant(e)
	soon.Until = time.Now().Add(time.Hour)
	must(t, b.GrantFile(soon))
	b.wants("ok", "%s", b.place("file read ask/file"))
	soon.Until = time.Now().Add(-time.Second)
	must(t, b.GrantFile(soon))
	e = ask("file read ask/file")

	once := grant(e)
	once.Once = true
	must(t, b.GrantFile(once))
	b.wants("ok", "%s", b.place("file read ask/file"))
	e = ask("file read ask/file")

	// A remembered rejection is no question any more; it is recorded each time.
	never := grant(e)
	never.Verdict = policy.Deny
	must(t, b.GrantFile(never))
	for _, try := range []string{"file read ask/file", "file readwrite ask/file"} {
		b.wants("EACCES", "%s", b.place(try))
		if e := b.next(t, 1)[0]; e.Verdict != policy.Deny || e.Rule != 77 || !e.File.Held.IsZero() {
			t.Errorf("a remembered rejection is recorded as %s by rule %d", e.Verdict, e.Rule)
		}
	}
	ask("file write ask/file")
	must(t, b.RevokeFile(never))

	// What does not exist yet is known by its name, whatever inode it gets.
	e = ask("file creat ask/new")
	must(t, b.GrantFile(grant(e)))
	b.wants("ok", "%s", b.place("file creat ask/new"))
	ask("file creat ask/newer")
	ask("file write ask/new") // it exists now
	b.quiet(t)
}

// holdSIGCONT: who makes a held call go on from inside gets no second question and no answer, and in the end a refusal.
func holdSIGCONT(t *testing.T) {
	b := newHoldBox(t)
	answer := b.start("%s", b.place("file read ask/file"))
	e := b.held(t)
	n := 0
	for ; len(answer) == 0 && n < 1000; n++ {
		must(t, unix.Kill(e.PID, unix.SIGCONT))
		until(t, "the call is judged again", func() bool {
			state, _, err := e.File.Held.stat()
			must(t, err)
			return state == 'T' || len(answer) != 0
		})
	}
	gets(t, answer, "EACCES")
	if n < 8 {
		t.Errorf("after %d signals", n)
	}
	over := b.next(t, 1)[0]
	if over.Verdict != policy.Deny || over.Reason != ReasonResumed || over.File.Held != e.File.Held {
		t.Errorf("the refusal is recorded as %s, %s", over.Verdict, over.Reason)
	}
	if err := b.Resume(e.File.Held, policy.Allow); !errors.Is(err, ErrNotHeld) {
		t.Error(err)
	}
	b.quiet(t)
	// A few do no harm.
	answer = b.start("%s", b.place("file read ask/file"))
	e = b.held(t)
	for range 3 {
		must(t, unix.Kill(e.PID, unix.SIGCONT))
		b.stops(t, e.File.Held)
	}
	must(t, b.Resume(e.File.Held, policy.Allow))
	gets(t, answer, "ok")
	b.quiet(t)
}

// holdSignal: a signal that comes meanwhile is handled first; then the call is made again, also that of a program which would give up after EINTR.
func holdSignal(t *testing.T) {
	b := newHoldBox(t)
	answer := b.start("%s", b.place("signalled ask/file"))
	e := b.held(t)
	must(t, unix.Kill(e.PID, unix.SIGUSR1))
	must(t, b.Resume(e.File.Held, policy.Allow))
	gets(t, answer, "ok handled")
	b.quiet(t)

	// A shell's handlers are without SA_RESTART.
	sh := b.shell(t, `trap 'echo handled' USR1; test 1 <"$1" && echo opened`, filepath.Join(b.tree, "ask/file"))
	var out strings.Builder
	sh.Stdout = &out
	must(t, sh.Start())
	e = b.held(t)
	must(t, unix.Kill(e.PID, unix.SIGUSR1))
	must(t, b.Resume(e.File.Held, policy.Allow))
	if err := sh.Wait(); err != nil || !strings.Contains(out.String(), "handled") || !strings.Contains(out.String(), "opened") {
		t.Errorf("the shell said %q: %v", out.String(), err)
	}
	b.quiet(t)
}

// holdInit: the first process of a pid namespace is never stopped.
func holdInit(t *testing.T) {
	b := newHoldBox(t)
	in := startVictimWith(t, newNet(t), b.box.dir, unix.CLONE_NEWPID)
	in.wants("EACCES", "%s", b.place("file read ask/file"))
	if e := b.next(t, 1)[0]; e.Verdict != policy.Ask || !e.File.Held.IsZero() || e.File.Missing != policy.Read {
		t.Errorf("%+v", e)
	}
	b.quiet(t)
}

// holdWait: a parent that waits sees nothing of it, unless it asks about stops as a shell with job control does.
func holdWait(t *testing.T) {
	b := newHoldBox(t)
	for _, how := range []string{"plain", "untraced"} {
		answer := b.start("%s", b.place("wait "+how+" ask/file"))
		e := b.held(t)
		if how == "untraced" { // it must be told before the child goes on
			gets(t, answer, "stopped")
			answer = b.line()
		}
		must(t, b.Resume(e.File.Held, policy.Allow))
		gets(t, answer, "ok exited")
		b.quiet(t)
	}
}

// holdThreads: all threads of a process stop, so one asks after the other, or several at once when they called at the same time. Each gets
// its own answer, and a thread that asks nothing goes on when the last has got it.
func holdThreads(t *testing.T) {
	b := newHoldBox(t)
	const n = 12
	answer := b.start("threads %d %s/ask/file", n, b.tree)
	most := 0
	for answered := 0; answered < n; {
		asked := b.some(t)
		most = max(most, len(asked))
		for _, e := range slices.Backward(asked) {
			v := policy.Allow
			if answered%2 == 1 {
				v = policy.Deny
			}
			must(t, b.Resume(e.File.Held, v))
			answered++
		}
	}
	gets(t, answer, fmt.Sprintf("ok %d opened, %d refused, ticked", n/2, n/2))
	t.Logf("at most %d at once", most)
	b.quiet(t)
}

// holdLatency shows how long it takes from an answer until the held call has returned, and its caller has said so through a pipe.
func holdLatency(t *testing.T) {
	b := newHoldBox(t)
	var took []time.Duration
	var answers sync.WaitGroup
	for range 40 {
		answer := b.start("%s", b.place("file read ask/file"))
		e := b.held(t)
		start := time.Now()
		answers.Go(func() {
			if err := b.Resume(e.File.Held, policy.Allow); err != nil {
				t.Error(err)
			}
		})
		gets(t, answer, "ok")
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	t.Logf("from the answer to the return of the held call: median %s, slowest of %d %s", took[len(took)/2], len(took), took[len(took)-1])
	answers.Wait()
	b.quiet(t)
}
