// Package transfer carries files into and out of a running sandbox, as tar streams. It acts in the sandbox's view, on a thread
// that is the sandbox's user as far as files go: what the sandbox may not write or read because of owners, modes or mounts,
// it may not either, and what it makes belongs to that user.
//
// What is inside changes at any moment, by hostile hands. No symbolic link below the path asked for is followed, no file that is
// there is opened for writing, no fifo, socket or device is opened at all, and every number has a bound. It never decides
// who may ask.
package transfer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/agent/tarname"
)

// Sandbox is where files go to and come from.
type Sandbox struct {
	Root     *os.File // the root directory of its view: /proc/PID/root of its init
	UID, GID uint32   // of its user, on the host
}

// Report says what was carried.
type Report struct {
	Files   int   // and directories and links
	Bytes   int64 // of files
	Skipped int   // what can't be carried: devices, fifos, sockets
	// Changed are files that became shorter while they were read, as many as are worth naming; zeros fill them up.
	Changed []string
}

// Bounds on one transfer.
const (
	maxBytes = 64 << 30
	maxFiles = 4 << 20
)

// asUser runs f on a thread that is the sandbox's user to the file system: the kernel takes root's rights over files away with
// the id. The thread ends with f.
func (s Sandbox) asUser(f func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() { // the process's first thread can't end
			result <- s.asUser(f)
			runtime.UnlockOSThread()
			return
		}
		err := s.become()
		if err == nil {
			err = f()
		}
		result <- err
	}()
	return <-result
}

// become changes the calling thread alone: package syscall's functions would change all.
func (s Sandbox) become() error {
	if s.UID == 0 || s.GID == 0 {
		return errors.New("transfer: a sandbox's user is never the host's root")
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0); errno != 0 {
		return fmt.Errorf("transfer: leaving the groups: %w", errno)
	}
	for range 2 { // the second call says what the first did
		gid, _ := unix.SetfsgidRetGid(int(s.GID))
		uid, _ := unix.SetfsuidRetUid(int(s.UID))
		if uid == int(s.UID) && gid == int(s.GID) {
			return nil
		}
	}
	return fmt.Errorf("transfer: acting as uid %d, gid %d: %w", s.UID, s.GID, unix.EPERM)
}

// target opens the path of a transfer as a process inside would, without opening what it is.
func (s Sandbox) target(at string) (int, error) {
	if !path.IsAbs(at) || strings.IndexByte(at, 0) >= 0 || len(at) >= tarname.MaxLength {
		return -1, fmt.Errorf("transfer: %q is not an absolute path", at)
	}
	fd, err := openat2(int(s.Root.Fd()), at, unix.O_PATH, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS)
	if err != nil {
		return -1, fmt.Errorf("transfer: %s in the sandbox: %w", at, err)
	}
	if err := s.refuse(fd, at); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// refuse turns down what is the kernel's and no place for files: /proc, /dev (but /dev/shm), whichever path leads there.
func (s Sandbox) refuse(fd int, at string) error {
	what, err := kernels(fd)
	if err == nil && what == "" {
		var dev, here unix.Statx_t
		err = unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &here)
		if e := unix.Statx(int(s.Root.Fd()), "dev", unix.AT_SYMLINK_NOFOLLOW, unix.STATX_MNT_ID, &dev); e == nil && dev.Mnt_id == here.Mnt_id {
			what = "/dev"
		}
	}
	if err != nil {
		return fmt.Errorf("transfer: %s in the sandbox: %w", at, err)
	}
	if what != "" {
		return fmt.Errorf("transfer: %s in the sandbox is in %s, which is no place for files: name a directory like /workspace or /tmp", at, what)
	}
	return nil
}

// kernels says which of the kernel's own file systems a file is on; "" for none.
func kernels(fd int) (string, error) {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return "", err
	}
	return map[int64]string{unix.PROC_SUPER_MAGIC: "/proc", unix.DEVPTS_SUPER_MAGIC: "/dev/pts", unix.SYSFS_MAGIC: "/sys", unix.CGROUP2_SUPER_MAGIC: "/sys"}[fs.Type], nil
}

func openat2(dir int, name string, flags, resolve uint64) (int, error) {
	for {
		fd, err := unix.Openat2(dir, name, &unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: resolve})
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) { // a rename while the path was walked
			return fd, err
		}
	}
}

// strict is how everything below a transfer's path is opened.
const strict = unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS

// openDir opens a directory below another, through real directories only.
func openDir(dir int, name string) (int, error) {
	fd, err := openat2(dir, name, unix.O_RDONLY|unix.O_DIRECTORY, strict)
	if errors.Is(err, unix.ELOOP) {
		err = fmt.Errorf("a symbolic link on the way is not followed: %w", err)
	}
	return fd, err
}

func canceled(ctx context.Context) error {
	if ctx.Err() != nil {
		return fmt.Errorf("transfer: %w", context.Cause(ctx))
	}
	return nil
}
