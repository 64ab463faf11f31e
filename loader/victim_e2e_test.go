//go:build e2e

package loader

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// victimEnv makes the test binary a victim: a process that tries what its standard input says, one try per line, and
// answers each with "ok", "ok VALUE" or the name of an errno.
const victimEnv = "NEMOCLAW_LOADER_VICTIM"

func TestMain(m *testing.M) {
	if os.Getenv(victimEnv) != "" {
		victimMain()
		os.Exit(0)
	}
	if os.Getenv(coldEnv) != "" {
		coldMain()
		os.Exit(0)
	}
	if os.Getenv(agentEnv) != "" {
		agentMain()
		os.Exit(1)
	}
	os.Exit(max(m.Run(), lasting.end()))
}

// lasting stands for a test that ends with the last one.
var lasting lastingTest

type lastingTest struct {
	testing.TB // the one that needs it now
	cleanups   []func()
	failed     int
}

// Cleanup is for the end of all tests.
func (l *lastingTest) Cleanup(f func()) { l.cleanups = append(l.cleanups, f) }

// Errorf is called by what is cleaned up, when no test runs any more.
func (l *lastingTest) Errorf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "--- FAIL: after the last test: "+format+"\n", args...)
	l.failed = 1
}

// end cleans up and returns the exit status.
func (l *lastingTest) end() int {
	for _, f := range slices.Backward(l.cleanups) {
		f()
	}
	return l.failed
}

func victimMain() {
	fmt.Println("ready")
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		value, err := victimTry(strings.Fields(lines.Text()))
		var errno syscall.Errno
		switch {
		case err == nil:
			fmt.Println(strings.TrimSpace("ok " + value))
		case errors.As(err, &errno):
			fmt.Println(unix.ErrnoName(errno))
		default:
			fmt.Println("error:", err)
		}
	}
}

func victimTry(f []string) (string, error) {
	switch f[0] {
	case "socket": // family type protocol
		var n [3]int
		for i := range n {
			n[i], _ = strconv.Atoi(f[1+i])
		}
		fd, err := unix.Socket(n[0], n[1], n[2])
		if err == nil {
			unix.Close(fd)
		}
		return "", err
	case "new": // tcp|udp 4|6 -> fd
		kind := unix.SOCK_STREAM
		if f[1] == "udp" {
			kind = unix.SOCK_DGRAM
		}
		family := unix.AF_INET
		if f[2] == "6" {
			family = unix.AF_INET6
		}
		fd, err := unix.Socket(family, kind, 0)
		if err == nil {
			// Nothing here may take long: a dropped packet has to show as an error soon.
			_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Usec: 300000})
			_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 300000})
		}
		return strconv.Itoa(fd), err
	case "connect": // fd addr:port
		fd, to := victimTarget(f[1], f[2])
		if err := unix.Connect(fd, to); err != nil {
			return "", err
		}
		return victimName(fd)
	case "disconnect": // fd
		fd, _ := strconv.Atoi(f[1])
		sa := unix.RawSockaddr{Family: unix.AF_UNSPEC}
		return "", connectRaw(fd, sa)
	case "tfo": // fd addr:port
		fd, to := victimTarget(f[1], f[2])
		if err := unix.Sendto(fd, []byte("hello"), unix.MSG_FASTOPEN, to); err != nil {
			return "", err
		}
		return victimName(fd)
	case "defer": // fd addr:port, with TCP_FASTOPEN_CONNECT
		fd, to := victimTarget(f[1], f[2])
		if err := unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_FASTOPEN_CONNECT, 1); err != nil {
			return "", err
		}
		return "", unix.Connect(fd, to)
	case "sendto": // fd addr:port
		fd, to := victimTarget(f[1], f[2])
		return "", unix.Sendto(fd, []byte("hello"), 0, to)
	case "sendfrom": // fd addr:port source
		fd, to := victimTarget(f[1], f[2])
		info := unix.PktInfo4(&unix.Inet4Pktinfo{Spec_dst: netip.MustParseAddr(f[3]).As4()})
		_, err := unix.SendmsgN(fd, []byte("hello"), info, to, 0)
		return "", err
	case "send": // fd
		fd, _ := strconv.Atoi(f[1])
		return "", unix.Send(fd, []byte("hello"), 0)
	case "recv": // fd -> bytes
		fd, _ := strconv.Atoi(f[1])
		buf := make([]byte, 100)
		n, err := unix.Read(fd, buf)
		return string(buf[:max(n, 0)]), err
	case "bind": // fd addr:port -> name
		fd, to := victimTarget(f[1], f[2])
		if err := unix.Bind(fd, to); err != nil {
			return "", err
		}
		return victimName(fd)
	case "listen": // fd
		fd, _ := strconv.Atoi(f[1])
		return "", unix.Listen(fd, 16)
	case "accept": // fd -> fd
		fd, _ := strconv.Atoi(f[1])
		n, _, err := unix.Accept(fd)
		return strconv.Itoa(n), err
	case "close": // fd
		fd, _ := strconv.Atoi(f[1])
		return "", unix.Close(fd)
	case "open": // path
		fd, err := unix.Open(f[1], unix.O_RDWR|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
		if err == nil {
			unix.Close(fd)
		}
		return "", err
	case "creates": // how many, the beginning of their names, and the errno that each gives
		return "", manyCreates(f[1:])
	case "opens": // how often, and then a path and what opening it gives each time: ok, an errno's name, or "either" of ok and EACCES
		n, _ := strconv.Atoi(f[1])
		return "", manyOpens(n, f[2:])
	case "signalled", "wait", "threads":
		return heldTry(f)
	case "file": // operation path...
		return "", fileTry(f[1:])
	case "guard": // attempt argument...
		return "", guardTry(f[1:])
	case "guards": // how often, errno, attempt argument...
		n, _ := strconv.Atoi(f[1])
		return "", manyGuards(n, f[2], f[3:])
	case "word":
		return strconv.FormatUint(atomic.LoadUint64(&victimWord), 10), nil
	case "reach": // addr:port, with a socket of its own
		_, to := victimTarget("", f[1])
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err != nil {
			return "", err
		}
		defer unix.Close(fd)
		return "", unix.Connect(fd, to)
	case "start": // NAME=VALUE... -- try: in a process that is executed with this environment
		return victimStart(f[1:])
	case "fork", "fork-orphan": // addr:port: connects in a process that is not executed, and that its parent does not wait for
		return "", victimFork(f[1], f[0] == "fork-orphan")
	case "exec": // argv... -> how it ended
		cmd := exec.Command(f[1], f[2:]...)
		err := cmd.Run()
		if cmd.ProcessState == nil {
			return "", err // it did not start
		}
		if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); err != nil && cmd.ProcessState != nil && ok {
			if status.Signaled() {
				return status.Signal().String(), nil
			}
			return "exit " + strconv.Itoa(status.ExitStatus()), nil
		}
		return "", err
	case "bench": // addr:port n -> duration
		n, _ := strconv.Atoi(f[2])
		_, to := victimTarget("0", f[1])
		start := time.Now()
		for range n {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
			if err != nil {
				return "", err
			}
			_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}) // no TIME_WAIT
			if err := unix.Connect(fd, to); err != nil && err != unix.EPERM {
				return "", err
			}
			unix.Close(fd)
		}
		return time.Since(start).String(), nil
	case "removed": // path: removes a program and executes it
		fd, err := unix.Open(f[1], unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return "", err
		}
		defer unix.Close(fd)
		if err := unix.Unlink(f[1]); err != nil {
			return "", err
		}
		return victimTry([]string{"exec", fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd)})
	case "memfd": // path: executes a copy in memory
		from, err := os.ReadFile(f[1])
		if err != nil {
			return "", err
		}
		fd, err := unix.MemfdCreate("copy", 0)
		if err != nil {
			return "", err
		}
		defer unix.Close(fd)
		if _, err := unix.Write(fd, from); err != nil {
			return "", err
		}
		return victimTry([]string{"exec", fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), fd)})
	}
	return "", fmt.Errorf("unknown try %q", f)
}

func connectRaw(fd int, sa unix.RawSockaddr) error {
	_, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(ptr(&sa)), unix.SizeofSockaddrInet4)
	if errno != 0 {
		return errno
	}
	return nil
}

// victimTarget parses a descriptor and an address; in brackets it is an IPv6 socket's, ::ffff:a.b.c.d included.
func victimTarget(fd, addr string) (int, unix.Sockaddr) {
	n, _ := strconv.Atoi(fd)
	to := netip.MustParseAddrPort(addr)
	if to.Addr().Is4() {
		return n, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	}
	return n, &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
}

func victimName(fd int) (string, error) {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return "", err
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)).String(), nil
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port)).String(), nil
	}
	return "", fmt.Errorf("socket name %T", sa)
}

// victim is a running victim.
type victim struct {
	t    testing.TB
	cmd  *exec.Cmd
	in   io.Writer
	out  *bufio.Reader
	args string // as events show its command line
}

// startVictim starts a victim in a network namespace, and in a cgroup unless dir is nil. It returns when the victim is one: a start of a
// process is over for its parent before the tracepoint on its exec, which kills by rules that a test may have changed by then.
func startVictim(t testing.TB, ns *testNet, dir *os.File) *victim {
	t.Helper()
	return startVictimWith(t, ns, dir, 0)
}

// startVictimWith starts a victim in new namespaces, too.
func startVictimWith(t testing.TB, ns *testNet, dir *os.File, namespaces uintptr) *victim {
	t.Helper()
	v := &victim{t: t, cmd: exec.Command("/proc/self/exe", "victim", "of", t.Name())}
	v.args = strings.Join(v.cmd.Args, " ")
	v.cmd.Env = append(os.Environ(), victimEnv+"=1", "GODEBUG=asyncpreemptoff=1") // no EINTR from the Go runtime's signals
	v.cmd.Stderr = os.Stderr
	in, err := v.cmd.StdinPipe()
	must(t, err)
	out, err := v.cmd.StdoutPipe()
	must(t, err)
	v.in, v.out = in, bufio.NewReader(out)
	v.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: namespaces}
	if dir != nil {
		v.cmd.SysProcAttr.UseCgroupFD, v.cmd.SysProcAttr.CgroupFD = true, int(dir.Fd())
	}
	ns.do(func() { err = v.cmd.Start() })
	must(t, err)
	t.Cleanup(func() {
		in.Close()
		done := make(chan struct{})
		go func() { _ = v.cmd.Wait(); close(done) }()
		select {
		case <-done:
		case <-time.After(5 * time.Second):
			t.Errorf("victim %d does not end", v.cmd.Process.Pid)
			_ = v.cmd.Process.Kill()
			<-done
		}
	})
	_, _ = v.out.ReadString('\n') // of one that was killed the first try tells
	return v
}

// try lets the victim try something and returns its answer.
func (v *victim) try(format string, args ...any) string {
	v.t.Helper()
	if _, err := fmt.Fprintf(v.in, format+"\n", args...); err != nil {
		v.t.Fatalf("victim: %v", err)
	}
	line, err := v.out.ReadString('\n')
	if err != nil {
		v.t.Fatalf("victim died on %q: %v", fmt.Sprintf(format, args...), err)
	}
	return strings.TrimSpace(line)
}

// get is try for something that has to work; it returns the value.
func (v *victim) get(format string, args ...any) string {
	v.t.Helper()
	answer := v.try(format, args...)
	value, ok := strings.CutPrefix(answer, "ok")
	if !ok {
		v.t.Fatalf("%s: %s", fmt.Sprintf(format, args...), answer)
	}
	return strings.TrimSpace(value)
}

// wants checks the answer of a try.
func (v *victim) wants(want, format string, args ...any) {
	v.t.Helper()
	answer := v.try(format, args...)
	if answer != want && !(want == "ok" && strings.HasPrefix(answer, "ok ")) {
		v.t.Errorf("%s: %s, want %s", fmt.Sprintf(format, args...), answer, want)
	}
}

// connect opens a socket and connects it; it returns the answer and the socket.
func (v *victim) connect(kind, to string) (answer, fd string) {
	v.t.Helper()
	fd = v.socket(kind, to)
	return v.try("connect %s %s", fd, to), fd
}

// socket opens a socket of the address's family.
func (v *victim) socket(kind, to string) string {
	v.t.Helper()
	if strings.HasPrefix(to, "[") {
		return v.get("new %s 6", kind)
	}
	return v.get("new %s 4", kind)
}
