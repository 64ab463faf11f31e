package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Ways to start a program.
var programAttempts = map[string]attempt{
	"copy":          func(w []string) (string, error) { return "", copyFile(w[1], w[2]) }, // copy SRC DST
	"exec-fd":       execFD,                                                               // exec-fd PATH: by an open descriptor
	"exec-fd-now":   execFDNow,
	"exec-path":     execPath,     // exec-path PATH: by /proc/self/fd of an O_PATH descriptor
	"exec-deleted":  execDeleted,  // exec-deleted SRC DST: a copy that is deleted before it starts
	"exec-nameless": execNameless, // exec-nameless SRC DIR: a copy that never had a name
	"exec-race":     execRace,     // exec-race GOOD BAD PATH: PATH changes between the two while it is started
	"with":          with,         // with K=V PATH [ARG...]: run, with one more variable
	"became-root": func([]string) (string, error) {
		return "", mustBe(os.Geteuid() == 0, fmt.Sprintf("euid %d", os.Geteuid()))
	},
	"as":      as,        // as PROBE ATTEMPT...: what a copy of this program gives
	"foreign": foreign,   // foreign PATH: runs a program whose exit status must be 42
	"ran":     ranScript, // ran TEXT PATH [ARG...]: its output must hold TEXT
}

func mustBe(ok bool, otherwise string) error {
	if !ok {
		return errors.New(otherwise)
	}
	return nil
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.WriteFile(to, b, 0o755); err != nil {
		return err
	}
	return os.Chmod(to, 0o755)
}

func byDescriptor(fd int) (string, error) {
	return ran(execute([]string{"", fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd)}))
}

// execFD starts a program by execveat(fd, "", AT_EMPTY_PATH). What works replaces the caller, so it is done in a child.
func execFD(w []string) (string, error) {
	out, err := exec.Command("/proc/self/exe", "exec-fd-now "+w[1]).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		return "", syscall.Errno(exit.ExitCode())
	}
	return string(out), err
}

func execFDNow(w []string) (string, error) {
	fd, err := unix.Open(w[1], unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		argv := [2]uintptr{text("x")}
		var env uintptr
		err = raw(unix.SYS_EXECVEAT, uintptr(fd), text(""), uintptr(unsafe.Pointer(&argv)), uintptr(unsafe.Pointer(&env)), unix.AT_EMPTY_PATH)
	}
	var errno syscall.Errno
	_ = errors.As(err, &errno)
	os.Exit(int(errno))
	return "", err
}

func execPath(w []string) (string, error) {
	fd, err := unix.Open(w[1], unix.O_PATH, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	return byDescriptor(fd)
}

func execDeleted(w []string) (string, error) {
	if err := copyFile(w[1], w[2]); err != nil {
		return "copy", err
	}
	fd, err := unix.Open(w[2], unix.O_RDONLY, 0)
	if err != nil {
		return "open", err
	}
	defer unix.Close(fd)
	if err := unix.Unlink(w[2]); err != nil {
		return "unlink", err
	}
	return byDescriptor(fd)
}

func execNameless(w []string) (string, error) {
	b, err := os.ReadFile(w[1])
	if err != nil {
		return "read", err
	}
	fd, err := unix.Open(w[2], unix.O_TMPFILE|unix.O_RDWR, 0o755)
	if err != nil {
		return "open", err
	}
	if _, err := unix.Write(fd, b); err != nil {
		return "write", err
	}
	again, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDONLY, 0)
	unix.Close(fd) // a file that is open for writing can't be executed
	if err != nil {
		return "open again", err
	}
	defer unix.Close(again)
	return byDescriptor(again)
}

// execRace lets a symbolic link change between a good and a bad program, and counts how often the bad one ran.
func execRace(w []string) (string, error) {
	const tries = 150
	var stop atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; !stop.Load(); i++ {
			_ = os.Symlink(w[1+i%2], w[3]+".new")
			_ = os.Rename(w[3]+".new", w[3])
			time.Sleep(50 * time.Microsecond)
		}
	}()
	defer func() { stop.Store(true); <-done }()
	bad := 0
	for range tries {
		out, err := exec.Command(w[3]).Output()
		if err == nil && strings.Contains(string(out), "uid=") {
			bad++
		}
	}
	return "", mustBe(bad > 0, "the bad program never ran")
}

func with(w []string) (string, error) {
	name, value, _ := strings.Cut(w[1], "=")
	if err := os.Setenv(name, value); err != nil {
		return "", err
	}
	return run(w[1:])
}

func foreign(w []string) (string, error) {
	err := exec.Command(w[1]).Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 42 {
		return "", nil
	}
	if err == nil {
		err = errors.New("exit status 0")
	}
	return "", err
}

func ranScript(w []string) (string, error) {
	out, err := execute(w[1:])
	if err == nil && !strings.Contains(out, w[1]) {
		return "", errors.New(strings.TrimSpace(out))
	}
	return out, err
}

func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(err)
	}
	return n
}

func as(w []string) (string, error) {
	said, err := exec.Command(w[1], strings.Join(w[2:], " ")).Output()
	if err != nil {
		return "", err
	}
	var o Outcome
	if err := json.Unmarshal(said, &o); err != nil {
		return "", err
	}
	if o.Errno != "" {
		return o.Out, errors.New(o.Errno)
	}
	return o.Out, nil
}
