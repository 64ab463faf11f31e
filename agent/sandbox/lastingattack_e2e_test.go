//go:build e2e

package sandbox

import (
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestThawUnmasked: a sandbox that lost a mask while it stood still does not go on.
func TestThawUnmasked(t *testing.T) {
	spec := lastingSpec(t, "thaw")
	spec.Workspace = workspaceOf(t, 0, 0)
	fill(t, spec.Workspace, "private/key")
	seen := make(chan Unmasked, 1)
	spec.Unmasked = func(u Unmasked) { seen <- u }
	b := startSpec(t, spec)
	if err := b.Freeze(); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(spec.Workspace, "private"), filepath.Join(spec.Workspace, "public")); err != nil {
		t.Fatal(err)
	}
	<-seen
	if err := b.Thaw(); err == nil {
		t.Error("it goes on")
	}
	if n, ok := readNumber(filepath.Join(b.cgroup.v2, "cgroup.freeze")); !ok || n != 1 {
		t.Error("it is not frozen")
	}
}

// TestStoppedBeforeItBegins: what runs inside stops each new command before it executes anything. Whoever waits for such a
// command can go, and so can the daemon.
func TestStoppedBeforeItBegins(t *testing.T) {
	spec := lastingSpec(t, "stopped")
	spec.Workspace = workspaceOf(t, 0, 0)
	fill(t, spec.Workspace, "private/")
	b, err := Prepare(spec)
	if err == nil {
		err = b.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	stopper := ExecRequest{Args: []string{"sh", "-c", "while :; do kill -STOP -1; done"}, Env: Environment(nil, false, nil)}
	if _, err := b.Exec(stopper); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	begin := func(abort <-chan struct{}) {
		p, err := b.Exec(ExecRequest{Args: []string{"true"}, Abort: abort})
		if err == nil {
			err = p.Signal(unix.SIGKILL)
		}
		ended <- err
	}
	hung := false
	for until := time.Now().Add(30 * time.Second); !hung && time.Now().Before(until); {
		abort := make(chan struct{})
		go begin(abort)
		select {
		case err := <-ended:
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(500 * time.Millisecond):
			hung = true
			close(abort)
			select {
			case err := <-ended:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(5 * time.Second):
				t.Error("a command that does not begin can't be given up")
			}
		}
	}
	if !hung {
		t.Fatal("no command was stopped before it began: the test shows nothing")
	}
	for range 3 {
		go begin(nil)
	}
	time.Sleep(100 * time.Millisecond)
	detached := make(chan struct{})
	go func() {
		b.Detach()
		close(detached)
	}()
	select {
	case <-detached:
	case <-time.After(5 * time.Second):
		t.Error("the daemon can't let go of it")
	}
	if err := Discard(testRun, "", "stopped"); err != nil {
		t.Error(err)
	}
}

// TestStreamsWiden: what is opened anew gives a command no more than the descriptor that its caller has.
func TestStreamsWiden(t *testing.T) {
	b := start(t, workspaceRule+tools, workspaceOf(t, 0, 0))
	dir := t.TempDir()
	secret, empty, fifo := filepath.Join(dir, "secret"), filepath.Join(dir, "empty"), filepath.Join(dir, "fifo")
	for file, content := range map[string]string{secret: "secret", empty: ""} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	open := func(name string, flags int) *os.File {
		t.Helper()
		f, err := os.OpenFile(name, flags|unix.O_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	both := open(fifo, os.O_RDWR)
	if _, err := both.WriteString("secret\n"); err != nil {
		t.Fatal(err)
	}
	for _, stdin := range []*os.File{open(secret, os.O_WRONLY), open(fifo, os.O_WRONLY)} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		p, err := b.Exec(ExecRequest{Args: []string{"head", "-c", "6"}, Stdin: stdin, Stdout: w})
		w.Close()
		if err == nil {
			_, _ = p.Wait()
		}
		if got, _ := io.ReadAll(r); len(got) > 0 {
			t.Errorf("read %q from what its caller can only write", got)
		}
		r.Close()
	}
	for _, stdout := range []*os.File{open(empty, os.O_RDONLY), open(fifo, os.O_RDONLY)} {
		if p, err := b.Exec(ExecRequest{Args: []string{"sh", "-c", "echo more"}, Stdout: stdout}); err == nil {
			_, _ = p.Wait()
		}
	}
	if text, err := os.ReadFile(empty); err != nil || len(text) > 0 {
		t.Errorf("wrote %q to what its caller can only read: %v", text, err)
	}
	got := make([]byte, 64)
	if n, _ := both.Read(got); string(got[:n]) != "secret\n" {
		t.Errorf("the named pipe holds %q", got[:n])
	}
}

// TestAbortTooLate: a command that runs is not ended by the end of who waited for its start.
func TestAbortTooLate(t *testing.T) {
	b := start(t, workspaceRule+tools, workspaceOf(t, 0, 0))
	for range 300 {
		abort := make(chan struct{})
		p, err := b.Exec(ExecRequest{Args: []string{"true"}, Abort: abort})
		close(abort)
		if err != nil {
			t.Fatal(err)
		}
		if status, err := p.Wait(); status != 0 || err != nil {
			t.Fatalf("status %d, %v", status, err)
		}
	}
}
