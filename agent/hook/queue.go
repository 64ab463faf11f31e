package hook

import (
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/nemoclaw/nemoclaw/agent/config"
	"github.com/nemoclaw/nemoclaw/api"
)

// maxWaiting bounds the requests of one sandbox that a hook is not told of yet.
const maxWaiting = 50

// queue is what a hook is to be told. Each sandbox has a share of its own, so that one that asks for a lot keeps no other from
// being heard.
type queue struct {
	states, sandboxes []string // that the hook is told of
	rate              int      // a minute

	changed chan struct{} // has a value when there may be more to take

	mu     sync.Mutex
	known  map[string]standing // by id: the requests that there are
	before map[string]standing // while all are told again: those of before
	began  bool                // the first telling is over: what comes is new
	shares map[string]*share   // by sandbox
}

// standing is what is known of a request.
type standing struct {
	state api.RequestState
	told  bool // or left out
}

// share is one sandbox's.
type share struct {
	waiting []api.Request
	limit   *rate.Limiter // of messages
	served  time.Time     // when one was taken last
	dropped uint64        // requests, since then
	noted   bool          // that some were
}

func newQueue(c config.Hook) *queue {
	q := &queue{states: c.States, sandboxes: c.Sandboxes, rate: c.Rate, changed: make(chan struct{}, 1), known: map[string]standing{}, shares: map[string]*share{}}
	if q.rate == 0 {
		q.rate = config.DefaultRate
	}
	return q
}

func (q *queue) wants(r *api.Request) bool {
	return (len(q.states) == 0 || slices.Contains(q.states, string(r.State))) && (len(q.sandboxes) == 0 || slices.Contains(q.sandboxes, r.Sandbox))
}

// change takes what became of the requests. It never waits.
func (q *queue) change(c api.RequestChange) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if c.Reset {
		q.before, q.known = q.known, map[string]standing{}
	}
	if c.Request != nil {
		q.request(c.Request)
	}
	if c.Complete {
		for _, s := range q.shares {
			s.waiting = slices.DeleteFunc(s.waiting, func(r api.Request) bool { return q.known[r.ID].state == "" })
		}
		q.before, q.began = nil, true
	}
	select {
	case q.changed <- struct{}{}:
	default:
	}
}

// request takes what became of one. The caller holds mu.
func (q *queue) request(r *api.Request) {
	is, ok := q.known[r.ID]
	if !ok {
		is, ok = q.before[r.ID]
	}
	open, wanted := r.State == api.Held || r.State == api.Refused, q.wants(r)
	if s := q.shares[r.Sandbox]; s != nil {
		if i := slices.IndexFunc(s.waiting, func(w api.Request) bool { return w.ID == r.ID }); i >= 0 && open && wanted {
			s.waiting[i] = *r
		} else if i >= 0 {
			s.waiting = slices.Delete(s.waiting, i, i+1)
		}
	}
	if !open {
		delete(q.known, r.ID)
		return
	}
	// A request is told once; and each time that somebody waits for its answer anew. What was refused before the daemon
	// came is nothing new.
	fresh := r.State == api.Held && is.state != api.Held || r.State == api.Refused && !is.told
	old := !q.began && !ok && r.State == api.Refused
	if wanted && fresh && !old {
		q.put(r)
	}
	q.known[r.ID] = standing{r.State, is.told || old || wanted}
}

// put has the hook told of a request, or leaves one out. The caller holds mu.
func (q *queue) put(r *api.Request) {
	s := q.share(r.Sandbox)
	if slices.ContainsFunc(s.waiting, func(w api.Request) bool { return w.ID == r.ID }) {
		return
	}
	if len(s.waiting) < maxWaiting {
		s.waiting = append(s.waiting, *r)
		return
	}
	s.dropped++
	// Somebody waits for the answer to what is held.
	if i := slices.IndexFunc(s.waiting, func(w api.Request) bool { return w.State == api.Refused }); i >= 0 && r.State == api.Held {
		s.waiting = append(slices.Delete(s.waiting, i, i+1), *r)
	}
}

func (q *queue) share(sandbox string) *share {
	s := q.shares[sandbox]
	if s == nil {
		s = &share{limit: rate.NewLimiter(rate.Every(q.perMessage()), q.rate)}
		q.shares[sandbox] = s
	}
	return s
}

// perMessage is how long a sandbox waits for each of its messages, once it has sent as many as it may at once.
func (q *queue) perMessage() time.Duration { return time.Minute / time.Duration(q.rate) }

// take returns a request that the hook may be told of now, and how many of its sandbox were left out since the last. A wait
// that is not 0 says that there is none before it is over, or before something changes. Of several sandboxes it is the turn of the
// one that was served the longest ago; of one's requests what is held comes first.
func (q *queue) take(now time.Time) (r api.Request, dropped uint64, wait time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	wait = time.Hour
	var turn *share
	for name, s := range q.shares {
		tokens := s.limit.TokensAt(now)
		switch {
		case len(s.waiting) == 0:
			s.noted = s.noted && s.dropped > 0
			if tokens == float64(q.rate) && s.dropped == 0 {
				delete(q.shares, name)
			}
		case tokens < 1:
			wait = min(wait, time.Duration((1-tokens)*float64(q.perMessage()))+time.Millisecond)
		case turn == nil || s.served.Before(turn.served):
			turn = s
		}
	}
	if turn == nil {
		return r, 0, wait
	}
	i := max(0, slices.IndexFunc(turn.waiting, func(w api.Request) bool { return w.State == api.Held }))
	r, dropped = turn.waiting[i], turn.dropped
	turn.waiting = slices.Delete(turn.waiting, i, i+1)
	turn.limit.AllowN(now, 1)
	turn.served, turn.dropped = now, 0
	return r, dropped, 0
}

// lose counts what could not be delivered as left out.
func (q *queue) lose(sandbox string, n uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := q.share(sandbox)
	s.dropped, s.noted = s.dropped+n, true // who failed says so
}

// overflows names the sandboxes of which requests are left out, each once until it is quiet.
func (q *queue) overflows() (names []string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for name, s := range q.shares {
		if s.dropped > 0 && !s.noted {
			s.noted = true
			names = append(names, name)
		}
	}
	return names
}

// open reports whether a request can still be answered.
func (q *queue) open(id string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	_, known := q.known[id]
	_, before := q.before[id]
	return known || before
}
