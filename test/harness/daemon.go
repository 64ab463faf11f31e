package harness

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Daemon is one nemoclaw-agent with directories and a cgroup parent of its own. It is killed, stopped and started again as
// a test wants.
type Daemon struct {
	Dir    string // holds everything of it
	Socket string // where it listens
	Parent string // what its cgroup parent's name begins with

	On *GPUHost // the machine that it runs on; nil: this one

	w     *World
	flags []string
	cmd   *exec.Cmd     // nil: it does not run
	ended chan struct{} // closed when cmd has ended

	served bool // it did, once
}

// StartDaemon starts a daemon. At the end of the test every sandbox of it is destroyed, it is told to stop, and anything that
// is left of it then fails the test. flags are given besides those that keep it from meeting another.
func (w *World) StartDaemon(t T, flags ...string) *Daemon {
	t.Helper()
	d := w.PrepareDaemon(t, flags...)
	d.Start(t)
	return d
}

// PrepareDaemon is StartDaemon without the start.
func (w *World) PrepareDaemon(t T, flags ...string) *Daemon {
	t.Helper()
	dir, err := os.MkdirTemp(w.Dir, "daemon-")
	if err != nil {
		t.Fatal(err)
	}
	// Others than root look through it: see Prepare.
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "agent.yaml"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d := &Daemon{Dir: dir, Socket: filepath.Join(dir, "run", "agent.sock"), Parent: fmt.Sprintf("%s-d%d", w.Parent, w.boxes.Add(1)), w: w}
	d.flags = append([]string{
		"--config", filepath.Join(dir, "agent.yaml"), "--state-dir", d.StateDir(), "--run-dir", d.RunDir(), "--audit", d.AuditDir(),
		"--bpffs", w.BPFFS, "--cgroup-parent", d.Parent, "--resolver", Resolver.String(), "--steer-group", "", "--watch-group", "",
	}, flags...)
	t.Cleanup(func() { d.clear(t) })
	return d
}

// StateDir holds what outlives a reboot.
func (d *Daemon) StateDir() string { return filepath.Join(d.Dir, "state") }

// RunDir holds what a reboot takes away.
func (d *Daemon) RunDir() string { return filepath.Join(d.Dir, "run") }

// AuditDir holds its audit log.
func (d *Daemon) AuditDir() string { return filepath.Join(d.Dir, "audit") }

// Launch starts it, and does not wait until it serves.
func (d *Daemon) Launch(t T) {
	t.Helper()
	log, err := os.OpenFile(filepath.Join(d.Dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	d.cmd = exec.Command(d.w.AgentBin, d.flags...)
	d.cmd.Stdout, d.cmd.Stderr = log, log
	if d.On != nil {
		d.On.Wrap(t, d.cmd)
	}
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // of a test that is killed
	if err := d.cmd.Start(); err != nil {
		t.Fatalf("starting nemoclaw-agent: %v", err)
	}
	d.ended = make(chan struct{})
	go func(cmd *exec.Cmd, ended chan struct{}) {
		_ = cmd.Wait() // how it ended is read from its state
		close(ended)
	}(d.cmd, d.ended)
}

// Start starts it and waits until it serves.
func (d *Daemon) Start(t T) {
	t.Helper()
	d.Launch(t)
	d.Ready(t)
}

// Ready waits until it serves: it, not one before that was killed, whose socket lives until the last child that it was about to
// make has ended.
func (d *Daemon) Ready(t T) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(2 * time.Millisecond) {
		if pid, err := listener(d.Socket); err == nil && pid == d.PID() {
			d.served = true
			return
		}
		select {
		case <-d.ended:
			t.Fatalf("nemoclaw-agent ended (%s)\n%s", d.cmd.ProcessState, d.Log())
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("nemoclaw-agent does not serve\n%s", d.Log())
		}
	}
}

// listener is the process that listens at a Unix socket.
func listener(path string) (pid int, err error) {
	c, err := net.Dial("unix", path)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	if cerr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); cerr != nil {
		return 0, cerr
	}
	if err != nil {
		return 0, err
	}
	return int(cred.Pid), nil
}

// End ends it with a signal. Its sandboxes stay.
func (d *Daemon) End(sig syscall.Signal) {
	_ = d.cmd.Process.Signal(sig) // it may have ended by itself
	<-d.ended
	d.cmd = nil
}

// Kill ends it as an accident would.
func (d *Daemon) Kill() { d.End(syscall.SIGKILL) }

// Reboot ends it and everything inside its sandboxes, and takes away what a reboot does: cgroups, BPF programs and the run
// directory.
func (d *Daemon) Reboot(t T) {
	t.Helper()
	d.Kill()
	d.unplug()
	if err := os.RemoveAll(d.RunDir()); err != nil {
		t.Fatal(err)
	}
}

// Wait waits until it ends, and returns its exit status.
func (d *Daemon) Wait(t T) int {
	t.Helper()
	select {
	case <-d.ended:
	case <-time.After(time.Minute):
		t.Fatalf("nemoclaw-agent does not end\n%s", d.Log())
	}
	code := d.cmd.ProcessState.ExitCode()
	d.cmd = nil
	return code
}

// PID is its process.
func (d *Daemon) PID() int { return d.cmd.Process.Pid }

// Log is what it said.
func (d *Daemon) Log() string {
	b, err := os.ReadFile(filepath.Join(d.Dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

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

// Do runs a command line of nemoclaw that must succeed, and returns what it printed.
func (d *Daemon) Do(t T, args ...string) string {
	t.Helper()
	status, out, said := d.Call(t, args...)
	if status != 0 {
		t.Fatalf("nemoclaw %q: exit %d\n%s%s\n%s", args, status, out, said, d.Log())
	}
	return out
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

// Names lists its sandboxes.
func (d *Daemon) Names(t T) []string {
	t.Helper()
	var list []struct{ Name string }
	if err := json.Unmarshal([]byte(d.Do(t, "list", "-o", "json")), &list); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range list {
		names = append(names, s.Name)
	}
	return names
}

// Verify checks its audit log.
func (d *Daemon) Verify(t T) {
	t.Helper()
	if out, err := exec.Command(d.w.Bin, "audit", "verify", d.AuditDir()).CombinedOutput(); err != nil {
		t.Fatalf("audit verify: %v\n%s", err, out)
	}
}

// Entries counts what the kernel's maps hold of its sandboxes.
func (d *Daemon) Entries(t T) map[string]int {
	t.Helper()
	return d.w.MapEntries(t, d.Parent+"-*")
}

// clear ends it and takes everything of it away, and fails when something is left that should have gone by itself.
func (d *Daemon) clear(t T) {
	t.Helper()
	defer os.RemoveAll(d.Dir)
	defer d.erase()
	failed := false
	if f, ok := t.(interface{ Failed() bool }); ok {
		failed = f.Failed()
	}
	if failed || !d.served {
		return // more noise helps nobody
	}
	if d.cmd == nil {
		d.Start(t)
	}
	if names := d.Names(t); len(names) > 0 {
		for _, name := range names {
			d.Do(t, "destroy", "--yes", name)
		}
	}
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := d.Wait(t); code != 0 {
		t.Fatalf("told to stop, nemoclaw-agent ended with %d\n%s", code, d.Log())
	}
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) { // the dead take a moment
		left := d.Leftovers(t)
		if len(left) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("left behind:\n  %s", strings.Join(left, "\n  "))
		}
	}
}

// Leftovers lists what is still there of its sandboxes: processes, cgroups, mounts, files that are theirs alone, and entries
// of the kernel's maps.
func (d *Daemon) Leftovers(t T) []string {
	t.Helper()
	var out []string
	for _, p := range d.w.Processes(d.Parent + "-") {
		out = append(out, "process "+p)
	}
	for _, c := range d.cgroups() {
		if !strings.HasPrefix(filepath.Base(c), d.Parent+"-") {
			out = append(out, "cgroup "+c)
		}
	}
	for _, m := range mounts() {
		if strings.HasPrefix(m.target, d.Dir+"/") {
			out = append(out, "mount "+m.target)
		}
	}
	for name, n := range d.Entries(t) {
		if n > 0 {
			out = append(out, fmt.Sprintf("%d entries of the map %s", n, name))
		}
	}
	return append(out, d.Files()...)
}

// Strangers lists cgroups, processes and files of the run directory that belong to none of the named sandboxes.
func (d *Daemon) Strangers(names []string) []string {
	var out []string
	for _, c := range d.cgroups() {
		rest := c[strings.Index(c, "/"+d.Parent+"-")+1:]
		if _, below, ok := strings.Cut(rest, "/"); ok && !slices.Contains(names, strings.SplitN(below, "/", 2)[0]) {
			out = append(out, "cgroup "+c)
		}
	}
	entries, err := os.ReadDir(d.RunDir())
	if err != nil {
		return append(out, err.Error())
	}
	for _, e := range entries {
		if e.IsDir() && !slices.Contains(names, e.Name()) {
			out = append(out, "run directory "+e.Name())
		}
	}
	return out
}

// Files lists the files in its run and state directory that are a sandbox's.
func (d *Daemon) Files() []string {
	var out []string
	shared := []string{".lock", ".daemon", ".ring", "agent.sock", "sandboxes", "workspaces", "images", "snapshots"}
	for _, root := range []string{d.RunDir(), d.StateDir()} {
		_ = filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
			if err != nil || path == root || filepath.Dir(path) == root && slices.Contains(shared, e.Name()) {
				return nil
			}
			if path == filepath.Join(d.StateDir(), "audit") || path == filepath.Join(d.StateDir(), "forward") {
				return fs.SkipDir // the log's key, and who has which records: the daemon's
			}
			out = append(out, "file "+path)
			return nil
		})
	}
	return out
}

func (d *Daemon) cgroups() []string {
	return slices.DeleteFunc(d.w.Cgroups(), func(c string) bool { return !strings.Contains(c, "/"+d.Parent+"-") })
}

// erase takes away what the kernel would keep, whatever became of the test.
func (d *Daemon) erase() {
	if d.cmd != nil {
		d.Kill()
	}
	d.unplug()
}

func (d *Daemon) unplug() {
	endCgroups(d.cgroups())
	pins, _ := filepath.Glob(filepath.Join(d.w.BPFFS, "nemoclaw", d.Parent+"-*")) // the pattern is well formed
	for _, p := range pins {
		_ = os.RemoveAll(p) // the world's end takes the rest
	}
}
