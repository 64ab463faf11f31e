//go:build e2e

package revisions

import (
	"bytes"
	"errors"
	"syscall"
	"testing"
)

// TestFullDisk fills a small file system: the append fails, everything before is whole, and with room it goes on.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Fatalf("a small file system: %v; the test needs root", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	s := open(t, dir)
	large := bytes.Repeat([]byte("# a line\n"), 5000)
	var err error
	for err == nil && len(s.List()) < 100 {
		_, err = s.Append(large, Change{Who: "root"}, s.Latest().Number)
	}
	n := s.Latest().Number
	if !errors.Is(err, syscall.ENOSPC) || n < 2 {
		t.Fatalf("after %d revisions: %v", n, err)
	}
	for _, now := range []*Store{s, open(t, dir)} {
		if now.Latest().Number != n {
			t.Errorf("revision %d is the last, %d was", now.Latest().Number, n)
		}
		for i := 1; i <= n; i++ {
			if _, b, err := now.Get(i); err != nil || !bytes.Equal(b, large) {
				t.Errorf("revision %d: %v", i, err)
			}
		}
	}
	if _, err := s.Append([]byte("hold: 1m\n"), Change{}, n); err != nil {
		t.Errorf("a small one after it: %v", err)
	}
}
