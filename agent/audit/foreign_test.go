package audit

import (
	"crypto/ed25519"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestForeignDirectory: root verifies logs that lie where somebody else writes. What stands there instead of a file neither holds it up
// nor fills its memory, and of a file that a link leads to nothing is told.
func TestForeignDirectory(t *testing.T) {
	t.Parallel()
	key, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(t.TempDir(), "shadow")
	if err := os.WriteFile(secret, []byte("root:$6$salt$thehashofroot:19000:0:99999:7:::\ndaemon:*:19000::::::\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, side := range []string{"", ".head", ".sig"} {
		for what, put := range map[string]func(name string) error{
			"a pipe":       func(name string) error { return syscall.Mkfifo(name, 0o600) },
			"endless":      func(name string) error { return os.Symlink("/dev/zero", name) },
			"another file": func(name string) error { return os.Symlink(secret, name) },
		} {
			dir := t.TempDir()
			w, err := OpenChain(dir, "run", "", Options{})
			if err != nil {
				t.Fatal(err)
			}
			if err := w.Append(record(1)); err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			log := filepath.Join(dir, "run.jsonl")
			_ = os.Remove(log + side)
			if err := put(log + side); err != nil {
				t.Fatal(err)
			}
			said := make(chan string, 1)
			go func() {
				text := ""
				for _, e := range []Evidence{{Keys: []ed25519.PublicKey{key}}, {}} {
					r, err := e.VerifyFile(log)
					if err == nil && r.Fault != nil {
						err = r.Fault
					}
					if err != nil {
						text += err.Error() + "\n"
					} else if e.Keys != nil {
						t.Errorf("%s in place of run.jsonl%s is nothing wrong", what, side)
					}
				}
				said <- text
			}()
			select {
			case text := <-said:
				if strings.Contains(text, "root:") || strings.Contains(text, "thehash") {
					t.Errorf("%s in place of run.jsonl%s: %q", what, side, text)
				}
			case <-time.After(20 * time.Second):
				t.Errorf("%s in place of run.jsonl%s: it does not end", what, side)
			}
		}
	}
}
