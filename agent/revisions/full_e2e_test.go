//go:build e2e

package revisions

import (
	"errors"
	"strings"
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
	large := strings.Repeat("# a line\n", 5000)
	var err error
	for err == nil && len(s.List()) < 100 {
		_, err = s.Append(large, "", "root", "", latest(s))
	}
	n := latest(s)
	if !errors.Is(err, syscall.ENOSPC) || n < 2 {
		t.Fatalf("after %d revisions: %v", n, err)
	}
	for _, now := range []*Store{s, open(t, dir)} {
		if latest(now) != n {
			t.Errorf("revision %d is the last, %d was", latest(now), n)
		}
		for i := 1; i <= n; i++ {
			if r, err := now.Get(i); err != nil || r.Text != large {
				t.Errorf("revision %d: %v", i, err)
			}
		}
	}
	if _, err := s.Append("hold: 1m\n", "", "", "", n); err != nil {
		t.Errorf("a small one after it: %v", err)
	}
}
