package redact

import (
	"encoding/base64"
	"reflect"
	"strings"
	"testing"

	"github.com/nemoclaw/nemoclaw/policy"
)

const card = "4111 1111 1111 1111"

func redacting(t *testing.T, src string) func(*policy.Decision) {
	t.Helper()
	p, err := policy.Parse("p.yaml", []byte(src))
	if err != nil {
		t.Fatal(err)
	}
	c, err := policy.Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	f, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

const custom = `audit: {redact: [financial, pii, falcon]}
inference:
  custom:
    - {name: falcon, words: [Project Falcon]}
`

func TestNothingSaidNothingDone(t *testing.T) {
	t.Parallel()
	for _, src := range []string{"version: 1\n", "audit: {strict: true}\n"} {
		if redacting(t, src) != nil {
			t.Errorf("%s redacts", src)
		}
	}
}

func TestTexts(t *testing.T) {
	t.Parallel()
	f := redacting(t, custom)
	for text, want := range map[string]string{
		"":                          "",
		"/usr/bin/curl":             "/usr/bin/curl",
		"pay with " + card + " now": "pay with [financial:card] now",
		card + "," + card:           "[financial:card],[financial:card]",
		"jane.doe@example.com":      "[pii:e-mail]",
		"the PROJECT  falcon plan":  "the [falcon:falcon] plan",
		"--token ghp_16C7e42F292c6912E7710c838347Ae178B4a": "--token ghp_16C7e42F292c6912E7710c838347Ae178B4a", // credentials are not asked for
	} {
		d := policy.Decision{Object: text}
		if f(&d); d.Object != want {
			t.Errorf("%q became %q, want %q", text, d.Object, want)
		}
	}
}

// TestEveryText: whichever text it is in, it goes; the rest of the record stays, and so does what the caller has.
func TestEveryText(t *testing.T) {
	t.Parallel()
	f := redacting(t, custom)
	call := &policy.ModelCall{
		ID: "1", Asked: card, Model: "m/x", Instead: []string{card}, Classes: map[string]int{"financial": 1}, Matches: []policy.Matched{{Class: "financial", Kind: "card", Text: card}},
		Tool: &policy.ToolUse{Through: []string{card}, Params: `{"card":"` + card + `"}`, ParamsBytes: 30, Result: card},
	}
	d := policy.Decision{Seq: 7, Sandbox: "box", Plane: policy.PlaneInference, Action: "tool-call", Object: card, Rule: "p.yaml:3", Verdict: policy.Allow, Reason: card,
		Subject: policy.Subject{PID: 4, Exe: "/tmp/" + card, Args: "pay " + card}, Inference: call}
	was := *call
	f(&d)
	const mark = "[financial:card]"
	if d.Object != mark || d.Reason != mark || d.Subject.Exe != "/tmp/"+mark || d.Subject.Args != "pay "+mark || d.Inference.Asked != mark || d.Inference.Instead[0] != mark ||
		d.Inference.Matches[0].Text != mark || d.Inference.Tool.Through[0] != mark || d.Inference.Tool.Params != `{"card":"`+mark+`"}` || d.Inference.Tool.Result != mark {
		t.Errorf("%+v, %+v, %+v", d, d.Inference, d.Inference.Tool)
	}
	if d.Seq != 7 || d.Sandbox != "box" || d.Rule != "p.yaml:3" || d.Subject.PID != 4 || d.Inference.Model != "m/x" || d.Inference.Classes["financial"] != 1 || d.Inference.Tool.ParamsBytes != 30 {
		t.Errorf("%+v", d)
	}
	if !reflect.DeepEqual(was, *call) || call.Tool.Params == d.Inference.Tool.Params || call.Matches[0].Text != card || call.Instead[0] != card || call.Tool.Through[0] != card {
		t.Errorf("the caller's model call was changed: %+v", call)
	}
}

// TestHidden: what is encoded goes with its encoding, and what can't be judged goes as a whole.
func TestHidden(t *testing.T) {
	t.Parallel()
	f := redacting(t, custom)
	hidden := base64.StdEncoding.EncodeToString([]byte("the card is " + card))
	d := policy.Decision{Object: "x", Subject: policy.Subject{Args: "send " + hidden}}
	if f(&d); strings.Contains(d.Subject.Args, hidden) || !strings.Contains(d.Subject.Args, "[financial:card]") {
		t.Errorf("%q", d.Subject.Args)
	}
	deep := "the card is " + card
	for range 8 {
		deep = base64.StdEncoding.EncodeToString([]byte(deep))
	}
	d = policy.Decision{Object: "host:443", Subject: policy.Subject{Args: deep}}
	if f(&d); d.Object != "host:443" || !strings.HasSuffix(d.Subject.Args, "bytes that can't be looked into)") {
		t.Errorf("%+v", d)
	}
}

// TestOverlap: finds that overlap are one.
func TestOverlap(t *testing.T) {
	t.Parallel()
	f := redacting(t, "audit: {redact: [a, b]}\ninference:\n  custom: [{name: a, words: [one two]}, {name: b, words: [two three]}]\n")
	d := policy.Decision{Object: "zero one two three four"}
	if f(&d); d.Object != "zero [a:a] four" {
		t.Errorf("%q", d.Object)
	}
}

func BenchmarkRecord(b *testing.B) {
	p, err := policy.Parse("p.yaml", []byte(custom))
	if err != nil {
		b.Fatal(err)
	}
	c, err := policy.Compile(p)
	if err != nil {
		b.Fatal(err)
	}
	f, err := New(c)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		d := policy.Decision{Object: "host-7.example.org:443", Subject: policy.Subject{Exe: "/usr/bin/curl", Args: "curl -sS https://host-7.example.org/"}}
		f(&d)
	}
}
