// Package audit owns the audit log: one JSON line per decision, each line tied to the line before, written by one
// writer per file, and the verifier that names the first line that was changed, lost or put elsewhere.
//
// A line is the JSON of a policy.Decision with three more fields at its end:
//
//	{"seq":7,...,"revision":"...","salt":"<32 hex>","prev":"<64 hex>","hash":"<64 hex>"}
//
// "prev" is the "hash" of the line before (64 zeros in the first line), and "hash" is of all of the line but itself, so that a changed
// last line is found too. It is such that the line's texts can be erased later, and every hash stays: see seal. Lines without a salt
// are of version 1, which can't; a chain may begin with them.
// "seq" goes up by one from line to line, over all runs that used the file.
// Beside FILE lies FILE.head, which names the last line: a cut at the end is found with it. The chain shows accidents
// and careless hands; who may write both files can forge both, so keep a head elsewhere to be sure (`audit verify`
// prints it, `--head` checks it).
//
// A file that has grown to a limit is closed: FILE.jsonl becomes FILE.000001.jsonl, with the next free number, and the
// chain goes on in a new FILE.jsonl, whose first line follows from the last one of the file before. See files and rotate.
//
// What a crash loses: a record is handed to the kernel at once, by a goroutine that writes whatever has come together
// since its last write. A killed process loses the records of that moment, at most 2 MiB of them (what is being written,
// and what waits for that); a record is never written in part and kept so: the next writer repairs a torn line and keeps its bytes. A power cut loses what the
// kernel had not stored: a busy log is forced to the disk each second, and Close starts write-out without waiting.
//
// The package never decides, filters or drops: a record that can't be written is an error, and the owner must stop. It takes nothing out of
// a record but by Erase, which first writes down that it does.
package audit

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/policy"
)

const (
	maxPending = 1 << 20          // bytes that wait for the disk before Append blocks
	maxBatch   = maxPending / 256 // records of a write: the shortest line is longer
	syncEvery  = time.Second      // how often a busy log is forced to the disk
)

// A Writer appends records to one chain. Its methods may be called from several goroutines.
type Writer struct {
	files     files
	head      *os.File
	limit     int64 // bytes of one file
	keep      int   // closed files; 0: all
	maxTotal  int64
	maxAge    time.Duration
	forwarded func() uint64
	warn      func(error)

	unforwarded func(first, last uint64)

	drop bool // what a full disk does not take is lost, and counted

	keeping sync.Mutex // held while closed files are compressed, removed or written anew; taken before syncing
	syncing sync.Mutex // held while forcing the log to the disk; taken before disk
	synced  uint64     // guarded by syncing: this record is on the disk, with all before it

	disk sync.Mutex // held while writing; taken before mu
	// Guarded by disk:
	log     *os.File
	offset  int64     // where the next line goes
	number  int       // of the last closed file
	began   time.Time // when the live file was begun
	spare   []byte    // for pending
	signing *signing  // nil: nothing is signed
	wrote   Head      // the last line that is in the log; while losing.now nothing is written, and whoever holds mu may read it

	mu      sync.Mutex
	work    sync.Cond // pending grew, or closing
	done    sync.Cond // pending was written, or failed
	pending []byte    // whole lines
	last    Head      // the last line appended
	losing  losing
	grown   chan struct{} // closed when more was written; nil while nobody waits for that
	closing bool
	err     error
	failed  chan struct{} // closed with the first error
	stopped chan struct{} // closed when the goroutine has gone
	rotated chan struct{} // tells the keeper that a file was closed
	kept    chan struct{} // closed when the keeper has gone
}

// Path returns the file that the writer writes to.
func (w *Writer) Path() string { return w.files.live() }

// Head returns the last line appended; its Seq is 0 while the chain is empty.
func (w *Writer) Head() Head {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last
}

// Failed is closed when a record could not be written. Nothing is written any more then: see Err.
func (w *Writer) Failed() <-chan struct{} { return w.failed }

// Err returns why the log can't be written, or nil.
func (w *Writer) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// Append queues d, whose Seq must be one more than Head().Seq. It blocks while 1 MiB waits for the disk: records are
// slowed down, never dropped. The error is the writer's first one, and stays.
func (w *Writer) Append(d *policy.Decision) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.pending) >= maxPending && w.err == nil {
		w.done.Wait()
	}
	if w.err != nil {
		return w.err
	}
	if w.closing {
		return fmt.Errorf("audit log %s: closed", w.Path())
	}
	if d.Seq != w.last.Seq+1 {
		return fmt.Errorf("audit log %s: record %d after record %d: out of order", w.Path(), d.Seq, w.last.Seq)
	}
	w.last.Seq = d.Seq
	if w.losing.now {
		w.losing.to = d.Seq
		w.signing.losing(w.wrote, d.Seq)
		w.losing.count++
		return nil
	}
	w.pending, w.last.Hash = appendLine(w.pending, d, w.last.Hash)
	w.work.Signal()
	return nil
}

// Flush returns when everything appended so far is with the kernel: a kill of this process can't lose it any more.
func (w *Writer) Flush() error {
	w.writePending()
	return w.Err()
}

// Close flushes, gives the file free and returns the first error of the writer's life.
func (w *Writer) Close() error {
	w.mu.Lock()
	w.found() // the last chance to say what was lost
	w.closing = true
	w.work.Signal()
	w.mu.Unlock()
	<-w.stopped
	close(w.rotated)
	<-w.kept
	w.disk.Lock() // after a Flush that is still writing
	defer w.disk.Unlock()
	err := w.signing.end()
	// Best effort by its nature: it only makes the kernel begin earlier what it does anyway.
	_ = unix.SyncFileRange(int(w.log.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE)
	return errors.Join(w.Err(), err, w.head.Close(), w.log.Close())
}

// run writes what Append queues, until Close.
func (w *Writer) run() {
	defer close(w.stopped)
	synced := time.Now()
	for {
		w.mu.Lock()
		for len(w.pending) == 0 && !w.closing {
			w.work.Wait()
		}
		end := w.closing || w.err != nil
		w.mu.Unlock()
		w.writePending()
		if end {
			return
		}
		if now := time.Now(); now.Sub(synced) >= syncEvery {
			synced = now
			w.disk.Lock()
			log := w.log
			w.disk.Unlock()
			// The record is with the kernel; an error here is the disk's, and the next write meets it. A file that a
			// Flush closes meanwhile has been forced to the disk then.
			_ = log.Sync()
		}
	}
}

// writePending writes what is queued, in the calling goroutine.
func (w *Writer) writePending() {
	w.disk.Lock()
	defer w.disk.Unlock()
	w.mu.Lock()
	batch, head := w.pending, w.last
	if len(batch) == 0 || w.err != nil {
		w.mu.Unlock()
		return
	}
	w.pending = w.spare[:0]
	w.mu.Unlock()

	err := w.write(batch, head)
	w.spare = batch

	w.mu.Lock()
	defer w.mu.Unlock()
	if w.drop && full(err) && !w.closing {
		w.lose()
	} else if err != nil {
		w.err = err
		close(w.failed)
	}
	if w.grown != nil {
		close(w.grown)
		w.grown = nil
	}
	w.done.Broadcast()
}

// write puts a batch of whole lines at the end. After an error no part of a line is left behind, if the disk lets us.
func (w *Writer) write(batch []byte, head Head) error {
	if w.offset > 0 && w.offset+int64(len(batch)) > w.limit {
		if err := w.rotate(); err != nil {
			return fmt.Errorf("audit log %s: begin the next file: %w: decisions can't be recorded, so nothing may run; see that %s can be written to, and has room",
				w.Path(), err, w.files.dir)
		}
	}
	n, err := w.log.WriteAt(batch, w.offset)
	if err != nil { // what was written of it whole is kept
		batch, head = wholeLines(batch[:n], w.wrote)
		_ = w.log.Truncate(w.offset + int64(len(batch)))
	}
	if len(batch) > 0 {
		w.offset += int64(len(batch))
		w.wrote = head
		err = errors.Join(err, writeHead(w.head, head), w.signing.took(w, head))
	}
	if err == nil {
		return nil
	}
	hint := "see that its disk works"
	if full(err) {
		hint = "make room on its file system, or name another directory with --audit"
	}
	return fmt.Errorf("audit log %s: write: %w: decisions can't be recorded, so nothing may run; %s", w.Path(), err, hint)
}

// wholeLines cuts what was written of a batch to whole lines, and returns the head then; without one it is what it was.
func wholeLines(b []byte, was Head) ([]byte, Head) {
	b = b[:bytes.LastIndexByte(b, '\n')+1]
	if len(b) == 0 {
		return nil, was
	}
	last := b[bytes.LastIndexByte(b[:len(b)-1], '\n')+1 : len(b)-1]
	seq, _ := cutSeq(last)
	return b, Head{seq, hashOf(last)}
}

// full reports whether an error is that of a disk without room.
func full(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// writeHead replaces the head in place: it always has the same length, so a full disk can't take it away.
func writeHead(f *os.File, h Head) error {
	_, err := f.WriteAt(fmt.Appendf(nil, "%020d:%s\n", h.Seq, h.Hash), 0)
	return err
}
