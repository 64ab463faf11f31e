package agent

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/policy"
)

// outsideTmp makes a directory that is not in /tmp, which is private inside.
func outsideTmp(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "nemoclaw-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// learning is a run with a workspace and a directory that its policy lets be read, and nothing else of one.
func learning(t *testing.T) (r *run, workspace, readable string) {
	t.Helper()
	dir := outsideTmp(t)
	workspace, readable = filepath.Join(dir, "workspace"), filepath.Join(dir, "readable")
	for _, d := range []string{workspace, readable} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	p, err := policy.Parse("p.yaml", []byte("filesystem:\n  allow:\n    - {path: /workspace, permissions: [read]}\n    - {path: "+policy.Quote(readable)+", permissions: [read]}\n"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := policy.Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	return &run{Instance: newInstance(Config{Policy: c}), workspace: workspace}, workspace, readable
}

// TestRefusedPathsOpenNothing: what a refused execution names is the caller's own word, so a look at it must not open
// what does something when it is opened (/dev/watchdog starts), nor anything that is not there inside.
func TestRefusedPathsOpenNothing(t *testing.T) {
	t.Parallel()
	r, workspace, readable := learning(t)
	hidden := outsideTmp(t)
	notify, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(notify)
	watch := func(path string) {
		if _, err := unix.InotifyAddWatch(notify, path, unix.IN_OPEN); err != nil {
			t.Fatal(err)
		}
	}
	program := func(path string) {
		if err := os.WriteFile(path, []byte("\x7fELF"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{workspace, readable, hidden} {
		if err := unix.Mkfifo(filepath.Join(dir, "pipe"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(dir, "pipe"), 0o755); err != nil {
			t.Fatal(err)
		}
		watch(filepath.Join(dir, "pipe"))
		program(filepath.Join(dir, "program"))
	}
	watch(filepath.Join(hidden, "program"))
	for name, to := range map[string]string{"to-pipe": filepath.Join(readable, "pipe"), "to-hidden": filepath.Join(hidden, "program"), "to-program": filepath.Join(readable, "program")} {
		if err := os.Symlink(to, filepath.Join(workspace, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ path, want string }{
		{filepath.Join(readable, "pipe"), ""},
		{filepath.Join(hidden, "pipe"), ""},
		{filepath.Join(hidden, "program"), ""},
		{"../.." + filepath.Join(hidden, "program"), ""},
		{"/workspace/pipe", ""},
		{"/workspace/to-pipe", ""},
		{"/workspace/to-hidden", ""},
		{"/proc/self/exe", ""},
		{"/dev/null", ""},
		{"/workspace/program", "/workspace/program"},
		{"/workspace/to-program", filepath.Join(readable, "program")},
		{filepath.Join(readable, "program"), filepath.Join(readable, "program")},
	} {
		if got := r.refusedAt(c.path); got != c.want {
			t.Errorf("an execution of %s is taken for one of %q, want %q", c.path, got, c.want)
		}
	}
	if n, err := unix.Read(notify, make([]byte, 4096)); n > 0 {
		t.Errorf("something was opened that must not be (%d bytes of events)", n)
	} else if err != unix.EAGAIN {
		t.Error(err)
	}
}

// TestLearnFileIsOutOfReach: not below what a rule lets the sandbox write, by whatever name the rule has it; and the file
// comes into the very directory that was checked.
func TestLearnFileIsOutOfReach(t *testing.T) {
	t.Parallel()
	dir := outsideTmp(t)
	for _, d := range []string{"shared/below", "workspace", "own"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{"link": "shared", "out": "own"} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	p, err := policy.Parse("p.yaml", []byte("filesystem:\n  allow:\n    - {path: "+policy.Quote(dir+"/link")+", permissions: [write]}\n    - {path: "+policy.Quote(dir+"/shared/below")+", permissions: [read]}\n"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := policy.Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	check := func(at string) (*run, error) {
		r := &run{Instance: newInstance(Config{Policy: c}), workspace: filepath.Join(dir, "workspace"), o: Options{Learn: filepath.Join(dir, at)}}
		return r, r.checkLearn()
	}
	for _, at := range []string{"shared/l.yaml", "shared/below/l.yaml", "link/l.yaml", "link/below/l.yaml", "workspace/l.yaml", "none/l.yaml"} {
		if r, err := check(at); err == nil {
			r.learnt.close()
			t.Errorf("--learn %s is taken", at)
		}
	}
	r, err := check("out/l.yaml")
	if err != nil {
		t.Fatal(err)
	}
	defer r.learnt.close()
	if err := os.Rename(filepath.Join(dir, "own"), filepath.Join(dir, "moved")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("shared", filepath.Join(dir, "own")); err != nil {
		t.Fatal(err)
	}
	if err := r.learnt.write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := r.learnt.write([]byte("y")); err == nil {
		t.Error("a file that is there was replaced")
	}
	if got, err := os.ReadFile(filepath.Join(dir, "moved/l.yaml")); err != nil || string(got) != "x" {
		t.Errorf("%q, %v", got, err)
	}
	for d, want := range map[string]int{"moved": 1, "shared": 1} {
		if list, err := os.ReadDir(filepath.Join(dir, d)); err != nil || len(list) != want {
			t.Errorf("%s has %v, %v", d, list, err)
		}
	}
}
