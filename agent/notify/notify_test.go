package notify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// childEnv makes the test binary a service: it answers on standard output what it was handed over.
const childEnv = "NEMOCLAW_NOTIFY_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		child()
		return
	}
	os.Exit(m.Run())
}

// manager is a service manager's socket.
type manager struct {
	conn *net.UnixConn
	addr string
}

func newManager(t *testing.T) *manager {
	t.Helper()
	addr := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: addr, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &manager{conn, addr}
}

// next returns the next message and its descriptors.
func (m *manager) next(t *testing.T) (string, []int) {
	t.Helper()
	data, rights := make([]byte, 4096), make([]byte, 4096)
	n, oob, _, _, err := m.conn.ReadMsgUnix(data, rights)
	if err != nil {
		t.Fatal(err)
	}
	var fds []int
	messages, err := unix.ParseSocketControlMessage(rights[:oob])
	if err != nil {
		t.Fatal(err)
	}
	for _, msg := range messages {
		got, err := unix.ParseUnixRights(&msg)
		if err != nil {
			t.Fatal(err)
		}
		fds = append(fds, got...)
	}
	return string(data[:n]), fds
}

func TestWhatTheManagerHears(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	s := &Service{addr: m.addr}
	for _, c := range []struct {
		do   func() error
		want string
	}{
		{func() error { return s.Ready("serving 3 sandboxes") }, "READY=1\nSTATUS=serving 3 sandboxes"},
		{func() error { return s.Status("a\nREADY=1") }, "STATUS=a READY=1"},
		{func() error { return s.Forget("box.pid") }, "FDSTOREREMOVE=1\nFDNAME=box.pid"},
		{s.Stopping, "STOPPING=1"},
	} {
		if err := c.do(); err != nil {
			t.Fatal(err)
		}
		if got, _ := m.next(t); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

func TestStoreSendsTheDescriptorItself(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	s := &Service{addr: m.addr}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := s.Store("box.out", w); err != nil {
		t.Fatal(err)
	}
	w.Close()
	text, fds := m.next(t)
	if text != "FDSTORE=1\nFDPOLL=0\nFDNAME=box.out" || len(fds) != 1 {
		t.Fatalf("%q with %d descriptors", text, len(fds))
	}
	kept := os.NewFile(uintptr(fds[0]), "kept")
	fmt.Fprint(kept, "through the manager")
	kept.Close()
	if got, err := io.ReadAll(r); err != nil || string(got) != "through the manager" {
		t.Errorf("%q, %v", got, err)
	}
	for _, name := range []string{"", "a:b", "a\nb", strings.Repeat("x", 256)} {
		if s.Store(name) == nil || s.Forget(name) == nil {
			t.Errorf("%q was taken as a name", name)
		}
	}
}

// TestHandedOver starts this binary as systemd would, with descriptors in their places.
// TestStoreLeavesTheModeAlone: a listener whose descriptor blocks can't be closed while somebody waits for a connection.
func TestStoreLeavesTheModeAlone(t *testing.T) {
	t.Parallel()
	s := &Service{addr: newManager(t).addr}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "socket"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := s.Store("socket", f); err != nil {
		t.Fatal(err)
	}
	raw, err := l.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) {
		if flags, err := unix.FcntlInt(fd, unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK == 0 {
			t.Errorf("the listener blocks: flags %#x, %v", flags, err)
		}
	}); err != nil {
		t.Fatal(err)
	}
}

func TestHandedOver(t *testing.T) {
	t.Parallel()
	var files []*os.File
	for i := range 3 {
		f, err := os.Create(filepath.Join(t.TempDir(), "f"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		fmt.Fprintf(f, "content %d", i)
		files = append(files, f)
	}
	// The manager knows the process's id, which the shell has before it becomes the service.
	cmd := exec.Command("sh", "-c", `LISTEN_PID=$$ WATCHDOG_PID=$$ exec "$0"`, os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"=1", "LISTEN_FDS=3", "LISTEN_FDNAMES=a:b:a", "WATCHDOG_USEC=2000000", "NOTIFY_SOCKET=/run/x")
	cmd.ExtraFiles = files
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	want := "names [a b]\na content 0\na content 2\nb content 1\nwatchdog 2s addr /run/x\nenvironment [] cloexec true\n"
	if string(out) != want {
		t.Errorf("%s\nwant\n%s", out, want)
	}
}

func child() {
	s, err := Open()
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("names", s.Names())
	cloexec := true
	for _, name := range []string{"a", "b"} {
		for _, f := range s.Take(name) {
			var b bytes.Buffer
			_, err := io.Copy(&b, io.NewSectionReader(f, 0, 100))
			fmt.Println(name, b.String()+errText(err))
			flags, _ := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0)
			cloexec = cloexec && flags == unix.FD_CLOEXEC
		}
	}
	fmt.Println("watchdog", s.watchdog, "addr", s.addr)
	var left []string
	for _, e := range os.Environ() {
		if strings.HasPrefix(e, "LISTEN_") || strings.HasPrefix(e, "WATCHDOG_") || strings.HasPrefix(e, "NOTIFY_") {
			left = append(left, e)
		}
	}
	fmt.Println("environment", left, "cloexec", cloexec)
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return " " + err.Error()
}

func TestWatchdogIsSilentWhileTheDaemonIsNotWell(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	s := &Service{addr: m.addr, watchdog: 3}
	ctx, cancel := context.WithCancel(context.Background())
	well := []error{nil, errors.New("the hub\nhangs"), nil}
	ended := make(chan bool)
	go func() {
		s.Watchdog(ctx, func() error {
			err := well[0]
			if well = well[1:]; len(well) == 0 {
				cancel()
			}
			return err
		})
		close(ended)
	}()
	for _, want := range []string{"WATCHDOG=1", "STATUS=not well: the hub hangs", "WATCHDOG=1"} {
		if got, _ := m.next(t); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	<-ended
}

func TestOutsideOfSystemdNothingHappens(t *testing.T) {
	t.Parallel()
	s := &Service{}
	s.Watchdog(context.Background(), func() error { t.Error("asked"); return nil })
	if err := errors.Join(s.Ready(""), s.Status(""), s.Stopping(), s.Store("a", os.Stdin), s.Forget("a")); err != nil {
		t.Error(err)
	}
}

func TestAManagerThatIsGoneIsAnError(t *testing.T) {
	t.Parallel()
	s := &Service{addr: filepath.Join(t.TempDir(), "nobody")}
	if err := s.Ready("x"); err == nil || !strings.Contains(err.Error(), "nobody") {
		t.Error(err)
	}
}
