package approvals

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/nemoclaw/nemoclaw/agent/approvals/offer"
	"github.com/nemoclaw/nemoclaw/agent/trace"
	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

// A Gate is where a sandbox's grants are enforced: it passes them to the kernel and the proxy.
type Gate interface {
	// Enter puts a grant into force. ErrNoGate says that such a grant can't be.
	Enter(Grant) error
	// Withdraw takes it back, closes the connections that it has allowed, and returns how many they were.
	Withdraw(Grant) (closed int, err error)
}

// ErrNoGate is for a grant that nothing could enforce.
var ErrNoGate = errors.New("nothing can enforce such an answer here")

// Described is what a person is told about an attempt, and what can be answered.
type Described struct {
	Ancestors []api.Ancestor
	Risks     []api.Risk
	Offers    []offer.Offer
}

// Config is what a desk is made of.
type Config struct {
	Sandbox string
	File    string                          // where requests outlive the daemon; "": nowhere
	Grants  string                          // where grants do, in a directory that lives as long as the sandbox runs; "": nowhere
	Journal string                          // how the names of two files there begin, in which new requests are until they are in File; "": nowhere
	Record  func(policy.Decision)           // takes the record of each answer
	Permit  func(policy.Decision) error     // is Record for an answer that lets something through: an error keeps it from doing so; nil: Record
	Look    func(policy.Decision) Described // at an attempt that nobody has seen yet
	// Rule makes an answer a rule of the policy, as the revision of a person, instead of a rule that asks where that is given; nil:
	// the policy can't be changed.
	Rule func(ctx context.Context, who Answerer, d policy.Decision, rule policy.RuleSpec, instead *policy.RuleSpec, a api.NewAnswer) (api.PolicyResult, error)
}

// A Desk takes the questions of one sandbox. Its methods may be called from any goroutine.
type Desk struct {
	q *Queue
	c Config

	gating sync.Mutex // held while the gate is told, so that what is taken back is not entered after; taken before mu

	mu       sync.Mutex
	requests map[key]*request
	grants   map[key]*grant
	gate     Gate // nil: the sandbox doesn't run
	unlisted uint64
	told     uint64        // of unlisted, to the watchers
	waiting  *rate.Limiter // of new requests that wait: what is only refused takes nothing away from them
	refused  *rate.Limiter
	denyRest bool
	closed   bool

	dirty map[*request]struct{} // whose counts the watchers don't know yet
	tick  *time.Timer           // until they are told

	store store

	waited waited
}

// Open makes the desk of a sandbox, with what the last daemon has left.
func (q *Queue) Open(c Config) (*Desk, error) {
	k := &Desk{
		q: q, c: c, requests: map[key]*request{}, grants: map[key]*grant{}, dirty: map[*request]struct{}{},
		waiting: rate.NewLimiter(newRate, newBurst), refused: rate.NewLimiter(newRate, newBurst),
		waited: newWaited(),
	}
	k.store.requests, k.store.grants, k.store.journal.name = c.File, c.Grants, c.Journal
	if err := k.load(); err != nil {
		return nil, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.desks[c.Sandbox] = k
	return k, nil
}

// Ask waits for the answer to d, at most until ctx ends: then it denies.
func (k *Desk) Ask(ctx context.Context, d policy.Decision) policy.Verdict {
	d = lacking(d)
	k.mu.Lock()
	if g := k.match(d); g != nil {
		k.mu.Unlock()
		return g.Decided
	}
	r := k.attempted(d, true)
	if r == nil {
		k.mu.Unlock()
		return policy.Deny
	}
	if r.held++; r.held == 1 {
		r.since = r.last
	}
	asked := r.last
	if t, ok := ctx.Deadline(); ok && t.After(r.until) {
		r.until = t
	}
	if r.state != api.Held {
		r.state = api.Held
		k.changed(r)
	}
	k.mu.Unlock()
	trace.Asked(ctx, r.id)

	select {
	case <-r.done:
		return k.waited.answered(asked, r.verdict)
	case <-ctx.Done():
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	select {
	case <-r.done: // answered in the same moment
		return k.waited.answered(asked, r.verdict)
	default:
	}
	k.waited.in[Unanswered].Observe(time.Since(asked))
	if r.held--; r.held == 0 {
		r.state, r.until = api.Refused, time.Time{}
	}
	k.changed(r)
	return policy.Deny
}

// Refused lists an attempt that the policy's default has refused already: an answer is for the next.
func (k *Desk) Refused(d policy.Decision) {
	d = lacking(d)
	k.mu.Lock()
	defer k.mu.Unlock()
	if g := k.grants[keyOf(d)]; g != nil {
		if !g.Once() || proxied(d) || g.entered.IsZero() || !d.Time.After(g.entered) {
			return // somebody has answered: it is denied, or was refused in the moment of the answer
		}
		k.spend(g) // the kernel has given it away already
	}
	k.attempted(d, false)
}

// Granted reports whether a person has allowed d, which no rule does. It takes away what is for one attempt.
func (k *Desk) Granted(d policy.Decision) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	g := k.match(d)
	return g != nil && g.Decided == policy.Allow
}

// attempted counts an attempt, one that waits or one that was refused. It is nil when it can't be listed. The caller holds mu.
func (k *Desk) attempted(d policy.Decision, waits bool) *request {
	id, now := keyOf(d), time.Now()
	r := k.requests[id]
	if r == nil {
		if r = k.newRequest(id, d, now, waits); r == nil {
			k.unlisted += attempts(d)
			k.count(nil)
			return nil
		}
	}
	r.count += attempts(d)
	r.last, r.rule = now, d.Rule
	k.count(r)
	return r
}

// attempts is how many a record is about.
func attempts(d policy.Decision) uint64 { return max(d.Count, 1) }

// newRequest begins a request, unless there are too many. What waits makes room among what does not: else a program that has many
// things refused could keep what others wait for from being seen. The caller holds mu.
func (k *Desk) newRequest(id key, d policy.Decision, now time.Time, waits bool) *request {
	full, limit := len(k.requests) >= maxRequests, k.refused
	if waits {
		limit = k.waiting
	}
	if k.closed || k.denyRest || full && !waits || !limit.AllowN(now, 1) {
		return nil
	}
	described := k.c.Look(d)
	if len(described.Offers) == 0 || full && !k.makeRoom() {
		return nil // no answer could allow it, or none could be given
	}
	r := &request{desk: k, key: id, d: d, described: described, first: now, state: api.Refused, done: make(chan struct{})}
	if old := k.requests[keyOf(forgotten(d))]; old != nil { // of before the sandbox was stopped
		r.first, r.count = old.first, old.count
		k.end(old, api.Withdrawn, "it was attempted again, as another request")
	}
	k.q.add(r)
	k.requests[id] = r
	k.store.journal.add(journalLine{Request: &keptRequest{r.id, keep(d), now, now, attempts(d)}}) // before anybody is told of it
	k.changed(r)
	k.later(0)
	return r
}

// makeRoom takes the request off the list that was refused the longest ago, and reports whether there was one. The caller holds mu.
func (k *Desk) makeRoom() bool {
	var oldest *request
	for _, r := range k.requests {
		if r.state == api.Refused && !r.answering && (oldest == nil || r.last.Before(oldest.last)) {
			oldest = r
		}
	}
	if oldest == nil {
		return false
	}
	k.unlisted += oldest.count
	k.count(nil)
	k.end(oldest, api.Withdrawn, "it made room for one that waits; it is listed when it is attempted again")
	return true
}

// end takes a request off the list. What waits goes on with its verdict. The caller holds mu.
func (k *Desk) end(r *request, s api.RequestState, why string) {
	r.state, r.held, r.until = s, 0, time.Time{}
	if k.requests[r.key] == r {
		delete(k.requests, r.key)
	}
	delete(k.dirty, r)
	if !k.closed { // else the next daemon lists it
		k.store.journal.add(journalLine{Gone: r.id})
	}
	close(r.done)
	k.q.remove(r, why)
	k.changed(r)
}

// list is what can be answered.
func (k *Desk) list() []api.Request {
	k.mu.Lock()
	defer k.mu.Unlock()
	list := make([]api.Request, 0, len(k.requests))
	for _, r := range k.requests {
		list = append(list, r.view())
	}
	return list
}

// Len is how many requests can be answered.
func (k *Desk) Len() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.requests)
}

// Reconsider has what can be answered looked at again: the policy has changed. f says what it says of an attempt now, and false
// where that is still for a person to say.
func (k *Desk) Reconsider(f func(policy.Decision) (policy.Verdict, bool)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, r := range k.requests {
		if r.answering {
			continue // who answers it changes the policy
		}
		if v, known := f(r.d); known {
			r.verdict = v
			k.end(r, api.Withdrawn, "the policy answers it since it was changed")
		}
	}
}

// DenyRest denies what is not answered yet, and lists nothing more.
func (k *Desk) DenyRest() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.denyRest = true
	for _, r := range k.requests {
		if !r.answering {
			k.end(r, api.Rejected, "everything was denied")
		}
	}
}

// Close ends it: what waits is denied. What it leaves on the disk the next Open finds.
func (k *Desk) Close() {
	k.flush()
	k.store.saving.Lock() // nothing is written from now on
	k.mu.Lock()
	k.closed = true
	if k.store.timer != nil {
		k.store.timer.Stop()
	}
	for _, r := range k.requests {
		k.end(r, api.Withdrawn, "the sandbox is gone, or the daemon ends")
	}
	for _, g := range k.grants {
		g.stop()
	}
	k.mu.Unlock()
	k.store.saving.Unlock()
	k.q.mu.Lock()
	if k.q.desks[k.c.Sandbox] == k {
		delete(k.q.desks, k.c.Sandbox)
	}
	k.q.mu.Unlock()
}
