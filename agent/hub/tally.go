package hub

import "github.com/nemoclaw/nemoclaw/policy"

// maxRefusals bounds the different refusals that the tally keeps apart.
const maxRefusals = 1000

// A Refusal is one thing that was refused, however often.
type Refusal struct {
	policy.Decision        // the first one
	Times           uint64 // attempts
}

// tally counts refusals for the summary. Its zero value is ready.
type tally struct {
	index map[kindOf]int
	rows  []Refusal
	more  uint64
	total uint64 // attempts, all of them
}

func (t *tally) add(d *policy.Decision) {
	if d.Verdict != policy.Deny || d.Plane == policy.PlaneSystem {
		return
	}
	t.total += attempts(d)
	k := kindOf{d.Plane, d.Action, d.Object, d.Subject.Exe, d.Subject.Taint, d.Rule, d.Verdict}
	i, ok := t.index[k]
	if ok {
		t.rows[i].Times += attempts(d)
		return
	}
	if len(t.rows) == maxRefusals {
		t.more += attempts(d)
		return
	}
	if t.index == nil {
		t.index = map[kindOf]int{}
	}
	t.index[k] = len(t.rows)
	t.rows = append(t.rows, Refusal{Decision: *d, Times: attempts(d)})
}

// list returns a copy, in the order of first refusal.
func (t *tally) list() []Refusal { return append([]Refusal(nil), t.rows...) }
