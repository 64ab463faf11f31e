package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What can be done to another process. PID is the victim's.
var processAttempts = map[string]attempt{
	"attach":   attach,                                                                                  // attach PID: ptrace
	"vm-read":  func(w []string) (string, error) { return vmMove(unix.SYS_PROCESS_VM_READV, w, "") },    // vm-read PID ADDRESS
	"vm-write": func(w []string) (string, error) { return vmMove(unix.SYS_PROCESS_VM_WRITEV, w, w[3]) }, // vm-write PID ADDRESS TEXT
	"mem-read": memRead,                                                                                 // mem-read PID ADDRESS: through /proc/PID/mem
	"steal-fd": stealFD,                                                                                 // steal-fd PID FD: and read it
	"pid-kill": pidKill,                                                                                 // pid-kill PID: through a pidfd
	"sigio":    sigio,                                                                                   // sigio PID: SIGIO by F_SETOWN
	"prlimit":  prlimit,                                                                                 // prlimit PID: allows it no files
	"affinity": affinity,                                                                                // affinity PID
	"daemon":   daemon,                                                                                  // daemon FILE: a process that goes on writing when all others have ended
	"tick":     tick,
	"wait-for": waitFor, // wait-for FILE: until there is something in it
	"no-new-privileges": func([]string) (string, error) {
		runtime.LockOSThread()
		return "", raw(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	},
	"join": func(w []string) (string, error) {
		return put([]string{"", filepath.Join(w[1], "cgroup.procs"), strconv.Itoa(os.Getpid())})
	}, // join CGROUP
	"enter":     enter,                                                   // enter PID NAMESPACE
	"enter-pid": func(w []string) (string, error) { return enterPID(w) }, // enter-pid PID: all of them, through a pidfd
	"holder":    holder,                                                  // holder SECRET: says its pid and where SECRET is, and waits
	"child-mem": childMem,                                                // child-mem: reads a secret of another program of the same user
	"child-fd":  childFD,                                                 // child-fd: takes its standard input
}

func attach(w []string) (string, error) {
	runtime.LockOSThread()
	pid := number(w[1])
	if err := raw(unix.SYS_PTRACE, unix.PTRACE_ATTACH, uintptr(pid), 0, 0); err != nil {
		return "", err
	}
	var status unix.WaitStatus
	if _, err := unix.Wait4(pid, &status, unix.WALL, nil); err != nil {
		return "", err
	}
	return "", raw(unix.SYS_PTRACE, unix.PTRACE_DETACH, uintptr(pid), 0, 0)
}

func vmMove(nr uintptr, w []string, content string) (string, error) {
	address, err := strconv.ParseUint(w[2], 0, 64)
	if err != nil {
		return "", err
	}
	const most = 64
	buf := make([]byte, most)
	if content != "" {
		buf = []byte(content)
	}
	local := unix.Iovec{Base: &buf[0], Len: uint64(len(buf))}
	remote := unix.RemoteIovec{Base: uintptr(address), Len: len(buf)}
	err = raw(nr, uintptr(number(w[1])), uintptr(unsafe.Pointer(&local)), 1, uintptr(unsafe.Pointer(&remote)), 1, 0)
	return string(buf), err
}

func memRead(w []string) (string, error) {
	address, err := strconv.ParseInt(w[2], 0, 64)
	if err != nil {
		return "", err
	}
	f, err := os.Open("/proc/" + w[1] + "/mem")
	if err != nil {
		return "", err
	}
	defer f.Close()
	const most = 64
	buf := make([]byte, most)
	n, err := f.ReadAt(buf, address)
	return string(buf[:n]), err
}

func stealFD(w []string) (string, error) {
	pid, err := unix.PidfdOpen(number(w[1]), 0)
	if err != nil {
		return "", err
	}
	fd, err := unix.PidfdGetfd(pid, number(w[2]), 0)
	if err != nil {
		return "", err
	}
	return fromStart(fd)
}

func pidKill(w []string) (string, error) {
	fd, err := unix.PidfdOpen(number(w[1]), 0)
	if err != nil {
		return "", err
	}
	return "", unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
}

func sigio(w []string) (string, error) {
	var p [2]int
	if err := unix.Pipe2(p[:], 0); err != nil {
		return "", err
	}
	if _, err := unix.FcntlInt(uintptr(p[0]), unix.F_SETOWN, number(w[1])); err != nil {
		return "", err
	}
	if _, err := unix.FcntlInt(uintptr(p[0]), unix.F_SETSIG, int(unix.SIGKILL)); err != nil {
		return "", err
	}
	if _, err := unix.FcntlInt(uintptr(p[0]), unix.F_SETFL, unix.O_ASYNC); err != nil {
		return "", err
	}
	_, err := unix.Write(p[1], []byte("x"))
	return "", err
}

func prlimit(w []string) (string, error) {
	return "", unix.Prlimit(number(w[1]), unix.RLIMIT_NOFILE, &unix.Rlimit{}, nil)
}

func affinity(w []string) (string, error) {
	var set unix.CPUSet
	set.Set(0)
	return "", unix.SchedSetaffinity(number(w[1]), &set)
}

// daemon leaves the session, the process group and the parent.
func daemon(w []string) (string, error) {
	file, err := filepath.Abs(w[1])
	if err != nil {
		return "", err
	}
	cmd := exec.Command("/proc/self/exe", "tick "+file)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	return "", cmd.Process.Release()
}

// tick appends to a file for some seconds.
func tick(w []string) (string, error) {
	f, err := os.OpenFile(w[1], os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return "", err
	}
	for deadline := time.Now().Add(4 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if _, err := f.WriteString("alive\n"); err != nil {
			return "", err
		}
	}
	return "", f.Close()
}

func enter(w []string) (string, error) {
	runtime.LockOSThread()
	fd, err := unix.Open("/proc/"+w[1]+"/ns/"+w[2], unix.O_RDONLY, 0)
	if err != nil {
		return "", err
	}
	return "", unix.Setns(fd, 0)
}

func enterPID(w []string) (string, error) {
	runtime.LockOSThread()
	fd, err := unix.PidfdOpen(number(w[1]), 0)
	if err != nil {
		return "", err
	}
	return "", unix.Setns(fd, unix.CLONE_NEWUTS|unix.CLONE_NEWNET)
}

// holder is a victim: it holds a secret in memory, in its environment and in an open file, and says where.
func holder(w []string) (string, error) {
	secret := []byte(w[1])
	fmt.Printf("%d %#x\n", os.Getpid(), uintptr(unsafe.Pointer(&secret[0])))
	_, err := os.Stdin.Read(make([]byte, 1)) // until somebody closes it
	runtime.KeepAlive(secret)
	return "", err
}

// started starts a holder and returns where it has its secret.
func started(secret string) (pid int, address string, end func(), err error) {
	cmd := exec.Command("/proc/self/exe", "holder "+secret)
	in, err := cmd.StdinPipe()
	if err != nil {
		return 0, "", nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, "", nil, err
	}
	if err := cmd.Start(); err != nil {
		return 0, "", nil, err
	}
	end = func() { in.Close(); _ = cmd.Wait() }
	if _, err := fmt.Fscan(out, &pid, &address); err != nil {
		end()
		return 0, "", nil, err
	}
	return pid, address, end, nil
}

func childMem([]string) (string, error) {
	const secret = "a-token-of-another-program"
	pid, address, end, err := started(secret)
	if err != nil {
		return "", err
	}
	defer end()
	out, err := memRead([]string{"", strconv.Itoa(pid), address})
	if err == nil && out[:min(len(secret), len(out))] != secret {
		err = errors.New("something else is there")
	}
	return "", err
}

func childFD([]string) (string, error) {
	pid, _, end, err := started("x")
	if err != nil {
		return "", err
	}
	defer end()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return "", err
	}
	_, err = unix.PidfdGetfd(fd, 0, 0)
	return "", err
}

func waitFor(w []string) (string, error) {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if fi, err := os.Stat(w[1]); err == nil && fi.Size() > 0 {
			return "", nil
		}
	}
	return "", errors.New("it never came")
}
