package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/nemoclaw/nemoclaw/agent"
	"github.com/nemoclaw/nemoclaw/agent/approvals"
	"github.com/nemoclaw/nemoclaw/agent/approvals/offer"
	"github.com/nemoclaw/nemoclaw/agent/approvals/risk"
	"github.com/nemoclaw/nemoclaw/agent/server"
	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

// record records a decision. What the default refused is listed, so that a person may allow it; what a rule denies is not: that
// takes a change of the policy.
func (b *box) record(d policy.Decision) {
	b.records.Record(d)
	if d.Verdict == policy.Deny && d.Rule == "default" && !d.Waited && policy.Suggest(d) != "" {
		b.desk.Refused(d)
	}
}

// recordAnswer records what a person said, which is not lost with the daemon: what was answered can outlive it.
func (b *box) recordAnswer(d policy.Decision) {
	b.records.Record(d)
	b.flush()
}

// permitAnswer is recordAnswer for one that lets something through.
func (b *box) permitAnswer(d policy.Decision) error {
	b.mu.Lock()
	i := b.instance
	b.mu.Unlock()
	if err := b.records.Permit(d, i != nil && i.Policy().Audit.Strict); err != nil {
		return err
	}
	b.flush()
	return nil
}

func (b *box) flush() {
	if err := b.d.audit.Flush(); err != nil {
		b.d.log.Error("the record of an answer is not written down", "sandbox", b.name, "error", err) // the daemon ends because of it
	}
}

// look is what a person is told about an attempt. The caller may hold the desk's lock.
func (b *box) look(d policy.Decision) approvals.Described {
	c, level, sent, err := b.asked()
	if err != nil { // the policy can't be compiled any more, so nothing runs
		return approvals.Described{}
	}
	offers := offer.Of(d, c)
	if level != policy.LevelFull && (d.Plane == policy.PlaneFile || d.Plane == policy.PlaneExec) {
		// Files and programs are fixed when the sandbox starts: only a rule can say something else.
		for i := range offers {
			offers[i].Scopes = slices.DeleteFunc(slices.Clone(offers[i].Scopes), func(s api.Scope) bool { return s != api.ScopeAlways })
		}
	}
	program := d.Subject.Exe
	if d.Plane == policy.PlaneExec {
		program = d.Object
	}
	return approvals.Described{
		Ancestors: b.ancestors(d.Subject.PID),
		Risks:     risk.Of(risk.Attempt{Decision: d, Policy: c, Writable: b.writable(c, program), Sent: sent}),
		Offers:    offers,
	}
}

// asked is the policy that asks, how files are judged by it, and how many bytes the sandbox has sent.
func (b *box) asked() (c *policy.Compiled, level policy.Level, sent int64, err error) {
	c, i, err := b.ruling()
	switch {
	case err != nil:
		return nil, 0, 0, err
	case i == nil:
		return c, b.d.loader.Level(), 0, nil
	}
	sent, _ = i.Traffic()
	return c, i.Level(), sent, nil
}

// ruling is the policy in force and the instance that it is in force in, or else the one that the sandbox will be started with.
func (b *box) ruling() (c *policy.Compiled, i *agent.Instance, err error) {
	b.mu.Lock()
	i = b.instance
	b.mu.Unlock()
	if i != nil {
		return i.Policy(), i, nil
	}
	number := b.revisions.Latest().Number
	b.looked.Lock()
	defer b.looked.Unlock()
	if b.looked.number != number { // 500 requests are looked at when the daemon starts
		if c, _, err = b.compile(number); err != nil {
			return nil, nil, err
		}
		b.looked.policy, b.looked.number = c, number
	}
	return b.looked.policy, nil, nil
}

// writable reports whether what runs inside may write a program, so that what it does is the agent's own choice.
func (b *box) writable(c *policy.Compiled, exe string) bool {
	for _, dir := range append([]string{"/workspace"}, policy.PrivateDirs...) {
		if strings.HasPrefix(exe, dir+"/") {
			return true
		}
	}
	access, _, _ := c.Files.Access(exe)
	return access&policy.Write != 0
}

// rule makes an answer a rule of the policy.
func (b *box) rule(ctx context.Context, who approvals.Answerer, d policy.Decision, rule policy.RuleSpec, instead *policy.RuleSpec, a api.NewAnswer) (res api.PolicyResult, err error) {
	want := policy.Allow
	if rule.Verdict == policy.Deny.String() {
		want = policy.Deny
	}
	_, err = b.d.operate(b.name, func(b *box) error {
		c := api.PolicyChange{Restart: a.Restart, DryRun: a.DryRun}
		res, err = b.changeBy(ctx, string(who), c, func(file, text string) (policy.Edited, error) {
			var did []string
			if instead != nil {
				e, err := policy.RemoveRule(file, []byte(text), *instead)
				if err != nil {
					return e, err
				}
				text, did = string(e.Text), e.Did
			}
			e, err := policy.AddRule(file, []byte(text), rule)
			if err != nil {
				return e, err
			}
			e.Did = append(did, e.Did...)
			return e, b.says(e.Policy, d, want)
		})
		return err
	})
	return res, err
}

// says is an error when a policy does not say of an attempt what a person has answered.
func (b *box) says(c *policy.Compiled, d policy.Decision, want policy.Verdict) error {
	a, err := explain(c, d, d.Subject.Exe, time.Since(b.spec.Created))
	if err != nil || a.Verdict == want {
		return err
	}
	return &api.Error{Code: api.Conflict, Message: fmt.Sprintf("with such a rule the policy would still %s it: %s (%s), and deny beats ask beats allow; change that rule, or answer with another scope",
		a.Verdict, a.Reason, a.Rule.Pos)}
}

// errNoQuery is for an attempt that a policy can't be asked about.
var errNoQuery = errors.New("a policy can't be asked about this")

// explain is what a policy says of an attempt by a command. A program that other code may run as, and one that is not known, is
// nobody's.
func explain(c *policy.Compiled, d policy.Decision, command string, age time.Duration) (policy.Answer, error) {
	var actions []policy.Action
	object := d.Object
	switch {
	case d.Plane == policy.PlaneNetwork && (d.Action == "connect" || d.Action == "request"):
		actions = []policy.Action{policy.QueryConnect}
	case d.Plane == policy.PlaneDNS:
		actions, object = []policy.Action{policy.QueryConnect}, net.JoinHostPort(d.Object, "443") // as the offers take it
	case d.Plane == policy.PlaneExec:
		actions = []policy.Action{policy.QueryExec}
	case d.Plane == policy.PlaneFile && policy.ReadsOnly(d.Action):
		actions = []policy.Action{policy.QueryRead}
	case d.Plane == policy.PlaneFile && d.Action == "read and write":
		actions = []policy.Action{policy.QueryRead, policy.QueryWrite}
	case d.Plane == policy.PlaneFile:
		actions = []policy.Action{policy.QueryWrite}
	default:
		return policy.Answer{}, errNoQuery
	}
	if d.Subject.Taint != "" {
		command = ""
	}
	var a policy.Answer
	for n, action := range actions {
		q, err := policy.NewQuery(action, object, command)
		if err != nil {
			return policy.Answer{}, fmt.Errorf("%w: %w", errNoQuery, err)
		}
		if one := c.ExplainAt(q, age); n == 0 || one.Verdict < a.Verdict { // all of it has to be allowed
			a = one
		}
	}
	return a, nil
}

// reconsider takes off the list what a policy answers now. What waits goes on because of it, so its program is what the rules know by
// that path, and not what had the path when it asked.
func (b *box) reconsider(c *policy.Compiled) {
	age := time.Since(b.spec.Created)
	i, _ := b.running() // where nothing runs nothing waits
	b.desk.Reconsider(func(d policy.Decision) (policy.Verdict, bool) {
		command := d.Subject.Exe
		if i != nil && i.Program(d.Subject.File) != command {
			command = ""
		}
		a, err := explain(c, d, command, age)
		if err != nil {
			return policy.Deny, false
		}
		return a.Verdict, a.Verdict == policy.Allow || a.Verdict == policy.Deny && a.Rule.Pos != "default"
	})
}

// answerer is who answers, as records have it.
func answerer(c server.Caller) approvals.Answerer {
	from := ""
	if tty := terminalOf(c.PID); tty != "" {
		from = ", " + tty
	}
	return approvals.Answerer(fmt.Sprintf("%s (uid %d%s)", c.Name, c.UID, from))
}

// Requests lists what can be answered.
func (d *Daemon) Requests(sandbox string) ([]api.Request, error) {
	if sandbox != "" {
		if _, err := d.find(sandbox); err != nil {
			return nil, err
		}
	}
	return d.queue.List(sandbox), nil
}

// Request returns one request.
func (d *Daemon) Request(id string) (api.Request, error) { return d.queue.Get(id) }

// FollowRequests calls f with each change of the requests until f fails or ctx ends.
func (d *Daemon) FollowRequests(ctx context.Context, sandbox string, f func(api.RequestChange) error) error {
	if sandbox != "" {
		if _, err := d.find(sandbox); err != nil {
			return err
		}
	}
	w := d.queue.Watch(sandbox)
	defer w.Close()
	for {
		changes, err := w.Next(ctx)
		if err != nil {
			return err
		}
		for _, c := range changes {
			if err := f(c); err != nil {
				return err
			}
		}
	}
}

// Answer carries out a person's answer.
func (d *Daemon) Answer(ctx context.Context, who server.Caller, id string, a api.NewAnswer) (api.AnswerResult, error) {
	return d.queue.Answer(ctx, answerer(who), id, a)
}

// Grants lists the answers in force in a sandbox.
func (d *Daemon) Grants(name string) ([]api.Grant, error) {
	b, err := d.find(name)
	if err != nil {
		return nil, err
	}
	return b.desk.Grants(), nil
}

// Revoke takes an answer back.
func (d *Daemon) Revoke(who server.Caller, name, id string) (api.Revoked, error) {
	b, err := d.find(name)
	if err != nil {
		return api.Revoked{}, err
	}
	return b.desk.Revoke(answerer(who), id)
}
