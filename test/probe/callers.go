package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

func raw(nr uintptr, args ...uintptr) error {
	var a [6]uintptr
	copy(a[:], args)
	if _, _, errno := unix.Syscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5]); errno != 0 {
		return errno
	}
	return nil
}

func text(s string) uintptr {
	p, err := unix.BytePtrFromString(s)
	if err != nil {
		panic(err)
	}
	keep = append(keep, p)
	return uintptr(unsafe.Pointer(p))
}

// keep holds what system calls were given by address.
var keep []*byte

var page = make([]byte, 4096)

func room() uintptr { return uintptr(unsafe.Pointer(&page[0])) }

var (
	self = uintptr(os.Getpid())
	here = ^uintptr(99) // AT_FDCWD
)

func opened(name string, flags int) error {
	fd, err := unix.Open(name, flags|unix.O_CLOEXEC, 0)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

// remount asks for what is there already.
func remount() error {
	if err := raw(unix.SYS_MOUNT, text("none"), text("/tmp"), text("tmpfs"), 0, 0); err != nil {
		return err
	}
	return raw(unix.SYS_MOUNT, 0, text("/tmp"), 0, unix.MS_REMOUNT|unix.MS_BIND, 0)
}

// clone starts a child in new namespaces that ends at once.
func clone(flags uintptr) error {
	runtime.LockOSThread()
	pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, flags|uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		return errno
	}
	if pid == 0 {
		_, _, _ = syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
	var status unix.WaitStatus
	_, err := unix.Wait4(int(pid), &status, 0, nil)
	return err
}

// clone3 keeps its flags where a filter can't look.
func clone3() error {
	args := [8]uint64{0: unix.CLONE_NEWNET, 4: uint64(unix.SIGCHLD)}
	runtime.LockOSThread()
	pid, _, errno := syscall.RawSyscall(unix.SYS_CLONE3, uintptr(unsafe.Pointer(&args)), unsafe.Sizeof(args), 0)
	if errno != 0 {
		return errno
	}
	if pid == 0 {
		_, _, _ = syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
	var status unix.WaitStatus
	_, err := unix.Wait4(int(pid), &status, 0, nil)
	return err
}

// unshared is for what only a process of one thread may do.
func unshared(flags uintptr) error {
	leaveChroot()
	pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		return errno
	}
	if pid == 0 {
		_, _, errno := syscall.RawSyscall(unix.SYS_UNSHARE, flags, 0, 0)
		_, _, _ = syscall.RawSyscall(unix.SYS_EXIT_GROUP, uintptr(errno), 0, 0)
	}
	var status unix.WaitStatus
	if _, err := unix.Wait4(int(pid), &status, 0, nil); err != nil {
		return err
	}
	if status.ExitStatus() != 0 {
		return syscall.Errno(status.ExitStatus())
	}
	return nil
}

// leaveChroot tries to, because the kernel makes no user namespace for a task that is in one, and the tests may be:
// entering a mount namespace, even the own, resets the root directory.
func leaveChroot() {
	runtime.LockOSThread()
	if unix.Unshare(unix.CLONE_FS) != nil {
		return
	}
	if fd, err := unix.Open("/proc/thread-self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
		_ = unix.Setns(fd, unix.CLONE_NEWNS)
	}
}

func ptraceChild() error {
	runtime.LockOSThread()
	child := exec.Command("/proc/self/exe", "sleep 1m")
	if err := child.Start(); err != nil {
		return err
	}
	defer func() { _ = child.Process.Kill(); _ = child.Wait() }()
	return raw(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(child.Process.Pid), 0, 0)
}

func vmCopy(nr uintptr) error {
	var b [8]byte
	iov := unix.Iovec{Base: &b[0], Len: 8}
	return raw(nr, self, uintptr(unsafe.Pointer(&iov)), 1, uintptr(unsafe.Pointer(&iov)), 1, 0)
}

func realtime() error {
	priority := int32(1)
	return raw(unix.SYS_SCHED_SETSCHEDULER, 0, 1, uintptr(unsafe.Pointer(&priority)))
}

// coreLimit sets RLIMIT_CORE to 0, with which the kernel runs the host's core_pattern program, and says whether it is.
func coreLimit() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return err
	}
	var now unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &now); err != nil {
		return err
	}
	if now.Cur == 1 {
		return unix.EALREADY
	}
	return nil
}

// capset takes every capability.
func capset() error {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	data[0] = unix.CapUserData{Effective: 1 << unix.CAP_SYS_ADMIN, Permitted: 1 << unix.CAP_SYS_ADMIN}
	return unix.Capset(&head, &data[0])
}

// restart reboots what the kernel takes for the machine: in a pid namespace that is its first process.
func restart() error {
	return unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
}

// setTimeZone sets the kernel's time zone to what it is.
func setTimeZone() error {
	var zone [2]int32
	if err := raw(unix.SYS_GETTIMEOFDAY, 0, uintptr(unsafe.Pointer(&zone))); err != nil {
		return err
	}
	return raw(unix.SYS_SETTIMEOFDAY, 0, uintptr(unsafe.Pointer(&zone)))
}

// pty returns the slave of a new terminal.
func pty() (int, error) {
	master, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return -1, err
	}
	n, err := unix.IoctlGetInt(master, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		return -1, err
	}
	return unix.Open(fmt.Sprintf("/dev/pts/%d", n), unix.O_RDWR|unix.O_NOCTTY, 0)
}

func ttyIoctl(request uintptr, arg byte) func() error {
	return func() error {
		slave, err := pty()
		if err != nil {
			return fmt.Errorf("no terminal: %w", err)
		}
		var buf [64]byte
		buf[0] = arg
		return raw(unix.SYS_IOCTL, uintptr(slave), request, uintptr(unsafe.Pointer(&buf)))
	}
}

// route asks the kernel to change the route that makes every address of a sandbox local.
func route(kind uint16) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	m := []byte{28, 0, 0, 0, byte(kind), 0, 5, 0, 1, 0, 0, 0, 0, 0, 0, 0, unix.AF_INET, 0, 0, 0, unix.RT_TABLE_LOCAL, 0, 0, unix.RTN_LOCAL, 0, 0, 0, 0}
	if err := unix.Sendto(fd, m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil || n < 20 {
		return err
	}
	if code := *(*int32)(unsafe.Pointer(&answer[16])); code != 0 {
		return syscall.Errno(-code)
	}
	return nil
}

// setID gives a file of its own a mode.
func setID(nr, mode uintptr) error {
	if err := os.WriteFile("s", nil, 0o600); err != nil {
		return err
	}
	return raw(nr, here, text("s"), mode)
}
