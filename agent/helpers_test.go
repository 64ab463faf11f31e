package agent

import (
	"testing"

	"github.com/nemoclaw/nemoclaw/agent/sandbox"
	"github.com/nemoclaw/nemoclaw/loader"
	"github.com/nemoclaw/nemoclaw/policy"
)

// TestHelped: each helper knows the commands that may start it; what can't be told apart is anybody's.
func TestHelped(t *testing.T) {
	t.Parallel()
	list := []sandbox.Program{
		{Command: "git", Rule: 1}, {Command: "rsync", Rule: 2}, {Command: "npm", Rule: 3, Script: true}, {Command: "cat", Rule: 4},
		{Command: "git", Rule: 1, Kind: sandbox.KindHelper, Path: "/usr/bin/ssh", Helps: []policy.RuleID{1, 2}},
		{Command: "npm", Rule: 3, Kind: sandbox.KindHelper, Path: "/usr/bin/tar", Helps: []policy.RuleID{3}},
		{Command: "env", Kind: sandbox.KindEnv},
	}
	h := newHelped(list)
	want := []loader.ExecEntry{
		{Rule: 1, Commands: 1}, {Rule: 2, Commands: 2}, {Rule: 3, Commands: 4}, {Rule: 4},
		{Rule: 1, Commands: 3, Helper: true}, {Rule: 3, Commands: 4}, {},
	}
	for i, x := range list {
		if got := h.entry(x); got != want[i] {
			t.Errorf("%s %s: %+v, want %+v", x.Command, x.Path, got, want[i])
		}
	}
	c := &policy.Compiled{Rules: make([]policy.RuleRef, 5)}
	if h.partial(c) == "" {
		t.Error("that a script's helpers are anybody's is not said")
	}
	if what := newHelped(append(list[:2:2], list[3], list[4])).partial(c); what != "" {
		t.Error(what)
	}
	var many []sandbox.Program
	for i := range policy.RuleID(maxHelped + 1) {
		many = append(many, sandbox.Program{Kind: sandbox.KindHelper, Helps: []policy.RuleID{i + 1}})
	}
	h = newHelped(many)
	if h.partial(c) == "" || !h.entry(many[maxHelped-1]).Helper || h.entry(many[maxHelped]).Helper {
		t.Error("one command too many")
	}
}
