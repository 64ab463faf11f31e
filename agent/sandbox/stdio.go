package sandbox

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// drainTime is how long Close waits for relayed output to be taken, once everybody inside is gone.
const drainTime = 2 * time.Second

var streamNames = [3]string{"standard input", "standard output", "standard error"}

// streams are a command's standard streams: what is passed inside, and what is relayed outside.
//
// What may be passed is what gives nothing but its bytes: pipes and regular files, with the one mode that is needed,
// for output empty and for input whole. A socket would be a way out, since its network namespace and cgroup are its maker's;
// a terminal would take input that the host's shell reads (TIOCSTI); a directory is a way to the host's files.
type streams struct {
	passed      [3]int
	opened      []int // of passed, what is this package's to close
	controlling int   // index of a stream that is the new terminal; -1: none
	terminal    *os.File
	inputs      []copier // from outside to a pipe
	outputs     []copier // from a pipe to outside
	stop        [2]int   // a pipe; closing its end stops the inputs, and says to the outputs that the command has ended
	once        sync.Once
	written     sync.WaitGroup // outputs whose command is still to be heard
}

// copier moves bytes between two descriptors, both its own.
type copier struct {
	from, to int
	output   bool // of the command
}

func (c copier) close() {
	unix.Close(c.from)
	unix.Close(c.to)
}

func (s *Sandbox) openStreams(req ExecRequest) (*streams, error) {
	st := &streams{controlling: -1, stop: [2]int{-1, -1}}
	for i, f := range [3]*os.File{req.Stdin, req.Stdout, req.Stderr} {
		if err := s.openStream(st, i, f); err != nil {
			st.abandon()
			return nil, err
		}
	}
	return st, nil
}

// openStream decides what a stream becomes inside.
func (s *Sandbox) openStream(st *streams, i int, f *os.File) error {
	if f == nil {
		return s.passNull(st, i)
	}
	fd := int(f.Fd())
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	var at unix.Stat_t
	if err == nil {
		err = unix.Fstat(fd, &at)
	}
	if err != nil {
		return fmt.Errorf("sandbox: the %s can't be used: %w", streamNames[i], err)
	}
	if flags&unix.O_PATH != 0 {
		return fmt.Errorf("sandbox: the %s is a path descriptor (O_PATH), which is a way to the host's files; pass a file, a pipe or a terminal", streamNames[i])
	}
	kind := at.Mode & unix.S_IFMT
	// What is opened anew would be more than its owner has.
	if has := flags & unix.O_ACCMODE; has != mode(i) && has != unix.O_RDWR && (kind == unix.S_IFIFO || kind == unix.S_IFREG) {
		return fmt.Errorf("sandbox: the %s is open in the wrong direction; open what is read for reading, and what is written for writing", streamNames[i])
	}
	switch kind {
	case unix.S_IFIFO:
		return s.passPipe(st, i, fd)
	case unix.S_IFREG:
		// What others have written to the file before is not the command's to rewrite, and with the file it could:
		// O_APPEND can be taken off, and ftruncate and pwrite need no offset.
		if i > 0 && (flags&unix.O_APPEND != 0 || at.Size > 0) {
			return st.relayThrough(i, fd)
		}
		// Nor is what the starter has read of its input the command's to read.
		if offset, err := unix.Seek(fd, 0, io.SeekCurrent); i == 0 && (err != nil || offset > 0) {
			return st.relayThrough(i, fd)
		}
		return passFile(st, i, fd, flags)
	case unix.S_IFSOCK:
		return st.relayThrough(i, fd)
	case unix.S_IFCHR:
		if _, err := unix.IoctlGetTermios(fd, unix.TCGETS); err == nil {
			return s.passTerminal(st, i, fd)
		}
		if at.Rdev == unix.Mkdev(1, 3) {
			return s.passNull(st, i)
		}
		return st.relayThrough(i, fd)
	}
	return fmt.Errorf("sandbox: the %s is neither a file nor a pipe, terminal, socket or character device, so it is not passed inside", streamNames[i])
}

func (st *streams) pass(i, fd int) {
	st.passed[i] = fd
	st.opened = append(st.opened, fd)
}

// mode is how a stream is opened: the first is read, the others are written.
func mode(i int) int {
	if i == 0 {
		return unix.O_RDONLY
	}
	return unix.O_WRONLY
}

// passNull passes the sandbox's own /dev/null.
func (s *Sandbox) passNull(st *streams, i int) error {
	fd, err := unix.Openat(s.view.dev, "null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("sandbox: opening the sandbox's /dev/null: %w", err)
	}
	st.pass(i, fd)
	return nil
}

// passPipe opens a pipe anew, with the one mode that is needed: what is passed shares no flags with the caller's.
func (s *Sandbox) passPipe(st *streams, i, fd int) error {
	own, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), mode(i)|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if errors.Is(err, unix.ENXIO) {
		return st.relayThrough(i, fd) // a named pipe that nobody reads any more: writing to it is to fail, not its opening
	}
	if err == nil {
		err = unix.SetNonblock(own, false)
	}
	if err != nil {
		return fmt.Errorf("sandbox: opening the pipe of the %s anew: %w", streamNames[i], err)
	}
	st.pass(i, own)
	s.letReopen(i, own)
	return nil
}

// letReopen lets programs inside open an anonymous pipe by /dev/stdin, /dev/stdout or /dev/stderr, as scripts do, in
// its one direction. Its owner does not change, so nobody inside can widen that.
func (s *Sandbox) letReopen(i, fd int) {
	var fs unix.Statfs_t
	if unix.Fstatfs(fd, &fs) != nil || fs.Type != unix.PIPEFS_MAGIC {
		return
	}
	if unix.Fchown(fd, -1, int(s.view.hostGID)) == nil {
		_ = unix.Fchmod(fd, map[bool]uint32{true: 0o640, false: 0o620}[i == 0])
	}
}

// passFile passes a regular file. Opened for more than is needed it is opened anew, at the same place.
func passFile(st *streams, i, fd, flags int) error {
	if flags&unix.O_ACCMODE == mode(i) {
		own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("sandbox: passing the %s: %w", streamNames[i], err)
		}
		st.pass(i, own) // the offset is shared, as with a shell's redirection
		return nil
	}
	own, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), mode(i)|flags&unix.O_APPEND|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return fmt.Errorf("sandbox: opening the file of the %s anew: %w", streamNames[i], err)
	}
	st.pass(i, own)
	at, err := unix.Seek(fd, 0, io.SeekCurrent)
	if err == nil {
		_, err = unix.Seek(own, at, io.SeekStart)
	}
	if err != nil {
		return fmt.Errorf("sandbox: opening the file of the %s anew: %w", streamNames[i], err)
	}
	return nil
}

// relayThrough passes a pipe, and copies between it and the stream.
func (st *streams) relayThrough(i, fd int) error {
	if st.stop[0] < 0 {
		if err := unix.Pipe2(st.stop[:], unix.O_CLOEXEC); err != nil {
			return fmt.Errorf("sandbox: making a pipe: %w", err)
		}
	}
	// What the command leaves running may write when the caller has long closed its file, and the number is another's.
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("sandbox: keeping the %s: %w", streamNames[i], err)
	}
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		unix.Close(own)
		return fmt.Errorf("sandbox: making a pipe for the %s: %w", streamNames[i], err)
	}
	if i > 0 {
		st.pass(i, pipe[1])
		st.outputs = append(st.outputs, copier{pipe[0], own, true})
		return nil
	}
	st.pass(i, pipe[0])
	st.inputs = append(st.inputs, copier{own, pipe[1], false})
	return nil
}

// passTerminal passes the sandbox's side of a new terminal, one for all streams that are terminals.
func (s *Sandbox) passTerminal(st *streams, i, fd int) error {
	if st.terminal != nil {
		st.passed[i] = st.passed[st.controlling]
		return nil
	}
	master, slave, err := s.newTerminal()
	if err != nil {
		return err
	}
	st.terminal = master
	st.pass(i, slave)
	st.controlling = i
	if size, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ); err == nil {
		_ = setWinsize(master, size)
	}
	return nil
}

// newTerminal makes a terminal in the sandbox's own devpts. The slave is the sandbox's user's.
func (s *Sandbox) newTerminal() (master *os.File, slave int, err error) {
	fd, err := unix.Openat(s.view.pts, "ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, -1, fmt.Errorf("sandbox: making a terminal: %w", err)
	}
	master = os.NewFile(uintptr(fd), "terminal")
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		slave, err = unix.Openat(s.view.pts, fmt.Sprint(n), unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	}
	if err == nil {
		if err = unix.Fchown(slave, int(s.view.hostID), int(s.view.hostGID)); err == nil {
			return master, slave, nil
		}
		unix.Close(slave)
	}
	master.Close()
	return nil, -1, fmt.Errorf("sandbox: making a terminal: %w", err)
}

func setWinsize(f *os.File, size *unix.Winsize) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, size) })
	return errors.Join(err, failed)
}

// closePassed closes this process's copies of what was passed.
func (st *streams) closePassed() {
	for _, fd := range st.opened {
		unix.Close(fd)
	}
	st.opened = nil
}

// abandon gives everything back when no command was started.
func (st *streams) abandon() {
	st.closePassed()
	for _, c := range append(st.inputs, st.outputs...) {
		c.close()
	}
	st.inputs, st.outputs = nil, nil
	closeFD(&st.stop[0])
	st.commandEnded()
	if st.terminal != nil {
		st.terminal.Close()
	}
}

// relay starts copying; relays counts what copies output.
func (st *streams) relay(relays *sync.WaitGroup) {
	var users sync.WaitGroup // of stop
	for _, c := range st.inputs {
		users.Go(func() {
			c.copyUntil(st.stop[0])
			c.close()
		})
	}
	for _, c := range st.outputs {
		st.written.Add(1)
		users.Add(1)
		relays.Go(func() {
			c.copyUntil(st.stop[0]) // all that the command has written, and nothing is there any more
			st.written.Done()
			users.Done()
			c.copyUntil(-1)
			c.close()
		})
	}
	if st.stop[0] >= 0 {
		go func() {
			users.Wait()
			closeFD(&st.stop[0])
		}()
	}
}

// commandEnded ends the copying of input: what the command did not read stays with the caller, but for what is on the way.
func (st *streams) commandEnded() { st.once.Do(func() { closeFD(&st.stop[1]) }) }

// copyUntil copies until the end of file, an error, or until stop has something to say: input at once, output when there is
// nothing more to read.
func (c copier) copyUntil(stop int) {
	buf := make([]byte, 1<<16)
	whileWriting := stop
	if c.output {
		whileWriting = -1
	}
	for {
		if is, stopped := ready(c.from, unix.POLLIN, stop); !is || stopped && !c.output {
			return
		}
		n, err := unix.Read(c.from, buf)
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
			continue
		case err != nil || n == 0:
			return
		}
		for rest := buf[:n]; len(rest) > 0; {
			if is, stopped := ready(c.to, unix.POLLOUT, whileWriting); !is || stopped {
				return
			}
			n, err := unix.Write(c.to, rest)
			if err != nil && !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
				return
			}
			rest = rest[max(n, 0):]
		}
	}
}

// ready waits until a descriptor or stop is ready, and says which.
func ready(fd int, events int16, stop int) (is, stopped bool) {
	watch := []unix.PollFd{{Fd: int32(fd), Events: events}, {Fd: int32(stop)}}
	for {
		_, err := unix.Poll(watch, -1)
		if !errors.Is(err, unix.EINTR) {
			return err == nil && watch[0].Revents != 0, watch[1].Revents != 0
		}
	}
}

// drain waits until all output was taken, for drainTime at most.
func drain(outputs *sync.WaitGroup) {
	done := make(chan struct{})
	go func() {
		outputs.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(drainTime):
	}
}
