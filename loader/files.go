package loader

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/bpf"
	"github.com/nemoclaw/nemoclaw/policy"
)

// List is the right to list a directory, which reading it includes. No rule of a policy gives it alone: the directories
// that lead to what a sandbox sees have it.
const List policy.Access = 8

// Map is the right to map a file to execute what is in it, which reading it includes unless Options.Listed says otherwise.
const Map policy.Access = 16

// NameMax is how long a name may be that has a rule of its own, in bytes.
const NameMax = len(bpf.LsmNameKey{}.Name) - 1

// FileNode says what a sandbox may do with a file, or with a directory and all that is below it and has no nearer node.
type FileNode struct {
	File FileID // the file or directory; where Name is not empty, the directory that the name is in
	Name string // whatever has this name, now or later

	Anchor bool          // nothing is said of what may be done: only that the directory can't be moved, since a node is below it
	Allow  policy.Access // also List and Map
	Ask    policy.Access // of what is not allowed
	Until  time.Time     // zero: for ever. From then on Later is what is allowed, and nothing is asked
	Later  policy.Access
	Rules  [3]policy.RuleID // what decides on reading (and listing), writing, executing

	Mount  bool // the root of a mount of the view: records name files from there
	Socket bool // a unix socket of the host that may be connected to
	Named  bool // a node of its name says the same: who may write it may remove or replace it
}

// The flags of struct node, as in bpf/abi.h.
const (
	nodeRules = 1 << iota
	nodeNames
	nodeMount
	nodeNamed
	nodeSocket
)

// fileSet is one revision of a sandbox's file rules in the kernel.
type fileSet struct {
	revision uint32
	nodes    map[bpf.LsmPlace]struct{}
	names    map[bpf.LsmNameKey]struct{}
}

func newFileSet(revision uint32) *fileSet {
	return &fileSet{revision: revision, nodes: map[bpf.LsmPlace]struct{}{}, names: map[bpf.LsmNameKey]struct{}{}}
}

func (g *Guard) place(f FileID, revision uint32) bpf.LsmPlace {
	return bpf.LsmPlace{Cgid: g.cgid, Ino: f.Ino, Dev: f.Dev, Gen: f.Gen, Revision: revision}
}

// SetFiles puts file rules into force, in one step: an operation is judged by the old ones or by the new ones. From the
// first call on, what leads to no node is denied. It needs level full; on error the old rules stay.
func (g *Guard) SetFiles(list []FileNode) error {
	if g.l.maps.nodes == nil {
		return errors.New("put file rules into the kernel: this needs BPF LSM: " + g.l.LevelReason())
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return errClosed
	}
	old := g.files
	next := *newFileSet(old.revision + 1)
	nodes, names, err := g.compileFiles(next.revision, list)
	if err != nil {
		return err
	}
	for k := range nodes {
		next.nodes[k] = struct{}{}
	}
	for k := range names {
		next.names[k] = struct{}{}
	}
	m := &g.l.maps
	anchors := make(map[uint32]uint8, len(nodes))
	for k := range nodes {
		anchors[bpf.Anchor(k.Ino, k.Dev)] = 1
	}
	// A node whose anchor is missing would not be found, and a rule above it would decide.
	if err := putAll(m.anchors, anchors); err != nil {
		return putError("the anchors of the file rules", err)
	}
	if err := errors.Join(putAll(m.nodes, nodes), putAll(m.names, names)); err != nil {
		return errors.Join(putError("the file rules", err), g.removeFiles(next))
	}
	g.sandbox.Files = next.revision
	if err := g.update(); err != nil {
		g.sandbox.Files = old.revision
		return errors.Join(err, g.removeFiles(next))
	}
	g.files = next
	if old.revision == 0 {
		return nil
	}
	// As Swap: no operation in progress may lose the rules that it is judged by.
	if _, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, membarrierGlobal, 0, 0); errno != 0 {
		return fmt.Errorf("wait until nothing is judged by the old file rules: %w", errno)
	}
	return g.removeFiles(old)
}

// compileFiles turns nodes into entries. Two of the same inode or name are weighed against each other: less is allowed.
func (g *Guard) compileFiles(revision uint32, list []FileNode) (map[bpf.LsmPlace]bpf.LsmNode, map[bpf.LsmNameKey]bpf.LsmNode, error) {
	nodes := make(map[bpf.LsmPlace]bpf.LsmNode, len(list))
	names := make(map[bpf.LsmNameKey]bpf.LsmNode)
	for _, n := range list {
		if n.File.IsZero() {
			return nil, nil, errors.New("put a file rule into the kernel: its file has no identity: call Identify on an open descriptor of it")
		}
		at := g.place(n.File, revision)
		if n.Name == "" {
			nodes[at] = weigh(nodes[at], n.entry())
			continue
		}
		if len(n.Name) > NameMax {
			return nil, nil, fmt.Errorf("put a file rule into the kernel: the name %q is longer than %d bytes", n.Name, NameMax)
		}
		key := bpf.LsmNameKey{Dir: at}
		copy(key.Name[:], n.Name)
		names[key] = weigh(names[key], n.entry())
		dir := nodes[at]
		dir.Flags |= nodeNames
		nodes[at] = dir
	}
	return nodes, names, nil
}

func (n *FileNode) entry() bpf.LsmNode {
	e := bpf.LsmNode{Until: deadline(n.Until), Allow: uint8(n.Allow), Ask: uint8(n.Ask &^ n.Allow), Later: uint8(n.Later)}
	if e.Until == 0 {
		e.Later = e.Allow
	}
	for i, r := range n.Rules {
		e.Rule[i] = uint32(r)
	}
	if !n.Anchor {
		e.Flags |= nodeRules
	}
	if n.Mount {
		e.Flags |= nodeMount
	}
	if n.Named {
		e.Flags |= nodeNamed
	}
	if n.Socket {
		e.Flags |= nodeSocket
	}
	return e
}

// weigh combines two entries of one inode or name: the more severe verdict stays.
func weigh(a, b bpf.LsmNode) bpf.LsmNode {
	flags := a.Flags | b.Flags
	switch {
	case a.Flags&nodeRules == 0:
		a = b
	case b.Flags&nodeRules != 0:
		for i := range a.Rule {
			bit := uint8(1) << i
			if a.Allow&bit > b.Allow&bit || a.Allow&bit == b.Allow&bit && a.Ask&bit > b.Ask&bit {
				a.Rule[i] = b.Rule[i]
			}
		}
		a.Ask = (a.Allow | a.Ask) & (b.Allow | b.Ask) &^ (a.Allow & b.Allow)
		a.Allow &= b.Allow
		a.Later &= b.Later
		if a.Until == 0 || b.Until != 0 && b.Until < a.Until {
			a.Until = b.Until
		}
	}
	a.Flags = flags
	return a
}

func (g *Guard) removeFiles(s fileSet) error {
	m := &g.l.maps
	if m.nodes == nil {
		return nil
	}
	return errors.Join(removeAll(m.nodes, s.nodes), removeAll(m.names, s.names))
}

// removeAsked removes the grants on files, and the entries of calls that were held.
func (g *Guard) removeAsked() error {
	m := &g.l.maps
	if m.pending == nil {
		return nil
	}
	held, err := collect[bpf.LsmHeldKey, bpf.LsmHeld](m.pending, func(k bpf.LsmHeldKey) bool { return k.What.Cgid == g.cgid })
	answers, failed := collect[bpf.LsmCallKey, bpf.LsmCallAnswer](m.answers, func(k bpf.LsmCallKey) bool { return k.Cgid == g.cgid })
	return errors.Join(err, failed, removeAll(m.pending, held), removeAll(m.answers, answers), removeAll(m.fileGrants, g.fileGrants))
}

// FileOp is what was attempted with a file.
type FileOp uint8

// The attempts, in the order of enum file_op in bpf/abi.h.
const (
	OpOpen FileOp = iota
	OpCreate
	OpRemove
	OpRename
	OpLink
	OpTruncate
	OpAttributes
	OpExecute
	OpMap
	OpReceive
	OpConnect
	OpWatch
	OpLock
	OpControl
	OpRoot
	fileOps
)

// String returns the word that records use.
func (op FileOp) String() string {
	if op >= fileOps {
		return "operation " + strconv.Itoa(int(op))
	}
	return [fileOps]string{
		"open", "create", "remove", "rename", "link", "truncate", "attributes", "execute", "map", "receive", "connect", "watch", "lock", "ioctl", "chroot",
	}[op]
}

// FileAttempt is a refused operation on a file.
type FileAttempt struct {
	Op      FileOp
	Want    policy.Access
	Missing policy.Access // of that, what a grant has to allow; 0: no grant can
	Object  FileObject    // for a grant, which a long name can't have
	// Held is the call that waits for Resume. With Deny for a verdict it is one that waited, and was refused because somebody inside
	// made it go on again and again, or because nobody was there to answer: it is over. Zero: the call has failed, and did not wait.
	Held  HeldCall
	Mount FileID // the root of the mount of the view, without the inode's address
	Below string // path from there; "" for the root itself. Long names end with Cut
	Tail  bool   // Below has no room for more names, so it may begin below a directory that is not the mount's root
}

// nameKept is how much of each name an event has, and namesKept from where on no further name is put there: NAME_KEPT of bpf/abi.h, less
// the NUL, and NAMES_KEPT less NAME_KEPT.
const (
	nameKept  = 127
	namesKept = 384
)

// Cut is what stands in a path for what an event had no room for.
const Cut = "…"

// joinNames makes a path of names that are listed from the last to the first, each with its NUL.
func joinNames(text []byte) string {
	names := strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00")
	for i, name := range names {
		if len(name) == nameKept {
			names[i] += Cut
		}
	}
	slices.Reverse(names)
	return strings.Join(names, "/")
}

// fileAttempt reads what an event says of a file.
func fileAttempt(f *bpf.LsmFileEvent, names []byte) FileAttempt {
	e := &f.Event
	a := FileAttempt{
		Op: FileOp(e.Port), Want: policy.Access(e.Protocol), Missing: policy.Access(f.Missing), Below: joinNames(names),
		Tail:   len(names) > namesKept,
		Mount:  FileID{Ino: uint64(e.Object[1])<<32 | uint64(e.Object[0]), Dev: e.Object[2], Gen: e.Object[3]},
		Object: FileObject{File: FileID{Ino: f.Ino, Dev: f.Dev, Gen: f.Gen}},
	}
	if f.Named != 0 {
		name, _, _ := bytes.Cut(names, []byte{0})
		a.Object.Name = string(name)
	}
	if f.Asked != 0 {
		a.Held.pid, a.Held.asked = int(e.Tgid), f.Asked
		a.Held.key = bpf.LsmHeldKey{Started: f.Started, Tid: f.Tid, Op: uint32(a.Op), What: asked(e.Cgid, a.Object, a.Missing)}
	}
	return a
}
