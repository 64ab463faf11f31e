package audit

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/atomicfile"
	"github.com/nemoclaw/nemoclaw/policy"
)

// maxErased bounds what one record says of erased ones, in bytes, well below what a record may hold.
const maxErased = 2000

// An Erasure is what is to be erased, why, and by whom.
type Erasure struct {
	Records Ranges
	Reason  string
	By      string // as records of what a person did name them
}

// Validate says what is wrong with it.
func (e *Erasure) Validate() error {
	switch {
	case len(e.Records) == 0:
		return errors.New("an erasure has to say which records")
	case e.Reason == "":
		return errors.New("an erasure has to have a reason: it is written down in place of what is erased")
	case len(e.Reason) > maxReason:
		return fmt.Errorf("the reason of an erasure has %d bytes: at most %d are written down", len(e.Reason), maxReason)
	}
	return nil
}

const maxReason = 512 // bytes of an Erasure's

// decisions are the records that say what is erased, in parts that a record has room for.
func (e *Erasure) decisions() (list []policy.Decision) {
	for _, part := range e.Records.Split(maxErased) {
		list = append(list, policy.Decision{Plane: policy.PlaneSystem, Action: erasing, Object: part.String(), Verdict: policy.Allow, Rule: "builtin",
			Reason: fmt.Sprintf("%s, by %s", e.Reason, e.By)})
	}
	return list
}

// Erase takes the texts out of records, for good, and returns what it did. In this order, so that a kill at any moment leaves a log that
// can be verified, and the same call again ends what was begun: the file that is written is closed, if one of the records is in it;
// record is called with the records that say what is erased, and returns when each is in the log; they are forced to the disk, and
// signed; the files are written anew. tell, if there is one, is told how many of the files are done.
//
// What is erased is in no file of the log any more. The disk's blocks are the file system's, and who was sent the records, or copied
// them, has them.
func (w *Writer) Erase(ctx context.Context, e Erasure, record func(policy.Decision) error, tell func(done, of int)) (Survey, error) {
	if err := e.Validate(); err != nil {
		return Survey{}, err
	}
	w.keeping.Lock() // no file is compressed or removed meanwhile
	defer w.keeping.Unlock()
	if err := w.Flush(); err != nil {
		return Survey{}, err
	}
	s, err := find(ctx, w.files, Selection{Records: e.Records}, nil)
	if err != nil || s.Records == nil {
		return s, err
	}
	if err := w.closeLive(s.Records); err != nil {
		return s, fmt.Errorf("audit log %s: close the file, to erase in it: %w; nothing was erased", w.Path(), err)
	}
	e.Records = s.Records // what can be, and no more
	for _, d := range e.decisions() {
		if err := record(d); err != nil {
			return s, fmt.Errorf("audit log %s: write down what is erased: %w; nothing was erased", w.Path(), err)
		}
	}
	if err := w.vouch(); err != nil {
		return s, fmt.Errorf("%w; nothing was erased", err)
	}
	// From here on it is said that they are erased, so who asked for it may go, and it is done all the same.
	if err := w.files.erase(s.Records, tell); err != nil {
		return s, fmt.Errorf("audit log %s: erase: %w; the records of it are written down: do the same again to end it", w.Path(), err)
	}
	return s, nil
}

// Recorder returns what Erase takes to write down what is erased, where nothing else is written to the log.
func (w *Writer) Recorder() func(policy.Decision) error {
	return func(d policy.Decision) error {
		d.Seq, d.Time = w.Head().Seq+1, time.Now()
		return w.Append(&d)
	}
}

// closeLive closes the file that is written if one of the records is in it.
func (w *Writer) closeLive(records Ranges) error {
	w.disk.Lock()
	defer w.disk.Unlock()
	first, _, err := recordAt(plain{w.log}, 0)
	if err != nil || first > records[len(records)-1].Last {
		return err
	}
	return w.rotate()
}

// vouch returns when all that was appended is on the disk and signed.
func (w *Writer) vouch() error {
	if err := w.Sync(w.Head().Seq); err != nil {
		return err
	}
	w.disk.Lock()
	defer w.disk.Unlock()
	if err := w.signing.sign(true); err != nil {
		return fmt.Errorf("audit checkpoints: %w", err)
	}
	return w.signing.sync()
}

// erase takes the texts out of records of the closed files.
func (f files) erase(records Ranges, tell func(done, of int)) error {
	if err := f.tidy(true); err != nil { // so there is one kind of file to write anew, and each is there once
		return err
	}
	numbers, err := f.numbers()
	if err != nil {
		return err
	}
	var left uint64
	for i, n := range numbers {
		did, err := f.eraseIn(n, records)
		if err != nil {
			return fmt.Errorf("%s: %w", f.closed(n)+packedExtension, err)
		}
		left += did
		if tell != nil {
			tell(i+1, len(numbers))
		}
	}
	if want := records.Count(); left != want {
		return fmt.Errorf("%d of %d records were found", left, want)
	}
	return nil
}

// eraseIn writes a compressed file anew without the texts of records, and returns how many of them it has. Another takes its place only
// when each of its lines is what it was, or has the same hash.
func (f files) eraseIn(number int, records Ranges) (n uint64, err error) {
	name := f.closed(number) + packedExtension
	in, err := openPacked(name)
	if err != nil {
		return 0, err
	}
	defer in.Close()
	if x := in.(*packed).index; len(x.Blocks) == 0 || !records.meets(x.Blocks[0].First, x.last()) {
		return 0, nil
	}
	temp := name + ".tmp" // which tidy removes
	out, err := os.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return 0, err
	}
	defer func() {
		out.Close()
		if err != nil {
			_ = os.Remove(temp)
		}
	}()
	from := &blanker{in: linesOf(in, 0), records: records}
	if err := writePacked(out, from); err != nil {
		return 0, err
	}
	if err := out.Sync(); err != nil {
		return 0, err
	}
	if n, err = compareErased(in, temp, records); err != nil {
		return 0, err
	}
	return n, errors.Join(os.Rename(temp, name), atomicfile.SyncDir(f.dir))
}

// linesOf reads a file line by line from a place on, whole up to MaxLine.
func linesOf(in source, from int64) *bufio.Reader {
	return bufio.NewReaderSize(io.NewSectionReader(in, from, forever>>1-from), MaxLine+1)
}

// blanker reads lines, without the texts of records.
type blanker struct {
	in      *bufio.Reader
	records Ranges
	within  bool // the next bytes are the rest of a line that is longer than any record
	line    []byte
	left    []byte
}

func (b *blanker) Read(p []byte) (int, error) {
	for len(b.left) == 0 {
		line, err := b.in.ReadSlice('\n')
		if len(line) == 0 {
			return 0, err
		}
		b.left = line
		if seq, ok := cutSeq(line); err == nil && !b.within && ok && b.records.Has(seq) {
			if b.line, ok = erase(b.line[:0], line[:len(line)-1]); !ok {
				return 0, fmt.Errorf("record %d was changed after it was looked at: its content does not give its own hash", seq)
			}
			b.line = append(b.line, '\n')
			b.left = b.line
		}
		b.within = err != nil
	}
	n := copy(p, b.left)
	b.left = b.left[n:]
	return n, nil
}

// compareErased returns how many records are erased in a file, and an error where it is not, but for that, what another is.
func compareErased(was source, name string, records Ranges) (n uint64, err error) {
	is, err := openPacked(name)
	if err != nil {
		return 0, err
	}
	defer is.Close()
	a, b := linesOf(was, 0), linesOf(is, 0)
	for {
		x, errA := a.ReadSlice('\n')
		y, errB := b.ReadSlice('\n')
		seq, _ := cutSeq(x)
		switch named := errA == nil && records.Has(seq); {
		case named:
			before, e1 := parseLine(x[:len(x)-1])
			after, e2 := parseLine(bytes.TrimSuffix(y, newline))
			if e1 != nil || e2 != nil || !after.own || !after.erased || after.hash != before.hash || after.seq != before.seq || after.prev != before.prev {
				return 0, fmt.Errorf("record %d does not read back as it was written: the file is left as it was; see that its disk works", seq)
			}
			n++
		case !bytes.Equal(x, y):
			return 0, fmt.Errorf("a line after record %d does not read back as it was: the file is left as it was; see that its disk works", seq)
		}
		if errA != nil || errB != nil {
			if errors.Is(errA, io.EOF) && errors.Is(errB, io.EOF) {
				return n, nil
			}
			if errors.Is(errA, bufio.ErrBufferFull) && errors.Is(errB, bufio.ErrBufferFull) {
				continue
			}
			return 0, errors.Join(errA, errB)
		}
	}
}
