// Package hub is where every decision goes: planes hand in policy.Decisions, each sandbox's Recorder stamps them, and the
// hub numbers them, writes them to the audit log and passes them to whoever listens. It owns the order of the records,
// the folding of floods and the tally for the summary. It never decides anything and never changes a verdict.
//
// The audit log gets every record, at the pace of the disk: Record blocks rather than drop. Floods are folded in each
// sandbox by itself, before anything is shared, so what one does costs the others no more than its few records' place on
// the disk. Subscribers have bounded queues: a slow one loses records, and how many is counted.
package hub

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/audit"
	"github.com/nemoclaw/nemoclaw/policy"
)

// A Hub takes the decisions of all sandboxes that share one audit log, and gives them one sequence of numbers. Its
// methods may be called from any goroutine.
type Hub struct {
	log *audit.Writer
	now func() time.Time

	mu     sync.Mutex // taken after a Recorder's
	seq    uint64
	open   map[*Recorder]struct{}
	subs   []*Subscription
	closed bool

	lost atomic.Uint64 // records that subscribers were too slow for
}

// New returns a hub. Its numbers go on where the log's end. log may be nil: nothing is kept then.
func New(log *audit.Writer) *Hub {
	h := &Hub{log: log, now: time.Now, open: map[*Recorder]struct{}{}}
	if log != nil {
		h.seq = log.Head().Seq
	}
	return h
}

// emit gives d its number and hands it out. The lock makes the log's order the order of the numbers.
func (h *Hub) emit(d *policy.Decision) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return
	}
	h.seq++
	d.Seq = h.seq
	if h.log != nil {
		// The writer keeps its first error and says so on Failed, which stops what it records.
		_ = h.log.Append(d)
	}
	for _, s := range h.subs {
		select {
		case s.c <- *d:
		default:
			s.lost.Add(1)
			h.lost.Add(1)
		}
	}
}

// Close closes what is still open of its recorders, and ends the subscriptions. The log stays open: it is its opener's.
func (h *Hub) Close() {
	for {
		h.mu.Lock()
		var r *Recorder
		for r = range h.open {
			break
		}
		if r == nil {
			break // with the lock
		}
		h.mu.Unlock()
		r.Close()
	}
	defer h.mu.Unlock()
	h.closed = true
	for _, s := range h.subs {
		close(s.c)
	}
	h.subs = nil
}

// A Subscription receives every record of every sandbox from its making on. C is closed by Cancel and by the hub's Close.
type Subscription struct {
	C    <-chan policy.Decision
	c    chan policy.Decision
	hub  *Hub
	lost atomic.Uint64
}

// Lost returns how many records the subscriber was too slow for.
func (s *Subscription) Lost() uint64 { return s.lost.Load() }

// Cancel ends the subscription. What is in C already can still be received.
func (s *Subscription) Cancel() {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	if i := slices.Index(s.hub.subs, s); i >= 0 {
		s.hub.subs = slices.Delete(s.hub.subs, i, i+1)
		close(s.c)
	}
}

// Lost returns how many records subscribers were too slow for, those that are gone among them. The log has them all.
func (h *Hub) Lost() uint64 { return h.lost.Load() }

// Subscribe returns a subscription that can fall behind by size records.
func (h *Hub) Subscribe(size int) *Subscription {
	c := make(chan policy.Decision, size)
	s := &Subscription{C: c, c: c, hub: h}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		close(c)
	} else {
		h.subs = append(h.subs, s)
	}
	return s
}
