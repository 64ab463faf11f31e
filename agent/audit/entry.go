package audit

import (
	"bytes"
	"time"

	"github.com/nemoclaw/nemoclaw/policy"
)

// An Entry is what a line says of itself, taken from it without decoding it.
type Entry struct {
	Seq     uint64
	Time    time.Time // zero: the line has none that can be read
	Sandbox string    // as it stands in the line
	Plane   policy.Plane
	Verdict policy.Verdict
	Hash    string // its own; "" where it is none
}

// ReadEntry reads a line, without its newline; false when it is no record.
func ReadEntry(line []byte) (e Entry, ok bool) {
	f, ok := cutFields(line)
	if !ok {
		return e, false
	}
	e = Entry{Seq: f.seq, Time: f.when(), Sandbox: string(f.sandbox), Plane: policy.Plane(f.plane)}
	_ = e.Verdict.UnmarshalText(f.verdict()) // what is no verdict denies
	if _, own, ok := cutTail(line, keyHash, hashLen, `"}`); ok {
		e.Hash = string(own)
	}
	return e, true
}

// Selects reports whether a filter selects a line, as far as its numbers, planes, verdicts, sandbox and times say.
func (flt *Filter) Selects(line []byte) bool {
	f, ok := cutFields(line)
	if !ok {
		return false
	}
	return flt.matches(&f)
}

// Gap returns the numbers between a record and the line after it of records that are gone. What a line accounts for as lost when the
// disk was full was never there.
func Gap(before uint64, line []byte) (first, last uint64, gone bool) {
	seq, ok := cutSeq(line)
	if !ok || seq <= before+1 {
		return 0, 0, false
	}
	last = seq - 1
	if bytes.Contains(line, []byte(`,"action":"lost",`)) {
		last = seq - min(max(lostBefore(line), 1), seq-before)
	}
	return before + 1, last, last > before
}
