package daemon

import (
	"os"
	"path/filepath"
	"testing"
)

// Members of the groups get to the socket, also where `nemoclaw run` made the directory for itself.
func TestMakeRunDir(t *testing.T) {
	dir := t.TempDir()
	made, left := filepath.Join(dir, "new"), filepath.Join(dir, "left")
	if err := os.Mkdir(left, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, at := range []string{made, left} {
		if err := makeRunDir(at); err != nil {
			t.Fatal(err)
		}
		if is, err := os.Stat(at); err != nil || is.Mode()&0o111 != 0o111 || is.Mode()&0o022 != 0 {
			t.Errorf("%s: %v, %v", at, is.Mode(), err)
		}
	}
}
