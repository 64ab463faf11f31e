package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDiskUse(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	write := func(name string, size int) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, make([]byte, size), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(elsewhere, "large"), 4<<20)
	for i := range 2 * countNames {
		write(filepath.Join(dir, fmt.Sprint("many/", i)), 1)
	}
	write(filepath.Join(dir, "a/b/c"), 1<<20)
	if err := os.Symlink(elsewhere, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if n := diskUse(dir); n < 1<<20+2*countNames*512 || n > 8<<20 {
		t.Errorf("%d bytes", n)
	} else if err := os.RemoveAll(filepath.Join(dir, "a")); err != nil {
		t.Error(err)
	} else if less := diskUse(dir); n-less < 1<<20 || n-less >= 4<<20 {
		t.Errorf("%d bytes, and without a/b/c %d", n, less)
	}
	if err := os.MkdirAll(filepath.Join(dir, strings.Repeat("d/", countDepth+3)), 0o755); err != nil {
		t.Fatal(err)
	}
	if n := diskUse(dir); n != -1 {
		t.Errorf("a tree too deep takes %d bytes", n)
	}
	if n := diskUse(filepath.Join(dir, "none")); n != -1 {
		t.Errorf("nothing takes %d bytes", n)
	}
}
