package audit

import (
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
	Blanked   FaultKind = "blanked"   // the line's texts were erased, and no record says so
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

	Erased      uint64 `json:"erased,omitempty"`      // records whose texts were erased
	Unaccounted uint64 `json:"unaccounted,omitempty"` // of a file that is verified alone: those of them that no record in it speaks of
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

// held is a closed file that is open.
type held struct {
	number int
	source
}

func closeAll(list []held) {
	for _, h := range list {
		h.Close()
	}
}

// held opens all files of a chain, the live one last: the record of what is erased in one of them is in the others then.
func (f files) held() (closed []held, live source, err error) {
	for {
		numbers, err := f.numbers()
		if err != nil {
			return nil, nil, err
		}
		for _, n := range numbers {
			in, err := f.open(n)
			if err != nil {
				closeAll(closed)
				if errors.Is(err, fs.ErrNotExist) {
					err = errRemoved
				}
				return nil, nil, err
			}
			closed = append(closed, held{n, in})
		}
		again, live, err := f.all()
		if err == nil && newest(again) == newest(numbers) {
			return closed, live, nil
		}
		closeAll(closed)
		closed = nil
		if live != nil {
			live.Close()
		}
		if err != nil {
			return nil, nil, err
		}
	}
}

// verify verifies the files of a chain as they are now.
func (e Evidence) verify(f files) (Report, error) {
	sigs, err := e.checkpoints(f)
	if err != nil {
		return Report{}, err
	}
	closed, live, err := f.held()
	if err != nil {
		return Report{}, err
	}
	defer func() { closeAll(closed) }()
	if live != nil {
		defer live.Close()
	} else if len(closed) == 0 {
		_, err := openPlain(f.live())
		return Report{}, err
	}
	v := e.verifier(sigs)
	v.anywhere = len(closed) > 0 && closed[0].number > 1 || f.begunAnew()
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
	for ; len(closed) > 0; closed = closed[1:] {
		v.closed = live != nil || len(closed) > 1
		whole, err := v.source(closed[0].source)
		closed[0].Close() // it takes memory
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
	v.accounted(e.Keys != nil)
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
	v.report.Erased = v.account.erased()
	_, v.report.Unaccounted = v.account.unaccounted(forever) // the records that speak of them are in a later file
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
	v.accounted(false)
	return v.report, nil
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
