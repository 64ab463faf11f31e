package main

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

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
