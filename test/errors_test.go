//go:build e2e

package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nemoclaw/nemoclaw/test/harness"
)

// failed wants a run that did not start, quickly, with a message that has every fragment: what was tried, on what, what to do.
func failed(t *testing.T, r *harness.Result, fragments ...string) {
	t.Helper()
	if r.Code == 0 {
		t.Errorf("it started\n%s", r.Dump())
	}
	for _, f := range fragments {
		if !strings.Contains(r.Err, f) {
			t.Errorf("the message lacks %q:\n%s", f, r.Err)
		}
	}
	if strings.Contains(r.Err, "goroutine") || strings.Contains(r.Err, "panic") {
		t.Errorf("that is no message for a user:\n%s", r.Err)
	}
	gone(t, r.Session, nothing)
}

func TestBadPolicies(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		policy    string
		fragments []string
	}{
		"an unknown key":      {"networks:\n  default: deny\n", []string{"policy.yaml:1:1", "networks", "network"}},
		"a wrong verb":        {"network:\n  default: allow\n", []string{"policy.yaml:2:12", "network.default", "network.allow"}},
		"a wrong type":        {"network:\n  allow:\n    - {domain: x.test, ports: 443, protocol: tcp}\n", []string{"policy.yaml:3", "ports"}},
		"not supported yet":   {"tools:\n  default: allow\n", []string{"policy.yaml:2:3", "tools", "not supported by this version"}},
		"level full":          {"enforcement: full\n" + harness.Base, []string{"full", "static"}},
		"a wildcard too wide": {network(`{domain: "*", ports: [443], protocol: tls}`), []string{"policy.yaml:10", "*"}},
		"empty":               {"\n", []string{"policy.yaml", "empty"}},
		"udp":                 {network(`{domain: x.test, ports: [53], protocol: udp}`), []string{"policy.yaml:10", "udp"}},
		"two errors":          {"a: 1\nb: 2\n", []string{"policy.yaml:1:1", "policy.yaml:2:1"}},
	} {
		t.Run(name, func(t *testing.T) {
			failed(t, harness.W.Run(t, harness.Box{Policy: tt.policy}, "/workspace/probe", "exit 0"), tt.fragments...)
		})
	}
}

func TestStartsThatFail(t *testing.T) {
	t.Parallel()
	t.Run("no policy file", func(t *testing.T) {
		r := harness.W.Run(t, harness.Box{Flags: []string{"--policy", "/nonexistent/policy.yaml"}}, "/workspace/probe")
		failed(t, r, "/nonexistent/policy.yaml", "no such file")
	})
	t.Run("no workspace", func(t *testing.T) {
		r := harness.W.Run(t, harness.Box{Workspace: "/nonexistent/workspace"}, "/workspace/probe")
		failed(t, r, "/nonexistent/workspace")
	})
	t.Run("a workspace that is a file", func(t *testing.T) {
		r := harness.W.Run(t, harness.Box{Workspace: "/etc/passwd"}, "/workspace/probe")
		failed(t, r, "/etc/passwd", "directory")
	})
	t.Run("a name that is a command", func(t *testing.T) {
		r := harness.W.Run(t, harness.Box{Flags: []string{"--name", "policy"}}, "/workspace/probe")
		failed(t, r, `"policy"`)
	})
	t.Run("a name with a path in it", func(t *testing.T) {
		r := harness.W.Run(t, harness.Box{Flags: []string{"--name", "../x"}}, "/workspace/probe")
		failed(t, r, "../x")
	})
	t.Run("no command", func(t *testing.T) {
		failed(t, harness.W.Run(t, harness.Box{}), "nemoclaw run")
	})
	for path, fragment := range map[string]string{"/opt/loop": "symbolic links", "/opt/fifo": "neither a file nor a directory", "/dev/mem": "devices", "/": "root"} {
		t.Run("an unmountable path "+path, func(t *testing.T) {
			policy := harness.Exec + "filesystem:\n  allow:\n    - {path: /workspace, permissions: [read, write]}\n    - {path: " + path + ", permissions: [read]}\n"
			script := `mkdir -p /opt; mount -t tmpfs none /opt; ln -s loop /opt/loop; mkfifo /opt/fifo`
			failed(t, inMounts(t, harness.Box{Policy: policy}, script, "/workspace/probe", "exit 0"), path, fragment, "policy.yaml:7")
		})
	}
	t.Run("a deny that static can't hold", func(t *testing.T) {
		policy := harness.Exec + "filesystem:\n  allow:\n    - {path: /workspace, permissions: [read, write]}\n  deny:\n    - {path: /workspace/.env, permissions: [read, write]}\n"
		failed(t, harness.W.Run(t, harness.Box{Policy: policy}, "/workspace/probe", "exit 0"), "/workspace/.env", "policy.yaml:8", "full")
	})
}

func TestWithoutRoot(t *testing.T) {
	t.Parallel()
	s := harness.W.Prepare(t, harness.Box{}, "/workspace/probe")
	bin := copyBinary(t, s.Dir)
	if err := os.Chmod(s.PolicyFile(), 0o644); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"--reuid=65534", "--regid=65534", "--clear-groups", bin}, s.Cmd.Args[1:]...)
	out, err := exec.Command("setpriv", args...).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "root") || strings.Contains(string(out), "panic") {
		t.Errorf("as nobody it says %q, %v", out, err)
	}
	// What needs no root works without it.
	out, err = exec.Command("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", bin, "policy", "check", s.PolicyFile()).CombinedOutput()
	if err != nil {
		t.Errorf("policy check as nobody: %v: %s", err, out)
	}
}

func copyBinary(t *testing.T, dir string) string {
	t.Helper()
	b, err := os.ReadFile(harness.W.Bin)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "nemoclaw")
	if err := os.WriteFile(path, b, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// inMounts runs a box in a mount namespace that script has changed first.
func inMounts(t *testing.T, b harness.Box, script string, argv ...string) *harness.Result {
	t.Helper()
	s := harness.W.Prepare(t, b, argv...)
	shell := append([]string{"-m", "sh", "-euc", script + "\nexec \"$@\"", "sh"}, s.Cmd.Args...)
	cmd := exec.Command("unshare", shell...)
	cmd.Env = append(os.Environ(), "BOX="+s.Dir)
	cmd.Stdout, cmd.Stderr = &s.Stdout, &s.Stderr
	s.Cmd = cmd
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return s.Wait(t, 0)
}

func TestWithoutCgroup2(t *testing.T) {
	t.Parallel()
	r := inMounts(t, harness.Box{}, `while read -r _ dir kind _; do [ "$kind" != cgroup2 ] || umount -l "$dir"; done < /proc/mounts; umount -l /sys/fs/cgroup 2>/dev/null || :`, "/workspace/probe", "exit 0")
	failed(t, r, "cgroup2")
}

func TestFullDiskForTheAudit(t *testing.T) {
	t.Parallel()
	t.Run("from the start", func(t *testing.T) {
		r := inMounts(t, harness.Box{}, `mkdir -p "$BOX/audit"; mount -t tmpfs -o size=4k,nr_inodes=4 none "$BOX/audit"; head -c 4096 /dev/zero > "$BOX/audit/full"`, "/workspace/probe", "exit 0")
		failed(t, r, "audit", "no space left")
	})
	t.Run("while it runs", func(t *testing.T) {
		attempts := []string{"/workspace/probe"}
		for range 400 {
			attempts = append(attempts, "tcp-to name-with-a-long-label-"+strings.Repeat("x", 30)+".full.test 1", "tcp 198.51.100.7 9")
		}
		r := inMounts(t, harness.Box{}, `mkdir -p "$BOX/audit"; mount -t tmpfs -o size=8k none "$BOX/audit"`, append(attempts, "sleep 2s")...)
		failed(t, r, "audit", "no space left")
	})
}

func TestPolicyCommands(t *testing.T) {
	t.Parallel()
	s := harness.W.Prepare(t, harness.Box{Policy: seed(t)})
	bin := harness.W.Bin
	out, err := exec.Command(bin, "policy", "check", s.PolicyFile()).CombinedOutput()
	if err != nil {
		t.Errorf("policy check: %v: %s", err, out)
	}
	out, err = exec.Command(bin, "policy", "explain", s.PolicyFile(), "--read", "/root/.ssh/id_rsa", "--connect", "pypi.org:443", "--exec", "git").CombinedOutput()
	for _, want := range []string{"deny", "allow", s.PolicyFile() + ":"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("policy explain lacks %q: %v\n%s", want, err, out)
		}
	}
	out, err = exec.Command(bin, "policy", "schema").CombinedOutput()
	if err != nil || !strings.Contains(string(out), `"$schema"`) {
		t.Errorf("policy schema: %v\n%.200s", err, out)
	}
	dir := t.TempDir()
	cmd := exec.Command(bin, "init")
	cmd.Dir = dir
	if out, err = cmd.CombinedOutput(); err != nil {
		t.Fatalf("init: %v: %s", err, out)
	}
	written, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil || len(written) != 1 {
		t.Fatalf("init wrote %v, %v\n%s", written, err, out)
	}
	if out, err := exec.Command(bin, "policy", "check", written[0]).CombinedOutput(); err != nil {
		t.Errorf("what init wrote is refused: %v: %s", err, out)
	}
}
