//go:build e2e

package transfer

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/nemoclaw/nemoclaw/agent/sandbox"
	"github.com/nemoclaw/nemoclaw/policy"
)

var count atomic.Int32

// start makes a sandbox with a workspace that belongs to root on the host.
func start(t *testing.T, workspace string) (*sandbox.Sandbox, Sandbox) {
	t.Helper()
	p, err := policy.Parse("test.yaml", []byte(`process: {allow: [{command: sh}, {command: ln}, {command: python3}, {command: mv}, {command: cat}, {command: stat}, {command: mkdir}, {command: mkfifo}]}
filesystem:
  allow: [{path: /workspace, permissions: [read, write]}]
  deny: [{path: /workspace/closed, permissions: [read, write]}]
`))
	var c *policy.Compiled
	if err == nil {
		c, err = policy.Compile(p)
	}
	if err != nil {
		t.Fatal(err)
	}
	parent := fmt.Sprintf("nctransfer-%d", os.Getpid())
	box, err := sandbox.Prepare(sandbox.Spec{
		Name: fmt.Sprintf("x%d", count.Add(1)), Policy: c, Workspace: workspace,
		RunDir: "/run/" + parent, CgroupParent: parent, Nameserver: "198.18.0.2",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		groups := filepath.Dir(box.CgroupDir().Name())
		if err := box.Close(); err != nil {
			t.Error(err)
		}
		_ = os.Remove(groups)
		_ = os.RemoveAll("/run/" + parent)
	})
	if err := box.Start(); err != nil {
		t.Fatal(err)
	}
	root, err := os.Open(fmt.Sprintf("/proc/%d/root", box.InitPID()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return box, Sandbox{Root: root, UID: box.HostID(), GID: box.HostGID()}
}

func workspaceOf(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "nctransfer-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := errors.Join(os.Chmod(dir, 0o755), os.Mkdir(dir+"/closed", 0o755), os.WriteFile(dir+"/closed/key", []byte("key"), 0o644)); err != nil {
		t.Fatal(err)
	}
	return dir
}

func sh(t *testing.T, box *sandbox.Sandbox, line string) string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	p, err := box.Exec(sandbox.ExecRequest{Args: []string{"sh", "-c", line}, Env: sandbox.Environment(nil, false, nil), Stdout: w, Stderr: w})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if status, err := p.Wait(); status != 0 || err != nil {
		t.Fatalf("%s: %d, %v\n%s", line, status, err, out)
	}
	return strings.TrimSpace(string(out))
}

func names(t *testing.T, stream []byte) []string {
	t.Helper()
	var list []string
	for r := tar.NewReader(bytes.NewReader(stream)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, h.Name)
	}
}

func TestRunningSandbox(t *testing.T) {
	dir := workspaceOf(t)
	box, s := start(t, dir)
	for _, to := range []string{"/workspace", "/tmp", "/home/agent", "/dev/shm"} {
		if got, err := Upload(t.Context(), s, to, bytes.NewReader(lines(t, "in/", "in/file"))); err != nil || got.Files != 2 {
			t.Errorf("%s: %+v, %v", to, got, err)
		}
		if out := sh(t, box, "stat -c '%u %a' "+to+"/in/file; cat "+to+"/in/file; echo more >> "+to+"/in/file"); out != "1000 644\nin/file" {
			t.Errorf("%s: %q", to, out)
		}
		var b bytes.Buffer
		if _, err := Download(t.Context(), s, to+"/in", &b); err != nil || fmt.Sprint(names(t, b.Bytes())) != "[./ file]" {
			t.Errorf("%s: %v", to, err)
		}
	}
	if info, err := os.Stat(dir + "/in/file"); err != nil || info.Sys() == nil {
		t.Error(err)
	}
	sh(t, box, "ln -s /etc/passwd l; ln -s / root; mkfifo fifo; mkdir d")
	for _, test := range []struct{ to, want string }{
		{"/usr", "read-only"}, {"/etc", "read-only"}, {"/", "read-only"}, {"/proc", "no place for files"}, {"/proc/1", "no place for files"}, {"/dev", "no place for files"},
		{"/dev/pts", "no place for files"}, {"/workspace/root/proc", "no place for files"}, {"/workspace/closed", "permission denied"}, {"/workspace/l", "not a directory"},
		{"/workspace/fifo", "not a directory"}, {"/workspace/l/none", "not a directory"}, {"/none", "read-only"}, {"/proc/none/x", "no such file"}, {"relative", "not an absolute path"}, {"/root", "read-only"}, {"/dev/fd/0", ""}, {"/proc/1/root/workspace", ""},
	} {
		if _, err := Upload(t.Context(), s, test.to, bytes.NewReader(lines(t, "x"))); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("to %s: %v", test.to, err)
		}
	}
	if _, err := Upload(t.Context(), s, "/workspace/made/for/it", bytes.NewReader(lines(t, "x"))); err != nil {
		t.Error(err)
	}
	if out := sh(t, box, "stat -c %u made made/for/it/x"); out != "1000\n1000" {
		t.Errorf("%q", out)
	}
	for _, test := range []struct{ from, want string }{
		{"/proc/1/environ", "no place for files"}, {"/dev/null", "no place for files"}, {"/workspace/closed", "permission denied"}, {"/workspace/closed/key", "permission denied"},
		{"/etc/shadow", "no such file"}, {"/workspace/fifo", "neither a file"}, {"/root/.ssh", "no such file"},
	} {
		if _, err := Download(t.Context(), s, test.from, io.Discard); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("from %s: %v", test.from, err)
		}
	}
	var b bytes.Buffer
	if got, err := Download(t.Context(), s, "/workspace", &b); err != nil || got.Skipped != 2 { // the fifo, and what is denied
		t.Errorf("%+v, %v, %q", got, err, names(t, b.Bytes()))
	}
	if strings.Contains(b.String(), "key") {
		t.Error("what is denied was packed")
	}
	if text, err := exec.Command("ps", "-o", "euid=,fuid=", "-L", "-p", fmt.Sprint(os.Getpid())).Output(); err != nil || strings.Contains(string(text), fmt.Sprint(s.UID)) {
		t.Errorf("a thread stayed the sandbox's user: %s, %v", text, err)
	}
}

// TestSwaps: the sandbox exchanges a directory and a link to a place that is not below the path, all the time. The place is there
// inside and, with other content, on the host. A transfer that follows names would write there, and read from there.
func TestSwaps(t *testing.T) {
	dir := workspaceOf(t)
	box, s := start(t, dir)
	host, err := os.MkdirTemp("/tmp", "nctransfer-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(host) })
	if err := os.WriteFile(host+"/secret", []byte("the host's\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	sh(t, box, "mkdir -p at/d /tmp/elsewhere; echo secret > /tmp/elsewhere/secret; ln -s "+host+" link; mv /tmp/elsewhere "+host+"; : > run")
	const swap = `import ctypes, os
exchange = ctypes.CDLL(None).renameat2
while os.path.exists("run"):
    for i in range(1000): exchange(-100, b"at/d", -100, b"link", 2)`
	p, err := box.Exec(sandbox.ExecRequest{Args: []string{"python3", "-c", swap}, Env: sandbox.Environment(nil, false, nil)})
	if err != nil {
		t.Fatal(err)
	}
	stream := lines(t, "d/x")
	refused, done, naive := 0, 0, 0
	for i := 0; i < 3000 || (refused == 0 || done == 0 || naive == 0) && i < 100_000; i++ {
		if _, err := Upload(t.Context(), s, "/workspace/at", bytes.NewReader(stream)); err != nil {
			refused++
		} else {
			done++
		}
		var b bytes.Buffer
		if _, err := Download(t.Context(), s, "/workspace/at", &b); err == nil && strings.Contains(b.String(), "d/secret") {
			t.Fatal("a link was followed")
		}
		// What a trusting program would do as the sandbox's root directory has it: the link leads it there.
		if text, err := os.ReadFile(dir + "/at/d/secret"); err == nil && string(text) == "the host's\n" {
			naive++
		}
	}
	if err := os.Remove(dir + "/run"); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d uploads, %d refused, %d naive reads that were led away", done, refused, naive)
	if out := sh(t, box, "cd "+host+" && echo *"); out != "secret" || refused == 0 || done == 0 || naive == 0 {
		t.Errorf("elsewhere: %q; %d refused, %d done", out, refused, done)
	}
}
