// Package tempfile makes files for tests, which go when the test ends. It never writes elsewhere than below the test's own directory.
package tempfile

import (
	"os"
	"path/filepath"
	"testing"
)

// Write writes a file in a directory of its own, with exactly this mode, whatever the umask is, and returns its name.
func Write(t testing.TB, mode os.FileMode, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(name, mode); err != nil {
		t.Fatal(err)
	}
	return name
}
