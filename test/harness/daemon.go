package harness

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Daemon is a nemoclaw-agent of its own: all its paths are below Dir, and its cgroups carry the world's name.
type Daemon struct {
	Dir    string
	Socket string
	Parent string // its cgroup
	Cmd    *exec.Cmd

	w      *World
	args   []string
	log    logBuffer
	exited chan struct{}
}

// logBuffer is what a daemon says, readable while it runs.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// StartDaemon starts a daemon and waits until it listens. At the end of the test its sandboxes are destroyed and it is stopped.
func (w *World) StartDaemon(t T, flags ...string) *Daemon {
	t.Helper()
	dir, err := os.MkdirTemp(w.Dir, "agent-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	d := &Daemon{Dir: dir, Socket: filepath.Join(dir, "run", "agent.sock"), Parent: fmt.Sprintf("%s-a%d", w.Parent, w.boxes.Add(1)), w: w}
	d.args = append([]string{
		"--state-dir", filepath.Join(dir, "state"), "--run-dir", filepath.Join(dir, "run"), "--audit", filepath.Join(dir, "audit"),
		"--bpffs", w.BPFFS, "--cgroup-parent", d.Parent, "--resolver", Resolver.String(), "--steer-group", "", "--watch-group", "",
	}, flags...)
	t.Cleanup(func() {
		d.clear()
		_ = os.RemoveAll(dir)
	})
	d.Start(t)
	return d
}

// Start starts the daemon, anew when it was killed.
func (d *Daemon) Start(t T) {
	t.Helper()
	d.Cmd = exec.Command(d.w.AgentBin, d.args...)
	d.Cmd.Stdout, d.Cmd.Stderr = &d.log, &d.log
	d.Cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := d.Cmd.Start(); err != nil {
		t.Fatalf("starting nemoclaw-agent: %v", err)
	}
	exited := make(chan struct{})
	d.exited = exited
	cmd := d.Cmd
	go func() {
		_ = cmd.Wait() // how it ended is in the log
		close(exited)
	}()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if c, err := net.Dial("unix", d.Socket); err == nil {
			c.Close()
			return
		}
		select {
		case <-exited:
			t.Fatalf("nemoclaw-agent ended at once\n%s", d.Log())
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("nemoclaw-agent does not listen\n%s", d.Log())
		}
	}
}

// End ends the daemon with a signal and waits until it has ended.
func (d *Daemon) End(sig syscall.Signal) {
	_ = d.Cmd.Process.Signal(sig)
	<-d.exited
}

// Log is what the daemon has said.
func (d *Daemon) Log() string { return d.log.String() }

// Env is an environment in which nemoclaw talks to this daemon.
func (d *Daemon) Env() []string { return append(os.Environ(), "NEMOCLAW_SOCKET="+d.Socket) }

// Command is a command line of nemoclaw that talks to this daemon.
func (d *Daemon) Command(args ...string) *exec.Cmd {
	cmd := exec.Command(d.w.Bin, args...)
	cmd.Env = d.Env()
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// Call runs a command line of nemoclaw to its end.
func (d *Daemon) Call(t T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	return Finish(t, d.Command(args...))
}

// Finish runs a command to its end, at most for a minute.
func Finish(t T, cmd *exec.Cmd) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	err := cmd.Wait()
	if !late.Stop() {
		t.Fatalf("%v was still running after a minute\nstdout: %s\nstderr: %s", cmd.Args, out.String(), errs.String())
	}
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatalf("%v: %v", cmd.Args, err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// clear destroys the sandboxes and ends the daemon.
func (d *Daemon) clear() {
	select {
	case <-d.exited:
		return
	default:
	}
	names, err := os.ReadDir(filepath.Join(d.Dir, "state", "sandboxes"))
	if err == nil {
		for _, n := range names {
			if !strings.HasPrefix(n.Name(), ".") {
				_ = d.Command("destroy", "--yes", n.Name()).Run() // what it leaves is found below
			}
		}
	}
	d.End(syscall.SIGTERM)
}
