package tui

import (
	"cmp"
	"maps"
	"slices"

	"github.com/nemoclaw/nemoclaw/api"
)

// requests are the requests that wait for an answer, and the last that no longer do. A request is never changed, only replaced,
// so that what was read of one stays as it was.
type requests struct {
	all    map[string]*api.Request
	coming map[string]*api.Request // after a Reset, until Complete; nil: everything was told
	order  []*api.Request          // as they are listed; never changed, only replaced
	fresh  []string                // the IDs of what came since
	stale  bool                    // order is no more what is listed
	find   query                   // what is listed of them
	left   int                     // how many were left out, because there were too many

	done  map[string]*api.Request // the last that were answered or withdrawn
	dones []string                // their IDs, oldest first
}

const (
	maxRequests = 10_000
	maxDone     = 100
)

func newRequests() requests {
	return requests{all: map[string]*api.Request{}, done: map[string]*api.Request{}}
}

// waits reports whether a request can be answered.
func waits(r *api.Request) bool { return r.State == api.Held || r.State == api.Refused }

// take takes a line of the stream, and returns the request that was answered or withdrawn with it, if one was.
func (q *requests) take(c api.RequestChange) (ended *api.Request) {
	if c.Reset {
		q.coming = map[string]*api.Request{}
		q.left = 0
	}
	into := q.all
	if q.coming != nil {
		into = q.coming
	}
	if r := c.Request; r != nil {
		if waits(r) {
			if into[r.ID] == nil {
				q.fresh = append(q.fresh, r.ID)
			}
			into[r.ID] = r
		} else {
			if into[r.ID] != nil {
				ended = r
			}
			delete(into, r.ID)
			q.end(r)
		}
		q.stale = true
	}
	if c.Complete && q.coming != nil {
		q.all, q.coming = q.coming, nil
		q.anew()
	}
	if len(q.all) > maxRequests+maxRequests/10 {
		q.shrink()
	}
	if len(q.fresh) > 2*maxRequests { // nothing was listed for long, as while a shell has the terminal
		q.anew()
	}
	return ended
}

// end remembers a request that is over.
func (q *requests) end(r *api.Request) {
	if q.done[r.ID] == nil {
		q.dones = append(q.dones, r.ID)
	}
	q.done[r.ID] = r
	for len(q.dones) > maxDone {
		delete(q.done, q.dones[0])
		q.dones = q.dones[1:]
	}
}

// shrink leaves out what stands last.
func (q *requests) shrink() {
	all := make([]*api.Request, 0, len(q.all))
	for _, r := range q.all {
		all = append(all, r)
	}
	slices.SortFunc(all, before)
	for _, r := range all[maxRequests:] {
		delete(q.all, r.ID)
		q.left++
	}
}

// before is the order of the list: what is held first, the longest waiting first, because it is denied soonest; then what was
// refused, the latest first. A count that grows moves nothing.
func before(a, b *api.Request) int {
	held := func(r *api.Request) int {
		if r.State == api.Held {
			return 0
		}
		return 1
	}
	if c := cmp.Compare(held(a), held(b)); c != 0 {
		return c
	}
	c := a.First.Compare(b.First)
	if a.State != api.Held {
		c = -c
	}
	return cmp.Or(c, cmp.Compare(a.ID, b.ID))
}

// list is what is listed. What was listed before is in order already, or nearly: to sort it again costs little.
func (q *requests) list() []*api.Request {
	if !q.stale {
		return q.order
	}
	next := make([]*api.Request, 0, len(q.order)+len(q.fresh))
	for _, r := range q.order {
		if now := q.all[r.ID]; now != nil {
			next = append(next, now)
		}
	}
	for _, id := range q.fresh {
		if r := q.all[id]; r != nil && q.find.request(r) {
			next = append(next, r)
		}
	}
	if !slices.IsSortedFunc(next, before) {
		slices.SortFunc(next, before)
	}
	q.order, q.fresh, q.stale = slices.CompactFunc(next, func(a, b *api.Request) bool { return a == b }), nil, false
	return q.order
}

// anew has the whole list made again.
func (q *requests) anew() {
	q.order, q.fresh, q.stale = nil, slices.Collect(maps.Keys(q.all)), true
}

// filter lists only what fits find.
func (q *requests) filter(find query) {
	q.find = find
	q.anew()
}

// get returns a request that waits, or one that did.
func (q *requests) get(id string) *api.Request {
	if r := q.all[id]; r != nil {
		return r
	}
	return q.done[id]
}

// count is how many requests wait: held, and refused.
func (q *requests) count() (held, refused int) {
	for _, r := range q.all {
		if r.State == api.Held {
			held++
		} else {
			refused++
		}
	}
	return held, refused
}
