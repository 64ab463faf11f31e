package vm

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
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
}

// The command line of the kernel. bpf is among the security modules, and those that only take time are not; what is slow to emulate
// and of no use is left out.
const cmdline = "console=ttyS0 panic=-1 lsm=landlock,lockdown,yama,integrity,bpf mitigations=off systemd.unit=multi-user.target"

// The processor. Without cx16: QEMU's cmpxchg16b can leave the flags register in disorder, which has crashed guests in the kernel's
// allocator. The others are what this model has and the emulation has not.
const cpu = "Haswell-noTSX,-cx16,-pcid,-x2apic,-tsc-deadline,-invpcid"

// What the process finds as its descriptors 3, 4 and 5.
const (
	fdDisk   = "/dev/fd/3"
	fdInitrd = "/dev/fd/4"
	fdPort   = "5"
)

// startQEMU starts QEMU, which ends with this process.
func startQEMU(img images, o Options, disk *os.File, log *console) (*qemu, error) {
	ours, theirs, err := socketpair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	q := &qemu{port: ours, ended: make(chan struct{})}
	cmd := exec.Command("qemu-system-x86_64",
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-machine", "q35,hpet=off", "-accel", "tcg,thread=multi", "-cpu", cpu, "-smp", "2", "-m", "1G",
		"-kernel", filepath.Join(img.dir, "linux-"+o.Kernel), "-initrd", fdInitrd, "-append", cmdline,
		"-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
		"-blockdev", "driver=qcow2,node-name=disk,file.driver=file,file.filename="+fdDisk+",file.cache.no-flush=on",
		"-device", "virtio-blk-pci,drive=disk",
		"-chardev", "socket,id=port,fd="+fdPort, "-device", "virtio-serial", "-device", "virtserialport,chardev=port,name="+wire.Port)
	cmd.Stdout, cmd.Stderr = log, &q.stderr
	cmd.ExtraFiles = []*os.File{disk, img.initrd[o.Kernel], theirs}
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

func (c *console) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.buf.String()
}
