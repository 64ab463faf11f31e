package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	router "github.com/nemoclaw/nemoclaw/agent/inference"
	"github.com/nemoclaw/nemoclaw/agent/text"
	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
	"github.com/nemoclaw/nemoclaw/test/vterm"
)

// TestHostileJSON: nor is there anything in JSON that a terminal would take for more than text.
func TestHostileJSON(t *testing.T) {
	t.Parallel()
	for _, s := range vterm.Hostile() {
		r := api.Request{ID: "r1", Object: strings.ToValidUTF8(s, "\uFFFD")}
		var whole, line bytes.Buffer
		if err := errors.Join(printJSON(&whole, []api.Request{r}), printLine(&line, []api.Request{r})); err != nil {
			t.Fatal(err)
		}
		for _, out := range []string{whole.String(), line.String()} {
			if shown := strings.NewReplacer("\n", "", `\`, "").Replace(out); text.Escape(shown) != shown {
				t.Errorf("%q as JSON: %q", s, out)
			}
			var back []api.Request
			if err := json.Unmarshal([]byte(out), &back); err != nil || back[0].Object != r.Object {
				t.Errorf("%q became %+v: %v", s, back, err)
			}
		}
	}
}

// TestHostileOutput: whatever a program calls itself and what it asks for, what the commands print about it is printed, and nothing else.
func TestHostileOutput(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	ways := map[string]func(out *bytes.Buffer, s string){
		"logs": func(out *bytes.Buffer, s string) {
			_ = showRecord(out, policy.Decision{Time: now, Plane: policy.PlaneFile, Action: "open", Object: s, Subject: policy.Subject{Exe: "/x" + s, Args: s, PID: 7}, Reason: s, Rule: "p.yaml:1"})
		},
		"logs of model calls": func(out *bytes.Buffer, s string) {
			d := policy.Decision{Time: now, Plane: policy.PlaneInference, Action: "tool-call", Object: s, Rule: "p.yaml:1", Inference: &policy.ModelCall{
				Asked: s, Matches: []policy.Matched{{Kind: s, Text: s}}, Tool: &policy.ToolUse{Through: []string{s}, Params: s, Result: s},
			}}
			_ = showRecord(out, d)
			d.Inference.Tool = nil
			_ = showRecord(out, d)
		},
		"route explain": func(out *bytes.Buffer, s string) {
			f := router.Finding{Line: 1, Column: 1, Class: s, Kind: s, Verdict: "deny", Before: s, Text: s, After: s}
			showExplanation(out, router.Explanation{Verdict: "deny", Model: s, Reason: s, Findings: []router.Finding{f}}, false)
		},
		"explain": func(out *bytes.Buffer, s string) {
			showAnswer(out, api.Answer{Verdict: "deny", Action: "read", Object: s, Rule: "default", Reason: s, Suggest: ""}, nil)
		},
		"approvals show": func(out *bytes.Buffer, s string) {
			showRequest(out, api.Request{
				ID: "r1", Sandbox: "box", State: api.Refused, Plane: "file", Action: "open", Object: s, Program: s, Args: s, Taint: s, Rule: "default", First: now, Last: now, Count: 1,
				RawArgs: []byte(s), Risks: []api.Risk{{Code: "raw-ip", Text: s, Dangerous: true}}, Offers: []api.Offer{{ID: "this", Text: s, Scopes: []api.Scope{api.ScopeOnce}}},
			}, now)
		},
		"approvals list": func(out *bytes.Buffer, s string) {
			t := newTable(out, "ID", "WHAT")
			t.row("r1", attempt(api.Request{Plane: "file", Action: "open", Object: s, Program: s}))
			_ = t.flush()
		},
	}
	for way, show := range ways {
		print := func(s string) *vterm.Shown {
			var out bytes.Buffer
			show(&out, s)
			return vterm.Print(120, 10, out.String())
		}
		for _, s := range vterm.Hostile() {
			if d := print(s).Differs(print(vterm.Harmless(text.Escape(s)))); d != "" {
				t.Errorf("%s of %q: %s", way, s, d)
			}
		}
	}
}
