package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

const ending = `
filesystem:
  allow:
    - {path: /a, permissions: [read, write]}
    - {path: /a/b, permissions: [read], expires: 1h}
    - {path: /c, permissions: [read]}
    - {path: /c, permissions: [read, write], expires: 2h}
  deny:
    - {path: /a/d, permissions: [read], expires: 3h}
process:
  allow:
    - {command: git, expires: 1h}
    - {command: git}
    - {command: jq, expires: 2h}
  deny:
    - {command: awk, expires: 1h}
`

// TestAt: of rules that end, those are left that have not, and what is around them decides instead.
func TestAt(t *testing.T) {
	c := compile(t, ending)
	if ends := c.Ends(time.Hour); !slices.Equal(ends, []time.Duration{2 * time.Hour, 3 * time.Hour}) {
		t.Errorf("ends after an hour: %v", ends)
	}
	for _, tt := range []struct {
		age  time.Duration
		want string
	}{
		{0, "/a=read, write /a/b=read /c=read, write /a/d=write git git jq !awk"},
		{time.Hour - 1, "/a=read, write /a/b=read /c=read, write /a/d=write git git jq !awk"},
		{time.Hour, "/a=read, write /a/b=read, write /c=read, write /a/d=write git jq"},
		{2 * time.Hour, "/a=read, write /a/b=read, write /c=read /a/d=write git"},
		{3 * time.Hour, "/a=read, write /a/b=read, write /c=read /a/d=read, write git"},
	} {
		at := c.At(tt.age)
		var got []string
		for _, p := range []string{"/a", "/a/b", "/c", "/a/d"} {
			access, _, _ := at.Files.Access(p)
			got = append(got, fmt.Sprintf("%s=%s", p, access))
		}
		for _, x := range at.Exec.Allow {
			got = append(got, x.Name)
		}
		for _, x := range at.Exec.Deny {
			got = append(got, "!"+x.Name)
		}
		if got := strings.Join(got, " "); got != tt.want {
			t.Errorf("after %s: %s, want %s", tt.age, got, tt.want)
		}
	}
	for p, want := range map[string]bool{"/a": false, "/a/b": true, "/a/d": true, "/c": true} {
		if r, ok := c.Files.Rule(p); !ok || r.Varies != want {
			t.Errorf("%s varies: %v, want %v", p, r.Varies, want)
		}
	}
	if again := compile(t, ending); again.Revision != c.Revision || len(Changes(c, again)) > 0 {
		t.Error("the same policy has another revision")
	}
	longer := compile(t, strings.Replace(ending, "3h", "4h", 1))
	if changes := Changes(c, longer); longer.Revision == c.Revision || len(changes) != 2 {
		t.Errorf("a rule that ends later: %v", changes)
	}
}

// TestExplainEnded: an answer goes by what has not ended.
func TestExplainEnded(t *testing.T) {
	c := compile(t, ending)
	for _, tt := range []struct {
		action Action
		object string
		age    time.Duration
		want   Verdict
	}{
		{QueryWrite, "/c/x", 0, Allow}, {QueryWrite, "/c/x", 2 * time.Hour, Deny}, {QueryRead, "/a/d", 0, Deny}, {QueryRead, "/a/d", 3 * time.Hour, Allow},
		{QueryExec, "jq", time.Hour, Allow}, {QueryExec, "jq", 2 * time.Hour, Deny}, {QueryExec, "git", 2 * time.Hour, Allow},
	} {
		q, err := NewQuery(tt.action, tt.object, "")
		if err != nil {
			t.Fatal(err)
		}
		if a := c.ExplainAt(q, tt.age); a.Verdict != tt.want {
			t.Errorf("after %s: %s", tt.age, a)
		}
	}
}

// TestEditEnding: a rule that ends is another one than the same that does not.
func TestEditEnding(t *testing.T) {
	src := []byte("filesystem:\n  allow:\n    - {path: /c, permissions: [read], expires: 1h}\n")
	e, err := AddRule("p.yaml", src, RuleSpec{Path: "/c", Permissions: []string{"read"}})
	if err != nil || len(e.Policy.Files.written) != 2 {
		t.Fatalf("%v\n%s", err, e.Text)
	}
	if e, err = AddRule("p.yaml", e.Text, RuleSpec{Path: "/c", Permissions: []string{"read"}, Expires: "60m"}); err != nil || len(e.Policy.Files.written) != 2 {
		t.Errorf("added again: %v\n%s", err, e.Text)
	}
	if e, err = RemoveRule("p.yaml", e.Text, RuleSpec{Path: "/c", Expires: "1h"}); err != nil || len(e.Policy.Files.written) != 1 || len(e.Policy.Ends(0)) > 0 {
		t.Errorf("removed: %v\n%s", err, e.Text)
	}
	denied := []byte("process:\n  deny:\n    - {command: jq, expires: 1h}\n")
	if _, err := AddRule("p.yaml", denied, RuleSpec{Command: "jq"}); err != nil {
		t.Errorf("a rule that outlives the deny: %v", err)
	}
	if _, err := AddRule("p.yaml", denied, RuleSpec{Command: "jq", Expires: "30m"}); err == nil {
		t.Error("a rule that never acts was added")
	}
}

// TestChangedEnd: that a rule ends at another time is a change, whatever its verb.
func TestChangedEnd(t *testing.T) {
	for _, rule := range []string{
		"process:\n  allow: [{command: x%s}]\n", "process:\n  ask: [{command: x%s}]\n", "process:\n  deny: [{command: x%s}]\n",
		"filesystem:\n  ask: [{path: /data, permissions: [read]%s}]\n",
	} {
		was, now := compile(t, fmt.Sprintf(rule, ", expires: 1h")), compile(t, fmt.Sprintf(rule, ""))
		if len(Changes(was, now)) == 0 {
			t.Errorf("%s: no change", rule)
		}
	}
}
