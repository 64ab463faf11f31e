//go:build e2e

package snapshot

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// mount mounts a small tmpfs.
func mount(t *testing.T, at, options string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(at, 0o755), unix.Mount("tmpfs", at, "tmpfs", 0, options)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// TestFullDisk: neither a store nor a workspace that gets full loses anything.
func TestFullDisk(t *testing.T) {
	s, ws := newStore(t), workspaceOf(t, 0o755)
	fill(t, ws)
	for i := range 12 {
		if err := os.WriteFile(filepath.Join(ws, "large"+string(rune('a'+i))), bytes.Repeat([]byte("x"), 1<<20), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	mount(t, s.Dir, "size=8m,mode=0700")
	if _, err := s.Create(t.Context(), ws, "", nil); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("%v", err)
	}
	if names, _ := os.ReadDir(s.Dir); len(names) > 0 {
		t.Errorf("left: %v", names)
	}
	large := newStore(t)
	snap, err := large.Create(t.Context(), ws, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	small := t.TempDir() + "/small" // a mount point: its content is replaced
	mount(t, small, "size=16m")
	if err := errors.Join(os.Mkdir(small+"/d", 0o755), os.WriteFile(small+"/d/kept", bytes.Repeat([]byte("x"), 6<<20), 0o644)); err != nil {
		t.Fatal(err)
	}
	before := show(t, small)
	if err := large.Restore(t.Context(), snap.ID, small); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("%v", err)
	}
	if after := show(t, small); !slices.Equal(before, after) {
		t.Errorf("%q, before %q", after, before)
	}
	if err := os.Remove(small + "/d/kept"); err != nil {
		t.Fatal(err)
	}
	if err := large.Restore(t.Context(), snap.ID, small); err != nil {
		t.Error(err)
	}
	if after := show(t, small); !slices.Equal(after, show(t, ws)) {
		t.Errorf("%q", after)
	}
}

// TestOwnersDevicesMounts: what only root can make.
func TestOwnersDevicesMounts(t *testing.T) {
	s, ws := newStore(t), workspaceOf(t, 0o755)
	mount(t, ws+"/mounted", "size=1m")
	if err := errors.Join(os.WriteFile(ws+"/mounted/f", nil, 0o644), os.WriteFile(ws+"/f", nil, 0o600), os.Chown(ws+"/f", 12345, 54321), os.Symlink("f", ws+"/l"),
		os.Lchown(ws+"/l", 12345, 54321), unix.Mknod(ws+"/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))), os.Chown(ws, 12345, 54321)); err != nil {
		t.Fatal(err)
	}
	snap, err := s.Create(t.Context(), ws, "", nil)
	if err != nil || snap.Skipped != 2 || snap.Files != 4 {
		t.Fatalf("%+v, %v", snap, err)
	}
	to := workspaceOf(t, 0o755)
	if err := s.Restore(t.Context(), snap.ID, to); err != nil {
		t.Fatal(err)
	}
	var st, link, root unix.Stat_t
	err = errors.Join(unix.Lstat(to+"/f", &st), unix.Lstat(to+"/l", &link), unix.Lstat(to, &root))
	if names, _ := os.ReadDir(to); err != nil || len(names) != 2 || st.Uid != 12345 || st.Gid != 54321 || link.Uid != 12345 || root.Uid != 0 {
		t.Errorf("%v, %v, %d:%d, %d", err, names, st.Uid, st.Gid, root.Uid)
	}
}
