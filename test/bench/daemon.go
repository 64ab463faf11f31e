package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/test/harness"
)

// patience is how long the daemon may take for anything.
const patience = time.Minute

// daemon is a nemoclaw-agent of the bench's own.
type daemon struct {
	*api.Client
	b      *bench
	cmd    *exec.Cmd
	socket string
}

// startDaemon starts a daemon with directories, BPF programs and a cgroup of its own. At the end all of its sandboxes are
// destroyed: they would outlive it.
func (b *bench) startDaemon() *daemon {
	dir := b.TempDir()
	run := filepath.Join(dir, "run")
	d := &daemon{b: b, socket: filepath.Join(run, "agent.sock")}
	d.cmd = exec.Command(harness.W.Bin+"-agent",
		"--state-dir", filepath.Join(dir, "state"), "--run-dir", run, "--audit", filepath.Join(dir, "audit"), "--bpffs", harness.W.BPFFS,
		"--cgroup-parent", harness.W.Parent, "--resolver", harness.Resolver.String(), "--steer-group", "", "--watch-group", "")
	var log strings.Builder
	d.cmd.Stderr = &log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	b.Must(d.cmd.Start())
	d.Client = api.Dial(d.socket)
	b.Cleanup(d.end)
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		_, err := d.Info(context.Background())
		if err == nil {
			return d
		}
		if time.Now().After(deadline) {
			b.Fatalf("the daemon does not answer: %v\n%s", err, log.String())
		}
	}
}

func (d *daemon) end() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*patience)
	defer cancel()
	list, err := d.List(ctx)
	for _, s := range list {
		err = errors.Join(err, d.Destroy(ctx, s.Name))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench: destroying the sandboxes:", err)
	}
	d.Close()
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	_ = d.cmd.Wait()
}

// make makes and starts a sandbox.
func (d *daemon) make(c api.Create) {
	c.Start = true
	s, err := d.Create(context.Background(), c)
	d.b.Must(err)
	if s.State != api.Running {
		d.b.Fatalf("%s is %s: %s", c.Name, s.State, s.Reason)
	}
}

// exec runs a command that has no streams in a sandbox, to its end.
func (d *daemon) exec(name string, args ...string) error {
	p, err := d.Client.Exec(context.Background(), name, api.Exec{Args: args}, [3]*os.File{})
	if err != nil {
		return err
	}
	defer p.Close()
	status, err := p.Wait()
	if err == nil && status != 0 {
		err = fmt.Errorf("%v in %s: exit status %d", args, name, status)
	}
	return err
}

// life makes a sandbox, runs /bin/true in it and destroys it.
func (d *daemon) life(name, policy string) error {
	d.make(api.Create{Name: name, Policy: policy})
	if err := d.exec(name, "/bin/true"); err != nil {
		return err
	}
	return d.Destroy(context.Background(), name)
}

// worker starts a `bench work` in a sandbox whose workspace holds it.
func (d *daemon) worker(name string) *worker {
	theirIn, in, err := os.Pipe()
	d.b.Must(err)
	out, theirOut, err := os.Pipe()
	d.b.Must(err)
	p, err := d.Client.Exec(context.Background(), name, api.Exec{Args: []string{"/workspace/bench", "work"}}, [3]*os.File{theirIn, theirOut, os.Stderr})
	d.b.Must(err)
	theirIn.Close()
	theirOut.Close()
	d.b.Cleanup(func() {
		in.Close()
		_, _ = p.Wait()
		p.Close()
		out.Close()
	})
	return newWorker(d.b, "nemoclaw", in, out)
}

// change makes one change of a sandbox's policy, which is in force when it returns.
func (d *daemon) change(name string, c api.PolicyChange) {
	res, err := d.ChangePolicy(context.Background(), name, c)
	d.b.Must(err)
	if !res.Live {
		d.b.Fatalf("a change of the policy of %s is not in force: %v", name, res.Restart)
	}
}
