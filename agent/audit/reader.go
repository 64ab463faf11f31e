package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"sort"
)

// forever is a number that no record has.
const forever = math.MaxUint64

// reader goes through a chain's files. Each of them may be closed and renamed, and the oldest removed, meanwhile.
type reader struct {
	files files
	flt   Filter
	fn    func(seq uint64, line []byte) error
	end   uint64 // the last record that is wanted

	in   source // nil: there is none to read yet
	off  int64  // where the first line that was not read begins
	seq  uint64 // of the last line that was read
	over bool   // nothing that comes is wanted
	text []byte // of the filter
	buf  []byte
}

func (r *reader) close() {
	if r.in != nil {
		r.in.Close()
		r.in = nil
	}
}

// start goes to the first line that the filter can select.
func (r *reader) start(ctx context.Context) error {
	r.seq, r.text = r.flt.Since, r.flt.text()
	if r.flt.Last > 0 {
		before, err := r.files.beforeLast(ctx, &r.flt, r.seq)
		if err != nil {
			return err
		}
		r.seq = max(r.seq, before)
	}
	return r.seek()
}

// read hands on what is there.
func (r *reader) read(ctx context.Context) error {
	for {
		// In this order: what is closed before it is read to its end was read whole.
		closed, err := r.closed()
		if err != nil {
			return err
		}
		if err := r.readFile(ctx); err != nil || r.over || !closed {
			return err
		}
		if r.in != nil {
			torn, _, err := recordAt(r.in, r.off)
			if err != nil {
				return err
			}
			if torn != forever {
				r.seq = torn // a line that has no end in a closed file never gets one
			}
			if p, is := r.in.(*packed); is {
				r.seq = max(r.seq, p.index.last()) // blocks may have been passed over
			}
			r.close()
		}
		if err := r.seek(); err != nil || r.in == nil {
			return err
		}
	}
}

// closed reports whether the file that is read is written no more.
func (r *reader) closed() (bool, error) {
	if r.in == nil {
		return true, nil
	}
	live, err := os.Stat(r.files.live())
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil // between two steps of a rotation
	}
	if err != nil {
		return false, fmt.Errorf("audit log: %w", err)
	}
	file, is := r.in.(plain)
	if !is {
		return true, nil
	}
	st, err := file.Stat()
	if err != nil {
		return false, fmt.Errorf("audit log: %w", err)
	}
	return !os.SameFile(live, st), nil
}

// readFile reads the file to its end. A line that has none yet is left for later.
func (r *reader) readFile(ctx context.Context) error {
	if r.in == nil {
		return nil
	}
	if r.buf == nil {
		r.buf = make([]byte, 128<<10)
	}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := r.again(); err != nil {
			return err
		}
		buf := r.buf
		if p, is := r.in.(*packed); is {
			end := p.skip(&r.off, &r.flt, r.text)
			buf = buf[:min(int64(len(buf)), end-r.off)]
		}
		n, err := r.in.ReadAt(buf, r.off)
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("audit log: %w", err)
		}
		used, err := r.lines(buf[:n])
		r.off += int64(used)
		switch {
		case err != nil || r.over || n == 0 || n < len(buf):
			return err
		case used > 0:
		case len(r.buf) > MaxLine:
			return tooLong(r.in)
		default:
			r.buf = make([]byte, 4*len(r.buf))
		}
	}
}

// again goes on in the file that has taken the place of the one that is read, where there is one with the same records: it was
// compressed, or texts were erased in it, and those are handed on no more. One that was removed with its records is read to its end.
func (r *reader) again() error {
	if linked(r.in) {
		return nil
	}
	next, _, err := recordAt(r.in, r.off)
	if err != nil || next == forever {
		return err
	}
	in, off, err := r.files.after(next - 1)
	if err != nil || in == nil {
		return err
	}
	if found, _, err := recordAt(in, off); err != nil || found != next {
		in.Close()
		return err
	}
	r.in.Close()
	r.in, r.off = in, off
	return nil
}

func tooLong(in source) error {
	return fmt.Errorf("audit log %s: it has a line that is longer than any record; `nemoclaw audit verify` names it", in.Name())
}

// lines takes whole lines and returns how many bytes they are.
func (r *reader) lines(b []byte) (used int, err error) {
	for {
		line, _, whole := bytes.Cut(b[used:], newline)
		if !whole {
			return used, nil
		}
		f, ok := cutFields(line)
		if ok && f.seq > r.end {
			r.over = true
			return used, nil
		}
		used += len(line) + 1
		if !ok || f.seq <= r.seq { // what is no record is the verifier's to tell
			continue
		}
		r.seq = f.seq
		if r.flt.matches(&f) && (r.text == nil || bytes.Contains(line, r.text)) {
			if err := r.fn(f.seq, line); err != nil {
				return used, err
			}
		}
	}
}

var newline = []byte{'\n'}

// seek opens the file in which the first line after r.seq is, or will be, and finds its place. Without one r.in is nil.
func (r *reader) seek() (err error) {
	r.in, r.off, err = r.files.after(r.seq)
	return err
}

// after opens the file in which the first record after a number is, or will be, and finds its place. nil: there is none.
func (f files) after(seq uint64) (source, int64, error) {
	for {
		numbers, live, err := f.all()
		if err != nil {
			return nil, 0, err
		}
		in, off, err := f.find(numbers, live, seq)
		if live != nil && in != live {
			live.Close()
		}
		if !errors.Is(err, fs.ErrNotExist) { // else a closed file was removed meanwhile
			return in, off, err
		}
	}
}

// find is after among the files that all returned.
func (f files) find(numbers []int, live source, seq uint64) (in source, off int64, err error) {
	// The first file that begins with a later record; the one before it may end with later ones.
	i := sort.Search(len(numbers), func(i int) bool {
		first := uint64(forever)
		if file, e := f.open(numbers[i]); e != nil {
			err = errors.Join(err, e)
		} else {
			first, e = firstOf(file)
			err = errors.Join(err, e)
			file.Close()
		}
		return first > seq
	})
	if err != nil {
		return nil, 0, err
	}
	for i = max(0, i-1); i < len(numbers); i++ {
		file, err := f.open(numbers[i])
		if err != nil {
			return nil, 0, err
		}
		found, off, err := recordAfter(file, seq)
		if err == nil && found != forever {
			return file, off, nil
		}
		file.Close()
		if err != nil {
			return nil, 0, err
		}
	}
	if live == nil {
		return nil, 0, nil
	}
	_, off, err = recordAfter(live, seq)
	return live, off, err
}
