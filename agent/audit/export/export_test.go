package export

import (
	"bytes"
	gocsv "encoding/csv"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/nemoclaw/nemoclaw/agent/audit"
	"github.com/nemoclaw/nemoclaw/policy"
)

func made(object, args string, p policy.Plane, action string, v policy.Verdict) (line []byte, d policy.Decision) {
	d = policy.Decision{Seq: 7, Time: time.Unix(1790000000, 2e6).UTC(), Sandbox: "box", Plane: p, Action: action, Object: object, Verdict: v, Rule: "p.yaml:3", Reason: args, Revision: "00aa",
		Subject: policy.Subject{PID: 3, Exe: "/usr/bin/x", Args: args}}
	if p == policy.PlaneInference {
		d.Inference = &policy.ModelCall{ID: "ab12", Asked: object, Model: "corp/big", Instead: []string{args}, Route: "redact", Classes: map[string]int{"person": 1, "financial": 2},
			TokensIn: 30, Cost: 12, Tool: &policy.ToolUse{Through: []string{args, "mcp"}, Params: args, Result: args}}
	}
	return audit.AppendJSON(nil, &d), d
}

// hostile are values that break out of the formats' fields where these don't escape them.
var hostile = []string{
	"=HYPERLINK(\"http://evil\")", " =1+1", "+1", "-1+cmd|' /C calc'!A0", "@SUM(1)", "\t=1", "\r=1", "|x", "%0A=1", "＝1+1", "\x00=1", "\"\n=1", "a\",\"=1",
	"x|act=allow", "x act=allow", "\\|", "\\= =", "a\nCEF:0|x", "a\r\n{\"class_uid\":1}", "\u2028", "\x1b[2J", "\x9b", "a\xffb", "]:1", ":::", "", "a\u202egnp.exe\u2066\u200b\ufeff", "\U000e0041\U000e007f",
}

func TestHostile(t *testing.T) {
	for _, h := range hostile {
		for _, p := range policy.Planes() {
			line, _ := made(h, h, p, "connect", policy.Deny)
			d, err := Parse(line)
			if err != nil {
				t.Fatal(err)
			}
			check(t, line, &d)
		}
	}
}

// TestModelCalls has what is known of a model call in the columns that say so.
func TestModelCalls(t *testing.T) {
	line, d := made("gpt", "x", policy.PlaneInference, "request", policy.Allow)
	row, err := csv(nil, line, &d)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := gocsv.NewReader(strings.NewReader(Header("csv") + string(row))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for i, column := range rows[0] {
		got[column] = rows[1][i]
	}
	for column, want := range map[string]string{
		"request": "ab12", "model_asked": "gpt", "model": "corp/big", "instead": "x", "route": "redact", "classes": "financial 2 person 1", "tokens_in": "30", "tokens_out": "",
		"cost_microusd": "12", "through": "x > mcp", "params": "x", "result": "x",
	} {
		if got[column] != want {
			t.Errorf("%s: %q, want %q", column, got[column], want)
		}
	}
	event, err := cef(nil, line, &d)
	if err != nil || !strings.Contains(string(event), " cs5Label=route cs5=redact cs6Label=classes cs6=financial 2 person 1") {
		t.Errorf("%s, %v", event, err)
	}
}

// check judges all formats of one record.
func check(t *testing.T, line []byte, d *policy.Decision) {
	t.Helper()
	for name, f := range Formats {
		got, err := f(nil, line, d)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Count(got, []byte("\n")) != 1 || got[len(got)-1] != '\n' || !utf8.Valid(got) || bytes.ContainsFunc(got[:len(got)-1], func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%s: %q", name, got)
		}
		switch name {
		case "csv":
			rows, err := gocsv.NewReader(bytes.NewReader(got)).ReadAll()
			if err != nil || len(rows) != 1 || len(rows[0]) != len(columns) || rows[0][11] != d.Verdict.String() {
				t.Fatalf("%q is read as %q: %v", got, rows, err)
			}
			for _, v := range rows[0] {
				if v := strings.TrimLeft(v, " \t"); v != "" && strings.ContainsRune("=+-@|%＝", []rune(v)[0]) {
					t.Errorf("%q is a formula", v)
				}
			}
		case "cef":
			parts := split(string(got), '|', 7)
			if len(parts) != 8 || parts[0] != "CEF:0" {
				t.Fatalf("%q has %q", got, parts)
			}
			if n := strings.Count(strings.ReplaceAll(strings.ReplaceAll(parts[7], `\\`, ""), `\=`, ""), "act="); n != 1 {
				t.Errorf("%d fields act= in %q", n, got)
			}
		case "ocsf":
			if faults := ocsfFaults(got); len(faults) > 0 {
				t.Errorf("%q: %s", faults, got)
			}
		}
	}
}

// split splits at separators that are not escaped, n times.
func split(s string, sep byte, n int) (parts []string) {
	start := 0
	for i := 0; i < len(s) && len(parts) < n; i++ {
		switch s[i] {
		case '\\':
			i++
		case sep:
			parts = append(parts, s[start:i])
			start = i + 1
		}
	}
	return append(parts, s[start:])
}

func FuzzFormats(f *testing.F) {
	for _, h := range hostile {
		f.Add(h, h, uint8(1), "connect")
	}
	f.Fuzz(func(t *testing.T, object, args string, plane uint8, action string) {
		line, _ := made(object, args, policy.Planes()[int(plane)%len(policy.Planes())], action, policy.Allow)
		d, err := Parse(line)
		if err != nil {
			t.Fatal(err)
		}
		check(t, line, &d)
	})
}

// TestFormulas: no cell is one, whichever sign the reader's spreadsheet splits a line at: where the comma is a decimal sign it is the
// semicolon, and the quotes around a value then mean nothing in its middle.
func TestFormulas(t *testing.T) {
	for _, value := range []string{"=1+1", " =1+1", "x;=1+cmd|' /C calc'!A0;", "x; =1", "x;\"=1", ";;+1", "x;\u202e@SUM(1)", "x;＝1", "x\t=1"} {
		line, _ := made(value, value, policy.PlaneFile, "open", policy.Deny)
		d, err := Parse(line)
		if err != nil {
			t.Fatal(err)
		}
		row, err := csv(nil, line, &d)
		if err != nil {
			t.Fatal(err)
		}
		for _, separator := range []string{",", ";", "\t"} {
			for cell := range strings.SplitSeq(strings.TrimSpace(string(row)), separator) {
				if cell = strings.TrimLeftFunc(cell, func(r rune) bool { return r == ' ' || r == '"' || !unicode.IsPrint(r) }); cell != "" && strings.ContainsRune("=+-@|%＝＋－＠", []rune(cell)[0]) {
					t.Errorf("%q, split at %q, has the formula %q", value, separator, cell)
				}
			}
		}
	}
}
