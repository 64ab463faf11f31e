package audit

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"time"
)

// recordAt returns the number of the first record that begins at off or later, and where; forever and the place after
// the last whole line, when there is none.
func recordAt(in source, off int64) (seq uint64, start int64, err error) {
	from := max(off-1, 0)
	b := bufio.NewReaderSize(io.NewSectionReader(in, from, math.MaxInt64-from), 4096)
	start = from
	skip := func() (whole bool, err error) {
		n := 0
		for {
			part, err := b.ReadSlice('\n')
			n += len(part)
			switch {
			case err == nil:
				start += int64(n)
				return true, nil
			case errors.Is(err, io.EOF):
				return false, nil
			case !errors.Is(err, bufio.ErrBufferFull):
				return false, fmt.Errorf("audit log: %w", err)
			}
		}
	}
	if off > 0 {
		if whole, err := skip(); !whole {
			if err == nil {
				start, err = in.Size()
			}
			return forever, start, err
		}
	}
	for {
		head, err := b.Peek(256)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, 0, fmt.Errorf("audit log: %w", err)
		}
		if f, ok := cutFields(head); ok {
			return f.seq, start, nil
		}
		if err != nil && !bytes.Contains(head, newline) {
			return forever, start, nil // its end may be written at this moment: it is no line yet, and none to be skipped
		}
		if whole, err := skip(); !whole {
			return forever, start, err
		}
	}
}

// recordAfter returns the first record whose number is more than seq, as recordAt does. Numbers go up in a file.
func recordAfter(in source, seq uint64) (found uint64, start int64, err error) {
	size, err := in.Size()
	if err != nil {
		return 0, 0, err
	}
	low, high := int64(0), size
	if p, is := in.(*packed); is {
		low, high = p.index.after(seq)
	}
	// No later record begins before low; one does at high or before it, if any does.
	for low < high {
		mid := low + (high-low)/2
		found, start, err = recordAt(in, mid)
		switch {
		case err != nil:
			return 0, 0, err
		case found > seq:
			high = mid
		default:
			low = start + 1
		}
	}
	return recordAt(in, low)
}

// backwards calls fn with the whole lines of a file from the last to the first, until it returns false.
func backwards(in source, fn func(line []byte) bool) error {
	pos, err := in.Size()
	if err != nil {
		return err
	}
	var rest []byte // from pos on, up to and with the end of the first line whose beginning was not read yet
	ended := false  // a line's end was found
	block := 4 << 10
	for pos > 0 {
		if len(rest) > 2*MaxLine {
			return tooLong(in)
		}
		block = min(2*block, 256<<10)
		n := min(pos, int64(max(block, len(rest)))) // growing, so that a long line is not copied too often
		buf := make([]byte, int(n)+len(rest))
		if _, err := in.ReadAt(buf[:n], pos-n); err != nil {
			return fmt.Errorf("audit log: %w", err)
		}
		copy(buf[n:], rest)
		pos -= n
		if !ended {
			buf = buf[:bytes.LastIndexByte(buf, '\n')+1]
			ended = len(buf) > 0
		}
		var more bool
		if rest, more = linesBackwards(buf, pos == 0, fn); !more {
			return nil
		}
	}
	return nil
}

// linesBackwards calls fn with the lines of b from the last to the first, until it returns false. Unless b begins with a line, what is
// before its first newline is left.
func linesBackwards(b []byte, begins bool, fn func(line []byte) bool) (left []byte, more bool) {
	for len(b) > 0 {
		start := bytes.LastIndexByte(b[:len(b)-1], '\n') + 1
		if start == 0 && !begins {
			break
		}
		if !fn(b[start : len(b)-1]) {
			return nil, false
		}
		b = b[:start]
	}
	return b, true
}

// lastRecord returns the number of the chain's last record, 0 when it has none yet.
func (f files) lastRecord() (uint64, error) {
	var last uint64
	any := false
	err := f.filesBackwards(func(in source) (more bool, err error) {
		any = true
		last, _, err = lastOf(in)
		return last == 0, err
	})
	if err == nil && !any {
		err = fmt.Errorf("audit log: %w", &fs.PathError{Op: "open", Path: f.live(), Err: fs.ErrNotExist})
	}
	return last, err
}

// firstOf returns the number of a file's first record; forever when it has none.
func firstOf(in source) (uint64, error) {
	if p, is := in.(*packed); is && len(p.index.Blocks) > 0 && p.index.Blocks[0].First > 0 {
		return p.index.Blocks[0].First, nil
	}
	seq, _, err := recordAt(in, 0)
	return seq, err
}

// lastOf returns number and time of a file's last record.
func lastOf(in source) (seq uint64, when time.Time, err error) {
	err = backwards(in, func(line []byte) bool {
		f, ok := cutFields(line)
		if ok {
			seq, when = f.seq, f.when()
		}
		return !ok
	})
	return seq, when, err
}

// filesBackwards calls fn with the files of a chain from the last to the first, until it returns false.
func (f files) filesBackwards(fn func(in source) (more bool, err error)) error {
	numbers, live, err := f.all()
	if err != nil {
		return err
	}
	if live != nil {
		defer live.Close()
		if more, err := fn(live); err != nil || !more {
			return err
		}
	}
	for i := len(numbers) - 1; i >= 0; i-- {
		in, err := f.open(numbers[i])
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed meanwhile, with all before it
		} else if err != nil {
			return err
		}
		more, err := fn(in)
		in.Close()
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// beforeLast returns the number before the first of the last records that flt selects, of those after since.
func (f files) beforeLast(ctx context.Context, flt *Filter, since uint64) (uint64, error) {
	left, first, text := flt.Last, uint64(0), flt.text()
	err := f.filesBackwards(func(in source) (more bool, err error) {
		more = true
		visit := func(line []byte) bool {
			r, ok := cutFields(line)
			if ok && r.seq <= since {
				more = false
			} else if ok {
				if flt.matches(&r) && (text == nil || bytes.Contains(line, text)) {
					first = r.seq
					left--
				}
				more = left > 0
			}
			return more && ctx.Err() == nil
		}
		if p, is := in.(*packed); is {
			err = p.backwards(flt, text, visit)
		} else {
			err = backwards(in, visit)
		}
		return more && ctx.Err() == nil, err
	})
	if err != nil || ctx.Err() != nil {
		return 0, errors.Join(err, ctx.Err())
	}
	return max(first, 1) - 1, nil
}
