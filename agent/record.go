package agent

import (
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/loader"
	"github.com/nemoclaw/nemoclaw/policy"
)

// recorder turns what the kernel reports into records.
type recorder struct {
	policies policies
	programs atomic.Pointer[programs]
	names    atomic.Pointer[netRules]            // nil: no name is known yet
	roots    atomic.Pointer[mountRoots]          // nil: BPF LSM does not judge files
	identify func(fd int) (loader.FileID, error) // as loader.Loader.Identify
	record   func(policy.Decision)
	ask      func(loader.Event, policy.Decision) // takes what waits for an answer, or does not any more

	half attempt // of event only
}

// attempt is one half of what a program with IPv4 and IPv6 sees as one: a name refused at its first address is tried
// at the other, at once or, where the first hangs, after a quarter of a second (RFC 8305).
type attempt struct {
	pid  int
	to   string // name:port
	v6   bool
	when time.Time
}

const otherFamily = 300 * time.Millisecond

// planes are where each hook's decisions belong, and what they are called.
var planes = map[loader.Hook]policy.Plane{
	loader.HookSocket: policy.PlaneNetwork, loader.HookConnect: policy.PlaneNetwork, loader.HookSendto: policy.PlaneNetwork,
	loader.HookBind: policy.PlaneNetwork, loader.HookPacket: policy.PlaneNetwork,
	loader.HookDevice: policy.PlaneDevice, loader.HookExec: policy.PlaneExec, loader.HookFile: policy.PlaneFile,
	loader.HookGuard: policy.PlaneSystem,
}

// event takes one event of the kernel. It is called in order, one at a time.
func (r *recorder) event(e loader.Event) {
	if r.secondHalf(e) {
		return
	}
	p := r.policies.of(e)
	if e.Hook == loader.HookExec && e.Verdict == policy.Allow && e.Rule == 0 {
		e.Rule = r.executes(p, e)
	}
	d := policy.Decision{
		Time: e.Time, Plane: planes[e.Hook], Action: e.Hook.String(), Object: r.object(e), Verdict: e.Verdict,
		Rule: position(p, e.Rule), Reason: e.Reason.String(), Revision: p.Revision,
		Subject: policy.Subject{PID: e.PID, Exe: r.exe(e.PID, e.Exe), Args: e.Args, Taint: e.Taint.String(), File: policy.Identity(e.Exe)},
		Target:  policy.Target{File: policy.Identity(e.File.Object.File), Name: e.File.Object.Name, Access: e.File.Missing},
	}
	switch {
	case e.Hook == loader.HookDevice:
		d.Action = "open"
		if node, rule, reason := refusedGPU(p, e.Device); node != "" {
			d.Object, d.Rule, d.Reason = node+" ("+d.Object+")", rule, reason
		}
	case e.Hook == loader.HookFile && e.File.Op == loader.OpExecute:
		d.Plane, d.Action = policy.PlaneExec, "exec"
	case e.Reason == loader.ReasonUnlisted:
		d.Action, d.Rule = fileAction(e.File), position(p, p.Exec.Listed)
	case e.Hook == loader.HookFile:
		d.Action = fileAction(e.File)
	case e.Hook == loader.HookExec && e.Verdict == policy.Allow && e.Rule == 0 && strings.HasPrefix(d.Object, "/"):
		// A file rule allowed it, or the answer to one that asks; the kernel's list of programs has not.
		d.Rule, d.Called = p.Explain(policy.Query{Action: policy.QueryExec, Path: d.Object}).Rule.Pos, e.Path
	case e.Reason == loader.ReasonTainted:
		d.Reason = d.Subject.Withheld()
	case e.Hook == loader.HookExec && e.Verdict == policy.Allow:
		d.Called = e.Path
	case e.Hook == loader.HookConnect && e.Verdict == policy.Deny && e.Reason == loader.ReasonRule && asks(p, e.Rule):
		d.Reason = "a person denied it for this run"
	case e.Hook == loader.HookExec && e.Verdict == policy.Deny:
		// The kernel had accepted the program, so the process was the program, and was killed before it did anything.
		d.Reason = "no rule allows this program: it was killed before its first instruction"
		if e.Rule != 0 {
			d.Reason = "a rule denies this program: it was killed before its first instruction"
		}
	}
	if e.Hook == loader.HookFile && e.Verdict == policy.Deny && e.File.Held.IsZero() && e.Reason == loader.ReasonRule && p.AsksAbout(e.Rule) {
		d.Reason = "a person denied it for this run"
	}
	if e.Hook == loader.HookFile && (e.Verdict == policy.Ask || !e.File.Held.IsZero()) {
		r.ask(e, d)
		return
	}
	r.record(d)
}

// executes is the rule that allowed an execution where the list of programs did not: a program for a time is judged by a file rule, as
// is what such a rule says may be executed.
func (r *recorder) executes(p *policy.Compiled, e loader.Event) policy.RuleID {
	if rule := r.programs.Load().rule(e.Exe); rule != 0 {
		return rule
	}
	at := r.exe(e.PID, e.Exe)
	if at == "" {
		return 0
	}
	_, rule, _ := p.Files.Access(at)
	return rule.RuleFor(policy.Execute)
}

// asks reports whether a rule asks, so that only an answer to it denies.
func asks(p *policy.Compiled, id policy.RuleID) bool {
	if id == 0 {
		return p.Network.Default == policy.Ask
	}
	for i := range p.Network.Rules {
		if rule := &p.Network.Rules[i]; rule.ID == id {
			return rule.Verdict == policy.Ask
		}
	}
	return false
}

// secondHalf reports whether e is the refusal of a name's other address, for an attempt that is recorded already.
func (r *recorder) secondHalf(e loader.Event) bool {
	if e.Hook != loader.HookConnect || e.Verdict != policy.Deny {
		return false
	}
	name, ok := r.name(e.Addr)
	if !ok {
		return false
	}
	now := attempt{e.PID, name + ":" + strconv.Itoa(int(e.Port)), e.Addr.Is6(), e.Time}
	was := r.half
	r.half = now
	if now.pid != was.pid || now.to != was.to || now.v6 == was.v6 || now.when.Sub(was.when) > otherFamily {
		return false
	}
	r.half = attempt{} // a third one is another attempt
	return true
}

// name is the name behind a synthetic address.
func (r *recorder) name(a netip.Addr) (string, bool) {
	if rules := r.names.Load(); rules != nil {
		return rules.name(a)
	}
	return "", false
}

func (r *recorder) object(e loader.Event) string {
	switch e.Hook {
	case loader.HookConnect, loader.HookSendto, loader.HookPacket:
		if name, ok := r.name(e.Addr); ok {
			return name + ":" + strconv.Itoa(int(e.Port))
		}
	case loader.HookFile:
		if roots := r.roots.Load(); roots != nil {
			return roots.path(e.File)
		}
	case loader.HookExec:
		if p := r.programs.Load().path(e.Exe); p != "" && e.Verdict != policy.Deny {
			return p
		}
	}
	return e.Object()
}

// position says where a rule stands.
func position(p *policy.Compiled, id policy.RuleID) string {
	if int64(id) >= int64(len(p.Rules)) {
		return "builtin"
	}
	return p.Rule(id).Pos
}

// exe returns the path of an executable, "" when it can't be known: one that the policy lists, or the one that the
// process still runs, if it is the same inode. The kernel's own identity stays what counts.
func (r *recorder) exe(pid int, id loader.FileID) string {
	if id.IsZero() {
		return ""
	}
	if p := r.programs.Load().path(id); p != "" || pid == 0 {
		return p
	}
	fd, err := unix.Open("/proc/"+strconv.Itoa(pid)+"/exe", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return "" // it has ended
	}
	f := os.NewFile(uintptr(fd), "exe")
	defer f.Close()
	if now, err := r.identify(fd); err != nil || now != id {
		return ""
	}
	path, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		return ""
	}
	return path
}
