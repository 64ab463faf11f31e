package sandbox

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// leaveChroot makes the thread's root directory the root of its mount namespace, when it is only a chroot's: the kernel makes
// no user namespace for a chrooted task, and pivots no root that isn't a mount. The thread sees the same tree as before. It must be
// alone in its mount namespace and share its root with nobody; nothing that was opened before belongs to the namespace after.
func leaveChroot() error {
	before, err := rootID()
	if err != nil {
		return err
	}
	root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening /: %w", err)
	}
	defer unix.Close(root)
	own, err := unix.Open("/proc/thread-self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening the mount namespace: %w; mount proc on /proc", err)
	}
	defer unix.Close(own)
	// Entering a mount namespace, even one's own, sets the root directory to the namespace's.
	if err := unix.Setns(own, unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("entering the mount namespace's root: %w", err)
	}
	after, err := rootID()
	if err != nil || before == after {
		return err
	}
	if err := unix.MountSetattr(unix.AT_FDCWD, "/", unix.AT_RECURSIVE, &unix.MountAttr{Propagation: unix.MS_PRIVATE}); err != nil {
		return fmt.Errorf("making the mount namespace private: %w", err)
	}
	tree, err := unix.OpenTree(root, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|unix.AT_RECURSIVE)
	if err != nil {
		return fmt.Errorf("cloning the chroot's tree: %w", err)
	}
	defer unix.Close(tree)
	if err := unix.MoveMount(tree, "", root, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
		return fmt.Errorf("mounting the chroot's tree: %w", err)
	}
	if err := unix.Fchdir(tree); err != nil {
		return fmt.Errorf("entering the chroot's tree: %w", err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivoting to the chroot's tree: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmounting what is outside of the chroot: %w", err)
	}
	return unix.Chdir("/")
}

// rootID tells root directories apart, the same directory under another mount included.
func rootID() (id [2]uint64, err error) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, "/", 0, unix.STATX_INO|unix.STATX_MNT_ID, &st); err != nil {
		return id, fmt.Errorf("stat /: %w", err)
	}
	return [2]uint64{st.Mnt_id, st.Ino}, nil
}
