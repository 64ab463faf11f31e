package audit

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"

	"github.com/nemoclaw/nemoclaw/policy"
)

// erasing is the action of a record that says which records' texts were erased. It comes after them in the chain, is signed like all
// others, and is on the disk before any of them is erased: so who may write the log, and has no key, can't blank a line unseen.
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
	what Ranges
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
		if what := erasedBy(b); what != nil {
			a.said = append(a.said, saidErased{l.seq, what})
		}
	}
}

var keyErase = []byte(`,"action":"` + erasing + `",`)

// erasedBy returns which records a line says were erased; nil when it is no such line.
func erasedBy(line []byte) Ranges {
	var d struct {
		Plane, Action, Rule, Verdict, Object string
	}
	if err := json.Unmarshal(line, &d); err != nil || d.Plane != string(policy.PlaneSystem) || d.Action != erasing || d.Rule != "builtin" || d.Verdict != policy.Allow.String() {
		return nil
	}
	what, err := ParseRanges(d.Object)
	if err != nil {
		return nil
	}
	return what
}

// unaccounted returns the first erased line that none of the records speaks of, up to a number, and how many there are; 0 when all are
// accounted for.
func (a *account) unaccounted(to uint64) (first blankLines, n uint64) {
	var said []Range
	for _, s := range a.said {
		for _, x := range s.what {
			if x.Last = min(x.Last, s.seq-1); s.seq <= to && x.First <= x.Last {
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

// erasedUnknown returns the first record behind the head that was kept which says that texts were erased, 0 when there is none. A writer
// erases only when that head is a later one.
func (w *Writer) erasedUnknown(kept uint64) (uint64, error) {
	if kept == 0 || w.last.Seq <= kept {
		return 0, nil
	}
	in := plain{w.log}
	_, off, err := recordAfter(in, kept)
	if err != nil {
		return 0, err
	}
	lines := linesOf(in, off)
	for {
		line, err := lines.ReadSlice('\n')
		switch {
		case errors.Is(err, io.EOF):
			return 0, nil
		case err != nil && !errors.Is(err, bufio.ErrBufferFull):
			return 0, err
		case bytes.Contains(line, keyErase) && erasedBy(line) != nil:
			seq, _ := cutSeq(line)
			return seq, nil
		}
	}
}
