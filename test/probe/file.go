package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

var fileAttempts = map[string]attempt{
	"open":     open,                                                                                   // open r|w|rw|c|path PATH
	"read":     read,                                                                                   // read PATH
	"write":    write,                                                                                  // write PATH TEXT
	"ls":       ls,                                                                                     // ls DIR
	"stat":     func(w []string) (string, error) { var s unix.Stat_t; return "", unix.Stat(w[1], &s) }, // stat PATH
	"mkdir":    func(w []string) (string, error) { return "", unix.Mkdir(w[1], 0o755) },
	"rmdir":    func(w []string) (string, error) { return "", unix.Rmdir(w[1]) },
	"unlink":   func(w []string) (string, error) { return "", unix.Unlink(w[1]) },
	"rename":   func(w []string) (string, error) { return "", unix.Rename(w[1], w[2]) },
	"link":     func(w []string) (string, error) { return "", unix.Link(w[1], w[2]) },
	"symlink":  func(w []string) (string, error) { return "", unix.Symlink(w[1], w[2]) },
	"truncate": func(w []string) (string, error) { return "", unix.Truncate(w[1], 0) },
	"chown":    func(w []string) (string, error) { return "", unix.Chown(w[1], 0, 0) },
	"mknod": func(w []string) (string, error) {
		return "", unix.Mknod(w[1], unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3)))
	},
	"mknod-of": func(w []string) (string, error) { // mknod-of PATH MAJOR MINOR
		return "", unix.Mknod(w[1], unix.S_IFCHR|0o666, int(unix.Mkdev(uint32(number(w[2])), uint32(number(w[3])))))
	},
	"passed": passed, // passed SOCKET: opens anew, to read and write, what a server passes as a descriptor
	"chmod": func(w []string) (string, error) {
		mode, err := strconv.ParseUint(w[1], 8, 32)
		if err != nil {
			return "", err
		}
		return "", unix.Chmod(w[2], uint32(mode))
	},
	"owner":      owner,    // owner PATH: uid:gid as seen here
	"exec":       execute,  // exec PATH [ARG...]: the exit status, or the errno
	"copy-exec":  copyExec, // copy-exec SRC DST [ARG...]: copies a program and starts the copy
	"memfd":      memfd,    // memfd SRC: starts a program from a memory file
	"run":        run,      // run PATH [ARG...]: fails unless the program ran and ended with 0
	"run-copy":   func(w []string) (string, error) { return ran(copyExec(w)) },
	"run-memory": func(w []string) (string, error) { return ran(memfd(w)) },
	"read-some":  func(w []string) (string, error) { return some(read(w)) }, // as read; nothing to read is a failure
	"ls-some":    func(w []string) (string, error) { return some(ls(w)) },
	"unix":       unixDial, // unix PATH: connect to a unix socket
	"fill":       fill,     // fill PATH MIB: write MIB of zeros
	"cd":         func(w []string) (string, error) { return "", os.Chdir(w[1]) },
	"reopen":     reopen,                                                                          // reopen PATH: through /proc/self/fd of an O_PATH descriptor, to write
	"by-handle":  byHandle,                                                                        // by-handle MOUNT TYPE HEX: open_by_handle_at, and read
	"fds-read":   fdsRead,                                                                         // fds-read: what the descriptors that were inherited beside the standard ones hold
	"fd-cut":     func(w []string) (string, error) { return "", unix.Ftruncate(number(w[1]), 0) }, // fd-cut FD
	"fd-read":    fdRead,                                                                          // fd-read FD: from the file's beginning
	"swap-race":  swapRace,                                                                        // swap-race DIR: DIR/secret while the name l changes between a directory of ours and DIR
	"xattr":      func(w []string) (string, error) { return "", unix.Setxattr(w[1], w[2], []byte(w[3]), 0) },
	"file-cap":   fileCap, // file-cap PATH: gives a program CAP_SYS_ADMIN
	"immutable":  immutable,
	"rewrite":    rewrite, // rewrite PATH: writes what is there
	"put":        put,     // put PATH TEXT: writes to what is there
	"shm":        shm,     // shm ID: reads a System V shared memory segment
	"lock":       lock,    // lock PATH: exclusively
	"watch":      watch,   // watch DIR: waits for somebody to open something there
	"poll":       poll,    // poll PATH: tries to read until it can
	"find":       find,    // find TEXT PATH: fails when the file does not hold it
	"inodes":     inodes,  // inodes DIR COUNT: how many empty files can be made
}

func open(w []string) (string, error) {
	flags := map[string]int{
		"r": unix.O_RDONLY, "w": unix.O_WRONLY, "rw": unix.O_RDWR, "path": unix.O_PATH,
		"c": unix.O_WRONLY | unix.O_CREAT, "tmp": unix.O_WRONLY | unix.O_TMPFILE,
	}
	f, ok := flags[w[1]]
	if !ok {
		return "", fmt.Errorf("no open flags are called %q", w[1])
	}
	fd, err := unix.Open(w[2], f|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return "", err
	}
	return "", unix.Close(fd)
}

func read(w []string) (string, error) {
	const most = 4096
	f, err := os.Open(w[1])
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, most))
	return string(b), err
}

func write(w []string) (string, error) {
	return "", os.WriteFile(w[1], []byte(strings.Join(w[2:], " ")), 0o644)
}

func ls(w []string) (string, error) {
	entries, err := os.ReadDir(w[1])
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " "), err
}

func passed(w []string) (string, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: w[1]}); err != nil {
		return "connect", err
	}
	rights := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(fd, make([]byte, 1), rights, 0)
	if err != nil {
		return "receive", err
	}
	messages, err := unix.ParseSocketControlMessage(rights[:n])
	if err != nil || len(messages) != 1 {
		return "receive", errors.New("no descriptor came")
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return "receive", err
	}
	again, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fds[0]), unix.O_RDWR, 0)
	if err == nil {
		unix.Close(again)
	}
	return "", err
}

func owner(w []string) (string, error) {
	var s unix.Stat_t
	err := unix.Stat(w[1], &s)
	return fmt.Sprintf("%d:%d", s.Uid, s.Gid), err
}

// execute reports the errno of the execve itself. A program that the kernel lets start and then kills shows as a signal.
func execute(w []string) (string, error) {
	cmd := exec.Command(w[1], w[2:]...)
	cmd.Path, cmd.Err = w[1], nil
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState != nil {
		return cmd.ProcessState.String() + " " + string(out), nil
	}
	return "", err
}

func run(w []string) (string, error) { return ran(execute(w)) }

// ran makes a program that did not end with 0 an error.
func ran(out string, err error) (string, error) {
	if err == nil && !strings.HasPrefix(out, "exit status 0") {
		return "", errors.New(out)
	}
	return out, err
}

func some(out string, err error) (string, error) {
	if err == nil && out == "" {
		return "", errors.New("nothing there")
	}
	return out, err
}

func copyExec(w []string) (string, error) {
	b, err := os.ReadFile(w[1])
	if err != nil {
		return "read", err
	}
	if err := os.WriteFile(w[2], b, 0o755); err != nil {
		return "write", err
	}
	return execute(append([]string{""}, w[2:]...))
}

func memfd(w []string) (string, error) {
	b, err := os.ReadFile(w[1])
	if err != nil {
		return "read", err
	}
	const mfdExec = 0x10 // MFD_EXEC, since Linux 6.3
	fd, err := unix.MemfdCreate("probe", mfdExec)
	if err != nil {
		return "memfd_create", err
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, b); err != nil {
		return "write", err
	}
	return execute([]string{"", fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd)})
}

func unixDial(w []string) (string, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: w[1]}); err != nil {
		return "", err
	}
	buf := make([]byte, 256)
	n, err := unix.Read(fd, buf)
	return string(buf[:max(n, 0)]), err
}

func fill(w []string) (string, error) {
	mib, err := strconv.Atoi(w[2])
	if err != nil {
		return "", err
	}
	f, err := os.Create(w[1])
	if err != nil {
		return "", err
	}
	defer f.Close()
	chunk := make([]byte, 1<<20)
	for i := range mib {
		if _, err := f.Write(chunk); err != nil {
			return fmt.Sprintf("%d MiB", i), err
		}
	}
	return fmt.Sprintf("%d MiB", mib), nil
}

func pause(w []string) (string, error) {
	d, err := time.ParseDuration(w[1])
	time.Sleep(d)
	return "", err
}

func reopen(w []string) (string, error) {
	fd, err := unix.Open(w[1], unix.O_PATH, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	return put([]string{"", fmt.Sprintf("/proc/self/fd/%d", fd), "changed"})
}

func put(w []string) (string, error) {
	fd, err := unix.Open(w[1], unix.O_WRONLY, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte(strings.Join(w[2:], " ")))
	return "", err
}

func rewrite(w []string) (string, error) {
	b, err := os.ReadFile(w[1])
	if err != nil {
		return "", err
	}
	return put([]string{"", w[1], string(b)})
}
