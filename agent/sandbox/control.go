package sandbox

import (
	"bytes"
	"cmp"
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// The init of this architecture: the directory init holds its sources, `go generate` builds it.
//
//go:embed init/init-amd64
var initAMD64 []byte

//go:embed init/init-arm64
var initARM64 []byte

// What init/proto.h says; TestProtocol compares.
const (
	controlFD   = 3
	maxCommands = 512

	reqIdmap  = 1
	reqInit   = 2
	reqMapped = 3
	reqExec   = 4
	reqSignal = 5

	reIdmap  = 1
	rePID    = 2
	reUserns = 3
	reReady  = 4
	reExit   = 5
	reError  = 6

	reCommand = 7
)

// step is where the init, or a command before its execve, failed.
type step uint32

const stepExec step = 23

// steps says what was tried, and where it helps, what to do.
var steps = map[step][2]string{
	1:        {"reading a message of the daemon", ""},
	2:        {"making the user namespace of an idmapped mount", "see user.max_user_namespaces (sysctl)"},
	3:        {"writing the id map of an idmapped mount", "the host's user namespace must hold ids from 1879048192 up"},
	4:        {"opening the user namespace of an idmapped mount", ""},
	5:        {"cloning the init into its pid namespace and cgroup", "see user.max_pid_namespaces (sysctl) and the pids limit around this process"},
	6:        {"making the sandbox's /proc", ""},
	7:        {"setting vm.memfd_noexec=2 in the sandbox's pid namespace", ""},
	8:        {"mounting the sandbox's /proc", ""},
	9:        {"hiding a part of /proc", ""},
	10:       {"setting the limits of open files and core dumps", "lower limits.files, or raise the hard limit of the process that starts the sandbox"},
	11:       {"making the cgroup namespace", "see user.max_cgroup_namespaces (sysctl)"},
	12:       {"entering the sandbox's root", ""},
	13:       {"making the user namespace", "see user.max_user_namespaces (sysctl)"},
	14:       {"becoming the sandbox's user", ""},
	15:       {"giving up capabilities", ""},
	16:       {"applying Landlock", ""},
	17:       {"installing the system call filter", "the kernel needs CONFIG_SECCOMP_FILTER"},
	18:       {"watching for children that end", ""},
	19:       {"starting a process", "the sandbox may be at its pids limit"},
	20:       {"passing the standard streams", ""},
	21:       {"taking the terminal", ""},
	22:       {"entering the working directory", ""},
	stepExec: {"executing the command", ""},
	25:       {"listening for the next daemon", ""},
	24:       {fmt.Sprintf("starting more than %d commands at once", maxCommands), ""},
}

// stepError says what the init tried, how it failed, and what to do.
func stepError(s step, errno syscall.Errno) error {
	text, ok := steps[s]
	if !ok {
		text[0] = fmt.Sprintf("step %d of the init", s)
	}
	if text[1] != "" {
		return fmt.Errorf("sandbox: %s: %w; %s", text[0], errno, text[1])
	}
	return fmt.Errorf("sandbox: %s: %w", text[0], errno)
}

// control is the daemon's end of the socket to one init. recv is for one goroutine at a time. Go's poller waits for it, so
// that a sandbox in which nothing happens holds no thread.
type control struct {
	file *os.File
	raw  syscall.RawConn
}

// reply is one message of the init.
type reply struct {
	op, a, b uint32
	fd       int // -1: none
}

// newControl returns the daemon's end, and the init's.
func newControl() (*control, int, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, -1, fmt.Errorf("sandbox: making the socket to the init: %w", err)
	}
	c, err := takeControl(fds[0])
	if err != nil {
		unix.Close(fds[1])
		return nil, -1, err
	}
	return c, fds[1], nil
}

// takeControl makes a socket the daemon's end.
func takeControl(fd int) (*control, error) {
	err := unix.SetNonblock(fd, true)
	c := &control{file: os.NewFile(uintptr(fd), "init")}
	if err == nil {
		c.raw, err = c.file.SyscallConn()
	}
	if err != nil {
		c.close()
		return nil, fmt.Errorf("sandbox: taking the socket to the init: %w", err)
	}
	return c, nil
}

// send writes one message of 32-bit and 64-bit little-endian numbers, then raw bytes.
func (c *control) send(fds []int, fields ...any) error {
	var b bytes.Buffer
	for _, f := range fields {
		if err := binary.Write(&b, binary.LittleEndian, f); err != nil {
			return err
		}
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	var n int
	var err error
	closed := c.raw.Write(func(fd uintptr) bool {
		n, err = unix.SendmsgN(int(fd), b.Bytes(), rights, nil, unix.MSG_NOSIGNAL)
		return !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR)
	})
	if err = cmp.Or(closed, err); err == nil && n != b.Len() {
		err = io.ErrShortWrite
	}
	if err != nil {
		return fmt.Errorf("sandbox: telling the init what to do: %w", err)
	}
	return nil
}

// recv reads one message; io.EOF says that the init is gone.
func (c *control) recv() (reply, error) {
	buf, rights := make([]byte, 64), make([]byte, unix.CmsgSpace(4))
	var n, oobn int
	var err error
	closed := c.raw.Read(func(fd uintptr) bool {
		n, oobn, _, _, err = unix.Recvmsg(int(fd), buf, rights, unix.MSG_CMSG_CLOEXEC)
		return !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR)
	})
	switch err = cmp.Or(closed, err); {
	case err != nil && !errors.Is(err, unix.ECONNRESET):
		return reply{}, fmt.Errorf("sandbox: reading what the init says: %w", err)
	case err != nil || n == 0:
		return reply{}, io.EOF
	case n != 12:
		return reply{}, fmt.Errorf("sandbox: the init sent a message of %d bytes", n)
	}
	r := reply{binary.LittleEndian.Uint32(buf), binary.LittleEndian.Uint32(buf[4:]), binary.LittleEndian.Uint32(buf[8:]), -1}
	if oobn > 0 {
		r.fd = receivedFD(rights[:oobn])
	}
	return r, nil
}

func receivedFD(rights []byte) int {
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil || len(messages) != 1 {
		return -1
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return -1
	}
	return fds[0]
}

// want reads the next message and checks that it is op.
func (c *control) want(op uint32) (reply, error) {
	r, err := c.recv()
	switch {
	case errors.Is(err, io.EOF):
		return r, errors.New("sandbox: the init ended while the sandbox was being set up: was it killed, or is a pids or memory limit around this process reached?")
	case err != nil:
		return r, err
	case r.op == reError:
		return r, stepError(step(r.a), syscall.Errno(r.b))
	case r.op != op:
		return r, fmt.Errorf("sandbox: the init said %d where %d was due", r.op, op)
	}
	return r, nil
}

// shutdown ends the conversation: the init exits, and recv returns io.EOF.
func (c *control) shutdown() {
	_ = c.raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RDWR) }) // one that is closed is over already
}

// close is for when nobody listens any more.
func (c *control) close() { c.file.Close() }

// initFile is the init as a file that can be executed, on a file system that is mounted nowhere: made once, by the
// first sandbox of this process. A memfd would not do where the host's vm.memfd_noexec is 2.
var initFile = sync.OnceValues(func() (int, error) {
	image := initAMD64
	if runtime.GOARCH == "arm64" {
		image = initARM64
	}
	mount, err := newMount("tmpfs", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV, "mode=0700", "size=64k")
	if err != nil {
		return -1, fmt.Errorf("sandbox: making a place for the init: %w", err)
	}
	defer unix.Close(mount)
	if err := writeAt(mount, "init", image, 0o500); err != nil {
		return -1, err
	}
	fd, err := unix.Openat(mount, "init", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("sandbox: opening the init: %w", err)
	}
	return fd, nil
})

// launch starts the init's first stage in the calling thread's namespaces and v1 cgroups. The caller reaps pid.
func launch(theirs int) (pid int, err error) {
	file, err := initFile()
	if err != nil {
		return 0, err
	}
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("sandbox: opening /dev/null: %w", err)
	}
	defer unix.Close(null)
	// The file is passed too: ForkExec moves descriptors about in the child, and may put one where another was. The init
	// closes it.
	files := []uintptr{uintptr(null), uintptr(null), uintptr(null), controlFD: uintptr(theirs), controlFD + 1: uintptr(file)}
	pid, err = syscall.ForkExec("/proc/self/fd/"+strconv.Itoa(controlFD+1), []string{"nemoclaw-init"}, &syscall.ProcAttr{Dir: "/", Files: files})
	if err != nil {
		return 0, fmt.Errorf("sandbox: starting the init: %w; /proc must be mounted here", err)
	}
	return pid, nil
}
