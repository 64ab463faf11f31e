// Command guest is the part of test/vm inside the machine. The kernel starts it as /init of the initramfs: it loads the modules that
// came with it, mounts the disk, and puts itself below /run. With the argument "light" it stays PID 1 and starts itself again as the
// one who runs the commands that come through the serial port; else it becomes systemd, which starts that one as a unit. The disk
// holds nothing of it.
package main

import (
	"bytes"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/nemoclaw/nemoclaw/test/vm/wire"
	"golang.org/x/sys/unix"
)

func main() {
	if os.Getpid() == 1 {
		// PID 1 must not end: the kernel's panic is what stops the machine, after the line that says why.
		light := len(os.Args) > 1 && os.Args[1] == "light"
		err := start()
		switch {
		case err != nil:
		case light:
			err = beInit()
		default:
			err = becomeSystemd()
		}
		fmt.Fprintln(os.Stderr, "vm guest: init:", err)
		os.Exit(1)
	}
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, "vm guest:", err)
		os.Exit(1)
	}
}

const (
	disk    = "/dev/vda"
	newRoot = "/root"
	runDir  = "/run/nemoclaw-vm"
	unit    = `[Unit]
Description=Runs the commands of test/vm
After=multi-user.target
[Service]
ExecStart=` + runDir + `/guest
# What a command leaves running goes on running.
KillMode=process
OOMScoreAdjust=-900
StandardOutput=tty
StandardError=tty
TTYPath=/dev/console
`
)

// start makes the machine's root out of the disk, and puts this program there.
func start() error {
	if err := mount("dev", "/dev", "devtmpfs", "", 0); err != nil {
		return err
	}
	if err := loadModules("/modules"); err != nil {
		return err
	}
	if err := await(disk, 30*time.Second); err != nil {
		return err
	}
	if err := errors.Join(
		mount(disk, newRoot, "ext4", "", 0),
		mount("dev", newRoot+"/dev", "devtmpfs", "mode=0755", 0),
		mount("proc", newRoot+"/proc", "proc", "", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC),
		mount("sys", newRoot+"/sys", "sysfs", "", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC),
		mount("run", newRoot+"/run", "tmpfs", "mode=0755", unix.MS_NOSUID|unix.MS_NODEV),
	); err != nil {
		return err
	}
	self, err := os.ReadFile("/init")
	if err != nil {
		return err
	}
	return errors.Join(
		os.Mkdir(newRoot+runDir, 0o755),
		os.WriteFile(newRoot+runDir+"/guest", self, 0o755),
		os.Remove("/init"), // its memory
		os.RemoveAll("/modules"),
		os.Chdir(newRoot),
		unix.Mount(".", "/", "", unix.MS_MOVE, ""),
		unix.Chroot("."),
		os.Chdir("/"),
	)
}

func mount(source, target, kind, data string, flags uintptr) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(source, target, kind, flags, data); err != nil {
		return fmt.Errorf("mounting %s: %w", target, err)
	}
	return nil
}

// becomeSystemd starts systemd in place of this process.
func becomeSystemd() error {
	wants := "/run/systemd/system/multi-user.target.wants"
	if err := errors.Join(
		os.MkdirAll(wants, 0o755),
		os.WriteFile("/run/systemd/system/vm-guest.service", []byte(unit), 0o644),
		os.Symlink("../vm-guest.service", wants+"/vm-guest.service"),
	); err != nil {
		return err
	}
	return unix.Exec("/sbin/init", []string{"/sbin/init"}, []string{"HOME=/", "TERM=linux"})
}

// loadModules loads the modules of a directory in the order of their names.
func loadModules(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		f, err := os.Open(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		f.Close()
		if err != nil {
			return fmt.Errorf("loading %s: %w", e.Name(), err)
		}
	}
	return err
}

// await waits for a device node: drivers find their devices in the background.
func await(path string, limit time.Duration) error {
	for end := time.Now().Add(limit); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			return nil
		} else if time.Now().After(end) {
			return err
		}
	}
}

// serve says hello, then does what it is told until the machine goes down.
func serve() error {
	node, err := port()
	if err != nil {
		return err
	}
	f, err := os.OpenFile(node, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return err
	}
	in, out := gob.NewDecoder(f), gob.NewEncoder(f)
	if err := out.Encode(wire.Hello{Release: unix.ByteSliceToString(name.Release[:])}); err != nil {
		return err
	}
	for {
		var c wire.Command
		if err := in.Decode(&c); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := out.Encode(do(c, out)); err != nil {
			return err
		}
	}
}

// port finds the device node of the serial port by the port's name.
func port() (string, error) {
	names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
	if err != nil {
		return "", err
	}
	for _, n := range names {
		if b, err := os.ReadFile(n); err == nil && strings.TrimSpace(string(b)) == wire.Port {
			return "/dev/" + filepath.Base(filepath.Dir(n)), nil
		}
	}
	return "", fmt.Errorf("no virtio port is named %s among %q", wire.Port, names)
}

func do(c wire.Command, out *gob.Encoder) wire.Result {
	switch {
	case c.Write != nil:
		return wire.Result{Err: text(write(c.Write))}
	case c.Stream:
		return run(c.Run, stream{out}, stream{out})
	}
	var stdout, stderr bytes.Buffer
	r := run(c.Run, &stdout, &stderr)
	r.Stdout, r.Stderr = stdout.Bytes(), stderr.Bytes()
	return r
}

// stream tells the host what is written to it.
type stream struct{ out *gob.Encoder }

func (s stream) Write(p []byte) (int, error) {
	return len(p), s.out.Encode(wire.Result{More: true, Stdout: p})
}

func write(f *wire.File) error {
	if err := os.MkdirAll(filepath.Dir(f.Path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(f.Path, f.Data, 0o600); err != nil {
		return err
	}
	return os.Chmod(f.Path, os.FileMode(f.Mode))
}

func run(line string, stdout, stderr io.Writer) wire.Result {
	cmd := exec.Command("/bin/bash", "-c", line)
	cmd.Dir = "/root"
	cmd.Env = []string{"HOME=/root", "USER=root", "LANG=C.UTF-8", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	// What the command left running may hold its output open.
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	if cmd.ProcessState == nil {
		return wire.Result{Err: text(err)}
	}
	status := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return wire.Result{Status: 128 + int(status.Signal())}
	}
	return wire.Result{Status: status.ExitStatus()}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
