//go:build e2e

package loader

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/policy"
)

// mounted is a new file system that is attached nowhere, so that it goes with its descriptor. Its path leads through it.
func (f *fileTest) mounted(kind string, options ...string) string {
	f.Helper()
	fs, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	must(f, err)
	defer unix.Close(fs)
	for i := 0; i < len(options); i += 2 {
		must(f, unix.FsconfigSetString(fs, options[i], options[i+1]))
	}
	must(f, unix.FsconfigCreate(fs))
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	must(f, err)
	return f.kept(fd)
}

// bound is a bind mount of a directory that is attached nowhere.
func (f *fileTest) bound(path string) string {
	f.Helper()
	fd, err := unix.OpenTree(unix.AT_FDCWD, f.at(path), unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	must(f, err)
	return f.kept(fd)
}

func (f *fileTest) kept(fd int) string {
	f.Cleanup(func() { unix.Close(fd) })
	return fmt.Sprintf("/proc/self/fd/%d/", fd)
}

// everywhere runs a test on the file system of the test's directory, on tmpfs and on overlayfs.
func everywhere(t *testing.T, test func(f *fileTest)) {
	t.Run("here", func(t *testing.T) { test(newFileTest(t)) })
	t.Run("tmpfs", func(t *testing.T) {
		f := newFileTest(t)
		f.dir = f.mounted("tmpfs")
		f.rule(".", says(r, 10))
		test(f)
	})
	t.Run("overlay", func(t *testing.T) {
		f := newFileTest(t)
		f.dir = f.overlay()
		f.rule(".", says(r, 10))
		test(f)
	})
}

// overlay is an overlayfs over lower and upper, below the test's directory.
func (f *fileTest) overlay() string {
	f.mk("lower/", "upper/", "work/")
	return f.mounted("overlay", "lowerdir", f.at("lower"), "upperdir", f.at("upper"), "workdir", f.at("work"))
}

// TestFileMoves: what moves is judged where it is, with its own rules, and so are those who have it open.
func TestFileMoves(t *testing.T) {
	everywhere(t, func(f *fileTest) {
		f.mk("a/tree/file", "a/marked", "b/")
		f.rule("b", says(rw, 20))
		f.rule("a/marked", says(w, 30))
		file := f.open("a/tree/file")
		f.judgeFD("the open file", file, w, policy.Deny, 11)
		f.mv("a/tree", "b/tree")
		f.judgeFD("the open file", file, w, policy.Allow, 21)
		f.judge("b/tree/file", w, policy.Allow, 21)
		f.mv("b/tree/file", "a/file")
		f.judgeFD("the open file", file, w, policy.Deny, 11)
		f.mv("a/marked", "b/marked")
		f.judge("b/marked", r, policy.Deny, 30)

		// Exchanged, each has the other's place.
		f.mk("b/file")
		other := f.open("b/file")
		must(f, unix.Renameat2(unix.AT_FDCWD, f.at("a/file"), unix.AT_FDCWD, f.at("b/file"), unix.RENAME_EXCHANGE))
		f.judgeFD("the open file", file, w, policy.Allow, 21)
		f.judgeFD("the other", other, w, policy.Deny, 11)
	})
}

// TestFileLinks: a hard link is judged where it is; a rule of the file itself holds at every one. What a symbolic link
// leads to is judged where that is.
func TestFileLinks(t *testing.T) {
	everywhere(t, func(f *fileTest) {
		f.mk("a/file", "a/marked", "b/")
		f.rule("b", says(rw, 20))
		f.rule("a/marked", says(x, 30))
		must(f, os.Link(f.at("a/file"), f.at("b/file")))
		must(f, os.Link(f.at("a/marked"), f.at("b/marked")))
		f.judge("a/file", w, policy.Deny, 11)
		f.judge("b/file", w, policy.Allow, 21)
		f.judge("a/marked", x, policy.Allow, 32)
		f.judge("b/marked", x, policy.Allow, 32)
		f.judge("b/marked", r, policy.Deny, 30)

		must(f, os.Symlink("../a/file", f.at("b/link")))
		must(f, os.Symlink("../a", f.at("b/dir")))
		must(f, os.Symlink("../a/file", f.at("b/link2")))
		f.judge("b/link", w, policy.Allow, 21) // the link itself
		f.judge("b/dir/file", w, policy.Deny, 11)
		followed, err := os.Open(f.at("b/link2"))
		must(f, err)
		defer followed.Close()
		f.judgeFD("b/link2", int(followed.Fd()), w, policy.Deny, 11)
	})
}

// TestFileRemoved: who has a removed file or directory open is judged as it was where it was last, also when that is
// removed or moves later.
func TestFileRemoved(t *testing.T) {
	everywhere(t, func(f *fileTest) {
		f.mk("a/dir/file", "a/dir/named", "b/", "c/marked")
		f.rule("b", says(rw, 20))
		f.named("a/dir/named", says(x, 30))
		f.rule("c/marked", says(w, 40))
		file, named, dir, marked := f.open("a/dir/file"), f.open("a/dir/named"), f.open("a/dir"), f.open("c/marked")
		must(f, os.Remove(f.at("a/dir/file")))
		must(f, os.Remove(f.at("a/dir/named")))
		must(f, os.Remove(f.at("c/marked")))
		f.judgeFD("the removed file", file, r, policy.Allow, 10)
		f.judgeFD("the removed file", file, w, policy.Deny, 11)
		f.judgeFD("the removed file of a name", named, x, policy.Allow, 32)
		f.judgeFD("the removed file of a rule", marked, w, policy.Allow, 41)
		f.mv("a", "b/a")
		f.judgeFD("the removed file", file, w, policy.Allow, 21)
		must(f, os.Remove(f.at("b/a/dir")))
		f.judgeFD("the removed directory", dir, w, policy.Allow, 21)
		f.judgeFD("the file removed there before", file, w, policy.Allow, 21)
		f.mv("b/a", "a")
		f.judgeFD("the removed directory", dir, w, policy.Deny, 11)
	})
}

// TestFileReuse: a new file that is given the number of a removed one has none of its rules, since its generation is
// another. Only overlayfs has no generations: so the loader must refuse rules of files there.
func TestFileReuse(t *testing.T) {
	everywhere(t, func(f *fileTest) {
		f.mk("file")
		f.rule("file", says(rw, 20))
		was := f.placeOf(f, mine, f.at("file"))
		var fs unix.Statfs_t
		must(f, unix.Statfs(f.at("."), &fs))
		if fs.Type == unix.OVERLAYFS_SUPER_MAGIC {
			if was.Gen != 0 {
				f.Errorf("overlayfs gives generations by now: %+v", was)
			}
			return
		}
		must(f, os.Remove(f.at("file")))
		for i := range 200 {
			name := fmt.Sprint(i)
			f.mk(name)
			if is := f.placeOf(f, mine, f.at(name)); is == was {
				f.Fatalf("a new file has the identity of a removed one: %+v", is)
			}
			f.judge(name, w, policy.Deny, 11)
		}
	})
}

// TestFileNameless: a file without a name is judged as in its directory, before and after it gets one elsewhere by
// the descriptor it was made with; and what is in no directory at all has no rule.
func TestFileNameless(t *testing.T) {
	f := newFileTest(t)
	f.mk("a/", "b/")
	f.rule("b", says(rw, 20))
	fd, err := unix.Open(f.at("a"), unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	must(f, err)
	defer unix.Close(fd)
	f.judgeFD("a nameless file of a", fd, r, policy.Allow, 10)
	must(f, unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), unix.AT_FDCWD, f.at("b/file"), unix.AT_SYMLINK_FOLLOW))
	f.judgeFD("the file by its descriptor", fd, w, policy.Deny, 11)
	f.judge("b/file", w, policy.Allow, 21)

	mem, err := unix.MemfdCreate("b", unix.MFD_CLOEXEC)
	must(f, err)
	defer unix.Close(mem)
	f.judgeFD("a memfd", mem, r, policy.Deny, 0)
	var pipe [2]int
	must(f, unix.Pipe2(pipe[:], unix.O_CLOEXEC))
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	f.judgeFD("a pipe", pipe[0], r, policy.Deny, 0)
	f.judge("/proc/self/stat", r, policy.Deny, 0)
}

// TestFileMounts: a walk ends at the root of a file system, and at the root of a bind mount that has a rule, as the
// loader gives each mount of a view one; without it the walk would go on in the directory that was bound.
func TestFileMounts(t *testing.T) {
	f := newFileTest(t)
	f.mk("a/bound/dir/file", "mnt/")
	bind := f.bound("a/bound")
	f.judge(bind+"dir/file", r, policy.Allow, 10)
	f.rule("a/bound", says(w, 20))
	f.judge(bind+".", r, policy.Deny, 20)
	f.judge(bind+"dir/file", r, policy.Deny, 20)
	f.judge(bind+"dir/file", w, policy.Allow, 21)
	f.judge("a/bound/dir/file", w, policy.Allow, 21) // a rule is one of the directory, not of the mount
	f.judge("a/bound/../../a", r, policy.Allow, 10)

	tmp := f.mounted("tmpfs")
	f.mk(tmp + "file")
	f.judge(tmp+"file", r, policy.Deny, 0)
	f.rule(tmp+".", says(r, 30))
	f.judge(tmp+"file", r, policy.Allow, 30)
	again := f.mounted("tmpfs") // the same inode number, another device
	f.mk(again + "file")
	f.judge(again+"file", r, policy.Deny, 0)
}
