package changes

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/api"
)

// open is a place for a directory.
func open(t *testing.T, dir string) []Place {
	t.Helper()
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return []Place{{Path: "/workspace", Dir: fd, At: "."}}
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(text), 0o600))
}

// pause begins another time: the kernel's clock for files goes in steps.
func pause(t *testing.T, dir string) time.Time {
	t.Helper()
	probe := filepath.Join(filepath.Dir(dir), "clock")
	stamp := func() time.Time {
		write(t, probe, "x")
		must(t, os.Remove(probe), os.WriteFile(probe, nil, 0o600))
		st, err := stat(unix.AT_FDCWD, probe, 0)
		must(t, err)
		return when(st.Ctime)
	}
	begin := stamp()
	for now := begin; ; now = stamp() {
		if now.Sub(begin) > 20*time.Millisecond {
			return now
		}
	}
}

func lookAt(t *testing.T, places []Place, from, until time.Time) api.Changes {
	t.Helper()
	c, err := Look(context.Background(), places, from, until)
	must(t, err)
	return c
}

// list is what was found, one a line.
func list(c api.Changes) string {
	var lines []string
	for _, f := range c.Files {
		lines = append(lines, fmt.Sprintf("%s %s %s %d", f.What, f.Kind, f.Path, f.Size))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func tree(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tree")
	must(t, os.Mkdir(dir, 0o700))
	return dir
}

func TestLook(t *testing.T) {
	t.Parallel()
	dir := tree(t)
	in := func(name string) string { return filepath.Join(dir, name) }
	for _, d := range []string{"old", "emptied", "quiet"} {
		must(t, os.Mkdir(in(d), 0o700))
	}
	for _, f := range []string{"old/same", "old/written", "old/back", "old/rights", "old/renamed", "emptied/gone", "quiet/same", "replaced"} {
		write(t, in(f), "before")
	}
	from := pause(t, dir)
	write(t, in("old/written"), "afterwards")
	write(t, in("old/back"), "afterwards") // and says that it was long ago
	long := time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)
	must(t, os.Chtimes(in("old/back"), long, long), os.Chmod(in("old/rights"), 0o640), os.Rename(in("old/renamed"), in("old/name")), os.Remove(in("emptied/gone")))
	must(t, os.Mkdir(in("new"), 0o700), os.Symlink("/etc/passwd", in("new/link")), unix.Mkfifo(in("new/fifo"), 0o600), unix.Mknod(in("new/socket"), unix.S_IFSOCK|0o600, 0))
	write(t, in("new/file"), "123")
	write(t, in(".replaced.tmp"), "4")
	must(t, os.Rename(in(".replaced.tmp"), in("replaced")))
	until := pause(t, dir)
	write(t, in("later"), "x")
	write(t, in("old/written"), "and once more")

	c := lookAt(t, open(t, dir), from, time.Time{})
	want := `added directory /workspace/new `
	got := list(c)
	for _, w := range []string{
		want, "added fifo /workspace/new/fifo 0", "added socket /workspace/new/socket 0", "added file /workspace/later 1", "added file /workspace/new/file 3", "added file /workspace/replaced 1", "added link /workspace/new/link 11",
		"changed file /workspace/old/written 13", "removals directory /workspace/emptied ", "touched file /workspace/old/back 10", "touched file /workspace/old/name 6", "touched file /workspace/old/rights 6",
	} {
		if !strings.Contains(got, w) {
			t.Errorf("it does not find %q:\n%s", w, got)
		}
	}
	if c.Added != 7 || c.Changed != 1 || c.Touched != 3 || c.Removed != 1 || len(c.Files) != 12 || c.Later != 0 || c.Unread != 0 || c.Cut != "" || c.Undated || c.Looked != 16 || !slices.Equal(c.Places, []string{"/workspace"}) || len(c.Missed) != 0 {
		t.Errorf("%+v", c)
	}
	if !slices.IsSortedFunc(c.Files, func(a, b api.Changed) int { return b.Time.Compare(a.Time) }) {
		t.Error("the latest is not the first")
	}

	c = lookAt(t, open(t, dir), from, until)
	if got = list(c); strings.Contains(got, "later") || strings.Contains(got, "written") || c.Later != 1 || c.Added != 6 {
		t.Errorf("until a time:\n%s\n%+v", got, c)
	}
	if c = lookAt(t, open(t, dir), pause(t, dir), time.Time{}); len(c.Files) != 0 {
		t.Errorf("of a time in which nothing was:\n%s", list(c))
	}
	if c = lookAt(t, open(t, dir), time.Time{}, time.Time{}); c.Added != c.Looked {
		t.Errorf("of all time: %+v", c)
	}
}

// TestHostileNames: a name is what it is, and JSON can have it.
func TestHostileNames(t *testing.T) {
	t.Parallel()
	dir := tree(t)
	names := []string{"new\nline", "\x1b[31m", "\u202egpj.exe", "\xff\xfe", "..x", "...", " ", strings.Repeat("n", 255), "a\\b", "`|<b>"}
	for _, n := range names {
		write(t, filepath.Join(dir, n), "")
	}
	c := lookAt(t, open(t, dir), time.Time{}, time.Time{})
	if c.Added != uint64(len(names)) || len(c.Files) != len(names) {
		t.Fatalf("%+v", c)
	}
	for _, f := range c.Files {
		if !strings.HasPrefix(f.Path, "/workspace/") || strings.ToValidUTF8(f.Path, "") != f.Path {
			t.Errorf("%q", f.Path)
		}
	}
}

// TestLinks: no link is followed, as a place, on the way to one, or below it.
func TestLinks(t *testing.T) {
	t.Parallel()
	dir, outside := tree(t), t.TempDir()
	write(t, filepath.Join(outside, "SECRET"), "x")
	must(t, os.Symlink(outside, filepath.Join(dir, "out")), os.Symlink("../../../../../../../.."+outside, filepath.Join(dir, "up")), os.Symlink("/proc/self/root"+outside, filepath.Join(dir, "magic")),
		os.Mkdir(filepath.Join(dir, "in"), 0o700), os.Symlink("/in", filepath.Join(dir, "own")))
	write(t, filepath.Join(dir, "in", "mine"), "x")
	place := open(t, dir)[0]
	for _, at := range []string{".", "out", "up", "magic", "/out", "../" + filepath.Base(outside), "..", "own"} {
		place.At = at
		c := lookAt(t, []Place{place}, time.Time{}, time.Time{})
		if got := list(c); strings.Contains(got, "SECRET") {
			t.Errorf("by %s it leaves:\n%s", at, got)
		} else if at == "own" && got != "added file /workspace/mine 1" {
			t.Errorf("a link that stays inside: %q", got)
		}
	}
}

// TestPlaces: a place in another is looked at once, one that is a file is one, and one that is not there is none.
func TestPlaces(t *testing.T) {
	t.Parallel()
	dir := tree(t)
	must(t, os.Mkdir(filepath.Join(dir, "sub"), 0o700))
	write(t, filepath.Join(dir, "sub", "one"), "x")
	write(t, filepath.Join(dir, "file"), "x")
	p := open(t, dir)[0]
	c := lookAt(t, []Place{{"/a/sub", p.Dir, "sub"}, {"/a", p.Dir, "/"}, {"/nothing", p.Dir, "nothing"}, {"/under", p.Dir, "file/x"}, {"/file", p.Dir, "file"}}, time.Time{}, time.Time{})
	if got := list(c); got != "added directory /a/sub "+sizeOf(c, "/a/sub")+"\nadded file /a/file 1\nadded file /a/sub/one 1\nadded file /file 1" {
		t.Errorf("%s", got)
	}
	if !slices.Equal(c.Places, []string{"/a/sub", "/a", "/file"}) {
		t.Errorf("%q", c.Places)
	}
}

func sizeOf(c api.Changes, path string) string {
	for _, f := range c.Files {
		if f.Path == path {
			return fmt.Sprint(f.Size)
		}
	}
	return "?"
}

// TestLimits: what is too much is cut, and said.
func TestLimits(t *testing.T) {
	t.Parallel()
	dir := tree(t)
	for i := range maxShown + 100 {
		write(t, filepath.Join(dir, fmt.Sprint(i)), "x")
	}
	c := lookAt(t, open(t, dir), time.Time{}, time.Time{})
	if c.Added != maxShown+100 || len(c.Files) != maxShown || strings.Contains(list(c), "/workspace/0 ") || c.Cut != "" {
		t.Errorf("%d of %d, the first is %+v, %q", len(c.Files), c.Added, c.Files[0], c.Cut)
	}
	few := look{ctx: context.Background(), end: time.Now().Add(time.Hour), most: 50, seen: map[id]bool{}}
	few.all(append(open(t, dir), open(t, filepath.Dir(dir))...))
	if c := few.found(); c.Looked != 50 || c.Cut != "there are more than 50 files and directories" || len(c.Missed) != 1 {
		t.Errorf("%+v", c)
	}
	late := look{ctx: context.Background(), most: maxLook, seen: map[id]bool{}}
	late.all(open(t, dir))
	if c := late.found(); c.Cut != "it took longer than 5s" {
		t.Errorf("%+v", c)
	}
	// Names that are gone when they are looked at, as many as somebody likes to make, take time as well.
	gone := look{ctx: context.Background(), end: time.Now().Add(time.Hour), most: maxLook, seen: map[id]bool{}}
	at, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	must(t, err)
	for range 100 {
		gone.entry(at, "gone", "/workspace", 0)
	}
	must(t, unix.Close(at))
	if gone.Looked != 100 || len(gone.list) != 0 {
		t.Errorf("of names that are gone %d are looked at, %d found", gone.Looked, len(gone.list))
	}
	gone.end = time.Time{}
	for range 64 {
		gone.goesOn()
	}
	if gone.Cut != "it took longer than 5s" {
		t.Errorf("names that are gone take for ever: %q", gone.Cut)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Look(ctx, open(t, dir), time.Time{}, time.Time{}); err == nil {
		t.Error("nobody waits for it, and it ends well")
	}

	deep := tree(t)
	at, err = unix.Open(deep, unix.O_PATH|unix.O_DIRECTORY, 0)
	must(t, err)
	for range 2000 {
		must(t, unix.Mkdirat(at, strings.Repeat("d", 200), 0o700))
		next, err := unix.Openat(at, strings.Repeat("d", 200), unix.O_PATH|unix.O_DIRECTORY, 0)
		must(t, err, unix.Close(at))
		at = next
	}
	must(t, unix.Close(at))
	c = lookAt(t, open(t, deep), time.Time{}, time.Time{})
	if c.Looked != maxDepth || c.Unread != 1 {
		t.Errorf("a deep tree: %d looked at, %d unread", c.Looked, c.Unread)
	}
	for _, f := range c.Files {
		if len(f.Path) > maxPath+len("...") {
			t.Errorf("a path of %d bytes", len(f.Path))
		}
	}
}

// TestSwap looks while names are changed from directories into links that lead out, and back.
func TestSwap(t *testing.T) {
	t.Parallel()
	dir, outside := tree(t), t.TempDir()
	write(t, filepath.Join(outside, "SECRET"), "x")
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	must(t, os.Mkdir(a, 0o700), os.Symlink(outside, b))
	stop := make(chan struct{})
	var swaps sync.WaitGroup
	swaps.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
			}
		}
	})
	places := open(t, dir)
	places = append(places, Place{"/a", places[0].Dir, "a"})
	for range 2000 {
		if got := list(lookAt(t, places, time.Time{}, time.Time{})); strings.Contains(got, "SECRET") {
			t.Fatalf("it leaves:\n%s", got)
		}
	}
	close(stop)
	swaps.Wait()
}
