package sandbox

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/policy"
)

// Prepare makes the sandbox: run directory, cgroups, namespaces, mounts, exec list. No program of the policy runs yet.
// What it can't enforce it refuses, and then nothing is left behind.
func Prepare(spec Spec) (*Sandbox, error) {
	if err := spec.check(); err != nil {
		return nil, err
	}
	if spec.Hostname == "" {
		spec.Hostname = spec.Name
	}
	if spec.Started.IsZero() {
		spec.Started = time.Now()
	}
	abi, err := landlockABI(spec.Full)
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
	s.view = newView(s.control, s.spec.Policy)
	s.view.devices = s.spec.Devices
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
	lasting := ""
	if s.spec.Lasting {
		lasting = s.spec.CgroupParent
	}
	if s.run, err = newRunDir(s.spec.RunDir, s.spec.Name, lasting); err != nil {
		return err
	}
	s.view.hostID, s.view.hostGID = s.run.id, s.run.id
	s.cgroup, err = newCgroup(h, s.spec.CgroupParent, s.spec.Name, p.Limits, p.Rule(p.Limits.ID).Pos)
	if err == nil && s.spec.Lasting {
		s.cgroup.countIO(h, s.spec.CgroupParent, s.spec.Name)
	}
	return err
}

// plan computes the view and makes its file systems.
func (s *Sandbox) plan() (err error) {
	p := s.spec.Policy.At(s.age())
	s.full = s.spec.Full
	if s.view.plan, err = s.planView(p); err != nil {
		return err
	}
	if why := s.view.plan.unanchored(); s.full && why != "" {
		if p.Enforcement == policy.LevelFull {
			return fmt.Errorf("sandbox: the policy asks for enforcement level full: %s; move it, or take `enforcement` out of the policy", why)
		}
		if s.abi < minLandlock {
			return fmt.Errorf("sandbox: %s, and Landlock ABI %d alone is not enough: move it, or boot Linux 6.2 or newer", why, s.abi)
		}
		s.full = false
		if s.view.plan, err = s.planView(p); err != nil {
			return err
		}
		s.view.plan.warnings = append(s.view.plan.warnings, why+": this sandbox has enforcement level static")
	}
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("sandbox: %w", err)
	}
	unix.Umask(0)
	return s.view.make(s.spec.Hostname, s.spec.Nameserver, s.spec.Trust)
}

// planView plans the view that the policy asks for on this host.
func (s *Sandbox) planView(c *policy.Compiled) (*viewPlan, error) {
	return (&planner{host: newRealHost(), full: s.full, libraries: s.spec.Libraries}).view(c, s.spec.Workspace, s.spec.Root, s.spec.Protected)
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

// openExec opens a path of the view below which anything may be executed.
func openExec(root int, at string) (ExecTree, error) {
	fd, err := openStrict(root, at, unix.O_PATH)
	if err != nil {
		return ExecTree{}, fmt.Errorf("sandbox: opening %s, which may be executed: %w", at, err)
	}
	return ExecTree{at, os.NewFile(uintptr(fd), at)}, nil
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
	p := s.spec.Policy.At(s.age())
	if s.rules, err = newRuleset(s.abi); err != nil {
		return err
	}
	if err := s.rules.addView(s.view.root, s.view.plan, p.Files.Baseline, s.full); err != nil {
		return err
	}
	s.programs, err = resolvePrograms(p, s.view.plan, s.view.root, s.run.path, s.rules, s.full)
	if err != nil {
		return err
	}
	for _, g := range s.view.plan.exec {
		at, err := openExec(s.view.root, g.path)
		if err != nil {
			return err
		}
		s.trees = append(s.trees, at)
	}
	s.notes = slices.Concat(s.cgroup.warnings, s.view.notes)
	s.warnings = slices.Concat(s.view.plan.warnings, s.programs.warnings, s.notes)
	s.workDir = policy.Home
	if s.view.plan.tree(workspaceDir) != nil {
		s.workDir = workspaceDir
	}
	return s.view.finish()
}
