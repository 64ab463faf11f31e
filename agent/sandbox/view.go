package sandbox

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/policy"
)

// DefaultDisk is the size of HOME, /tmp and /dev/shm together when the policy does not say, or half of the host's
// memory where that is less: they live in memory.
const DefaultDisk = 4 << 30

// insideID is the sandbox's user and group inside.
const insideID = 1000

// The scratch file system's directories: one per private directory, and what masks are made of.
const (
	scratchMaskDir  = "mask.d"
	scratchMaskFile = "mask.f"
)

// view is the mount view under construction. What makes files runs on threads that have a umask of their own;
// afterwards root, dev and pts are used, by descriptor.
type view struct {
	plan    *viewPlan
	control *control // to the init's first stage, which makes user namespaces
	hostID  uint32   // uid and gid of the sandbox's user on the host
	hostGID uint32
	disk    int64
	devices []Device                   // beside the basic ones
	rulePos func(policy.RuleID) string // where a rule stands

	root    int // the view's root
	scratch int // of private directories
	dev     int // the view's /dev
	pts     int // the view's /dev/pts
	idmaps  map[[2]uint32]int
	asked   [][2]uint32 // of idmaps: asked for, and not yet received
	watched []watchedMount
	moves   *moves   // what the watched mounts lie on
	notes   []string // warnings found on the way
}

// newView has no mounts yet.
func newView(control *control, p *policy.Compiled) *view {
	return &view{
		control: control, disk: p.Limits.Disk, rulePos: func(id policy.RuleID) string { return p.Rule(id).Pos },
		root: -1, scratch: -1, dev: -1, pts: -1, moves: newMoves(), idmaps: map[[2]uint32]int{},
	}
}

// finish lets go of what only composing needs; root, dev and pts stay open until close.
func (v *view) finish() error {
	err := v.receive()
	for _, fd := range v.idmaps {
		unix.Close(fd)
	}
	v.idmaps = nil
	closeFD(&v.scratch)
	return err
}

func (v *view) close() {
	v.asked = nil // the init is gone
	_ = v.finish()
	closeFD(&v.root)
	closeFD(&v.dev)
	closeFD(&v.pts)
	v.moves.close()
}

// closeFD closes a descriptor once.
func closeFD(fd *int) {
	if *fd >= 0 {
		unix.Close(*fd)
	}
	*fd = -1
}

// make makes the file systems of the view and fills them, all but what depends on who the sandbox's user is. They are
// attached nowhere yet, so this needs no namespace: it runs while those are made.
func (v *view) make(hostname, nameserver string, trust Trust) (err error) {
	if v.root, err = newMount("tmpfs", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV, "mode=0755", "size=4m", "nr_inodes=4096"); err != nil {
		return fmt.Errorf("sandbox: making the root: %w", err)
	}
	if err := v.makeDev(); err != nil {
		return fmt.Errorf("sandbox: making /dev: %w", err)
	}
	if err := v.makeScratch(); err != nil {
		return fmt.Errorf("sandbox: making the private file system: %w", err)
	}
	if err := makeDirs(v.root, "proc"); err != nil {
		return fmt.Errorf("sandbox: making the root: %w", err)
	}
	if t := v.plan.tree("/etc"); t != nil {
		if err := v.makeEtcLayer(t, hostname, nameserver, trust); err != nil {
			return fmt.Errorf("sandbox: composing /etc: %w", err)
		}
	}
	for i := range v.plan.trees {
		t := &v.plan.trees[i]
		if under(t.path, "/dev") || v.plan.around(t.path) != nil {
			continue
		}
		if err := makePlace(v.root, t.path, t.file); err != nil {
			return fmt.Errorf("sandbox: making a place for %s: %w", t.path, err)
		}
	}
	for _, l := range v.plan.links { // last: until here nothing in the root leads anywhere else
		if err := v.makeLink(l); err != nil {
			return fmt.Errorf("sandbox: making the link %s: %w", l.path, err)
		}
	}
	return nil
}

// compose attaches everything but /proc, which shows the pid namespace of whoever mounts it, in the calling thread's
// mount namespace, with the root at a directory of the host. Trees whose owner is mapped come last: until then the
// init gets ready to make user namespaces.
func (v *view) compose(at string) error {
	// The private file system is covered by the root, and goes away with the host's when the init takes that for its own: before
	// Linux 6.15 parts of a mount can only be cloned where it is attached.
	for _, mount := range []int{v.scratch, v.root} {
		if err := unix.MoveMount(mount, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return fmt.Errorf("sandbox: mounting the root at %s: %w", at, err)
		}
	}
	if err := errors.Join(attach(v.dev, v.root, "dev"), attach(v.pts, v.root, "dev/pts")); err != nil {
		return fmt.Errorf("sandbox: composing the view: %w", err)
	}
	for _, system := range []bool{true, false} {
		if !system {
			if err := v.chooseID(v.plan.workspaceTree()); err != nil {
				return fmt.Errorf("sandbox: %w", err)
			}
		}
		for i := range v.plan.trees {
			t := &v.plan.trees[i]
			if system != (t.kind == treeBase || t.kind == treeEtc) {
				continue
			}
			if err := v.mountTree(t); err != nil {
				return fmt.Errorf("sandbox: composing the view: %s: %w", t.path, err)
			}
		}
	}
	if err := setMount(v.dev, unix.MOUNT_ATTR_RDONLY, false, -1); err != nil {
		return fmt.Errorf("sandbox: making /dev read-only: %w", err)
	}
	if err := setMount(v.root, unix.MOUNT_ATTR_RDONLY, false, -1); err != nil {
		return fmt.Errorf("sandbox: making the root read-only: %w", err)
	}
	return nil
}

// tree returns the tree at a path, nil when there is none.
func (p *viewPlan) tree(at string) *tree {
	for i := range p.trees {
		if p.trees[i].path == at {
			return &p.trees[i]
		}
	}
	return nil
}

// workspaceTree is the tree whose owner the sandbox's user may have to be; nil when nothing of the workspace is shown.
func (p *viewPlan) workspaceTree() *tree {
	for i := range p.trees {
		if t := &p.trees[i]; t.kind == treeBind && under(t.path, workspaceDir) {
			return t
		}
	}
	return nil
}

// makeLink repeats a symbolic link of the system. Its directory is a real one there.
func (v *view) makeLink(l link) error {
	dir := v.root
	for name := range strings.SplitSeq(strings.Trim(path.Dir(l.path), "/"), "/") {
		if name == "" {
			break
		}
		if err := unix.Mkdirat(dir, name, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
		below, err := openStrict(dir, name, unix.O_PATH|unix.O_DIRECTORY)
		if err != nil {
			return err
		}
		defer unix.Close(below)
		dir = below
	}
	if err := unix.Symlinkat(l.target, dir, path.Base(l.path)); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

// makeDev makes /dev: the only place where device files act.
func (v *view) makeDev() error {
	const basic = 64 // inodes
	dev, err := newMount("tmpfs", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC, "mode=0755", "size=64k", fmt.Sprintf("nr_inodes=%d", basic+len(v.devices)))
	if err != nil {
		return err
	}
	v.dev = dev
	if err := errors.Join(makeNodes(dev, basicDevices), makeNodes(dev, v.devices)); err != nil {
		return err
	}
	for name, target := range map[string]string{
		"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2", "ptmx": "pts/ptmx",
	} {
		if err := unix.Symlinkat(target, dev, name); err != nil {
			return fmt.Errorf("linking %s: %w", name, err)
		}
	}
	if err := errors.Join(makeDirs(dev, "pts"), makeDirs(dev, "shm"), makeDirs(v.root, "dev")); err != nil {
		return err
	}
	// The machine has some thousands of terminals (kernel.pty.max), whoever takes them.
	v.pts, err = newMount("devpts", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC, "newinstance", "ptmxmode=0666", "mode=0620", "max=256")
	return err
}

// makeScratch makes the file system of the private directories; the view shows parts of it.
func (v *view) makeScratch() error {
	size := v.disk
	if size == 0 {
		size = DefaultDisk
		if memory := hostMemory(); memory > 0 {
			size = min(size, memory/2)
		}
	}
	// An empty file takes no room, and memory all the same: tmpfs has as many files as pages.
	files := size / int64(unix.Getpagesize())
	scratch, err := newMount("tmpfs", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV, "mode=0755", fmt.Sprintf("size=%d", size), fmt.Sprintf("nr_inodes=%d", files))
	if err != nil {
		return err
	}
	v.scratch = scratch
	if err := unix.Mkdirat(scratch, scratchMaskDir, 0); err != nil {
		return err
	}
	return writeAt(scratch, scratchMaskFile, nil, 0)
}

// scratchName is the scratch directory behind a private one.
func scratchName(p string) string { return strings.ReplaceAll(strings.Trim(p, "/"), "/", ".") }

// mountTree mounts one tree of the plan.
func (v *view) mountTree(t *tree) error {
	mount, err := v.openTree(t)
	if err != nil {
		return err
	}
	defer unix.Close(mount)
	if t.kind != treeEtc && !t.idmap { // these have their attributes already
		if err := setMount(mount, t.attributes(), t.kind == treeBase, -1); err != nil {
			return fmt.Errorf("setting mount attributes: %w", err)
		}
	}
	if !t.watch {
		return v.place(t, mount)
	}
	w, err := v.watchMoves(t) // before it is placed: what is renamed from here on shows
	if err != nil {
		return err
	}
	if err := v.place(t, mount); err != nil {
		return err
	}
	var at unix.Statx_t
	if err := unix.Statx(mount, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &at); err != nil {
		return fmt.Errorf("asking for the id of its mount: %w", err)
	}
	w.id, w.pos = at.Mnt_id, v.rulePos(t.rule)
	v.watched = append(v.watched, w)
	return nil
}

func (t *tree) attributes() uint64 {
	attributes := uint64(unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV)
	if t.readOnly {
		attributes |= unix.MOUNT_ATTR_RDONLY
	}
	if t.noExec {
		attributes |= unix.MOUNT_ATTR_NOEXEC
	}
	return attributes
}

// openTree returns a tree's mount, not yet attached.
func (v *view) openTree(t *tree) (int, error) {
	switch t.kind {
	case treeEtc:
		return v.openEtc(t)
	case treePrivate:
		return v.makePrivate(t)
	case treeMask:
		name := scratchMaskDir
		if t.file {
			name = scratchMaskFile
		}
		return unix.OpenTree(v.scratch, name, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	case treeNarrow, treePin:
		// A part of what the view shows already: its mount, with the owner mapped as there.
		if t.source == "" {
			if err := v.makePrivatePlace(t.path); err != nil {
				return -1, err
			}
		}
		fd, err := openIn(v.root, t.path, unix.O_PATH|unix.O_NOFOLLOW)
		if err != nil {
			return -1, err
		}
		defer unix.Close(fd)
		return cloneTree(fd, false)
	}
	fd, err := openReal(t.source)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fd)
	if t.idmap {
		return v.idmapped(fd, t)
	}
	return cloneTree(fd, true)
}

// place attaches a tree. Its place is made in a private directory; in the root make has made it, and in a tree of the
// host it exists.
func (v *view) place(t *tree, mount int) error {
	if in := v.plan.around(t.path); in != nil && in.kind == treePrivate {
		var err error
		switch t.kind {
		case treeMask:
			err = v.makePrivatePlace(t.path)
		case treeSocket:
			err = makePlace(v.root, t.path, true)
		}
		if err != nil {
			return err
		}
	}
	return attach(mount, v.root, t.path)
}

// around returns the innermost tree that a path lies in, nil when it is the root.
func (p *viewPlan) around(at string) *tree {
	var best *tree
	for i := range p.trees {
		t := &p.trees[i]
		if t.path != at && under(at, t.path) && (best == nil || len(t.path) > len(best.path)) {
			best = t
		}
	}
	return best
}

// makePrivate makes a private directory: HOME is its owner's alone, the others are anybody's, as on the host.
func (v *view) makePrivate(t *tree) (int, error) {
	name, mode := scratchName(t.path), uint32(0o1777)
	if under(t.path, "/home") {
		mode = 0o700
	}
	if err := unix.Mkdirat(v.scratch, name, mode); err != nil {
		return -1, err
	}
	if err := unix.Fchownat(v.scratch, name, int(v.hostID), int(v.hostGID), 0); err != nil {
		return -1, err
	}
	return unix.OpenTree(v.scratch, name, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
}

// makePrivatePlace makes a directory in a private one, where a rule takes rights away before anything exists.
func (v *view) makePrivatePlace(p string) error {
	p = strings.TrimPrefix(p, "/")
	if err := makeDirs(v.root, p); err != nil {
		return err
	}
	return unix.Fchownat(v.root, p, int(v.hostID), int(v.hostGID), unix.AT_SYMLINK_NOFOLLOW)
}
