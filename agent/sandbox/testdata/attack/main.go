// Command attack tries one way out of a sandbox and says what the kernel answered: "ok", or the name of the errno. It
// runs natively first, so that a test knows that the attack would work where nothing stops it.
package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sort"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

var self = uintptr(os.Getpid())

func call(nr uintptr, args ...uintptr) error {
	var a [6]uintptr
	copy(a[:], args)
	_, _, errno := syscall.RawSyscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5])
	if errno != 0 {
		return errno
	}
	return nil
}

func text(s string) uintptr {
	b, _ := unix.BytePtrFromString(s)
	return uintptr(unsafe.Pointer(b))
}

// fork runs a system call that would change this process in a child, and returns its errno.
func clone(flags uintptr) error {
	runtime.LockOSThread()
	pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, flags|uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		return errno
	}
	if pid == 0 {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
	var status unix.WaitStatus
	_, err := unix.Wait4(int(pid), &status, 0, nil)
	return err
}

func socket(family, kind, protocol int) func() error {
	return func() error {
		fd, err := unix.Socket(family, kind, protocol)
		if err == nil {
			unix.Close(fd)
		}
		return err
	}
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
		return call(unix.SYS_IOCTL, uintptr(slave), request, uintptr(unsafe.Pointer(&buf)))
	}
}

func memfdExec(flags int) func() error {
	return func() error {
		image, err := os.ReadFile("/proc/self/exe")
		if err != nil {
			return err
		}
		fd, err := unix.MemfdCreate("x", flags)
		if err != nil {
			return err
		}
		if _, err := unix.Write(fd, image); err != nil {
			return err
		}
		out, err := exec.Command(fmt.Sprintf("/proc/self/fd/%d", fd), "nothing").CombinedOutput()
		if err == nil && string(out) != "ok\n" {
			return errors.New(string(out))
		}
		return err
	}
}

func open(name string, flags int) func() error {
	return func() error {
		fd, err := unix.Open(name, flags, 0)
		if err == nil {
			unix.Close(fd)
		}
		return err
	}
}

var attacks = map[string]func() error{
	"nothing": func() error { return nil },

	"mount":     func() error { return call(unix.SYS_MOUNT, text("none"), text("/tmp"), text("tmpfs"), 0, 0) },
	"bind":      func() error { return call(unix.SYS_MOUNT, text("/tmp"), text("/tmp"), 0, unix.MS_BIND, 0) },
	"remount":   func() error { return call(unix.SYS_MOUNT, 0, text("/"), 0, unix.MS_REMOUNT|unix.MS_BIND, 0) },
	"fsopen":    func() error { return call(unix.SYS_FSOPEN, text("tmpfs"), 0) },
	"open_tree": func() error { return call(unix.SYS_OPEN_TREE, ^uintptr(99), text("/tmp"), 1) },
	"mount_setattr": func() error {
		var a [32]byte
		return call(unix.SYS_MOUNT_SETATTR, ^uintptr(99), text("/tmp"), 0, uintptr(unsafe.Pointer(&a)), 32)
	},
	"umount":     func() error { return call(unix.SYS_UMOUNT2, text("/tmp"), unix.MNT_DETACH) },
	"pivot_root": func() error { return call(unix.SYS_PIVOT_ROOT, text("/"), text("/")) },
	"chroot":     func() error { return call(unix.SYS_CHROOT, text("/tmp")) },

	"unshare-user":    func() error { return call(unix.SYS_UNSHARE, unix.CLONE_NEWUSER) },
	"unshare-net":     func() error { return call(unix.SYS_UNSHARE, unix.CLONE_NEWNET) },
	"unshare-mnt":     func() error { return call(unix.SYS_UNSHARE, unix.CLONE_NEWNS) },
	"unshare-time":    func() error { return call(unix.SYS_UNSHARE, unix.CLONE_NEWTIME) },
	"unshare-fs":      func() error { return call(unix.SYS_UNSHARE, unix.CLONE_FS) },
	"clone-user":      func() error { leaveChroot(); return clone(unix.CLONE_NEWUSER) },
	"clone-user-high": func() error { leaveChroot(); return clone(unix.CLONE_NEWUSER | 1<<40) },
	"clone-net":       func() error { return clone(unix.CLONE_NEWNET) },
	"clone-plain":     func() error { return clone(0) },
	"clone3":          func() error { return call(unix.SYS_CLONE3, 0, 0) },
	"setns": func() error {
		fd, err := unix.Open("/proc/self/ns/uts", unix.O_RDONLY, 0)
		if err != nil {
			return err
		}
		return call(unix.SYS_SETNS, uintptr(fd), 0)
	},

	"ptrace": func() error {
		runtime.LockOSThread()
		child := exec.Command("/proc/self/exe", "wait")
		if err := child.Start(); err != nil {
			return err
		}
		defer child.Process.Kill()
		return call(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(child.Process.Pid), 0, 0)
	},
	"wait": func() error { select {} },
	"process_vm_readv": func() error {
		var b [8]byte
		iov := unix.Iovec{Base: &b[0], Len: 8}
		return call(unix.SYS_PROCESS_VM_READV, self, uintptr(unsafe.Pointer(&iov)), 1, uintptr(unsafe.Pointer(&iov)), 1, 0)
	},
	"pidfd_getfd": func() error {
		fd, err := unix.PidfdOpen(os.Getpid(), 0)
		if err != nil {
			return err
		}
		return call(unix.SYS_PIDFD_GETFD, uintptr(fd), 0, 0)
	},
	"kcmp":         func() error { return call(unix.SYS_KCMP, self, self, 0, 0, 0) },
	"init-mem":     open("/proc/1/mem", unix.O_RDONLY),
	"init-environ": open("/proc/1/environ", unix.O_RDONLY),
	"init-fd":      open("/proc/1/fd", unix.O_RDONLY|unix.O_DIRECTORY),
	"init-root":    open("/proc/1/root/", unix.O_RDONLY|unix.O_DIRECTORY),
	"self-mem":     open("/proc/self/mem", unix.O_RDWR),
	"init-kill":    func() error { return unix.Kill(1, unix.SIGKILL) },

	"bpf": func() error {
		var a [128]byte
		a[0], a[4], a[8], a[12] = 2, 4, 4, 1
		return call(unix.SYS_BPF, 0, uintptr(unsafe.Pointer(&a)), 72)
	},
	"perf": func() error {
		a := unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_CPU_CLOCK, Size: unix.PERF_ATTR_SIZE_VER1}
		return call(unix.SYS_PERF_EVENT_OPEN, uintptr(unsafe.Pointer(&a)), 0, ^uintptr(0), ^uintptr(0), 0)
	},
	"userfaultfd": func() error { return call(unix.SYS_USERFAULTFD, unix.O_CLOEXEC) },
	"io_uring":    func() error { var p [120]byte; return call(unix.SYS_IO_URING_SETUP, 4, uintptr(unsafe.Pointer(&p))) },
	"keyctl":      func() error { return call(unix.SYS_KEYCTL, 0, ^uintptr(2), 1) },
	"add_key":     func() error { return call(unix.SYS_ADD_KEY, text("user"), text("k"), text("v"), 1, ^uintptr(2)) },
	"personality": func() error { return call(unix.SYS_PERSONALITY, 0x40000) },
	"persona-ask": func() error { return call(unix.SYS_PERSONALITY, 0xffffffff) },
	"syslog":      func() error { return call(unix.SYS_SYSLOG, 10, 0, 0) },
	"handle": func() error {
		h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, "/usr", 0)
		if err != nil {
			return err
		}
		root, err := unix.Open("/usr", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return err
		}
		_, err = unix.OpenByHandleAt(root, h, unix.O_RDONLY)
		return err
	},
	"fanotify": func() error { _, err := unix.FanotifyInit(unix.FAN_REPORT_FID, 0); return err },
	"seccomp-listener": func() error {
		f := unix.SockFilter{Code: 6, K: 0x7fff0000}
		p := unix.SockFprog{Len: 1, Filter: &f}
		return call(unix.SYS_SECCOMP, 1, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, uintptr(unsafe.Pointer(&p)))
	},
	"landlock": func() error { return call(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, 1) },

	"tiocsti":      ttyIoctl(unix.TIOCSTI, 'x'),
	"tiocsti-high": ttyIoctl(unix.TIOCSTI|1<<32, 'x'),
	"tiocsetd":     ttyIoctl(unix.TIOCSETD, 0),
	"tcgets":       ttyIoctl(unix.TCGETS, 0),

	"packet":        socket(unix.AF_PACKET, unix.SOCK_RAW, 0),
	"vsock":         socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0),
	"alg":           socket(unix.AF_ALG, unix.SOCK_SEQPACKET, 0),
	"raw":           socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP),
	"raw6":          socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW),
	"mptcp":         socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP),
	"sctp":          socket(unix.AF_INET, unix.SOCK_SEQPACKET, unix.IPPROTO_SCTP),
	"netlink-audit": socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_AUDIT),
	"netlink-nf":    socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER),
	"netlink-route": socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE),
	"unix":          socket(unix.AF_UNIX, unix.SOCK_STREAM, 0),
	"tcp":           socket(unix.AF_INET, unix.SOCK_STREAM, 0),
	"udp6":          socket(unix.AF_INET6, unix.SOCK_DGRAM, 0),
	"port-80": func() error {
		l, err := net.Listen("tcp", "127.0.0.1:80")
		if err == nil {
			l.Close()
		}
		return err
	},
	"route-del": func() error { return routeDelete() },

	"setuid":    func() error { return call(unix.SYS_SETUID, 0) },
	"setgroups": func() error { return call(unix.SYS_SETGROUPS, 0, 0) },
	"mknod":     func() error { os.Remove("node"); return unix.Mknod("node", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))) },
	"mknod-sda": func() error {
		os.Remove("node2")
		return unix.Mknod("node2", unix.S_IFBLK|0o666, int(unix.Mkdev(254, 0)))
	},
	"sethostname": func() error { return call(unix.SYS_SETHOSTNAME, text("x"), 1) },
	"memfd":       memfdExec(0),
	"memfd-exec":  memfdExec(unix.MFD_EXEC),
	"nice":        func() error { return unix.Setpriority(unix.PRIO_PROCESS, 0, -5) },
	"reboot":      func() error { return call(unix.SYS_REBOOT, 0, 0, 0, 0) },
	"swapoff":     func() error { return call(unix.SYS_SWAPOFF, text("/nowhere")) },
	"set-id":      func() error { return setID(unix.SYS_FCHMODAT, 0o4755) },
	"set-gid":     func() error { return setID(unix.SYS_FCHMODAT, 0o2755) },
	"set-id-2":    func() error { return setID(452, 0o4755) }, // fchmodat2
	"set-id-high": func() error { return setID(unix.SYS_FCHMODAT, 1<<32|0o4755) },
	"chmod":       func() error { return setID(unix.SYS_FCHMODAT, 0o1755) },
	"core-limit":  coreLimit,
	"chown":       func() error { os.WriteFile("c", nil, 0o600); return os.Chown("c", 0, 0) },
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

// setID gives a file a mode.
func setID(nr, mode uintptr) error {
	if err := os.WriteFile("s", nil, 0o600); err != nil {
		return err
	}
	at := unix.AT_FDCWD
	return call(nr, uintptr(at), text("s"), mode)
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

// routeDelete asks the kernel to delete the route that makes every address local.
func routeDelete() error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	m := []byte{28, 0, 0, 0, unix.RTM_DELROUTE, 0, 5, 0, 1, 0, 0, 0, 0, 0, 0, 0, unix.AF_INET, 0, 0, 0, unix.RT_TABLE_LOCAL, 0, 0, unix.RTN_LOCAL, 0, 0, 0, 0}
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

func main() {
	if len(os.Args) == 1 {
		var names []string
		for name := range attacks {
			names = append(names, name)
		}
		sort.Strings(names)
		for _, name := range names {
			fmt.Println(name)
		}
		return
	}
	for _, name := range os.Args[1:] {
		err := attacks[name]()
		var errno syscall.Errno
		switch {
		case err == nil:
			fmt.Println("ok")
		case errors.As(err, &errno):
			fmt.Println(unix.ErrnoName(errno))
		default:
			fmt.Println(err)
		}
	}
}
