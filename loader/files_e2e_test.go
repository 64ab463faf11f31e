//go:build e2e

package loader

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/policy"
)

const (
	r  = policy.Read
	w  = policy.Write
	x  = policy.Execute
	rw = r | w
)

// fileTest is a decision core, and a directory that says read by rule 10.
type fileTest struct {
	testing.TB
	*fileJudge
	dir string
}

func newFileTest(t *testing.T) *fileTest {
	t.Parallel()
	f := &fileTest{t, loadFileJudge(t, commonLoader(t)), t.TempDir()}
	f.rule(".", says(r, 10))
	return f
}

// at is a path below the test's directory; an absolute one stays.
func (f *fileTest) at(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return f.dir + "/" + path // a joined one would lead to f.dir itself, not to what that leads to
}

func (f *fileTest) rule(path string, n node) {
	f.Helper()
	f.put(f, mine, f.at(path), n)
}

// named is a rule of a path that can be given to another file: it is one of the name.
func (f *fileTest) named(path string, n node) {
	f.Helper()
	f.name(f, mine, f.at(filepath.Dir(path)), filepath.Base(path), n)
}

// mk makes files, and directories where the path ends with a slash, with all above them.
func (f *fileTest) mk(paths ...string) {
	f.Helper()
	for _, path := range paths {
		if strings.HasSuffix(path, "/") {
			must(f, os.MkdirAll(f.at(path), 0o755))
			continue
		}
		must(f, os.MkdirAll(filepath.Dir(f.at(path)), 0o755))
		must(f, os.WriteFile(f.at(path), nil, 0o644))
	}
}

func (f *fileTest) mv(from, to string) {
	f.Helper()
	must(f, os.Rename(f.at(from), f.at(to)))
}

// open opens a path and keeps it open.
func (f *fileTest) open(path string) int {
	f.Helper()
	fd := openPath(f, unix.AT_FDCWD, f.at(path))
	f.Cleanup(func() { unix.Close(fd) })
	return fd
}

// judge fails the test unless an access to a path has this verdict, by this rule.
func (f *fileTest) judge(path string, want policy.Access, v policy.Verdict, rule policy.RuleID) {
	f.Helper()
	fd := openPath(f, unix.AT_FDCWD, f.at(path))
	defer unix.Close(fd)
	f.judgeFD(path, fd, want, v, rule)
}

func (f *fileTest) judgeFD(what string, fd int, want policy.Access, v policy.Verdict, rule policy.RuleID) {
	f.Helper()
	f.judgeAs(mine, what, fd, want, 1000, ruling{v, rule})
}

func (f *fileTest) judgeAs(who view, what string, fd int, want policy.Access, now uint64, is ruling) {
	f.Helper()
	if got, _ := f.decide(f, who, fd, 1, want, now); got != is {
		f.Errorf("%s of %s at %d in %+v: %s, want %s", want, what, now, who, got, is)
	}
}

// TestFileNearest: of all rules above a file, the nearest decides, alone and for every access.
func TestFileNearest(t *testing.T) {
	f := newFileTest(t)
	f.mk("a/b/c/file", "a/b/plain", "a/other/file", "marked")
	f.rule("a", says(rw, 20))
	f.rule("a/b/c", says(x, 30))
	f.rule("marked", says(w, 40))

	f.judge(".", r, policy.Allow, 10)
	f.judge("a", w, policy.Allow, 21)
	f.judge("a/b", r, policy.Allow, 20)
	f.judge("a/b/plain", rw, policy.Allow, 20)
	f.judge("a/b/plain", x, policy.Deny, 22)
	f.judge("a/other/file", w, policy.Allow, 21)
	f.judge("a/b/c", x, policy.Allow, 32)
	f.judge("a/b/c/file", x, policy.Allow, 32)
	f.judge("a/b/c/file", r, policy.Deny, 30) // nothing is inherited from a
	f.judge("marked", w, policy.Allow, 41)
	f.judge("marked", r, policy.Deny, 40)
	f.judge(filepath.Dir(f.dir), r, policy.Deny, 0) // above every rule
	f.judge("/", r, policy.Deny, 0)
}

// TestFileAttribution: the rule of an answer is that of the first access that the answer is due to.
func TestFileAttribution(t *testing.T) {
	f := newFileTest(t)
	for _, c := range []struct {
		allow, ask, want policy.Access
		is               ruling
	}{
		{allow: rw, want: rw, is: ruling{policy.Allow, 10}},
		{allow: rw, want: w, is: ruling{policy.Allow, 11}},
		{allow: r, want: rw, is: ruling{policy.Deny, 11}},
		{allow: w, want: rw, is: ruling{policy.Deny, 10}},
		{allow: w, want: rw | x, is: ruling{policy.Deny, 10}},
		{allow: r, ask: w, want: rw, is: ruling{policy.Ask, 11}},
		{allow: r, ask: w, want: r, is: ruling{policy.Allow, 10}},
		{allow: r, ask: w | x, want: rw | x, is: ruling{policy.Ask, 11}},
		{ask: rw, want: rw, is: ruling{policy.Ask, 10}},
		{ask: w, want: rw, is: ruling{policy.Deny, 10}}, // never asked about what is refused anyway
		{ask: r, want: rw | x, is: ruling{policy.Deny, 11}},
		{ask: r, want: r | x, is: ruling{policy.Deny, 12}},
		{allow: r, ask: r, want: r, is: ruling{policy.Allow, 10}},
		{want: x, is: ruling{policy.Deny, 12}},
		{allow: x, want: List, is: ruling{policy.Deny, 10}},
		{allow: x | List, want: List, is: ruling{policy.Allow, 10}},
	} {
		n := says(c.allow, 10)
		n.ask = c.ask
		f.rule(".", n)
		f.mk("file")
		f.judge("file", c.want, c.is.verdict, c.is.rule)
	}
}

// TestFileTime: a rule that ends allows what it allows later from that moment on, and asks nothing any more.
func TestFileTime(t *testing.T) {
	f := newFileTest(t)
	f.mk("file")
	n := says(rw, 10)
	n.until, n.later, n.ask = 500, r, x
	f.rule("file", n)
	fd := f.open("file")
	for _, c := range []struct {
		now  uint64
		want policy.Access
		is   ruling
	}{
		{499, rw, ruling{policy.Allow, 10}},
		{499, x, ruling{policy.Ask, 12}},
		{500, rw, ruling{policy.Deny, 11}},
		{500, r, ruling{policy.Allow, 10}},
		{500, x, ruling{policy.Deny, 12}},
		{1 << 63, r, ruling{policy.Allow, 10}},
	} {
		f.judgeAs(mine, "file", fd, c.want, c.now, c.is)
	}
}

// TestFileNames: a rule of a name holds for whatever has it: nothing yet, a file, another file that takes its place.
func TestFileNames(t *testing.T) {
	f := newFileTest(t)
	longest, tooLong := strings.Repeat("n", nameRoom-1), strings.Repeat("n", nameRoom)
	for i, name := range []string{"later", longest, "weird\nname\xff"} {
		f.named(name, says(rw, policy.RuleID(100+10*i)))
	}
	f.mk("later", longest, tooLong, "weird\nname\xff", "late", "laterr", "new")
	f.judge("later", w, policy.Allow, 101)
	f.judge(longest, w, policy.Allow, 111)
	f.judge(tooLong, w, policy.Deny, 11) // the name with a rule is its beginning
	f.judge("weird\nname\xff", w, policy.Allow, 121)
	f.judge("late", w, policy.Deny, 11)
	f.judge("laterr", w, policy.Deny, 11)

	was := f.open("later")
	f.mv("new", "later")
	f.judge("later", w, policy.Allow, 101)
	f.judgeFD("what later was", was, w, policy.Allow, 101) // it goes on where it was: nothing tells it from a file removed
	f.mv("later", "elsewhere")
	f.judge("elsewhere", w, policy.Deny, 11)
	must(f, os.Link(f.at("elsewhere"), f.at("later")))
	f.judge("later", w, policy.Allow, 101)
	f.judge("elsewhere", w, policy.Deny, 11)

	// Directories, and what is below them; and of a name's rule and an inode's the inode's holds.
	f.named("tree", says(rw, 200))
	f.mk("tree/a/b", "moved/c")
	f.judge("tree/a/b", w, policy.Allow, 201)
	f.mv("tree", "old")
	f.judge("old/a/b", w, policy.Deny, 11)
	f.mv("moved", "tree")
	f.judge("tree/c", w, policy.Allow, 201)
	f.rule("tree", says(x, 300))
	f.judge("tree/c", x, policy.Allow, 302)
	f.judge("tree/c", w, policy.Deny, 301)

	// The same name elsewhere is another.
	f.mk("old/later")
	f.judge("old/later", w, policy.Deny, 11)
}

// TestFileAnchors: a node that says nothing of what may be done is passed by, with names and without.
func TestFileAnchors(t *testing.T) {
	f := newFileTest(t)
	f.mk("a/b/file", "a/b/named")
	f.rule("a/b", node{anchor: true, allow: rw, rule: [3]policy.RuleID{20, 21, 22}})
	f.rule("a/b/file", node{anchor: true, allow: rw})
	f.judge("a/b", w, policy.Deny, 11)
	f.judge("a/b/file", r, policy.Allow, 10)
	f.named("a/b/named", says(w, 30))
	f.judge("a/b/named", w, policy.Allow, 31)
	f.judge("a/b/file", w, policy.Deny, 11)
}

// TestFileViews: the rules of another sandbox, and of another revision, say nothing.
func TestFileViews(t *testing.T) {
	f := newFileTest(t)
	f.mk("file")
	f.named("file", says(rw, 20))
	next, other := view{mine.cgid, mine.revision + 1}, view{mine.cgid + 1, mine.revision}
	f.name(f, next, f.dir, "file", says(x, 30))
	fd := f.open("file")
	f.judgeAs(mine, "file", fd, rw, 0, ruling{policy.Allow, 20})
	f.judgeAs(next, "file", fd, rw|x, 0, ruling{policy.Deny, 30})
	f.judgeAs(next, "file", fd, x, 0, ruling{policy.Allow, 32})
	f.judgeAs(next, "the directory", f.open("."), r, 0, unruled)
	for _, v := range []view{other, {0, mine.revision}, {mine.cgid, 0}, {mine.cgid | 1<<32, mine.revision}, {}} {
		f.judgeAs(v, "file", fd, r, 0, unruled)
	}
}

// TestFileDepth: a rule is found up to 64 steps above a file, and farther away is none.
func TestFileDepth(t *testing.T) {
	f := newFileTest(t)
	path := "."
	for depth := 1; depth <= treeDepth+2; depth++ {
		path = filepath.Join(path, fmt.Sprint(depth))
		f.mk(path + "/")
		if depth <= treeDepth {
			f.judge(path, r, policy.Allow, 10)
		} else {
			f.judge(path, r, policy.Deny, 0)
		}
	}
	// A rule of a name is as far away as what has the name.
	f.named("1", says(w, 20))
	at := strings.Split(path, "/")
	f.judge(filepath.Join(at[:treeDepth]...), w, policy.Allow, 21)
	f.judge(filepath.Join(at[:treeDepth+1]...), w, policy.Deny, 0)
}
