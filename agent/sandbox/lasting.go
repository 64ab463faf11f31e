package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/agent/atomicfile"
)

// What a lasting sandbox has in its run directory for the daemon after this one.
const (
	lastingFile = "lasting"    // there from before its first process, with its cgroup parent: Sweep leaves it alone
	stateFile   = "state.json" // there once it is whole
	socketFile  = "init.sock"  // where its init listens
)

// kept is what can't be learnt again from a sandbox that runs.
type kept struct {
	HostID   uint32      `json:"host_id"`
	HostGID  uint32      `json:"host_gid"`
	ABI      int         `json:"landlock_abi"`
	WorkDir  string      `json:"work_dir"`
	Warnings []string    `json:"warnings,omitempty"`
	Watched  []keptMount `json:"watched,omitempty"`
	View     *keptView   `json:"view,omitempty"` // where BPF LSM judges files
}

// keptMount is a watchedMount.
type keptMount struct {
	ID      uint64       `json:"mount"`
	Path    string       `json:"path"`
	Pos     string       `json:"rule"`
	Sources []keptSource `json:"sources"`
}

// keptSource is a file or directory of the host that must stay where it is.
type keptSource struct {
	Path string `json:"path"`
	Dev  uint64 `json:"dev"`
	Ino  uint64 `json:"ino"`
}

// writeState keeps the state of a sandbox that is whole.
func (r *runDir) writeState(k kept) error {
	text, err := json.Marshal(k)
	if err == nil {
		err = atomicfile.Swap(filepath.Join(r.path, stateFile), text)
	}
	if err != nil {
		return fmt.Errorf("sandbox: keeping what the next daemon needs: %w", err)
	}
	return nil
}

// atSocket calls f with the address of the init's socket: a short one, whatever the length of the run directory's path.
func (r *runDir) atSocket(f func(*unix.SockaddrUnix) error) error {
	return f(&unix.SockaddrUnix{Name: "/proc/thread-self/fd/" + strconv.Itoa(int(r.lock.Fd())) + "/" + socketFile})
}

// bindSocket makes the socket on which the init listens. The init itself calls listen: so the kernel tells whoever
// connects which process that is.
func (r *runDir) bindSocket() (fd int, err error) {
	if fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0); err == nil {
		if err = r.atSocket(func(at *unix.SockaddrUnix) error { return unix.Bind(fd, at) }); err != nil {
			unix.Close(fd)
		}
	}
	if err != nil {
		return -1, fmt.Errorf("sandbox: making the socket that the next daemon connects to: %w", err)
	}
	return fd, nil
}

// keep writes down what the next daemon needs.
func (s *Sandbox) keep() error {
	k := kept{HostID: s.view.hostID, HostGID: s.view.hostGID, ABI: s.abi, WorkDir: s.workDir, Warnings: s.warnings, View: s.keepView()}
	for _, w := range s.view.watched {
		k.Watched = append(k.Watched, keptMount{w.id, w.path, w.pos, w.sources})
	}
	return s.run.writeState(k)
}

// ErrNotWhole says that a daemon was killed while it set a sandbox up: there is nothing to take over.
var ErrNotWhole = errors.New("sandbox: it can't be taken over: its daemon was killed while it was set up, its processes are gone, or another version made it")

// adoptTime is how long an init has to answer, in seconds; it is busy with nothing else.
const adoptTime = 5

// Adopt takes over a lasting sandbox whose daemon is gone. Of spec it needs Name, RunDir, Cgroup2, CgroupParent, Policy
// (the one that it was started with) and Unmasked. ErrNotWhole says that there is nothing to take: Discard clears what is
// left. A mask that was lost meanwhile is reported as if it happened now.
func Adopt(spec Spec) (*Sandbox, error) {
	if err := spec.check(); err != nil {
		return nil, err
	}
	run, err := takeRunDir(spec.RunDir, spec.Name)
	if err != nil {
		return nil, err
	}
	s := &Sandbox{spec: spec, pidfd: -1, run: run, adopted: true, processes: map[uint32]*Process{}, view: newView(nil, spec.Policy)}
	if err := s.adopt(); err != nil {
		s.letGo()
		return nil, err
	}
	return s, nil
}

// letGo undoes Adopt, and leaves the sandbox as it was.
func (s *Sandbox) letGo() {
	if s.control != nil && !s.listening {
		s.control.close()
	}
	s.watcher.stop()
	closeFD(&s.pidfd)
	s.view.close()
	if s.netns != nil {
		s.netns.Close()
	}
	if s.cgroup != nil {
		s.cgroup.dir.Close()
	}
	s.run.lock.Close()
}

func (s *Sandbox) adopt() error {
	parent, err := s.run.lastingParent()
	if err != nil {
		return err
	}
	if parent != s.spec.CgroupParent {
		return fmt.Errorf("%w: it is below the cgroup %s, and this version's programs are at %s", ErrNotWhole, parent, s.spec.CgroupParent)
	}
	text, err := os.ReadFile(filepath.Join(s.run.path, stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNotWhole
	}
	var k kept
	if err == nil {
		err = json.Unmarshal(text, &k)
	}
	if err != nil {
		return fmt.Errorf("sandbox: reading what the last daemon kept: %w", err)
	}
	s.abi, s.workDir, s.warnings = k.ABI, k.WorkDir, k.Warnings
	s.view.hostID, s.view.hostGID = k.HostID, k.HostGID
	s.takeView(k.View)
	h, err := hostHierarchies(s.spec.Cgroup2)
	if err != nil {
		return err
	}
	group := &cgroup{v2: filepath.Join(h.v2, s.spec.CgroupParent, s.spec.Name)}
	for _, point := range h.v1 {
		dir := filepath.Join(point, s.spec.CgroupParent, s.spec.Name)
		if _, err := os.Stat(dir); err == nil {
			group.v1 = append(group.v1, dir)
		}
	}
	if group.dir, err = os.Open(group.v2); errors.Is(err, fs.ErrNotExist) {
		return ErrNotWhole
	} else if err != nil {
		return fmt.Errorf("sandbox: %w", err)
	}
	s.cgroup = group
	if err := s.connect(); err != nil {
		return err
	}
	if err := s.view.watchAgain(k.Watched); err != nil {
		return err
	}
	if err := s.thawAgain(); err != nil {
		return err
	}
	if err := s.hear(); err != nil {
		return err
	}
	if err := s.openView(); err != nil {
		return err
	}
	if s.watcher, err = s.watchMasks(); err != nil {
		return err
	}
	s.listening = true
	go s.listen()
	return nil
}

// connect connects to the init.
func (s *Sandbox) connect() error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("sandbox: making the socket to the init: %w", err)
	}
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: adoptTime}) // of connect
	err = s.run.atSocket(func(at *unix.SockaddrUnix) error { return unix.Connect(fd, at) })
	var peer *unix.Ucred
	if err == nil {
		peer, err = unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	}
	if err != nil {
		unix.Close(fd)
		if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ENOENT) {
			return ErrNotWhole
		}
		return fmt.Errorf("sandbox: connecting to the init: %w", err)
	}
	if s.control, err = takeControl(fd); err != nil {
		return err
	}
	if err = s.control.file.SetReadDeadline(time.Now().Add(adoptTime * time.Second)); err != nil {
		return fmt.Errorf("sandbox: waiting for the init's answer: %w", err)
	}
	// What answers after this was alive when its number was opened, so the number is its own.
	if s.pidfd, err = unix.PidfdOpen(int(peer.Pid), 0); errors.Is(err, unix.ESRCH) {
		return ErrNotWhole
	} else if err != nil {
		return fmt.Errorf("sandbox: opening the init: %w", err)
	}
	// The kernel ends the connection with whoever listens. Where it has not, the number was still the init's own.
	watch := []unix.PollFd{{Fd: int32(fd)}}
	if _, err := unix.Poll(watch, 0); err != nil || watch[0].Revents != 0 {
		return ErrNotWhole
	}
	s.pid = int(peer.Pid)
	return nil
}

// thawAgain lets a sandbox go on that its daemon was killed over: while a snapshot was taken. One that stands still because
// it has lost a mask stays so, and can't be taken.
func (s *Sandbox) thawAgain() error {
	state, err := os.ReadFile(filepath.Join(s.cgroup.v2, "cgroup.freeze"))
	if err != nil {
		return fmt.Errorf("sandbox: is it frozen? %w", err)
	}
	if strings.TrimSpace(string(state)) == "0" {
		return nil
	}
	mounts, err := os.ReadFile("/proc/" + strconv.Itoa(s.pid) + "/mountinfo")
	if err != nil {
		return fmt.Errorf("sandbox: looking at the masks: %w", err)
	}
	if gone := lost(s.view.watched, mounts, s.view.moves.take()); len(gone) > 0 {
		return fmt.Errorf("sandbox: it can't be taken over: something on the host took the mask of %s away, which enforces %s", gone[0].path, gone[0].pos)
	}
	return s.Thaw()
}

// hear hears what runs.
func (s *Sandbox) hear() error {
	for {
		r, err := s.control.recv()
		switch {
		case err != nil:
			return fmt.Errorf("sandbox: waiting for the init's answer: %w", err)
		case r.op == reCommand:
			s.processes[r.a] = &Process{id: r.a, sandbox: s, streams: &streams{stop: [2]int{-1, -1}}, done: make(chan struct{})}
			s.lastID = max(s.lastID, r.a)
		case r.op == reReady:
			return s.control.file.SetReadDeadline(time.Time{})
		}
	}
}

// openView opens what an earlier daemon had open.
func (s *Sandbox) openView() (err error) {
	proc := "/proc/" + strconv.Itoa(s.pid)
	netns, err := unix.Open(proc+"/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("sandbox: opening the network namespace: %w", err)
	}
	s.netns = os.NewFile(uintptr(netns), "netns")
	if s.view.root, err = unix.Open(proc+"/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return fmt.Errorf("sandbox: opening the view: %w", err)
	}
	if s.view.dev, err = openStrict(s.view.root, "dev", unix.O_PATH|unix.O_DIRECTORY); err == nil {
		s.view.pts, err = openStrict(s.view.root, "dev/pts", unix.O_PATH|unix.O_DIRECTORY)
	}
	if err != nil {
		return fmt.Errorf("sandbox: opening /dev of the view: %w", err)
	}
	// It lives, so all of this was opened of it and not of another that has its number now.
	if err := unix.PidfdSendSignal(s.pidfd, 0, nil, 0); err != nil {
		return ErrNotWhole
	}
	return nil
}

// Detach lets go of a lasting sandbox and leaves it running, for the next daemon. No method may be called afterwards.
func (s *Sandbox) Detach() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.watcher.stop()
	s.control.shutdown()
	s.use.Lock()
	defer s.use.Unlock()
	s.releasePrograms()
	if s.rules != nil {
		s.rules.close()
	}
	s.view.close()
	s.netns.Close()
	s.cgroup.dir.Close()
	closeFD(&s.pidfd)
	s.run.lock.Close()
}

// Lasting lists the lasting sandboxes of a run directory whose daemon is gone.
func Lasting(dir string) ([]string, error) {
	markers, err := filepath.Glob(filepath.Join(dir, "*", lastingFile))
	if err != nil {
		return nil, fmt.Errorf("sandbox: looking for what the last daemon left: %w", err)
	}
	var names []string
	for _, m := range markers {
		names = append(names, filepath.Base(filepath.Dir(m)))
	}
	return names, nil
}

// Discard removes what is left of a lasting sandbox whose daemon is gone: its processes, cgroups and run directory. One
// that has no run directory (a reboot) is no error.
func Discard(dir, cgroup2, name string) error {
	run, err := takeRunDir(dir, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	parent, err := run.lastingParent()
	if err != nil {
		run.lock.Close()
		return err
	}
	_, err = sweepOne(run, cgroup2, parent, name)
	return err
}

// lastingParent is the cgroup parent that a lasting sandbox was made below.
func (r *runDir) lastingParent() (string, error) {
	text, err := os.ReadFile(filepath.Join(r.path, lastingFile))
	if err != nil {
		return "", fmt.Errorf("sandbox: %s is no lasting sandbox's: %w", r.path, err)
	}
	return string(text), nil
}

// takeRunDir locks the run directory of a sandbox whose daemon is gone.
func takeRunDir(dir, name string) (*runDir, error) {
	all, err := lockAll(dir)
	if err != nil {
		return nil, err
	}
	defer all.Close()
	r := &runDir{path: filepath.Join(dir, name)}
	if r.lock, err = os.Open(r.path); err != nil {
		return nil, fmt.Errorf("sandbox: %w", err)
	}
	if err = TakeLock(r.lock); err == nil {
		return r, nil
	}
	r.lock.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("sandbox: %s: another daemon has it", r.path)
	}
	return nil, fmt.Errorf("sandbox: locking %s: %w", r.path, err)
}
