package policy

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestChanges(t *testing.T) {
	const src = `network:
  allow:
    - {domain: a.org, ports: [443], protocol: https}
    - {domain: b.org, ports: [80, 443], protocol: tcp, commands: [git]}
  unix: [/run/a.sock]
filesystem:
  allow:
    - {path: /data, permissions: [read]}
process:
  allow:
    - command: git
  limits: {memory: 1GiB}
`
	was := compile(t, src)
	if got := Changes(was, compile(t, "# other words\n"+src)); got != nil {
		t.Errorf("a comment is a change: %v", got)
	}
	now := compile(t, `hold: 5m
network:
  default: ask
  allow:
    - {domain: b.org, ports: [80, 443], protocol: tcp, commands: [git]}
  deny:
    - domain: a.org
filesystem:
  baseline: none
  allow:
    - {path: /data, permissions: [read, write]}
  deny:
    - {path: /data/x, permissions: [write]}
process:
  allow:
    - {command: git, helpers: [ssh]}
    - command: curl
  limits: {memory: 2GiB, cpus: 0.5}
`)
	var got []string
	for _, c := range Changes(was, now) {
		got = append(got, c.String())
	}
	want := []string{
		"network: added: deny a.org (p.yaml:7)",
		"network: default: ask instead of deny",
		"network: removed: allow a.org on 443 https (p.yaml:3)",
		"network.unix: removed: /run/a.sock (p.yaml:5)",
		"filesystem: /data: read, write instead of read (p.yaml:11)",
		"filesystem: added: /data/x: read, denied write (p.yaml:11)",
		"filesystem: baseline: none instead of system",
		"process: added: allow curl: without helpers (p.yaml:17)",
		"process: allow git: with /usr/lib/git-core/*, /usr/libexec/git-core/*, ssh instead of with /usr/lib/git-core/*, /usr/libexec/git-core/* (p.yaml:16)",
		"process.limits: cpus: 0.5 instead of no limit (p.yaml:18)",
		"process.limits: memory: 2147483648 instead of 1073741824 (p.yaml:18)",
		"other: hold: 5m instead of 1m",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestRedact: what records are without is part of what a policy means.
func TestRedact(t *testing.T) {
	none := compile(t, "audit: {strict: true}\n")
	some := compile(t, "audit:\n  strict: true\n  redact: [pii, falcon, financial]\ninference:\n  custom: [{name: falcon, words: [Falcon]}]\n")
	if a := some.Audit; !a.Strict || !slices.Equal(a.Redact, []string{"falcon", "financial", "pii"}) || some.Rule(a.RedactID).Pos != "p.yaml:3" {
		t.Errorf("%+v", a)
	}
	var said []string
	for _, c := range Changes(none, some) {
		if c.Section == SectionAudit {
			said = append(said, c.String())
		}
	}
	if want := "audit: what records are without: falcon, financial, pii instead of nothing (p.yaml:3)"; len(said) != 1 || said[0] != want || none.Revision == some.Revision {
		t.Errorf("%q, want %s", said, want)
	}
}

// TestChangesOfRandomPolicies: two policies differ in revision exactly when something is said to differ.
func TestChangesOfRandomPolicies(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 6))
	for range 200 {
		a, b := compile(t, randomPolicy(r)), compile(t, randomPolicy(r))
		if got := Changes(a, b); (len(got) == 0) != (a.Revision == b.Revision) {
			t.Fatalf("%v of %s and %s", got, a.Revision, b.Revision)
		}
	}
}

// apply does what a unified diff says to old, and checks every line and number that it names.
func apply(t *testing.T, old []byte, diff string) string {
	t.Helper()
	diff = strings.ReplaceAll(diff, "\n\\ No newline at end of file\n", "")
	lines, rest := diffLines([]byte(diff))[2:], diffLines(old)
	var out []string
	at := 0 // lines of old that were read
	for len(lines) > 0 {
		var oldStart, newStart, oldLen, newLen int
		header := strings.NewReplacer(",", " ", "@@", "", "-", "", "+", "").Replace(lines[0])
		f := strings.Fields(header)
		if strings.Count(lines[0], ",") < 2 { // a part of one line has no length
			sides := strings.Fields(strings.ReplaceAll(lines[0], "@@", ""))
			for i, side := range sides {
				if !strings.Contains(side, ",") {
					sides[i] += ",1"
				}
			}
			f = strings.Fields(strings.NewReplacer(",", " ", "-", "", "+", "").Replace(strings.Join(sides, " ")))
		}
		for i, n := range []*int{&oldStart, &oldLen, &newStart, &newLen} {
			var err error
			if *n, err = strconv.Atoi(f[i]); err != nil {
				t.Fatalf("%q: %v", lines[0], err)
			}
		}
		lines = lines[1:]
		before := max(0, oldStart-1)
		if oldLen == 0 {
			before = oldStart
		}
		out = append(out, rest[at:before]...)
		at = before
		if wrote := len(out); newLen > 0 && wrote != newStart-1 || newLen == 0 && wrote != newStart {
			t.Fatalf("a hunk at +%d,%d after %d lines", newStart, newLen, wrote)
		}
		for oldLen > 0 || newLen > 0 {
			op, text := lines[0][0], lines[0][1:]
			lines = lines[1:]
			if op != '+' {
				if rest[at] != text {
					t.Fatalf("the diff has %q where %q is", text, rest[at])
				}
				at++
				oldLen--
			}
			if op != '-' {
				out = append(out, text)
				newLen--
			}
		}
	}
	return strings.Join(append(out, rest[at:]...), "")
}

func TestTextDiff(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 7))
	for range 500 {
		text := func() []byte {
			var b strings.Builder
			for range r.IntN(60) {
				b.WriteString(pick(r, "a\n", "b\n", "c\n", "dd\n", "\n", "e\r\n"))
			}
			return []byte(b.String())
		}
		old, new := text(), text()
		if r.IntN(2) == 0 { // few changes
			new = []byte(strings.Replace(string(old), "dd\n", "x\ny\n", 1+r.IntN(3)))
		}
		d := TextDiff("f", "f", old, new)
		if (d == "") != (string(old) == string(new)) {
			t.Fatalf("%q of %q and %q", d, old, new)
		}
		if d != "" && apply(t, old, d) != string(new) {
			t.Fatalf("from %q to %q:\n%s", old, new, d)
		}
	}
	many, other := strings.Repeat("a\nb\n", 20000), strings.Repeat("c\nd\n", 20000)
	if d := TextDiff("f", "f", []byte(many), []byte(other)); strings.Count(d, "\n") != 3+80000 {
		t.Errorf("%d lines for two files with nothing in common", strings.Count(d, "\n"))
	}
	if got, want := TextDiff("a", "b", []byte("x"), []byte("y\n")), "--- a\n+++ b\n@@ -1 +1 @@\n-x\n\\ No newline at end of file\n+y\n"; got != want {
		t.Errorf("without a newline at the end: %q", got)
	}
	const want = "--- a\n+++ b\n@@ -1,2 +1 @@\n-x\n y\n"
	if diff := cmp.Diff(want, TextDiff("a", "b", []byte("x\ny\n"), []byte("y\n"))); diff != "" {
		t.Error(diff)
	}
}
