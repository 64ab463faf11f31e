package inference

import (
	"strings"
	"testing"
)

func TestExplain(t *testing.T) {
	p := compile(t, "inference:\n  local: {model: ollama/here}\n  cloud: {model: openai/gpt-4o}\n  classes: {pii: redact}\n")
	long := strings.Repeat("日本 ", 100)
	e, err := Explain(p, "first\r\n\t"+card+"\r\n"+long+"write to jane.doe@example.com now "+long+"\nand bXkgY2FyZCBpcyA0MTExIDExMTEgMTExMSAxMTExLCBleHBpcmVzIDA0LzI5")
	if err != nil || e.Verdict != "local" || e.Model != "ollama/here" || len(e.Findings) != 3 {
		t.Fatalf("%+v, %v", e, err)
	}
	for i, want := range []Finding{
		{Line: 2, Column: 13, Class: "financial", Kind: "card", Verdict: "local", Before: "\tmy card is ", Text: "4111 1111 1111 1111", After: ", expires 04/29\r"},
		{Line: 3, Column: 710, Class: "pii", Kind: "e-mail", Verdict: "redact", Text: "jane.doe@example.com"},
		{Line: 4, Column: 5, Class: "financial", Kind: "card", Via: "base64", Verdict: "local", Before: "and ", Text: "bXkgY2FyZCBpcyA0MTExIDExMTEgMTExMSAxMTExLCBleHBpcmVzIDA0LzI5"},
	} {
		got := e.Findings[i]
		if want.Line == 3 {
			if len(got.Before) > maxAround || len(got.After) > maxAround || !strings.HasSuffix(got.Before, "write to ") || strings.ContainsRune(got.Before+got.After, '\ufffd') {
				t.Errorf("around it: %q, %q", got.Before, got.After)
			}
			got.Before, got.After = "", ""
		}
		if got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
}

// TestExplainMany has a find in each of many lines: what is shown must not take the square of them.
func TestExplainMany(t *testing.T) {
	p := compile(t, "inference:\n  default: cloud\n")
	e, err := Explain(p, strings.Repeat("write to jane.doe@example.com\n", 100000))
	if err != nil || len(e.Findings) != 100000 || e.Findings[99999].Line != 100000 {
		t.Errorf("%d finds, %v", len(e.Findings), err)
	}
}
