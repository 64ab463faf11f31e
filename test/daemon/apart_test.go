//go:build e2e

package daemon

import (
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/test/harness"
)

// TestTwoDaemons: with paths of their own they don't meet, although their sandboxes have the same names.
func TestTwoDaemons(t *testing.T) {
	t.Parallel()
	a, b := harness.W.StartDaemon(t), harness.W.StartDaemon(t)
	ca, _ := dial(t, a)
	cb, _ := dial(t, b)
	inA, inB := create(t, a, "box", shell), create(t, b, "box", shell)
	create(t, a, "more", shell)
	a.Do(t, "box", "exec", "--", "sh", "-c", "echo a > own")
	b.Do(t, "box", "exec", "--", "sh", "-c", "echo b > own")
	a.Kill()
	if now := get(t, cb, "box"); now.State != api.Running || now.PID != inB.PID {
		t.Errorf("b's sandbox: %+v", now)
	}
	b.Do(t, "destroy", "--yes", "box")
	a.Start(t)
	if now := get(t, ca, "box"); now.State != api.Running || now.PID != inA.PID {
		t.Errorf("a's sandbox: %+v\n%s", now, a.Log())
	}
	if out := a.Do(t, "box", "exec", "--", "cat", "own"); out != "a\n" {
		t.Errorf("%q", out)
	}
	if names := b.Names(t); len(names) > 0 {
		t.Errorf("b has %q", names)
	}
}

// TestOneDaemonForADirectory: a second one is refused, and told which directory it is about; the first never notices.
func TestOneDaemonForADirectory(t *testing.T) {
	t.Parallel()
	first := harness.W.StartDaemon(t)
	c, _ := dial(t, first)
	before := create(t, first, "box", shell)
	for flag, dir := range map[string]string{"--state-dir": first.StateDir(), "--run-dir": first.RunDir(), "--audit": first.AuditDir()} {
		second := harness.W.PrepareDaemon(t, flag, dir)
		second.Launch(t)
		code := second.Wait(t)
		if log := second.Log(); code != 1 || !strings.Contains(log, dir) || !strings.Contains(log, flag) {
			t.Errorf("%s %s: exit %d\n%s", flag, dir, code, log)
		}
		if now := get(t, c, "box"); now.State != api.Running || now.PID != before.PID {
			t.Errorf("%s: %+v\n%s", flag, now, first.Log())
		}
		if out := first.Do(t, "box", "exec", "--", "sh", "-c", "echo works"); out != "works\n" {
			t.Errorf("%q", out)
		}
	}
	first.Kill()
	first.Start(t)
	if now := get(t, c, "box"); now.PID != before.PID {
		t.Errorf("it was not taken over: %+v\n%s", now, first.Log())
	}
}

// TestStateIsHidden: a policy that shows the whole state directory does not show what the daemon keeps there for itself, such as the
// key that the audit log is signed with.
func TestStateIsHidden(t *testing.T) {
	t.Parallel()
	d := harness.W.StartDaemon(t)
	hidden := []string{"audit/key.pem", "forward/siem", "sandboxes/other"}
	for _, name := range append(hidden, "seen") {
		file := filepath.Join(d.StateDir(), name)
		if _, err := os.Stat(file); err == nil {
			continue // the key is there already
		}
		if err := os.WriteFile(file, []byte("secret\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.Remove(file) })
	}
	// As if somebody had opened the way to them: what hides them is no permission.
	for _, dir := range []string{"audit", "audit/key.pem", "forward", "sandboxes", "."} {
		if err := os.Chmod(filepath.Join(d.StateDir(), dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	create(t, d, "box", strings.Replace(shell, "  allow:\n", "  allow:\n    - {path: "+d.StateDir()+", permissions: [read]}\n", 1))
	if out := d.Do(t, "box", "exec", "--", "cat", filepath.Join(d.StateDir(), "seen")); out != "secret\n" {
		t.Errorf("%q", out)
	}
	for _, name := range hidden {
		if out := d.Do(t, "box", "exec", "--", "sh", "-c", "cat "+filepath.Join(d.StateDir(), name)+" 2>/dev/null || echo hidden"); out != "hidden\n" {
			t.Errorf("%s: %q", name, out)
		}
	}
}

// TestRunBesideTheDaemon: `nemoclaw run` in the daemon's own run directory and cgroup clears away what is dead, never what the
// daemon has or had.
func TestRunBesideTheDaemon(t *testing.T) {
	t.Parallel()
	d := harness.W.StartDaemon(t)
	c, _ := dial(t, d)
	before := create(t, d, "box", shell)
	d.Do(t, "box", "exec", "--detach", "--", "sleep", "1h")
	beside := harness.Box{Flags: []string{"--run-dir", d.RunDir(), "--cgroup-parent", d.Parent}}
	run := func(when string) {
		t.Helper()
		if r := harness.W.Run(t, beside, "/workspace/probe", "exit 5"); r.Code != 5 {
			t.Errorf("%s: %s", when, r.Dump())
		}
		if len(harness.W.Processes(d.Parent+"-")) < 2 {
			t.Errorf("%s: the daemon's sandbox has gone", when)
		}
	}
	run("with the daemon")
	long := harness.W.Start(t, beside, "/workspace/probe", "wait-for /workspace/go", "exit 6")
	until(t, "the run runs", func() bool { return strings.Contains(strings.Join(harness.W.Processes(long.Name), " "), "wait-for") })
	d.Kill()
	run("without the daemon")
	d.Start(t)
	if now := get(t, c, "box"); now.State != api.Running || now.PID != before.PID || now.Commands != 1 {
		t.Errorf("%+v\n%s", now, d.Log())
	}
	if err := os.WriteFile(filepath.Join(long.Workspace, "go"), []byte("1"), 0o644); err != nil {
		t.Fatal(err)
	}
	if r := long.Wait(t, patience); r.Code != 6 {
		t.Errorf("the run that was there when the daemon came back: %s", r.Dump())
	}
	// What a run that was killed left goes with the next start of anybody.
	dead := harness.W.Start(t, beside, "/workspace/probe", "sleep 1h")
	until(t, "the run runs", func() bool { return strings.Contains(strings.Join(harness.W.Processes(dead.Name), " "), "sleep 1h") })
	_ = dead.Cmd.Process.Kill()
	_ = dead.Cmd.Wait()
	d.Kill()
	d.Start(t)
	if left := d.Strangers([]string{"box"}); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	run("in the end")
}

// TestWhoMay: root and the steering group do everything, the watching group looks, and others are told why not.
func TestWhoMay(t *testing.T) {
	t.Parallel()
	steer, watch := groupOf(t, "daemon"), groupOf(t, "games")
	d := harness.W.StartDaemon(t, "--steer-group", "daemon", "--watch-group", "games")
	create(t, d, "box", shell)
	// The binary may lie where only root gets to.
	bin := filepath.Join(d.Dir, "nemoclaw")
	if out, err := exec.Command("install", "-m", "755", harness.W.Bin, bin).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	as := func(uid, gid uint32, groups []uint32, args ...string) (status int, out, said string) {
		t.Helper()
		cmd := exec.Command(bin, args...)
		cmd.Env, cmd.Dir = d.Env(), "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid, Groups: groups}}
		return harness.Finish(t, cmd)
	}
	const stranger, own = 4242, 4242
	looks := [][]string{{"list"}, {"box", "status"}, {"box", "policy", "list"}, {"box", "policy", "history"}, {"box", "logs"}, {"approvals", "list"}, {"approvals", "list", "--sandbox", "box"}}
	steers := [][]string{
		{"box", "exec", "--", "true"}, {"create", "other"}, {"box", "stop"}, {"box", "start"}, {"box", "policy", "add", "--domain", "x.test", "--port", "443"},
		{"box", "config", "set", "model", "ollama/x"}, {"box", "snapshot", "create"}, {"box", "publish", "127.0.0.1:4242", "80"}, {"destroy", "--yes", "box"},
	}
	for _, args := range append(looks, steers...) {
		status, out, said := as(stranger, own, nil, args...)
		if status == 0 || out != "" || !strings.Contains(said, "usermod -aG daemon") {
			t.Errorf("a stranger's %q: exit %d, %q, %q", args, status, out, said)
		}
	}
	for _, args := range looks {
		// As one of their groups and as the first.
		if status, out, said := as(stranger, own, []uint32{watch}, args...); status != 0 {
			t.Errorf("a watcher's %q: exit %d, %q, %q", args, status, out, said)
		}
		if status, out, said := as(stranger, watch, nil, args...); status != 0 {
			t.Errorf("a watcher's %q: exit %d, %q, %q", args, status, out, said)
		}
	}
	for _, args := range steers {
		status, out, said := as(stranger, own, []uint32{watch}, args...)
		if status == 0 || out != "" || !strings.Contains(said, "user 4242 may watch, and not ") || !strings.Contains(said, "usermod -aG daemon") {
			t.Errorf("a watcher's %q: exit %d, %q, %q", args, status, out, said)
		}
	}
	if names := d.Names(t); len(names) != 1 {
		t.Errorf("there are %q", names)
	}
	for _, args := range append(looks, steers...) {
		if status, out, said := as(stranger, own, []uint32{steer}, args...); status != 0 {
			t.Errorf("%q of one who may steer: exit %d, %q, %q", args, status, out, said)
		}
	}
	log, err := os.ReadFile(filepath.Join(d.AuditDir(), "agent.jsonl"))
	if err != nil || !strings.Contains(string(log), "4242") {
		t.Errorf("the log does not say who: %v\n%s", err, log)
	}
}

func groupOf(t *testing.T, name string) uint32 {
	t.Helper()
	g, err := user.LookupGroup(name)
	if err != nil {
		t.Fatal(err)
	}
	id, err := strconv.ParseUint(g.Gid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(id)
}
