package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// beInit does what systemd would do that tests need, starts this program as the one who runs commands, and buries orphans until that
// one has ended.
func beInit() error {
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := errors.Join(
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""),
		mount("devpts", "/dev/pts", "devpts", "gid=5,mode=620,ptmxmode=000", unix.MS_NOSUID|unix.MS_NOEXEC),
		mount("shm", "/dev/shm", "tmpfs", "mode=1777", unix.MS_NOSUID|unix.MS_NODEV),
		mount("mqueue", "/dev/mqueue", "mqueue", "", flags),
		mount("securityfs", "/sys/kernel/security", "securityfs", "", flags),
		mount("debugfs", "/sys/kernel/debug", "debugfs", "", flags),
		mount("tracefs", "/sys/kernel/tracing", "tracefs", "", flags),
		mount("bpf", "/sys/fs/bpf", "bpf", "mode=700", flags),
		mount("cgroup", "/sys/fs/cgroup", "cgroup2", "nsdelegate,memory_recursiveprot", flags),
		enableControllers("/sys/fs/cgroup"),
		loopbackUp(),
		unix.Sethostname([]byte("debian")),
	); err != nil {
		return err
	}
	for link, to := range map[string]string{"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"} {
		if err := os.Symlink(to, "/dev/"+link); err != nil {
			return err
		}
	}
	child, err := os.StartProcess(runDir+"/guest", []string{runDir + "/guest"}, &os.ProcAttr{Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}})
	if err != nil {
		return err
	}
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		if pid == child.Pid {
			return fmt.Errorf("the one who runs commands has ended with status %#x", int(status))
		}
	}
}

func enableControllers(cgroup string) error {
	names, err := os.ReadFile(cgroup + "/cgroup.controllers")
	if err != nil {
		return err
	}
	all := "+" + strings.Join(strings.Fields(string(names)), " +")
	return os.WriteFile(cgroup+"/cgroup.subtree_control", []byte(all), 0)
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	r.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r)
}
