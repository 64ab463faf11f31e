package policy

import (
	"strings"
	"testing"
)

// TestListed: `map: listed` is part of what a policy means, and a section of its own, since it holds from the start of a sandbox on; and explain says what it takes from a path that may be read.
func TestListed(t *testing.T) {
	src := "filesystem:\n  allow:\n    - {path: /workspace, permissions: [read, write]}\n    - {path: /srv/lib, permissions: [read, execute]}\n" +
		"    - {path: /usr/local/lib, permissions: [read, write]}\n  deny:\n    - {path: /usr/lib/games, permissions: [execute]}\nprocess:\n  map: any\n"
	c := compile(t, src)
	listed := compile(t, strings.Replace(src, "any", "listed", 1))
	if c.Exec.Listed != 0 || listed.Rule(listed.Exec.Listed) != (RuleRef{Pos: "p.yaml:9", Text: "map: listed"}) {
		t.Errorf("listed at %v and %v", c.Rule(c.Exec.Listed), listed.Rule(listed.Exec.Listed))
	}
	changes := Changes(c, listed)
	if len(changes) != 1 || changes[0].String() != "process.map: what may be loaded: listed instead of any (p.yaml:9)" {
		t.Errorf("changes %v", changes)
	}
	for path, loaded := range map[string]bool{
		"/usr/lib/x.so": true, "/srv/lib/x.so": true, "/workspace/x.so": false, "/tmp/x.so": false, "/usr/local/lib/x.so": false, "/usr/lib/games/x.so": false,
	} {
		q, err := NewQuery(QueryRead, path, "")
		if err != nil {
			t.Fatal(err)
		}
		if a := listed.Explain(q); a.Verdict != Allow || strings.Contains(a.Reason, "; as a library it is not loaded: map: listed at p.yaml:9") == loaded {
			t.Errorf("%s: %s", path, a)
		}
		if a := c.Explain(q); strings.Contains(a.Reason, "library") {
			t.Errorf("%s: %s", path, a)
		}
	}
}
