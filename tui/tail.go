package tui

import "github.com/nemoclaw/nemoclaw/policy"

// A tail is the last decisions, and which of them are listed. Each has a number of its own, which is never used again.
type tail struct {
	ring  []policy.Decision // the one with number n at n % maxDecisions
	first uint64            // the oldest that is kept
	next  uint64            // the number of the next
	bytes int               // of what is kept

	find  query
	match []uint64 // the numbers of those that fit find, oldest first; what was read of it stays as it was
	seq   uint64   // of the last record
}

const (
	maxDecisions = 10_000
	maxBytes     = 32 << 20 // of their texts
)

func newTail() tail { return tail{ring: make([]policy.Decision, maxDecisions)} }

// weight is what a decision's texts take.
func weight(d *policy.Decision) int {
	return len(d.Object) + len(d.Subject.Exe) + len(d.Subject.Args) + len(d.Rule) + len(d.Reason) + len(d.Sandbox) + 128
}

// add takes the next decision, and drops the oldest when there are too many.
func (t *tail) add(d policy.Decision) {
	t.seq = max(t.seq, d.Seq)
	t.bytes += weight(&d)
	for t.next-t.first >= maxDecisions || t.bytes > maxBytes && t.next > t.first {
		t.drop()
	}
	t.ring[t.next%maxDecisions] = d
	if t.find.decision(&d) {
		t.match = append(t.match, t.next)
	}
	t.next++
}

func (t *tail) drop() {
	old := &t.ring[t.first%maxDecisions]
	t.bytes -= weight(old)
	*old = policy.Decision{}
	if len(t.match) > 0 && t.match[0] == t.first {
		t.match = t.match[1:]
	}
	t.first++
}

// get returns a decision that is kept still.
func (t *tail) get(n uint64) (d policy.Decision, ok bool) {
	if n < t.first || n >= t.next {
		return d, false
	}
	return t.ring[n%maxDecisions], true
}

// filter lists only what fits find.
func (t *tail) filter(find query) {
	t.find, t.match = find, nil
	for n := t.first; n < t.next; n++ {
		if find.decision(&t.ring[n%maxDecisions]) {
			t.match = append(t.match, n)
		}
	}
}
