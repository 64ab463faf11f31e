package trace

import (
	"bytes"
	"fmt"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	traces "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/nemoclaw/nemoclaw/agent/config"
	"github.com/nemoclaw/nemoclaw/agent/trace/tracetest"
	"github.com/nemoclaw/nemoclaw/dnsproxy"
	"github.com/nemoclaw/nemoclaw/policy"
)

// notes keeps what was noted.
type notes struct {
	mu   sync.Mutex
	list []string
}

func (n *notes) note(action, object, reason string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.list = append(n.list, action+" "+object+": "+reason)
}

func (n *notes) all() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return strings.Join(n.list, "\n")
}

// open makes a tracer that waits little.
func open(t *testing.T, url string, change ...func(*config.Traces)) (*Tracer, *notes) {
	t.Helper()
	c := config.Traces{Endpoint: url, Ratio: 1}
	for _, f := range change {
		f(&c)
	}
	var n notes
	tr, err := newTracer(c, n.note)
	if err != nil {
		t.Fatal(err)
	}
	tr.pace, tr.first, tr.longest, tr.patience = time.Millisecond, time.Millisecond, 8*time.Millisecond, 0
	go tr.run()
	t.Cleanup(tr.Close)
	return tr, &n
}

func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what + ": not so within 10 s")
		}
	}
}

// What a sandbox can choose (names, paths) ends up in spans: escaped, short, and as text that protobuf takes.
func TestWhatComesFromInsideIsTextAndShort(t *testing.T) {
	t.Parallel()
	col := tracetest.New(t, nil)
	tr, _ := open(t, col.URL)
	hostile := "\x1b[2J\n\x00\xff\u202e" + strings.Repeat("ä", 1<<16)
	s := tr.Source(hostile).Begin("hold "+hostile, policy.PlaneFile)
	s.Set("nemoclaw.object", hostile)
	s.Who(policy.Subject{Exe: hostile, Args: "--password hunter2", PID: 7, Taint: hostile})
	for range 10 * maxSpans {
		s.Child(hostile, Client).Set("x", hostile)
	}
	s.End()
	s.End() // once more is once
	until(t, "it is sent", func() bool { return len(col.Spans()) == maxSpans })
	for _, s := range col.Spans() {
		for _, a := range s.Attributes {
			k, v := a.Key, a.Value.GetStringValue()
			if strings.ContainsAny(v, "\x1b\n\x00\u202e") || len([]rune(v)) > maxText+10 {
				t.Errorf("%s is %.80q, %d bytes", k, v, len(v))
			}
		}
		if strings.ContainsAny(s.Name, "\x1b\n\x00\u202e") || len(s.Name) > 4*maxText {
			t.Errorf("a name of %d bytes: %.80q", len(s.Name), s.Name)
		}
		if b, err := proto.Marshal(s); err != nil || bytes.Contains(b, []byte("hunter2")) {
			t.Errorf("%v: it has the arguments", err)
		}
	}
}

// connTrace is a connection with its steps, as the proxy gives it.
func connTrace(tr *Tracer) *dnsproxy.ConnTrace {
	begin, _ := tr.Source("box").Connections()
	c := begin()
	if c != nil {
		c.Began, c.Took = time.Now(), time.Second
		c.To, c.Host, c.Port, c.Decided, c.Verdict, c.Outcome = "web.example:443", "web.example", 443, true, policy.Deny, dnsproxy.ConnRefused
	}
	return c
}

func TestAConnectionsSpans(t *testing.T) {
	t.Parallel()
	col := tracetest.New(t, nil)
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tr, _ := open(t, col.URL, func(c *config.Traces) { c.Token.File = file })
	_, over := tr.Source("box").Connections()
	c := connTrace(tr)
	c.Rule, c.Revision = "policy.yaml:7", "0123"
	over(c)
	until(t, "it is sent", func() bool { return len(col.Spans()) == 1 })
	s := col.Spans()[0]
	for k, want := range map[string]string{
		Sandbox: "box", Plane: "network", Verdict: "deny", Rule: "policy.yaml:7", Revision: "0123", Outcome: "refused", "server.address": "web.example", "server.port": "443",
	} {
		if got := tracetest.Text(s, k); got != want {
			t.Errorf("%s is %q, not %q", k, got, want)
		}
	}
	if s.Name != "connect web.example:443" || s.Status.GetCode() != traces.Status_STATUS_CODE_ERROR || len(s.ParentSpanId) != 0 || [16]byte(s.TraceId) != c.ID || s.EndTimeUnixNano-s.StartTimeUnixNano != uint64(time.Second) {
		t.Errorf("%v", s)
	}
	if h := col.Headers().Get("Authorization"); h != "Bearer s3cret" {
		t.Errorf("authorised by %q", h)
	}
}

// Of what comes that part is traced that the configuration says, and a nil tracer traces nothing.
func TestRatio(t *testing.T) {
	for ratio, want := range map[float64]float64{1: 20000, 0.25: 5000, 1e-18: 0} {
		tr, err := newTracer(config.Traces{Endpoint: "http://127.0.0.1:1", Ratio: ratio}, nil)
		if err != nil {
			t.Fatal(err)
		}
		n, of := 0.0, tr.Source("box")
		ids := map[[16]byte]bool{}
		for range 20000 {
			if id, chosen := of.newID(); chosen {
				n++
				ids[id] = true
			}
		}
		if math.Abs(n-want) > 6*math.Sqrt(5000) || len(ids) != int(n) { // six deviations
			t.Errorf("%v: %v of 20000, with %d ids", ratio, n, len(ids))
		}
	}
	var off *Tracer
	none := off.Source("box")
	if s := none.Begin("x", policy.PlaneFile); s != nil {
		t.Error("a nil tracer makes spans")
	}
	if begin, over := none.Connections(); begin != nil || over != nil {
		t.Error("a nil tracer has hooks")
	}
	if n := testing.AllocsPerRun(100, func() {
		s := none.Begin("x", policy.PlaneFile)
		s.Child("y", Client).Set("k", "v")
		s.Who(policy.Subject{Exe: "/bin/true"})
		s.End()
	}); n != 0 {
		t.Errorf("%v allocations for nothing", n)
	}
	off.Close()
}

// Each way in which a collector can be wrong: nothing waits for it, what is lost is counted, and why is noted.
func TestCollectorsThatFail(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer  func(http.ResponseWriter, *http.Request)
		refused bool   // and so not sent again
		note    string // part of it
	}{
		"busy": {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "not now", http.StatusServiceUnavailable) }, false, "503 Service Unavailable: not now"},
		"rude": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, false, "EOF"},
		"slow": {func(_ http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
		}, false, ""},
		"garbage": {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>hello") }, true, "no collector's"},
		"strict":  {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "who are you?", http.StatusUnauthorized) }, true, "401 Unauthorized: who are you?"},
		"partial": {func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("\x0a\x06\x08\x01\x12\x02no")) }, true, "does not take all: no"},
		"away": {func(w http.ResponseWriter, _ *http.Request) {
			http.Redirect(w, &http.Request{}, "http://127.0.0.1:1/", http.StatusTemporaryRedirect)
		}, true, "307"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			col := tracetest.New(t, c.answer)
			tr, n := open(t, col.URL)
			tr.grace = 50 * time.Millisecond
			_, over := tr.Source("box").Connections()
			const many = 3 * maxQueue
			for range many {
				over(connTrace(tr))
			}
			until(t, "it has come to something", func() bool {
				s, _ := tr.State()
				return col.Posts() > 0 && (s.Refused > 0) == c.refused && strings.Contains(n.all(), c.note) && (c.refused || name == "slow" || s.Error != nil)
			})
			tr.Close() // also while a request is under way
			s, _ := tr.State()
			if name == "partial" {
				s.Refused += s.Sent
			} else if s.Sent != 0 {
				t.Errorf("%d count as sent", s.Sent)
			}
			if c.refused != (s.Refused > 0) || s.Full+s.Refused > many || s.Full+s.Refused < many-maxQueue-maxBatch {
				t.Errorf("of %d: %+v", many, s)
			}
		})
	}
}

// A collector that comes back gets what there was room for, and it is noted.
func TestTheCollectorComesBack(t *testing.T) {
	t.Parallel()
	var up atomic.Bool
	col := tracetest.New(t, func(http.ResponseWriter, *http.Request) {
		if !up.Load() {
			panic(http.ErrAbortHandler)
		}
	})
	tr, n := open(t, col.URL)
	_, over := tr.Source("box").Connections()
	over(connTrace(tr))
	until(t, "it is down", func() bool { s, _ := tr.State(); return s.Error != nil && strings.Contains(n.all(), "don't arrive") })
	if strings.Contains(n.all(), "http://") {
		t.Errorf("the address is in %s", n.all())
	}
	up.Store(true)
	until(t, "it is up", func() bool { s, _ := tr.State(); return s.Error == nil && s.Sent == 1 })
	until(t, "that is noted", func() bool { return strings.Contains(n.all(), "arrive again") })
}

// A sandbox that floods the queue loses its own traces, and nobody else's.
func TestAFloodTakesNoRoomFromOthers(t *testing.T) {
	t.Parallel()
	answers := make(chan struct{})
	col := tracetest.New(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-answers:
		case <-r.Context().Done():
		}
	})
	tr, _ := open(t, col.URL)
	flood, other := tr.Source("flood"), tr.Source("other")
	for range 3 * maxQueue {
		flood.Begin("connect", policy.PlaneNetwork).End()
	}
	other.Begin("connect", policy.PlaneNetwork).End()
	close(answers)
	until(t, "the other's is sent", func() bool {
		for _, s := range col.Spans() {
			if tracetest.Text(s, Sandbox) == "other" {
				return true
			}
		}
		return false
	})
	until(t, "all is sent", func() bool {
		s, _ := tr.State()
		return s.Sent+s.Full == 3*maxQueue+1 && s.Full > 0 && flood.waiting.Load() == 0
	})
}

// What is there at the end is sent.
func TestTheEndSendsTheRest(t *testing.T) {
	t.Parallel()
	col := tracetest.New(t, nil)
	tr, _ := open(t, col.URL)
	_, over := tr.Source("box").Connections()
	for range maxWaiting {
		over(connTrace(tr))
	}
	tr.Close()
	if n := len(col.Spans()); n != maxWaiting {
		t.Errorf("%d of %d came", n, maxWaiting)
	}
}

// A call that waits has one span, from when the kernel held it until its answer.
func TestAHeldCall(t *testing.T) {
	t.Parallel()
	col := tracetest.New(t, nil)
	tr, _ := open(t, col.URL)
	held := time.Now().Add(-time.Minute)
	d := policy.Decision{
		Time: held, Plane: policy.PlaneExec, Action: "exec", Object: "/usr/bin/id", Subject: policy.Subject{PID: 7, Exe: "/usr/bin/sh", Args: "sh -c hunter2"},
		Verdict: policy.Ask, Rule: "policy.yaml:3", Revision: "0123",
	}
	n := 0
	for outcome, v := range map[string]policy.Verdict{"approved": policy.Allow, "denied": policy.Deny, "unanswered": policy.Deny, "withdrawn": policy.Ask} {
		s := tr.Source("box").Hold(d)
		Asked(s.Asking(t.Context()), "0123456789")
		answered := d
		answered.Time, answered.Verdict = time.Now(), v
		s.Answered(answered, outcome)
		n++
		until(t, "it is sent", func() bool { return len(col.Spans()) == n })
		got := col.Spans()[n-1]
		if got.Name != "hold exec" || got.StartTimeUnixNano != uint64(held.UnixNano()) || got.EndTimeUnixNano < uint64(answered.Time.UnixNano()) ||
			tracetest.Text(got, Outcome) != outcome || tracetest.Text(got, Verdict) != v.String() || tracetest.Text(got, Approval) != "0123456789" || tracetest.Text(got, "nemoclaw.object") != "/usr/bin/id" || tracetest.Text(got, Sandbox) != "box" ||
			(got.Status.GetCode() == traces.Status_STATUS_CODE_ERROR) != (v == policy.Deny) || strings.Contains(got.String(), "hunter2") {
			t.Errorf("%s: %v", outcome, got)
		}
	}
}

// BenchmarkConnection is what a traced connection costs: its hooks on the proxy's thread, and then its way into a request.
func BenchmarkConnection(b *testing.B) {
	tr, err := newTracer(config.Traces{Endpoint: "http://127.0.0.1:1", Ratio: 1}, nil)
	if err != nil {
		b.Fatal(err)
	}
	begin, over := tr.Source("box").Connections()
	b.Run("hooks", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			over(begin())
			(<-tr.queue).taken()
		}
	})
	b.Run("spans", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			c := connTrace(tr)
			for step := dnsproxy.StepHead; step <= dnsproxy.StepRelay; step++ {
				c.Steps = append(c.Steps, dnsproxy.ConnStep{Step: step, Ended: time.Millisecond})
			}
			over(c)
			m := (<-tr.queue).taken()
			if _, err := proto.Marshal(&traces.ScopeSpans{Spans: m.root().trace.proto(nil)}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
