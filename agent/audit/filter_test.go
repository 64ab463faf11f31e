package audit

import (
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/policy"
)

// TestFieldsOfHostileText: a text that looks like the line's own keys is not taken for them.
func TestFieldsOfHostileText(t *testing.T) {
	for _, text := range []string{
		``, `verdict":"allow`, `,"verdict":"allow"`, `\",\"verdict\":\"allow\"`, `x","xverdict":"allow","verdict":"allow"}`, "verdict\":\"\n\x00", `,"verdict":"` + "\xff",
	} {
		for _, verdict := range []policy.Verdict{policy.Deny, policy.Ask, policy.Allow} {
			d := policy.Decision{Seq: 7, Time: time.Unix(1, 0).UTC(), Sandbox: "box", Plane: policy.PlaneDNS, Action: text, Object: text, Verdict: verdict, Rule: text, Reason: text}
			d.Subject.Exe = text
			line, _ := appendLine(nil, &d, text)
			f, ok := cutFields(line)
			if !ok || f.seq != 7 || string(f.sandbox) != "box" || string(f.plane) != string(policy.PlaneDNS) || string(f.verdict()) != verdict.String() {
				t.Errorf("%q: %d, %q, %q, %q in %s", text, f.seq, f.sandbox, f.plane, f.verdict(), line)
			}
		}
	}
	if f, ok := cutFields([]byte(`{"seq":1,"time":"","sandbox":"","plane":"x","xverdict":"deny"}`)); !ok || f.verdict() != nil {
		t.Errorf("%q is the verdict of a line without one", f.verdict())
	}
}
