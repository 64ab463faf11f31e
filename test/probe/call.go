package main

import (
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Each call works for root outside, in namespaces of its own where it would change the machine, but where a comment says
// otherwise; there an answer other than the filter's own tells that the filter let it through.
var calls = map[string]func() error{
	"getpid": func() error { return raw(unix.SYS_GETPID) },

	// Mounts.
	"mount":     func() error { return raw(unix.SYS_MOUNT, text("none"), text("/tmp"), text("tmpfs"), 0, 0) },
	"bind":      func() error { return raw(unix.SYS_MOUNT, text("/tmp"), text("/tmp"), 0, unix.MS_BIND, 0) },
	"remount":   remount,
	"proc":      func() error { return raw(unix.SYS_MOUNT, text("none"), text("/tmp"), text("proc"), 0, 0) },
	"cgroup2":   func() error { return raw(unix.SYS_MOUNT, text("none"), text("/tmp"), text("cgroup2"), 0, 0) },
	"fsopen":    func() error { return raw(unix.SYS_FSOPEN, text("tmpfs"), 0) },
	"fsmount":   func() error { return raw(unix.SYS_FSMOUNT, 0, 0, 0) }, // no file system context: EBADF
	"fspick":    func() error { return raw(unix.SYS_FSPICK, here, text("/proc"), 0) },
	"open_tree": func() error { return raw(unix.SYS_OPEN_TREE, here, text("/tmp"), unix.OPEN_TREE_CLONE) },
	"mount_setattr": func() error {
		var a [32]byte
		return raw(unix.SYS_MOUNT_SETATTR, here, text("/proc"), 0, uintptr(unsafe.Pointer(&a)), 32)
	},
	"move_mount": func() error { return raw(unix.SYS_MOVE_MOUNT, 0, text("/tmp"), 0, text("/tmp"), 0) }, // not one: ENOTDIR
	"umount2":    func() error { return raw(unix.SYS_UMOUNT2, text("/proc"), unix.MNT_DETACH) },
	"pivot_root": func() error { return raw(unix.SYS_PIVOT_ROOT, text("/"), text("/")) }, // already there: EBUSY
	"chroot":     func() error { return raw(unix.SYS_CHROOT, text("/tmp")) },
	"quotactl":   func() error { const sync = 0x800001 << 8; return raw(unix.SYS_QUOTACTL, sync, 0, 0, 0) },
	"swapon":     func() error { return raw(unix.SYS_SWAPON, text("/tmp"), 0) }, // no file: EINVAL
	"swapoff":    func() error { return raw(unix.SYS_SWAPOFF, text("/nowhere")) },
	"open_by_handle_at": func() error {
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
	"fanotify":     func() error { _, err := unix.FanotifyInit(unix.FAN_REPORT_FID, 0); return err },
	"set-id":       func() error { return setID(unix.SYS_FCHMODAT, 0o4755) },
	"set-gid":      func() error { return setID(unix.SYS_FCHMODAT, 0o2755) },
	"set-id-2":     func() error { return setID(unix.SYS_FCHMODAT2, 0o4755) },
	"set-id-high":  func() error { return setID(unix.SYS_FCHMODAT, 1<<32|0o4755) },
	"sticky":       func() error { return setID(unix.SYS_FCHMODAT, 0o1755) },
	"memfd_secret": func() error { return raw(unix.SYS_MEMFD_SECRET, 0) },

	// Namespaces.
	"unshare-user":    func() error { return unshared(unix.CLONE_NEWUSER) },
	"unshare-net":     func() error { return raw(unix.SYS_UNSHARE, unix.CLONE_NEWNET) },
	"unshare-mount":   func() error { return raw(unix.SYS_UNSHARE, unix.CLONE_NEWNS) },
	"unshare-pid":     func() error { return raw(unix.SYS_UNSHARE, unix.CLONE_NEWPID) },
	"unshare-ipc":     func() error { return raw(unix.SYS_UNSHARE, unix.CLONE_NEWIPC) },
	"unshare-uts":     func() error { return raw(unix.SYS_UNSHARE, unix.CLONE_NEWUTS) },
	"unshare-cgroup":  func() error { return raw(unix.SYS_UNSHARE, unix.CLONE_NEWCGROUP) },
	"unshare-time":    func() error { return raw(unix.SYS_UNSHARE, unix.CLONE_NEWTIME) },
	"unshare-fs":      func() error { return raw(unix.SYS_UNSHARE, unix.CLONE_FS) },
	"clone-user":      func() error { leaveChroot(); return clone(unix.CLONE_NEWUSER) },
	"clone-user-high": func() error { leaveChroot(); return clone(unix.CLONE_NEWUSER | 1<<40) },
	"clone-net":       func() error { return clone(unix.CLONE_NEWNET) },
	"clone-plain":     func() error { return clone(0) },
	"clone3":          clone3,
	"setns": func() error {
		fd, err := unix.Open("/proc/self/ns/uts", unix.O_RDONLY, 0)
		if err != nil {
			return err
		}
		return raw(unix.SYS_SETNS, uintptr(fd), 0)
	},

	// Other processes.
	"ptrace":            func() error { return raw(unix.SYS_PTRACE, unix.PTRACE_TRACEME) },
	"ptrace-child":      ptraceChild,
	"process_vm_readv":  func() error { return vmCopy(unix.SYS_PROCESS_VM_READV) },
	"process_vm_writev": func() error { return vmCopy(unix.SYS_PROCESS_VM_WRITEV) },
	"process_madvise": func() error {
		fd, err := unix.PidfdOpen(os.Getpid(), 0)
		if err != nil {
			return err
		}
		iov := unix.Iovec{Base: &page[0], Len: 1}
		return raw(unix.SYS_PROCESS_MADVISE, uintptr(fd), uintptr(unsafe.Pointer(&iov)), 1, unix.MADV_COLD, 0)
	},
	"pidfd_getfd": func() error {
		fd, err := unix.PidfdOpen(os.Getpid(), 0)
		if err != nil {
			return err
		}
		return raw(unix.SYS_PIDFD_GETFD, uintptr(fd), 0, 0)
	},
	"kcmp":         func() error { return raw(unix.SYS_KCMP, self, self, 0, 0, 0) },
	"self-mem":     func() error { return opened("/proc/self/mem", unix.O_RDWR) },
	"init-mem":     func() error { return opened("/proc/1/mem", unix.O_RDONLY) },
	"init-environ": func() error { return opened("/proc/1/environ", unix.O_RDONLY) },
	"init-fd":      func() error { return opened("/proc/1/fd", unix.O_RDONLY|unix.O_DIRECTORY) },
	"init-root":    func() error { return opened("/proc/1/root/", unix.O_RDONLY|unix.O_DIRECTORY) },
	"init-kill":    func() error { return unix.Kill(1, unix.SIGKILL) },
	"nice":         func() error { return unix.Setpriority(unix.PRIO_PROCESS, 0, -5) },
	"realtime":     realtime,
	"io-priority":  func() error { return raw(unix.SYS_IOPRIO_SET, 1, 0, 1<<13) },
	"core-limit":   coreLimit,
	"setuid":       func() error { return raw(unix.SYS_SETUID, 0) },
	"setgroups":    func() error { return raw(unix.SYS_SETGROUPS, 0, 0) },
	"securebits":   func() error { return raw(unix.SYS_PRCTL, unix.PR_SET_SECUREBITS, 1) },
	"capset":       capset,
	"seccomp-listener": func() error {
		f := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW}
		p := unix.SockFprog{Len: 1, Filter: &f}
		runtime.LockOSThread()
		return raw(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, uintptr(unsafe.Pointer(&p)))
	},
	"landlock": func() error { return raw(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, 1) },

	// Kernel interfaces with a history.
	"bpf": func() error {
		var a [128]byte
		a[0], a[4], a[8], a[12] = unix.BPF_MAP_TYPE_ARRAY, 4, 4, 1
		return raw(unix.SYS_BPF, unix.BPF_MAP_CREATE, uintptr(unsafe.Pointer(&a)), 72)
	},
	"perf_event_open": func() error {
		a := unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_CPU_CLOCK, Size: unix.PERF_ATTR_SIZE_VER1}
		return raw(unix.SYS_PERF_EVENT_OPEN, uintptr(unsafe.Pointer(&a)), 0, ^uintptr(0), ^uintptr(0), 0)
	},
	"userfaultfd":       func() error { return raw(unix.SYS_USERFAULTFD, unix.O_CLOEXEC) },
	"io_uring_setup":    func() error { var p [120]byte; return raw(unix.SYS_IO_URING_SETUP, 4, uintptr(unsafe.Pointer(&p))) },
	"io_setup":          func() error { var c uint64; return raw(unix.SYS_IO_SETUP, 128, uintptr(unsafe.Pointer(&c))) },
	"io_uring_enter":    func() error { return raw(unix.SYS_IO_URING_ENTER, 0, 0, 0, 0, 0) }, // no ring: EOPNOTSUPP
	"io_uring_register": func() error { return raw(unix.SYS_IO_URING_REGISTER, 0, 0, 0, 0) }, // likewise
	"keyctl":            func() error { return raw(unix.SYS_KEYCTL, unix.KEYCTL_GET_KEYRING_ID, ^uintptr(2), 1) },
	"add_key":           func() error { return raw(unix.SYS_ADD_KEY, text("user"), text("probe"), room(), 4, ^uintptr(1)) },
	"request_key":       func() error { return raw(unix.SYS_REQUEST_KEY, text("user"), text("probe"), 0, ^uintptr(2)) }, // ENOKEY
	"personality":       func() error { return raw(unix.SYS_PERSONALITY, 0x0040000) },                                   // ADDR_NO_RANDOMIZE
	"persona-ask":       func() error { return raw(unix.SYS_PERSONALITY, 0xffffffff) },
	"modify_ldt":        modifyLDT,

	// The machine.
	"kexec_load":    func() error { return raw(unix.SYS_KEXEC_LOAD, 0, 0, 0, 0) }, // unloads what isn't loaded
	"init_module":   func() error { return raw(unix.SYS_INIT_MODULE, room(), 1, text("")) },
	"finit_module":  func() error { return raw(unix.SYS_FINIT_MODULE, 0, text(""), 0) },
	"delete_module": func() error { return raw(unix.SYS_DELETE_MODULE, text("probe"), 0) },
	"reboot":        func() error { return raw(unix.SYS_REBOOT, 0, 0, 0, 0) }, // wrong magic: EINVAL
	"restart":       restart,
	"acct":          func() error { return raw(unix.SYS_ACCT, 0) },
	"syslog":        func() error { return raw(unix.SYS_SYSLOG, 10, 0, 0) },
	"settimeofday":  setTimeZone,
	"clock_settime": func() error { return raw(unix.SYS_CLOCK_SETTIME, 77, room()) },            // no such clock: EINVAL
	"adjtimex":      func() error { var t unix.Timex; _, err := unix.Adjtimex(&t); return err }, // modes 0: only asks
	"sethostname":   func() error { return raw(unix.SYS_SETHOSTNAME, text("probe"), 5) },
	"setdomainname": func() error { return raw(unix.SYS_SETDOMAINNAME, text("probe"), 5) },
	"vhangup":       func() error { _, _ = unix.Setsid(); return raw(unix.SYS_VHANGUP) },

	// Terminals.
	"tiocsti":      ttyIoctl(unix.TIOCSTI, 'x'),
	"tiocsti-high": ttyIoctl(unix.TIOCSTI|1<<32, 'x'),
	"tiocsetd":     ttyIoctl(unix.TIOCSETD, 0),
	"tcgets":       ttyIoctl(unix.TCGETS, 0),

	"route-del": func() error { return route(unix.RTM_DELROUTE) },

	// The x32 table is the same with bit 30 set; a kernel without x32 answers ENOSYS by itself.
	"x32-getpid": func() error { return raw(unix.SYS_GETPID | 0x40000000) },
}

func sys(w []string) (string, error) {
	call, ok := calls[w[1]]
	if !ok {
		return "", fmt.Errorf("no system call is called %q here", w[1])
	}
	return "", call()
}
