package sandbox

import (
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestRenamesAreShared: several sandboxes watch the same directory, and each hears of its rename as long as it watches.
func TestRenamesAreShared(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	watch := func(m *moves, name string) int32 {
		t.Helper()
		fd, err := unix.Open(at(name), unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		wd, err := m.add(fd)
		if err != nil {
			t.Fatal(err)
		}
		return wd
	}
	for _, name := range []string{"both", "one"} {
		if err := os.Mkdir(at(name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	a, b := newMoves(), newMoves()
	defer a.close()
	defer b.close()
	both, again, one := watch(a, "both"), watch(b, "both"), watch(a, "one")
	if both != again || both == one {
		t.Errorf("watches %d, %d, %d", both, again, one)
	}
	move := func(from, to string) {
		t.Helper()
		if err := os.Rename(at(from), at(to)); err != nil {
			t.Fatal(err)
		}
	}
	sees := func(m *moves, wd int32, what string) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); !m.take()(wd); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("nobody said that %s", what)
			}
		}
	}
	move("both", "elsewhere")
	sees(a, both, "both was renamed")
	sees(b, both, "both was renamed")
	if a.take()(one) || b.take()(both) {
		t.Error("a rename was told twice, or of something else")
	}
	a.close()
	var woken atomic.Int32
	b.wakes(func() { woken.Add(1) })
	move("elsewhere", "both")
	sees(b, both, "it was renamed again")
	if n := woken.Load(); n != 1 {
		t.Errorf("it was told %d times", n)
	}
	if a.take()(both) {
		t.Error("what is closed hears of renames")
	}
}
