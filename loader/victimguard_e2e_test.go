//go:build e2e

package loader

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// victimWord is at the same address in every victim: what one that reaches into another changes.
var victimWord = uint64(42)

// guardTry is one attempt at what no sandbox needs. What it changes it changes back.
func guardTry(f []string) error {
	var pid int
	if len(f) > 1 {
		pid, _ = strconv.Atoi(f[1])
	}
	switch f[0] {
	case "bpf-make": // a map
		return closed(raw(unix.SYS_BPF, 0, words32(2, 4, 4, 1), 72))
	case "bpf-list": // the programs' ids
		_, err := raw(unix.SYS_BPF, 11, words32(0), 72)
		return err
	case "bpf-pin": // opens a pin
		path := append([]byte(f[1]), 0)
		at := uint64(uintptr(unsafe.Pointer(&path[0])))
		fd, err := raw(unix.SYS_BPF, 7, words32(uint32(at), uint32(at>>32)), 72)
		runtime.KeepAlive(path)
		return closed(fd, err)
	case "attach": // ptrace
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := unix.PtraceAttach(pid); err != nil {
			return err
		}
		if _, err := unix.Wait4(pid, nil, unix.WALL, nil); err != nil {
			return err
		}
		return unix.PtraceDetach(pid)
	case "traced": // a child lets itself be traced by us
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		cmd := exec.Command(f[1])
		cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
		if err := cmd.Start(); err != nil {
			return err
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return nil
	case "mem":
		return tryOpen(fmt.Sprintf("/proc/%d/mem", pid), unix.O_RDWR)
	case "environ":
		_, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		return err
	case "poke": // its memory
		word := uint64(43)
		from := unix.Iovec{Base: (*byte)(unsafe.Pointer(&word)), Len: 8}
		to := unix.RemoteIovec{Base: uintptr(unsafe.Pointer(&victimWord)), Len: 8}
		_, err := unix.ProcessVMWritev(pid, []unix.Iovec{from}, []unix.RemoteIovec{to}, 0)
		return err
	case "peek":
		var word uint64
		to := unix.Iovec{Base: (*byte)(unsafe.Pointer(&word)), Len: 8}
		from := unix.RemoteIovec{Base: uintptr(unsafe.Pointer(&victimWord)), Len: 8}
		_, err := unix.ProcessVMReadv(pid, []unix.Iovec{to}, []unix.RemoteIovec{from}, 0)
		return err
	case "steal": // a descriptor
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return closed(raw(unix.SYS_PIDFD_GETFD, uintptr(fd), 0, 0))
	case "kill":
		signal, _ := strconv.Atoi(f[2])
		return unix.Kill(pid, syscall.Signal(signal))
	case "pidfd-kill":
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.PidfdSendSignal(fd, unix.SIGWINCH, nil, 0)
	case "limit":
		return unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 512, Max: 512}, nil)
	case "nice":
		return unix.Setpriority(unix.PRIO_PROCESS, pid, 5)
	case "ioprio":
		_, err := raw(unix.SYS_IOPRIO_SET, 1, uintptr(pid), 2<<13|7)
		return err
	case "affinity":
		var set unix.CPUSet
		set.Set(0)
		return unix.SchedSetaffinity(pid, &set)
	case "mount":
		return undo(unix.Mount("tmpfs", f[1], "tmpfs", 0, ""), func() error { return unix.Unmount(f[1], 0) })
	case "umount": // what is mounted there; it is mounted anew
		return undo(unix.Unmount(f[1], 0), func() error { return unix.Mount("tmpfs", f[1], "tmpfs", 0, "") })
	case "remount":
		return unix.Mount("", f[1], "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, "")
	case "bind": // what is at the first path, at the second
		return undo(unix.Mount(f[1], f[2], "", unix.MS_BIND, ""), func() error { return unix.Unmount(f[2], 0) })
	case "fsopen": // a file system that is mounted nowhere
		fd, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return undo(unix.FsconfigCreate(fd), func() error { return closed(unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, 0)) })
	case "open-tree": // and what is in it
		return withTree(f[1], func(tree int) error {
			return closed(unix.Openat(tree, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0))
		})
	case "attach-tree": // of the first path, at the second
		return withTree(f[1], func(tree int) error {
			err := unix.MoveMount(tree, "", unix.AT_FDCWD, f[2], unix.MOVE_MOUNT_F_EMPTY_PATH)
			return undo(err, func() error { return unix.Unmount(f[2], unix.MNT_DETACH) }) // the descriptor is open
		})
	case "mount-setattr":
		return unix.MountSetattr(unix.AT_FDCWD, f[1], 0, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NODEV})
	case "setns":
		fd, err := unix.Open("/proc/self/ns/uts", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Setns(fd, unix.CLONE_NEWUTS)
	case "setns-mounts": // by a thread that shares nothing of its files with the others, and ends
		return inThread(func() error {
			fd, err := unix.Open("/proc/self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return undo(unix.Unshare(unix.CLONE_FS), func() error { return unix.Setns(fd, unix.CLONE_NEWNS) })
		})
	case "unshare-mounts":
		return inThread(func() error { return unix.Unshare(unix.CLONE_NEWNS) })
	case "unshare-pids":
		return inThread(func() error { return unix.Unshare(unix.CLONE_NEWPID) })
	case "new-mounts", "new-users": // a program in a namespace of its own
		flag := uintptr(unix.CLONE_NEWNS)
		if f[0] == "new-users" {
			flag = unix.CLONE_NEWUSER
		}
		cmd := exec.Command(f[1])
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flag}
		return cmd.Run()
	case "perf":
		attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_TASK_CLOCK}
		attr.Size = uint32(unsafe.Sizeof(attr))
		return closed(unix.PerfEventOpen(&attr, 0, -1, -1, unix.PERF_FLAG_FD_CLOEXEC))
	case "log": // the size of its buffer
		_, err := unix.Klogctl(10, nil)
		return err
	case "key":
		_, err := unix.AddKey("user", "victim", []byte("x"), unix.KEY_SPEC_PROCESS_KEYRING)
		return err
	case "module":
		return unix.InitModule([]byte("no module"), "")
	case "kexec":
		_, err := raw(unix.SYS_KEXEC_LOAD, 0, 0, 0)
		return err
	case "family": // one whose module is not there
		fd, err := unix.Socket(unix.AF_X25, unix.SOCK_SEQPACKET, 0)
		return closed(fd, err)
	case "settime":
		var now unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_REALTIME, &now); err != nil {
			return err
		}
		return unix.ClockSettime(unix.CLOCK_REALTIME, &now)
	case "account":
		_, err := raw(unix.SYS_ACCT, 0, 0, 0)
		return err
	case "setuid": // and back; of this thread alone
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if _, err := raw(unix.SYS_SETRESUID, ^uintptr(0), 12345, ^uintptr(0)); err != nil {
			return err
		}
		_, err := raw(unix.SYS_SETRESUID, ^uintptr(0), 0, ^uintptr(0))
		return err
	case "uring-poll":
		return withURing(2, func(*uring) error { return nil }) // IORING_SETUP_SQPOLL
	case "uring-as": // a personality
		return withURing(0, func(r *uring) error {
			id, err := raw(unix.SYS_IO_URING_REGISTER, uintptr(r.fd), 9, 0)
			if err != nil {
				return err
			}
			_, err = r.submit(func(e []byte) { *(*uint16)(unsafe.Pointer(&e[42])) = uint16(id) }) // a NOP
			return err
		})
	case "uring-command":
		return withFD("/dev/null", unix.O_RDWR, func(fd int) error {
			return withURing(0, func(r *uring) error {
				_, err := r.submit(func(e []byte) {
					e[0] = 46 // IORING_OP_URING_CMD
					*(*int32)(unsafe.Pointer(&e[4])) = int32(fd)
				})
				return err
			})
		})
	case "shm": // shared memory, and its end
		id, err := unix.SysvShmGet(unix.IPC_PRIVATE, 4096, unix.IPC_CREAT|0o600)
		return undo(err, func() error {
			_, err := unix.SysvShmCtl(id, unix.IPC_RMID, nil)
			return err
		})
	case "become": // a program
		return unix.Exec(f[1], f[1:2], nil)
	case "code": // memory of no file that is executed
		return mapCode(-1, unix.MAP_PRIVATE|unix.MAP_ANON)
	case "code-shared":
		return mapCode(-1, unix.MAP_SHARED|unix.MAP_ANON)
	case "code-memfd":
		fd, err := unix.MemfdCreate("code", unix.MFD_CLOEXEC)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return undo(unix.Ftruncate(fd, 4096), func() error { return mapCode(fd, unix.MAP_SHARED) })
	}
	return fmt.Errorf("no such attempt: %q", f)
}

// mapCode maps memory to execute, at once and after it was mapped to write.
func mapCode(fd, flags int) error {
	for _, first := range []int{unix.PROT_READ | unix.PROT_EXEC, unix.PROT_READ | unix.PROT_WRITE} {
		m, err := unix.Mmap(fd, 0, 4096, first, flags)
		if err != nil {
			return err
		}
		if err := errors.Join(unix.Mprotect(m, unix.PROT_READ|unix.PROT_EXEC), unix.Munmap(m)); err != nil {
			return err
		}
	}
	return nil
}

// withTree copies the mount of a path for the time of do. It is nowhere to be seen.
func withTree(path string, do func(tree int) error) error {
	tree, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	return do(tree)
}

// inThread does something in a thread that ends with it.
func inThread(do func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked
		done <- do()
	}()
	return <-done
}

// words32 is the address of what a system call reads: so many words, and zeros.
func words32(w ...uint32) uintptr {
	attr := new([32]uint32)
	copy(attr[:], w)
	kept = append(kept, attr)
	return uintptr(unsafe.Pointer(attr))
}

var kept []*[32]uint32

func raw(call uintptr, a ...uintptr) (int, error) {
	var args [6]uintptr
	copy(args[:], a)
	n, _, errno := unix.Syscall6(call, args[0], args[1], args[2], args[3], args[4], args[5])
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}

func closed(fd int, err error) error {
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func undo(err error, how func() error) error {
	if err != nil {
		return err
	}
	return how()
}

// manyGuards tries the same n times and says which answer was another than it should be.
func manyGuards(n int, want string, f []string) error {
	for range n {
		var errno unix.Errno
		if err := guardTry(f); !errors.As(err, &errno) || unix.ErrnoName(errno) != want {
			return errors.Join(fmt.Errorf("%s: the answer is not %s", f[0], want), err)
		}
	}
	return nil
}
