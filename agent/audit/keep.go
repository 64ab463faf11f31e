package audit

import (
	"errors"
	"io/fs"
	"os"
	"time"
)

// tidyEvery is how often a log in which nothing is closed looks for what has become too old.
const tidyEvery = time.Hour

// keeper compresses what is closed and removes what is not kept any more, besides the writing, until the writer is closed. What it
// can't do it tells, and tries again later: records are written all the same.
func (w *Writer) keeper() {
	defer close(w.kept)
	tick := time.NewTicker(tidyEvery)
	defer tick.Stop()
	for more := true; more; {
		select {
		case _, more = <-w.rotated:
		case <-tick.C:
			w.closeOld()
		}
		if err := w.tidyUp(); err != nil && w.warn != nil {
			w.warn(err)
		}
	}
}

func (w *Writer) tidyUp() error {
	w.keeping.Lock()
	defer w.keeping.Unlock()
	return errors.Join(w.files.tidy(true), w.prune(time.Now()))
}

// closeOld closes a file that nothing closes because little is written to it, so that what is too old in it can go.
func (w *Writer) closeOld() {
	w.disk.Lock()
	defer w.disk.Unlock()
	if w.maxAge > 0 && w.offset > 0 && time.Since(w.began) > w.maxAge/10 {
		_ = w.rotate() // it is tried again with the next batch, or in an hour
	}
}

// prune removes the oldest closed files: those that are more than are kept, that make all of them larger than they may be, or whose
// youngest record is too old. What was not forwarded yet is kept, with all that came after it, but where all of it would be too large: a
// receiver that is away for long must not fill the disk, since without room for the log nothing may happen.
//
// What says that texts were erased never goes before they do: it is a later record, in a later file, since Erase closes the file that
// it erases in, and files go from the oldest on.
func (w *Writer) prune(now time.Time) error {
	if w.keep == 0 && w.maxTotal == 0 && w.maxAge == 0 {
		return nil
	}
	numbers, err := w.files.numbers()
	if err != nil {
		return err
	}
	sizes, total := make([]int64, len(numbers)), int64(0)
	for i, n := range numbers {
		st, err := os.Stat(w.files.closed(n))
		if errors.Is(err, fs.ErrNotExist) {
			st, err = os.Stat(w.files.closed(n) + packedExtension)
		}
		if err != nil {
			return err
		}
		sizes[i] = st.Size()
		total += st.Size()
	}
	removed := false
	for i, n := range numbers {
		in, err := w.files.open(n)
		if err != nil {
			return err
		}
		last, when, err := lastOf(in)
		first, e := firstOf(in)
		if p, is := in.(*packed); is { // the last one's clock may have been wrong
			when = p.index.newest()
		}
		in.Close()
		if err := errors.Join(err, e); err != nil {
			return err
		}
		many := w.keep > 0 && len(numbers)-i > w.keep
		large := w.maxTotal > 0 && total > w.maxTotal
		old := w.maxAge > 0 && now.Sub(when) > w.maxAge
		away := w.forwarded == nil || last <= w.forwarded()
		if !large && (!many && !old || !away) {
			break
		}
		if !away && w.unforwarded != nil {
			w.unforwarded(max(first, w.forwarded()+1), last)
		}
		for _, name := range []string{w.files.closed(n), w.files.closed(n) + packedExtension} {
			if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		total -= sizes[i]
		removed = true
	}
	if !removed {
		return nil
	}
	return w.pruneSigs()
}

// pruneSigs drops the checkpoints of removed records.
func (w *Writer) pruneSigs() error {
	w.disk.Lock()
	defer w.disk.Unlock()
	if w.signing == nil {
		return nil
	}
	numbers, err := w.files.numbers()
	if err != nil {
		return err
	}
	first := w.signing.last + 1 // of the live file, when all others are gone: it begins after a checkpoint
	if len(numbers) > 0 {
		in, err := w.files.open(numbers[0])
		if err != nil {
			return err
		}
		defer in.Close()
		if first, _, err = recordAt(in, 0); err != nil || first == forever {
			return err
		}
	} else if in, err := openPlain(w.files.live()); err == nil {
		defer in.Close()
		if seq, _, err := recordAt(in, 0); err != nil {
			return err
		} else if seq != forever {
			first = seq
		}
	}
	return w.signing.prune(first)
}
