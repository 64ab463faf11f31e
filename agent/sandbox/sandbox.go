package sandbox

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/policy"
)

// Spec is what a sandbox is made of.
type Spec struct {
	Name         string           // lower-case letters, digits, hyphens; the run directory and cgroups have it
	Hostname     string           // inside; Name when ""
	Policy       *policy.Compiled // never changed
	Started      time.Time        // what a rule's `expires` counts from; zero: from now on
	Root         string           // directory of an unpacked image, absolute: the system inside is its; "": the host's
	Workspace    string           // directory of the host, absolute; "" for none
	RunDir       string           // directory of all run directories, absolute
	Cgroup2      string           // where cgroup2 is mounted; found when ""
	CgroupParent string           // name of the group that holds the sandboxes' groups
	Nameserver   string           // address in /etc/resolv.conf
	Trust        Trust            // whom programs inside trust beside the system's authorities
	Protected    []string         // directories of the daemon that no sandbox may see, absolute
	Devices      []Device         // beside those that every sandbox has
	Libraries    []Library        // files of the host that are shown beside what rules show
	Lasting      bool             // it outlives the daemon, and the next one can Adopt it
	Full         bool             // BPF LSM can judge files: the view and Landlock leave that to it, if rules can be anchored here

	// Unmasked is called when a mount that takes rights away is lost, because somebody on the host moved what was
	// below it. The sandbox is frozen then. Nil: it is only frozen.
	Unmasked func(Unmasked)

	// Gone is called when the sandbox ended without Close: its init was killed. Close is still due. Nil: nobody wants to know.
	Gone func()
}

// Unmasked says which rule stopped to hold.
type Unmasked struct {
	Path string // inside
	Rule string // "file:line"
	Err  error  // why the sandbox could not be frozen; it was killed then
}

// Sandbox is one sandbox, from Prepare to Close. Its methods may be called by several goroutines.
type Sandbox struct {
	spec     Spec
	run      *runDir
	cgroup   *cgroup
	control  *control
	view     *view
	netns    *os.File
	rules    *ruleset
	abi      int
	programs *programs
	trees    []ExecTree
	warnings []string
	notes    []string // those of them that have nothing to do with rules
	full     bool     // BPF LSM is to judge files
	workDir  string
	adopted  bool // the init is another's child

	launcher int // process id of the init's first stage; 0 when it is reaped
	pidfd    int // of PID 1; -1 before Start
	pid      int

	use       sync.RWMutex // held for writing while descriptors are closed
	mu        sync.Mutex
	closed    bool // Kill or Detach was called
	gone      bool // the init ended
	unmasked  bool // a mask was lost: it is frozen, or killed
	still     int  // calls of Freeze without their Thaw
	processes map[uint32]*Process
	lastID    uint32
	listening bool // listen has the control socket, and closes it
	watcher   *watcher
	relays    sync.WaitGroup // of output, of all commands
	once      sync.Once      // release
}

// isName reports whether a name can be a directory's, a cgroup's and a host's.
func isName(name string) bool {
	const most = 63
	for i := range len(name) {
		if c := name[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && (c != '-' || i == 0) {
			return false
		}
	}
	return name != "" && len(name) <= most
}

func (spec *Spec) check() error {
	switch {
	case os.Geteuid() != 0:
		return errors.New("sandbox: making a sandbox needs root: namespaces, mounts and cgroups are made as the host's root, so that nothing inside can undo them")
	case !isName(spec.Name):
		return fmt.Errorf("sandbox: the name %q must be 1 to 63 lower-case letters, digits and hyphens, no hyphen first", spec.Name)
	case spec.Policy == nil || spec.RunDir == "" || spec.CgroupParent == "" || spec.Nameserver == "":
		return errors.New("sandbox: a Spec needs Policy, RunDir, CgroupParent and Nameserver")
	}
	return nil
}

// systemFilter is the seccomp filter for this machine: assembled once, by the first sandbox of this process.
var systemFilter = sync.OnceValues(func() (filter systemCalls, err error) {
	if _, err := os.Stat("/proc/sys/vm/memfd_noexec"); err != nil {
		filter.memfdExec = 1
	}
	program, err := filterFor(runtime.GOARCH, filter.memfdExec == 1)
	if err == nil {
		filter.code, err = encodeFilter(program)
	}
	return filter, err
})

type systemCalls struct {
	code      []byte
	memfdExec uint32 // 1: the kernel can't make memfds non-executable
}

// Start locks the sandbox down: PID 1 is in its namespaces, has no capabilities and is restricted, and waits for
// commands.
func (s *Sandbox) Start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.pidfd >= 0 {
		return errors.New("sandbox: Start is for a sandbox that is prepared, once")
	}
	filter, err := systemFilter()
	if err != nil {
		return err
	}
	var masks []byte
	for _, m := range s.procMasks() {
		masks = append(append(masks, m...), 0)
	}
	var procRights uint64
	if s.spec.Policy.Files.Baseline {
		procRights = llRead
	}
	if s.spec.Policy.HasGPUs() { // and the baseline, else addDevices refuses
		procRights |= unix.LANDLOCK_ACCESS_FS_WRITE_FILE
	}
	fds := []int{int(s.cgroup.dir.Fd()), s.view.root, s.rules.fd}
	if s.spec.Lasting {
		socket, err := s.run.bindSocket()
		if err != nil {
			return err
		}
		defer unix.Close(socket)
		fds = append(fds, socket)
	}
	err = s.control.send(fds,
		uint32(reqInit), restrictFlags(s.abi), procRights, uint64(s.spec.Policy.Limits.Files), uint32(insideID),
		uint32(len(filter.code)/8), uint32(len(masks)), filter.memfdExec, s.view.hostID, uint32(0), filter.code, masks)
	if err != nil {
		return err
	}
	if err := s.awaitInit(); err != nil {
		return err
	}
	if s.watcher, err = s.watchMasks(); err != nil {
		return err
	}
	s.listening = true
	go s.listen()
	if s.spec.Lasting {
		return s.keep()
	}
	return nil
}

// alwaysHidden are parts of /proc that say something about the host and nothing about the sandbox.
var alwaysHidden = []string{"fkcore", "fkeys", "fkey-users", "fkallsyms", "fsysrq-trigger", "ftimer_list", "fcmdline"}

// writableProc is what everybody may write of /proc beside what is their own, where /proc can be written.
const writableProc = "dpressure"

func (s *Sandbox) procMasks() []string {
	hidden := alwaysHidden
	if s.spec.Policy.HasGPUs() {
		hidden = append(hidden[:len(hidden):len(hidden)], writableProc)
	}
	masks := slices.DeleteFunc(slices.Clone(hidden), func(m string) bool {
		_, err := os.Lstat("/proc/" + m[1:])
		return err != nil || slices.Contains(s.view.plan.procMasks, m)
	})
	return append(masks, s.view.plan.procMasks...)
}

// awaitInit follows PID 1 through its set-up. The first stage's word and PID 1's come in any order; after an error
// what is left to come is PID 1's id, which Close needs.
func (s *Sandbox) awaitInit() error {
	var failed error
	for inside := false; !inside || s.pidfd < 0; {
		r, err := s.control.recv()
		switch {
		case err != nil && failed != nil:
			return failed
		case err != nil:
			_, err = s.control.want(0) // says why
			return err
		case r.op == rePID:
			s.pid, s.pidfd = int(r.a), r.fd
		case r.op == reUserns:
			inside = true
		case r.op == reError:
			failed = stepError(step(r.a), syscall.Errno(r.b))
		default:
			return fmt.Errorf("sandbox: the init said %d while it was being set up", r.op)
		}
	}
	for _, m := range [][2]string{
		{"uid_map", fmt.Sprintf("%d %d 1\n", insideID, s.view.hostID)},
		{"setgroups", "deny"},
		{"gid_map", fmt.Sprintf("%d %d 1\n", insideID, s.view.hostGID)},
	} {
		if err := writeFile("/proc/"+strconv.Itoa(s.pid)+"/"+m[0], m[1]); err != nil {
			return fmt.Errorf("sandbox: mapping the sandbox's user to the host's uid %d: %w; the daemon's user namespace must hold that id", s.view.hostID, err)
		}
	}
	if err := s.control.send(nil, uint32(reqMapped)); err != nil {
		return err
	}
	_, err := s.control.want(reReady)
	s.reapLauncher() // it ended when PID 1 began
	return err
}

func (s *Sandbox) reapLauncher() {
	if s.launcher > 0 {
		for {
			if _, err := syscall.Wait4(s.launcher, nil, 0, nil); !errors.Is(err, syscall.EINTR) {
				break
			}
		}
		s.launcher = 0
	}
}

// NetnsFD is the sandbox's network namespace, open until Close.
func (s *Sandbox) NetnsFD() int { return int(s.netns.Fd()) }

// CgroupDir is the sandbox's cgroup2 directory, open until Close.
func (s *Sandbox) CgroupDir() *os.File { return s.cgroup.dir }

// Full reports whether BPF LSM has to judge files, by what Judged says. When it could and need not, Warnings says why.
func (s *Sandbox) Full() bool { return s.full }

// HostID is the uid that the sandbox's user has on the host.
func (s *Sandbox) HostID() uint32 { return s.view.hostID }

// HostGID is the gid that the sandbox's group has on the host.
func (s *Sandbox) HostGID() uint32 { return s.view.hostGID }

// InitPID is the process id of the sandbox's PID 1 on the host; 0 before Start.
func (s *Sandbox) InitPID() int { return s.pid }

// Programs lists the files that may be executed. The dynamic loader is not among them.
func (s *Sandbox) Programs() []Program {
	if s.programs == nil {
		return nil
	}
	return slices.Clone(s.programs.list)
}

// ExecTrees lists the paths below which anything may be executed.
func (s *Sandbox) ExecTrees() []ExecTree { return slices.Clone(s.trees) }

// Commands is how many commands that were started by Exec run.
func (s *Sandbox) Commands() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.processes)
}

// Warnings lists what the policy asks for and the host does not have. Each names its rule.
func (s *Sandbox) Warnings() []string { return slices.Clone(s.warnings) }

// WorkDir is where commands start: the workspace, or HOME when no rule shows it.
func (s *Sandbox) WorkDir() string { return s.workDir }

// Kill ends everything inside and waits until it is gone and its last output is written. Close does so too; what has nothing to do with the sandbox's
// own things can be taken away in between.
func (s *Sandbox) Kill() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	s.watcher.stop()
	if s.pidfd >= 0 {
		_ = unix.PidfdSendSignal(s.pidfd, unix.SIGKILL, nil, 0)
	}
	if s.control != nil {
		s.control.shutdown() // the first stage ends by it
	}
	s.reapLauncher()
	err := s.reapInit()
	if s.control != nil && !s.listening {
		s.control.close()
	}
	drain(&s.relays)
	return err
}

// Close kills everything inside, waits until it is gone, and removes the cgroups and the run directory. It may be
// called again, and on a sandbox whose Start failed.
func (s *Sandbox) Close() error {
	err := s.Kill()
	s.once.Do(func() { err = errors.Join(err, s.release()) })
	return err
}

// reapInit waits for PID 1, which the kernel lets end only when everybody in its pid namespace is gone.
func (s *Sandbox) reapInit() error {
	if s.pidfd < 0 {
		return nil
	}
	for {
		err := s.awaitInitEnd()
		if errors.Is(err, unix.EINTR) {
			continue
		}
		closeFD(&s.pidfd)
		if err != nil && !errors.Is(err, unix.ECHILD) {
			return fmt.Errorf("sandbox: waiting for the init to end: %w", err)
		}
		return nil
	}
}

// awaitInitEnd waits for the init, and reaps it when it is this process's child.
func (s *Sandbox) awaitInitEnd() error {
	if !s.adopted {
		return unix.Waitid(unix.P_PIDFD, s.pidfd, nil, unix.WEXITED, nil)
	}
	_, err := unix.Poll([]unix.PollFd{{Fd: int32(s.pidfd), Events: unix.POLLIN}}, -1)
	return err
}

// ReleasePrograms closes the files of Programs and ExecTrees, which nobody may use any more. Who lets go of them relies on
// their identity alone: a file that is deleted on the host could come back as another of the same number.
func (s *Sandbox) ReleasePrograms() {
	s.use.Lock()
	defer s.use.Unlock()
	s.releasePrograms()
}

func (s *Sandbox) releasePrograms() {
	if s.programs != nil {
		s.programs.close()
		s.programs.list = nil
	}
	for _, t := range s.trees {
		t.File.Close()
	}
	s.trees = nil
}

// release gives back what is no process.
func (s *Sandbox) release() error {
	s.use.Lock()
	defer s.use.Unlock()
	var failed []error
	s.releasePrograms()
	if s.rules != nil {
		s.rules.close()
	}
	if s.view != nil {
		s.view.close()
	}
	if s.netns != nil {
		s.netns.Close()
	}
	if s.cgroup != nil {
		failed = append(failed, s.cgroup.remove())
	}
	if s.run != nil && errors.Join(failed...) == nil {
		failed = append(failed, s.run.remove()) // else the next start's sweep finds the rest
	}
	return errors.Join(failed...)
}
