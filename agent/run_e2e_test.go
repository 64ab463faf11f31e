//go:build e2e

package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/agent/audit"
	"github.com/nemoclaw/nemoclaw/loader"
)

// world is where the tests' runs keep their things: nothing of the machine's own is touched.
type world struct{ dir, bpffs, parent string }

var place world

func TestMain(m *testing.M) { os.Exit(inWorld(m.Run)) }

func inWorld(tests func() int) int {
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, "end-to-end tests of package agent (they need root):", err)
		return 1
	}
	dir, err := os.MkdirTemp("/var/tmp", "nemoclaw-agent-")
	if err != nil {
		return fail(err)
	}
	defer os.RemoveAll(dir)
	place = world{dir, filepath.Join(dir, "bpf"), fmt.Sprintf("nemoclaw-agent-%d", os.Getpid())}
	if err := os.Mkdir(place.bpffs, 0o700); err != nil {
		return fail(err)
	}
	if err := unix.Mount("bpf", place.bpffs, "bpf", 0, "mode=0700"); err != nil {
		return fail(err)
	}
	defer func() {
		if err := loader.Unload(loader.Config{BPFFS: place.bpffs, Parent: place.parent}); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		// The sandboxes' parents in the v1 hierarchies; a run keeps them, like the programs, for the next one.
		parents, _ := filepath.Glob("/sys/fs/cgroup/*/" + place.parent + "-*")
		for _, dir := range parents {
			if err := unix.Rmdir(dir); err != nil {
				fmt.Fprintln(os.Stderr, dir, err)
			}
		}
		if err := unix.Unmount(place.bpffs, unix.MNT_DETACH); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}()
	return tests()
}

// outcome is what one run gave.
type outcome struct {
	status      int
	err         error
	out, errors string
	dir         string
}

// start runs a command under a policy. change may alter the options; its directory is the test's own.
func start(t *testing.T, policy string, change func(*Options, string), command ...string) outcome {
	t.Helper()
	// Not in /tmp: inside a sandbox that is another directory.
	dir, err := os.MkdirTemp(place.dir, "run-")
	if err != nil {
		t.Fatal(err)
	}
	file := func(name, text string) *os.File {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
		return f
	}
	workspace := filepath.Join(dir, "workspace")
	if err := os.Mkdir(workspace, 0o755); err != nil {
		t.Fatal(err)
	}
	o := Options{
		Workspace: workspace, Command: command, NoPrompt: true,
		AuditDir: filepath.Join(dir, "audit"), KeyDir: filepath.Join(dir, "key"), RunDir: filepath.Join(dir, "run"),
		BPFFS: place.bpffs, CgroupParent: place.parent, Stdout: file("out", ""), Stderr: file("err", ""),
	}
	if policy != "" {
		o.PolicyFile = file("policy.yaml", policy).Name()
	}
	if change != nil {
		change(&o, dir)
	}
	r := outcome{dir: dir}
	r.status, r.err = Run(o)
	for name, to := range map[string]*string{"out": &r.out, "err": &r.errors} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		*to = string(b)
	}
	return r
}

func TestRun(t *testing.T) {
	for name, c := range map[string]struct {
		command []string
		status  int
		out     string
		err     string
	}{
		"a command":         {[]string{"sh", "-c", "id -u; pwd; echo $HOME"}, 0, "1000\n/workspace\n/home/agent\n", ""},
		"its status":        {[]string{"sh", "-c", "exit 7"}, 7, "", ""},
		"its signal":        {[]string{"sh", "-c", "kill -TERM $$"}, 143, "", ""},
		"not there":         {[]string{"no-such-command"}, StatusNotFound, "", "not found on the sandbox's PATH"},
		"not there, a path": {[]string{"/no/such"}, StatusNotFound, "", "/no/such"},
		"not allowed":       {[]string{"/usr/sbin/chroot"}, StatusNotExecutable, "", "command: chroot"},
		"not the host's":    {[]string{"./tool"}, StatusNotExecutable, "", "command: /workspace/tool` to process.allow, and see that it is executable"},
		"a directory":       {[]string{"/usr"}, StatusNotExecutable, "", "/usr"},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, "", func(o *Options, _ string) {
				if err := os.WriteFile(filepath.Join(o.Workspace, "tool"), nil, 0o644); err != nil {
					t.Fatal(err)
				}
			}, c.command...)
			if r.status != c.status || r.out != c.out {
				t.Errorf("status %d, output %q; want %d, %q (%v, %s)", r.status, r.out, c.status, c.out, r.err, r.errors)
			}
			if c.err == "" && r.err != nil || c.err != "" && (r.err == nil || !strings.Contains(r.err.Error(), c.err)) {
				t.Errorf("error %v, want %q", r.err, c.err)
			}
			left, err := os.ReadDir(filepath.Join(r.dir, "run"))
			if err != nil || len(left) > 1 || len(left) == 1 && left[0].Name() != ".lock" {
				t.Errorf("left in the run directory: %v, %v", left, err)
			}
		})
	}
}

// TestRunIsRecorded has a refusal in the log, the events and the summary, and all three agree.
func TestRunIsRecorded(t *testing.T) {
	policy := "filesystem:\n  allow:\n    - {path: /workspace, permissions: [read, write]}\nprocess:\n  allow:\n    - command: bash\n"
	events := ""
	r := start(t, policy, func(o *Options, dir string) {
		events = filepath.Join(dir, "events")
		o.JSONEvents, o.Name = events, "recorded"
	}, "bash", "-c", "exec 3<>/dev/tcp/198.51.100.1/25")
	if r.status == 0 || r.err != nil {
		t.Errorf("status %d, %v", r.status, r.err)
	}
	if !strings.Contains(r.errors, "1x connect 198.51.100.1:25 by /usr/bin/bash") || !strings.Contains(r.errors, "- cidr: 198.51.100.1/32") {
		t.Errorf("the summary: %s", r.errors)
	}
	log := filepath.Join(r.dir, "audit", "run.jsonl")
	report, err := audit.VerifyFile(log)
	if err != nil || report.Fault != nil || report.Lines < 4 {
		t.Errorf("the log: %+v, %v, %v", report, report.Fault, err)
	}
	for _, file := range []string{log, events} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var order []string
		for _, line := range strings.Split(strings.TrimSpace(string(b)), "\n") {
			for _, want := range []string{`"action":"start"`, `"object":"/usr/bin/bash"`, `"object":"198.51.100.1:25"`, `"action":"exit"`} {
				if strings.Contains(line, want) && strings.Contains(line, `"sandbox":"recorded"`) {
					order = append(order, want)
				}
			}
		}
		if len(order) != 4 || order[0] != `"action":"start"` || order[3] != `"action":"exit"` {
			t.Errorf("%s has, in this order, %v:\n%s", file, order, b)
		}
	}
}

// TestAuditDiskFull runs out of room for the log while the command runs: the run is stopped and says why.
func TestAuditDiskFull(t *testing.T) {
	for name, c := range map[string]struct{ size, want string }{
		"from the start": {"4k", "no space left on device"},
		"later":          {"16k", "the sandbox was stopped: audit log"},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, "", func(o *Options, dir string) {
				if err := os.Mkdir(o.AuditDir, 0o700); err != nil {
					t.Fatal(err)
				}
				if err := unix.Mount("none", o.AuditDir, "tmpfs", 0, "size="+c.size); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = unix.Unmount(o.AuditDir, unix.MNT_DETACH) })
				if c.size == "4k" {
					if err := os.WriteFile(filepath.Join(o.AuditDir, "full"), make([]byte, 4096), 0o600); err != nil {
						t.Fatal(err)
					}
				}
			}, "sh", "-c", "i=0; while [ $i -lt 2000 ]; do /usr/bin/true $i; i=$((i+1)); done; echo survived")
			if r.status != StatusFailed || r.err == nil || !strings.Contains(r.err.Error(), c.want) || !strings.Contains(r.err.Error(), "no space left") {
				t.Errorf("status %d, %v", r.status, r.err)
			}
			if strings.Contains(r.out, "survived") {
				t.Error("the command went on without a log")
			}
		})
	}
}

func TestRunRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		policy string
		change func(o *Options, dir string)
		want   string
	}{
		"a bad policy":         {"network:\n  defualt: deny\n", nil, "policy.yaml:2:3"},
		"level full":           {"enforcement: full\n", nil, "asks for enforcement level full, and the level here is static"},
		"no workspace":         {"", func(o *Options, dir string) { o.Workspace = dir + "/missing" }, "there is no such directory"},
		"its own state":        {"", func(o *Options, dir string) { o.Workspace = dir }, "nemoclaw's own"},
		"a name like that":     {"", func(o *Options, dir string) { o.Name = "Run" }, `--name "Run"`},
		"events into nowhere":  {"", func(o *Options, dir string) { o.JSONEvents = dir + "/no/where" }, "--json-events"},
		"hosts from nowhere":   {"", func(o *Options, dir string) { o.HostsFile = dir + "/hosts" }, "--hosts-file"},
		"an audit log that is": {"", func(o *Options, dir string) { o.AuditDir = "/dev/null" }, "audit directory /dev/null"},
		"no place for a key":   {"", func(o *Options, _ string) { o.KeyDir = "/dev/null/key" }, "name another directory with --key-dir"},
		"a key that others see": {"", func(o *Options, _ string) {
			if _, err := audit.OpenSigner(o.KeyDir); err != nil {
				t.Error(err)
			}
			if err := os.Chmod(filepath.Join(o.KeyDir, "key.pem"), 0o644); err != nil {
				t.Error(err)
			}
		}, "others than its owner can read it"},
		"its own key": {"", func(o *Options, _ string) { o.KeyDir = filepath.Join(o.Workspace, "key") }, "nemoclaw's own audit key"},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, c.policy, c.change, "true")
			if r.status != StatusFailed || r.err == nil || !strings.Contains(r.err.Error(), c.want) {
				t.Errorf("status %d, %v; want %q", r.status, r.err, c.want)
			}
		})
	}
}
