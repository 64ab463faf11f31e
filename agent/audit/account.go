package audit

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"slices"

	"github.com/nemoclaw/nemoclaw/policy"
)

// erasing is the action of a record that says which records' texts were erased. It comes after them in the chain, is signed like all
// others, and is on the disk before any of them is erased: so who may write the log, and has no key, can't blank a line unseen. One that
// was put in while no writer was there would be signed by the next one, so that one writes down first that it does not count: a record of
// the same action that is denied, and names it.
const erasing = "erase"

// account is what a verifier has seen of erased lines, and of the records that say so.
type account struct {
	blank []blankLines
	said  []saidErased
}

// blankLines are erased lines that come one after the other, with numbers that do.
type blankLines struct {
	Range
	file string
	line int // of the first
}

// saidErased is what one record says.
type saidErased struct {
	seq  uint64 // its own number: it can't speak of itself, nor of what comes after it
	what Ranges // records that are erased
	void bool   // or such records, which don't count
}

// take enters a line that is part of the chain.
func (a *account) take(l *line, b []byte, file string, number int) {
	switch {
	case l.erased:
		if n := len(a.blank); n > 0 && a.blank[n-1].Last+1 == l.seq && a.blank[n-1].file == file {
			a.blank[n-1].Last = l.seq
			return
		}
		a.blank = append(a.blank, blankLines{Range{l.seq, l.seq}, file, number})
	case bytes.Contains(b, keyErase):
		if what, void := saysOf(b); what != nil {
			a.said = append(a.said, saidErased{l.seq, what, void})
		}
	}
}

var keyErase = []byte(`,"action":"` + erasing + `",`)

// saysOf returns which records a line says were erased, or, void, which lines that say so don't count; nil when it is no such line.
func saysOf(line []byte) (what Ranges, void bool) {
	var d struct {
		Plane, Action, Rule, Verdict, Object string
	}
	if err := json.Unmarshal(line, &d); err != nil || d.Plane != string(policy.PlaneSystem) || d.Action != erasing || d.Rule != "builtin" {
		return nil, false
	}
	void = d.Verdict == policy.Deny.String()
	if !void && d.Verdict != policy.Allow.String() {
		return nil, false
	}
	what, err := ParseRanges(d.Object)
	if err != nil {
		return nil, false
	}
	return what, void
}

// unaccounted returns the first erased line that none of the records speaks of, up to a number, and how many there are; 0 when all are
// accounted for.
func (a *account) unaccounted(to uint64) (first blankLines, n uint64) {
	var said, void []Range
	for _, s := range slices.Backward(a.said) { // what is void can't make void
		if s.seq > to || slices.ContainsFunc(void, func(x Range) bool { return x.First <= s.seq && s.seq <= x.Last }) {
			continue
		}
		for _, x := range s.what {
			if x.Last = min(x.Last, s.seq-1); x.First > x.Last {
				continue
			}
			if s.void {
				void = append(void, x)
			} else {
				said = append(said, x)
			}
		}
	}
	all := tidied(said)
	for _, b := range a.blank {
		for seq := b.First; ; seq++ {
			if !all.Has(seq) {
				if n++; n == 1 {
					first = blankLines{Range{seq, seq}, b.file, b.line + int(seq-b.First)}
				}
			}
			if seq == b.Last {
				break
			}
		}
	}
	return first, n
}

// erased is how many lines are.
func (a *account) erased() (n uint64) {
	for _, b := range a.blank {
		n += b.Last - b.First + 1
	}
	return n
}

// accounted faults an erased line that no record speaks of which comes after it. Where there are keys, that record must be vouched for.
func (v *verifier) accounted(keys bool) {
	if v.report.Fault != nil {
		return
	}
	v.report.Erased = v.account.erased()
	to, by := uint64(forever), "no later record of the log says so"
	if keys {
		to, by = 0, "no later record says so that a checkpoint vouches for"
		if v.report.Signed != nil {
			to = v.report.Signed.Seq
		}
	}
	first, n := v.account.unaccounted(to)
	if n == 0 {
		return
	}
	v.report.Fault = &Fault{Line: first.line, Seq: first.First, Kind: Blanked, Detail: "its texts were taken out, and " + by}
	if v.report.Files > 1 {
		v.report.Fault.File = first.file
	}
}

// voided are the records to write down of those behind the head that was kept which say that texts were erased. A writer erases only when
// that head is a later one, so they were put in, or it was killed in that moment and has erased nothing.
func (w *Writer) voided(kept uint64) (list []policy.Decision, err error) {
	if kept == 0 || w.last.Seq <= kept {
		return nil, nil
	}
	numbers, err := w.files.numbers()
	if err != nil {
		return nil, err
	}
	unknown, first, err := sayingIn(plain{w.log}, kept)
	for i := len(numbers) - 1; i >= 0 && first > kept && err == nil; i-- {
		var in source
		if in, err = w.files.open(numbers[i]); err != nil {
			break
		}
		var more []Range
		more, first, err = sayingIn(in, kept)
		in.Close()
		unknown = append(unknown, more...)
	}
	for _, part := range tidied(unknown).Split(maxErased) {
		list = append(list, policy.Decision{Action: erasing, Verdict: policy.Deny, Object: part.String(),
			Reason: "these records say that texts were erased, and are behind the last one that this log's writer had noted: they were put in, or the writer was killed in that moment and had erased nothing yet; they don't count"})
	}
	return list, err
}

// sayingIn returns the records of a file behind another that say something of erasing, and the file's first.
func sayingIn(in source, behind uint64) (found []Range, first uint64, err error) {
	if first, _, err = recordAt(in, 0); err != nil {
		return nil, 0, err
	}
	_, off, err := recordAfter(in, behind)
	if err != nil {
		return nil, 0, err
	}
	lines := linesOf(in, off)
	for {
		line, err := lines.ReadSlice('\n')
		switch {
		case errors.Is(err, io.EOF):
			return found, first, nil
		case err != nil && !errors.Is(err, bufio.ErrBufferFull):
			return nil, 0, err
		case bytes.Contains(line, keyErase):
			if what, _ := saysOf(line); what != nil {
				seq, _ := cutSeq(line)
				found = append(found, Range{seq, seq})
			}
		}
	}
}
