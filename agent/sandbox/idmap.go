package sandbox

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// errNoIdmap says that a file system can't show its files with another owner.
var errNoIdmap = errors.New("this file system can't be id-mapped")

// idmapped clones a tree of the host in which the owner of its root on disk appears as the sandbox's user: what is
// created inside belongs to that owner on the host, root included. Everybody else appears as nobody.
func (v *view) idmapped(fd int, t *tree) (int, error) {
	var at unix.Stat_t
	if err := unix.Fstat(fd, &at); err != nil {
		return -1, err
	}
	mount, err := v.tryIdmap(fd, t, at.Uid, at.Gid)
	if !errors.Is(err, errNoIdmap) {
		return mount, err
	}
	// Without a map the ids on disk are what counts: it does when the sandbox's user is the owner itself.
	mount, err = cloneTree(fd, true)
	if err == nil {
		err = setMount(mount, t.attributes(), true, -1)
	}
	if err != nil {
		return -1, fmt.Errorf("cloning the mount: %w", err)
	}
	switch {
	case at.Uid == v.hostID:
	case t.kind == treeSocket:
		if at.Mode&0o002 == 0 {
			unix.Close(mount)
			return -1, fmt.Errorf("%s belongs to uid %d, not everybody may connect to it, and its file system can't be id-mapped (%s); "+
				"let everybody connect (chmod o+w), or put the socket on another file system", t.source, at.Uid, fsName(fd))
		}
	case t.readOnly:
		v.notes = append(v.notes, fmt.Sprintf("%s is on a file system that can't be id-mapped: only what everybody may read can be read in it", t.source))
	default:
		unix.Close(mount)
		return -1, fmt.Errorf("%s belongs to uid %d and is on a file system that can't be id-mapped (%s), so the sandbox's user could not write it; "+
			"move it to ext4, xfs, btrfs or tmpfs, or chown it to the workspace's owner, who must not be root", t.source, at.Uid, fsName(fd))
	}
	return mount, nil
}

// tryIdmap is errNoIdmap when the file system is to blame.
func (v *view) tryIdmap(fd int, t *tree, uid, gid uint32) (int, error) {
	if uid == v.hostID && gid == v.hostGID {
		return -1, errNoIdmap // nothing to map
	}
	userns, err := v.userns(uid, gid)
	if err != nil {
		return -1, err
	}
	for _, recursive := range []bool{true, false} {
		mount, err := cloneTree(fd, recursive)
		if err != nil {
			return -1, fmt.Errorf("cloning the mount: %w", err)
		}
		err = setMount(mount, t.attributes(), recursive, userns)
		if err == nil {
			if !recursive {
				v.notes = append(v.notes, fmt.Sprintf("what is mounted below %s can't be id-mapped and is not visible", t.source))
			}
			return mount, nil
		}
		unix.Close(mount)
		// EINVAL: not supported; EPERM: mapped already.
		if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EPERM) {
			return -1, fmt.Errorf("mapping its owner: %w", err)
		}
	}
	return -1, errNoIdmap
}

// askEarly asks for the user namespace that the workspace will need, before it is known that it does: the init makes
// it while the view is planned.
func (v *view) askEarly(workspace string) {
	var at unix.Stat_t
	if workspace == "" || unix.Stat(workspace, &at) != nil || at.Uid == v.hostID {
		return
	}
	_ = v.ask([2]uint32{at.Uid, at.Gid}) // what fails here fails again when it is needed
}

// ask sends a request for the user namespace of an owner on disk.
func (v *view) ask(owner [2]uint32) error {
	if err := v.control.send(nil, uint32(reqIdmap), owner[0], owner[1], v.hostID, v.hostGID); err != nil {
		return err
	}
	v.asked = append(v.asked, owner)
	return nil
}

// receive takes what was asked for, in order.
func (v *view) receive() error {
	for _, owner := range v.asked {
		r, err := v.control.want(reIdmap)
		if err != nil {
			return err
		}
		v.idmaps[owner] = r.fd
	}
	v.asked = nil
	return nil
}

// userns returns a user namespace that maps one owner on disk to the sandbox's user.
func (v *view) userns(uid, gid uint32) (int, error) {
	owner := [2]uint32{uid, gid}
	if _, ok := v.idmaps[owner]; !ok && !slices.Contains(v.asked, owner) {
		if err := v.ask(owner); err != nil {
			return -1, err
		}
	}
	err := v.receive()
	return v.idmaps[owner], err
}

// chooseID settles who the sandbox's user is on the host: an id of its own, or, where the workspace's file system
// can't be id-mapped, the workspace's owner.
func (v *view) chooseID(workspace *tree) error {
	if workspace == nil {
		return nil
	}
	fd, err := openReal(workspace.source)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var at unix.Stat_t
	if err := unix.Fstat(fd, &at); err != nil {
		return fmt.Errorf("%s: %w", workspace.source, err)
	}
	mount, err := v.tryIdmap(fd, workspace, at.Uid, at.Gid)
	switch {
	case err == nil:
		unix.Close(mount)
		return nil
	case !errors.Is(err, errNoIdmap):
		return err
	case at.Uid == 0 || at.Gid == 0:
		return fmt.Errorf("the workspace %s belongs to root and is on a file system that can't be id-mapped (%s): the sandbox would have to run as the host's root; "+
			"chown it to an unprivileged user and group, or move it to ext4, xfs, btrfs or tmpfs", workspace.source, fsName(fd))
	}
	for _, ns := range v.idmaps {
		unix.Close(ns)
	}
	v.idmaps = map[[2]uint32]int{} // they map to the id that is not used now
	v.hostID, v.hostGID = at.Uid, at.Gid
	return nil
}

// fsNames are file systems that people meet where ids can't be mapped.
var fsNames = map[int64]string{
	unix.OVERLAYFS_SUPER_MAGIC: "overlayfs", unix.NFS_SUPER_MAGIC: "nfs", unix.TMPFS_MAGIC: "tmpfs of a kernel before 6.3",
	unix.FUSE_SUPER_MAGIC: "fuse", unix.V9FS_MAGIC: "9p", unix.CIFS_SUPER_MAGIC: "cifs",
}

func fsName(fd int) string {
	var at unix.Statfs_t
	if err := unix.Fstatfs(fd, &at); err != nil {
		return "unknown"
	}
	if name, ok := fsNames[at.Type]; ok {
		return name
	}
	return fmt.Sprintf("type %#x", at.Type)
}
