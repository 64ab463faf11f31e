package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/test/harness"
)

// patience is how long the daemon may take for anything.
const patience = time.Minute

// daemon is a nemoclaw-agent of the bench's own, and its client.
type daemon struct {
	*api.Client
	*harness.Daemon
	b *bench
}

func (b *bench) startDaemon() *daemon {
	d := &daemon{Daemon: harness.W.StartDaemon(b), b: b}
	d.Client = api.Dial(d.Socket)
	b.Cleanup(d.Client.Close)
	return d
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
