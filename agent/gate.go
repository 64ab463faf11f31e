package agent

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"github.com/nemoclaw/nemoclaw/agent/approvals"
	"github.com/nemoclaw/nemoclaw/loader"
	"github.com/nemoclaw/nemoclaw/policy"
)

var _ approvals.Gate = (*Instance)(nil)

// Enter lets the kernel know what a person answered, so that it judges the next attempt at once. For the network the proxy asks the
// desk too, so what the kernel can't say exactly it lets through to there, or leaves to the rules.
func (i *Instance) Enter(g approvals.Grant) error {
	switch g.Decision.Plane {
	case policy.PlaneFile, policy.PlaneExec:
		f, err := i.fileGrant(g)
		if err != nil {
			return err
		}
		return i.guard.GrantFile(f)
	case policy.PlaneNetwork:
		list, err := i.netGrants(g)
		for _, n := range list {
			err = errors.Join(err, i.guard.Grant(n))
		}
		return err
	case policy.PlaneInference:
		return nil // the router asks the desk, each time
	}
	return fmt.Errorf("%s of %s: %w", g.Decision.Action, g.Decision.Object, approvals.ErrNoGate)
}

// Withdraw takes that back, and closes the connections that it has allowed. A file that is open stays open.
func (i *Instance) Withdraw(g approvals.Grant) (closed int, err error) {
	switch g.Decision.Plane {
	case policy.PlaneFile, policy.PlaneExec:
		f, err := i.fileGrant(g)
		if err != nil {
			return 0, err
		}
		return 0, i.guard.RevokeFile(f)
	case policy.PlaneNetwork:
		list, err := i.netGrants(g)
		for _, n := range list {
			err = errors.Join(err, i.guard.Revoke(n))
		}
		if g.Once() || g.Decided != policy.Allow {
			return 0, err // what it was for goes on
		}
		return i.proxy.CloseGranted(g.Same), err
	}
	return 0, nil
}

// fileGrant is a grant as the kernel takes it.
func (i *Instance) fileGrant(g approvals.Grant) (f loader.FileGrant, err error) {
	d := g.Decision
	f = loader.FileGrant{
		Exe: loader.FileID(d.Subject.File), Object: loader.FileObject{File: loader.FileID(d.Target.File), Name: d.Target.Name},
		Access: d.Target.Access, Verdict: g.Decided, Rule: i.ruleAt(d.Rule), Until: g.Until, Once: g.Once(),
	}
	if f.Exe.IsZero() || f.Object.File.IsZero() || f.Access == 0 || !i.box.Full() {
		return f, fmt.Errorf("%s of %s: %w", d.Action, d.Object, approvals.ErrNoGate) // without a program it would be for everybody
	}
	return f, nil
}

// netGrants are the kernel's entries for a grant: one for each address of the name.
func (i *Instance) netGrants(g approvals.Grant) (list []loader.Grant, err error) {
	d := g.Decision
	host, num, err := net.SplitHostPort(d.Object)
	port, e := strconv.ParseUint(num, 10, 16)
	if err != nil || e != nil || port == 0 || d.Action != "connect" {
		return nil, fmt.Errorf("%s of %s: %w", d.Action, d.Object, approvals.ErrNoGate)
	}
	exe := loader.FileID(d.Subject.File)
	if d.Subject.Taint != "" || exe.IsZero() {
		// The kernel takes a tainted process for nobody. The proxy tells apart who it is that an answer lets through; of one that
		// denies the rules know enough.
		if exe = (loader.FileID{}); g.Decided != policy.Allow {
			return nil, nil
		}
	}
	addrs := i.rules.addrs(host)
	if a, err := netip.ParseAddr(host); err == nil {
		addrs = []netip.Addr{a}
	}
	for _, a := range addrs {
		list = append(list, loader.Grant{
			Exe: exe, Addr: a, Port: uint16(port), Verdict: g.Decided, Rule: i.ruleAt(d.Rule), Until: g.Until, Once: g.Once(),
		})
	}
	return list, nil
}

// ruleAt is the rule that stands at a place of the policy in force.
func (i *Instance) ruleAt(pos string) policy.RuleID {
	for n, ref := range i.recorder.policies.latest().Rules {
		if ref.Pos == pos {
			return policy.RuleID(n)
		}
	}
	return 0
}
