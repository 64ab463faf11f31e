package inference

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/inference/dialect"
	"github.com/nemoclaw/nemoclaw/policy"
)

const (
	firstProbe = 5 * time.Second // after a backend failed; twice as long after each probe that fails, to lastProbe
	lastProbe  = time.Minute
	probeTime  = 10 * time.Second // for the answer
)

// health is what is known of a backend that failed. One that did not has none.
type health struct {
	reason string // never what a backend said, which may be a prompt
	since  time.Time
	wait   time.Duration // between this probe and the next
	next   time.Time     // when it may be asked again
}

// upstream is one backend as it has been in the life of a router.
type upstream struct {
	*Metrics
	down    atomic.Pointer[health] // nil: nothing is wrong with it
	known   atomic.Bool            // it was asked
	probing atomic.Bool
}

// upstream is what is known of a backend.
func (r *Router) upstream(b *policy.Backend) *upstream {
	s, ok := r.upstreams.Load(b.ID())
	if !ok {
		s, _ = r.upstreams.LoadOrStore(b.ID(), &upstream{Metrics: newMetrics()})
	}
	return s.(*upstream) // nothing else is stored
}

// failed marks a backend as down. after is how long it wants to be left alone; 0: it does not say.
func (s *upstream) failed(reason string, after time.Duration) {
	now := time.Now()
	was := s.down.Load()
	h := &health{reason: reason, since: now, wait: firstProbe}
	if was != nil {
		h.since, h.wait = was.since, min(2*was.wait, lastProbe)
	}
	h.next = now.Add(max(h.wait, min(after, lastProbe)))
	s.known.Store(true)
	s.down.Store(h)
}

// up marks it as one that answers.
func (s *upstream) up() {
	if s.down.Load() != nil || !s.known.Load() {
		s.known.Store(true)
		s.down.Store(nil)
	}
}

// upFirst has those that are down come last: they are asked where nothing else can answer. What is down is probed meanwhile, since
// somebody asks.
func (r *Router) upFirst(list []*policy.Backend) []*policy.Backend {
	if len(list) < 2 {
		return list // the request itself will show
	}
	var up, down []*policy.Backend
	for _, b := range list {
		s := r.upstream(b)
		h := s.down.Load()
		if h == nil {
			up = append(up, b)
			continue
		}
		down = append(down, b)
		if time.Now().After(h.next) && s.probing.CompareAndSwap(false, true) {
			go r.probe(b, s)
		}
	}
	return slices.Concat(up, down)
}

// probe asks a backend that is down for its list of models.
func (r *Router) probe(b *policy.Backend, s *upstream) {
	defer s.probing.Store(false)
	ctx, cancel := context.WithTimeout(r.life, probeTime)
	defer cancel()
	d := speaking(b, dialect.OpenAIChat)
	key, err := r.key(ctx, b)
	if err != nil {
		s.failed("it can't be asked: "+asRefusal(err).why(), 0)
		return
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at(b, dialect.Path(d, dialect.ListModels)), nil)
	if err != nil {
		s.failed("its address is none", 0)
		return
	}
	authorize(req, b, key)
	resp, err := r.client.Do(req)
	if r.life.Err() != nil {
		return
	}
	if err != nil {
		s.failed(notReached(err), 0)
		return
	}
	resp.Body.Close()
	if faulty(resp.StatusCode) {
		s.failed("it answers "+status(resp), retryAfter(resp))
		return
	}
	s.up() // one that has no such list, or does not like the key, is there
}

// faulty reports whether a status is the server's fault, so that another may do better.
func faulty(code int) bool { return code == http.StatusTooManyRequests || code >= 500 }

// status is a status without the words of the server.
func status(resp *http.Response) string {
	return fmt.Sprintf("%d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
}

// retryAfter is how long a server wants to be left alone.
func retryAfter(resp *http.Response) time.Duration {
	seconds, err := strconv.ParseUint(resp.Header.Get("Retry-After"), 10, 16)
	if err != nil {
		return 0
	}
	return time.Duration(seconds) * time.Second
}
