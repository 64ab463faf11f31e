package approvals

import (
	"context"
	"sync"
	"time"

	"github.com/nemoclaw/nemoclaw/api"
)

// countEvery is how often who watches is told of counts that have changed. All else is told at once.
const countEvery = 250 * time.Millisecond

// maxBehind is how many changes wait for a watcher. One that is further behind is told everything again.
const maxBehind = 4096

// A Watcher is told of every change of the requests of one sandbox, or of all. How slowly it reads costs nobody anything.
type Watcher struct {
	q       *Queue
	sandbox string
	wake    chan struct{}

	mu       sync.Mutex // taken after a Desk's and the Queue's
	reset    bool
	order    []*request
	changed  map[*request]struct{}
	unlisted map[string]uint64
}

// Watch begins to watch. What is there already comes first.
func (q *Queue) Watch(sandbox string) *Watcher {
	w := &Watcher{q: q, sandbox: sandbox, wake: make(chan struct{}, 1), reset: true, changed: map[*request]struct{}{}, unlisted: map[string]uint64{}}
	w.wake <- struct{}{}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.watchers[w] = struct{}{}
	return w
}

// Close ends it.
func (w *Watcher) Close() {
	w.q.mu.Lock()
	defer w.q.mu.Unlock()
	delete(w.q.watchers, w)
}

// Next waits for changes and returns them in order, many of one request as one.
func (w *Watcher) Next(ctx context.Context) ([]api.RequestChange, error) {
	select {
	case <-w.wake:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	w.mu.Lock()
	reset, order, unlisted := w.reset, w.order, w.unlisted
	w.reset, w.order, w.changed, w.unlisted = false, nil, map[*request]struct{}{}, map[string]uint64{}
	w.mu.Unlock()
	var list []api.RequestChange
	if reset {
		list = append(list, api.RequestChange{Reset: true})
		for _, r := range w.q.List(w.sandbox) {
			list = append(list, api.RequestChange{Request: &r})
		}
		unlisted = map[string]uint64{}
		for _, k := range w.q.of(w.sandbox) {
			k.mu.Lock()
			if k.unlisted > 0 {
				unlisted[k.c.Sandbox] = k.unlisted
			}
			k.mu.Unlock()
		}
		list = append(list, api.RequestChange{Complete: true})
	}
	for _, r := range order {
		r.desk.mu.Lock()
		v := r.view()
		r.desk.mu.Unlock()
		list = append(list, api.RequestChange{Request: &v})
	}
	if len(unlisted) > 0 {
		list = append(list, api.RequestChange{Unlisted: unlisted})
	}
	return list, nil
}

// tell notes changes for a watcher. unlisted is of the desk; 0: as it was.
func (w *Watcher) tell(k *Desk, list []*request, unlisted uint64) {
	if w.sandbox != "" && w.sandbox != k.c.Sandbox {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.reset {
		for _, r := range list {
			if _, known := w.changed[r]; !known {
				w.changed[r] = struct{}{}
				w.order = append(w.order, r)
			}
		}
		if len(w.order) > maxBehind {
			w.reset, w.order, w.changed = true, nil, map[*request]struct{}{}
		}
		if unlisted > 0 {
			w.unlisted[k.c.Sandbox] = unlisted
		}
	}
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// changed tells the watchers of a request at once, and has it kept. The caller holds mu.
func (k *Desk) changed(r *request) {
	k.later(saveAfter)
	k.tell([]*request{r}, 0)
}

func (k *Desk) tell(list []*request, unlisted uint64) {
	k.q.mu.Lock()
	defer k.q.mu.Unlock()
	for w := range k.q.watchers {
		w.tell(k, list, unlisted)
	}
}

// count tells the watchers of an attempt soon: of one request, or of one that is not listed. The caller holds mu.
func (k *Desk) count(r *request) {
	if r != nil {
		k.dirty[r] = struct{}{}
	}
	k.later(saveAfter)
	if k.tick == nil && !k.closed {
		k.tick = time.AfterFunc(countEvery, k.counted)
	}
}

// counted tells of all that was counted since.
func (k *Desk) counted() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.tick = nil
	list := make([]*request, 0, len(k.dirty))
	for r := range k.dirty {
		list = append(list, r)
	}
	clear(k.dirty)
	unlisted := uint64(0)
	if k.unlisted != k.told {
		unlisted, k.told = k.unlisted, k.unlisted
	}
	k.tell(list, unlisted)
}
