package daemon

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
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

// TestLockDir: one daemon has a directory, and nobody who can only look into it keeps daemons out.
func TestLockDir(t *testing.T) {
	dir := t.TempDir()
	stranger, err := os.Open(dir)
	if err == nil {
		defer stranger.Close()
		err = unix.Flock(int(stranger.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err != nil {
		t.Fatal(err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if second, err := lockDir(dir); err == nil {
		second.Close()
		t.Error("two daemons have it")
	}
	// The lock of a daemon that was killed ends a moment after it, with the last child that was forked and has not executed yet.
	first := lock
	time.AfterFunc(50*time.Millisecond, func() { first.Close() })
	if lock, err = lockDir(dir); err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if is, err := lock.Stat(); err != nil || is.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", is.Mode(), err)
	}
}
