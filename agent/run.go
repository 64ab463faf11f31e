package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/nemoclaw/nemoclaw/agent/audit"
	"github.com/nemoclaw/nemoclaw/agent/config"
	"github.com/nemoclaw/nemoclaw/agent/hub"
	"github.com/nemoclaw/nemoclaw/agent/sandbox"
	"github.com/nemoclaw/nemoclaw/dnsproxy"
	"github.com/nemoclaw/nemoclaw/loader"
	"github.com/nemoclaw/nemoclaw/policy"
	"github.com/nemoclaw/nemoclaw/policy/learn"
)

// Exit statuses of a run whose command did not end by itself.
const (
	StatusFailed        = 125 // the sandbox could not be made, or had to be stopped
	StatusNotExecutable = 126 // the command may not or can't be executed
	StatusNotFound      = 127 // the command was not found inside
)

// run is one run, from its options to its end. Fields are set in the order of the set-up; what is nil was not reached.
type run struct {
	o       Options
	started time.Time

	policy     *policy.Compiled
	policyName string
	workspace  string
	name       string

	log     *audit.Writer
	hub     *hub.Hub
	records *hub.Recorder
	events  *hub.Events

	parent       string // directory of the cgroup that the sandbox's own is made in
	loader       *loader.Loader
	box          *sandbox.Sandbox
	guard        *loader.Guard
	programs     *programs
	recorder     recorder // takes events from guardIt on
	rules        *netRules
	steering     interface{ Close() error }
	proxy        *dnsproxy.Server
	idle         []*os.File        // sockets that nothing has come to yet
	wire         chan *loader.Wire // holds it once it is set
	refusals     fileRefusals
	learner      *learn.Recorder      // nil: nothing is learnt
	learnt       *newFile             // where to
	refusedExecs *loader.RefusedExecs // nil: the kernel's audit tells, or nothing is learnt
	lastRefused  refusedAttempt       // of refusedProgram only
	terminal     *terminal
	process      *sandbox.Process
	signals      <-chan os.Signal // nil until they are taken over

	ending atomic.Bool // finish was called
	failed chan error  // what makes it impossible to go on

	mu       sync.Mutex
	warnings []string
}

// Run runs a command in a sandbox of its own, to its end. The status is the command's as a shell gives it, or one of
// those above; the error, when there is one, is for the person who called. Nothing is left behind either way.
func Run(o Options) (status int, err error) {
	o.setDefaults()
	r := &run{o: o, started: time.Now(), failed: make(chan error, 16), wire: make(chan *loader.Wire, 1), terminal: newTerminal(&o)}
	status, err = r.run()
	if e := r.finish(status); err == nil && e != nil {
		status, err = StatusFailed, e
	}
	return status, err
}

func (r *run) run() (int, error) {
	if err := r.setUp(); err != nil {
		return StatusFailed, err
	}
	select {
	case sig := <-r.signals:
		return 128 + int(sig.(syscall.Signal)), nil // before the command started: as if it had been killed
	default:
	}
	return r.command()
}

// setUp brings everything into force. Nothing of the policy's runs before it returns.
func (r *run) setUp() error {
	if os.Geteuid() != 0 {
		return errors.New("run: this needs root, because the sandbox's rules are put into the kernel from outside of it: run it with sudo; the command itself does not run as root")
	}
	cfg := loader.Config{BPFFS: r.o.BPFFS, Parent: r.o.CgroupParent}
	var err error
	if r.parent, err = loader.ParentPath(cfg); err != nil {
		return err
	}
	// The kernel's programs and the sandbox's namespaces have nothing to do with each other, and each takes milliseconds.
	var load errgroup.Group
	load.Go(func() (err error) {
		if r.loader, err = loader.Open(cfg); err == nil {
			err = r.loader.Sweep()
		}
		return err
	})
	err = r.prepare()
	if loadErr := load.Wait(); err == nil {
		err = loadErr
	}
	if err != nil {
		return err
	}
	if r.policy.Enforcement > r.loader.Level() {
		return fmt.Errorf("%s asks for enforcement level %s, and the level here is %s: %s; run where it is, or take `enforcement` out of the policy",
			r.policyName, r.policy.Enforcement, r.loader.Level(), r.loader.LevelReason())
	}
	return r.guardIt()
}

// prepare makes the sandbox, in which nothing runs yet.
func (r *run) prepare() error {
	if err := r.read(); err != nil {
		return err
	}
	swept, err := sandbox.Sweep(r.o.RunDir, filepath.Dir(r.parent), filepath.Base(r.parent))
	if err != nil {
		return err
	}
	for _, s := range swept {
		r.note("sweep", s.Name, "a sandbox whose owner was killed was removed")
	}
	r.box, err = sandbox.Prepare(r.spec())
	return err
}

// read reads what the person gave: policy, workspace, name, where records go.
func (r *run) read() (err error) {
	if r.policy, r.policyName, err = r.o.loadPolicy(); err != nil {
		return err
	}
	if r.workspace, err = r.o.workspace(); err != nil {
		return err
	}
	if r.name, err = r.o.sandboxName(r.policy); err != nil {
		return err
	}
	if f := r.o.HostsFile; f != "" {
		if _, err := os.ReadFile(f); err != nil {
			return fmt.Errorf("--hosts-file: %w; name a file like /etc/hosts", err)
		}
	}
	if err = r.checkLearn(); err != nil {
		return err
	}
	r.warn(r.policy.Warnings()...)
	if f := r.o.PolicyFile; f != "" && within(resolved(f), r.workspace) {
		r.warn(fmt.Sprintf("the policy %s is in the workspace, so the command can change it for the next run; keep it elsewhere", f))
	}
	events, err := r.o.openEvents(r.workspace)
	if err != nil {
		return err
	}
	if r.log, err = audit.Open(r.o.AuditDir, r.name); err != nil {
		if events != nil {
			events.Close()
		}
		return err
	}
	r.hub = hub.New(r.log)
	r.records = r.hub.Sandbox(r.name)
	if r.learner != nil {
		r.records.Watch(r.learner.Add)
	}
	if events != nil {
		r.events = hub.WriteEvents(r.hub, events)
	}
	return nil
}

func (r *run) spec() sandbox.Spec {
	return sandbox.Spec{
		Name: r.name, Policy: r.policy, Workspace: r.workspace, RunDir: absolute(r.o.RunDir),
		Cgroup2: filepath.Dir(r.parent), CgroupParent: filepath.Base(r.parent), Nameserver: dnsproxy.ResolverAddr4.String(),
		Protected: []string{config.DefaultDir, absolute(r.o.AuditDir), config.DefaultState, absolute(r.o.RunDir), absolute(r.o.BPFFS)},
		Unmasked: func(u sandbox.Unmasked) {
			r.note("unmasked", u.Path, "something on the host took the mask away that enforces "+u.Rule)
			r.fail(errors.Join(fmt.Errorf("the sandbox was stopped: %s could be reached in spite of %s, because something on the host renamed or replaced what the mask was on",
				u.Path, u.Rule), u.Err))
		},
	}
}

// guardIt puts the policy into the kernel, opens the way out, and starts the init, which waits.
func (r *run) guardIt() (err error) {
	r.recorder = recorder{policy: r.policy, identify: r.loader.Identify, record: r.records.Record}
	r.recorder.programs.Store(newPrograms(nil))
	r.guard, err = r.loader.NewGuard(r.box.CgroupDir(), loader.Options{
		MaxConns: maxConns, Default: r.policy.Network.Default, Revision: firstRevision, OnEvent: r.recorder.event,
	})
	if err != nil {
		return err
	}
	// Each waits for another part of the kernel.
	var g errgroup.Group
	var sockets *sockets
	g.Go(r.box.Start)
	g.Go(func() (err error) {
		if sockets, err = r.openSockets(); err != nil {
			return err
		}
		r.steering, err = r.guard.AttachNetns(r.box.NetnsFD(), sockets.steered())
		return err
	})
	g.Go(r.allowPrograms)
	g.Go(r.followRefusals)
	if r.o.Signals != nil {
		r.signals = r.o.Signals()
	}
	if err := g.Wait(); err != nil {
		return err
	}
	r.watchPrograms()
	return r.openNetwork(sockets)
}

// allowPrograms puts the exec list into the kernel.
func (r *run) allowPrograms() error {
	var fds []int
	var entries []loader.ExecEntry
	for _, p := range r.box.Programs() {
		fds = append(fds, int(p.File.Fd()))
		entries = append(entries, loader.ExecEntry{Rule: p.Rule})
	}
	for _, t := range r.box.ExecTrees() {
		st, err := t.File.Stat()
		if err != nil {
			return fmt.Errorf("run: %s, which may be executed: %w", t.Path, err)
		}
		_, rule, _ := r.policy.Files.Access(t.Path)
		fds = append(fds, int(t.File.Fd()))
		entries = append(entries, loader.ExecEntry{Tree: st.IsDir(), Rule: rule.RuleFor(policy.Execute)})
	}
	ids, err := r.loader.IdentifyAll(fds)
	if err != nil {
		return err
	}
	for i := range entries {
		entries[i].File = ids[i]
	}
	list := make([]program, len(r.box.Programs()))
	for i, p := range r.box.Programs() {
		list[i] = program{p.Command, p.Path, ids[i]}
	}
	r.programs = newPrograms(list)
	r.recorder.programs.Store(r.programs)
	return r.guard.SetExec(entries)
}

// command runs the command to its end.
func (r *run) command() (int, error) {
	r.note("start", strings.Join(r.o.Command, " "), fmt.Sprintf("level %s, workspace %s, policy %s", r.loader.Level(), r.workspace, r.policyName))
	// What is not written down does not start.
	if err := r.log.Flush(); err != nil {
		return StatusFailed, err
	}
	r.warn(r.box.Warnings()...)
	var err error
	r.process, err = r.box.Exec(sandbox.ExecRequest{
		Args: r.o.Command, Env: sandbox.Environment(os.Environ(), r.terminal.stream, r.o.Env),
		Stdin: r.o.Stdin, Stdout: r.o.Stdout, Stderr: r.o.Stderr,
	})
	if err != nil {
		switch {
		case errors.Is(err, syscall.ENOENT):
			return StatusNotFound, err
		case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.ENOEXEC), errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EISDIR):
			return StatusNotExecutable, err
		}
		return StatusFailed, err
	}
	r.terminal.begin(r.process)
	go r.setTripwire()
	return r.wait()
}

// wait waits for the command's end, or for what makes it impossible to go on.
func (r *run) wait() (int, error) {
	for {
		select {
		case <-r.process.Done():
			status, err := r.process.Wait()
			if err != nil {
				select {
				case cause := <-r.failed: // it was ended because of that
					err = cause
				default:
				}
				return StatusFailed, err
			}
			return status, nil
		case <-r.log.Failed():
			return StatusFailed, fmt.Errorf("the sandbox was stopped: %w", r.log.Err())
		case err := <-r.failed:
			return StatusFailed, err
		case sig := <-r.signals:
			r.signal(sig.(syscall.Signal))
		}
	}
}

// fail ends the run with err.
func (r *run) fail(err error) {
	select {
	case r.failed <- err:
	default: // it ends already
	}
}

func (r *run) warn(warnings ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.warnings = append(r.warnings, warnings...)
}

// note records something about the sandbox itself.
func (r *run) note(action, object, reason string) {
	r.records.Record(policy.Decision{Plane: policy.PlaneSystem, Action: action, Object: object, Reason: reason,
		Verdict: policy.Allow, Rule: "builtin", Revision: r.policy.Revision})
}
