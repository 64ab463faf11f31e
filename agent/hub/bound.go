package hub

import "github.com/nemoclaw/nemoclaw/policy"

// What a record may hold, in bytes: a program inside chooses these strings, and must not choose the log's size.
const (
	maxObject = 4096
	maxArgs   = 4096
	maxReason = 1024
	maxShort  = 256
	maxParams = 1024 // of a tool call, and of its result
)

// maxListed bounds the lists of a record.
const maxListed = 16

// Bound returns d with every string cut to what a record may hold; what was cut ends in "...". d is not changed.
func Bound(d policy.Decision) policy.Decision {
	d.Object = cut(d.Object, maxObject)
	d.Called = cut(d.Called, maxObject)
	d.Subject.Exe = cut(d.Subject.Exe, maxObject)
	d.Subject.Args = cut(d.Subject.Args, maxArgs)
	d.Reason = cut(d.Reason, maxReason)
	d.Rule = cut(d.Rule, maxObject)
	d.Action = cut(d.Action, maxShort)
	if d.Inference != nil {
		d.Inference = boundCall(*d.Inference)
	}
	return d
}

// boundCall bounds a model call. The classes are the policy's.
func boundCall(c policy.ModelCall) *policy.ModelCall {
	c.ID, c.Asked, c.Model, c.Route = cut(c.ID, maxShort), cut(c.Asked, maxShort), cut(c.Model, maxShort), cut(c.Route, maxShort)
	c.Unseen, c.Instead = shorts(c.Unseen), shorts(c.Instead)
	matches := c.Matches[:min(len(c.Matches), maxListed)]
	c.Matches = nil
	for _, m := range matches {
		c.Matches = append(c.Matches, policy.Matched{Class: cut(m.Class, maxShort), Kind: cut(m.Kind, maxShort), Via: cut(m.Via, maxShort), Text: cut(m.Text, maxShort)})
	}
	if c.Tool != nil {
		t := *c.Tool
		t.Through, t.Params, t.Result = shorts(t.Through), cut(t.Params, maxParams), cut(t.Result, maxParams)
		c.Tool = &t
	}
	return &c
}

func shorts(list []string) (out []string) {
	for _, s := range list[:min(len(list), maxListed)] {
		out = append(out, cut(s, maxShort))
	}
	return out
}

func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	return s[:limit-3] + "..."
}
