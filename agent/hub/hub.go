// Package hub is where every decision goes: planes hand in policy.Decisions, the hub numbers them, stamps them, writes
// them to the audit log and passes them to whoever listens. It owns the order of the records, the folding of floods and
// the tally for the summary. It never decides anything and never changes a verdict.
//
// The audit log gets every record, at the pace of the disk: Record blocks rather than drop. Subscribers have bounded
// queues: a slow one loses records, and how many is counted.
package hub

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/audit"
	"github.com/nemoclaw/nemoclaw/policy"
)

// A Hub takes the decisions of one sandbox. Its methods may be called from any goroutine.
type Hub struct {
	sandbox string
	log     *audit.Writer
	now     func() time.Time

	mu     sync.Mutex
	seq    uint64
	window window
	tally  tally
	watch  func(*policy.Decision)
	subs   []*Subscription
	closed bool
}

// New returns the hub of a sandbox. Its numbers go on where the log's end. log may be nil: nothing is kept then.
func New(sandbox string, log *audit.Writer) *Hub {
	h := &Hub{sandbox: sandbox, log: log, now: time.Now}
	if log != nil {
		h.seq = log.Head().Seq
	}
	return h
}

// Record takes one decision. Seq, Time and Sandbox are the hub's to set, but a Time that the plane knows better (the
// kernel's own, of an event that waited in a ring) is kept. Long strings are cut: see Bound. After Close it does
// nothing. Failures of the log show on its Failed channel, not here: a plane could do nothing about them.
func (h *Hub) Record(d policy.Decision) {
	d = Bound(d)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return
	}
	now := h.now()
	if d.Time.IsZero() {
		d.Time = now
	}
	h.tally.add(&d)
	if h.watch != nil {
		h.watch(&d)
	}
	if h.window.over(now) {
		h.roll()
	}
	folded := h.window.fold(&d, now)
	if !folded {
		h.emit(&d)
	} else if h.window.timer == nil {
		h.window.timer = time.AfterFunc(h.window.end.Sub(now), h.tick)
	}
}

// emit gives d its number and hands it out. The lock makes the log's order the order of the numbers.
func (h *Hub) emit(d *policy.Decision) {
	h.seq++
	d.Seq, d.Sandbox = h.seq, h.sandbox
	if h.log != nil {
		// The writer keeps its first error and says so on Failed, which stops the run.
		_ = h.log.Append(d)
	}
	for _, s := range h.subs {
		select {
		case s.c <- *d:
		default:
			s.lost.Add(1)
		}
	}
}

// tick ends the window when nothing else came that would.
func (h *Hub) tick() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.closed {
		h.roll()
	}
}

func (h *Hub) roll() {
	for _, d := range h.window.next() {
		h.emit(d)
	}
}

// Refusals returns what was refused so far, and how many refusals were beyond what the tally keeps apart.
func (h *Hub) Refusals() (list []Refusal, more uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.tally.list(), h.tally.more
}

// Watch hands every record to f before floods are folded, so that none is missing. f is called in order, one at a time,
// and must be quick. It is set before the first record.
func (h *Hub) Watch(f func(*policy.Decision)) { h.watch = f }

// Close writes what is still folded and ends the subscriptions. The log stays open: it is its opener's.
func (h *Hub) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return
	}
	h.roll()
	h.closed = true
	for _, s := range h.subs {
		close(s.c)
	}
}

// A Subscription receives every record from its making on. C is closed by the hub's Close.
type Subscription struct {
	C    <-chan policy.Decision
	c    chan policy.Decision
	lost atomic.Uint64
}

// Lost returns how many records the subscriber was too slow for.
func (s *Subscription) Lost() uint64 { return s.lost.Load() }

// Subscribe returns a subscription that can fall behind by size records.
func (h *Hub) Subscribe(size int) *Subscription {
	c := make(chan policy.Decision, size)
	s := &Subscription{C: c, c: c}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		close(c)
	} else {
		h.subs = append(h.subs, s)
	}
	return s
}

// What a record may hold, in bytes: a program inside chooses these strings, and must not choose the log's size.
const (
	maxObject = 4096
	maxArgs   = 4096
	maxReason = 1024
	maxShort  = 256
)

// Bound returns d with every string cut to what a record may hold; what was cut ends in "...".
func Bound(d policy.Decision) policy.Decision {
	cut := func(s string, limit int) string {
		if len(s) <= limit {
			return s
		}
		return s[:limit-3] + "..."
	}
	d.Object = cut(d.Object, maxObject)
	d.Called = cut(d.Called, maxObject)
	d.Subject.Exe = cut(d.Subject.Exe, maxObject)
	d.Subject.Args = cut(d.Subject.Args, maxArgs)
	d.Reason = cut(d.Reason, maxReason)
	d.Rule = cut(d.Rule, maxObject)
	d.Action = cut(d.Action, maxShort)
	return d
}
