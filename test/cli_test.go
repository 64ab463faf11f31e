//go:build e2e

package test

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/test/harness"
)

// cli is a daemon with one sandbox, box, in which shell scripts and the probe run.
type cli struct {
	t *testing.T
	d *harness.Daemon
}

func newCLI(t *testing.T, flags ...string) *cli {
	t.Helper()
	c := &cli{t, harness.W.StartDaemon(t)}
	c.ok(append([]string{"create", "box"}, flags...)...)
	return c
}

// ok runs a command line that has to succeed.
func (c *cli) ok(args ...string) (stdout string) {
	c.t.Helper()
	status, out, errs := c.d.Call(c.t, args...)
	if status != 0 {
		c.t.Fatalf("nemoclaw %q: status %d\n%s%s\n%s", args, status, out, errs, c.d.Log())
	}
	return out
}

// fails runs a command line that has to end with status and say want.
func (c *cli) fails(status int, want string, args ...string) {
	c.t.Helper()
	got, out, errs := c.d.Call(c.t, args...)
	if got != status || !strings.Contains(errs, want) {
		c.t.Errorf("nemoclaw %q: status %d, want %d and %q\n%s%s", args, got, status, want, out, errs)
	}
}

func (c *cli) json(into any, args ...string) {
	c.t.Helper()
	out := c.ok(append(args, "-o", "json")...)
	if err := json.Unmarshal([]byte(out), into); err != nil {
		c.t.Fatalf("nemoclaw %q -o json: %v\n%s", args, err, out)
	}
}

func TestCLIExec(t *testing.T) {
	t.Parallel()
	c := newCLI(t)
	if out := c.ok("box", "exec", "--env", "A=b", "--dir", "/tmp", "--", "sh", "-c", "echo $A $PWD"); out != "b /tmp\n" {
		t.Errorf("%q", out)
	}
	c.fails(7, "", "box", "exec", "--", "sh", "-c", "exit 7")
	c.fails(128+int(syscall.SIGTERM), "", "box", "exec", "--", "sh", "-c", "kill $$")
	c.fails(127, "not found", "box", "exec", "--", "no-such-program")
	c.fails(126, "process.allow", "box", "exec", "--", "/usr/bin/perl", "-v")
	c.fails(125, "none-such", "none-such", "exec", "--", "true")

	// A pipe on either side, and a signal that is passed on.
	cat := c.d.Command("box", "exec", "--", "cat")
	cat.Stdin = strings.NewReader(strings.Repeat("0123456789", 100_000))
	if status, out, errs := harness.Finish(t, cat); status != 0 || len(out) != 1_000_000 {
		t.Errorf("status %d, %d bytes, %s", status, len(out), errs)
	}
	var out lines
	trap := c.d.Command("box", "exec", "--", "sh", "-c", `trap 'echo got it; exit 3' TERM; echo ready; while :; do sleep 0.1; done`)
	trap.Stdout = &out
	if err := trap.Start(); err != nil {
		t.Fatal(err)
	}
	wait(t, "the trap", func() bool { return strings.Contains(out.String(), "ready") })
	if err := trap.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = trap.Wait() // the status says how
	if got := out.String(); trap.ProcessState.ExitCode() != 3 || !strings.Contains(got, "got it") {
		t.Errorf("status %d, %q", trap.ProcessState.ExitCode(), got)
	}

	c.ok("box", "exec", "--detach", "--", "sh", "-c", "echo done > made")
	wait(t, "the detached command", func() bool {
		status, out, _ := c.d.Call(t, "box", "exec", "--", "cat", "made")
		return status == 0 && out == "done\n"
	})
}

func TestCLIStatusAndLogs(t *testing.T) {
	t.Parallel()
	c := newCLI(t)
	_, _, _ = c.d.Call(t, "box", "exec", "--", "bash", "-c", "exec 3<>/dev/tcp/refused.cli.test/443")
	var s struct {
		State, Wanted string
		Policy        struct{ Revision, Running int }
		Inference     struct{ Key string }
		Usage         *struct {
			Memory int64 `json:"memory_bytes"`
		}
		Refused uint64
	}
	c.json(&s, "box", "status")
	if s.State != "running" || s.Policy.Revision != 1 || s.Policy.Running != 1 || s.Inference.Key != "none" || s.Usage == nil || s.Usage.Memory == 0 || s.Refused == 0 {
		t.Errorf("status: %+v", s)
	}
	if out := c.ok("box", "status"); !strings.Contains(out, "inference  none: its policy has no section inference") || !strings.Contains(out, "nemoclaw box logs --verdict deny") {
		t.Errorf("status:\n%s", out)
	}
	if out := c.ok("box"); !strings.HasPrefix(out, "box: running") {
		t.Errorf("the name alone:\n%s", out)
	}
	for _, line := range strings.Split(strings.TrimSpace(c.ok("box", "logs", "--verdict", "deny", "-o", "json")), "\n") {
		var e harness.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil || e.Verdict != "deny" || e.Sandbox != "box" {
			t.Errorf("%v: %s", err, line)
		}
	}
	if out := c.ok("box", "logs", "--plane", "network,dns", "--since", "10m"); !strings.Contains(out, "refused.cli.test") || strings.Contains(out, " system ") || strings.Contains(out, "\x1b") {
		t.Errorf("logs:\n%s", out)
	}
	if out := c.ok("box", "logs", "-n", "1"); strings.Count(out, "\n") != 1 {
		t.Errorf("the last line:\n%s", out)
	}
	if out := c.ok("box", "logs", "--until", "2020-01-01"); out != "" {
		t.Errorf("before there was anything:\n%s", out)
	}
	c.fails(2, "plane", "box", "logs", "--plane", "netwerk")
	c.fails(1, "nobody", "nobody", "logs")
	var list []struct{ Name string }
	c.json(&list, "list")
	if len(list) != 1 || list[0].Name != "box" {
		t.Errorf("list: %+v", list)
	}
	// What a hostile program makes up stays on its line.
	_, _, _ = c.d.Call(t, "box", "exec", "--", "bash", "-c", "exec 3<>'/dev/tcp/x\x1b[2J\r\n.test/443'")
	if out := c.ok("box", "logs"); strings.ContainsAny(out, "\x1b\r") {
		t.Errorf("logs let bytes from inside through: %q", out)
	}
}

func TestCLIPolicy(t *testing.T) {
	t.Parallel()
	c := newCLI(t)
	c.ok("box", "policy", "add", "--domain", "one.policy.test", "--port", "443")
	c.ok("box", "policy", "add", "--domain", "two.policy.test", "--port", "443", "--ask")
	if out := c.ok("box", "policy", "diff"); !strings.Contains(out, "+") || !strings.Contains(out, "two.policy.test") || strings.Contains(out, "+    - domain: one") {
		t.Errorf("diff:\n%s", out)
	}
	var history []struct {
		Revision int
		Who      string
	}
	c.json(&history, "box", "policy", "history")
	if len(history) != 3 || history[0].Revision != 3 || history[0].Who != "root" {
		t.Errorf("history: %+v", history)
	}
	c.ok("box", "policy", "rollback", "1")
	if one, four := c.ok("box", "policy", "get", "1"), c.ok("box", "policy", "get"); one != four {
		t.Errorf("rolled back to\n%s\nwant\n%s", four, one)
	}
	c.ok("box", "preset", "add", "github")
	if out := c.ok("box", "preset", "list"); !strings.Contains(out, "* github") || !strings.Contains(out, "  telegram") {
		t.Errorf("presets:\n%s", out)
	}
	c.ok("box", "policy", "preset", "remove", "github")

	// What can't be live says so, and changes nothing without --restart.
	before := c.ok("box", "policy", "get")
	c.fails(1, "--restart", "box", "policy", "add", "--path", "/srv", "--permissions", "read")
	if after := c.ok("box", "policy", "get"); after != before {
		t.Errorf("a refused change was made:\n%s", after)
	}
	file := filepath.Join(t.TempDir(), "new.yaml")
	if err := os.WriteFile(file, []byte(harness.Base+"bogus: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.fails(1, "new.yaml:", "box", "policy", "set", file)
	if err := os.WriteFile(file, []byte(before+"\n# changed\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := c.ok("box", "policy", "set", "--dry-run", file); !strings.Contains(out, "+# changed") {
		t.Errorf("what would change:\n%s", out)
	}
	if after := c.ok("box", "policy", "get"); after != before {
		t.Errorf("a dry run changed the policy:\n%s", after)
	}
	c.ok("box", "policy", "set", file)
	c.fails(1, "2 of 2 answers are not allow", "box", "policy", "explain", "--connect", "one.policy.test:443", "--read", "/root/.ssh/id", "--expect", "allow")
}

func TestCLIConfig(t *testing.T) {
	t.Parallel()
	const key = "nvapi-of-the-config-test"
	_, env := provider(t, key)
	c := newCLI(t)
	setOf := func(box, value string) (int, string) {
		cmd := c.d.Command(box, "config", "set", "key", "-")
		cmd.Env = append(cmd.Env, env...)
		cmd.Stdin = strings.NewReader(value + "\n")
		status, out, errs := harness.Finish(t, cmd)
		return status, out + errs
	}
	set := func(value string) (int, string) { return setOf("box", value) }
	// It is anybody's: no provider is shown it.
	if status, said := set("sk-of-another"); status != 0 || !strings.Contains(said, "no model is set") {
		t.Errorf("a key before there is a model: status %d, %s", status, said)
	}
	c.ok("box", "config", "set", "model", "nvidia/nemotron-3-super-120b")
	if status, said := set("wrong"); status != 1 || !strings.Contains(said, "does not take this key") {
		t.Errorf("a wrong key: status %d, %s", status, said)
	}
	if status, said := set(key); status != 0 || !strings.Contains(said, "key verified") {
		t.Errorf("a good key: status %d, %s", status, said)
	}
	for _, args := range [][]string{{"box", "config", "get"}, {"box", "config", "get", "-o", "json"}, {"box", "status", "-o", "json"}, {"box", "logs"}} {
		if out := c.ok(args...); strings.Contains(out, key) {
			t.Errorf("%q shows the key:\n%s", args, out)
		}
	}
	// The policy's own server for that provider has keys of its own, which the provider would refuse.
	own := filepath.Join(t.TempDir(), "own.yaml")
	if err := os.WriteFile(own, []byte("inference:\n  cloud: {model: nvidia/nemotron-3-super-120b, url: \"https://llm.cli.test\"}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	c.ok("create", "own", "--policy", own)
	c.ok("own", "config", "set", "model", "nvidia/another")
	if status, said := setOf("own", "sk-of-llm.cli.test"); status != 0 || !strings.Contains(said, "asked at an address of its own") {
		t.Errorf("a key for another server of that provider's models was shown to the provider: status %d, %s", status, said)
	}
	c.fails(1, "the model nobody/gpt: want PROVIDER/MODEL of anthropic, google, llamacpp,", "box", "config", "set", "model", "nobody/gpt")
	if out := c.ok("box", "config", "set", "model", "vllm/qwen3"); !strings.Contains(out, "vllm/qwen3, which needs no key") {
		t.Errorf("a model of this host: %s", out)
	}
	c.fails(2, `there is no setting "modell" (did you mean "model"?); there are model and key`, "box", "config", "get", "modell")
	c.fails(2, `there is no setting "nonsense"`, "box", "config", "set", "nonsense", "1")
}

func TestCLIOnboardUnattended(t *testing.T) {
	t.Parallel()
	const key = "nvapi-of-the-unattended-test"
	_, env := provider(t, key)
	d := harness.W.StartDaemon(t)
	c := &cli{t, d}
	keyFile := filepath.Join(t.TempDir(), "key")
	onboard := func(value string, args ...string) (int, string, string) {
		t.Helper()
		if err := os.WriteFile(keyFile, []byte(value+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := d.Command(append([]string{"onboard", "--yes", "--key-file", keyFile}, args...)...)
		cmd.Env = append(cmd.Env, env...)
		return harness.Finish(t, cmd)
	}
	if status, out, errs := onboard("wrong", "--name", "first"); status != 1 || !strings.Contains(errs, "does not take this key") {
		t.Errorf("a key that the provider refuses: status %d, %s%s", status, out, errs)
	}
	if out := c.ok("list"); out != "" {
		t.Errorf("something was made with a key that is refused:\n%s", out)
	}
	if status, out, errs := onboard(key, "--name", "first", "--model", "nvidia/nemotron-3-super-120b", "--preset", "pypi,github"); status != 0 {
		t.Fatalf("status %d, %s%s", status, out, errs)
	}
	if out := c.ok("first", "status"); !strings.Contains(out, "first: running") || !strings.Contains(out, "key verified") {
		t.Errorf("status:\n%s", out)
	}
	if out := c.ok("first", "preset", "list"); !strings.Contains(out, "* pypi") || !strings.Contains(out, "* github") || strings.Contains(out, "* npm") {
		t.Errorf("presets:\n%s", out)
	}
	if status, _, errs := onboard(key, "--name", "first"); status != 1 || !strings.Contains(errs, "there is a sandbox first already") {
		t.Errorf("the same name again: status %d, %s", status, errs)
	}
	c.ok("onboard", "--yes", "--skip-key", "--name", "bare", "--preset", "")
	if out := c.ok("bare"); strings.Contains(out, "warning") {
		t.Errorf("the first policy alone:\n%s", out)
	}
	c.ok("onboard", "--yes", "--skip-key")
	if out := c.ok("my-assistant"); !strings.Contains(out, "key unverified") || strings.Contains(out, "no effect") {
		t.Errorf("without a key:\n%s", out)
	}
	if out := c.ok("my-assistant", "exec", "--", "curl", "-sS", "https://inference.local/v1/models"); !strings.Contains(out, "nemotron-3-super-120b") {
		t.Errorf("inside, the model that onboard took: %s", out)
	}
}

func TestCLICopies(t *testing.T) {
	t.Parallel()
	c := newCLI(t)
	dir := t.TempDir()
	src := filepath.Join(dir, "src")
	for name, text := range map[string]string{"a.txt": "one", "sub/b.txt": "two"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(src, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(src, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c.ok("box", "upload", src, "in")
	c.ok("box", "upload", filepath.Join(src, "a.txt"), "in/other.txt")
	if out := c.ok("box", "exec", "--", "sh", "-c", "cat in/a.txt in/sub/b.txt in/other.txt && touch in/mine && stat -c %U in/a.txt"); out != "onetwooneagent\n" {
		t.Errorf("inside: %q", out)
	}
	// What is hostile inside harms nothing outside.
	c.ok("box", "exec", "--", "sh", "-c", "ln -s /etc/passwd in/link; ln -s ../../out in/up; ln -s a.txt in/good; mkfifo in/pipe 2>/dev/null; true")
	back := filepath.Join(dir, "back")
	status, _, errs := c.d.Call(t, "box", "download", "in", back)
	if status != 1 || !strings.Contains(errs, "left out link") || !strings.Contains(errs, "left out up") {
		t.Errorf("status %d, %s", status, errs)
	}
	if b, err := os.ReadFile(filepath.Join(back, "good")); err != nil || string(b) != "one" {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := os.Lstat(filepath.Join(back, "link")); err == nil {
		t.Error("a link that leads out was made")
	}
	c.ok("box", "download", "in/sub/b.txt", filepath.Join(dir, "b.copy"))
	if b, err := os.ReadFile(filepath.Join(dir, "b.copy")); err != nil || string(b) != "two" {
		t.Errorf("%q, %v", b, err)
	}
	c.fails(1, "no-such", "box", "download", "no-such", filepath.Join(dir, "x"))
	if out := c.ok("box", "download", "in/sub/b.txt", "-"); out != "two" {
		t.Errorf("download to standard output: %q", out)
	}
	c.fails(1, "only a file can be written to standard output", "box", "download", "in", "-")
	c.fails(1, "", "box", "upload", src, "/etc")
	c.fails(1, "", "box", "download", "/root", filepath.Join(dir, "root"))
}

func TestCLIPublishAndSnapshots(t *testing.T) {
	t.Parallel()
	c := newCLI(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().String()
	l.Close() // free again, as far as anybody can know
	c.ok("box", "policy", "add", "--exec", "python3", "--restart")
	c.ok("box", "exec", "--", "sh", "-c", "echo published > index.html")
	c.ok("box", "exec", "--detach", "--", "python3", "-m", "http.server", "3000", "--bind", "127.0.0.1")
	c.ok("box", "publish", at, "3000")
	wait(t, "the published server", func() bool {
		r, err := http.Get("http://" + at + "/")
		if err != nil {
			return false
		}
		defer r.Body.Close()
		b, _ := io.ReadAll(r.Body)
		return string(b) == "published\n"
	})
	if out := c.ok("box", "status"); !strings.Contains(out, at+" reaches port 3000") {
		t.Errorf("status:\n%s", out)
	}
	c.ok("box", "unpublish", at)
	if _, err := http.Get("http://" + at + "/"); err == nil {
		t.Error("it is reached although it was taken back")
	}

	c.ok("box", "snapshot", "create", "first")
	var kept []struct{ ID, Name string }
	c.json(&kept, "box", "snapshot", "list")
	if len(kept) != 1 || kept[0].Name != "first" {
		t.Fatalf("snapshots: %+v", kept)
	}
	c.ok("box", "exec", "--", "sh", "-c", "echo changed > index.html; touch new")
	c.ok("box", "policy", "add", "--domain", "later.test", "--port", "443")
	c.fails(1, `box has no snapshot with the id or label "second"`, "box", "snapshot", "restore", "second")
	c.ok("box", "snapshot", "restore", "first")
	c.ok("box", "start")
	if out := c.ok("box", "exec", "--", "sh", "-c", "cat index.html; ls"); out != "published\nindex.html\n" {
		t.Errorf("after the restore: %q", out)
	}
	if out := c.ok("box", "policy", "list"); strings.Contains(out, "later.test") {
		t.Errorf("the policy did not come back:\n%s", out)
	}
	c.ok("box", "snapshot", "create", "first")
	c.fails(1, `2 snapshots of box have the label "first": give the id of one: `, "box", "snapshot", "delete", "first")
	c.ok("box", "snapshot", "delete", kept[0].ID)
	c.ok("box", "snapshot", "delete", "first")
	c.json(&kept, "box", "snapshot", "list")
	if len(kept) != 0 {
		t.Errorf("snapshots: %+v", kept)
	}
}

func TestCLILifeCycle(t *testing.T) {
	t.Parallel()
	c := newCLI(t, "--env", "GREETING=hello")
	c.fails(1, "box", "create", "box")
	c.fails(2, "is a command of nemoclaw", "create", "status")
	if out := c.ok("box", "exec", "--", "sh", "-c", "echo $GREETING; echo kept > file"); out != "hello\n" {
		t.Errorf("%q", out)
	}
	c.ok("create", "idle", "--no-start")
	if out := c.ok("idle", "status"); !strings.HasPrefix(out, "idle: stopped") {
		t.Errorf("%s", out)
	}
	c.fails(125, "idle", "idle", "exec", "--", "true")
	c.ok("stop", "box")
	c.ok("start", "box", "idle")
	if out := c.ok("box", "exec", "--", "cat", "file"); out != "kept\n" {
		t.Errorf("after a restart: %q", out)
	}
	c.ok("stop", "--all")
	var list []struct{ State string }
	c.json(&list, "list")
	for _, s := range list {
		if s.State != "stopped" {
			t.Errorf("after stop --all: %+v", list)
		}
	}
	c.fails(1, "none-such", "start", "idle", "none-such")
	c.fails(2, "give --yes", "destroy", "box")
	c.ok("destroy", "--yes", "box")
	c.fails(1, "box", "box", "status")
	c.ok("idle", "destroy", "--yes")
	for _, cgroup := range harness.W.Cgroups() {
		if strings.Contains(cgroup, c.d.Parent+"/") {
			t.Errorf("a cgroup is left: %s", cgroup)
		}
	}
}

// TestCLICompletes asks as a shell does.
func TestCLICompletes(t *testing.T) {
	t.Parallel()
	c := newCLI(t)
	for _, tt := range []struct{ line, want string }{
		{" ", "box\trunning\n"}, {"b", "box\trunning\n"}, {"stop ", "box\trunning\n"}, {"stop box ", ":4\n"},
		{"box pol", "policy\t"}, {"box policy get ", "1\t"}, {"box preset remove ", "npm\npypi\n"}, {"box preset add tele", "telegram\n"},
		{"box logs --plane ", "network\ndns\n"}, {"box config set model nv", "nvidia/nemotron-3-super-120b\t"},
	} {
		args := append([]string{"__complete"}, strings.Fields(tt.line)...)
		if strings.HasSuffix(tt.line, " ") {
			args = append(args, "")
		}
		if out := c.ok(args...); !strings.Contains(out, tt.want) {
			t.Errorf("%q completes to %q, want %q", tt.line, out, tt.want)
		}
	}
	c.d.End(syscall.SIGTERM)
	begun := time.Now()
	if _, out, _ := c.d.Call(t, "__complete", "box", "policy", "get", ""); !strings.HasSuffix(out, ":4\n") || time.Since(begun) > 10*time.Second {
		t.Errorf("without a daemon: %q after %s", out, time.Since(begun))
	}
	c.d.Start(t)
}

// lines is what a command has said so far.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
