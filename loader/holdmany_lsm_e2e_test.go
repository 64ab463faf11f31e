//go:build e2e && lsm

package loader

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/policy"
)

// TestHoldMany: many calls at once, and what becomes of them when somebody dies.
func TestHoldMany(t *testing.T) {
	for _, test := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"Thousand", holdThousand},
		{"Once", holdOnce},
		{"TenThousand", holdTenThousand},
		{"Dead", holdDead},
		{"KilledAgent", holdKilledAgent},
	} {
		t.Run(test.name, test.run)
	}
}

// askers is a shell that starts a process for each call, and what they say: ok or no.
type askers struct {
	in  io.WriteCloser
	out *bufio.Scanner
}

// startAskers starts it. It reads how many processes to start; each opens a file.
func (b *holdBox) startAskers(t *testing.T, file string) *askers {
	t.Helper()
	cmd := b.shell(t, `while read -r n; do
		while [ $n -gt 0 ]; do
			n=$((n-1))
			{ if test 1 <"$1"; then echo ok; else echo no; fi; } 2>/dev/null &
		done
	done; wait`, filepath.Join(b.tree, file))
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() {
		in.Close()
		if t.Failed() {
			_ = cmd.Process.Kill()
			_ = os.WriteFile(filepath.Join(b.box.dir.Name(), "cgroup.kill"), []byte("1"), 0)
		}
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	return &askers{in, bufio.NewScanner(out)}
}

// ask starts n more that ask, and returns when all of them do.
func (a *askers) ask(t *testing.T, b *holdBox, n int) []Event {
	t.Helper()
	var asked []Event
	for n > 0 {
		part := min(n, 100) // the event ring has room for more
		fmt.Fprintln(a.in, part)
		asked = append(asked, b.next(t, part)...)
		n -= part
	}
	return asked
}

// said returns how many could open the file, of n that were answered.
func (a *askers) said(t *testing.T, n int) (opened int) {
	t.Helper()
	for range n {
		if !a.out.Scan() {
			t.Fatal("the shell has ended: ", a.out.Err())
		}
		if a.out.Text() == "ok" {
			opened++
		}
	}
	return opened
}

// holdThousand: 1,000 calls are held at once, of the same file by the same program, and each gets its own answer.
func holdThousand(t *testing.T) {
	b := newHoldBox(t)
	const n, workers = 1000, 16
	a := b.startAskers(t, "ask/file")
	asked := a.ask(t, b, n)
	if waiting := b.waiting(t); waiting != n {
		t.Fatalf("%d calls wait", waiting)
	}
	var work sync.WaitGroup
	for w := range workers {
		work.Go(func() {
			for i := w; i < n; i += workers {
				v := policy.Deny
				if i%3 == 0 {
					v = policy.Allow
				}
				if err := b.Resume(asked[i].File.Held, v); err != nil {
					t.Error(err)
				}
			}
		})
	}
	work.Wait()
	if opened := a.said(t, n); opened != (n+2)/3 {
		t.Errorf("%d were allowed, want %d", opened, (n+2)/3)
	}
	b.quiet(t)
	c, err := b.Counters()
	must(t, err)
	if c.Lost != 0 || c.Of(HookFile, policy.Ask) != n {
		t.Errorf("%d asks, %d lost", c.Of(HookFile, policy.Ask), c.Lost)
	}
}

// holdOnce: a grant for once lets exactly one of many pass; the others still wait.
func holdOnce(t *testing.T) {
	b := newHoldBox(t)
	const n = 40
	a := b.startAskers(t, "ask/file")
	asked := a.ask(t, b, n)
	once := grant(asked[0])
	once.Once = true
	must(t, b.GrantFile(once))
	for _, e := range asked { // all at once
		must(t, unix.Kill(e.PID, unix.SIGCONT))
	}
	if a.said(t, 1) != 1 {
		t.Error("who took the grant could not open the file")
	}
	until(t, "the others wait again", func() bool { return b.waiting(t) == n-1 })
	if entries(t, b.l.maps.fileGrants) != 0 {
		t.Error("the grant is still there")
	}
	passed := 0
	for _, e := range asked {
		err := b.Resume(e.File.Held, policy.Deny)
		if errors.Is(err, ErrNotHeld) {
			passed++
		} else if err != nil {
			t.Error(err)
		}
	}
	if opened := a.said(t, n-1); passed != 1 || opened != 0 {
		t.Errorf("%d passed by the grant, and %d opened the file in spite of their answer", passed, opened)
	}
	b.quiet(t)
}

// holdTenThousand: 10,000 questions of many processes are answered as they come: none is stuck, none answered twice, each caller gets what
// it was told.
func holdTenThousand(t *testing.T) {
	t.Parallel()
	b := &holdBox{l: lsmLoader(t), tree: holdTree(t)}
	const callers, each = 20, 500
	var mu sync.Mutex
	told := map[int]*strings.Builder{}
	var answers sync.WaitGroup
	b.box = newBoxWith(t, b.l, Options{Hold: true}, func(e Event) {
		if e.File.Held.IsZero() {
			t.Error("not held: ", e)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		to := told[e.PID]
		if to == nil {
			to = &strings.Builder{}
			told[e.PID] = to
		}
		v := policy.Deny
		if (to.Len()^e.PID)&3 != 0 {
			v = policy.Allow
		}
		to.WriteString(strconv.Itoa(int(v)))
		answers.Go(func() {
			if err := b.Resume(e.File.Held, v); err != nil {
				t.Errorf("answer of process %d: %v", e.PID, err)
			}
		})
	})
	must(t, holdRules(b.l, b.Guard, b.tree))
	start := time.Now()
	var shells []*exec.Cmd
	var said [callers]strings.Builder
	for i := range callers {
		sh := b.shell(t, fmt.Sprintf(`n=$2; while [ $n -gt 0 ]; do
			n=$((n-1))
			if test 1 <"$1"; then s=${s}%d; else s=${s}%d; fi
		done 2>/dev/null; echo $s`, policy.Allow, policy.Deny), filepath.Join(b.tree, "ask/file"), strconv.Itoa(each))
		sh.Stdout = &said[i]
		must(t, sh.Start())
		shells = append(shells, sh)
	}
	for i, sh := range shells {
		must(t, sh.Wait())
		mu.Lock()
		if want := told[sh.Process.Pid].String(); len(want) != each || strings.TrimSpace(said[i].String()) != want {
			t.Errorf("process %d was told %s, and says %s", sh.Process.Pid, want, said[i].String())
		}
		mu.Unlock()
	}
	answers.Wait()
	t.Logf("%d answers in %s", callers*each, time.Since(start))
	b.quiet(t)
}

// holdDead: what a dead task has asked is forgotten, and whoever answers it learns that.
func holdDead(t *testing.T) {
	b := newHoldBox(t)
	a := b.startAskers(t, "ask/file")
	asked := a.ask(t, b, 2)
	for _, e := range asked {
		must(t, unix.Kill(e.PID, unix.SIGKILL))
		until(t, "the process is gone", func() bool {
			state, _, err := e.File.Held.stat()
			return err != nil || state == 'Z'
		})
	}
	_, err := fmt.Fprintln(a.in, 0) // the shell reaps meanwhile
	must(t, err)
	a.in.Close()
	until(t, "the processes are reaped", func() bool {
		_, _, err := asked[1].File.Held.stat()
		_, _, also := asked[0].File.Held.stat()
		return err != nil && also != nil
	})
	if err := b.Resume(asked[0].File.Held, policy.Allow); !errors.Is(err, ErrNotHeld) {
		t.Error(err)
	}
	must(t, b.l.sweepHeld())
	b.quiet(t)
}

// holdKilledAgent: when an agent was killed and its lease has lapsed, nothing more is held, and what is held goes on only when somebody inside
// makes it, with a refusal. The next agent lets go on the rest, with a rejection. Then it holds as before.
func holdKilledAgent(t *testing.T) {
	t.Parallel() // most of it waits for a lease to lapse
	tree, own := holdTree(t), lsmLoader(t)
	dir := makeCgroup(t, own)
	agent := startAgentWith(t, common.cfg, dir, tree)
	held, left, other := startVictim(t, newNet(t), dir), startVictim(t, newNet(t), dir), startVictim(t, newNet(t), dir)
	answer, unanswered := held.start("file read %s/ask/file", tree), left.start("file read %s/ask/file", tree)
	stopped := func(v *victim) bool {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", v.cmd.Process.Pid))
		must(t, err)
		return bytes.Contains(text, []byte("State:\tT"))
	}
	until(t, "both calls are held", func() bool { return stopped(held) && stopped(left) })
	must(t, agent.Process.Kill())
	_ = agent.Wait()
	// The lease of the killed agent lapses.
	time.Sleep(leaseTime + leaseRenew)
	other.wants("EACCES", "file read %s/ask/file", tree)
	other.wants("EACCES", "file creat %s/ask/new", tree)
	if !stopped(held) || len(answer) != 0 {
		t.Fatal("the held call goes on by itself")
	}
	must(t, left.cmd.Process.Signal(unix.SIGCONT))
	gets(t, unanswered, "EACCES")
	b := &holdBox{box: &box{dir: dir}, victim: other, l: own, tree: tree}
	g, err := own.Adopt(dir, Options{OnEvent: func(e Event) {
		b.mu.Lock()
		b.events = append(b.events, e)
		b.mu.Unlock()
	}})
	must(t, err)
	b.Guard = g
	defer func() { must(t, g.Close()) }()
	gets(t, answer, "EACCES")
	b.quiet(t)
	for _, v := range []policy.Verdict{policy.Deny, policy.Allow} {
		answer = held.start("file read %s/ask/file", tree)
		e := b.held(t)
		must(t, b.Resume(e.File.Held, v))
		gets(t, answer, map[policy.Verdict]string{policy.Deny: "EACCES", policy.Allow: "ok"}[v])
	}
	g.Detach() // nobody is there again
	other.wants("EACCES", "file read %s/ask/file", tree)
	if g, err = own.Adopt(dir, Options{}); err != nil {
		t.Fatal(err)
	}
	for _, v := range []*victim{held, left, other} {
		must(t, v.cmd.Process.Kill())
	}
}

func init() {
	plain := fillAgent
	fillAgent = func(l *Loader, g *Guard, tree string) error {
		if tree == "" {
			return plain(l, g, tree)
		}
		return holdRules(l, g, tree)
	}
}
