package audit

import (
	"bufio"
	"errors"
	"fmt"
	"io"
)

// known is a line that the log is known to have held.
type known struct {
	Head
	must bool // it must be in these files; else it may have been removed with the oldest
}

func (v *verifier) add(list ...known) {
	for _, k := range list {
		v.all = append(v.all, k)
		v.known[k.Seq] = append(v.known[k.Seq], k)
	}
}

type verifier struct {
	all      []known
	known    map[uint64][]known // by number
	vouched  bool               // the record before the first one must be among known
	in       *bufio.Reader      // of the file at hand
	name     string             // likewise
	line     int                // lines read of it
	closed   bool               // another file comes after it
	anywhere bool               // the first line may be any record
	buf      []byte
	seq      uint64 // of the line before
	hash     string // of the line before
	before   string // of the one before that
	at       uint64 // the number that the line of the fault carries
	account  account
	report   Report
}

// next returns the next line without its newline, nil at the end. whole is false when it has no newline. A line longer
// than any of this log comes back cut, so a hostile file can't take the verifier's memory.
func (v *verifier) next() (b []byte, whole bool, err error) {
	v.buf = v.buf[:0]
	for {
		part, err := v.in.ReadSlice('\n')
		if len(v.buf) <= MaxLine {
			v.buf = append(v.buf, part...)
		}
		switch {
		case err == nil:
			if n := len(v.buf) - 1; v.buf[n] == '\n' {
				return v.buf[:n], true, nil
			}
			return v.buf, true, nil
		case errors.Is(err, io.EOF) && len(v.buf) == 0:
			return nil, false, nil
		case errors.Is(err, io.EOF):
			return v.buf, false, nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, false, err
		}
	}
}

// check judges one line against the one before it.
func (v *verifier) check(b []byte, whole bool) *Fault {
	n := v.line + 1
	if !whole && v.closed {
		return &Fault{Line: n, Seq: v.seq + 1, Kind: Torn, Detail: "it has no end, though the file was closed with a whole line: the file was cut"}
	}
	if !whole {
		return &Fault{Line: n, Seq: v.seq + 1, Kind: Torn,
			Detail: "it has no end: its writer was killed or the disk was full (the next run repairs the log and keeps these bytes), or it is being written now"}
	}
	l, err := parseLine(b)
	if err != nil {
		return &Fault{Line: n, Kind: Changed, Detail: "it " + err.Error()}
	}
	v.at = l.seq
	if v.anywhere && v.report.Lines == 0 {
		v.seq, v.hash = l.seq-1, l.prev
		if fault := v.beginning(l, n); fault != nil {
			return fault
		}
	}
	follows := l.prev == v.hash
	switch {
	case !l.own:
		return &Fault{Line: n, Seq: l.seq, Kind: Changed, Detail: "its content does not give its own hash"}
	case follows && l.seq == v.seq+1:
	case follows && l.seq > v.seq && lostBefore(b) == l.seq-v.seq:
		v.report.Lost += l.seq - v.seq
	case l.seq == v.seq+1 && n > 1:
		return &Fault{Line: n - 1, Seq: v.seq, Kind: Changed,
			Detail: "the line after it does not follow from it: one of the two was rewritten, with a hash made to fit"}
	case l.seq == v.seq+1 && v.report.Lines > 0:
		return &Fault{Line: n, Seq: l.seq, Kind: Changed,
			Detail: "it does not follow from the last line of the file before: one of the two was rewritten, with a hash made to fit"}
	case l.seq == v.seq+1:
		return &Fault{Line: n, Seq: l.seq, Kind: Changed, Detail: "it is the first record, but says that another stood before it"}
	case l.seq == v.seq && l.prev == v.before && l.hash != v.hash && n > 1:
		return &Fault{Line: n - 1, Seq: v.seq, Kind: Inserted, Detail: "the line after it is that record too: one of the two was put in, with a hash made to fit"}
	case l.seq <= v.seq:
		return &Fault{Line: n, Seq: l.seq, Kind: Reordered, Detail: fmt.Sprintf("it stands after record %d", v.seq)}
	default:
		return &Fault{Line: n, Seq: v.seq + 1, Kind: Lost, Detail: fmt.Sprintf("%s missing; this line is record %d", missing(v.seq+1, l.seq-1), l.seq)}
	}
	v.seq, v.hash, v.before = l.seq, l.hash, l.prev
	for _, h := range v.known[l.seq] {
		if h.Hash != l.hash {
			return &Fault{Line: n, Seq: l.seq, Kind: Changed, Detail: "it is not the record that was written here: its hash is not the one that was kept"}
		}
	}
	v.line = n
	v.account.take(&l, b, v.name, n)
	v.report.Lines++
	v.report.Head = Head{Seq: l.seq, Hash: l.hash}
	if v.report.Lines == 1 {
		v.report.First = l.seq
	}
	return nil
}

// classify reads on after a gap: when a missing record turns up later, nothing was lost there, the order is wrong.
func (v *verifier) classify(f *Fault) error {
	if f.Kind != Lost {
		return nil
	}
	low, high := f.Seq, v.at
	for n := f.Line + 1; ; n++ {
		b, whole, err := v.next()
		if err != nil || b == nil {
			return err
		}
		if seq, ok := cutSeq(b); !ok || seq < low || seq >= high {
			continue
		}
		if l, err := parseLine(b); whole && err == nil {
			*f = Fault{Line: f.Line, Seq: high, Kind: Reordered, Detail: fmt.Sprintf("it stands before record %d, which is on line %d", l.seq, n)}
			return nil
		}
	}
}

// beginning judges a first line that is not the chain's first one.
func (v *verifier) beginning(l line, n int) *Fault {
	before := v.known[l.seq-1]
	for _, h := range before {
		if h.Hash != l.prev {
			return &Fault{Line: n, Seq: l.seq, Kind: Changed, Detail: fmt.Sprintf("it does not follow from record %d, as that was kept elsewhere or signed", l.seq-1)}
		}
	}
	if v.vouched && before == nil && l.seq > 1 {
		return &Fault{Line: n, Seq: l.seq - 1, Kind: Lost, Detail: fmt.Sprintf("the log begins with record %d, and no checkpoint says that record %d came before it: older files were taken away by hand, or there was no key yet", l.seq, l.seq-1)}
	}
	return nil
}

// atEnd checks that every head was reached.
func (v *verifier) atEnd() {
	for _, h := range v.all {
		if h.Seq > v.seq {
			v.report.Fault = &Fault{Line: v.line + 1, Seq: v.seq + 1, Kind: Lost,
				Detail: missing(v.seq+1, h.Seq) + " missing at the end"}
			if v.report.Files > 1 {
				v.report.Fault.File = v.name
			}
			return
		}
	}
}

func missing(from, to uint64) string {
	if from == to {
		return fmt.Sprintf("record %d is", from)
	}
	return fmt.Sprintf("records %d to %d are", from, to)
}

// file reads one file to its end and reports whether it is whole.
func (v *verifier) file(r io.Reader, name string) (whole bool, err error) {
	v.in = bufio.NewReaderSize(r, 64<<10)
	v.line = 0
	v.name = name
	v.report.Files++
	return v.lines()
}

// source is file for one of a chain, which may be compressed.
func (v *verifier) source(in source) (whole bool, err error) {
	p, is := in.(*packed)
	if !is {
		size, err := in.Size()
		if err != nil {
			return false, err
		}
		return v.file(io.NewSectionReader(in, 0, size), in.Name())
	}
	r := &checked{packed: p}
	whole, err = v.file(r, in.Name())
	if r.bad != nil && err == nil && v.report.Fault == nil {
		return false, r.bad
	}
	return whole, err
}

// lines reads the file at hand to its end.
func (v *verifier) lines() (whole bool, err error) {
	for {
		b, ended, err := v.next()
		if err != nil {
			return false, fmt.Errorf("audit log %s: read: %w", v.name, err)
		}
		if b == nil {
			return true, nil
		}
		if fault := v.check(b, ended); fault != nil {
			v.report.Fault = fault
			if v.report.Files > 1 || v.closed {
				fault.File = v.name
			}
			return false, v.classify(fault)
		}
	}
}
