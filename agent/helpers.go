package agent

import (
	"fmt"

	"github.com/nemoclaw/nemoclaw/agent/sandbox"
	"github.com/nemoclaw/nemoclaw/loader"
	"github.com/nemoclaw/nemoclaw/policy"
)

// maxHelped is how many commands with helpers the kernel can tell apart: one bit each.
const maxHelped = 64

// helped is the commands that have helpers, where BPF LSM holds those to what their command starts.
type helped struct {
	bits    map[policy.RuleID]uint64
	scripts map[policy.RuleID]string // those that are scripts: what runs is their interpreter, so nothing tells that it is they
}

func newHelped(programs []sandbox.Program) helped {
	h := helped{map[policy.RuleID]uint64{}, map[policy.RuleID]string{}}
	for _, x := range programs {
		for _, rule := range x.Helps {
			if _, known := h.bits[rule]; !known {
				h.bits[rule] = 1 << len(h.bits) // none from maxHelped on
			}
		}
	}
	for _, x := range programs {
		if x.Kind == sandbox.KindCommand && x.Script && h.bits[x.Rule] != 0 {
			h.scripts[x.Rule] = x.Command
		}
	}
	return h
}

// entry says which command a program is, or which it helps. The helpers of a script, and of one command too many, are anybody's.
func (h helped) entry(x sandbox.Program) loader.ExecEntry {
	e := loader.ExecEntry{Rule: x.Rule, Commands: h.bits[x.Rule], Known: x.Until != 0}
	if x.Kind != sandbox.KindHelper {
		return e
	}
	e.Commands, e.Helper, e.Known = 0, true, false
	for _, rule := range x.Helps {
		_, script := h.scripts[rule]
		e.Commands |= h.bits[rule]
		e.Helper = e.Helper && h.bits[rule] != 0 && !script
	}
	return e
}

// partial says which helpers are anybody's; "" when all are held.
func (h helped) partial(p *policy.Compiled) string {
	for rule, command := range h.scripts {
		return p.Rule(rule).Pos + ": " + command + " is a script, so its helpers can't be told from anybody's: what runs is its interpreter"
	}
	if len(h.bits) > maxHelped {
		return fmt.Sprintf("it has %d commands with helpers, of which %d can be told apart", len(h.bits), maxHelped)
	}
	return ""
}
