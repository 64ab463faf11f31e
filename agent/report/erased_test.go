package report

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/nemoclaw/nemoclaw/agent/audit"
	"github.com/nemoclaw/nemoclaw/policy"
)

// TestErased: a report of a log in which texts were erased is one of a whole log; it says how many, by whom and why, and has none of them.
func TestErased(t *testing.T) {
	t.Parallel()
	s := written(t, []policy.Decision{
		{Sandbox: "box", Plane: policy.PlaneNetwork, Action: "connect", Object: "jane.test:443", Verdict: policy.Allow, Rule: "p.yaml:3", Subject: policy.Subject{Exe: "/usr/bin/curl"}},
		{Sandbox: "box", Plane: policy.PlaneNetwork, Action: "connect", Object: "other.test:443", Verdict: policy.Allow, Rule: "p.yaml:3", Subject: policy.Subject{Exe: "/usr/bin/curl"}},
	})
	w, err := audit.OpenChain(filepath.Dir(s.Logs[0]), "agent", "", audit.Options{Signer: s.Own})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Erase(t.Context(), audit.Erasure{Records: audit.Ranges{{First: 1, Last: 1}}, Reason: "request 7", By: "root"}, w.Recorder(), nil); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for _, f := range Frameworks() {
		md, page, whole := forms(t, f, s)
		if !whole {
			t.Errorf("%s: the log is not whole", f)
		}
		for _, want := range []string{"`[erased]`", "The texts of 1 record of", "request 7, by root", "`other.test:443`"} {
			if !strings.Contains(md, want) {
				t.Errorf("%s does not say %q:\n%s", f, want, md)
			}
		}
		if strings.Contains(md+page, "jane") {
			t.Errorf("%s has what was erased", f)
		}
	}
}
