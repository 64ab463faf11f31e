package approvals

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/approvals/offer"
	"github.com/nemoclaw/nemoclaw/agent/text"
	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

// A Grant is an answer that holds for a while, about equal attempts.
type Grant struct {
	ID       string
	Decision policy.Decision // the attempt that was answered
	Decided  policy.Verdict
	Scope    api.Scope
	Until    time.Time // zero: as long as the sandbox runs
	Who      string
	When     time.Time
}

// Once reports whether the next attempt takes it away.
func (g Grant) Once() bool { return g.Scope == api.ScopeOnce }

// Same reports whether an attempt is one that the grant is about.
func (g Grant) Same(d policy.Decision) bool { return keyOf(d) == keyOf(g.Decision) }

// grant is a Grant in force.
type grant struct {
	Grant
	entered time.Time   // since when the gate has it; zero: it has it not yet
	end     *time.Timer // nil: nothing ends it but the sandbox
}

func (g *grant) stop() {
	if g.end != nil {
		g.end.Stop()
	}
}

func (g Grant) view(sandbox string) api.Grant {
	d := g.Decision
	v := api.Grant{
		ID: g.ID, Sandbox: sandbox, Verdict: g.Decided.String(), Plane: string(d.Plane), Action: d.Action,
		Object: text.Valid(d.Object), Program: text.Valid(d.Subject.Exe), Taint: d.Subject.Taint,
		Scope: g.Scope, Who: g.Who, When: g.When.UTC(),
	}
	if !g.Until.IsZero() {
		until := g.Until.UTC()
		v.Until = &until
	}
	return v
}

// match returns the grant that decides an attempt, and takes away what is for one. The caller holds mu.
func (k *Desk) match(d policy.Decision) *Grant {
	g := k.grants[keyOf(d)]
	if g == nil || !g.Until.IsZero() && !time.Now().Before(g.Until) {
		return nil
	}
	if g.Once() {
		k.spend(g)
		if !proxied(d) {
			return nil // the kernel has it, and asks only when it has given it away
		}
	}
	return &g.Grant
}

// proxied reports whether the proxy asks the desk about every attempt. Elsewhere the kernel goes by what it was given, and asks about
// the rest.
func proxied(d policy.Decision) bool { return d.Plane == policy.PlaneNetwork }

// spend takes away what was for one attempt, which goes on meanwhile: the name's other address has an entry of its own. The caller
// holds mu.
func (k *Desk) spend(g *grant) {
	k.drop(g)
	gate := k.gate
	if gate == nil {
		return
	}
	go func() {
		k.gating.Lock()
		defer k.gating.Unlock()
		k.mu.Lock()
		again := k.grants[keyOf(g.Decision)] != nil // it was answered anew: that is another grant with the same entries
		k.mu.Unlock()
		if !again {
			_, _ = k.release(gate, g.Grant)
		}
	}()
}

// enter puts a grant into force at the gate that there was when it was answered, on the disk first. The caller does not hold mu.
func (k *Desk) enter(g Grant, gate Gate) error {
	k.gating.Lock()
	defer k.gating.Unlock()
	k.mu.Lock()
	if gate == nil || k.gate != gate || k.closed {
		k.mu.Unlock()
		return &api.Error{Code: api.Conflict, Message: k.c.Sandbox + " does not run, so only a rule of its policy can be made: answer with scope always"}
	}
	if len(k.grants) >= maxGrants {
		k.mu.Unlock()
		return &api.Error{Code: api.Conflict, Message: fmt.Sprintf("%s has %d answers in force already: take some back with `nemoclaw %s policy revoke`, or answer with scope always", k.c.Sandbox, maxGrants, k.c.Sandbox)}
	}
	id := keyOf(g.Decision)
	old, entered := k.grants[id], &grant{Grant: g}
	if old != nil {
		old.stop() // its time is over
	}
	k.grants[id] = entered
	if !g.Until.IsZero() {
		entered.end = time.AfterFunc(time.Until(g.Until), func() { k.expire(entered) })
	}
	k.mu.Unlock()
	var err error
	if old != nil {
		_, err = k.release(gate, old.Grant)
	}
	if err == nil {
		err = k.saveGrants()
	}
	if err == nil {
		err = gate.Enter(g)
	}
	k.mu.Lock()
	entered.entered = time.Now()
	if err != nil && k.grants[id] == entered {
		k.drop(entered)
	}
	k.mu.Unlock()
	if err != nil {
		_, e := k.release(gate, g)
		return errors.Join(err, e, k.saveGrants())
	}
	return nil
}

// release takes a grant from the gate. The kernel tells less apart than the desk does, a tainted program from another and a file's names
// from each other, so what shares entries with it is entered anew. The caller holds gating.
func (k *Desk) release(gate Gate, g Grant) (closed int, err error) {
	closed, err = gate.Withdraw(g)
	k.mu.Lock()
	var beside []Grant
	for _, x := range k.grants {
		same := x.Decision.Object == g.Decision.Object || x.Decision.Target.File.Lasting() == g.Decision.Target.File.Lasting() && !proxied(g.Decision)
		used := x.Once() && !proxied(x.Decision) // it may have been: the kernel does not say
		if x.Decision.Plane == g.Decision.Plane && same && x.ID != g.ID && !x.entered.IsZero() && !used {
			beside = append(beside, x.Grant)
		}
	}
	k.mu.Unlock()
	for _, x := range beside {
		err = errors.Join(err, gate.Enter(x))
	}
	return closed, err
}

// drop forgets a grant. The caller holds mu.
func (k *Desk) drop(g *grant) {
	g.stop()
	delete(k.grants, keyOf(g.Decision))
}

// expire takes back a grant whose time is over.
func (k *Desk) expire(g *grant) {
	if closed, err := k.withdraw(g); err == nil {
		k.record(g.Decision, "expired", policy.Deny, fmt.Sprintf("the time is over of what %s %s (%s): %d connections closed", g.Who, past(g.Decided), g.Scope, closed))
	}
}

var errNoGrant = errors.New("there is no such grant any more")

// withdraw takes a grant out of force.
func (k *Desk) withdraw(g *grant) (closed int, err error) {
	k.gating.Lock()
	defer k.gating.Unlock()
	k.mu.Lock()
	if k.grants[keyOf(g.Decision)] != g {
		k.mu.Unlock()
		return 0, errNoGrant
	}
	k.drop(g)
	gate := k.gate
	k.mu.Unlock()
	if gate == nil {
		return 0, nil
	}
	if !g.Once() {
		err = k.saveGrants()
	}
	closed, e := k.release(gate, g.Grant)
	return closed, errors.Join(err, e)
}

// Grants lists the answers in force, the latest first.
func (k *Desk) Grants() []api.Grant {
	k.mu.Lock()
	defer k.mu.Unlock()
	list := []api.Grant{}
	for _, g := range k.grants {
		list = append(list, g.view(k.c.Sandbox))
	}
	slices.SortFunc(list, func(a, b api.Grant) int { return cmp.Or(b.When.Compare(a.When), cmp.Compare(a.ID, b.ID)) })
	return list
}

// Revoke takes a grant back at once.
func (k *Desk) Revoke(who Answerer, id string) (api.Revoked, error) {
	k.mu.Lock()
	var found []*grant
	for _, g := range k.grants {
		if id != "" && strings.HasPrefix(g.ID, id) {
			found = append(found, g)
		}
	}
	k.mu.Unlock()
	if len(found) != 1 {
		return api.Revoked{}, &api.Error{Code: api.NotFound, Message: fmt.Sprintf("%d grants of %s have an id that begins with %.40q: `nemoclaw %s policy list` shows them", len(found), k.c.Sandbox, id, k.c.Sandbox)}
	}
	g := found[0]
	closed, err := k.withdraw(g)
	if errors.Is(err, errNoGrant) {
		err = &api.Error{Code: api.NotFound, Message: "the grant " + g.ID + " holds no more"}
	}
	if err != nil {
		return api.Revoked{}, err
	}
	k.record(g.Decision, "revoke", policy.Deny, fmt.Sprintf("%s took back what %s %s (%s): %d connections closed", who, g.Who, past(g.Decided), g.Scope, closed))
	return api.Revoked{Grant: g.view(k.c.Sandbox), Closed: closed}, nil
}

// Begin says that the sandbox was started. Of its last life there may be more than Stop would have left: the machine went down, or the
// daemon was killed.
func (k *Desk) Begin(gate Gate) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.forget()
	k.gate = gate
}

// Resume puts the grants of before into force again in a sandbox that went on without a daemon.
func (k *Desk) Resume(gate Gate) error {
	k.gating.Lock()
	defer k.gating.Unlock()
	k.mu.Lock()
	k.gate = gate
	var list []Grant
	for _, g := range k.grants {
		list = append(list, g.Grant)
	}
	k.mu.Unlock()
	var errs []error
	for _, g := range list {
		errs = append(errs, gate.Enter(g))
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, g := range k.grants {
		g.entered = time.Now()
	}
	return errors.Join(errs...)
}

// Stop says that the sandbox ends: nothing that was answered for a time holds in its next life, whose files may be others.
func (k *Desk) Stop() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.gate = nil
	k.forget()
}

// forget leaves what outlives the sandbox's stop. The caller holds mu.
func (k *Desk) forget() {
	for _, g := range k.grants {
		k.drop(g)
	}
	was := k.requests
	k.requests = make(map[key]*request, len(was))
	for _, r := range was {
		r.forget()
		same := k.requests[r.key]
		if same == nil {
			k.requests[r.key] = r
			k.changed(r)
			continue
		}
		same.count += r.count
		if r.first.Before(same.first) {
			same.first = r.first
		}
		if r.last.After(same.last) {
			same.last = r.last
		}
		k.end(r, api.Withdrawn, "it is the same as request "+same.id+" since the sandbox was stopped")
		k.changed(same)
	}
	k.later(0)
}

// forget leaves of a request what outlives the sandbox's stop.
func (r *request) forget() {
	r.d = forgotten(r.d)
	r.key = keyOf(r.d)
	r.described.Offers = slices.Clone(r.described.Offers)
	for i := range r.described.Offers {
		o := &r.described.Offers[i]
		if o.ID == offer.This { // a grant is for the very program and file
			o.Scopes = slices.DeleteFunc(slices.Clone(o.Scopes), func(s api.Scope) bool { return s != api.ScopeAlways })
		}
	}
}
