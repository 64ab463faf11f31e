package policy

import (
	"strings"
	"testing"
)

func TestInference(t *testing.T) {
	c := compile(t, `inference:
  local: {model: "ollama/llama3.3:70b"}
  cloud: {model: corp/big, url: "https://llm.example.org/api/", api: anthropic, region: eu, key: {file: /etc/nemoclaw/corp.key}}
  classes: {pii: redact, credentials: deny}
  residency: [eu]
  log: matches
  custom:
    - {name: project-x, words: [Bluebird], verdict: deny}
    - {name: ticket, pattern: 'TCK-[0-9]{6}'}
`)
	f := c.Inference
	if f.Local.URL != "http://127.0.0.1:11434" || f.Local.API != "ollama" || f.Cloud.URL != "https://llm.example.org/api" || f.Cloud.Key.File != "/etc/nemoclaw/corp.key" {
		t.Errorf("the backends are %+v and %+v", f.Local, f.Cloud)
	}
	if !f.LogMatches {
		t.Error("records are to have matches")
	}
	for class, want := range map[string]Route{
		"medical": RouteLocal, "pii": RouteRedact, "credentials": RouteDeny, "project-x": RouteDeny, "ticket": RouteLocal, "nobody's": RouteLocal,
	} {
		if got := f.Route(class); got != want {
			t.Errorf("%s goes %s, want %s", class, got, want)
		}
	}
	for port, want := range map[uint16]Verdict{80: Allow, 443: Allow, 8080: Deny} {
		if v, _ := c.Network.Judge(c.Network.Match(InferenceName), port, Caller{}); v != want {
			t.Errorf("port %d of the router: %s, want %s", port, v, want)
		}
	}
	other := compile(t, "inference:\n  local: {model: \"ollama/llama3.3:70b\"}\n")
	if len(Changes(c, other)) == 0 || c.Revision == other.Revision {
		t.Error("another section is no change")
	}
	again := compile(t, "inference:\n  "+strings.ReplaceAll(strings.TrimSpace(f.YAML()), "\n", "\n  ")+"\n")
	if again.Revision != c.Revision {
		t.Errorf("written and read it is another: %s", f.YAML())
	}
	if b, err := BackendOf("google/gemini-pro"); err != nil || b.API != "gemini" || b.Local {
		t.Errorf("a known provider: %+v, %v", b, err)
	}
	if _, err := BackendOf("nobody/x"); err == nil {
		t.Error("an unknown provider has a backend")
	}
}

// TestExplainInference: the router is said to answer, and no port of it but its own is offered.
func TestExplainInference(t *testing.T) {
	c, without := compile(t, "inference:\n  local: {model: \"ollama/x\"}\n"), compile(t, "version: 1\n")
	for _, tt := range []struct {
		c            *Compiled
		at           string
		verdict      Verdict
		why, suggest string
	}{
		{c, "inference.local:443", Allow, "the privacy router answers", ""},
		{c, "inference.local:22", Deny, "no rule allows port 22", ""},
		{without, "inference.local:443", Deny, "no rule is about inference.local", "inference:\n  local:"},
		{without, "inference.local:22", Deny, "no rule is about inference.local", ""},
	} {
		q, err := NewQuery(QueryConnect, tt.at, "")
		if err != nil {
			t.Fatal(err)
		}
		a := tt.c.Explain(q)
		if a.Verdict != tt.verdict || !strings.Contains(a.Reason, tt.why) || !strings.HasPrefix(a.Suggest, tt.suggest) || tt.suggest == "" && a.Suggest != "" {
			t.Errorf("%s: %s, %q, %q", tt.at, a.Verdict, a.Reason, a.Suggest)
		}
	}
}

func TestInferenceRefused(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"inference: {local: {model: llama}}\n", "expected PROVIDER/MODEL"},
		{"inference: {local: {model: corp/x}}\n", "the provider corp is not known here"},
		{"inference: {cloud: {model: corp/x, api: openai, url: \"http://llm.example.org\"}}\n", "unencrypted"},
		{"inference: {cloud: {model: openai/x, region: us}, residency: [eu]}\n", "its region is not one of residency"},
		{"inference: {cloud: {model: openai/x, key: {file: /a, command: /b}}}\n", "expected one of file, command, credential"},
		{"inference: {cloud: {model: openai/x, key: {file: sk-secret}}}\n", "file: found one value, which is not shown as it may be a secret (put it into a file"},
		{"inference: {cloud: {model: openai/x, key: {command: sk-secret}}}\n", "command: found one value, which is not shown"},
		{"inference: {cloud: {model: openai/x, key: {credential: SK-secret}}}\n", "credential: found one value, which is not shown"},
		{"inference: {cloud: {model: openai/x, key: sk-secret}}\n", "found one value, which is not shown as it may be a secret (put it into a file"},
		{"inference: {custom: [{name: pii, words: [x]}]}\n", "there is a class pii already"},
		{"inference: {custom: [{name: mine}]}\n", "nothing says how it is found"},
		{"inference: {custom: [{name: mine, pattern: \"(\"}]}\n", "is broken"},
		{"inference: {custom: [{name: mine, pattern: \"x*\"}]}\n", "finds the empty text"},
		{"inference: {default: local}\n", "there is no local model"},
		{"inference: {log: texts}\n", "counts"},
		{"inference: {classes: {pii: cluod}}\n", "did you mean"},
		{"network: {allow: [{domain: inference.local, ports: [80], protocol: http}]}\ninference: {default: cloud}\n", "remove that rule"},
	} {
		p, err := Parse("p.yaml", []byte(c.text))
		if err == nil {
			_, err = Compile(p)
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.text, err, c.want)
		}
	}
}
