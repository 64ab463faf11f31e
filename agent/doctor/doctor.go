// Package doctor looks at a host: can it hold sandboxes, how well are they enforced, and what is in the way. Each check does
// the thing itself where it can (loads a program, makes a namespace, runs a sandbox) and believes no file about it; what is
// not as it should be comes with why it matters and what to do.
//
// It leaves nothing behind, and changes nothing unless it is told to fix what is safe. It never touches a sandbox.
package doctor

import (
	"context"
	"os"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/config"
	"github.com/nemoclaw/nemoclaw/agent/gpu"
	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/loader"
	"github.com/nemoclaw/nemoclaw/policy"
)

// State is how it stands with one thing.
type State string

// The states. A warning leaves something that works less well; what failed keeps sandboxes from starting, or the daemon.
const (
	OK      State = "ok"
	Warning State = "warning"
	Failed  State = "failed"
)

// Finding is what one check found.
type Finding struct {
	Check  string `json:"check"`
	State  State  `json:"state"`
	Found  string `json:"found"`
	Why    string `json:"why,omitempty"`    // it matters; not with OK
	Remedy string `json:"remedy,omitempty"` // a command, or what a person has to do
	Fixed  string `json:"fixed,omitempty"`  // what was done about it, with Options.Fix
}

// Report is what all checks found.
type Report struct {
	Level       string    `json:"level"` // of enforcement on this host, by this version
	LevelReason string    `json:"level_reason,omitempty"`
	Findings    []Finding `json:"findings"`
}

// Count is how many findings are in a state.
func (r Report) Count(s State) int {
	n := 0
	for _, f := range r.Findings {
		if f.State == s {
			n++
		}
	}
	return n
}

// Options say what to look at.
type Options struct {
	Config  config.Config
	Version string // of this program
	Fix     bool   // do what is safe
	GPU     bool   // look at GPUs, and at nothing else

	// Slow is called with the name of a check that takes more than a second, when it does.
	Slow func(check string)
	// Done is called with each finding as soon as there is one.
	Done func(Finding)
}

// check is one thing to look at.
type check struct {
	name string
	root bool // looking needs root
	look func(*examiner) Finding
	fix  func(*examiner) (did string, err error) // nil: nothing that is safe
}

// checks are all there are, in an order in which the first that failed explains those after it.
var checks = []check{
	{name: "root", look: (*examiner).root},
	{name: "kernel", look: (*examiner).kernel},
	{name: "landlock", look: (*examiner).landlock},
	{name: "seccomp", look: (*examiner).seccomp},
	{name: "lsm", root: true, look: (*examiner).lsm},
	{name: "cgroup2", look: (*examiner).cgroup2, fix: (*examiner).mountCgroup2},
	{name: "limits", look: (*examiner).controllers},
	{name: "bpffs", look: (*examiner).bpffs, fix: (*examiner).mountBPFFS},
	{name: "namespaces", root: true, look: (*examiner).namespaces},
	{name: "userns", look: (*examiner).userns},
	{name: "bpf", root: true, look: (*examiner).bpf},
	{name: "nf_tables", root: true, look: (*examiner).nftables},
	{name: "sandbox", root: true, look: (*examiner).sandbox},
	{name: "memfd", look: (*examiner).memfd},
	{name: "inotify", look: (*examiner).inotify, fix: (*examiner).raiseInotify},
	{name: "capacity", look: (*examiner).capacity, fix: (*examiner).raiseCapacity},
	{name: "state", look: storage("state_dir"), fix: makeDirectory("state_dir")},
	{name: "run", look: storage("run_dir"), fix: makeDirectory("run_dir")},
	{name: "audit", look: storage("audit"), fix: makeDirectory("audit")},
	{name: "clock", look: (*examiner).clock},
	{name: "dns", look: (*examiner).dns},
	{name: "gpu", look: (*examiner).gpu},
	{name: "unit", look: (*examiner).unit},
	{name: "daemon", look: (*examiner).daemon},
}

// examiner is one examination of the host.
type examiner struct {
	ctx     context.Context
	o       Options
	scratch string // where something is tried out; "" until then
	helper  gpu.Helper
	gpus    api.GPUs // as look found them
}

// Run looks at everything.
func Run(ctx context.Context, o Options) Report {
	e := &examiner{ctx: ctx, o: o}
	defer e.helper.Close()
	list := checks
	if o.GPU {
		list = gpuChecks
	}
	r := Report{Level: policy.LevelFull.String()}
	if err := loader.ProbeLSM(); err != nil {
		r.Level, r.LevelReason = policy.LevelStatic.String(), loader.WhyStatic(err)
	}
	for _, c := range list {
		f := e.examine(c)
		if o.Fix && f.State != OK && c.fix != nil && (os.Geteuid() == 0) {
			f = e.repair(c, f)
		}
		r.Findings = append(r.Findings, f)
		if o.Done != nil {
			o.Done(f)
		}
	}
	return r
}

func (e *examiner) examine(c check) Finding {
	if c.root && os.Geteuid() != 0 {
		return Finding{c.name, Warning, "not looked at: this takes root", "what was not tried is not known to work", "sudo nemoclaw doctor", ""}
	}
	if e.o.Slow != nil {
		slow := time.AfterFunc(time.Second, func() { e.o.Slow(c.name) })
		defer slow.Stop()
	}
	f := c.look(e)
	f.Check = c.name
	return f
}

// repair does what is safe and looks again.
func (e *examiner) repair(c check, f Finding) Finding {
	did, err := c.fix(e)
	if err != nil {
		f.Fixed = "not fixed: " + err.Error()
		return f
	}
	if did == "" {
		return f
	}
	f = e.examine(c)
	f.Fixed = did
	return f
}

func ok(found string) Finding { return Finding{State: OK, Found: found} }

func warning(found, why, remedy string) Finding {
	return Finding{State: Warning, Found: found, Why: why, Remedy: remedy}
}

func failed(found, why, remedy string) Finding {
	return Finding{State: Failed, Found: found, Why: why, Remedy: remedy}
}
