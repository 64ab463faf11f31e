//go:build e2e

package loader

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/bpf"
	"github.com/nemoclaw/nemoclaw/policy"
)

// fileWorld is a tree of files with the rules of some views, and the reference that the decision is compared with: a
// second tree, in Go, in which a rule hangs on the file or on the name that it was given to. The reference goes down
// a path, not up, and looks into no map.
type fileWorld struct {
	testing.TB
	*fileJudge
	choose  func(n int) int // one of 0 to n-1
	root    *entry
	entries []*entry // with an open descriptor each
	put     map[any]bool
	seen    map[policy.Verdict]int
}

// entry is a file's name in a directory. One that is gone goes on where it was, for who has it open.
type entry struct {
	in   *entry // nil: the root
	name string
	file *file
	gone bool
	fd   int
}

type file struct {
	dir   bool
	place bpf.JudgeFilePlace
	rules map[view]*node
	names map[view]map[string]*node
}

var (
	worldViews = []view{{1, 1}, {1, 2}, {2, 1}}
	worldNames = []string{"a", "b", "c", "aa", longName, longName + "n", longName + "m"}
	longName   = strings.Repeat("n", nameRoom-1)
)

const (
	worldEntries = 160
	worldTimes   = 6
)

// newFileWorld begins with the directory of a descriptor, which the world closes.
func newFileWorld(t testing.TB, j *fileJudge, fd int, choose func(int) int) *fileWorld {
	f := &fileWorld{TB: t, fileJudge: j, choose: choose, put: map[any]bool{}, seen: map[policy.Verdict]int{}}
	f.root = &entry{fd: fd, file: f.newFile(fd, true)}
	f.entries = []*entry{f.root}
	for range 2 * len(worldViews) {
		f.rule(f.root.file) // else most would be denied for want of any rule
	}
	return f
}

// close forgets the rules and the descriptors.
func (f *fileWorld) close() {
	for key := range f.put {
		m := f.nodes
		if _, ok := key.(bpf.JudgeFileNameKey); ok {
			m = f.names
		}
		must(f, m.Delete(key))
	}
	for _, e := range f.entries {
		unix.Close(e.fd)
	}
}

func (f *fileWorld) newFile(fd int, dir bool) *file {
	return &file{dir: dir, place: f.places(f, view{}, fd)[0], rules: map[view]*node{}, names: map[view]map[string]*node{}}
}

// decideOnce compares the decision on some file with the reference's.
func (f *fileWorld) decideOnce() {
	e, v := f.some(), worldViews[f.choose(len(worldViews))]
	want, now := policy.Access(1+f.choose(7)), uint64(f.choose(worldTimes))
	fd := e.fd
	if !e.gone && e.in != nil && f.choose(16) == 0 {
		fd = openPath(f, e.in.fd, e.name) // the descriptor that is kept must not be what makes it right
		defer unix.Close(fd)
	}
	is := e.ruling(v, want, now)
	f.seen[is.verdict]++
	if got, _ := f.decide(f, v, fd, 1, want, now); got != is {
		f.Fatalf("%s of %s at %d in %+v: the program says %s, the reference %s\n%s", want, e, now, v, got, is, f)
	}
}

// ruling is the reference. Of all rules on the way down to e the last is in force, if it is not too far above e.
func (e *entry) ruling(v view, want policy.Access, now uint64) ruling {
	var inForce *node
	path := e.path()
	for i, at := range path {
		if at.in != nil && len(path)-i <= treeDepth { // steps to the directory that the name is in
			if n := at.in.file.names[v][at.name]; n != nil {
				inForce = n
			}
		}
		if n := at.file.rules[v]; n != nil && !n.anchor && len(path)-1-i <= treeDepth {
			inForce = n
		}
	}
	if inForce == nil {
		return unruled
	}
	return inForce.ruling(want, now)
}

// ruling is the worst of what n says of each access.
func (n *node) ruling(want policy.Access, now uint64) ruling {
	worst := ruling{verdict: policy.Allow + 1}
	for i, access := range []policy.Access{policy.Read, policy.Write, policy.Execute} {
		over := n.until != 0 && now >= n.until
		verdict := policy.Deny
		switch {
		case over && n.later&access != 0, !over && n.allow&access != 0:
			verdict = policy.Allow
		case !over && n.ask&access != 0:
			verdict = policy.Ask
		}
		if want&access != 0 && verdict < worst.verdict {
			worst = ruling{verdict, n.rule[i]}
		}
	}
	return worst
}

// path is e with all that it is in, the root first.
func (e *entry) path() []*entry {
	var path []*entry
	for ; e != nil; e = e.in {
		path = append(path, e)
	}
	slices.Reverse(path)
	return path
}

func (e *entry) String() string {
	var b strings.Builder
	for _, at := range e.path() {
		fmt.Fprintf(&b, "/%s", at.name)
		if at.gone {
			b.WriteString(" (gone)")
		}
	}
	return b.String()
}

// String lists the tree and its rules.
func (f *fileWorld) String() string {
	var b strings.Builder
	for _, e := range f.entries {
		fmt.Fprintf(&b, "%s: inode %d/%d", e, e.file.place.Ino, e.file.place.Gen)
		for v, n := range e.file.rules {
			fmt.Fprintf(&b, "; in %v %+v", v, *n)
		}
		for v, names := range e.file.names {
			for name, n := range names {
				fmt.Fprintf(&b, "; in %v %s: %+v", v, name, *n)
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}

// some is any entry, and every third time the last, so that trees become deep.
func (f *fileWorld) some() *entry {
	if f.choose(3) == 0 {
		return f.entries[len(f.entries)-1]
	}
	return f.entries[f.choose(len(f.entries))]
}

func (f *fileWorld) someName() string { return worldNames[f.choose(len(worldNames))] }

// at returns what has a name in a directory now, or nil.
func (f *fileWorld) at(dir *entry, name string) *entry {
	for _, e := range f.entries {
		if e.in == dir && e.name == name && !e.gone {
			return e
		}
	}
	return nil
}

// step changes something, or tries to.
func (f *fileWorld) step() {
	e := f.some()
	switch f.choose(16) {
	case 0, 1:
		f.make(e, f.someName(), true)
	case 2, 3:
		f.make(e, f.someName(), false)
	case 4:
		if f.choose(8) == 0 {
			for range f.choose(80) {
				f.make(f.entries[len(f.entries)-1], f.someName(), true)
			}
		}
	case 5:
		f.link(e, f.some(), f.someName())
	case 6:
		f.rename(e, f.some(), f.someName(), 0)
	case 7:
		f.rename(e, f.some(), f.someName(), unix.RENAME_EXCHANGE)
	case 8:
		f.remove(e)
	case 9:
		f.forget(e)
	default:
		f.rule(e.file)
	}
}

// failed reports whether a change did not happen; why, must be among the reasons that a full or an odd tree gives.
func (f *fileWorld) failed(what string, err error) bool {
	f.Helper()
	if err == nil {
		return false
	}
	for _, expected := range []error{unix.EEXIST, unix.ENOTEMPTY, unix.EINVAL, unix.EISDIR, unix.ENOTDIR, unix.ENOENT, unix.EBUSY} {
		if errors.Is(err, expected) {
			return true
		}
	}
	f.Fatalf("%s: %v", what, err)
	return true
}

func (f *fileWorld) make(in *entry, name string, dir bool) {
	if len(f.entries) >= worldEntries || !in.file.dir {
		return
	}
	var err error
	if dir {
		err = unix.Mkdirat(in.fd, name, 0o755)
	} else {
		err = unix.Mknodat(in.fd, name, unix.S_IFREG|0o644, 0)
	}
	if f.failed("make", err) {
		return
	}
	fd := openPath(f, in.fd, name)
	f.entries = append(f.entries, &entry{in: in, name: name, fd: fd, file: f.newFile(fd, dir)})
}

func (f *fileWorld) link(e, in *entry, name string) {
	if len(f.entries) >= worldEntries || !in.file.dir || e.file.dir || e.gone {
		return
	}
	if f.failed("link", unix.Linkat(e.in.fd, e.name, in.fd, name, 0)) {
		return
	}
	f.entries = append(f.entries, &entry{in: in, name: name, fd: openPath(f, in.fd, name), file: e.file})
}

func (f *fileWorld) rename(e, in *entry, name string, flags uint) {
	if e == f.root || e.gone || !in.file.dir {
		return
	}
	if f.failed("rename", unix.Renameat2(e.in.fd, e.name, in.fd, name, flags)) {
		return
	}
	target := f.at(in, name)
	switch {
	case target != nil && target.file == e.file: // nothing happens
	case target != nil && flags == unix.RENAME_EXCHANGE:
		e.in, e.name, target.in, target.name = target.in, target.name, e.in, e.name
	default:
		if target != nil {
			target.gone = true
		}
		e.in, e.name = in, name
	}
}

func (f *fileWorld) remove(e *entry) {
	if e == f.root || e.gone {
		return
	}
	flags := 0
	if e.file.dir {
		flags = unix.AT_REMOVEDIR
	}
	if !f.failed("remove", unix.Unlinkat(e.in.fd, e.name, flags)) {
		e.gone = true
	}
}

// forget closes what is gone, so that the file system may give its number again; its rules stay.
func (f *fileWorld) forget(e *entry) {
	if !e.gone || slices.ContainsFunc(f.entries, func(other *entry) bool { return other.in == e }) {
		return
	}
	unix.Close(e.fd)
	f.entries = slices.DeleteFunc(f.entries, func(other *entry) bool { return other == e })
}

// rule gives a file or a name of a directory a rule in some view, or takes it away.
func (f *fileWorld) rule(file *file) {
	v := worldViews[f.choose(len(worldViews))]
	n := &node{
		allow: policy.Access(f.choose(8)), ask: policy.Access(f.choose(8)), later: policy.Access(f.choose(8)),
		until: uint64(f.choose(worldTimes)), anchor: f.choose(6) == 0,
	}
	for i := range n.rule {
		n.rule[i] = policy.RuleID(1 + f.choose(200))
	}
	if f.choose(5) == 0 {
		n = nil
	}
	place := file.place
	place.Cgid, place.Revision = v.cgid, v.revision
	if !file.dir || f.choose(2) == 0 {
		file.rules[v] = n
	} else {
		f.ruleName(file, v, nameKey(f, place, worldNames[f.choose(5)]), n)
	}

	var value bpf.JudgeFileNode
	if n := file.rules[v]; n != nil {
		value = n.value()
	}
	if len(file.names[v]) > 0 {
		value.Flags |= nodeNames
	}
	f.node(f, place, value)
	f.put[place] = true
}

func (f *fileWorld) ruleName(file *file, v view, key bpf.JudgeFileNameKey, n *node) {
	name := unix.ByteSliceToString(key.Name[:])
	if n == nil {
		if file.names[v][name] != nil {
			must(f, f.names.Delete(key))
			delete(f.put, key)
			delete(file.names[v], name)
		}
		return
	}
	if file.names[v] == nil {
		file.names[v] = map[string]*node{}
	}
	named := *n
	named.anchor = false
	file.names[v][name] = &named
	must(f, f.names.Put(key, named.value()))
	f.put[key] = true
}
