//go:build e2e

package loader

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/bpf"
	"github.com/nemoclaw/nemoclaw/policy"
)

// fileJudge is the decision of bpf/files.h, in a program and maps of its own.
type fileJudge struct {
	l                           *Loader
	program                     *ebpf.Program
	anchors, nodes, names, last *ebpf.Map
	query                       *fileQuery // not on a stack, which may move
	still                       bool       // the program knows the kernel's rename_lock
}

// fileQuery is the context of the program judge in judgefile.c.
type fileQuery struct {
	fd, times uint64
	bpf.JudgeFileFileQuery
}

// view is whose rules are meant: those of a revision of a sandbox.
type view struct {
	cgid     uint64
	revision uint32
}

// mine is the view of tests that need but one.
var mine = view{cgid: 7, revision: 1}

// node is what a rule says, in Go.
type node struct {
	allow, ask, later policy.Access
	until             uint64
	rule              [3]policy.RuleID
	anchor            bool // says nothing of what may be done
}

// says is a node whose three rules are rule, rule+1 and rule+2.
func says(allow policy.Access, rule policy.RuleID) node {
	return node{allow: allow, rule: [3]policy.RuleID{rule, rule + 1, rule + 2}}
}

func (n node) value() bpf.JudgeFileNode {
	v := bpf.JudgeFileNode{Until: n.until, Allow: uint8(n.allow), Ask: uint8(n.ask), Later: uint8(n.later), Flags: nodeRules}
	for i, r := range n.rule {
		v.Rule[i] = uint32(r)
	}
	if n.anchor {
		v.Flags = 0
	}
	return v
}

// enum in bpf/abi.h.
const (
	nameRoom  = len(bpf.JudgeFileNameKey{}.Name)
	treeDepth = 64
)

// loadFileJudge loads the decision core.
func loadFileJudge(t testing.TB, l *Loader) *fileJudge {
	t.Helper()
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(bpf.JudgeFileObject()))
	must(t, err)
	for name := range spec.Maps {
		switch name {
		case bpf.JudgeFileMapAnchors, bpf.JudgeFileMapNodes, bpf.JudgeFileMapNames, bpf.JudgeFileMapLast, ".rodata":
		default:
			delete(spec.Maps, name) // of the network's decision
		}
	}
	lock := renameLock(t)
	must(t, spec.Variables[bpf.JudgeFileVarRenameLock].Set(lock))
	objects, err := ebpf.NewCollection(spec)
	must(t, err)
	t.Cleanup(objects.Close)
	return &fileJudge{
		l: l, program: objects.Programs[bpf.JudgeFileProgJudge], query: new(fileQuery), still: lock != 0,
		anchors: objects.Maps[bpf.JudgeFileMapAnchors],
		nodes:   objects.Maps[bpf.JudgeFileMapNodes], names: objects.Maps[bpf.JudgeFileMapNames], last: objects.Maps[bpf.JudgeFileMapLast],
	}
}

// renameLock returns the address of the kernel's rename_lock, and 0 where the kernel does not list it: one without
// CONFIG_KALLSYMS_ALL lists functions only.
func renameLock(t testing.TB) uint64 {
	t.Helper()
	f, err := os.Open("/proc/kallsyms")
	must(t, err)
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if addr, ok := strings.CutSuffix(lines.Text(), " rename_lock"); ok {
			n, err := strconv.ParseUint(strings.Fields(addr)[0], 16, 64)
			must(t, err)
			return n
		}
	}
	must(t, lines.Err())
	return 0
}

// places returns whose rules' places the files of these descriptors are.
func (j *fileJudge) places(t testing.TB, v view, fds ...int) []bpf.JudgeFilePlace {
	t.Helper()
	ids, err := j.l.IdentifyAll(fds)
	must(t, err)
	var out []bpf.JudgeFilePlace
	for _, id := range ids {
		out = append(out, bpf.JudgeFilePlace{Cgid: v.cgid, Ino: id.Ino, Dev: id.Dev, Gen: id.Gen, Revision: v.revision})
	}
	return out
}

// put gives the file behind a path a rule; what its names say stays.
func (j *fileJudge) put(t testing.TB, v view, path string, n node) {
	t.Helper()
	key, value := j.placeOf(t, v, path), n.value()
	var old bpf.JudgeFileNode
	if j.nodes.Lookup(key, &old) == nil {
		value.Flags |= old.Flags & nodeNames
	}
	j.node(t, key, value)
}

func (j *fileJudge) node(t testing.TB, key bpf.JudgeFilePlace, value bpf.JudgeFileNode) {
	t.Helper()
	must(t, j.anchors.Put(bpf.Anchor(key.Ino, key.Dev), uint8(1)))
	must(t, j.nodes.Put(key, value))
}

// name gives a name in a directory a rule, as the loader will: the directory's node says that it has such names.
func (j *fileJudge) name(t testing.TB, v view, dir, name string, n node) {
	t.Helper()
	key := j.placeOf(t, v, dir)
	var value bpf.JudgeFileNode
	_ = j.nodes.Lookup(key, &value) // none is one that says nothing
	value.Flags |= nodeNames
	j.node(t, key, value)
	must(t, j.names.Put(nameKey(t, key, name), n.value()))
}

func nameKey(t testing.TB, dir bpf.JudgeFilePlace, name string) bpf.JudgeFileNameKey {
	t.Helper()
	key := bpf.JudgeFileNameKey{Dir: dir}
	if copy(key.Name[:nameRoom-1], name) != len(name) {
		t.Fatalf("no rule can be given to a name of %d bytes", len(name))
	}
	return key
}

func (j *fileJudge) placeOf(t testing.TB, v view, path string) bpf.JudgeFilePlace {
	t.Helper()
	fd := openPath(t, unix.AT_FDCWD, path)
	defer unix.Close(fd)
	return j.places(t, v, fd)[0]
}

// openPath opens what is at a path, a symbolic link too, for nothing but to be named.
func openPath(t testing.TB, dir int, path string) int {
	t.Helper()
	fd, err := unix.Openat(dir, path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("open %s: %v", path, err)
	}
	return fd
}

// decide judges the file behind a descriptor as often as it is told, and returns the time of that in nanoseconds, too.
func (j *fileJudge) decide(t testing.TB, v view, fd, times int, want policy.Access, now uint64) (ruling, uint64) {
	q, zero := j.query, uint32(0)
	*q = fileQuery{fd: uint64(fd), times: uint64(times)}
	q.Place.Cgid, q.Place.Revision, q.Now, q.Want = v.cgid, v.revision, now, uint32(want)
	if err := testRun(j.program.FD(), unsafe.Pointer(q), unsafe.Sizeof(*q)); err != nil {
		t.Fatalf("run the decision: %v", err)
	}
	var out bpf.JudgeFileJudgedFile
	must(t, j.last.Lookup(&zero, &out))
	return ruling{policy.Verdict(out.Answer.Verdict), policy.RuleID(out.Answer.Rule)}, out.Ns
}

// ruling is a verdict and the rule that gave it.
type ruling struct {
	verdict policy.Verdict
	rule    policy.RuleID
}

func (r ruling) String() string { return fmt.Sprintf("%s by rule %d", r.verdict, r.rule) }

var unruled = ruling{policy.Deny, 0}
