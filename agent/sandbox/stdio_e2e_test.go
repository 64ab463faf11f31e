//go:build e2e

package sandbox

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func (b *box) exec(req ExecRequest) *Process {
	b.t.Helper()
	if req.Env == nil {
		req.Env = Environment([]string{"TERM=xterm"}, true, nil)
	}
	p, err := b.Exec(req)
	if err != nil {
		b.t.Fatal(err)
	}
	return p
}

func status(t *testing.T, p *Process) int {
	t.Helper()
	status, err := p.Wait()
	if err != nil {
		t.Fatal(err)
	}
	return status
}

func pipes(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

func TestPipes(t *testing.T) {
	b := start(t, workspaceRule+tools, workspaceOf(t, 0, 0))
	inR, inW := pipes(t)
	outR, outW := pipes(t)
	p := b.exec(ExecRequest{Args: []string{"sh", "-c", "cat; echo out; echo err >&2; echo again > /dev/stdout; cat /dev/stdin; readlink /proc/self/fd/1 | head -c 5"}, Stdin: inR, Stdout: outW, Stderr: outW})
	outW.Close()
	inR.Close()
	fmt.Fprint(inW, "in\n")
	inW.Close()
	out, _ := io.ReadAll(outR)
	if string(out) != "in\nout\nerr\nagain\npipe:" || status(t, p) != 0 {
		t.Errorf("%q", out)
	}
}

// A pipe that programs share with others is opened anew: what they do to its flags stays theirs, and they can't read
// what they may only write.
func TestPipeFlags(t *testing.T) {
	b := start(t, workspaceRule+tools, workspaceOf(t, 0, 0))
	r, w := pipes(t)
	p := b.exec(ExecRequest{Args: []string{"python3", "-c", `
import fcntl, os
fcntl.fcntl(1, fcntl.F_SETFL, os.O_NONBLOCK | os.O_APPEND)
for mode in (os.O_RDONLY, os.O_RDWR):
    try:
        os.open("/proc/self/fd/1", mode)
        print("opened", mode)
    except OSError as e:
        print(e.errno)
try:
    os.fchmod(1, 0o666)
    print("chmod")
except OSError as e:
    print(e.errno)
`}, Stdout: w})
	if status(t, p) != 0 {
		t.Error("failed")
	}
	flags, err := unix.FcntlInt(w.Fd(), unix.F_GETFL, 0)
	if err != nil || flags&(unix.O_NONBLOCK|unix.O_APPEND) != 0 {
		t.Errorf("%#x %v", flags, err)
	}
	w.Close()
	if out, _ := io.ReadAll(r); string(out) != "13\n13\n1\n" {
		t.Errorf("%q", out)
	}
}

func TestRegularFiles(t *testing.T) {
	b := start(t, workspaceRule+tools, workspaceOf(t, 0, 0))
	name := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(name, []byte("0123456789"), 0o600); err != nil {
		t.Fatal(err)
	}
	in, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if _, err := in.Seek(5, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	out, err := os.OpenFile(name+".out", os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	fmt.Fprint(out, "before ")
	p := b.exec(ExecRequest{Args: []string{"sh", "-c", "cat; echo x >&0"}, Stdin: in, Stdout: out})
	status(t, p)
	fmt.Fprint(out, " after")
	if text, _ := os.ReadFile(name + ".out"); string(text) != "before 56789 after" {
		t.Errorf("%q", text)
	}
	if text, _ := os.ReadFile(name); string(text) != "0123456789" {
		t.Errorf("standard input was written: %q", text)
	}
}

// What others wrote to a file before the command is not the command's to rewrite.
func TestOutputFileKeepsWhatWasThere(t *testing.T) {
	b := start(t, workspaceRule+tools, workspaceOf(t, 0, 0))
	forge := "import fcntl, os\nfcntl.fcntl(1, fcntl.F_SETFL, 0)\nos.write(1, b'mine\\n')\nfor f in (lambda: os.pwrite(1, b'FORGED', 0), lambda: os.ftruncate(1, 0)):\n" +
		"    try: f()\n    except OSError: pass\n"
	for _, flags := range []int{os.O_WRONLY | os.O_APPEND, os.O_RDWR | os.O_APPEND, os.O_WRONLY} {
		name := filepath.Join(t.TempDir(), "log")
		if err := os.WriteFile(name, []byte("earlier\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := os.OpenFile(name, flags, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := out.Seek(0, io.SeekEnd); err != nil {
			t.Fatal(err)
		}
		status(t, b.exec(ExecRequest{Args: []string{"python3", "-c", forge}, Stdout: out}))
		out.Close()
		if text, _ := os.ReadFile(name); string(text) != "earlier\nmine\n" {
			t.Errorf("opened with %#x: %q", flags, text)
		}
	}
}

func TestRefusedStreams(t *testing.T) {
	b := start(t, workspaceRule+tools, workspaceOf(t, 0, 0))
	dir, err := os.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	fd, err := unix.Open("/etc/passwd", unix.O_PATH, 0)
	if err != nil {
		t.Fatal(err)
	}
	path := os.NewFile(uintptr(fd), "path")
	defer path.Close()
	event, err := unix.Eventfd(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	eventFile := os.NewFile(uintptr(event), "event")
	defer eventFile.Close()
	for _, f := range []*os.File{dir, path, eventFile} {
		for i := range 3 {
			req := ExecRequest{Args: []string{"true"}}
			*[]**os.File{&req.Stdin, &req.Stdout, &req.Stderr}[i] = f
			if _, err := b.Exec(req); err == nil || !strings.Contains(err.Error(), streamNames[i]) {
				t.Errorf("%s as %s: %v", f.Name(), streamNames[i], err)
			}
		}
	}
}

func TestSocketStreams(t *testing.T) {
	b := start(t, workspaceRule+tools, workspaceOf(t, 0, 0))
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	inside, outside := os.NewFile(uintptr(fds[0]), "inside"), os.NewFile(uintptr(fds[1]), "outside")
	defer inside.Close()
	defer outside.Close()
	p := b.exec(ExecRequest{Args: []string{"python3", "-c", `
import os, stat, sys
print(stat.S_ISFIFO(os.fstat(0).st_mode), stat.S_ISFIFO(os.fstat(1).st_mode), stat.S_ISFIFO(os.fstat(2).st_mode), sys.stdin.readline().strip(), flush=True)
`}, Stdin: inside, Stdout: inside, Stderr: inside})
	fmt.Fprint(outside, "line\nmore\n")
	if status(t, p) != 0 {
		t.Error("failed")
	}
	buf := make([]byte, 100)
	n, _ := outside.Read(buf)
	if string(buf[:n]) != "True True True line\n" {
		t.Errorf("%q", buf[:n])
	}
}

// Everything that a command writes to a relayed stream has arrived when the sandbox is closed.
func TestRelayDrains(t *testing.T) {
	b := start(t, workspaceRule+tools, workspaceOf(t, 0, 0))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got := make(chan int)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		time.Sleep(100 * time.Millisecond)
		n, _ := io.Copy(io.Discard, c)
		got <- int(n)
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	f, err := c.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	p := b.exec(ExecRequest{Args: []string{"head", "-c", "5000000", "/dev/zero"}, Stdout: f})
	status(t, p)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	f.Close()
	c.Close()
	if n := <-got; n != 5000000 {
		t.Errorf("%d of 5000000 bytes arrived", n)
	}
}

func TestDevNull(t *testing.T) {
	b := start(t, workspaceRule+tools, workspaceOf(t, 0, 0))
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	r, w := pipes(t)
	p := b.exec(ExecRequest{Args: []string{"sh", "-c", "readlink /proc/self/fd/0 >&2; stat -L -c %d /dev/null /proc/self/fd/0 >&2"}, Stdin: null, Stderr: w})
	w.Close()
	out, _ := io.ReadAll(r)
	f := strings.Fields(string(out))
	if status(t, p) != 0 || len(f) != 3 || f[0] != "/dev/null" || f[1] != f[2] {
		t.Errorf("%q", out)
	}
}

// terminal is a terminal of the host: its slave is what a shell would pass.
func terminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 33, Col: 77})
	}
	if err == nil {
		slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close(); slave.Close() })
	return master, slave
}

func TestTerminal(t *testing.T) {
	b := start(t, workspaceRule+tools, workspaceOf(t, 0, 0))
	_, slave := terminal(t)
	p := b.exec(ExecRequest{Args: []string{"python3", "-c", `
import os, sys, fcntl, termios, signal
print(os.ttyname(0), os.ttyname(1), os.isatty(2), os.get_terminal_size())
with open("/dev/tty", "w") as tty: tty.write("tty\n")
print(os.stat(os.ttyname(0)).st_uid, os.getsid(0) == os.getpid(), os.tcgetpgrp(0) == os.getpid())
try:
    fcntl.ioctl(0, termios.TIOCSTI, b"x")
    print("TIOCSTI")
except OSError as e:
    print(e.errno)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGWINCH])
print("ready", flush=True)
signal.sigwait([signal.SIGWINCH])
print(os.get_terminal_size())
sys.exit(3)
`}, Stdin: slave, Stdout: slave, Stderr: slave})
	master := p.Terminal()
	if master == nil {
		t.Fatal("no terminal")
	}
	defer master.Close()
	var out bytes.Buffer
	buf := make([]byte, 1000)
	for !strings.Contains(out.String(), "ready") {
		n, err := master.Read(buf)
		if err != nil {
			t.Fatal(err, out.String())
		}
		out.Write(buf[:n])
	}
	if err := p.Resize(50, 100); err != nil {
		t.Error(err)
	}
	if s := status(t, p); s != 3 {
		t.Error(s)
	}
	n, _ := master.Read(buf)
	out.Write(buf[:n])
	want := "/dev/pts/0 /dev/pts/0 True os.terminal_size(columns=77, lines=33)\r\ntty\r\n1000 True True\r\n1\r\nready\r\nos.terminal_size(columns=100, lines=50)\r\n"
	if out.String() != want {
		t.Errorf("%q\nnot\n%q", out.String(), want)
	}
}

// Ctrl-C in the terminal reaches the foreground group inside; a terminal on one stream only works as well.
func TestTerminalInterrupt(t *testing.T) {
	b := start(t, workspaceRule+tools, workspaceOf(t, 0, 0))
	_, slave := terminal(t)
	r, w := pipes(t)
	p := b.exec(ExecRequest{Args: []string{"python3", "-c", `
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
print("ready", flush=True)
raise SystemExit(128 + signal.sigwait([signal.SIGINT]))`}, Stdin: slave, Stdout: w})
	w.Close()
	buf := make([]byte, 100)
	if n, _ := r.Read(buf); string(buf[:n]) != "ready\n" {
		t.Fatalf("%q", buf[:n])
	}
	defer p.Terminal().Close()
	if _, err := p.Terminal().Write([]byte{3}); err != nil {
		t.Fatal(err)
	}
	if s := status(t, p); s != 130 {
		t.Error(s)
	}
}

// The caller's other descriptors do not leak into commands, whether they are close-on-exec or not.
func TestNoLeaks(t *testing.T) {
	fd, err := unix.Open("/etc/shadow", unix.O_RDONLY, 0) // without O_CLOEXEC
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	b := start(t, workspaceRule+tools, workspaceOf(t, 0, 0))
	b.want("ls /proc/self/fd", "0\n1\n2\n3", 0)
	b.want("python3 -c 'import os; print(sorted(os.listdir(\"/proc/self/fd\")))'", "['0', '1', '2', '3']", 0)
}

// TestInputFromTheMiddle: what the starter has read of its input can't be read again inside.
func TestInputFromTheMiddle(t *testing.T) {
	const first, rest = "the starter's own\n", "for the command\n"
	b := start(t, workspaceRule+tools, workspaceOf(t, 0, 0))
	in, err := os.Create(filepath.Join(t.TempDir(), "in"))
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if _, err := in.WriteString(first + rest); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Seek(int64(len(first)), io.SeekStart); err != nil {
		t.Fatal(err)
	}
	outR, outW := pipes(t)
	p := b.exec(ExecRequest{Args: []string{"python3", "-c", "import os\ntry: print(os.pread(0, 100, 0))\nexcept OSError as e: print(e.strerror)\nprint(os.read(0, 100))"}, Stdin: in, Stdout: outW})
	outW.Close()
	if out, _ := io.ReadAll(outR); string(out) != "Illegal seek\nb'"+strings.TrimSpace(rest)+"\\n'\n" || status(t, p) != 0 {
		t.Errorf("inside it gave %q", out)
	}
}

// TestRelayOwnsItsFile: what a command leaves running writes to the file that was given, also when the caller has closed it
// and the number has become another file's.
func TestRelayOwnsItsFile(t *testing.T) {
	b := start(t, workspaceRule+tools, workspaceOf(t, 0, 0))
	dir := t.TempDir()
	name := filepath.Join(dir, "log")
	out, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	number := out.Fd()
	p := b.exec(ExecRequest{Args: []string{"sh", "-c", "(sleep 0.2; echo later) & echo first"}, Stdout: out})
	status(t, p)
	if text, _ := os.ReadFile(name); string(text) != "first\n" {
		t.Errorf("when the command has ended, the file has %q", text)
	}
	out.Close()
	other, err := os.Create(filepath.Join(dir, "other"))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if other.Fd() != number {
		if err := unix.Dup3(int(other.Fd()), int(number), unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		defer unix.Close(int(number))
	}
	for range 100 {
		if text, _ := os.ReadFile(name); string(text) == "first\nlater\n" {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	text, _ := os.ReadFile(name)
	wrong, _ := os.ReadFile(other.Name())
	if string(text) != "first\nlater\n" || len(wrong) > 0 {
		t.Errorf("the file has %q, another %q", text, wrong)
	}
}
