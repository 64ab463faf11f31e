package audit

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
)

// A FaultKind says what is wrong with a chain.
type FaultKind string

// The faults that Verify tells apart.
const (
	Changed   FaultKind = "changed"   // a line's bytes are not those that were written
	Lost      FaultKind = "lost"      // one or more lines are missing before this place
	Reordered FaultKind = "reordered" // the line belongs elsewhere, or stands here twice
	Inserted  FaultKind = "inserted"  // the line, or its double after it, was put in
	Torn      FaultKind = "torn"      // the last line has no end
	Unsigned  FaultKind = "unsigned"  // no checkpoint vouches for the line, and one should
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

	Lost   uint64      `json:"lost,omitempty"`   // records that a full disk did not take, as the log itself says
	Signed *Checkpoint `json:"signed,omitempty"` // the last one; nil: none, or no key was given
}

// Evidence is what is known of a log from elsewhere.
type Evidence struct {
	Heads   []Head              // lines that it is known to have held
	Keys    []ed25519.PublicKey // of its checkpoints; none: they are not looked at
	Anchors []Checkpoint        // that were kept elsewhere, and that one of the keys signed
}

// VerifyFile verifies the chain whose file path is, over all its files, and the heads given, and the head kept beside it
// where there is one. A closed file (NAME.000001.jsonl) is verified alone. Files that were removed before the oldest one
// are not missed, but Report.First tells. The error is only about reading; what is wrong with the chain is the report's
// Fault.
func VerifyFile(path string, heads ...Head) (Report, error) {
	return Evidence{Heads: heads}.VerifyFile(path)
}

// VerifyFile is the function VerifyFile, with all that is known. With keys the log's checkpoints must be there and signed with one
// of them; they vouch for the log from its beginning to Report.Signed, be the beginning what is left of it.
func (e Evidence) VerifyFile(path string) (Report, error) {
	f, number := filesOf(path)
	if number > 0 || !strings.HasSuffix(path, extension) {
		return e.verifyAlone(path, f, number)
	}
	heads := slices.Clone(e.Heads)
	// The head is read first: a writer that is writing now only makes the log longer than it says.
	side, err := openFile(path + ".head")
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
	e.Heads = heads
	for {
		r, err := e.verify(f)
		if errors.Is(err, errRemoved) {
			continue // by its writer, which keeps only so many
		}
		return r, err
	}
}

var errRemoved = errors.New("a closed file was removed meanwhile")

// verify verifies the files of a chain as they are now.
func (e Evidence) verify(f files) (Report, error) {
	sigs, err := e.checkpoints(f)
	if err != nil {
		return Report{}, err
	}
	numbers, live, err := f.all()
	if err != nil {
		return Report{}, err
	}
	if live != nil {
		defer live.Close()
	} else if len(numbers) == 0 {
		_, err := openPlain(f.live())
		return Report{}, err
	}
	v := e.verifier(sigs)
	v.anywhere = len(numbers) > 0 && numbers[0] > 1 || f.begunAnew()
	// What is appended from now on is not looked at: its checkpoint is not among those that were read.
	var end int64
	if live != nil {
		if end, err = live.Size(); err != nil {
			return Report{}, err
		}
	}
	now, err := e.checkpoints(f)
	if err != nil {
		return Report{}, err
	}
	for i, n := range numbers {
		in, err := f.open(n)
		if errors.Is(err, fs.ErrNotExist) {
			return Report{}, errRemoved
		} else if err != nil {
			return Report{}, err
		}
		v.closed = live != nil || i+1 < len(numbers)
		whole, err := v.source(in)
		in.Close()
		if !whole || err != nil {
			return v.report, err
		}
	}
	if live != nil {
		v.closed = false
		if whole, err := v.file(io.NewSectionReader(live, 0, end), f.live()); !whole || err != nil {
			return v.report, err
		}
	}
	v.atEnd()
	v.signed(e, now, signEvery+maxBatch)
	return v.report, v.unchecked(f.live())
}

// begunAnew reports whether a checkpoint, whoever signed it, is about the record before the first that is left: then all files of
// before were removed, and their numbers are given again. Who forges it gets no further than by the number of a file.
func (f files) begunAnew() bool {
	sig, err := openFile(f.live() + sigExtension)
	if err != nil {
		return false
	}
	defer sig.Close()
	b, err := io.ReadAll(io.LimitReader(sig, maxCheckpoint+1))
	if err != nil {
		return false
	}
	line, _, _ := bytes.Cut(b, newline)
	c, _, _, err := parseCheckpoint(line)
	if err != nil {
		return false
	}
	numbers, live, err := f.all()
	if err != nil {
		return false
	}
	if live != nil {
		defer live.Close()
	}
	in, _, err := f.find(numbers, live, 0)
	if err != nil || in == nil {
		return false
	}
	if in != live {
		defer in.Close()
	}
	first, _, err := recordAt(in, 0)
	return err == nil && c.Seq+1 == first
}

// checkpoints are those beside the log.
func (e Evidence) checkpoints(f files) ([]Checkpoint, error) {
	if e.Keys == nil {
		return nil, nil
	}
	return besides(f.live(), e.Keys)
}

func (e Evidence) verifier(sigs []Checkpoint) *verifier {
	v := &verifier{hash: genesis, known: map[uint64][]known{}, vouched: e.Keys != nil}
	for _, h := range e.Heads {
		v.add(known{Head: h, must: true})
	}
	for _, c := range slices.Concat(e.Anchors, sigs) {
		v.add(known{Head: c.Head})
	}
	return v
}

// signed says which record the checkpoints vouch up to, and faults a log that goes on for longer than its writer leaves unsigned.
func (v *verifier) signed(e Evidence, sigs []Checkpoint, unsigned uint64) {
	if e.Keys == nil || v.report.Fault != nil || v.report.Lines == 0 {
		return
	}
	for _, c := range slices.Concat(e.Anchors, sigs) {
		if c.Seq >= v.report.First && c.Seq <= v.report.Head.Seq && (v.report.Signed == nil || c.Seq > v.report.Signed.Seq) {
			v.report.Signed = &c
		}
	}
	if v.report.Signed == nil && len(sigs) == 0 {
		v.report.Fault = &Fault{Line: 1, Seq: v.report.First, Kind: Unsigned, Detail: "the log has no checkpoint: they were taken away, or it was written before the logs of `nemoclaw run` were signed"}
		return
	}
	to := v.report.First - 1
	for _, c := range sigs {
		to = max(to, c.Seq)
	}
	if to < v.report.Head.Seq && v.report.Head.Seq-to > unsigned {
		v.report.Fault = &Fault{Line: v.line, Seq: to + 1, Kind: Unsigned,
			Detail: fmt.Sprintf("no checkpoint vouches for it, nor for what comes after it: its writer signs within %d records", unsigned)}
	}
}

// verifyAlone verifies one file by itself. Of what is known, what is about its own records counts.
func (e Evidence) verifyAlone(path string, f files, number int) (Report, error) {
	sigs, err := e.checkpoints(f)
	if err != nil {
		return Report{}, err
	}
	open := openPlain
	switch {
	case strings.HasSuffix(path, packedExtension):
		open = openPacked
	case number > 0:
		open = func(string) (source, error) { return f.open(number) } // it may have been compressed
	}
	in, err := open(path)
	if err != nil {
		return Report{}, err
	}
	defer in.Close()
	v := e.verifier(sigs)
	v.anywhere = number > 1 || number == 1 && f.begunAnew()
	whole, err := v.source(in)
	if !whole || err != nil {
		return v.report, err
	}
	if number == 0 {
		v.atEnd()
	}
	v.signed(e, sigs, 0)
	return v.report, v.unchecked(path)
}

// Verify reads a log to its end and names the first line that was changed, lost or put elsewhere. Heads are lines that
// the log is known to have held; each must still be there. The error is only about reading.
func Verify(r io.Reader, heads ...Head) (Report, error) {
	v := Evidence{Heads: heads}.verifier(nil)
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

// unchecked is the error that a head names a record which is not in the files.
func (v *verifier) unchecked(path string) error {
	for _, h := range v.all {
		if h.must && v.report.Fault == nil && h.Seq > 0 && (h.Seq+1 < v.report.First || h.Seq > v.report.Head.Seq) {
			return fmt.Errorf("audit log %s: the head of record %d can't be checked here, where records %d to %d are", path, h.Seq, v.report.First, v.report.Head.Seq)
		}
	}
	return nil
}

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
