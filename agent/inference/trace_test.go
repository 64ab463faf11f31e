package inference

import (
	"encoding/hex"
	"net/http"
	"testing"

	traces "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/nemoclaw/nemoclaw/agent/config"
	"github.com/nemoclaw/nemoclaw/agent/trace"
	"github.com/nemoclaw/nemoclaw/agent/trace/tracetest"
)

// TestSpansOfARequest: each model that was asked has a span, and what was said to one, or by one, is in none; nor is an id that came from
// inside.
func TestSpansOfARequest(t *testing.T) {
	t.Parallel()
	col := tracetest.New(t, nil)
	tracer, err := trace.Open(config.Traces{Endpoint: col.URL, Ratio: 1}, func(_, _, reason string) { t.Error(reason) })
	if err != nil {
		t.Fatal(err)
	}
	m := newMany(t, "  fallbacks: [eu]\n  classes: {pii: redact, credentials: deny}\n")
	m.c.Traces = tracer.Source("box")
	m.cloud.say = func(w http.ResponseWriter, _ string) { http.Error(w, "no go", http.StatusServiceUnavailable) }
	const parent = "0af7651916cd43dd8448eb211c80319c"
	status, body := m.post("/v1/chat/completions", chat("say nothing of "+mail), "Traceparent", "00-"+parent+"-b7ad6b7169203331-01", "Tracestate", "a=b", "Baggage", "who=me")
	if status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	for _, h := range append(m.cloud.head, m.eu.head...) {
		if h.Get("Traceparent")+h.Get("Tracestate")+h.Get("Baggage") != "" {
			t.Errorf("a model was sent %v", h)
		}
	}
	if status, _ := m.ask(mail, "my key is AKIAIOSFODNN7EXAMPLE and wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"); status != 400 {
		t.Fatalf("%d", status)
	}
	tracer.Close()
	tr, _ := col.Find(t, "request", "answered")
	tr.Is(t, "receive, classify, decide, redact, chat big, redact, chat large", trace.Sandbox, "box", trace.Verdict, "allow", "nemoclaw.model", "eu/large", "gen_ai.request.model", "gpt-whatever",
		"nemoclaw.request.id", m.records[0].Inference.ID)
	if s := tr.Step("chat big"); s.Status.GetCode() != traces.Status_STATUS_CODE_ERROR || tracetest.Text(s, "gen_ai.provider.name") != "corp" || len(s.Events) != 0 {
		t.Errorf("the model that fails: %v", s)
	}
	if s := tr.Step("chat large"); s.Status.GetCode() == traces.Status_STATUS_CODE_ERROR || tracetest.Text(s, "gen_ai.usage.output_tokens") == "" || len(s.Events) != 1 {
		t.Errorf("the model that stands in: %v", s)
	}
	if got := tracetest.Text(tr.Step("classify"), "nemoclaw.classes"); got != "pii" {
		t.Errorf("classes: %q", got)
	}
	tr, _ = col.Find(t, "request", "refused")
	tr.Is(t, "receive, classify, decide", trace.Verdict, "deny", "nemoclaw.route", "deny")
	theirs, _ := hex.DecodeString(parent)
	for _, s := range []string{string(theirs), "jane", "AKIA", "no go", "nothing of", "sk-the-secret-key", "127.0.0.1"} {
		if col.Has(s) {
			t.Errorf("%q is in the spans", s)
		}
	}
}
