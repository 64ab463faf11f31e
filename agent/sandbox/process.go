package sandbox

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/policy"
)

// ExecRequest is one command to run inside.
type ExecRequest struct {
	Args []string // Args[0] is looked for on the sandbox's PATH unless it has a slash
	Env  []string // the whole environment; see Environment
	Dir  string   // WorkDir when ""

	// Standard streams; nil is the sandbox's /dev/null. A terminal is replaced by a new one of the sandbox's own
	// (Process.Terminal), sockets and devices are relayed. The caller keeps the files and may close them after Wait.
	Stdin, Stdout, Stderr *os.File

	// Abort, once closed, kills the command if it does not run yet: what runs inside can stop it before it executes anything.
	// Nil: it is waited for.
	Abort <-chan struct{}
}

// ErrGone says that a sandbox ended while a command ran in it.
var ErrGone = errors.New("sandbox: the sandbox ended: its init was killed, by Close, by somebody on the host, or for want of memory")

// Process is a command that runs in a sandbox.
type Process struct {
	id       uint32
	args     []string // nil of an adopted one
	sandbox  *Sandbox
	streams  *streams
	done     chan struct{}
	status   unix.WaitStatus
	gone     bool
	terminal *os.File
}

// payload limits: what execve takes.
const maxPayload = 4 << 20

// Exec starts a command. It returns when the command's program runs, or with the reason why it can't: an error that
// wraps the errno of execve (ENOENT, EACCES, ...).
func (s *Sandbox) Exec(req ExecRequest) (*Process, error) {
	if req.Dir == "" {
		req.Dir = s.WorkDir()
	}
	payload, err := encodePayload(req)
	if err != nil {
		return nil, err
	}
	p, report, err := s.begin(req, payload)
	if err != nil {
		return nil, err
	}
	if err := p.failure(report, req); err != nil {
		s.forget(p)
		p.streams.abandon()
		return nil, err
	}
	p.streams.relay(&s.relays)
	return p, nil
}

// begin hands a command and its streams to the init; what arrives in the returned pipe says whether it was executed. That is
// not waited for here: the sandbox's descriptors are not closed meanwhile.
func (s *Sandbox) begin(req ExecRequest, payload []byte) (*Process, *os.File, error) {
	s.use.RLock()
	defer s.use.RUnlock()
	if err := s.alive(); err != nil {
		return nil, nil, err
	}
	streams, err := s.openStreams(req)
	if err != nil {
		return nil, nil, err
	}
	defer streams.closePassed() // else the relays would wait for this process's own copies
	file, err := payloadFile(payload)
	if err != nil {
		streams.abandon()
		return nil, nil, err
	}
	defer unix.Close(file)
	p, report, err := s.start(req.Args, streams, file, len(payload))
	if err != nil {
		streams.abandon()
	}
	return p, report, err
}

// start hands a command to the init.
func (s *Sandbox) start(args []string, streams *streams, payload, size int) (*Process, *os.File, error) {
	var report [2]int
	if err := unix.Pipe2(report[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, fmt.Errorf("sandbox: making a pipe: %w", err)
	}
	defer unix.Close(report[1])
	s.mu.Lock()
	defer s.mu.Unlock()
	failed := os.NewFile(uintptr(report[0]), "report")
	if err := s.aliveLocked(); err != nil {
		failed.Close()
		return nil, nil, err
	}
	s.lastID++
	p := &Process{id: s.lastID, args: args, sandbox: s, streams: streams, done: make(chan struct{}), terminal: streams.terminal}
	fds := append(streams.passed[:], payload, report[1])
	if err := s.control.send(fds, uint32(reqExec), p.id, int32(streams.controlling), uint32(size)); err != nil {
		failed.Close()
		return nil, nil, err
	}
	s.processes[p.id] = p
	return p, failed, nil
}

// forget takes a command back that was not started. The init tells of the end of those alone that it had a process for.
func (s *Sandbox) forget(p *Process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.processes, p.id)
}

func (s *Sandbox) alive() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.aliveLocked()
}

func (s *Sandbox) aliveLocked() error {
	if s.closed || s.gone || s.watcher == nil {
		return fmt.Errorf("no command can be started: %w", ErrGone)
	}
	return nil
}

// failure reads what a command says about its start: nothing, when it runs.
func (p *Process) failure(report *os.File, req ExecRequest) error {
	defer report.Close()
	heard := make(chan struct{})
	defer close(heard)
	if req.Abort != nil {
		go func() {
			select {
			case <-req.Abort:
				select {
				case <-heard: // it runs, and both ended before this goroutine's turn came
				default:
					_ = p.Signal(unix.SIGKILL) // its end of the pipe goes with it
				}
			case <-heard:
			}
		}()
	}
	words := make([]byte, 8)
	n, _ := report.Read(words)
	if n != len(words) {
		return nil
	}
	at, errno := step(binary.LittleEndian.Uint32(words)), syscall.Errno(binary.LittleEndian.Uint32(words[4:]))
	if at != stepExec {
		return stepError(at, errno)
	}
	name := req.Args[0]
	switch {
	case errno == unix.ENOENT && !strings.Contains(name, "/"):
		return fmt.Errorf("sandbox: %s: not found on the sandbox's PATH (%s): %w", name, policy.SearchPath, errno)
	case errno == unix.EACCES:
		todo := "add `command: " + path.Base(name) + "` to process.allow"
		if full := path.Join(req.Dir, name); strings.Contains(name, "/") {
			if path.IsAbs(name) {
				full = path.Clean(name)
			}
			if !slices.Contains(strings.Split(policy.SearchPath, ":"), path.Dir(full)) {
				todo = "add `command: " + full + "` to process.allow, and see that it is executable"
			}
		}
		return fmt.Errorf("sandbox: %s may not be executed: %w; %s", name, errno, todo)
	}
	return fmt.Errorf("sandbox: executing %s: %w", name, errno)
}

// encodePayload writes what init/proto.h calls struct payload and its strings.
func encodePayload(req ExecRequest) ([]byte, error) {
	if len(req.Args) == 0 || req.Args[0] == "" {
		return nil, errors.New("sandbox: no command was given")
	}
	candidates := []string{req.Args[0]}
	if !strings.Contains(req.Args[0], "/") {
		candidates = nil
		for dir := range strings.SplitSeq(policy.SearchPath, ":") {
			candidates = append(candidates, dir+"/"+req.Args[0])
		}
	}
	var b []byte
	for _, n := range []int{len(candidates), len(req.Args), len(req.Env)} {
		b = binary.LittleEndian.AppendUint32(b, uint32(n))
	}
	for _, list := range [][]string{{req.Dir}, candidates, req.Args, req.Env} {
		for _, text := range list {
			if strings.IndexByte(text, 0) >= 0 {
				return nil, fmt.Errorf("sandbox: %q has a NUL byte, which no argument, variable or directory can have", text)
			}
			b = append(append(b, text...), 0)
		}
	}
	if len(b) > maxPayload {
		return nil, fmt.Errorf("sandbox: arguments and environment of %s: %w", req.Args[0], unix.E2BIG)
	}
	return b, nil
}

func payloadFile(payload []byte) (int, error) {
	fd, err := unix.MemfdCreate("nemoclaw-exec", unix.MFD_CLOEXEC|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // a kernel before 6.3
		fd, err = unix.MemfdCreate("nemoclaw-exec", unix.MFD_CLOEXEC)
	}
	if err != nil {
		return -1, fmt.Errorf("sandbox: making a memory file: %w", err)
	}
	for len(payload) > 0 {
		n, err := unix.Write(fd, payload)
		if err != nil {
			unix.Close(fd)
			return -1, fmt.Errorf("sandbox: writing a memory file: %w", err)
		}
		payload = payload[n:]
	}
	return fd, nil
}

// listen takes what the init says until it is gone.
func (s *Sandbox) listen() {
	defer s.control.close()
	for {
		r, err := s.control.recv()
		s.mu.Lock()
		if err != nil || r.op != reExit {
			s.gone = true
			for id, p := range s.processes {
				p.gone = true
				p.end(unix.WaitStatus(unix.SIGKILL))
				delete(s.processes, id)
			}
			over := s.spec.Gone
			if s.closed {
				over = nil
			}
			s.mu.Unlock()
			if over != nil {
				over()
			}
			return
		}
		if p := s.processes[r.a]; p != nil {
			p.end(unix.WaitStatus(r.b))
			delete(s.processes, r.a)
		}
		s.mu.Unlock()
	}
}

func (p *Process) end(status unix.WaitStatus) {
	p.status = status
	p.streams.commandEnded()
	close(p.done)
}

// Wait returns the command's status as a shell gives it: the exit code, or 128 and the signal that killed it. The
// error is ErrGone when the whole sandbox ended first. All that the command has written is written then; what it left
// running is not waited for, and whoever does not take the output only for drainTime.
func (p *Process) Wait() (int, error) {
	<-p.done
	if len(p.streams.outputs) > 0 {
		drain(&p.streams.written)
	}
	switch {
	case p.gone:
		return 128 + int(unix.SIGKILL), ErrGone
	case p.status.Signaled():
		return 128 + int(p.status.Signal()), nil
	}
	return p.status.ExitStatus(), nil
}

// Args is the command line.
func (p *Process) Args() []string { return p.args }

// Done is closed when the command has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Signal sends a signal to the command's process group. A command that has ended gets none; that is no error.
func (p *Process) Signal(sig syscall.Signal) error {
	s := p.sandbox
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.processes[p.id] == nil {
		return nil
	}
	return s.control.send(nil, uint32(reqSignal), p.id, uint32(sig))
}

// Terminal is the master side of the command's terminal, non-blocking; nil when no stream was a terminal. The caller
// copies between it and the real one, and closes it after Wait.
func (p *Process) Terminal() *os.File { return p.terminal }

// Resize tells the command's terminal its size, in characters.
func (p *Process) Resize(rows, columns uint16) error {
	if p.terminal == nil {
		return nil
	}
	return setWinsize(p.terminal, &unix.Winsize{Row: rows, Col: columns})
}
