// Package notify is the daemon's side of systemd: it says when the daemon is ready, that it still works, what it does,
// and keeps descriptors with the service manager over a restart of the daemon. Outside of systemd every call does nothing.
//
// It knows nothing of what it is told, and starts nothing of its own but the watchdog.
package notify

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// firstFD is where the service manager puts the first descriptor that it hands over: SD_LISTEN_FDS_START.
const firstFD = 3

// maxBatch is how many descriptors one message may carry: SCM_MAX_FD.
const maxBatch = 253

// A Service is what the service manager told this process.
type Service struct {
	addr     string        // the manager's socket; "": there is none
	watchdog time.Duration // within which it wants to hear of us; 0: it does not
	files    map[string][]*os.File
}

// Open takes what the service manager put into the environment and clears it, so that no child takes it for its own. The
// descriptors are closed on exec. It is to be called once, before anything else opens files.
func Open() (*Service, error) {
	get := func(name string) string {
		value := os.Getenv(name)
		_ = os.Unsetenv(name) // fails for names that can't be
		return value
	}
	s := &Service{addr: get("NOTIFY_SOCKET"), files: map[string][]*os.File{}}
	usec, watchPID := get("WATCHDOG_USEC"), get("WATCHDOG_PID")
	count, names, listenPID := get("LISTEN_FDS"), get("LISTEN_FDNAMES"), get("LISTEN_PID")
	_ = get("LISTEN_PIDFDID")

	if usec != "" && (watchPID == "" || watchPID == strconv.Itoa(os.Getpid())) {
		n, err := strconv.ParseUint(usec, 10, 50)
		if err != nil {
			return nil, fmt.Errorf("systemd: WATCHDOG_USEC %q: %w", usec, err)
		}
		s.watchdog = time.Duration(n) * time.Microsecond
	}
	if count == "" || listenPID != strconv.Itoa(os.Getpid()) {
		return s, nil
	}
	n, err := strconv.ParseUint(count, 10, 20)
	if err != nil {
		return nil, fmt.Errorf("systemd: LISTEN_FDS %q: %w", count, err)
	}
	named := strings.Split(names, ":")
	for i := range int(n) {
		name := ""
		if i < len(named) {
			name = named[i]
		}
		fd := firstFD + i
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
			return nil, fmt.Errorf("systemd: descriptor %d (%s), which it should have handed over: %w", fd, name, err)
		}
		s.files[name] = append(s.files[name], os.NewFile(uintptr(fd), name))
	}
	return s, nil
}

// Take returns the descriptors of a name that the manager handed over, and forgets them: they are the caller's.
func (s *Service) Take(name string) []*os.File {
	files := s.files[name]
	delete(s.files, name)
	return files
}

// Names are those that Take has something for, sorted.
func (s *Service) Names() []string {
	var names []string
	for name := range s.files {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Ready says that the daemon serves; the status is shown by systemctl.
func (s *Service) Ready(status string) error { return s.send("READY=1\nSTATUS=" + line(status)) }

// Status says what the daemon does.
func (s *Service) Status(status string) error { return s.send("STATUS=" + line(status)) }

// Stopping says that the daemon ends.
func (s *Service) Stopping() error { return s.send("STOPPING=1") }

// Keeps reports whether there is a manager that Store leaves descriptors with.
func (s *Service) Keeps() bool { return s.addr != "" }

// Store leaves descriptors with the manager: it hands them to the next daemon, under this name. FDPOLL=0: it keeps one
// whose other side has gone too, because the next daemon has to hear of that.
func (s *Service) Store(name string, files ...*os.File) error {
	if err := checkName(name); err != nil {
		return err
	}
	for batch := range slices.Chunk(files, maxBatch) {
		var fds []int
		for _, f := range batch {
			fd, err := number(f)
			if err != nil {
				return fmt.Errorf("systemd: keeping %s: %w", name, err)
			}
			fds = append(fds, fd)
		}
		err := s.send("FDSTORE=1\nFDPOLL=0\nFDNAME="+name, fds...)
		runtime.KeepAlive(batch)
		if err != nil {
			return err
		}
	}
	return nil
}

// number is a file's descriptor. File.Fd would make what it is open on block, for all who have it open: nothing could end
// the wait for a connection then.
func number(f *os.File) (int, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	n := -1
	err = raw.Control(func(fd uintptr) { n = int(fd) })
	return n, err
}

// Forget has the manager close what is stored under a name.
func (s *Service) Forget(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	return s.send("FDSTOREREMOVE=1\nFDNAME=" + name)
}

// Watchdog tells the manager, until ctx ends, that the daemon works, as long as healthy says so: then the manager restarts
// a daemon that hangs. It returns at once where the manager does not watch.
func (s *Service) Watchdog(ctx context.Context, healthy func() error) {
	if s.addr == "" || s.watchdog <= 0 {
		return
	}
	tick := time.NewTicker(max(s.watchdog/3, time.Millisecond))
	defer tick.Stop()
	for ctx.Err() == nil {
		text := "WATCHDOG=1"
		if err := healthy(); err != nil {
			text = "STATUS=not well: " + line(err.Error())
		}
		_ = s.send(text) // the manager that does not hear of us restarts us
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// checkName wants what systemd takes for a descriptor's name.
func checkName(name string) error {
	bad := func(r rune) bool { return r < ' ' || r > '~' || r == ':' }
	if name == "" || len(name) > 255 || strings.ContainsFunc(name, bad) {
		return fmt.Errorf("systemd: %q can't name a descriptor: want 1 to 255 printable characters without colons", name)
	}
	return nil
}

// line makes one line of a text: in a message a line break begins another assignment.
func line(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, text)
}

func (s *Service) send(text string, fds ...int) error {
	if s.addr == "" {
		return nil
	}
	fail := func(err error) error {
		return fmt.Errorf("systemd: telling %s %q: %w", s.addr, text, err)
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: s.addr, Net: "unixgram"})
	if err != nil {
		return fail(err)
	}
	defer func() { _ = conn.Close() }()
	if len(fds) == 0 {
		_, err = conn.Write([]byte(text))
	} else {
		// WriteMsgUnix refuses a connected socket, so this goes to the descriptor itself.
		err = withFD(conn, func(fd int) error { return unix.Sendmsg(fd, []byte(text), unix.UnixRights(fds...), nil, 0) })
	}
	if err != nil {
		return fail(err)
	}
	return nil
}

// withFD calls f, again while the socket is full.
func withFD(conn *net.UnixConn, f func(fd int) error) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	err = raw.Write(func(fd uintptr) bool {
		result = f(int(fd))
		return !errors.Is(result, unix.EAGAIN)
	})
	return errors.Join(err, result)
}
