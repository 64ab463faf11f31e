//go:build e2e

package daemon

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	traces "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/test/harness"
)

// collector takes OTLP's traces, as a collector does.
type collector struct {
	*httptest.Server
	mu    sync.Mutex
	spans []*traces.Span
	bytes []byte // all that came
}

func newCollector(t *testing.T) *collector {
	c := &collector{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var all traces.TracesData
		if err == nil {
			err = proto.Unmarshal(body, &all)
		}
		if err != nil || r.URL.Path != "/v1/traces" {
			t.Errorf("%s: %v", r.URL.Path, err)
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.bytes = append(c.bytes, body...)
		for _, res := range all.ResourceSpans {
			for _, scope := range res.ScopeSpans {
				c.spans = append(c.spans, scope.Spans...)
			}
		}
	}))
	t.Cleanup(c.Close)
	return c
}

// trace is one, with what is in it.
type trace struct {
	root  *traces.Span
	steps []*traces.Span // in the order in which they began
}

// of waits for the trace whose root has a name and an outcome.
func (c *collector) of(t *testing.T, name, outcome string) (tr trace) {
	t.Helper()
	until(t, "a trace of "+name+", "+outcome, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, s := range c.spans {
			if s.Name == name && text(s, "nemoclaw.outcome") == outcome {
				tr = trace{root: s}
			}
		}
		if tr.root == nil {
			return false
		}
		for _, s := range c.spans {
			if bytes.Equal(s.TraceId, tr.root.TraceId) && s != tr.root {
				tr.steps = append(tr.steps, s)
			}
		}
		return true
	})
	slices.SortFunc(tr.steps, func(a, b *traces.Span) int {
		return cmp.Or(cmp.Compare(a.StartTimeUnixNano, b.StartTimeUnixNano), cmp.Compare(a.EndTimeUnixNano, b.EndTimeUnixNano))
	})
	end := tr.root.StartTimeUnixNano
	for _, s := range tr.steps { // one after the other, within the root
		if !bytes.Equal(s.ParentSpanId, tr.root.SpanId) || s.StartTimeUnixNano < end || s.EndTimeUnixNano < s.StartTimeUnixNano || s.EndTimeUnixNano > tr.root.EndTimeUnixNano {
			t.Errorf("%s of %s is not within its parent, after those before: %v", s.Name, name, s)
		}
		end = s.EndTimeUnixNano
	}
	if len(tr.root.ParentSpanId) != 0 {
		t.Errorf("%s has the parent %x", name, tr.root.ParentSpanId)
	}
	return tr
}

// text is an attribute, as it is shown.
func text(s *traces.Span, key string) string {
	for _, a := range s.Attributes {
		if a.Key == key {
			return cmp.Or(a.Value.GetStringValue(), strconv.FormatInt(a.Value.GetIntValue(), 10))
		}
	}
	return ""
}

func (tr trace) step(name string) *traces.Span {
	for _, s := range tr.steps {
		if s.Name == name {
			return s
		}
	}
	return &traces.Span{}
}

func (tr trace) String() string {
	var list []string
	for _, s := range tr.steps {
		list = append(list, s.Name)
	}
	return strings.Join(list, " ")
}

// is checks a trace's steps, and attributes of its root.
func (tr trace) is(t *testing.T, steps string, attributes ...string) {
	t.Helper()
	if tr.String() != steps {
		t.Errorf("%s has the steps %q, not %q", tr.root.Name, tr, steps)
	}
	for i := 0; i < len(attributes); i += 2 {
		if got := text(tr.root, attributes[i]); got != attributes[i+1] {
			t.Errorf("%s: %s is %q, not %q", tr.root.Name, attributes[i], got, attributes[i+1])
		}
	}
}

// traceTo gives a daemon that does not run yet a collector.
func traceTo(t *testing.T, d *harness.Daemon, settings string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(d.Dir, "agent.yaml"), []byte("traces: {"+settings+"}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

// TestTraces: what is let through, refused, asked about and sent to a model has its spans, with ids of the daemon's own, and nothing in them
// that is nobody's business.
func TestTraces(t *testing.T) {
	t.Parallel()
	heads := make(chan http.Header, 1)
	a4, _ := harness.W.Addr()
	harness.W.HTTP(t, a4, 80, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		heads <- r.Header.Clone()
		fmt.Fprint(w, "hello")
	}))
	harness.W.DNS.Set("web.traced.test", a4)
	asked, _ := name(t, "asked.traced.test")
	model := newModels(t)
	col := newCollector(t)
	d := harness.W.PrepareDaemon(t)
	traceTo(t, d, "endpoint: \""+col.URL+"\"")
	d.Start(t)
	c, _ := dial(t, d)
	probeBox(t, d, "box", harness.Files+"process:\n  allow: [{command: sh}, {command: curl}, {command: /workspace/probe}]\n"+
		"network:\n  allow: [{domain: web.traced.test, ports: [80], protocol: http}]\n  ask: [{domain: asked.traced.test, ports: [7000], protocol: tcp}]\n"+
		"inference:\n  local: {model: ollama/one, url: \""+model.URL+"\"}\n  classes: {pii: ask}\n  cloud: {model: ollama/two, url: \""+model.URL+"\"}\n")
	curl := func(args ...string) string {
		_, out, _ := d.Call(t, append([]string{"box", "exec", "--", "curl", "-sS", "-H", "traceparent: " + parent, "-H", "tracestate: a=b"}, args...)...)
		return out
	}

	if out := curl("http://web.traced.test/path?token=hunter2"); out != "hello" {
		t.Errorf("%q", out)
	}
	if h := <-heads; h.Get("Traceparent") != parent || h.Get("Tracestate") != "a=b" {
		t.Errorf("what the program sent came as %v", h)
	}
	tr := col.of(t, "connect web.traced.test:80", "relayed")
	tr.is(t, "decide head resolve record dial relay", "nemoclaw.sandbox", "box", "nemoclaw.plane", "network", "nemoclaw.verdict", "allow", "nemoclaw.rule", "box.yaml:8",
		"process.executable.path", "/usr/bin/curl", "server.address", "web.traced.test", "server.port", "80")
	if s := tr.step("dial"); text(s, "network.peer.address") != a4.String() || s.Kind != traces.Span_SPAN_KIND_CLIENT {
		t.Errorf("%v", s)
	}
	if s := tr.step("relay"); text(s, "nemoclaw.bytes_received") == "0" || text(s, "nemoclaw.bytes_sent") == "0" {
		t.Errorf("%v", s)
	}

	if out := curl("-H", "Host: other.test", "http://web.traced.test/path?token=hunter2"); !strings.Contains(out, "blocked by the sandbox's policy") {
		t.Errorf("%q", out)
	}
	tr = col.of(t, "connect web.traced.test:80", "refused")
	tr.is(t, "decide head", "nemoclaw.verdict", "deny")
	if tr.root.Status.GetCode() != traces.Status_STATUS_CODE_ERROR {
		t.Errorf("%v", tr.root.Status)
	}

	done := reaching(t, d, "box", asked)
	r := request(t, c, asked+":7000")
	answer(t, c, r, api.NewAnswer{Verdict: "allow", Confirm: true})
	if !<-done {
		t.Error("what was allowed was not connected")
	}
	tr = col.of(t, "connect "+asked+":7000", "relayed")
	tr.is(t, "decide ask resolve record dial relay", "nemoclaw.verdict", "allow", "process.executable.path", "/workspace/probe")
	if id := text(tr.step("ask"), "nemoclaw.approval.id"); id != r.ID {
		t.Errorf("asked as %q, not %q", id, r.ID)
	}
	done = reaching(t, d, "box", asked)
	answer(t, c, request(t, c, asked+":7000"), api.NewAnswer{Verdict: "deny"})
	if <-done {
		t.Error("what was denied was connected")
	}
	col.of(t, "connect "+asked+":7000", "refused").is(t, "decide ask", "nemoclaw.verdict", "deny")

	curl("-d", `{"model":"x","messages":[{"role":"user","content":"the secret is hunter2"}]}`, "http://inference.local/v1/chat/completions")
	tr = col.of(t, "request", "answered")
	tr.is(t, "receive classify decide redact chat two", "nemoclaw.plane", "inference", "gen_ai.request.model", "x", "nemoclaw.model", "ollama/two", "nemoclaw.route", "cloud")
	connection := col.of(t, "connect inference.local:80", "local")
	if l := tr.root.Links; len(l) != 1 || !bytes.Equal(l[0].TraceId, connection.root.TraceId) || !bytes.Equal(l[0].SpanId, connection.root.SpanId) {
		t.Errorf("the request is linked to %v, not to its connection", l)
	}
	s := tr.step("chat two")
	if s.Kind != traces.Span_SPAN_KIND_CLIENT || text(s, "gen_ai.provider.name") != "ollama" || len(s.Events) != 1 || s.Events[0].TimeUnixNano < s.StartTimeUnixNano {
		t.Errorf("%v", s)
	}
	go curl("-d", `{"model":"x","messages":[{"role":"user","content":"write to hunter2@mail.example"}]}`, "http://inference.local/v1/chat/completions")
	var held api.Request
	until(t, "a request to a model is held", func() bool {
		list, err := c.Requests(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		held = api.Request{}
		for _, r := range list {
			if r.Plane == "inference" {
				held = r
			}
		}
		return held.State == api.Held
	})
	answer(t, c, held, api.NewAnswer{Verdict: "deny"})
	tr = col.of(t, "request", "refused")
	tr.is(t, "receive classify decide ask", "nemoclaw.verdict", "deny", "nemoclaw.route", "ask")
	if id := text(tr.step("ask"), "nemoclaw.approval.id"); id != held.ID || text(tr.step("classify"), "nemoclaw.classes") != "pii" {
		t.Errorf("asked as %q, not %q, about %q", id, held.ID, text(tr.step("classify"), "nemoclaw.classes"))
	}

	theirs, _ := hex.DecodeString(strings.Split(parent, "-")[1])
	col.mu.Lock()
	defer col.mu.Unlock()
	for _, s := range []string{"hunter2", string(theirs), "/path", "token="} {
		if bytes.Contains(col.bytes, []byte(s)) {
			t.Errorf("%q is in the spans", s)
		}
	}
	d.Verify(t)
}

// TestTracesOfADaemonThatEnds: what is open when the daemon is told to stop is told of before it has ended, and a daemon with a collector
// that takes nothing ends in time, and serves until then.
func TestTracesOfADaemonThatEnds(t *testing.T) {
	t.Parallel()
	there, _ := name(t, "there.traced.test")
	col := newCollector(t)
	d := harness.W.PrepareDaemon(t)
	traceTo(t, d, "endpoint: \""+col.URL+"\", ratio: 1")
	d.Start(t)
	c, _ := dial(t, d)
	ws := probeBox(t, d, "box", harness.Base+"network:\n  allow: ["+rule(there)+"]\n")
	talk(t, c, "box", ws, there)
	d.End(syscall.SIGTERM)
	col.of(t, "connect "+there+":7000", "relayed").is(t, "decide resolve record dial relay")

	ended := make(chan struct{})
	deaf := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-ended:
		}
	}))
	t.Cleanup(deaf.Close)
	t.Cleanup(func() { close(ended) })
	traceTo(t, d, "endpoint: \""+deaf.URL+"\", ratio: 1")
	d.Start(t)
	for range 20 {
		if !reaches(t, d, "box", there) {
			t.Fatal("a collector that does not answer keeps connections from being made")
		}
	}
	d.End(syscall.SIGTERM)
	d.Start(t)
	d.Kill() // leaves nothing behind either
	d.Start(t)
	d.Verify(t)
}
