package audit

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
)

// A FaultKind says what is wrong with a chain.
type FaultKind string

// The faults that Verify tells apart.
const (
	Changed   FaultKind = "changed"   // a line's bytes are not those that were written
	Lost      FaultKind = "lost"      // one or more lines are missing before this place
	Reordered FaultKind = "reordered" // the line belongs elsewhere, or stands here twice
	Torn      FaultKind = "torn"      // the last line has no end
)

// A Fault is the first thing that is wrong with a chain.
type Fault struct {
	File   string    `json:"file,omitempty"` // where it is, when the chain has several files
	Line   int       `json:"line"`           // counted from 1; for lines lost at the end, the line after the last
	Seq    uint64    `json:"seq"`            // the record's number; for lost lines, the first one missing; 0: can't be told
	Kind   FaultKind `json:"kind"`
	Detail string    `json:"detail"`
}

// Error says where, which record and what: "LINE: record SEQ changed: ...", to be put behind the file's name and a colon.
func (f *Fault) Error() string {
	if f.Seq == 0 {
		return fmt.Sprintf("%d: %s: %s", f.Line, f.Kind, f.Detail)
	}
	return fmt.Sprintf("%d: record %d %s: %s", f.Line, f.Seq, f.Kind, f.Detail)
}

// A Report is what Verify found.
type Report struct {
	Files int    `json:"files"` // files read
	Lines int    `json:"lines"` // lines read before the fault, or all
	First uint64 `json:"first"` // number of the first record, 0 when there is none
	Head  Head   `json:"-"`     // the last good line
	Fault *Fault `json:"fault,omitempty"`
}

// VerifyFile verifies the chain whose file path is, over all its files, and the heads given, and the head kept beside it
// where there is one. A closed file (NAME.000001.jsonl) is verified alone. Files that were removed before the oldest one
// are not missed, but Report.First tells. The error is only about reading; what is wrong with the chain is the report's
// Fault.
func VerifyFile(path string, heads ...Head) (Report, error) {
	f, number := filesOf(path)
	if number > 0 || !strings.HasSuffix(path, extension) {
		return verifyAlone(path, number, heads)
	}
	// The head is read first: a writer that is writing now only makes the log longer than it says.
	side, err := os.Open(path + ".head")
	if err == nil {
		h, err := readHead(side)
		side.Close()
		if err != nil {
			return Report{}, fmt.Errorf("audit log %s: the head beside it can't be read: %w; delete %s.head to verify without it", path, err, path)
		}
		heads = append(heads, h)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return Report{}, fmt.Errorf("audit log: %w", err)
	}
	for {
		r, err := f.verify(heads)
		if errors.Is(err, errRemoved) {
			continue // by its writer, which keeps only so many
		}
		return r, err
	}
}

var errRemoved = errors.New("a closed file was removed meanwhile")

// verify verifies the files of a chain as they are now.
func (f files) verify(heads []Head) (Report, error) {
	numbers, live, err := f.all()
	if err != nil {
		return Report{}, err
	}
	if live != nil {
		defer live.Close()
	} else if len(numbers) == 0 {
		_, err := os.Open(f.live())
		return Report{}, fmt.Errorf("audit log: %w", err)
	}
	v := verifier{heads: heads, hash: genesis, anywhere: len(numbers) > 0 && numbers[0] > 1}
	for i, n := range numbers {
		in, err := os.Open(f.closed(n))
		if errors.Is(err, fs.ErrNotExist) {
			return Report{}, errRemoved
		} else if err != nil {
			return Report{}, fmt.Errorf("audit log: %w", err)
		}
		v.closed = live != nil || i+1 < len(numbers)
		whole, err := v.file(in, in.Name())
		in.Close()
		if !whole || err != nil {
			return v.report, err
		}
	}
	if live != nil {
		v.closed = false
		if whole, err := v.file(live, f.live()); !whole || err != nil {
			return v.report, err
		}
	}
	v.atEnd()
	return v.report, v.unchecked(f.live())
}

// verifyAlone verifies one file by itself. Of heads, those of its own records count.
func verifyAlone(path string, number int, heads []Head) (Report, error) {
	in, err := os.Open(path)
	if err != nil {
		return Report{}, fmt.Errorf("audit log: %w", err)
	}
	defer in.Close()
	v := verifier{heads: heads, hash: genesis, anywhere: number > 1}
	whole, err := v.file(in, path)
	if !whole || err != nil {
		return v.report, err
	}
	if number == 0 {
		v.atEnd()
	}
	return v.report, v.unchecked(path)
}

// Verify reads a log to its end and names the first line that was changed, lost or put elsewhere. Heads are lines that
// the log is known to have held; each must still be there. The error is only about reading.
func Verify(r io.Reader, heads ...Head) (Report, error) {
	v := verifier{heads: heads, hash: genesis}
	if whole, err := v.file(r, ""); !whole || err != nil {
		return v.report, err
	}
	v.atEnd()
	return v.report, nil
}

// file reads one file to its end and reports whether it is whole.
func (v *verifier) file(r io.Reader, name string) (whole bool, err error) {
	v.in = bufio.NewReaderSize(r, 64<<10)
	v.line = 0
	v.name = name
	v.report.Files++
	for {
		b, ended, err := v.next()
		if err != nil {
			return false, fmt.Errorf("audit log %s: read: %w", name, err)
		}
		if b == nil {
			return true, nil
		}
		if fault := v.check(b, ended); fault != nil {
			v.report.Fault = fault
			if v.report.Files > 1 || v.closed {
				fault.File = name
			}
			return false, v.classify(fault)
		}
	}
}

// unchecked is the error that a head names a record which is not in the files.
func (v *verifier) unchecked(path string) error {
	for _, h := range v.heads {
		if v.report.Fault == nil && h.Seq > 0 && (h.Seq < v.report.First || h.Seq > v.report.Head.Seq) {
			return fmt.Errorf("audit log %s: the head of record %d can't be checked here, where records %d to %d are", path, h.Seq, v.report.First, v.report.Head.Seq)
		}
	}
	return nil
}

type verifier struct {
	heads    []Head
	in       *bufio.Reader // of the file at hand
	name     string        // likewise
	line     int           // lines read of it
	closed   bool          // another file comes after it
	anywhere bool          // the first line may be any record
	buf      []byte
	seq      uint64 // of the line before
	hash     string // of the line before
	at       uint64 // the number that the line of the fault carries
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
	}
	follows := l.prev == v.hash
	switch {
	case !l.own:
		return &Fault{Line: n, Seq: l.seq, Kind: Changed, Detail: "its content does not give its own hash"}
	case follows && l.seq == v.seq+1:
	case l.seq == v.seq+1 && n > 1:
		return &Fault{Line: n - 1, Seq: v.seq, Kind: Changed,
			Detail: "the line after it does not follow from it: one of the two was rewritten, with a hash made to fit"}
	case l.seq == v.seq+1 && v.report.Lines > 0:
		return &Fault{Line: n, Seq: l.seq, Kind: Changed,
			Detail: "it does not follow from the last line of the file before: one of the two was rewritten, with a hash made to fit"}
	case l.seq == v.seq+1:
		return &Fault{Line: n, Seq: l.seq, Kind: Changed, Detail: "it is the first record, but says that another stood before it"}
	case l.seq <= v.seq:
		return &Fault{Line: n, Seq: l.seq, Kind: Reordered, Detail: fmt.Sprintf("it stands after record %d", v.seq)}
	default:
		return &Fault{Line: n, Seq: v.seq + 1, Kind: Lost, Detail: fmt.Sprintf("%s missing; this line is record %d", missing(v.seq+1, l.seq-1), l.seq)}
	}
	v.seq, v.hash = l.seq, l.hash
	for _, h := range v.heads {
		if h.Seq == l.seq && h.Hash != l.hash {
			return &Fault{Line: n, Seq: l.seq, Kind: Changed, Detail: "it is not the record that was written here: its hash is not the one that was kept"}
		}
	}
	v.line = n
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
		if l, err := parseLine(b); whole && err == nil && l.seq >= low && l.seq < high {
			*f = Fault{Line: f.Line, Seq: high, Kind: Reordered, Detail: fmt.Sprintf("it stands before record %d, which is on line %d", l.seq, n)}
			return nil
		}
	}
}

// atEnd checks that every head was reached.
func (v *verifier) atEnd() {
	for _, h := range v.heads {
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
