package audit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/atomicfile"
)

// rotate closes the live file under the next number and begins a new one. It is called with disk held, between two
// batches, so a closed file ends with a whole line.
//
// A kill between two of its steps leaves no live file, or an empty one: unrotate takes the last closed one back then, so
// there is one kind of chain to go on with.
func (w *Writer) rotate() error {
	// Closed files are not looked at for torn lines any more, so this one must be on the disk before it is one.
	if err := w.log.Sync(); err != nil {
		return err
	}
	if err := w.signing.sign(true); err != nil {
		return err
	}
	if err := os.Rename(w.files.live(), w.files.closed(w.number+1)); err != nil {
		return err
	}
	log, err := os.OpenFile(w.files.live(), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil { // no room: it is tried again with the next batch
		return errors.Join(err, os.Rename(w.files.closed(w.number+1), w.files.live()))
	}
	w.number++
	w.log.Close()
	w.log, w.offset, w.began = log, 0, time.Now()
	if err := atomicfile.SyncDir(w.files.dir); err != nil {
		return err
	}
	select {
	case w.rotated <- struct{}{}:
	default: // it looks at all of them anyway
	}
	return nil
}

// unrotate undoes a rotation that was cut short, and returns the number of the last closed file.
func (f files) unrotate() (number int, err error) {
	numbers, err := f.numbers()
	if err != nil || len(numbers) == 0 {
		return 0, err
	}
	if err := f.tidy(false); err != nil {
		return 0, err
	}
	number = newest(numbers)
	st, err := os.Lstat(f.live())
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return 0, fmt.Errorf("audit log: %w", err)
	case !st.Mode().IsRegular() || st.Size() > 0:
		return number, nil
	}
	err = os.Rename(f.closed(number), f.live())
	if errors.Is(err, fs.ErrNotExist) {
		return number, nil // it is compressed, so the rotation had come to its end, and the chain goes on behind it
	}
	if err != nil {
		return 0, fmt.Errorf("audit log: take back the last closed file, after a rotation was cut short: %w", err)
	}
	return number - 1, nil
}
