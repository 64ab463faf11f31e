package atomicfile

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestReplaces(t *testing.T) {
	for name, write := range map[string]func(string, []byte) error{"Write": Write, "Swap": Swap} {
		file := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(file+Suffix, []byte("what a kill left, which is longer"), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{"first", "2"} {
			if err := write(file, []byte(text)); err != nil || read(t, file) != text {
				t.Errorf("%s: %q, %v", name, read(t, file), err)
			}
		}
		if is, err := os.Stat(file); err != nil || is.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, is.Mode(), err)
		}
		if found, err := os.ReadDir(filepath.Dir(file)); err != nil || len(found) != 1 {
			t.Errorf("%s: beside it is %v, %v", name, found, err)
		}
	}
}

// TestFails: the old file stays, and nothing beside it.
func TestFails(t *testing.T) {
	dir := t.TempDir()
	file, other := filepath.Join(dir, "file"), filepath.Join(dir, "other")
	for _, name := range []string{file, other} {
		if err := os.WriteFile(name, []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(other, file+Suffix); err != nil {
		t.Fatal(err)
	}
	if err := Write(file, []byte("new")); err == nil || errors.Is(err, ErrInPlace) {
		t.Errorf("a link was followed: %v", err)
	}
	if read(t, file) != "old" || read(t, other) != "old" {
		t.Errorf("%q, %q", read(t, file), read(t, other))
	}
	if _, err := os.Lstat(file + Suffix); err == nil {
		t.Error("the link was left")
	}
	if err := os.Mkdir(filepath.Join(dir, "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "full", "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Write(filepath.Join(dir, "full"), []byte("new")); err == nil { // a directory can't be replaced
		t.Error("it took the place of a directory")
	}
	if _, err := os.Lstat(filepath.Join(dir, "full"+Suffix)); err == nil {
		t.Error("what could not be placed was left")
	}
	if err := Write(filepath.Join(dir, "no", "such"), nil); err == nil {
		t.Error("a directory was made")
	}
}
