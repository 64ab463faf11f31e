package gpu

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// nobody is who a helper runs as.
const nobody = 65534

// endTime is how long a helper that was killed has to be gone. One that the driver holds in a system call is not.
const endTime = 2 * time.Second

// process is a helper that runs.
type process struct {
	cmd     *exec.Cmd
	in, out *os.File
	said    tail
	ended   chan struct{} // closed when it is gone
	status  error         // valid then
}

// start starts a helper: as nobody, without a network, and with nothing of the caller's environment.
func start(program string, env []string) (*process, error) {
	// By its descriptor, since nobody may have no way to its directory.
	file, err := os.Open(program)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	theirIn, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer theirIn.Close()
	out, theirOut, err := os.Pipe()
	if err != nil {
		in.Close()
		return nil, err
	}
	defer theirOut.Close()
	p := &process{in: in, out: out, ended: make(chan struct{})}
	p.cmd = &exec.Cmd{
		Path: fmt.Sprintf("/proc/self/fd/%d", file.Fd()), Args: []string{filepath.Base(program)}, Dir: "/",
		Env: append([]string{"PATH=/usr/bin:/bin", "CUDA_CACHE_DISABLE=1", "GOMAXPROCS=2", "GOTRACEBACK=none"}, env...), Stdin: theirIn, Stdout: theirOut, Stderr: &p.said,
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true}, // a terminal's signals are not for it
		WaitDelay:   endTime,
	}
	if os.Geteuid() == 0 {
		p.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody, Groups: deviceGroups()}
		p.cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS
	}
	if err := p.cmd.Start(); err != nil {
		in.Close()
		out.Close()
		return nil, err
	}
	go func() {
		p.status = p.cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// deviceGroups are the groups that may open the driver's devices where not everybody may.
func deviceGroups() (groups []uint32) {
	nodes, _ := filepath.Glob("/dev/nvidia*")
	for _, n := range nodes {
		var at unix.Stat_t
		if unix.Lstat(n, &at) == nil && at.Mode&unix.S_IFMT == unix.S_IFCHR && at.Mode&0o066 == 0o060 && at.Gid != 0 {
			groups = append(groups, at.Gid)
		}
	}
	return groups
}

// ask asks one question. After an error nothing more can be asked.
func (p *process) ask(q Question, limit time.Duration) (a Answer, err error) {
	deadline := time.Now().Add(limit)
	if err = errors.Join(p.in.SetWriteDeadline(deadline), p.out.SetReadDeadline(deadline)); err == nil {
		if err = WriteFrame(p.in, q); err == nil {
			err = ReadFrame(p.out, &a)
		}
	}
	if err == nil {
		return a, nil
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return a, fmt.Errorf("NVIDIA's driver did not answer within %s", limit)
	}
	select {
	case <-p.ended:
	case <-time.After(endTime):
		return a, fmt.Errorf("the helper said what is not understood: %w", err)
	}
	return a, fmt.Errorf("the helper %s crashed (%s)%s", p.cmd.Args[0], p.cmd.ProcessState, p.said.line())
}

// kill has it end, and whoever asks it told so.
func (p *process) kill() { _ = p.cmd.Process.Kill() } // it may have ended by itself

// end kills it, and reports whether it is gone: the driver may hold it.
func (p *process) end() bool {
	p.in.Close()
	p.out.Close()
	p.kill()
	select {
	case <-p.ended:
		return true
	case <-time.After(endTime):
		return false
	}
}

// tail keeps the end of what a helper says to standard error.
type tail struct {
	mu   sync.Mutex
	text []byte
}

const tailSize = 8192 // the runtime of Go says a lot when C crashes

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, b...)
	t.text = bytes.Clone(t.text[max(len(t.text)-tailSize, 0):])
	return len(b), nil
}

// line is what of it says the most, to go on a message with: the signal that Go's runtime names, or else what was said last.
func (t *tail) line() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	lines := strings.Split(strings.TrimSpace(string(t.text)), "\n")
	best := lines[len(lines)-1]
	if i := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "SIG") }); i >= 0 {
		best = lines[i]
	}
	if best == "" {
		return ""
	}
	return ": " + best
}
