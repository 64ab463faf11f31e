package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/nemoclaw/nemoclaw/agent/gpu"
	"github.com/nemoclaw/nemoclaw/agent/inference"
	"github.com/nemoclaw/nemoclaw/agent/sandbox"
	"github.com/nemoclaw/nemoclaw/agent/trace"
	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/dnsproxy"
	"github.com/nemoclaw/nemoclaw/loader"
	"github.com/nemoclaw/nemoclaw/policy"
)

// Config is what an Instance is made of.
type Config struct {
	Name       string
	Policy     *policy.Compiled // its files and commands hold as long as the instance, its network until SetPolicy
	PolicyName string           // what to call it by
	Workspace  string           // directory of the host, absolute; "" for none
	Root       string           // directory that the sandbox's files come from; "": the host's
	Env        []string         // NAME=VALUE, of all commands
	Started    time.Time        // what a rule's `expires` counts from
	Lasting    bool             // it outlives this process, and the next one can Adopt it
	Level      policy.Level     // of the loader that enforce is given

	Parent    string   // directory of the cgroup that the sandbox's own is made in: loader.ParentPath
	RunDir    string   // of all sandboxes, absolute
	Protected []string // directories that no sandbox may see, absolute
	BookFile  string   // where names and their addresses are kept; "": in memory
	Resolver  netip.AddrPort
	HostsFile string

	GPUs func(context.Context) api.GPUs // what the host has

	Inference inference.Source // for the privacy router, where the policy has one
	Traces    *trace.Source    // nil: nothing is traced

	Record func(policy.Decision) // every decision
	// Permit records what the proxy or the router is about to let through. With strict it returns when that is on the disk; an error
	// keeps it from going on.
	Permit func(d policy.Decision, strict bool) error
	// Ask answers what the policy asks about; nil: nobody is there. It must return when ctx ends.
	Ask func(ctx context.Context, d policy.Decision) policy.Verdict
	// Refused takes what the policy asks about where the attempt can't wait, Granted says whether a person has allowed an attempt
	// already. They are not called when Ask is nil.
	Refused func(d policy.Decision)
	Granted func(d policy.Decision) bool
	// Failed is told, once or more, that the sandbox can't go on: it is to be ended. Warn is told what a person should know.
	Failed func(error)
	Warn   func(...string)
}

// Instance is one sandbox in force: its namespaces and processes, its entries in the kernel, and its proxy, joined. Fields
// are set in the order of the set-up; what is nil was not reached.
type Instance struct {
	c      Config
	policy *policy.Compiled // c.Policy: what it was started with
	began  time.Time

	loader    *loader.Loader
	box       *sandbox.Sandbox
	guard     *loader.Guard
	local     localRules // in force
	recorder  recorder   // takes events from enforce on
	rules     *netRules
	steering  interface{ Close() error }
	authority *inference.Authority // of the router
	router    *inference.Router    // nil: nothing answers model calls
	gpus      *gpu.Given           // nil: none
	proxy     *dnsproxy.Server
	sockets   *sockets
	idle      *os.File // says that something came to a socket that nothing had come to yet
	wire      tripwire
	asks      fileAsks
	guarded   chan struct{} // closed when guard is set

	warnings atomic.Pointer[[]string] // of local, where that is not what the sandbox was started with

	ending  atomic.Bool // end was called
	changes sync.Mutex  // one change of rules at a time
	ends    *time.Timer // of the next rule for files or programs that ends
}

// newInstance has nothing yet.
func newInstance(c Config) *Instance {
	i := &Instance{c: c, policy: c.Policy, guarded: make(chan struct{})}
	i.recorder.policies.base = c.Policy
	i.asks.init()
	return i
}

// prepare makes the sandbox, in which nothing runs yet. It needs nothing of the kernel's programs.
func (i *Instance) prepare() (err error) {
	if err := i.openAuthority(); err != nil {
		return err
	}
	if err := i.takeGPUs(); err != nil {
		return err
	}
	i.box, err = sandbox.Prepare(i.spec())
	return err
}

func (i *Instance) spec() sandbox.Spec {
	return sandbox.Spec{
		Name: i.c.Name, Policy: i.policy, Started: i.c.Started, Workspace: i.c.Workspace, RunDir: i.c.RunDir,
		Cgroup2: filepath.Dir(i.c.Parent), CgroupParent: filepath.Base(i.c.Parent), Nameserver: dnsproxy.ResolverAddr4.String(),
		Protected: i.c.Protected, Lasting: i.c.Lasting, Root: i.c.Root, Full: i.c.Level == policy.LevelFull,
		Trust: i.trust(), Devices: i.deviceNodes(), Libraries: i.libraries(),
		Unmasked: func(u sandbox.Unmasked) {
			i.note("unmasked", u.Path, "something on the host took the mask away that enforces "+u.Rule)
			i.c.Failed(errors.Join(fmt.Errorf("the sandbox was stopped: %s could be reached in spite of %s, because something on the host renamed or replaced what the mask was on",
				u.Path, u.Rule), u.Err))
		},
		Gone: func() {
			if i.c.Lasting && !i.ending.Load() {
				i.c.Failed(sandbox.ErrGone)
			}
		},
	}
}

// enforce puts the policy into the kernel, opens the way out, and starts the init, which waits. Nothing of the policy's runs
// before it returns. beside runs meanwhile.
func (i *Instance) enforce(l *loader.Loader, beside ...func() error) (err error) {
	i.loader = l
	if l.Level() != i.c.Level {
		return fmt.Errorf("the enforcement level is %s, and was %s a moment ago: try again", l.Level(), i.c.Level)
	}
	if err := checkLevel(l, i.policy, i.c.PolicyName); err != nil {
		return err
	}
	if what := newHelped(i.box.Programs()).partial(i.policy); i.policy.Enforcement == policy.LevelFull && what != "" {
		return fmt.Errorf("%s asks for enforcement level full, and %s; change the rule, or take `enforcement` out of the policy", i.c.PolicyName, what)
	}
	i.record()
	i.guard, err = l.NewGuard(i.box.CgroupDir(), loader.Options{
		MaxConns: maxConns, Default: i.policy.Network.Default, Revision: firstRevision, OnEvent: i.recorder.event,
		Hold:   i.c.Ask != nil && l.Level() == policy.LevelFull,
		Listed: i.policy.Exec.Listed != 0,
	})
	if err != nil {
		return err
	}
	if err := i.allowDevices(); err != nil {
		return err
	}
	close(i.guarded)
	// Each waits for another part of the kernel.
	var g errgroup.Group
	g.Go(i.box.Start)
	g.Go(i.steer)
	g.Go(i.allowPrograms)
	for _, f := range beside {
		g.Go(f)
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if i.box.Full() {
		if err := i.judgeFiles(); err != nil {
			return err
		}
	}
	if i.rules, err = newNetRules(i.policy, i.local.programs, i.guard, i.guard.Live(), firstRevision, i.c.Started, &i.recorder.policies, i.c.Failed); err != nil {
		return err
	}
	i.rules.begin()
	i.awaitEnds()
	return i.openNetwork()
}

// checkLevel refuses a policy that wants more than this kernel can do, or than this version can hold without exception.
func checkLevel(l *loader.Loader, p *policy.Compiled, name string) error {
	if p.Enforcement > l.Level() {
		return fmt.Errorf("%s asks for enforcement level %s, and the level here is %s: %s; run where it is, or take `enforcement` out of the policy",
			name, p.Enforcement, l.Level(), l.LevelReason())
	}
	return nil
}

// record makes ready for the kernel's events.
func (i *Instance) record() {
	i.recorder.identify, i.recorder.record, i.recorder.ask = i.loader.Identify, i.c.Record, i.askFile
	i.recorder.programs.Store(newPrograms(nil))
}

// steer opens the proxy's sockets and leads everything to them.
func (i *Instance) steer() (err error) {
	if i.sockets, err = i.openSockets(); err != nil {
		return err
	}
	i.steering, err = i.guard.AttachNetns(i.box.NetnsFD(), i.sockets.steered())
	return err
}

// allowPrograms puts the exec list into the kernel.
func (i *Instance) allowPrograms() error {
	exec, programs, err := i.execEntries(i.policy, i.box.Programs(), i.box.ExecTrees())
	if err != nil {
		return err
	}
	i.local.policy, i.local.exec, i.local.programs = i.policy, exec, programs
	i.recorder.programs.Store(programs)
	return i.guard.SetExec(exec)
}

// end takes everything away, in the order in which nothing can act unjudged and no record is lost. between is called when
// everybody inside is dead and nothing is taken away yet, last when the kernel has reported all it will and the guard is
// still there. It returns what could not be done.
func (i *Instance) end(between, last func()) error {
	i.ending.Store(true)
	i.stopEnds()
	var errs []error
	done := func(err error) { errs = append(errs, err) }
	var box errgroup.Group
	if i.box != nil {
		done(i.box.Kill())
		box.Go(i.box.Close) // cgroups, mounts and directories have nothing to do with the rest
	}
	i.asks.close()
	between()
	done(i.closeNetwork())
	if i.guard != nil {
		i.guard.Drain()
		last()
		done(i.guard.Close())
	}
	done(box.Wait())
	i.local.close()
	return errors.Join(errs...)
}

// closeNetwork ends the way out: no connection goes on.
func (i *Instance) closeNetwork() error {
	errs := []error{i.wire.close()}
	if i.rules != nil {
		i.rules.stop()
	}
	if i.router != nil {
		errs = append(errs, i.router.Close())
	}
	if i.proxy != nil {
		errs = append(errs, i.proxy.Close())
	}
	if i.idle != nil {
		_ = i.idle.Close() // ends the wait, if it did not end by itself
	}
	if i.sockets != nil {
		i.sockets.close()
	}
	if i.steering != nil {
		errs = append(errs, i.steering.Close())
	}
	return errors.Join(errs...)
}

// lost is how many refusals the kernel counted and could not report.
func (i *Instance) lost() uint64 {
	c, err := i.guard.Counters()
	if err != nil {
		return 0 // the guard was never whole, so nothing ran
	}
	if n := c.Lost + c.Suppressed; n > 0 {
		i.note("lost", "events", fmt.Sprintf("%d of the kernel's events could not be written down one by one; what they were about was judged all the same", n))
		return n
	}
	return 0
}

// note records something about the sandbox itself.
func (i *Instance) permit(d policy.Decision) error {
	return i.c.Permit(d, i.recorder.policies.latest().Audit.Strict)
}

func (i *Instance) note(action, object, reason string) {
	i.c.Record(policy.Decision{Plane: policy.PlaneSystem, Action: action, Object: object, Reason: reason,
		Verdict: policy.Allow, Rule: "builtin", Revision: i.recorder.policies.latest().Revision})
}
