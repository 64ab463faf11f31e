// Package approvals owns what waits for a person: one queue of requests for every plane of every sandbox, the answers to them, and
// the grants that answers make. Equal attempts are one request; the kernel and the proxy are told of a grant before anything goes on
// because of it.
//
// It never decides by itself: what nobody answers in time is denied. It shows nothing to anybody (the API's clients and the prompt of
// a run do) and enforces nothing (a Gate does). An answer never stands before a rule that denies.
package approvals

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/text"
	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

// The bounds of what a program inside can make others keep. Attempts beyond them are denied and counted.
const (
	maxRequests = 500 // of a sandbox
	maxGrants   = 1000
	newRate     = 20  // new requests of a sandbox per second ...
	newBurst    = 200 // ... and at once
	maxOver     = 256 // answered requests of the queue, for who comes too late
)

// onceTime is how long an answer for one attempt waits for it.
const onceTime = 10 * time.Minute

// A Queue holds the requests of all sandboxes. Its methods may be called from any goroutine.
type Queue struct {
	mu       sync.Mutex // taken after a Desk's
	desks    map[string]*Desk
	requests map[string]*request // by id
	over     []over              // the last that were answered
	watchers map[*Watcher]struct{}
}

// over is a request that needs no answer any more.
type over struct{ id, why string }

// New returns an empty queue.
func New() *Queue {
	return &Queue{desks: map[string]*Desk{}, requests: map[string]*request{}, watchers: map[*Watcher]struct{}{}}
}

// key is what makes two attempts equal: who and what, not which process or connection.
type key struct {
	plane          policy.Plane
	action, object string
	exe            string // where the program itself is not known
	taint          string // other code may run as it: an answer about one is none about the other
	program        policy.Identity
	target         policy.Target
}

func keyOf(d policy.Decision) key {
	k := key{d.Plane, d.Action, d.Object, "", d.Subject.Taint, d.Subject.File.Lasting(), d.Target}
	k.target.File = k.target.File.Lasting()
	if k.program == (policy.Identity{}) {
		k.exe = d.Subject.Exe
	}
	return k
}

// lacking is an attempt that is called by what it lacks, which is what an answer gives: who opens a file to write may lack to read it,
// too or alone.
func lacking(d policy.Decision) policy.Decision {
	if d.Plane == policy.PlaneFile && d.Action == "write" {
		switch d.Target.Access & (policy.Read | policy.Write) {
		case policy.Read | policy.Write:
			d.Action = "read and write"
		case policy.Read:
			d.Action = "read"
		}
	}
	return d
}

// forgotten is an attempt as far as it outlives the sandbox's stop: whose files may be others then.
func forgotten(d policy.Decision) policy.Decision {
	d.Subject.File, d.Subject.PID, d.Target.File = policy.Identity{}, 0, policy.Identity{}
	return d
}

// request is a Request, and who waits for it. All but id and done are guarded by its desk's lock.
type request struct {
	desk      *Desk
	id        string
	key       key
	d         policy.Decision // of the first attempt
	described Described
	rule      string
	first     time.Time
	last      time.Time
	until     time.Time
	since     time.Time // of those that wait now, the first came then
	count     uint64
	held      int
	state     api.RequestState
	answering bool   // somebody's answer is being carried out
	prompted  uint64 // the count when it was last asked about at a prompt
	answer    *api.Answered

	done    chan struct{} // closed when it is over
	verdict policy.Verdict
}

// open reports whether it can be answered.
func (r *request) open() bool { return r.state == api.Held || r.state == api.Refused }

// view is the request as clients see it. The caller holds the desk's lock.
func (r *request) view() api.Request {
	v := api.Request{
		ID: r.id, Sandbox: r.desk.c.Sandbox, State: r.state,
		Plane: string(r.d.Plane), Action: r.d.Action, Object: text.Valid(r.d.Object),
		Program: text.Valid(r.d.Subject.Exe), Args: text.Valid(r.d.Subject.Args),
		PID: r.d.Subject.PID, Taint: r.d.Subject.Taint, Rule: r.rule,
		First: r.first.UTC(), Last: r.last.UTC(), Count: r.count, Held: r.held,
		Ancestors: r.described.Ancestors, Risks: r.described.Risks, Offers: []api.Offer{}, Answer: r.answer,
	}
	if v.Object != r.d.Object {
		v.RawObject = []byte(r.d.Object)
	}
	if v.Args != r.d.Subject.Args {
		v.RawArgs = []byte(r.d.Subject.Args)
	}
	if r.state == api.Held && !r.until.IsZero() {
		until := r.until.UTC()
		v.Until = &until
	}
	for _, k := range r.described.Risks {
		v.Dangerous = v.Dangerous || k.Dangerous
	}
	for _, o := range r.described.Offers {
		v.Offers = append(v.Offers, o.Offer)
	}
	return v
}

// add gives a request its id, and lists it.
func (q *Queue) add(r *request) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for r.id == "" || q.requests[r.id] != nil {
		r.id = newID()
	}
	q.requests[r.id] = r
}

func newID() string {
	var b [5]byte
	_, _ = rand.Read(b[:]) // it never fails
	return hex.EncodeToString(b[:])
}

// remove forgets a request, and remembers why for a while.
func (q *Queue) remove(r *request, why string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.requests, r.id)
	if len(q.over) == maxOver {
		q.over = q.over[1:]
	}
	q.over = append(q.over, over{r.id, why})
}

// find returns the request that an id, or the beginning of one, names.
func (q *Queue) find(id string) (*request, error) {
	if strings.Trim(id, "0123456789abcdef") != "" || id == "" {
		return nil, &api.Error{Code: api.Invalid, Message: fmt.Sprintf("%.40q is no request's id: `nemoclaw approvals list` shows them", id)}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if r := q.requests[id]; r != nil {
		return r, nil
	}
	var found []*request
	for known, r := range q.requests {
		if strings.HasPrefix(known, id) {
			found = append(found, r)
		}
	}
	if len(found) > 1 {
		return nil, &api.Error{Code: api.Conflict, Message: fmt.Sprintf("%s is the beginning of %d requests' ids: give more of it", id, len(found))}
	}
	for _, o := range slices.Backward(q.over) {
		switch {
		case !strings.HasPrefix(o.id, id):
		case len(found) == 1: // it may have been the other that was meant
			return nil, &api.Error{Code: api.Conflict, Message: fmt.Sprintf("%s is the beginning of request %s's id, and was that of %s, which needs no answer any more: give more of it", id, found[0].id, o.id)}
		default:
			return nil, &api.Error{Code: api.Conflict, Message: fmt.Sprintf("request %s needs no answer any more: %s", o.id, o.why)}
		}
	}
	if len(found) == 1 {
		return found[0], nil
	}
	return nil, &api.Error{Code: api.NotFound, Message: fmt.Sprintf("there is no request %s: `nemoclaw approvals list` shows those that there are", id)}
}

// Get returns one request.
func (q *Queue) Get(id string) (api.Request, error) {
	r, err := q.find(id)
	if err != nil {
		return api.Request{}, err
	}
	r.desk.mu.Lock()
	defer r.desk.mu.Unlock()
	return r.view(), nil
}

// List returns what can be answered, of one sandbox or, for "", of all: what is held first, then the latest first.
func (q *Queue) List(sandbox string) []api.Request {
	list := []api.Request{}
	for _, k := range q.of(sandbox) {
		list = append(list, k.list()...)
	}
	slices.SortFunc(list, func(a, b api.Request) int {
		return cmp.Or(held(b)-held(a), b.Last.Compare(a.Last), cmp.Compare(a.ID, b.ID))
	})
	return list
}

func held(r api.Request) int {
	if r.State == api.Held {
		return 1
	}
	return 0
}

// of returns the desk of a sandbox, or all.
func (q *Queue) of(sandbox string) (list []*Desk) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for name, k := range q.desks {
		if sandbox == "" || sandbox == name {
			list = append(list, k)
		}
	}
	return list
}
