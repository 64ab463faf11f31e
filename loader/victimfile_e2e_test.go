//go:build e2e

package loader

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// keptFD is the descriptor of the last "keep".
var keptFD int

// fileTry is one operation on files, as programs do it. What it opens it closes.
func fileTry(f []string) error {
	path := f[1]
	switch f[0] {
	case "read":
		return tryOpen(path, unix.O_RDONLY)
	case "write":
		return tryOpen(path, unix.O_WRONLY)
	case "readwrite":
		return tryOpen(path, unix.O_RDWR)
	case "append":
		return tryOpen(path, unix.O_WRONLY|unix.O_APPEND)
	case "trunc":
		return tryOpen(path, unix.O_RDONLY|unix.O_TRUNC)
	case "creat":
		return tryOpen(path, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL)
	case "path":
		return tryOpen(path, unix.O_PATH)
	case "tmpfile":
		return tryOpen(path, unix.O_RDWR|unix.O_TMPFILE)
	case "reopen": // to read, through a descriptor that can do nothing
		return withFD(path, unix.O_PATH, func(fd int) error { return tryOpen(procFD(fd), unix.O_RDONLY) })
	case "reopen-write":
		return withFD(path, unix.O_PATH, func(fd int) error { return tryOpen(procFD(fd), unix.O_WRONLY) })
	case "list":
		return tryOpen(path, unix.O_RDONLY|unix.O_DIRECTORY)
	case "stat":
		var st unix.Stat_t
		return unix.Stat(path, &st)
	case "access":
		return unix.Access(path, unix.R_OK)
	case "readlink":
		_, err := unix.Readlink(path, make([]byte, 100))
		return err
	case "chdir":
		return errors.Join(unix.Chdir(path), unix.Chdir("/"))
	case "truncate":
		return unix.Truncate(path, 0)
	case "ftruncate": // through a descriptor
		return withFD(path, unix.O_WRONLY, func(fd int) error { return unix.Ftruncate(fd, 0) })
	case "keep": // a descriptor, for the tries below; path is no more than its name then
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
		keptFD = fd
		return err
	case "kept-read":
		_, err := unix.Pread(keptFD, make([]byte, 1), 0)
		return err
	case "kept-write":
		_, err := unix.Pwrite(keptFD, []byte("x"), 0)
		return err
	case "kept-truncate":
		return unix.Ftruncate(keptFD, 1)
	case "kept-chmod":
		return unix.Fchmod(keptFD, 0o600)
	case "kept-map":
		return mapToExecute(keptFD)
	case "kept-reopen":
		return tryOpen(procFD(keptFD), unix.O_RDONLY)
	case "chmod":
		return unix.Chmod(path, 0o640)
	case "fchmod": // through a descriptor to read with
		return withFD(path, unix.O_RDONLY, func(fd int) error { return unix.Fchmod(fd, 0o640) })
	case "chown":
		return unix.Chown(path, 0, 0)
	case "utimes":
		return unix.UtimesNano(path, []unix.Timespec{{Sec: 1}, {Sec: 1}})
	case "setxattr":
		return unix.Setxattr(path, "user.x", []byte("x"), 0)
	case "setacl": // user::rw-, user 1:rw-, group::r--, mask::rw-, other::---, as linux/posix_acl_xattr.h has them
		acl := binary.LittleEndian.AppendUint32(nil, 2)
		for _, e := range [][3]uint32{{1, 6, math.MaxUint32}, {2, 6, 1}, {4, 4, math.MaxUint32}, {16, 6, math.MaxUint32}, {32, 0, math.MaxUint32}} {
			acl = binary.LittleEndian.AppendUint32(acl, e[0]|e[1]<<16)
			acl = binary.LittleEndian.AppendUint32(acl, e[2])
		}
		return unix.Setxattr(path, "system.posix_acl_access", acl, 0)
	case "removeacl":
		return unix.Removexattr(path, "system.posix_acl_access")
	case "removexattr":
		return unix.Removexattr(path, "user.x")
	case "mkdir":
		return unix.Mkdir(path, 0o755)
	case "rmdir":
		return unix.Rmdir(path)
	case "unlink":
		return unix.Unlink(path)
	case "mkfifo":
		return unix.Mknod(path, unix.S_IFIFO|0o600, 0)
	case "symlink":
		return unix.Symlink(f[2], path)
	case "link":
		return unix.Link(path, f[2])
	case "link-fd":
		return withFD(path, unix.O_PATH, func(fd int) error { return unix.Linkat(fd, "", unix.AT_FDCWD, f[2], unix.AT_EMPTY_PATH) })
	case "rename":
		return unix.Rename(path, f[2])
	case "exchange":
		return unix.Renameat2(unix.AT_FDCWD, path, unix.AT_FDCWD, f[2], unix.RENAME_EXCHANGE)
	case "map": // to execute
		return withFD(path, unix.O_RDONLY, mapToExecute)
	case "map-removed":
		return withFD(path, unix.O_RDONLY, func(fd int) error {
			if err := unix.Unlink(path); err != nil {
				return err
			}
			return mapToExecute(fd)
		})
	case "map-memory": // a copy
		code, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		fd, err := unix.MemfdCreate("copy", 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if _, err := unix.Write(fd, code); err != nil {
			return err
		}
		return mapToExecute(fd)
	case "map-own": // memory of no file
		m, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err != nil {
			return err
		}
		return errors.Join(unix.Mprotect(m, unix.PROT_READ|unix.PROT_EXEC), unix.Munmap(m))
	case "protect": // what was mapped to read
		return withFD(path, unix.O_RDONLY, func(fd int) error {
			m, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ, unix.MAP_PRIVATE)
			if err != nil {
				return err
			}
			return errors.Join(unix.Mprotect(m, unix.PROT_READ|unix.PROT_EXEC), unix.Munmap(m))
		})
	case "watch":
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		_, err = unix.InotifyAddWatch(fd, path, unix.IN_ALL_EVENTS)
		return err
	case "flock":
		return withFD(path, unix.O_RDONLY, func(fd int) error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) })
	case "flock-shared":
		return withFD(path, unix.O_RDONLY, func(fd int) error { return unix.Flock(fd, unix.LOCK_SH|unix.LOCK_NB) })
	case "setflags": // chattr, to what they are: without its extents ext4 takes no file whose writing is under way
		return withFD(path, unix.O_RDONLY, func(fd int) error {
			flags, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
			return undo(err, func() error { return unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, int(flags)) })
		})
	case "chroot":
		return unix.Chroot(path)
	case "handle":
		h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, path, 0)
		if err != nil {
			return err
		}
		return withFD("/", unix.O_RDONLY, func(mount int) error {
			fd, err := unix.OpenByHandleAt(mount, h, unix.O_RDONLY)
			if err == nil {
				unix.Close(fd)
			}
			return err
		})
	case "bind": // a unix socket
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Bind(fd, &unix.SockaddrUnix{Name: path})
	case "connect": // to a unix socket
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	case "sendto": // a unix datagram
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Sendto(fd, []byte("x"), 0, &unix.SockaddrUnix{Name: path})
	case "receive": // a descriptor from a unix socket that the host listens at
		return receive(path)
	case "uring": // open to read, by io_uring
		return uringOpen(path)
	}
	return fmt.Errorf("no such operation: %q", f)
}

func tryOpen(path string, flags int) error {
	return withFD(path, flags, func(int) error { return nil })
}

func mapToExecute(fd int) error {
	m, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE)
	if err == nil {
		err = unix.Munmap(m)
	}
	return err
}

func withFD(path string, flags int, do func(fd int) error) error {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC|unix.O_NONBLOCK, 0o644)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return do(fd)
}

func procFD(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// receive gets a descriptor from who listens at a unix socket.
func receive(path string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return err
	}
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, flags, _, err := unix.Recvmsg(fd, make([]byte, 1), oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return err
	}
	if n == 0 || flags&unix.MSG_CTRUNC != 0 {
		return unix.EACCES // the kernel takes away what may not be received
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil {
		return err
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	for _, fd := range fds {
		unix.Close(fd)
	}
	return err
}

// uring is an io_uring with room for few requests, include/uapi/linux/io_uring.h.
type uring struct {
	fd             int
	params         [120]byte
	rings, entries []byte
}

// withURing sets an io_uring up for the time of do.
func withURing(flags uint32, do func(*uring) error) error {
	r := &uring{}
	*(*uint32)(unsafe.Pointer(&r.params[8])) = flags
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 4, uintptr(unsafe.Pointer(&r.params)), 0)
	if errno != 0 {
		return errno
	}
	r.fd = int(fd)
	defer unix.Close(r.fd)
	var err error
	if r.rings, err = unix.Mmap(r.fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		return err
	}
	defer func() { _ = unix.Munmap(r.rings) }()
	if r.entries, err = unix.Mmap(r.fd, 0x10000000, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		return err
	}
	defer func() { _ = unix.Munmap(r.entries) }()
	return do(r)
}

func (r *uring) word(at int) uint32 { return *(*uint32)(unsafe.Pointer(&r.params[at])) }

// submit makes one request, waits for it, and returns its result.
func (r *uring) submit(fill func(entry []byte)) (int, error) {
	const sqOff, cqOff = 40, 80
	fill(r.entries)
	array, tail := r.word(sqOff+24), r.word(sqOff+4)
	*(*uint32)(unsafe.Pointer(&r.rings[array])) = 0
	*(*uint32)(unsafe.Pointer(&r.rings[tail]))++
	if _, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), 1, 1, 1, 0, 0); errno != 0 {
		return -1, errno
	}
	result := *(*int32)(unsafe.Pointer(&r.rings[r.word(cqOff+20)+8]))
	if result < 0 {
		return -1, unix.Errno(-result)
	}
	return int(result), nil
}

// uringOpen opens a file through io_uring.
func uringOpen(path string) error {
	return withURing(0, func(r *uring) error {
		name := append([]byte(path), 0)
		fd, err := r.submit(func(e []byte) {
			e[0] = 18 // IORING_OP_OPENAT
			*(*int32)(unsafe.Pointer(&e[4])) = unix.AT_FDCWD
			*(*uint64)(unsafe.Pointer(&e[16])) = uint64(uintptr(unsafe.Pointer(&name[0])))
		})
		runtime.KeepAlive(name)
		if err != nil {
			return err
		}
		return unix.Close(fd)
	})
}

// manyCreates tries to create files of different names, and says which answer was another than it should be.
func manyCreates(w []string) error {
	n, err := strconv.Atoi(w[0])
	if err != nil {
		return err
	}
	for i := range n {
		fd, err := unix.Open(w[1]+strconv.Itoa(i), unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
		if err == nil {
			unix.Close(fd)
		}
		var errno syscall.Errno
		if !errors.As(err, &errno) || unix.ErrnoName(errno) != w[2] {
			return fmt.Errorf("the file %d: %w", i, err)
		}
	}
	return nil
}

// manyOpens opens each path n times, and says which answer was another than it should be.
func manyOpens(n int, f []string) error {
	for range n {
		for i := 0; i+1 < len(f); i += 2 {
			fd, err := unix.Open(f[i], unix.O_RDONLY|unix.O_CLOEXEC, 0)
			got := "ok"
			if err == nil {
				unix.Close(fd)
			} else {
				var errno unix.Errno
				if !errors.As(err, &errno) {
					return err
				}
				got = unix.ErrnoName(errno)
			}
			if got != f[i+1] && !(f[i+1] == "either" && (got == "ok" || got == "EACCES")) {
				return fmt.Errorf("%s: %s, not %s", f[i], got, f[i+1])
			}
		}
	}
	return nil
}
