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

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/policy"
)

// Spec is what a sandbox is made of.
type Spec struct {
	Name         string           // lower-case letters, digits, hyphens; the run directory and cgroups have it
	Hostname     string           // inside; Name when ""
	Policy       *policy.Compiled // never changed
	Workspace    string           // directory of the host, absolute; "" for none
	RunDir       string           // directory of all run directories, absolute
	Cgroup2      string           // where cgroup2 is mounted; found when ""
	CgroupParent string           // name of the group that holds the sandboxes' groups
	Nameserver   string           // address in /etc/resolv.conf
	Protected    []string         // directories of the daemon that no sandbox may see, absolute

	// Unmasked is called when a mount that takes rights away is lost, because somebody on the host moved what was
	// below it. The sandbox is frozen then. Nil: it is only frozen.
	Unmasked func(Unmasked)
}

// Unmasked says which rule stopped to hold.
type Unmasked struct {
	Path string // inside
	Rule policy.RuleID
	Err  error // why the sandbox could not be frozen; it was killed then
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

	launcher int // process id of the init's first stage; 0 when it is reaped
	pidfd    int // of PID 1; -1 before Start
	pid      int

	use       sync.RWMutex // held for writing while descriptors are closed
	mu        sync.Mutex
	closed    bool
	gone      bool // the init ended
	processes map[uint32]*Process
	lastID    uint32
	listening bool // listen has the control socket, and closes it
	watcher   *watcher
	relays    sync.WaitGroup // of output, of all commands
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

// Prepare makes the sandbox: run directory, cgroups, namespaces, mounts, exec list. No program of the policy runs yet.
// What it can't enforce it refuses, and then nothing is left behind.
func Prepare(spec Spec) (*Sandbox, error) {
	if err := spec.check(); err != nil {
		return nil, err
	}
	if spec.Hostname == "" {
		spec.Hostname = spec.Name
	}
	abi, err := landlockABI()
	if err != nil {
		return nil, err
	}
	s := &Sandbox{spec: spec, abi: abi, pidfd: -1, processes: map[uint32]*Process{}}
	if err := s.prepare(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// prepare does at once what does not depend on each other: one thread makes the namespaces and composes the view, one
// plans the view and fills its file systems, and this one makes the run directory and the cgroups. Making a network
// namespace alone takes as long as the rest.
func (s *Sandbox) prepare() error {
	var theirs int
	var err error
	if s.control, theirs, err = newControl(); err != nil {
		return err
	}
	defer unix.Close(theirs)
	s.view = newView(s.control, s.spec.Policy.Limits.Disk)
	b := &building{theirs: theirs, planned: make(chan struct{}), placed: make(chan bool, 1), opened: make(chan bool, 1)}
	built := make(chan error, 1)
	go func() {
		b.planErr = onNewThread(s.plan)
		close(b.planned)
	}()
	go func() { built <- onNewThread(func() error { return s.build(b) }) }()
	err = s.place()
	b.placed <- err == nil
	if <-b.opened && err == nil {
		err = s.inNetns(configureNetns)
	}
	err = errors.Join(err, <-built)
	<-b.planned // nobody touches the view any more
	return err
}

// building is what the threads of prepare tell each other.
type building struct {
	theirs  int           // the init's end of the control socket
	planned chan struct{} // closed when plan is done
	planErr error         // valid then
	placed  chan bool     // run directory and cgroups are there
	opened  chan bool     // the network namespace is there
}

// place makes the run directory and the cgroups.
func (s *Sandbox) place() error {
	p := s.spec.Policy
	h, err := hostHierarchies(s.spec.Cgroup2)
	if err != nil {
		return err
	}
	if s.run, err = newRunDir(s.spec.RunDir, s.spec.Name); err != nil {
		return err
	}
	s.view.hostID, s.view.hostGID = s.run.id, s.run.id
	s.cgroup, err = newCgroup(h, s.spec.CgroupParent, s.spec.Name, p.Limits, p.Rule(p.Limits.ID).Pos)
	return err
}

// plan computes the view and makes its file systems.
func (s *Sandbox) plan() (err error) {
	if s.view.plan, err = planView(s.spec.Policy, s.spec.Workspace, s.spec.Protected, newRealHost()); err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("sandbox: %w", err)
	}
	unix.Umask(0)
	return s.view.make(s.spec.Hostname, s.spec.Nameserver)
}

// onNewThread runs f on a thread that ends with it, and that is not the process's first: that one can't end, and
// /proc/self shows its namespaces.
func onNewThread(f func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			result <- onNewThread(f) // while this one holds the first thread
			runtime.UnlockOSThread()
			return
		}
		result <- f()
	}()
	return <-result
}

// build makes the namespaces and composes the view in them. It runs on a thread of its own, whose namespaces and v1
// cgroups the init's first stage inherits; the thread does not outlive it.
func (s *Sandbox) build(b *building) error {
	err := s.makeNamespaces()
	b.opened <- err == nil
	if !<-b.placed || err != nil {
		return err
	}
	if err := s.cgroup.enter(); err != nil {
		return err
	}
	if s.launcher, err = launch(b.theirs); err != nil {
		return err
	}
	if access, _, _ := s.spec.Policy.Files.Access(workspaceDir); access&readWrite != 0 {
		s.view.askEarly(s.spec.Workspace)
	}
	<-b.planned
	if b.planErr != nil {
		return b.planErr
	}
	if err := s.view.compose(s.run.path); err != nil {
		return err
	}
	return s.restrict()
}

func (s *Sandbox) makeNamespaces() error {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS); err != nil {
		return fmt.Errorf("sandbox: making namespaces: %w; in a container: --privileged; see also user.max_*_namespaces (sysctl)", err)
	}
	unix.Umask(0)
	if err := leaveChroot(); err != nil {
		return fmt.Errorf("sandbox: making the chroot a root: %w", err)
	}
	if err := unix.MountSetattr(unix.AT_FDCWD, "/", unix.AT_RECURSIVE, &unix.MountAttr{Propagation: unix.MS_PRIVATE}); err != nil {
		return fmt.Errorf("sandbox: making the mount namespace private: %w", err)
	}
	if err := unix.Sethostname([]byte(s.spec.Hostname)); err != nil {
		return fmt.Errorf("sandbox: setting the host name %q: %w", s.spec.Hostname, err)
	}
	netns, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("sandbox: opening the network namespace: %w", err)
	}
	s.netns = os.NewFile(uintptr(netns), "netns")
	return nil
}

// restrict makes the Landlock ruleset of the composed view and resolves the exec list in it.
func (s *Sandbox) restrict() (err error) {
	p := s.spec.Policy
	if s.rules, err = newRuleset(s.abi); err != nil {
		return err
	}
	if err := s.rules.addView(s.view.root, s.view.plan, p.Files.Baseline); err != nil {
		return err
	}
	s.programs, err = resolvePrograms(p, s.view.root, s.run.path, s.rules)
	if err != nil {
		return err
	}
	for _, g := range s.view.plan.exec {
		fd, err := openIn(s.view.root, g.path, unix.O_PATH)
		if err != nil {
			return fmt.Errorf("sandbox: opening %s, which may be executed: %w", g.path, err)
		}
		s.trees = append(s.trees, ExecTree{g.path, os.NewFile(uintptr(fd), g.path)})
	}
	s.warnings = slices.Concat(s.view.plan.warnings, s.cgroup.warnings, s.programs.warnings, s.view.notes)
	return s.view.finish()
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
	err = s.control.send([]int{int(s.cgroup.dir.Fd()), s.view.root, s.rules.fd},
		uint32(reqInit), restrictFlags(s.abi), procRights, uint64(s.spec.Policy.Limits.Files), uint32(insideID),
		uint32(len(filter.code)/8), uint32(len(masks)), filter.memfdExec, filter.code, masks)
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
	return nil
}

// alwaysHidden are parts of /proc that say something about the host and nothing about the sandbox.
var alwaysHidden = []string{"fkcore", "fkeys", "fkey-users", "fkallsyms", "fsysrq-trigger", "ftimer_list", "fcmdline"}

func (s *Sandbox) procMasks() []string {
	masks := slices.DeleteFunc(slices.Clone(alwaysHidden), func(m string) bool {
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

// HostID is the uid that the sandbox's user has on the host.
func (s *Sandbox) HostID() uint32 { return s.view.hostID }

// InitPID is the process id of the sandbox's PID 1 on the host; 0 before Start.
func (s *Sandbox) InitPID() int { return s.pid }

// Programs lists the files that may be executed. The dynamic loader is not among them.
func (s *Sandbox) Programs() []Program { return slices.Clone(s.programs.list) }

// ExecTrees lists the paths below which anything may be executed.
func (s *Sandbox) ExecTrees() []ExecTree { return slices.Clone(s.trees) }

// Warnings lists what the policy asks for and the host does not have. Each names its rule.
func (s *Sandbox) Warnings() []string { return slices.Clone(s.warnings) }

// WorkDir is where commands start: the workspace, or HOME when no rule shows it.
func (s *Sandbox) WorkDir() string {
	for _, t := range s.view.plan.trees {
		if t.path == workspaceDir {
			return workspaceDir
		}
	}
	return policy.Home
}

// Close kills everything inside, waits until it is gone, and removes the cgroups and the run directory. It may be
// called again, and on a sandbox whose Start failed.
func (s *Sandbox) Close() error {
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
	return errors.Join(err, s.release())
}

// reapInit waits for PID 1, which the kernel lets end only when everybody in its pid namespace is gone.
func (s *Sandbox) reapInit() error {
	if s.pidfd < 0 {
		return nil
	}
	for {
		err := unix.Waitid(unix.P_PIDFD, s.pidfd, nil, unix.WEXITED, nil)
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

// release gives back what is no process.
func (s *Sandbox) release() error {
	s.use.Lock()
	defer s.use.Unlock()
	var failed []error
	drain(&s.relays)
	if s.programs != nil {
		s.programs.close()
	}
	for _, t := range s.trees {
		t.File.Close()
	}
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
