package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/nemoclaw/nemoclaw/agent/approvals"
	"github.com/nemoclaw/nemoclaw/agent/approvals/offer"
	"github.com/nemoclaw/nemoclaw/agent/approvals/risk"
	"github.com/nemoclaw/nemoclaw/agent/audit"
	"github.com/nemoclaw/nemoclaw/agent/config"
	"github.com/nemoclaw/nemoclaw/agent/gpu"
	"github.com/nemoclaw/nemoclaw/agent/hub"
	"github.com/nemoclaw/nemoclaw/agent/image"
	"github.com/nemoclaw/nemoclaw/agent/inference"
	"github.com/nemoclaw/nemoclaw/agent/redact"
	"github.com/nemoclaw/nemoclaw/agent/sandbox"
	"github.com/nemoclaw/nemoclaw/api"
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
	*Instance
	o          Options
	started    time.Time
	policyName string
	workspace  string
	image      *image.Image // nil: the host's files are the system inside
	name       string

	log     *audit.Writer
	hub     *hub.Hub
	records *hub.Recorder
	events  *hub.Events

	gpuHelper    gpu.Helper
	opened       *loader.Loader
	refusals     fileRefusals
	learner      *learn.Recorder      // nil: nothing is learnt
	learnt       *newFile             // where to
	refusedExecs *loader.RefusedExecs // nil: the kernel's audit tells, or nothing is learnt
	lastRefused  refusedAttempt       // of refusedProgram only
	terminal     *terminal
	desk         *approvals.Desk // nil: there is nobody to ask
	asking       sync.WaitGroup
	askNoMore    context.CancelFunc // nil: it has not begun
	process      *sandbox.Process
	signals      <-chan os.Signal // nil until they are taken over

	failed chan error // what makes it impossible to go on

	mu       sync.Mutex
	warnings []string
}

// Run runs a command in a sandbox of its own, to its end. The status is the command's as a shell gives it, or one of
// those above; the error, when there is one, is for the person who called. Nothing is left behind either way.
func Run(o Options) (status int, err error) {
	o.setDefaults()
	r := &run{Instance: newInstance(Config{}), o: o, started: time.Now(), failed: make(chan error, 16), terminal: newTerminal(&o)}
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
	parent, err := loader.ParentPath(cfg)
	if err != nil {
		return err
	}
	// The kernel's programs and the sandbox's namespaces have nothing to do with each other, and each takes milliseconds.
	var load errgroup.Group
	load.Go(func() (err error) {
		if r.opened, err = loader.Open(cfg); err == nil {
			err = r.opened.Sweep()
		}
		return err
	})
	level, loaded := loader.LoadedLevel(cfg)
	if !loaded { // the first run: what the sandbox is made of depends on what the kernel takes
		if err := load.Wait(); err != nil {
			return err
		}
		level = r.opened.Level()
	}
	err = r.prepareRun(parent, level)
	r.gpuHelper.Close() // what the policy gives is found, and stays
	if loadErr := load.Wait(); err == nil {
		err = loadErr
	}
	if err != nil {
		return err
	}
	err = r.enforce(r.opened, r.followRefusals, func() error {
		if r.o.Signals != nil {
			r.signals = r.o.Signals()
		}
		return nil
	})
	if err != nil {
		return err
	}
	r.watchPrograms()
	r.ask()
	return nil
}

// person is who answers at the prompt, as records say it.
const person = "the person at the terminal"

// ask begins to ask the person.
func (r *run) ask() {
	if r.desk == nil {
		return
	}
	r.desk.Begin(r.Instance)
	var ctx context.Context
	ctx, r.askNoMore = context.WithCancel(context.Background())
	r.asking.Go(func() { r.desk.Attend(ctx, person, r.terminal) })
}

// askNothing ends that.
func (r *run) askNothing() {
	if r.askNoMore != nil {
		r.askNoMore()
		r.asking.Wait()
	}
}

// look is what the person is told about an attempt. A run's own policy is a file, which nobody changes for it.
func (r *run) look(d policy.Decision) approvals.Described {
	this := offer.Offer{Offer: api.Offer{ID: "this", Text: "this alone", Scopes: []api.Scope{api.ScopeOnce, api.ScopeSession}}}
	return approvals.Described{Risks: risk.Of(risk.Attempt{Decision: d, Policy: r.policy}), Offers: []offer.Offer{this}}
}

// prepareRun reads what the person gave and makes the sandbox, in which nothing runs yet.
func (r *run) prepareRun(parent string, level policy.Level) error {
	c, err := r.read()
	if err != nil {
		return err
	}
	c.Parent, c.Level = parent, level
	r.Instance = newInstance(c)
	swept, err := sandbox.Sweep(r.o.RunDir, filepath.Dir(parent), filepath.Base(parent))
	if err != nil {
		return err
	}
	for _, s := range swept {
		r.note("sweep", s.Name, "a sandbox whose owner was killed was removed")
	}
	return r.prepare()
}

// read reads what the person gave: policy, workspace, name, where records go.
func (r *run) read() (c Config, err error) {
	if r.policy, r.policyName, err = r.o.loadPolicy(); err != nil {
		return c, err
	}
	if r.workspace, err = r.o.workspace(); err != nil {
		return c, err
	}
	if r.name, err = r.o.sandboxName(r.policy); err != nil {
		return c, err
	}
	if f := r.o.HostsFile; f != "" {
		if _, err := os.ReadFile(f); err != nil {
			return c, fmt.Errorf("--hosts-file: %w; name a file like /etc/hosts", err)
		}
	}
	if err = r.checkLearn(); err != nil {
		return c, err
	}
	root, err := r.unpackImage()
	if err != nil {
		return c, err
	}
	r.warn(r.policy.Warnings()...)
	if f := r.o.PolicyFile; f != "" && within(resolved(f), r.workspace) {
		r.warn(fmt.Sprintf("the policy %s is in the workspace, so the command can change it for the next run; keep it elsewhere", f))
	}
	if f := r.policy.Inference; f != nil && f.Budget != (policy.Budget{}) {
		r.warn("inference.budgets counts what this run takes, and forgets it with the run; a sandbox that lasts (nemoclaw create) keeps it for the day")
	}
	without, err := redact.New(r.policy)
	if err != nil {
		return c, err
	}
	events, err := r.o.openEvents(r.workspace)
	if err != nil {
		return c, err
	}
	if err = r.openLog(); err != nil {
		if events != nil {
			events.Close()
		}
		return c, err
	}
	r.hub = hub.New(r.log)
	r.records = r.hub.Sandbox(r.name)
	r.records.Redact(without)
	if r.learner != nil {
		r.records.Watch(r.learner.Add)
	}
	if events != nil {
		r.events = hub.WriteEvents(r.hub, events)
	}
	c = Config{
		GPUs: r.gpuHelper.Look,
		Name: r.name, Policy: r.policy, PolicyName: r.policyName, Workspace: r.workspace, Root: root, Started: r.started,
		RunDir: absolute(r.o.RunDir), Resolver: r.o.Resolver, HostsFile: r.o.HostsFile,
		Protected: []string{config.DefaultDir, absolute(r.o.AuditDir), absolute(r.o.KeyDir), config.DefaultState, absolute(r.o.RunDir), absolute(r.o.BPFFS)},
		Inference: inference.Source{Key: inference.KeyFromEnvironment},
		Record:    r.records.Record, Permit: r.records.Permit, Failed: r.fail, Warn: r.warn,
	}
	if r.terminal.asks {
		if r.desk, err = approvals.New().Open(approvals.Config{Sandbox: r.name, Record: r.records.Record, Permit: r.permitAnswer, Look: r.look}); err != nil {
			return c, err
		}
		r.terminal.policy = r.policy
		c.Ask, c.Refused, c.Granted = r.desk.Ask, r.desk.Refused, r.desk.Granted
	}
	return c, nil
}

// openLog opens the audit log, which is signed with the key of this host's daemon: who verifies one can verify the other. The key is made
// where there is none.
func (r *run) openLog() error {
	key, err := audit.OpenSigner(r.o.KeyDir)
	if err != nil {
		return fmt.Errorf("%w; name another directory with --key-dir", err)
	}
	r.log, err = audit.Open(r.o.AuditDir, r.name, audit.Options{Signer: key})
	return err
}

// permitAnswer records an answer that lets something through.
func (r *run) permitAnswer(d policy.Decision) error {
	return r.records.Permit(d, r.policy.Audit.Strict)
}

// unpackImage returns the directory of the files that are the system inside; "": the host's are.
func (r *run) unpackImage() (string, error) {
	if r.o.Image == "" {
		return "", nil
	}
	layer := 0
	img, err := (&image.Store{Dir: absolute(r.o.Images)}).Unpack(context.Background(), r.o.Image, func(p image.Progress) {
		if p.Layer != layer && !r.o.Quiet {
			layer = p.Layer
			fmt.Fprintf(r.o.Stderr, "nemoclaw: image %s: unpacking layer %d of %d\n", r.o.Image, p.Layer, p.Layers)
		}
	})
	r.image = &img
	return img.Root, err
}

// environment is the command's.
func (r *run) environment() []string {
	add := append(r.Environment(), r.o.Env...)
	if r.image != nil {
		return sandbox.ImageEnvironment(os.Environ(), r.image.Config.Env, r.terminal.stream, add)
	}
	return sandbox.Environment(os.Environ(), r.terminal.stream, add)
}

// command runs the command to its end.
func (r *run) command() (int, error) {
	r.note("start", strings.Join(r.o.Command, " "), fmt.Sprintf("level %s, workspace %s, policy %s", r.Level(), r.workspace, r.policyName))
	// What is not written down does not start.
	if err := r.log.Flush(); err != nil {
		return StatusFailed, err
	}
	r.warn(r.box.Warnings()...)
	var err error
	r.process, err = r.box.Exec(sandbox.ExecRequest{
		Args: r.o.Command, Env: r.environment(),
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
	r.wire.set(r.Instance, r.process.Done())
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
