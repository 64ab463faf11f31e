package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/test/harness"
)

// people's work is measured among so many sandboxes, of which every other asks and the rest refuse.
const asked = 200

// asking is the policy of a sandbox whose worker's connections are held, or, with "deny", refused.
func asking(otherwise string) string {
	return harness.Files + "hold: 5m\nprocess:\n  allow:\n    - {command: /workspace/bench}\nnetwork:\n  default: " + otherwise + "\n"
}

// desk is a daemon with many sandboxes that all have a worker, and a person who watches.
type desk struct {
	*daemon
	workers []*worker
	native  *worker
	addr    string // of a server that answers
	follow  *follower
	console *console
	tries   int
}

// measureApprovals: from an attempt to the person, from the person's answer to the connection's first byte, and both while
// another sandbox floods.
func measureApprovals(b *bench) {
	k := b.openDesk()
	for _, way := range []string{"refused", "held"} {
		line, screen := k.denials(way, b.rounds*asked/3, k.console)
		b.distribution("from an attempt that is "+way+" to the line at a follower", "50 ms", nil, line)
		b.distribution("and to the console's screen", "50 ms", nil, screen)
	}
	k.flood()
	native, once, session := k.answers(20 * b.rounds)
	b.distribution("natively: look-up, connect, first byte", "", nil, native)
	b.distribution("from an answer for once to the first byte", "20 ms", native, once)
	b.distribution("from an answer for the session to the first byte", "20 ms", native, session)
}

func (b *bench) openDesk() *desk {
	a, _ := harness.W.Addr()
	k := &desk{daemon: b.startDaemon(), addr: a.String()}
	harness.W.DNS.Set("*.bench.test", a)
	b.background("/proc/self/exe", "serve", k.addr+":8080")
	b.waitFor(k.addr + ":8080")
	ws := b.TempDir() // of all: what is measured writes nothing
	b.InstallSelf(filepath.Join(ws, "bench"))
	k.native = b.startWorker("native", exec.Command(filepath.Join(ws, "bench"), "work"))
	k.workers = make([]*worker, asked)
	for i := range asked {
		otherwise := "deny"
		if i%2 == 1 {
			otherwise = "ask"
		}
		k.make(api.Create{Name: box(i), Policy: asking(otherwise), Workspace: ws})
		k.workers[i] = k.worker(box(i))
	}
	k.follow, k.console = k.daemon.follow(), k.openConsole()
	return k
}

func box(i int) string { return fmt.Sprintf("box-%d", i) }

// follower notes when the lines about requests came.
type follower struct {
	mu   sync.Mutex
	came map[string]told      // by sandbox and object
	wait map[string]chan told // for the first line about it

	requests map[string]api.Request // the last of each
	unlisted map[string]uint64
}

// told is one line, and when it came.
type told struct {
	at float64
	r  api.Request
}

func (d *daemon) follow() *follower {
	f := &follower{came: map[string]told{}, wait: map[string]chan told{}, requests: map[string]api.Request{}, unlisted: map[string]uint64{}}
	ctx, cancel := context.WithCancel(context.Background())
	ended, ready := make(chan error, 1), make(chan struct{})
	told := sync.OnceFunc(func() { close(ready) })
	go func() {
		ended <- d.FollowRequests(ctx, "", func(c api.RequestChange) error {
			at := now()
			f.take(at, c)
			if c.Complete {
				told()
			}
			return nil
		})
	}()
	<-ready
	d.b.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			d.b.Fatal(err)
		}
	})
	return f
}

func (f *follower) take(at float64, c api.RequestChange) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, n := range c.Unlisted {
		f.unlisted[name] = n
	}
	if c.Request == nil {
		return
	}
	f.requests[c.Request.ID] = *c.Request
	about := c.Request.Sandbox + " " + c.Request.Object
	if _, known := f.came[about]; known {
		return
	}
	f.came[about] = told{at, *c.Request}
	if w := f.wait[about]; w != nil {
		w <- f.came[about]
		delete(f.wait, about)
	}
}

// first waits for the first line about an object of a sandbox.
func (f *follower) first(sandbox, object string) (told, error) {
	f.mu.Lock()
	about := sandbox + " " + object
	t, known := f.came[about]
	w := make(chan told, 1)
	if !known {
		f.wait[about] = w
	}
	f.mu.Unlock()
	if known {
		return t, nil
	}
	select {
	case t = <-w:
		return t, nil
	case <-time.After(patience):
		return t, fmt.Errorf("no line about %s in %s came", object, sandbox)
	}
}

// denials has n attempts made all over the sandboxes, one each pace, and returns how long each took to the follower and to a
// console's screen, if there is one, in microseconds. What is held is denied then.
func (k *desk) denials(way string, n int, c *console) (line, screen []float64) {
	line, screen = make([]float64, n), make([]float64, n)
	k.tries++
	var g errgroup.Group
	half := asked / 2
	for i := range n {
		at, of := i%half*2, k.tries*1000+i/half
		if way == "held" {
			at++
		}
		if i%half == 0 {
			k.b.Must(g.Wait()) // a worker does one thing at a time
		}
		g.Go(func() (err error) {
			line[i], screen[i], err = k.denial(at, way, of, c)
			return err
		})
		time.Sleep(pace)
	}
	k.b.Must(g.Wait())
	return line, screen
}

// pace is the time between two attempts: more in a second than people could answer in minutes.
const pace = 30 * time.Millisecond

func (k *desk) denial(at int, way string, of int, c *console) (line, screen float64, err error) {
	w, object, job := k.workers[at], fmt.Sprintf("%s:%d", k.addr, 10000+of), "refused"
	if way == "held" {
		object, job = fmt.Sprintf("h%d.bench.test:8080", of), "begin"
	}
	var shown *wait
	if c != nil {
		shown = c.listed(way, box(at), object)
		if err := c.press("0"); err != nil { // the list follows the cursor, and what is new comes first
			return 0, 0, err
		}
	}
	start := w.do(job, 1, object)
	t, err := k.follow.first(box(at), object)
	if err != nil {
		return 0, 0, err
	}
	if c != nil {
		seen, err := shown.wait()
		if err != nil {
			return 0, 0, fmt.Errorf("%s of %s: %w", object, box(at), err)
		}
		screen = seen - start
	}
	if way == "held" {
		if _, err := k.Answer(context.Background(), t.r.ID, api.NewAnswer{Verdict: "deny"}); err != nil {
			return 0, 0, err
		}
		if got := w.do("end", 1, object); got != 0 {
			return 0, 0, fmt.Errorf("%s was reached although it was denied", object)
		}
	}
	return t.at - start, screen, nil
}

// answers returns how long n connections took natively, from an answer for once, and from one for the session to their first
// byte, in microseconds.
func (k *desk) answers(n int) (native, once, session []float64) {
	ctx := context.Background()
	for i := range n {
		native = append(native, k.native.do("first", 1, "native.bench.test:8080"))
		for j, scope := range []api.Scope{api.ScopeOnce, api.ScopeSession} {
			at := (4*i+2*j)%asked + 1
			w, object := k.workers[at], fmt.Sprintf("%s-%d.bench.test:8080", scope, i)
			w.do("begin", 1, object)
			t, err := k.follow.first(box(at), object)
			k.b.Must(err)
			start := now()
			_, err = k.Answer(ctx, t.r.ID, api.NewAnswer{Verdict: "allow", Scope: scope, Confirm: true})
			k.b.Must(err)
			took := w.do("end", 1, "") - start
			if took < 0 {
				k.b.Fatalf("%s was reached before it was allowed", object)
			}
			if scope == api.ScopeOnce {
				once = append(once, took)
			} else {
				session = append(session, took)
			}
		}
	}
	return native, once, session
}
