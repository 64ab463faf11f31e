package dnsproxy

import (
	"context"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/nemoclaw/nemoclaw/policy"
)

// A Step is a part of a connection's life that takes time.
type Step uint8

// The steps, in the order in which a connection usually takes them. It has at most one at a time.
const (
	StepHead    Step = iota // a ClientHello or a request's head is read, and checked
	StepDecide              // the policy and what persons allowed are looked at
	StepAsk                 // a person is asked
	StepResolve             // the name's addresses are found, and judged
	StepRecord              // the decision is written down
	StepDial                // the upstream is connected to
	StepRelay               // bytes flow
)

// String returns the step's word.
func (s Step) String() string {
	return [...]string{"head", "decide", "ask", "resolve", "record", "dial", "relay"}[s]
}

// maxSteps is more than any connection takes whose policy does not change meanwhile; what comes after is not timed.
const maxSteps = 16

// A ConnStep is one that a connection took. The times count from the connection's coming.
type ConnStep struct {
	Step         Step
	Began, Ended time.Duration
}

// ConnTrace is what a connection did, and when. It belongs to the proxy until Config.Traced has it.
type ConnTrace struct {
	// ID and Span are its ids in a trace. Whoever made it gave them: nothing that comes from inside has a part in them.
	ID   [16]byte
	Span [8]byte

	Began    time.Time
	Took     time.Duration
	To       string // NAME:PORT or ADDRESS:PORT
	Host     string // of that
	Port     uint16
	Subject  policy.Subject // without arguments
	Decided  bool           // false: it ended before
	Verdict  policy.Verdict // the last, once it is decided
	Rule     string         // that says so
	Revision string         // of the policy
	Consent  string         // how it came to be allowed when not by an allow rule
	Outcome  ConnOutcome
	Dialled  netip.AddrPort // invalid: nowhere, or the host's own proxy
	Found    int            // addresses that may be dialled

	Sent, Received int64 // bytes relayed: to the upstream, and from it
	Steps          []ConnStep

	room     [maxSteps]ConnStep // of Steps
	open     bool               // the last of them goes on
	began    int64
	approval atomic.Pointer[string]
}

// AskedAs notes the id by which a person was asked. It may be called from any goroutine.
func (t *ConnTrace) AskedAs(id string) { t.approval.Store(&id) }

// Approval is that id; "": nobody was asked.
func (t *ConnTrace) Approval() string {
	if id := t.approval.Load(); id != nil {
		return *id
	}
	return ""
}

type traceKey struct{}

// TraceOf is the trace of the connection that Config.Ask is called for with ctx; nil: it has none.
func TraceOf(ctx context.Context) *ConnTrace {
	t, _ := ctx.Value(traceKey{}).(*ConnTrace)
	return t
}

// enter begins a step, and ends the one before.
func (c *conn) enter(s Step) {
	if c.trace != nil {
		c.trace.enter(s, c.s.now())
	}
}

// leave ends the step that goes on.
func (c *conn) leave() {
	if c.trace != nil {
		c.trace.leave(c.s.now())
	}
}

func (t *ConnTrace) enter(s Step, now int64) {
	t.leave(now)
	if t.Steps == nil {
		t.Steps = t.room[:0]
	}
	if t.open = len(t.Steps) < maxSteps; t.open {
		t.Steps = append(t.Steps, ConnStep{Step: s, Began: time.Duration(now - t.began)})
	}
}

func (t *ConnTrace) leave(now int64) {
	if t.open {
		t.Steps[len(t.Steps)-1].Ended = time.Duration(now - t.began)
		t.open = false
	}
}

// decided notes what was decided.
func (c *conn) decided(d policy.Decision) {
	if t := c.trace; t != nil {
		t.Decided, t.Verdict, t.Rule, t.Revision = true, d.Verdict, d.Rule, d.Revision
	}
}

// dialled notes where the connection led.
func (c *conn) dialled() {
	if c.trace != nil && !c.viaProxy {
		c.trace.Dialled, _ = sysPeer(c.up.fd) // of a connection that is gone already there is none
	}
}

// traced gives the trace away: the connection is over, or somebody else's.
func (c *conn) traced() {
	t := c.trace
	if t == nil {
		return
	}
	c.trace = nil
	now := c.s.now()
	t.leave(now)
	t.Took = time.Duration(now - t.began)
	t.To, t.Host, t.Port = c.to.String(), c.to.host(), c.to.port
	t.Subject, t.Consent, t.Found = c.peer.Subject, c.consent, len(c.addrs)
	t.Subject.Args = "" // curl's have URLs in them
	c.s.cfg.Traced(t)
}
