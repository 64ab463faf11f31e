//go:build e2e

package daemon

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	traces "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/nemoclaw/nemoclaw/agent/trace/tracetest"
	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/test/harness"
)

// traced waits for the trace whose root has a name and an outcome.
func traced(t *testing.T, c *tracetest.Collector, name, outcome string) (tr tracetest.Trace) {
	t.Helper()
	until(t, "a trace of "+name+", "+outcome, func() (ok bool) {
		tr, ok = c.Find(t, name, outcome)
		return ok
	})
	return tr
}

// traceTo gives a daemon that does not run yet a collector, beside its other settings.
func traceTo(t *testing.T, d *harness.Daemon, settings string) {
	t.Helper()
	file := filepath.Join(d.Dir, "agent.yaml")
	was, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, _, _ := strings.Cut(string(was), "traces: ")
	if err := os.WriteFile(file, []byte(before+"traces: {"+settings+"}\n"), 0o600); err != nil {
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
	col := tracetest.New(t, nil)
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
	tr := traced(t, col, "connect web.traced.test:80", "relayed")
	tr.Is(t, "decide, head, resolve, record, dial, relay", "nemoclaw.sandbox", "box", "nemoclaw.plane", "network", "nemoclaw.verdict", "allow", "nemoclaw.rule", "box.yaml:8",
		"process.executable.path", "/usr/bin/curl", "server.address", "web.traced.test", "server.port", "80")
	if s := tr.Step("dial"); tracetest.Text(s, "network.peer.address") != a4.String() || s.Kind != traces.Span_SPAN_KIND_CLIENT {
		t.Errorf("%v", s)
	}
	if s := tr.Step("relay"); tracetest.Text(s, "nemoclaw.bytes_received") == "0" || tracetest.Text(s, "nemoclaw.bytes_sent") == "0" {
		t.Errorf("%v", s)
	}

	if out := curl("-H", "Host: other.test", "http://web.traced.test/path?token=hunter2"); !strings.Contains(out, "blocked by the sandbox's policy") {
		t.Errorf("%q", out)
	}
	tr = traced(t, col, "connect web.traced.test:80", "refused")
	tr.Is(t, "decide, head", "nemoclaw.verdict", "deny")
	if tr.Root.Status.GetCode() != traces.Status_STATUS_CODE_ERROR {
		t.Errorf("%v", tr.Root.Status)
	}

	done := reaching(t, d, "box", asked)
	r := request(t, c, asked+":7000")
	answer(t, c, r, api.NewAnswer{Verdict: "allow", Confirm: true})
	if !<-done {
		t.Error("what was allowed was not connected")
	}
	tr = traced(t, col, "connect "+asked+":7000", "relayed")
	tr.Is(t, "decide, ask, resolve, record, dial, relay", "nemoclaw.verdict", "allow", "nemoclaw.consent", "approved by a person", "process.executable.path", "/workspace/probe")
	if id := tracetest.Text(tr.Step("ask"), "nemoclaw.approval.id"); id != r.ID {
		t.Errorf("asked as %q, not %q", id, r.ID)
	}
	done = reaching(t, d, "box", asked)
	answer(t, c, request(t, c, asked+":7000"), api.NewAnswer{Verdict: "deny"})
	if <-done {
		t.Error("what was denied was connected")
	}
	traced(t, col, "connect "+asked+":7000", "refused").Is(t, "decide, ask", "nemoclaw.verdict", "deny")

	curl("-d", `{"model":"x","messages":[{"role":"user","content":"the secret is hunter2"}]}`, "http://inference.local/v1/chat/completions")
	tr = traced(t, col, "request", "answered")
	tr.Is(t, "receive, classify, decide, redact, chat two", "nemoclaw.plane", "inference", "gen_ai.request.model", "x", "nemoclaw.model", "ollama/two", "nemoclaw.route", "cloud")
	connection := traced(t, col, "connect inference.local:80", "local")
	if l := tr.Root.Links; len(l) != 1 || !bytes.Equal(l[0].TraceId, connection.Root.TraceId) || !bytes.Equal(l[0].SpanId, connection.Root.SpanId) {
		t.Errorf("the request is linked to %v, not to its connection", l)
	}
	s := tr.Step("chat two")
	if s.Kind != traces.Span_SPAN_KIND_CLIENT || tracetest.Text(s, "gen_ai.provider.name") != "ollama" || len(s.Events) != 1 || s.Events[0].TimeUnixNano < s.StartTimeUnixNano {
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
	tr = traced(t, col, "request", "refused")
	tr.Is(t, "receive, classify, decide, ask", "nemoclaw.verdict", "deny", "nemoclaw.route", "ask")
	if id := tracetest.Text(tr.Step("ask"), "nemoclaw.approval.id"); id != held.ID || tracetest.Text(tr.Step("classify"), "nemoclaw.classes") != "pii" {
		t.Errorf("asked as %q, not %q, about %q", id, held.ID, tracetest.Text(tr.Step("classify"), "nemoclaw.classes"))
	}

	theirs, _ := hex.DecodeString(strings.Split(parent, "-")[1])
	for _, s := range []string{"hunter2", string(theirs), "/path", "token="} {
		if col.Has(s) {
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
	col := tracetest.New(t, nil)
	d := harness.W.PrepareDaemon(t)
	traceTo(t, d, "endpoint: \""+col.URL+"\", ratio: 1")
	d.Start(t)
	c, _ := dial(t, d)
	ws := probeBox(t, d, "box", harness.Base+"network:\n  allow: ["+rule(there)+"]\n")
	talk(t, c, "box", ws, there)
	d.End(syscall.SIGTERM)
	traced(t, col, "connect "+there+":7000", "relayed").Is(t, "decide, resolve, record, dial, relay")

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
