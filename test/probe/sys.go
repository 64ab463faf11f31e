package main

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

var sysAttempts = map[string]attempt{
	"sys":    sys,   // sys NAME: one of the system calls below, with arguments that would work for root
	"ioctl":  ioctl, // ioctl FD REQUEST(0x...)
	"socket": socket,
	"status": status, // status FIELD...: lines of /proc/self/status
	"fds":    fds,    // fds: what /proc/self/fd links to
	"env":    func([]string) (string, error) { return strings.Join(os.Environ(), "\n"), nil },
	"cwd":    func([]string) (string, error) { return os.Getwd() },
	"sleep":  pause, // sleep DURATION
	"forks":  forks, // forks COUNT: how many children may live at once
	"memory": memory,
	"files":  files, // files: how many descriptors may be open
	"exit": func(w []string) (string, error) {
		code, err := strconv.Atoi(w[1])
		if err == nil {
			os.Exit(code)
		}
		return "", err
	},
	"signal": func(w []string) (string, error) { // signal NUMBER: to itself
		number, err := strconv.Atoi(w[1])
		if err == nil {
			err = unix.Kill(os.Getpid(), syscall.Signal(number))
		}
		return "", err
	},
	"kill": func(w []string) (string, error) { // kill PID NUMBER
		pid, err := strconv.Atoi(w[1])
		if err != nil {
			return "", err
		}
		number, err := strconv.Atoi(w[2])
		if err != nil {
			return "", err
		}
		return "", unix.Kill(pid, syscall.Signal(number))
	},
}

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

// Each call is one that an unprivileged process may well make outside, or that root may: an answer other than the filter's own
// tells that the filter let it through.
var calls = map[string]func() error{
	"mount":         func() error { return raw(unix.SYS_MOUNT, text("none"), text("/tmp"), text("tmpfs"), 0, 0) },
	"umount2":       func() error { return raw(unix.SYS_UMOUNT2, text("/tmp"), unix.MNT_DETACH) },
	"pivot_root":    func() error { return raw(unix.SYS_PIVOT_ROOT, text("/tmp"), text("/tmp")) },
	"chroot":        func() error { return raw(unix.SYS_CHROOT, text("/tmp")) },
	"fsopen":        func() error { return raw(unix.SYS_FSOPEN, text("tmpfs"), 0) },
	"fsmount":       func() error { return raw(unix.SYS_FSMOUNT, 0, 0, 0) },
	"fspick":        func() error { return raw(unix.SYS_FSPICK, ^uintptr(99), text("/tmp"), 0) },
	"open_tree":     func() error { return raw(unix.SYS_OPEN_TREE, ^uintptr(99), text("/tmp"), 0) },
	"move_mount":    func() error { return raw(unix.SYS_MOVE_MOUNT, 0, text("/tmp"), 0, text("/tmp"), 0) },
	"mount_setattr": func() error { return raw(unix.SYS_MOUNT_SETATTR, ^uintptr(99), text("/tmp"), 0, room(), 32) },
	"ptrace":        func() error { return raw(unix.SYS_PTRACE, unix.PTRACE_TRACEME) },
	"process_vm_readv": func() error {
		return raw(unix.SYS_PROCESS_VM_READV, uintptr(os.Getpid()), 0, 0, 0, 0, 0)
	},
	"process_vm_writev": func() error {
		return raw(unix.SYS_PROCESS_VM_WRITEV, uintptr(os.Getpid()), 0, 0, 0, 0, 0)
	},
	"pidfd_getfd":       func() error { return raw(unix.SYS_PIDFD_GETFD, 0, 0, 0) },
	"kcmp":              func() error { return raw(unix.SYS_KCMP, uintptr(os.Getpid()), uintptr(os.Getpid()), 0, 0, 0) },
	"bpf":               func() error { return raw(unix.SYS_BPF, 0, room(), 64) },
	"perf_event_open":   func() error { return raw(unix.SYS_PERF_EVENT_OPEN, room(), 0, ^uintptr(0), ^uintptr(0), 0) },
	"userfaultfd":       func() error { return raw(unix.SYS_USERFAULTFD, 1) },
	"io_uring_setup":    func() error { return raw(unix.SYS_IO_URING_SETUP, 1, room()) },
	"io_uring_enter":    func() error { return raw(unix.SYS_IO_URING_ENTER, 0, 0, 0, 0, 0) },
	"io_uring_register": func() error { return raw(unix.SYS_IO_URING_REGISTER, 0, 0, 0, 0) },
	"keyctl":            func() error { return raw(unix.SYS_KEYCTL, 0, ^uintptr(2), 0) },
	"add_key": func() error {
		return raw(unix.SYS_ADD_KEY, text("user"), text("probe"), room(), 4, ^uintptr(2))
	},
	"request_key":       func() error { return raw(unix.SYS_REQUEST_KEY, text("user"), text("probe"), 0, ^uintptr(2)) },
	"kexec_load":        func() error { return raw(unix.SYS_KEXEC_LOAD, 0, 0, 0, 0) },
	"init_module":       func() error { return raw(unix.SYS_INIT_MODULE, room(), 1, text("")) },
	"finit_module":      func() error { return raw(unix.SYS_FINIT_MODULE, 0, text(""), 0) },
	"delete_module":     func() error { return raw(unix.SYS_DELETE_MODULE, text("probe"), 0) },
	"setns":             func() error { return raw(unix.SYS_SETNS, 0, 0) },
	"unshare-user":      func() error { return raw(unix.SYS_UNSHARE, unix.CLONE_NEWUSER) },
	"unshare-net":       func() error { return raw(unix.SYS_UNSHARE, unix.CLONE_NEWNET) },
	"unshare-mount":     func() error { return raw(unix.SYS_UNSHARE, unix.CLONE_NEWNS) },
	"clone-user":        func() error { return raw(unix.SYS_CLONE, unix.CLONE_NEWUSER|uintptr(unix.SIGCHLD)) },
	"clone3":            func() error { return raw(unix.SYS_CLONE3, room(), 64) },
	"open_by_handle_at": func() error { return raw(unix.SYS_OPEN_BY_HANDLE_AT, 0, room(), 0) },
	"personality":       func() error { return raw(unix.SYS_PERSONALITY, 0x0040000) }, // ADDR_NO_RANDOMIZE
	"reboot":            func() error { return raw(unix.SYS_REBOOT, 0, 0, 0, 0) },
	"swapon":            func() error { return raw(unix.SYS_SWAPON, text("/tmp"), 0) },
	"acct":              func() error { return raw(unix.SYS_ACCT, 0) },
	"settimeofday":      func() error { return raw(unix.SYS_SETTIMEOFDAY, room(), 0) },
	"sethostname":       func() error { return raw(unix.SYS_SETHOSTNAME, text("probe"), 5) },
	"quotactl":          func() error { return raw(unix.SYS_QUOTACTL, 0, 0, 0, 0) },
	"setuid0":           func() error { return raw(unix.SYS_SETUID, 0) },
	"getpid":            func() error { return raw(unix.SYS_GETPID) },
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

func ioctl(w []string) (string, error) {
	fd, err := strconv.Atoi(w[1])
	if err != nil {
		return "", err
	}
	request, err := strconv.ParseUint(w[2], 0, 64)
	if err != nil {
		return "", err
	}
	return "", raw(unix.SYS_IOCTL, uintptr(fd), uintptr(request), room())
}

// socket FAMILY TYPE PROTOCOL, each a number.
func socket(w []string) (string, error) {
	var n [3]int
	for i := range n {
		v, err := strconv.Atoi(w[i+1])
		if err != nil {
			return "", err
		}
		n[i] = v
	}
	fd, err := unix.Socket(n[0], n[1], n[2])
	if err != nil {
		return "", err
	}
	return "", unix.Close(fd)
}

func status(w []string) (string, error) {
	b, err := os.ReadFile("/proc/self/status")
	var out []string
	for line := range strings.Lines(string(b)) {
		for _, field := range w[1:] {
			if strings.HasPrefix(line, field+":") {
				out = append(out, strings.Join(strings.Fields(line), " "))
			}
		}
	}
	return strings.Join(out, "\n"), err
}

func fds([]string) (string, error) {
	entries, err := os.ReadDir("/proc/self/fd")
	var out []string
	for _, e := range entries {
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
			out = append(out, e.Name()+" "+target)
		}
	}
	return strings.Join(out, "\n"), err
}

func forks(w []string) (string, error) {
	count, err := strconv.Atoi(w[1])
	if err != nil {
		return "", err
	}
	var started []*exec.Cmd
	defer func() {
		for _, c := range started {
			_ = c.Process.Kill()
			_ = c.Wait()
		}
	}()
	for range count {
		c := exec.Command("/proc/self/exe", "sleep 1m")
		if err := c.Start(); err != nil {
			return strconv.Itoa(len(started)), err
		}
		started = append(started, c)
	}
	return strconv.Itoa(len(started)), nil
}

// memory MIB: touches that many mebibytes.
func memory(w []string) (string, error) {
	mib, err := strconv.Atoi(w[1])
	if err != nil {
		return "", err
	}
	for i := range mib {
		b, err := unix.Mmap(-1, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_POPULATE)
		if err != nil {
			return fmt.Sprintf("%d MiB", i), err
		}
		b[0] = 1
	}
	return fmt.Sprintf("%d MiB", mib), nil
}

func files([]string) (string, error) {
	const most = 1 << 17
	for i := range most {
		if _, err := unix.Open("/dev/null", unix.O_RDONLY, 0); err != nil {
			return strconv.Itoa(i), err
		}
	}
	return strconv.Itoa(most), nil
}
