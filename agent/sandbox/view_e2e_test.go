//go:build e2e

package sandbox

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/policy"
)

// hostDir is a new directory outside of /tmp, which is private inside.
func hostDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "nctest-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// fill makes files of "name" or "dir/" below a directory.
func fill(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		at := filepath.Join(dir, name)
		var err error
		if strings.HasSuffix(name, "/") {
			err = os.MkdirAll(at, 0o755)
		} else if err = os.MkdirAll(filepath.Dir(at), 0o755); err == nil {
			err = os.WriteFile(at, []byte("content of "+name), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestDenies(t *testing.T) {
	dir, data := workspaceOf(t, 0, 0), hostDir(t)
	fill(t, dir, "a/secret/key", "a/other", "docs/text", "src/main")
	fill(t, data, "key", "private/x", "open")
	b := start(t, tools+`filesystem:
  allow:
    - {path: /workspace, permissions: [read, write]}
    - {path: `+data+`, permissions: [read]}
  deny:
    - {path: /workspace/a/secret, permissions: [read, write]}
    - {path: /workspace/docs, permissions: [write]}
    - {path: `+data+`/key, permissions: [read]}
    - {path: `+data+`/private, permissions: [read, write]}
    - {path: /tmp/none, permissions: [read, write]}
`, dir)
	b.want("cat "+data+"/open docs/text a/other", "content of opencontent of docs/textcontent of a/other", 0)
	for _, line := range []string{"cat a/secret/key", "ls a/secret", "touch a/secret/new", "touch docs/new", "rm docs/text", "echo x >> docs/text", "mv docs d2", "rm -r a/secret",
		"cat " + data + "/key", "ls " + data + "/private", "touch " + data + "/new", "ls /tmp/none", "touch /tmp/none/x", "rmdir /tmp/none",
		"mv a b", "mv a/secret s", "mv /workspace/a /workspace/b", "ln docs/text hard"} {
		if out, status := b.sh(line); status == 0 {
			t.Errorf("%s: %q", line, out)
		}
	}
	b.want("echo new > a/new && mkdir a/d && mv a/d a/e && echo x >> src/main && ls a", "e\nnew\nother\nsecret", 0)
}

// TestUnmaskedByRename: when the host renames what a mask lies on, or a directory above it, the mask goes along; another may take
// the place that the rule names.
func TestUnmaskedByRename(t *testing.T) {
	for _, what := range []string{"key", "d/key", "d", "ws/private", "ws/a", "ws/a/b"} {
		t.Run(what, func(t *testing.T) {
			data := hostDir(t)
			fill(t, data, "key", "d/key", "ws/private/key", "ws/a/b/key")
			spec := testSpec(t, tools+`filesystem:
  allow: [{path: /workspace, permissions: [read, write]}, {path: `+data+`, permissions: [read]}]
  deny:
    - {path: `+data+`/key, permissions: [read]}
    - {path: `+data+`/d/key, permissions: [read]}
    - {path: /workspace/private, permissions: [read, write]}
    - {path: /workspace/a/b, permissions: [read, write]}
`, data+"/ws")
			seen := make(chan Unmasked, 8)
			spec.Unmasked = func(u Unmasked) { seen <- u }
			startSpec(t, spec)
			fill(t, data, "ws/private/more", "ws/a/more") // what changes inside them does not matter
			select {
			case u := <-seen:
				t.Fatalf("%+v though nothing was lost", u)
			case <-time.After(50 * time.Millisecond):
			}
			if err := os.Rename(data+"/"+what, data+"/moved"); err != nil {
				t.Fatal(err)
			}
			select {
			case u := <-seen:
				if u.Err != nil || u.Rule == "default" {
					t.Errorf("%+v", u)
				}
			case <-time.After(5 * time.Second):
				t.Fatal("nobody noticed that the mask has moved")
			}
		})
	}
}

func TestUnmasked(t *testing.T) {
	dir := workspaceOf(t, 0, 0)
	data := hostDir(t)
	fill(t, data, "key", "d/")
	spec := testSpec(t, tools+`filesystem:
  allow: [{path: /workspace, permissions: [read, write]}, {path: `+data+`, permissions: [read]}]
  deny: [{path: `+data+`/key, permissions: [read]}]
`, dir)
	seen := make(chan Unmasked, 1)
	spec.Unmasked = func(u Unmasked) { seen <- u }
	b := startSpec(t, spec)
	p, err := b.Exec(ExecRequest{Args: []string{"sh", "-c", "while :; do echo x > beat; sleep 0.01; done"}})
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(dir + "/beat"); err == nil {
			break
		} else if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	// What is somewhere else does not matter.
	fill(t, data, "other")
	if err := os.Rename(data+"/other", data+"/another"); err != nil {
		t.Fatal(err)
	}
	select {
	case u := <-seen:
		t.Fatalf("%+v though nothing was lost", u)
	case <-time.After(100 * time.Millisecond):
	}
	fill(t, data, "new")
	if err := os.Rename(data+"/new", data+"/key"); err != nil {
		t.Fatal(err)
	}
	select {
	case u := <-seen:
		if u.Path != data+"/key" || u.Err != nil || u.Rule == "default" {
			t.Errorf("%+v", u)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("nobody noticed that the mask is gone")
	}
	time.Sleep(50 * time.Millisecond)
	if err := os.Remove(dir + "/beat"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond)
	if _, err := os.Stat(dir + "/beat"); err == nil {
		t.Error("the sandbox is not frozen")
	}
	if err := b.Close(); err != nil {
		t.Error("closing a frozen sandbox: ", err)
	}
	if _, err := p.Wait(); !errors.Is(err, ErrGone) {
		t.Error(err)
	}
}

// TestEtcHolds shows that what is hidden in /etc stays hidden whatever the host does.
func TestEtcHolds(t *testing.T) {
	name := "/etc/nctest-" + filepath.Base(t.TempDir()) + filepath.Base(testRun)
	t.Cleanup(func() { os.Remove(name); os.Remove(name + ".new"); os.Remove(name + ".shown") })
	if err := errors.Join(os.WriteFile(name, []byte("old"), 0o644), os.WriteFile(name+".shown", []byte("shown"), 0o644)); err != nil {
		t.Fatal(err)
	}
	b := start(t, tools+`filesystem: {allow: [{path: /workspace, permissions: [read, write]}], deny: [{path: `+name+`, permissions: [read]}]}`, workspaceOf(t, 0, 0))
	b.refused("cat "+name, "No such file")
	b.want("cat "+name+".shown", "shown", 0)
	if err := errors.Join(os.WriteFile(name+".new", []byte("new"), 0o644), os.Rename(name+".new", name)); err != nil {
		t.Fatal(err)
	}
	b.refused("cat "+name, "No such file")
}

func TestSecretThatARuleNames(t *testing.T) {
	b := start(t, tools+`filesystem: {allow: [{path: /workspace, permissions: [read, write]}, {path: /etc/shadow, permissions: [read]}, {path: /etc/ssl/private, permissions: [read]}]}`, workspaceOf(t, 0, 0))
	if out, status := b.sh("head -c 5 /etc/shadow; ls /etc/ssl/private; ls /etc | head -n 3"); status != 0 || !strings.HasPrefix(out, "root:") {
		t.Error(out, status)
	}
	b.refused("cat /etc/gshadow", "No such file")
	b.refused("echo x >> /etc/shadow", "Read-only")
}

func TestHostPaths(t *testing.T) {
	data := hostDir(t)
	fill(t, data, "ro/f", "rw/", "real/f", "file", "x/tool")
	if err := errors.Join(os.Symlink("real", data+"/link"), os.Chown(data+"/rw", 4321, 4321), os.Chmod(data+"/ro/f", 0o600),
		os.WriteFile(data+"/x/tool", []byte("#!/bin/sh\necho tool\n"), 0o755), os.Chmod(data+"/x/tool", 0o755)); err != nil {
		t.Fatal(err)
	}
	b := start(t, tools+`filesystem:
  allow:
    - {path: `+data+`/ro, permissions: [read]}
    - {path: `+data+`/rw, permissions: [read, write]}
    - {path: `+data+`/link, permissions: [read]}
    - {path: `+data+`/file, permissions: [read, write]}
    - {path: `+data+`/x, permissions: [read, execute]}
    - {path: `+data+`/missing, permissions: [read]}
`, "")
	b.want("pwd", "/home/agent", 0)
	b.want("cd "+data+" && cat ro/f link/f real/f file", "content of ro/fcontent of real/fcontent of real/fcontent of file", 0)
	b.want("cd "+data+" && echo new > rw/new && echo more > file && cat file rw/new && x/tool", "more\nnew\ntool", 0)
	b.refused("touch "+data+"/ro/new", "Read-only")
	b.want("ls "+data+"/../..", "tmp", 0) // what leads to what is granted, and no more
	var at unix.Stat_t
	if err := unix.Stat(data+"/rw/new", &at); err != nil || at.Uid != 4321 {
		t.Error(at.Uid, err)
	}
	if trees := b.ExecTrees(); len(trees) != 1 || trees[0].Path != data+"/x" {
		t.Errorf("%+v", trees)
	}
	if warnings := strings.Join(b.Warnings(), "\n"); !strings.Contains(warnings, data+"/missing does not exist") {
		t.Error(warnings)
	}
}

// A directory that is denied in the workspace is denied at its place on the host too, and a command that the sandbox may
// rewrite is warned of.
func TestWorkspaceShownTwice(t *testing.T) {
	project := hostDir(t)
	for _, d := range []string{"in/secret", "in/open"} {
		if err := os.MkdirAll(filepath.Join(project, d), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(project, d, "key"), []byte("content of "+d), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(project, "in", "tool"), []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	b := start(t, `filesystem:
  allow:
    - {path: /workspace, permissions: [read, write]}
    - {path: `+project+`, permissions: [read]}
  deny:
    - {path: /workspace/secret, permissions: [read, write]}
process: {allow: [{command: sh}, {command: cat}, {command: /workspace/tool}]}
`, filepath.Join(project, "in"))
	b.want("cat /workspace/open/key; cat "+project+"/in/open/key", "content of in/opencontent of in/open", 0)
	b.refused("cat /workspace/secret/key", "key")
	b.refused("cat "+project+"/in/secret/key", "key")
	if warnings := strings.Join(b.Warnings(), "\n"); !strings.Contains(warnings, "the command /workspace/tool lies where the sandbox may write") {
		t.Error(warnings)
	}
}

func TestUnixSocket(t *testing.T) {
	dir := hostDir(t)
	l, err := net.Listen("unix", dir+"/s")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	other, err := net.Listen("unix", dir+"/other")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := os.Chmod(dir+"/s", 0o600); err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Write([]byte("hello\n"))
			c.Close()
		}
	}()
	b := start(t, tools+"network: {unix: ["+dir+"/s]}\n", "")
	connect := func(path string) string {
		return `python3 -c 'import socket; s=socket.socket(socket.AF_UNIX); s.connect("` + path + `"); print(s.recv(9).decode().strip())'`
	}
	b.want(connect(dir+"/s"), "hello", 0)
	b.refused(connect(dir+"/other"), "No such file")
}

// TestNotIdmapped puts the workspace on a file system that can't be id-mapped.
func TestNotIdmapped(t *testing.T) {
	at := t.TempDir()
	for _, dir := range []string{"lower", "upper", "work", "mnt"} {
		fill(t, at, dir+"/")
	}
	fill(t, at, "lower/f")
	mnt := at + "/mnt"
	if err := unix.Mount("overlay", mnt, "overlay", 0, "lowerdir="+at+"/lower,upperdir="+at+"/upper,workdir="+at+"/work"); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(mnt, unix.MNT_DETACH)
	_, err := Prepare(testSpec(t, workspaceRule+tools, mnt))
	if err == nil || !strings.Contains(err.Error(), "belongs to root") || !strings.Contains(err.Error(), "overlayfs") || !strings.Contains(err.Error(), "chown") {
		t.Fatal(err)
	}
	if err := os.Chown(mnt, 4321, 1234); err != nil {
		t.Fatal(err)
	}
	b := start(t, workspaceRule+tools, mnt)
	if b.HostID() != 4321 {
		t.Errorf("the sandbox's user is %d on the host", b.HostID())
	}
	b.want("cat f; echo x > new; echo y > $HOME/z; stat -c %u:%g new", "content of lower/f1000:1000", 0)
	var st unix.Stat_t
	if err := unix.Stat(mnt+"/new", &st); err != nil || st.Uid != 4321 || st.Gid != 1234 {
		t.Error(st.Uid, st.Gid, err)
	}
}

// TestRefusedRules are rules that can't be enforced: nothing starts, and nothing is left.
func TestRefusedRules(t *testing.T) {
	dir := workspaceOf(t, 0, 0)
	fill(t, dir, ".env")
	for rule, want := range map[string]string{
		"deny: [{path: /workspace/.env, permissions: [read]}]":                "needs enforcement level full",
		"deny: [{path: /workspace/new, permissions: [write]}]":                "needs enforcement level full",
		"allow: [{path: /, permissions: [read]}]":                             "its own root",
		"allow: [{path: /dev/mem, permissions: [read]}]":                      "device files",
		"allow: [{path: /workspace/sub, permissions: [execute]}]":             "needs enforcement level full",
		"allow: [{path: /nowhere/at/all, permissions: [read]}]":               "",
		"deny: [{path: /nowhere/at/all, permissions: [read, write]}]":         "",
		"allow: [{path: /home, permissions: [read]}]":                         "its own /home/agent",
		"deny: [{path: /workspace/.env, permissions: [read]}], allow: []":     "test.yaml:",
		"allow: [{path: /etc/hostname, permissions: [read, write]}]":          "",
		"deny: [{path: /proc/self, permissions: [read]}]":                     "own entries of /proc",
		"deny: [{path: /dev/shm, permissions: [read, write]}]":                "",
		"deny: [{path: /home/agent, permissions: [read, write, execute]}]":    "",
		"allow: [{path: /workspace/.env, permissions: [read, write]}]":        "",
		"allow: [{path: /usr/share, permissions: [read, write, execute]}]":    "",
		"deny: [{path: /usr/share/doc, permissions: [read, write]}]":          "",
		"deny: [{path: /usr/share/none, permissions: [read, write]}]":         "",
		"deny: [{path: /bin, permissions: [write, execute]}]":                 "",
		"deny: [{path: /usr/local/bin, permissions: [read, execute]}]":        "",
		"allow: [{path: /var/run, permissions: [read]}]":                      "",
		"allow: [{path: /sys, permissions: [read]}]":                          "",
		"allow: [{path: /proc/sys, permissions: [read, write]}]":              "/proc inside is read-only",
		"deny: [{path: /proc/sys, permissions: [read]}]":                      "",
		"allow: [{path: /tmp, permissions: [read]}]":                          "",
		"deny: [{path: /tmp, permissions: [read, write]}]":                    "",
		"deny: [{path: /tmp/x/y/z, permissions: [write]}]":                    "",
		"allow: [{path: /etc/ssl, permissions: [read, write]}]":               "",
		"deny: [{path: /etc/ssl, permissions: [read]}]":                       "",
		"allow: [{path: /etc, permissions: [read, write]}]":                   "/etc inside is composed",
		"allow: [{path: /root, permissions: [read]}]":                         "",
		"deny: [{path: /etc/none/at/all, permissions: [read]}]":               "",
		"baseline: none, allow: [{path: /usr, permissions: [read, execute]}]": "",
	} {
		var text string
		if !strings.Contains(rule, "allow:") {
			text = "filesystem: {allow: [{path: /workspace, permissions: [read, write]}], " + rule + "}\n" + tools
		} else {
			text = "filesystem: {" + strings.Replace(rule, "allow: [", "allow: [{path: /workspace, permissions: [read, write]}, ", 1) + "}\n" + tools
		}
		s, err := Prepare(testSpec(t, text, dir))
		if want != "" {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, not %q", rule, err, want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", rule, err)
			continue
		}
		if err := errors.Join(s.Start(), s.Close()); err != nil {
			t.Errorf("%s: %v", rule, err)
		}
	}
}

func TestHome(t *testing.T) {
	b := start(t, tools+"filesystem: {deny: [{path: /home, permissions: [read, write]}]}", "")
	if p, err := b.Exec(ExecRequest{Args: []string{"true"}}); err == nil || p != nil {
		t.Error("HOME is denied, and a command started in it")
	}
	if _, err := b.Exec(ExecRequest{Args: []string{"true"}, Dir: "/tmp"}); err != nil {
		t.Error(err)
	}
	_ = policy.Home
}

// What may be executed below a path is not on a list, so a rule that takes one program out of it can't be kept.
func TestDenyOfWhatATreeAllows(t *testing.T) {
	tools := hostDir(t)
	if err := os.WriteFile(filepath.Join(tools, "old"), []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, policy := range map[string]string{
		"below execute":         "filesystem: {allow: [{path: " + tools + ", permissions: [read, execute]}]}\nprocess: {allow: [{command: sh}], deny: [{command: " + tools + "/old}]}\n",
		"a script of one's own": workspaceRule + "process: {allow: [{command: sh}], deny: [{command: /workspace/not-yet}]}\n",
	} {
		s, err := Prepare(testSpec(t, policy, workspaceOf(t, 0, 0)))
		if err == nil {
			s.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "needs enforcement level full") {
			t.Errorf("%s: %v", name, err)
		}
	}
	b := start(t, workspaceRule+"process: {allow: [{command: sh}, {command: id}], deny: [{command: id}]}\n", workspaceOf(t, 0, 0))
	b.refused("id", "Permission denied")
}

// A daemon starts commands of its own at any time, and a child has its parent's files until it executes.
func TestReadOnlyWhileForking(t *testing.T) {
	stop, stopped := make(chan struct{}), make(chan error, 2)
	for range cap(stopped) {
		go func() {
			for {
				select {
				case <-stop:
					stopped <- nil
					return
				default:
				}
				if err := exec.Command("/bin/true").Run(); err != nil {
					stopped <- err
					return
				}
			}
		}()
	}
	for range 2000 {
		mount, err := newMount("tmpfs", 0)
		if err != nil {
			t.Fatal(err)
		}
		err = errors.Join(writeAt(mount, "file", []byte("content"), 0o644), setMount(mount, unix.MOUNT_ATTR_RDONLY, false, -1))
		unix.Close(mount)
		if err != nil {
			t.Error(err)
			break
		}
	}
	close(stop)
	for range cap(stopped) {
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	}
}
