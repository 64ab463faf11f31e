package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/nemoclaw/nemoclaw/api"
	nemoclaw "github.com/nemoclaw/nemoclaw/policy"
	"github.com/nemoclaw/nemoclaw/test/harness"
)

// counts are how many sandboxes exist while things are measured.
var counts = []int{2, 10, 50, 200}

// measureDaemon: sandboxes that last, one and many.
func measureDaemon(b *bench) {
	d, c := b.startDaemon(), b.newContainer()
	c.start("bench")
	b.measureStarts()
	addr, _ := harness.W.Addr()
	b.background("/proc/self/exe", "serve", addr.String()+":8080")
	b.waitFor(addr.String() + ":8080")
	workers := map[string]*worker{"few": d.sandbox("few", policy)}
	b.measureExec(d, c)
	b.measureAmong(d, c, 1)
	workers["thousand"] = d.sandbox("thousand", b.manyRules())
	before, inits := d.memory(nil), []int(nil)
	var made time.Duration
	there := 0
	for _, n := range counts {
		start := time.Now()
		for ; there < n-len(workers); there++ {
			d.make(api.Create{Name: fmt.Sprintf("idle-%d", there), Policy: policy})
		}
		made += time.Since(start)
		if n > len(workers) {
			b.measureAmong(d, c, n)
		}
		if n == counts[0] || n == counts[len(counts)-1] {
			b.measureChanges(d, n, addr.String(), workers)
			b.measureEvents(d, n, addr.String(), workers["few"])
		}
	}
	for i := range there {
		s, err := d.Get(context.Background(), fmt.Sprintf("idle-%d", i))
		b.Must(err)
		inits = append(inits, s.PID)
	}
	b.fact(fmt.Sprintf("memory of an idle sandbox, mean of %d", there), d.memory(inits).each(before, there))
	b.measureAll(d, there, made)
}

// sandbox makes one with a worker in it.
func (d *daemon) sandbox(name, policy string) *worker {
	ws := d.b.TempDir()
	d.b.InstallSelf(filepath.Join(ws, "bench"))
	d.make(api.Create{Name: name, Policy: policy, Workspace: ws})
	return d.worker(name)
}

// measureStarts: what a person waits for before anything happens.
func (b *bench) measureStarts() {
	bin := harness.W.Bin
	argv := [][]string{{"/bin/true"}, {bin, "--version"}, {bin, "__complete", "pol"}, {bin, "completion", "bash"}}
	b.contest("start of a program", "µs", []string{"/bin/true", "`nemoclaw --version`", "completing a word", "`completion bash`"}, func(i int) float64 { return b.start(argv[i]) })
}

// measureExec: /bin/true natively, in a sandbox through the client and through the command line, and in a runc container.
func (b *bench) measureExec(d *daemon, c *container) {
	ways := []func() error{
		func() error { return exec.Command("/bin/true").Run() },
		func() error { return d.exec("few", "/bin/true") },
		func() error { return d.Command("few", "exec", "/bin/true").Run() },
		func() error {
			argv := c.args("exec", "bench", "/bin/true")
			return exec.Command(argv[0], argv[1:]...).Run()
		},
	}
	b.contest("exec of /bin/true", "µs", []string{"native", "nemoclaw, API", "`nemoclaw NAME exec`", "`runc exec`"}, func(i int) float64 { return b.times(execs(i), ways[i]) })
	cols := b.rows[len(b.rows)-1].cols
	b.rows = append(b.rows, row{what: "the same", unit: "µs", cols: []column{cols[3], cols[1], cols[2]}})
}

// execs is how often contestant i of an exec does it in a round: the slow ones less.
func execs(i int) int { return []int{20, 20, 5, 2}[i] }

// measureAmong: an exec, and a sandbox's whole life, where n sandboxes exist.
func (b *bench) measureAmong(d *daemon, c *container, n int) {
	b.contest(fmt.Sprintf("exec among %d", n), "µs", []string{"native", "nemoclaw, API"}, func(i int) float64 {
		return b.times(20, []func() error{
			func() error { return exec.Command("/bin/true").Run() },
			func() error { return d.exec("few", "/bin/true") },
		}[i])
	})
	c.bundle("true")
	b.contest(fmt.Sprintf("create, start, /bin/true, destroy, among %d", n), "µs", []string{"`runc run`", "nemoclaw, API"}, func(i int) float64 {
		return b.times(1, []func() error{
			func() error { c.run("run", "--bundle", c.files, "once"); return nil },
			func() error { return d.life("once", policy) },
		}[i])
	})
}

// measureChanges: a rule comes and goes, in force when the answer is there.
func (b *bench) measureChanges(d *daemon, n int, addr string, workers map[string]*worker) {
	rule := &api.PolicyRule{CIDR: addr + "/32", Ports: []uint16{8080}}
	names := []string{"few", "thousand"}
	b.contest(fmt.Sprintf("a rule comes and goes (two changes), among %d", n), "µs", []string{"few rules", "1,000 rules"}, func(i int) float64 {
		w := workers[names[i]]
		return b.times(1, func() error {
			d.change(names[i], api.PolicyChange{Add: rule})
			allowed := w.do("reach", 1, addr+":8080")
			d.change(names[i], api.PolicyChange{Remove: rule})
			if refused := w.do("reach", 1, addr+":8080"); allowed != 1 || refused != 0 {
				return fmt.Errorf("a change was not in force: reached %v when allowed, %v when not", allowed, refused)
			}
			return nil
		})
	})
}

// measureEvents: from a refused connect(2) inside to the record at a follower.
func (b *bench) measureEvents(d *daemon, n int, addr string, w *worker) {
	ctx, cancel := context.WithCancel(context.Background())
	info, err := d.Info(ctx)
	b.Must(err)
	came := make(chan string, 1000)
	ended := make(chan error, 1)
	go func() {
		ended <- d.Events(ctx, api.Events{Since: info.Seq, Sandbox: "few", Planes: []string{"network"}, Follow: true}, func(_ []byte, e nemoclaw.Decision) error {
			came <- e.Object
			return nil
		})
	}()
	port := 20000 + n*100
	b.contest(fmt.Sprintf("a refusal reaches a follower, among %d", n), "µs", []string{"nemoclaw"}, func(int) float64 {
		port++
		at := fmt.Sprintf("%s:%d", addr, port)
		start := w.do("refused", 1, at)
		for {
			select {
			case object := <-came:
				if strings.Contains(object, at) {
					return now() - start
				}
			case <-time.After(patience):
				b.Fatalf("no record of the refusal of %s came", at)
			}
		}
	})
	cancel()
	if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
		b.Fatal(err)
	}
}

// measureAll: something in each of many sandboxes, and the end of all.
func (b *bench) measureAll(d *daemon, n int, made time.Duration) {
	all := func(f func(name string) error) time.Duration {
		start := time.Now()
		for i := range n {
			b.Must(f(fmt.Sprintf("idle-%d", i)))
		}
		return time.Since(start)
	}
	execs := all(func(name string) error { return d.exec(name, "/bin/true") })
	gone := all(func(name string) error { return d.Destroy(context.Background(), name) })
	b.fact(fmt.Sprintf("%d sandboxes one after the other", n), fmt.Sprintf("made and started in %.1f s, an exec in each in %.2f s, destroyed in %.1f s", made.Seconds(), execs.Seconds(), gone.Seconds()))
}

// times does something n times and returns how long one took, in microseconds.
func (b *bench) times(n int, f func() error) float64 {
	t, err := each(n, f)
	b.Must(err)
	return t
}
