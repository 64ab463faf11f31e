//go:build e2e && lsm

package loader

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/policy"
)

// fileBox is a sandbox whose files are judged: a victim, and a tree that only it uses.
type fileBox struct {
	*box
	*victim
	l    *Loader
	dir  string
	keep []*os.File
}

// What the rules of newFileBox are numbered by.
const (
	ruleRead policy.RuleID = 1 + iota
	ruleWrite
	ruleSecret
	ruleProgram
)

func (b *fileBox) id(t testing.TB, path string) FileID {
	t.Helper()
	f, err := os.OpenFile(path, unix.O_PATH|unix.O_NOFOLLOW, 0)
	must(t, err)
	b.keep = append(b.keep, f)
	t.Cleanup(func() { f.Close() })
	id, err := b.l.Identify(int(f.Fd()))
	must(t, err)
	return id
}

// node makes a node of a path below the tree.
func (b *fileBox) node(t testing.TB, path string, allow policy.Access, rule policy.RuleID) FileNode {
	t.Helper()
	if allow&policy.Read != 0 {
		allow |= List
	}
	return FileNode{File: b.id(t, filepath.Join(b.dir, path)), Allow: allow, Rules: [3]policy.RuleID{rule, rule, rule}}
}

// lsmLoader is the common loader, with LSM programs.
func lsmLoader(t *testing.T) *Loader {
	t.Helper()
	l := commonLoader(t)
	if l.maps.nodes == nil {
		t.Fatal("no LSM programs are loaded: ", l.LevelReason())
	}
	return l
}

// newFileBox makes a tree on the disk, its rules and a victim inside:
//
//	ro/     may be read           file, dir/sub, link -> file, prog
//	rw/     may be written too    file, other, dir/sub, full/.secret (denied by name and inode), full/new (denied, does not exist)
//	none/   has no rule but that the root may be listed
//	prog/   may be executed
func newFileBox(t *testing.T) *fileBox {
	t.Helper()
	l := lsmLoader(t)
	b := &fileBox{box: newBox(t, l, Options{}), l: l}
	var err error
	b.dir, err = os.MkdirTemp("/var/tmp", "nemoclaw-lsm-")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(b.dir)) })
	for _, d := range []string{"ro/dir", "ro/empty", "rw/dir", "rw/full", "rw/empty", "none/dir", "prog"} {
		must(t, os.MkdirAll(filepath.Join(b.dir, d), 0o755))
	}
	for _, f := range []string{"ro/file", "ro/dir/sub", "rw/file", "rw/other", "rw/dir/sub", "rw/full/.secret", "none/file", "none/dir/sub"} {
		must(t, os.WriteFile(filepath.Join(b.dir, f), []byte(strings.Repeat(f, 300)), 0o644))
	}
	must(t, os.Symlink("file", filepath.Join(b.dir, "ro/link")))
	for _, to := range []string{"prog/true", "ro/prog", "rw/prog"} {
		data, err := os.ReadFile("/bin/true")
		must(t, err)
		must(t, os.WriteFile(filepath.Join(b.dir, to), data, 0o755))
	}
	must(t, b.SetExec([]ExecEntry{{File: self(t, l), Quiet: true}}))
	b.victim = startVictim(t, newNet(t), b.box.dir)
	must(t, b.SetFiles(b.rules(t)))
	return b
}

func (b *fileBox) rules(t *testing.T) []FileNode {
	t.Helper()
	root := FileNode{File: b.id(t, "/"), Allow: List, Mount: true}
	nodes := []FileNode{root,
		b.node(t, "ro", policy.Read, ruleRead),
		b.node(t, "rw", policy.Read|policy.Write, ruleWrite),
		b.node(t, "prog", policy.Read|policy.Execute|Map, ruleProgram),
	}
	secret := b.node(t, "rw/full/.secret", 0, ruleSecret)
	byName := b.node(t, "rw/full", 0, ruleSecret)
	byName.Name = ".secret"
	missing := byName
	missing.Name = "new"
	anchor := FileNode{File: b.id(t, filepath.Join(b.dir, "rw/full")), Anchor: true}
	nodes = append(nodes, secret, byName, missing, anchor)
	for _, system := range []string{"/usr", "/lib", "/lib64", "/bin", "/etc", "/dev", "/proc"} {
		if at, err := filepath.EvalSymlinks(system); err == nil {
			n := FileNode{File: b.id(t, at), Allow: policy.Read | List | Map, Mount: at == "/proc" || at == "/dev", Rules: [3]policy.RuleID{ruleRead, ruleRead, ruleRead}}
			if at == "/dev" {
				n.Allow |= policy.Write
			}
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// take returns the events of files since the last call.
func (b *fileBox) take() []Event {
	b.Drain()
	b.mu.Lock()
	defer b.mu.Unlock()
	all := b.events
	b.events = nil
	// The Go runtime of a victim looks at a setting of the machine, at any time.
	return slices.DeleteFunc(all, func(e Event) bool {
		return e.Hook != HookFile || strings.Contains(e.File.Below, "transparent_hugepage")
	})
}

// TestFileHooks tries every operation where it is allowed and where it is not. What is refused gives the errno, and one event that names the
// operation, the path, the rule and the program.
func TestFileHooks(t *testing.T) {
	b := newFileBox(t)
	d := b.dir + "/"
	rel := strings.TrimPrefix(d, "/")
	const gone = "" // nothing is recorded
	for _, c := range []struct {
		try, want string
		op        FileOp
		path      string // below the root's mount; "": no event
		rule      policy.RuleID
	}{
		{"read ro/file", "ok", 0, gone, 0},
		{"read rw/file", "ok", 0, gone, 0},
		{"read none/file", "EACCES", OpOpen, "none/file", 0},
		{"read ro/link", "ok", 0, gone, 0},
		{"read rw/full/.secret", "EACCES", OpOpen, "rw/full/.secret", ruleSecret},
		{"write ro/file", "EACCES", OpOpen, "ro/file", ruleRead},
		{"write rw/file", "ok", 0, gone, 0},
		{"readwrite ro/file", "EACCES", OpOpen, "ro/file", ruleRead},
		{"readwrite rw/file", "ok", 0, gone, 0},
		{"append ro/file", "EACCES", OpOpen, "ro/file", ruleRead},
		{"trunc ro/file", "EACCES", OpOpen, "ro/file", ruleRead},
		{"trunc rw/other", "ok", 0, gone, 0},
		{"creat ro/made", "EACCES", OpCreate, "ro/made", ruleRead},
		{"creat rw/made", "ok", 0, gone, 0},
		{"creat none/made", "EACCES", OpCreate, "none/made", 0},
		{"creat rw/full/new", "EACCES", OpCreate, "rw/full/new", ruleSecret},
		{"creat rw/full/newer", "ok", 0, gone, 0},
		{"path none/file", "ok", 0, gone, 0}, // gives nothing: see the next
		{"reopen none/file", "EACCES", OpOpen, "none/file", 0},
		{"reopen ro/file", "ok", 0, gone, 0},
		{"reopen-write ro/file", "EACCES", OpOpen, "ro/file", ruleRead},
		{"tmpfile ro", "EACCES", OpOpen, "ro/#", ruleRead},
		{"tmpfile rw", "ok", 0, gone, 0},
		{"list ro", "ok", 0, gone, 0},
		{"list none", "ok", 0, gone, 0}, // the root may be listed, and no nearer rule says otherwise
		{"stat none/file", "ok", 0, gone, 0},
		{"access none/file", "ok", 0, gone, 0},
		{"readlink ro/link", "ok", 0, gone, 0},
		{"chdir none", "ok", 0, gone, 0},
		{"truncate ro/file", "EACCES", OpTruncate, "ro/file", ruleRead},
		{"truncate rw/other", "ok", 0, gone, 0},
		{"ftruncate ro/file", "EACCES", OpOpen, "ro/file", ruleRead}, // with a descriptor from before: TestFileKept
		{"ftruncate rw/other", "ok", 0, gone, 0},
		{"chmod ro/file", "EACCES", OpAttributes, "ro/file", ruleRead},
		{"chmod rw/file", "ok", 0, gone, 0},
		{"fchmod ro/file", "EACCES", OpAttributes, "ro/file", ruleRead},
		{"chown ro/file", "EACCES", OpAttributes, "ro/file", ruleRead},
		{"chown rw/file", "ok", 0, gone, 0},
		{"utimes ro/file", "EACCES", OpAttributes, "ro/file", ruleRead},
		{"utimes rw/file", "ok", 0, gone, 0},
		{"setxattr ro/file", "EACCES", OpAttributes, "ro/file", ruleRead},
		{"setxattr rw/file", "ok", 0, gone, 0},
		{"removexattr ro/file", "EACCES", OpAttributes, "ro/file", ruleRead},
		{"removexattr rw/file", "ok", 0, gone, 0},
		{"setacl ro/file", "EACCES", OpAttributes, "ro/file", ruleRead},
		{"setacl rw/file", "ok", 0, gone, 0},
		{"removeacl ro/file", "EACCES", OpAttributes, "ro/file", ruleRead},
		{"removeacl rw/file", "ok", 0, gone, 0},
		{"setflags ro/file", "EACCES", OpControl, "ro/file", ruleRead},
		{"setflags rw/file", "ok", 0, gone, 0},
		{"mkdir ro/d", "EACCES", OpCreate, "ro/d", ruleRead},
		{"mkdir rw/d", "ok", 0, gone, 0},
		{"rmdir rw/d", "ok", 0, gone, 0},
		{"rmdir ro/empty", "EACCES", OpRemove, "ro/empty", ruleRead},
		{"mkfifo ro/p", "EACCES", OpCreate, "ro/p", ruleRead},
		{"mkfifo rw/p", "ok", 0, gone, 0},
		{"symlink ro/s x", "EACCES", OpCreate, "ro/s", ruleRead},
		{"symlink rw/s x", "ok", 0, gone, 0},
		{"unlink rw/s", "ok", 0, gone, 0},
		{"unlink ro/file", "EACCES", OpRemove, "ro/file", ruleRead},
		{"unlink rw/full/.secret", "EACCES", OpRemove, "rw/full/.secret", ruleSecret},
		{"link ro/file rw/linked", "EXDEV", OpLink, "ro/file", RuleBuiltin}, // it could be written there
		{"link rw/file ro/linked", "EACCES", OpLink, "ro/linked", ruleRead},
		{"link rw/file rw/dir/linked", "ok", 0, gone, 0},
		{"link-fd ro/file rw/linked", "EXDEV", OpLink, "ro/file", RuleBuiltin},
		{"link-fd rw/file ro/linked", "EACCES", OpLink, "ro/linked", ruleRead},
		{"link-fd rw/file rw/dir/linked-fd", "ok", 0, gone, 0},
		{"rename rw/made rw/dir/made", "ok", 0, gone, 0},
		{"rename ro/file rw/f", "EACCES", OpRename, "ro/file", ruleRead},
		{"rename rw/dir/made ro/f", "EACCES", OpRename, "ro/f", ruleRead},
		{"rename rw/dir/made rw/full/new", "EACCES", OpRename, "rw/full/new", ruleSecret},
		{"rename rw/dir/made rw/full/.secret", "EACCES", OpRename, "rw/full/.secret", ruleSecret},
		{"rename rw/full rw/empty/full", "EACCES", OpRename, "rw/full", RuleBuiltin},
		{"exchange rw/full rw/empty", "EACCES", OpRename, "rw/full", RuleBuiltin},
		{"exchange rw/empty rw/full", "EACCES", OpRename, "rw/full", RuleBuiltin},
		{"exchange rw/dir/made ro/file", "EACCES", OpRename, "ro/file", ruleRead},
		{"exchange rw/dir/made rw/other", "ok", 0, gone, 0},
		{"map none/file", "EACCES", OpOpen, "none/file", 0},
		{"map ro/file", "ok", 0, gone, 0},
		{"protect ro/file", "ok", 0, gone, 0},
		{"map-memory ro/file", "ok", 0, gone, 0},
		{"watch ro/file", "EACCES", OpWatch, "ro/file", ruleRead},
		{"watch rw/file", "ok", 0, gone, 0},
		{"flock ro/file", "EACCES", OpLock, "ro/file", ruleRead},
		{"flock-shared ro/file", "ok", 0, gone, 0},
		{"flock rw/file", "ok", 0, gone, 0},
		{"chroot rw", "EPERM", OpRoot, "rw", RuleBuiltin},
		{"handle none/file", "EACCES", OpOpen, "none/file", 0},
		{"handle ro/file", "ok", 0, gone, 0},
		{"bind ro/socket", "EACCES", OpCreate, "ro/socket", ruleRead},
		{"bind rw/socket", "ok", 0, gone, 0},
		{"readwrite /proc/2/mem", "EACCES", OpOpen, "/2/mem", ruleRead}, // a thread of the kernel's
		{"uring none/file", "EACCES", OpOpen, "none/file", 0},
		{"uring ro/file", "ok", 0, gone, 0},
	} {
		f := strings.Fields(c.try)
		for i := 1; i < len(f) && f[i] != "x" && f[i][0] != '/'; i++ {
			f[i] = d + f[i]
		}
		b.take()
		b.wants(c.want, "file %s", strings.Join(f, " "))
		events := b.take()
		switch {
		case c.path == gone && len(events) == 0:
		case c.path == gone || len(events) != 1:
			t.Errorf("%s: %d events: %+v", c.try, len(events), events)
		default:
			e := events[0]
			path := e.File.Below
			if strings.HasSuffix(c.path, "#") { // a file without a name
				path, _, _ = strings.Cut(path, "#")
				path += "#"
			}
			want, below := strings.CutPrefix(c.path, "/") // of another mount
			if !below {
				want = rel + c.path
			}
			if e.File.Op != c.op || path != want || e.Rule != c.rule || e.Verdict != policy.Deny || e.Args != b.args || e.PID != b.cmd.Process.Pid {
				t.Errorf("%s: the event says %s of %q by rule %d (%s), %q, process %d", c.try, e.File.Op, e.File.Below, e.Rule, e.Reason, e.Args, e.PID)
			}
		}
	}
}

// TestFileRulesChange: rules change while the sandbox runs, expire by the kernel's clock, and hold for what takes a name later.
func TestFileRulesChange(t *testing.T) {
	b := newFileBox(t)
	d := b.dir + "/"
	b.wants("EACCES", "file read %snone/file", d)
	with := func(more ...FileNode) {
		t.Helper()
		must(t, b.SetFiles(append(b.rules(t), more...)))
	}
	with(b.node(t, "none", policy.Read, ruleRead))
	b.wants("ok", "file read %snone/file", d)
	with()
	b.wants("EACCES", "file read %snone/file", d)
	soon := b.node(t, "none", policy.Read, ruleRead)
	soon.Until = time.Now().Add(500 * time.Millisecond)
	with(soon)
	b.wants("ok", "file read %snone/file", d)
	time.Sleep(time.Until(soon.Until) + 100*time.Millisecond)
	b.wants("EACCES", "file read %snone/file", d)

	// The host puts another file in the place of a denied one, and makes one that was not there.
	must(t, os.WriteFile(d+"rw/full/fresh", []byte("fresh"), 0o644))
	must(t, os.Rename(d+"rw/full/fresh", d+"rw/full/.secret"))
	must(t, os.WriteFile(d+"rw/full/new", []byte("new"), 0o644))
	b.wants("EACCES", "file read %srw/full/.secret", d)
	b.wants("EACCES", "file read %srw/full/new", d)
	// The one that it moved away is still the one that the rule was for.
	must(t, os.Rename(d+"ro/dir", d+"rw/moved"))
	b.wants("ok", "file write %srw/moved/sub", d)
}

// TestFileSwap: while rules are exchanged hundreds of times, what both allow is never refused, and what neither allows never allowed.
func TestFileSwap(t *testing.T) {
	opens, least := 1_002_000, 500
	if testing.Short() {
		opens, least = 150_000, 50
	}
	b := newFileBox(t)
	d := b.dir + "/"
	both := [2][]FileNode{b.rules(t), append(b.rules(t), b.node(t, "none", policy.Read, ruleRead))}
	stop := make(chan struct{})
	done := make(chan error)
	swaps := 0
	go func() {
		for ; ; swaps++ {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			if err := b.SetFiles(both[swaps%2]); err != nil {
				done <- err
				return
			}
		}
	}()
	b.wants("ok", "opens %d %sro/file ok %srw/full/.secret EACCES %snone/file either", opens/3, d, d, d)
	close(stop)
	must(t, <-done)
	t.Logf("%d swaps during %d opens", swaps, opens)
	if swaps < least {
		t.Errorf("%d swaps", swaps)
	}
}

// TestFileFlood: a million names that are all refused are all counted, and cost the agent no memory.
func TestFileFlood(t *testing.T) {
	names := 1_000_000
	if testing.Short() {
		names /= 10
	}
	b := newFileBox(t)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	delivered := 0
	done := b.start("creates %d %s/ro/new EACCES", names, b.dir)
	for answer := ""; answer == ""; {
		select {
		case answer = <-done:
			if answer != "ok" {
				t.Error(answer)
			}
		case <-time.After(100 * time.Millisecond):
		}
		delivered += len(b.box.take())
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	c, err := b.Counters()
	must(t, err)
	grown := int64(after.HeapAlloc) - int64(before.HeapAlloc)
	t.Logf("%d delivered, %d lost, %d suppressed; the heap is %d KiB larger", delivered, c.Lost, c.Suppressed, grown>>10)
	if n := c.Of(HookFile, policy.Deny); n != uint64(names) {
		t.Errorf("%d refusals counted, want %d", n, names)
	}
	if uint64(delivered)+c.Lost+c.Suppressed != uint64(names) {
		t.Errorf("%d delivered, %d lost, %d suppressed: together not %d", delivered, c.Lost, c.Suppressed, names)
	}
	if c.Of(HookFile, policy.Allow) != 0 {
		t.Error("a name was allowed")
	}
	if grown > 4<<20 {
		t.Errorf("the heap has grown by %d bytes", grown)
	}
}
