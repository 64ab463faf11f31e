package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// newMount makes a file system that needs no device, and returns its mount, which is attached nowhere yet. Options are
// "key=value", or "key" for a flag.
func newMount(fstype string, attributes int, options ...string) (int, error) {
	fsfd, err := unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("fsopen %s: %w", fstype, err)
	}
	defer unix.Close(fsfd)
	for _, option := range options {
		key, value, isString := strings.Cut(option, "=")
		if isString {
			err = unix.FsconfigSetString(fsfd, key, value)
		} else {
			err = unix.FsconfigSetFlag(fsfd, key)
		}
		if err != nil {
			return -1, fmt.Errorf("%s, option %s: %w%s", fstype, option, err, fsMessages(fsfd))
		}
	}
	if err := unix.FsconfigCreate(fsfd); err != nil {
		return -1, fmt.Errorf("creating %s: %w%s", fstype, err, fsMessages(fsfd))
	}
	mount, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, attributes)
	if err != nil {
		return -1, fmt.Errorf("fsmount %s: %w%s", fstype, err, fsMessages(fsfd))
	}
	return mount, nil
}

// fsMessages is what the kernel has to say about a file system that it refused.
func fsMessages(fsfd int) string {
	var text []string
	buf := make([]byte, 512)
	for range 8 {
		n, err := unix.Read(fsfd, buf)
		if err != nil {
			break
		}
		text = append(text, strings.TrimSpace(string(buf[:n])))
	}
	if len(text) == 0 {
		return ""
	}
	return " (" + strings.Join(text, "; ") + ")"
}

// openReal opens a path that planning found free of symbolic links, and fails when it has one now.
func openReal(p string) (int, error) {
	fd, err := unix.Openat2(unix.AT_FDCWD, p, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
	if errors.Is(err, unix.ELOOP) {
		return -1, fmt.Errorf("%s has become a symbolic link since the policy was looked at", p)
	}
	if err != nil {
		return -1, fmt.Errorf("opening %s: %w", p, err)
	}
	return fd, nil
}

// openIn opens a path of the view as a process inside would resolve it.
func openIn(root int, p string, flags uint64) (int, error) {
	return openat2(root, p, flags, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS)
}

// openStrict is openIn for a path that is a real one: a symbolic link anywhere in it gives ELOOP.
func openStrict(root int, p string, flags uint64) (int, error) {
	return openat2(root, p, flags, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_SYMLINKS)
}

func openat2(root int, p string, flags, resolve uint64) (int, error) {
	for {
		fd, err := unix.Openat2(root, p, &unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: resolve})
		if !errors.Is(err, unix.EAGAIN) { // a rename on the host while the path was walked
			return fd, err
		}
	}
}

// cloneTree copies what is mounted at and below an open directory or file, attached nowhere yet.
func cloneTree(fd int, recursive bool) (int, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	return unix.OpenTree(fd, "", flags)
}

// setMount sets attributes of a mount, and of those below it.
func setMount(fd int, attributes uint64, recursive bool, userns int) error {
	attr := unix.MountAttr{Attr_set: attributes}
	if userns >= 0 {
		attr.Attr_set |= unix.MOUNT_ATTR_IDMAP
		attr.Userns_fd = uint64(userns)
	}
	flags := uint(unix.AT_EMPTY_PATH)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	return unix.MountSetattr(fd, "", flags, &attr)
}

// attach puts a mount at a path of the view, which has no symbolic link in it.
func attach(mount, root int, p string) error {
	at, err := openStrict(root, p, unix.O_PATH)
	if err == nil {
		err = unix.MoveMount(mount, "", at, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
		unix.Close(at)
	}
	if err != nil {
		return fmt.Errorf("mounting /%s in the view: %w", strings.TrimPrefix(p, "/"), err)
	}
	return nil
}

// makeDirs creates the directories of a path below a directory, those that are missing.
func makeDirs(dir int, p string) error {
	p = strings.Trim(p, "/")
	for i := 0; i <= len(p); i++ {
		if i < len(p) && p[i] != '/' || i == 0 {
			continue
		}
		if err := unix.Mkdirat(dir, p[:i], 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("making the directory %s: %w", p[:i], err)
		}
	}
	return nil
}

// makePlace creates what a mount can be put on: a directory, or an empty file.
func makePlace(dir int, p string, file bool) error {
	if !file {
		return makeDirs(dir, p)
	}
	if err := makeDirs(dir, path.Dir(strings.TrimPrefix(p, "/"))); err != nil {
		return err
	}
	return writeAt(dir, strings.TrimPrefix(p, "/"), nil, 0o444)
}

// writeAt creates a file below a directory, whatever the umask. A child that another goroutine forks meanwhile would
// have the file open for writing until it executes: the mount could not be made read-only (EBUSY), nor the file be
// executed (ETXTBSY).
func writeAt(dir int, name string, content []byte, mode uint32) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW, mode)
	if err != nil {
		return fmt.Errorf("creating %s: %w", name, err)
	}
	defer unix.Close(fd)
	for len(content) > 0 {
		n, err := unix.Write(fd, content)
		if err != nil {
			return fmt.Errorf("writing %s: %w", name, err)
		}
		content = content[n:]
	}
	return nil
}

// writeFile writes to a file of the kernel's: sysctls, cgroups, id maps. Package os would offer each to the poller.
func writeFile(name, text string) error {
	fd, err := unix.Open(name, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte(text)); err != nil {
		return &fs.PathError{Op: "write", Path: name, Err: err}
	}
	return nil
}

// readFile reads a file of /proc.
func readFile(name string) ([]byte, error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	return readAll(fd)
}

// readAll reads a file of /proc from its start.
func readAll(fd int) ([]byte, error) {
	var all []byte
	buf := make([]byte, 1<<16)
	for {
		n, err := unix.Pread(fd, buf, int64(len(all)))
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return nil, err
		case n == 0:
			return all, nil
		}
		all = append(all, buf[:n]...)
	}
}
