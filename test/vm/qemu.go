package vm

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nemoclaw/nemoclaw/test/vm/wire"
	"golang.org/x/sys/unix"
)

// qemu is a QEMU process, from power on to power off or reboot.
type qemu struct {
	port   net.Conn // the guest's serial port
	stderr console
	proc   *os.Process
	ended  chan struct{} // closed when the process has ended
	used   time.Duration // of the host's processors, once it has ended
}

// The command line of the kernel. An oops and a warning are a panic, which ends the machine. bpf is among the security modules, and
// those that only take time are not; what is slow to emulate and of no use is left out, and so is the watchdog, which takes a processor
// that others use for one that hangs. The kernel's test of its ciphers is also left out: on a busy host it has warned for no reason.
const cmdline = " panic=-1 oops=panic panic_on_warn=1 cryptomgr.notests=1 nowatchdog mitigations=off init_on_alloc=0 hardened_usercopy=off randomize_kstack_offset=off" +
	" systemd.unit=multi-user.target lsm=landlock,lockdown,yama,integrity"

// board is the hardware of an architecture.
type board struct {
	program string
	machine []string
	cpu     string // under TCG
	console string
}

var boards = map[string]board{
	"amd64": {
		program: "qemu-system-x86_64",
		machine: []string{"-machine", "q35,hpet=off"},
		// What this model has and the emulation has not is taken away, and what is slow there: with erms memory is copied by the byte.
		cpu:     "Haswell-noTSX,-pcid,-x2apic,-tsc-deadline,-invpcid,-erms",
		console: "ttyS0",
	},
	"arm64": {program: "qemu-system-aarch64", machine: []string{"-machine", "virt"}, cpu: "cortex-a72", console: "ttyAMA0"},
}

// What the process finds as its descriptors 3, 4 and 5.
const (
	fdDisk   = "/dev/fd/3"
	fdInitrd = "/dev/fd/4"
	fdPort   = "5"
)

// startQEMU starts QEMU, which ends with this process. The processor is what accelerator gave.
func startQEMU(o Options, processor []string, dir string, disk, initrd *os.File, log *console) (*qemu, error) {
	ours, theirs, err := socketpair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	q := &qemu{port: ours, ended: make(chan struct{})}
	b := boards[o.Arch]
	line := "console=" + b.console + cmdline
	if !o.NoBPFLSM {
		line += ",bpf"
	}
	if o.Light {
		line += " -- light" // the argument of /init
	}
	args := slices.Concat(b.machine, processor, []string{
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-m", "1G",
		"-kernel", filepath.Join(dir, o.Arch, "linux-"+o.Kernel), "-initrd", fdInitrd, "-append", line,
		"-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
		"-blockdev", "driver=qcow2,node-name=disk,file.driver=file,file.filename=" + fdDisk + ",file.cache.no-flush=on",
		"-device", "virtio-blk-pci,drive=disk",
		"-chardev", "socket,id=port,fd=" + fdPort, "-device", "virtio-serial", "-device", "virtserialport,chardev=port,name=" + wire.Port,
	})
	cmd := exec.Command(b.program, args...)
	cmd.Stdout, cmd.Stderr = log, &q.stderr
	cmd.ExtraFiles = []*os.File{disk, initrd, theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		// The parent-death signal is bound to the thread that starts the child: it must live as long.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // what it had to say is on stderr and the console
			q.used = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
			close(q.ended)
		}
	}()
	if err := <-started; err != nil {
		ours.Close()
		return nil, fmt.Errorf("starting a machine (scripts/setup test installs QEMU): %w", err)
	}
	q.proc = cmd.Process
	return q, nil
}

// stop ends the process and waits for that. SIGTERM is a power cut for the guest; QEMU itself writes what it has to the overlay.
func (q *qemu) stop() {
	_ = q.proc.Signal(syscall.SIGTERM)
	if !q.wait(10 * time.Second) {
		_ = q.proc.Kill()
		<-q.ended
	}
	q.port.Close()
}

// wait waits until the process has ended, and says whether it has.
func (q *qemu) wait(limit time.Duration) bool {
	select {
	case <-q.ended:
		return true
	case <-time.After(limit):
		return false
	}
}

func socketpair() (net.Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	theirs := os.NewFile(uintptr(fds[1]), "port of the machine")
	f := os.NewFile(uintptr(fds[0]), "port")
	defer f.Close()
	ours, err := net.FileConn(f)
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return ours, theirs, nil
}

// console keeps what is written to it, from several boots.
type console struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.buf.Write(p)
}

// A kernel says these when it has met a mistake of its own, after the time.
var troubles = regexp.MustCompile(`(?m)^\[ *[0-9.]+\](?:\[[^\]]*\])? .*(?:BUG:|Oops|Kernel panic|RIP: 0010:|WARNING:)`)

// trouble is what the kernel said from its first mistake on; nothing when it made none.
func (c *console) trouble() string {
	s := c.String()
	at := troubles.FindStringIndex(s)
	if at == nil {
		return ""
	}
	lines := strings.SplitN(s[at[0]:], "\n", 41)
	return strings.Join(lines[:min(len(lines), 40)], "\n")
}

func (c *console) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.buf.String()
}
