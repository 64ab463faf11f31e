package report

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/audit"
	"github.com/nemoclaw/nemoclaw/policy"
)

// TestClockThatJumped: a clock that was wrong for a while, ahead or behind, hides none of the records whose times are asked for, whatever
// file they are in: a report that left them out would say of itself that its log is whole.
func TestClockThatJumped(t *testing.T) {
	t.Parallel()
	for _, jump := range []time.Duration{-24 * time.Hour * 365, 24 * time.Hour * 365} {
		signer, err := audit.OpenSigner(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		w, err := audit.OpenChain(dir, "agent", "", audit.Options{Signer: signer, Rotate: 4000})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 120 {
			at := noon.Add(time.Duration(i) * time.Second)
			if i%10 == 9 {
				at = at.Add(jump)
			}
			if err := w.Append(&policy.Decision{Seq: w.Head().Seq + 1, Time: at, Sandbox: "box", Plane: policy.PlaneFile, Action: "open", Object: "/x", Verdict: policy.Deny, Rule: "default"}); err != nil {
				t.Fatal(err)
			}
			if i%10 == 9 { // which may end a file
				if err := w.Flush(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if files, err := os.ReadDir(dir); err != nil || len(files) < 6 {
			t.Fatalf("%v: %d files", err, len(files))
		}
		s := &Source{Logs: []string{filepath.Join(dir, "agent.jsonl")}, Own: signer, Filter: audit.Filter{From: noon, To: noon.Add(time.Hour)}}
		md, _, whole := forms(t, "soc2", s)
		if !whole || !strings.Contains(md, "- records: **108**") {
			t.Errorf("%s, whole %v: %.1500s", jump, whole, md)
		}
	}
}
