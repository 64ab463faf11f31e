//go:build e2e

package daemon

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nemoclaw/nemoclaw/test/harness"
)

// TestConsoleOverSSH sits at the console through a real ssh: what is held is answered with a key, the window changes its size, and
// the connection breaks.
func TestConsoleOverSSH(t *testing.T) {
	t.Parallel()
	d := harness.W.StartDaemon(t)
	create(t, d, "box", curls)
	served(t, "ssh.console.test")
	s := harness.NewScreen(t, harness.W.BinFirst(d.Env()))
	s.Line(t, fmt.Sprintf("HOME=%s nsenter --net=/proc/%d/ns/net dbclient -y -y -t root@127.0.0.1 NEMOCLAW_SOCKET=%s %s term", t.TempDir(), sshServer(t), d.Socket, harness.W.Bin))
	s.WaitFor(t, "nothing waits for an answer")
	done := fetch(t, d, "box", "ssh.console.test")
	s.WaitFor(t, "ssh.console.test:80")
	s.Resize(t, "80", "24")
	s.WaitFor(t, "ssh.console.test:80")
	approve(t, s)
	if got := <-done; got.out != "the page of ssh.console.test\n" || got.status != 0 {
		t.Errorf("approved, curl ended with %d and said %q", got.status, got.out)
	}
	s.WaitFor(t, "nothing waits for an answer")
	s.Key(t, "q")
	s.Wait(t, "$")
	if text := s.Text(t); strings.Contains(text, "\x1b") || strings.Contains(text, "Requests") {
		t.Errorf("the terminal was not given back:\n%s", text)
	}
}

// sshServer starts dropbear for root without a password, in namespaces of its own: nobody else can reach it, and it alone sees that
// shadow file. It returns the process.
func sshServer(t *testing.T) (pid int) {
	t.Helper()
	dir := t.TempDir()
	shadow, key := filepath.Join(dir, "shadow"), filepath.Join(dir, "key")
	if err := os.WriteFile(shadow, []byte("root::20000:0:99999:7:::\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if said, err := exec.Command("dropbearkey", "-t", "ed25519", "-f", key).CombinedOutput(); err != nil {
		t.Fatalf("dropbearkey (scripts/setup installs it): %v\n%s", err, said)
	}
	cmd := exec.Command("unshare", "--mount", "--net", "sh", "-c",
		`ip link set lo up && mount --bind "$0" /etc/shadow && exec dropbear -F -E -B -j -k -m -P "" -r "$1" -p 127.0.0.1:22`, shadow, key)
	said, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	})
	lines := bufio.NewScanner(said)
	for lines.Scan() {
		if strings.Contains(lines.Text(), "Not backgrounding") { // it listens
			go func() { _, _ = io.Copy(io.Discard, said) }() // so that it can go on
			return cmd.Process.Pid
		}
	}
	t.Fatal("dropbear ended")
	return 0
}
