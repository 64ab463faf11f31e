package term

import (
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/approvals"
	"github.com/nemoclaw/nemoclaw/agent/text"
	"github.com/nemoclaw/nemoclaw/policy"
	"github.com/nemoclaw/nemoclaw/test/vterm"
)

// TestHostileQuestion: whatever a program calls itself and what it asks for, the terminal shows a question and is else as it was.
func TestHostileQuestion(t *testing.T) {
	t.Parallel()
	const columns, rows = 80, 24
	show := func(s string) *vterm.Shown {
		q := approvals.Question{Decision: policy.Decision{Action: "connect", Object: s, Rule: "p.yaml:3", Subject: policy.Subject{Exe: s, Args: s, Taint: s}}}
		p := &Prompter{now: time.Now}
		return vterm.Print(columns, rows, "ls\r\n"+p.question(q, columns)+outcome(approvals.Once, q))
	}
	for _, s := range vterm.Hostile() {
		if d := show(s).Differs(show(vterm.Harmless(text.Escape(s)))); d != "" {
			t.Errorf("%q: %s", s, d)
		}
	}
}
