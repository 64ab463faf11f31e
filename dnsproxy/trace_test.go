package dnsproxy

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/policy"
)

// tracer keeps the traces of a world's connections.
type tracer struct {
	mu   sync.Mutex
	made byte
	over []*ConnTrace
}

func (tr *tracer) option(_ *world, c *Config) {
	c.Trace = func() *ConnTrace {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		tr.made++
		return &ConnTrace{ID: [16]byte{15: tr.made}, Span: [8]byte{7: tr.made}}
	}
	c.Traced = func(t *ConnTrace) {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		tr.over = append(tr.over, t)
	}
}

// one waits for the next trace that is over, and checks what holds for all of them.
func (tr *tracer) one(t *testing.T) *ConnTrace {
	t.Helper()
	var got *ConnTrace
	eventually(t, "a trace is over", func() bool {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		if len(tr.over) > 0 {
			got, tr.over = tr.over[0], tr.over[1:]
		}
		return got != nil
	})
	at := time.Duration(0)
	for _, s := range got.Steps {
		if s.Began < at || s.Ended < s.Began || s.Ended > got.Took {
			t.Errorf("%s takes from %s to %s, after %s, in %s", s.Step, s.Began, s.Ended, at, got.Took)
		}
		at = s.Ended
	}
	return got
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what + ": not so within 10 s")
		}
	}
}

func words(t *ConnTrace) string {
	var list []string
	for _, s := range t.Steps {
		list = append(list, s.Step.String())
	}
	return strings.Join(list, " ")
}

// What a program sends to be traced by, of its own or of somebody else's trace, is bytes: they arrive, and no id is of them.
func TestATraceParentFromInsideIsBytes(t *testing.T) {
	t.Parallel()
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	heads := make(chan http.Header, 1)
	var tr tracer
	w := httpWorld(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { heads <- r.Header.Clone() }), tr.option)
	inside := w.mustName("web.example", 80)
	fmt.Fprint(inside, "GET / HTTP/1.1\r\nHost: web.example\r\nConnection: close\r\ntraceparent: "+parent+"\r\ntracestate: a=b\r\nbaggage: who=me\r\n\r\n")
	if got, err := io.ReadAll(inside); err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 200") {
		t.Fatalf("%q, %v", got, err)
	}
	inside.Close()
	h := <-heads
	if h.Get("Traceparent") != parent || h.Get("Tracestate") != "a=b" || h.Get("Baggage") != "who=me" {
		t.Errorf("the request's headers came as %v", h)
	}
	c := tr.one(t)
	if c.ID != ([16]byte{15: 1}) || c.Span != ([8]byte{7: 1}) {
		t.Errorf("the ids are %x and %x", c.ID, c.Span)
	}
	if words(c) != "decide head resolve record dial relay" || c.Outcome != ConnRelayed || c.Verdict != policy.Allow || c.Rule != "test.yaml:4" || c.To != "web.example:80" {
		t.Errorf("%s: %s %s by %s of %s", words(c), c.Outcome, c.Verdict, c.Rule, c.To)
	}
	if c.Sent == 0 || c.Received == 0 || !c.Dialled.IsValid() || c.Found != 1 || c.Subject.Exe != "/usr/bin/node" {
		t.Errorf("sent %d, received %d, dialled %s, found %d, by %+v", c.Sent, c.Received, c.Dialled, c.Found, c.Subject)
	}
}

// The steps of each way that a connection can take.
func TestStepsOfAConnection(t *testing.T) {
	t.Parallel()
	var tr tracer
	answers := make(chan policy.Verdict, 1)
	w, port := rawWorld(t, tcpServer(t, echo), tr.option, func(_ *world, c *Config) {
		ask := func(ctx context.Context, _ policy.Decision) policy.Verdict {
			TraceOf(ctx).AskedAs("0123456789")
			select {
			case v := <-answers:
				return v
			case <-ctx.Done():
				return policy.Deny
			}
		}
		c.Ask = ask
	})
	talk := func(name string) {
		c, err := w.toName(name, port)
		if err != nil {
			return // refused as early as that
		}
		defer c.Close()
		fmt.Fprint(c, "hello")
		_ = c.(*net.TCPConn).CloseWrite()
		_, _ = io.ReadAll(c) // a refusal is a reset
	}
	for _, step := range []struct {
		name, steps string
		verdict     policy.Verdict
		outcome     ConnOutcome
		asked       string
	}{
		{"local.example", "decide resolve record dial relay", policy.Allow, ConnRelayed, ""},
		{"cmd.example", "decide", policy.Deny, ConnRefused, ""},
		{"asked.example", "decide ask resolve record dial relay", policy.Allow, ConnRelayed, "0123456789"},
		{"asked.example", "decide ask", policy.Deny, ConnRefused, "0123456789"},
	} {
		if step.asked != "" {
			answers <- step.verdict
		}
		talk(step.name)
		c := tr.one(t)
		if words(c) != step.steps || c.Verdict != step.verdict || c.Outcome != step.outcome || c.Approval() != step.asked || !c.Decided {
			t.Errorf("%s: %q, %s, %s, asked as %q; want %+v", step.name, words(c), c.Verdict, c.Outcome, c.Approval(), step)
		}
	}
	if gone, err := w.toName("asked.example", port); err != nil {
		t.Error(err)
	} else {
		eventually(t, "it is asked about", func() bool { return w.s.conns.Load() == 1 })
		_ = gone.(*net.TCPConn).SetLinger(0)
		gone.Close() // while a person thinks
		if c := tr.one(t); words(c) != "decide ask" || c.Decided || c.Outcome != ConnAbandoned {
			t.Errorf("a client that goes away: %s, decided %t, %s", words(c), c.Decided, c.Outcome)
		}
	}
}

// What may be said about a connection is bounded, whatever a policy's changes make it go through.
func TestNoMoreStepsThanThereIsRoomFor(t *testing.T) {
	t.Parallel()
	var c ConnTrace
	for i := range int64(3 * maxSteps) {
		c.enter(StepHead, i)
	}
	c.leave(1000)
	if len(c.Steps) != maxSteps || c.Steps[maxSteps-1].Ended != maxSteps {
		t.Errorf("%d steps, the last ended at %d", len(c.Steps), c.Steps[maxSteps-1].Ended)
	}
}

// Where nobody wants traces they cost nothing, and where somebody does, nothing for what was not chosen.
func TestNoTraceNoAllocation(t *testing.T) {
	for _, c := range []*conn{{s: &Server{}}, {s: &Server{cfg: Config{Trace: func() *ConnTrace { return nil }}}}} {
		n := testing.AllocsPerRun(100, func() {
			c.enter(StepDecide)
			c.decided(policy.Decision{Verdict: policy.Allow})
			c.enter(StepRelay)
			c.dialled()
			c.leave()
			c.traced()
		})
		if n != 0 {
			t.Errorf("%v allocations", n)
		}
	}
}

// A connection that is handed over in this process has its ids with it.
func TestHandedOverWithItsIDs(t *testing.T) {
	t.Parallel()
	var tr tracer
	from := make(chan Handed, 1)
	w := newWorld(t, "inference:\n  local: {model: \"ollama/x\"}\n", tr.option, func(_ *world, c *Config) {
		c.Local = &Local{Name: policy.InferenceName, Serve: func(c net.Conn, h Handed) {
			c.Close()
			from <- h
		}}
	})
	c := w.mustName(policy.InferenceName, 80)
	defer c.Close()
	fmt.Fprint(c, "POST / HTTP/1.1\r\nHost: inference.local\r\n\r\n")
	h, over := <-from, tr.one(t)
	if h.Trace != over.ID || h.Span != over.Span || over.Outcome != ConnLocal || over.Verdict != policy.Allow {
		t.Errorf("handed over with %x %x, of %x %x: %s %s", h.Trace, h.Span, over.ID, over.Span, over.Outcome, over.Verdict)
	}
}
