package snapshot

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// modes are the two ways to restore: the directory above decides.
var modes = map[string]os.FileMode{"exchanged": 0o755, "replaced": 0o777}

// workspaceOf makes a directory in one of its own, whose mode decides how it is restored.
func workspaceOf(t testing.TB, above os.FileMode) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "above")
	if err := errors.Join(os.MkdirAll(dir+"/ws", 0o755), os.Chmod(dir, above)); err != nil {
		t.Fatal(err)
	}
	return dir + "/ws"
}

func newStore(t testing.TB) *Store { return &Store{Dir: filepath.Join(t.TempDir(), "snapshots")} }

// show lists all that a snapshot keeps of a tree.
func show(t testing.TB, root string) []string {
	t.Helper()
	var list []string
	names := map[uint64]string{}
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == root {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		line := fmt.Sprintf("%s %o %d:%d", strings.TrimPrefix(p, root+"/"), st.Mode, st.Uid, st.Gid)
		line += " " + time.Unix(st.Mtim.Unix()).UTC().Format(time.RFC3339Nano)
		switch {
		case d.Type() == fs.ModeSymlink:
			target, _ := os.Readlink(p)
			line += " -> " + target
		case d.Type().IsRegular():
			text, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %d %q", len(text), text[:min(len(text), 40)])
			if first, ok := names[st.Ino]; ok {
				line += " = " + first
			}
			names[st.Ino] = strings.TrimPrefix(p, root+"/")
			buf := make([]byte, 64)
			if n, err := unix.Getxattr(p, "user.test", buf); err == nil {
				line += " user.test=" + string(buf[:n])
			}
		}
		list = append(list, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// fill makes a tree with one of everything.
func fill(t testing.TB, dir string) {
	t.Helper()
	old := time.Unix(1_000_000_000, 123456789)
	sparse, err := os.Create(dir + "/sparse")
	if err == nil {
		_, err = sparse.WriteAt([]byte("in the middle"), 8<<20)
		err = errors.Join(err, sparse.Truncate(64<<20), sparse.Close())
	}
	err = errors.Join(err,
		os.MkdirAll(dir+"/d/sub", 0o755), os.WriteFile(dir+"/d/file", []byte("content"), 0o640), os.Link(dir+"/d/file", dir+"/d/sub/hard"),
		os.WriteFile(dir+"/empty", nil, 0o400), os.WriteFile(dir+"/\n\xff'\" name", []byte("any bytes"), 0o644), os.WriteFile(dir+"/script", []byte("#!/bin/sh\n"), 0o755),
		os.Symlink("/etc/shadow", dir+"/link"), os.Symlink("\xff", dir+"/broken"), unix.Mkfifo(dir+"/fifo", 0o640), os.Mkdir(dir+"/closed", 0o700),
		os.Chtimes(dir+"/d/file", old, old), os.Chtimes(dir+"/d", old, old), os.Chmod(dir+"/closed", 0o500),
		unix.Setxattr(dir+"/script", "user.test", []byte("value"), 0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(dir+"/closed", 0o700) })
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	for mode, above := range modes {
		t.Run(mode, func(t *testing.T) {
			s, ws := newStore(t), workspaceOf(t, above)
			fill(t, ws)
			before := show(t, ws)
			snap, err := s.Create(t.Context(), ws, "first", []byte("policy"))
			if err != nil || snap.Files != 12 || snap.Skipped+snap.Changed > 0 {
				t.Fatalf("%+v, %v", snap, err)
			}
			got, extra, err := s.Get(snap.ID)
			if err != nil || got != snap || string(extra) != "policy" || got.Label != "first" {
				t.Errorf("%+v, %q, %v", got, extra, err)
			}
			if list, err := s.List(); err != nil || !slices.Equal(list, []Snapshot{snap}) {
				t.Errorf("%+v, %v", list, err)
			}
			if kept := show(t, filepath.Join(s.Dir, snap.ID, treeDir)); !slices.Equal(kept, before) {
				t.Errorf("kept:\n%s\nwant:\n%s", strings.Join(kept, "\n"), strings.Join(before, "\n"))
			}
			var st unix.Stat_t
			if err := unix.Stat(filepath.Join(s.Dir, snap.ID, treeDir, "sparse"), &st); err != nil || st.Blocks*512 > 1<<20 {
				t.Errorf("the hole was filled: %d bytes, %v", st.Blocks*512, err)
			}
			if err := errors.Join(os.RemoveAll(ws+"/d"), os.WriteFile(ws+"/d", []byte("instead"), 0o644), os.WriteFile(ws+"/new", nil, 0o644), os.MkdirAll(ws+"/more/and/more", 0o755),
				os.WriteFile(ws+"/script", []byte("changed"), 0o644), os.Chmod(ws, 0o751)); err != nil {
				t.Fatal(err)
			}
			var old, now unix.Stat_t
			err = errors.Join(unix.Stat(ws, &old), s.Restore(t.Context(), snap.ID, ws), unix.Stat(ws, &now))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = os.Chmod(ws+"/closed", 0o700) })
			if after := show(t, ws); !slices.Equal(after, before) {
				t.Errorf("restored:\n%s\nwant:\n%s", strings.Join(after, "\n"), strings.Join(before, "\n"))
			}
			if now.Mode != old.Mode || now.Uid != old.Uid || (now.Ino != old.Ino) != (mode == "exchanged" && os.Getuid() == 0) {
				t.Errorf("the workspace itself: %+v, before %+v", now, old)
			}
			left, _ := filepath.Glob(filepath.Dir(ws) + "/.nemo*")
			inside, _ := filepath.Glob(ws + "/.nemo*")
			if len(left)+len(inside) > 0 {
				t.Errorf("left: %q, %q", left, inside)
			}
			_ = os.Chmod(filepath.Join(s.Dir, snap.ID, treeDir, "closed"), 0o700)
			if err := s.Delete(snap.ID); err != nil {
				t.Error(err)
			}
			if names, _ := os.ReadDir(s.Dir); len(names) > 0 {
				t.Errorf("left in the store: %v", names)
			}
		})
	}
}

func TestIDs(t *testing.T) {
	t.Parallel()
	s, ws := newStore(t), workspaceOf(t, 0o755)
	if list, err := s.List(); err != nil || len(list) > 0 {
		t.Errorf("%v, %v", list, err)
	}
	for _, id := range []string{"", ".", "..", "../x", "/etc", "20260101-000000-abcdef01", "x.part", "a/b", "tree\x00"} {
		_, _, err := s.Get(id)
		for _, err := range []error{err, s.Delete(id), s.Restore(t.Context(), id, ws)} {
			if !errors.Is(err, ErrNone) {
				t.Errorf("%q: %v", id, err)
			}
		}
	}
	if err := s.Recover(); err != nil {
		t.Error(err)
	}
	for _, at := range []string{"relative", ws + "/none", "/dev/null"} {
		if _, err := s.Create(t.Context(), at, "", nil); err == nil {
			t.Errorf("%s was copied", at)
		}
	}
	if names, _ := os.ReadDir(s.Dir); len(names) > 0 {
		t.Errorf("left: %v", names)
	}
	if _, err := s.Create(t.Context(), ws, "", nil); err != nil {
		t.Fatal(err)
	}
	lock, err := s.lock()
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if _, err := s.Create(t.Context(), ws, "", nil); !errors.Is(err, ErrBusy) {
		t.Error(err)
	}
}

// TestHostile: what a workspace may hold to get at the host's files, or to stop whoever copies it.
func TestHostile(t *testing.T) {
	t.Parallel()
	s, ws := newStore(t), workspaceOf(t, 0o755)
	victim := t.TempDir()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrUnix{Name: ws + "/socket"})
		unix.Close(fd)
	}
	err = errors.Join(err, os.WriteFile(victim+"/secret", []byte("secret"), 0o644), os.Symlink(victim, ws+"/dir"), os.Symlink(victim+"/secret", ws+"/file"),
		os.WriteFile(ws+"/setuid", nil, 0o644), os.Chmod(ws+"/setuid", 0o755|os.ModeSetuid|os.ModeSetgid), unix.Mkfifo(ws+"/fifo", 0o666),
		os.MkdirAll(ws+"/.nemoclaw-restore/old", 0o755))
	if err != nil {
		t.Fatal(err)
	}
	snap, err := s.Create(t.Context(), ws, "", nil)
	if err != nil || snap.Skipped != 1 {
		t.Fatalf("%+v, %v", snap, err)
	}
	if err := s.Restore(t.Context(), snap.ID, ws); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(ws + "/setuid"); err != nil || info.Mode() != 0o755 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if names, _ := os.ReadDir(victim); len(names) != 1 {
		t.Errorf("the victim: %v", names)
	}
	for _, name := range []string{"dir", "file"} {
		if info, err := os.Lstat(ws + "/" + name); err != nil || info.Mode()&fs.ModeSymlink == 0 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
}

// TestDeep: a tree that is deeper than a path may be long can't be copied, and can be removed.
func TestDeep(t *testing.T) {
	t.Parallel()
	for mode, above := range modes {
		t.Run(mode, func(t *testing.T) {
			s, ws := newStore(t), workspaceOf(t, above)
			snap, err := s.Create(t.Context(), ws, "", nil)
			if err != nil {
				t.Fatal(err)
			}
			dir, err := openWorkspace(ws)
			for i := 0; i < 700 && err == nil; i++ {
				var below int
				below, err = makeDir(dir, "deeper")
				unix.Close(dir)
				dir = below
			}
			unix.Close(dir)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Create(t.Context(), ws, "", nil); err == nil || !strings.Contains(err.Error(), "256 directories deep") {
				t.Errorf("%v", err)
			}
			if err := s.Restore(t.Context(), snap.ID, ws); err != nil {
				t.Error(err)
			}
			if names, _ := os.ReadDir(ws); len(names) > 0 {
				t.Errorf("left: %v", names)
			}
		})
	}
}

// TestRemoveAll removes a tree that is deeper than its process may have descriptors.
func TestRemoveAll(t *testing.T) {
	const dirVar, most = "NEMOCLAW_TEST_DEEP", 64
	if dir := os.Getenv(dirVar); dir != "" {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: most, Max: most}); err != nil {
			t.Fatal(err)
		}
		if err := RemoveAll(dir); err != nil {
			t.Error(err)
		}
		return
	}
	ws := workspaceOf(t, 0o755)
	dir, err := openWorkspace(ws)
	for i := 0; i < 3000 && err == nil; i++ {
		var below int
		err = unix.Symlinkat("/", dir, "link")
		if err == nil {
			below, err = makeDir(dir, "deeper")
		}
		unix.Close(dir)
		dir = below
	}
	unix.Close(dir)
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command(os.Args[0], "-test.run=^TestRemoveAll$")
	child.Env = append(os.Environ(), dirVar+"="+ws)
	if out, err := child.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if _, err := os.Lstat(ws); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is left: %v", err)
	}
	if err := RemoveAll(ws); err != nil {
		t.Errorf("a second time: %v", err)
	}
}

// TestSwaps exchanges a directory and a link to the host's all the time. Whoever follows names is led away, and whoever does not
// copies either.
func TestSwaps(t *testing.T) {
	t.Parallel()
	s, ws, victim := newStore(t), workspaceOf(t, 0o755), t.TempDir()
	if err := errors.Join(os.WriteFile(victim+"/secret", []byte("secret"), 0o644), os.Mkdir(ws+"/d", 0o755), os.Symlink(victim, ws+"/l")); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var swapping sync.WaitGroup
	swapping.Go(func() {
		for ctx.Err() == nil {
			_ = unix.Renameat2(unix.AT_FDCWD, ws+"/d", unix.AT_FDCWD, ws+"/l", unix.RENAME_EXCHANGE)
		}
	})
	naive := 0
	for i := 0; i < 50 || naive == 0 && i < 5000; i++ {
		if text, err := os.ReadFile(ws + "/d/secret"); err == nil && string(text) == "secret" {
			naive++
		}
		snap, err := s.Create(t.Context(), ws, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		tree := filepath.Join(s.Dir, snap.ID, treeDir)
		for _, name := range []string{"d", "l"} {
			if info, err := os.Lstat(tree + "/" + name); err == nil && info.IsDir() {
				if names, _ := os.ReadDir(tree + "/" + name); len(names) > 0 {
					t.Fatal("a link was followed")
				}
			}
		}
		if err := s.Delete(snap.ID); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	swapping.Wait()
	if naive == 0 {
		t.Error("the attack leads nowhere")
	}
}

// TestKilled kills a process that restores, again and again: after Recover the workspace is as before or as the snapshot.
func TestKilled(t *testing.T) {
	const dirVar, wsVar, idVar = "SNAPSHOT_TEST_DIR", "SNAPSHOT_TEST_WS", "SNAPSHOT_TEST_ID"
	if dir := os.Getenv(dirVar); dir != "" {
		for id := range strings.SplitSeq(strings.Repeat(os.Getenv(idVar)+",", 10_000), ",") {
			if id == "" {
				continue
			}
			if err := (&Store{dir}).Restore(t.Context(), id, os.Getenv(wsVar)); err != nil {
				t.Fatal(err)
			}
		}
		return
	}
	for mode, above := range modes {
		t.Run(mode, func(t *testing.T) {
			s, ws := newStore(t), workspaceOf(t, above)
			var ids []string
			var states [][]string
			for version := range 2 {
				for i := range 60 {
					name := fmt.Sprintf("%s/f%d", ws, i+version*30)
					if err := errors.Join(os.RemoveAll(name), os.WriteFile(name, binary.BigEndian.AppendUint64(nil, uint64(version)), 0o644)); err != nil {
						t.Fatal(err)
					}
				}
				if version == 1 {
					if err := os.Remove(ws + "/f0"); err != nil {
						t.Fatal(err)
					}
				}
				snap, err := s.Create(t.Context(), ws, "", nil)
				if err != nil {
					t.Fatal(err)
				}
				ids, states = append(ids, snap.ID), append(states, show(t, ws))
			}
			interrupted := 0
			for range 8 {
				child := exec.Command(os.Args[0], "-test.run=^TestKilled$")
				child.Env = append(os.Environ(), dirVar+"="+s.Dir, wsVar+"="+ws, idVar+"="+strings.Join(ids, ","))
				if err := child.Start(); err != nil {
					t.Fatal(err)
				}
				time.Sleep(20*time.Millisecond + time.Duration(rand.Intn(20_000))*time.Microsecond)
				err := child.Process.Kill()
				_ = child.Wait()
				if err != nil {
					t.Fatal(err)
				}
				if _, err := os.Stat(filepath.Join(s.Dir, journalFile)); err == nil {
					interrupted++
				}
				if err := s.Recover(); err != nil {
					t.Fatal(err)
				}
				now := show(t, ws)
				if !slices.Equal(now, states[0]) && !slices.Equal(now, states[1]) {
					t.Fatalf("a mixture:\n%s", strings.Join(now, "\n"))
				}
				if left, _ := filepath.Glob(filepath.Dir(ws) + "/.nemo*"); len(left) > 0 {
					t.Fatalf("left: %q", left)
				}
			}
			if interrupted == 0 {
				t.Error("no restore was interrupted")
			}
		})
	}
}
