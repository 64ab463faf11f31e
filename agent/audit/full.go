package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/nemoclaw/nemoclaw/policy"
)

// retryEvery is how often a log that a full disk has stopped looks for room.
const retryEvery = time.Second

// losing is what a full disk did to a log whose records may be lost. A record that was lost keeps its number. The last of these
// numbers is that of the record which says how many they are, so the verifier can tell them from others that are missing. Until
// that is written the number is kept with the Signer's head, for the next writer, should this one be killed.
type losing struct {
	now   bool   // there is no room: what is appended is lost
	to    uint64 // the last record that was lost
	after uint64 // the last one that was not, before them
	count uint64 // how many there were, since the writer was opened
}

// Lost is how many records a full disk took since the writer was opened.
func (w *Writer) Lost() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.losing.count
}

// lose gives up everything that is not in the log. It is called with disk and mu held.
func (w *Writer) lose() {
	w.pending = w.pending[:0]
	w.last.Hash = w.wrote.Hash
	// What was lost before is counted, though the record that should have said so is lost now too.
	count := w.losing.count + w.last.Seq - max(w.losing.to, w.wrote.Seq)
	w.losing = losing{now: true, to: w.last.Seq, after: w.wrote.Seq, count: count}
	w.signing.losing(w.wrote, w.losing.to)
	time.AfterFunc(retryEvery, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.found()
	})
}

// found goes on writing, with the record of what was lost: if there is no room for it either, that one is lost too. It is called
// with mu held.
func (w *Writer) found() {
	if !w.losing.now || w.closing || w.err != nil {
		return
	}
	w.losing.now = false
	d := lost(w.losing.after, w.last.Seq)
	w.pending, w.last.Hash = appendLine(w.pending, &d, w.last.Hash)
	w.work.Signal()
}

// lost is the record of what a full disk did not take: all after one record, up to another.
func lost(after, to uint64) policy.Decision {
	return policy.Decision{Seq: to, Time: time.Now(), Plane: policy.PlaneSystem, Action: "lost", Object: "records", Verdict: policy.Allow, Rule: "builtin", Count: to - after,
		Reason: fmt.Sprintf("the disk was full: %d records were not written down, this number the last of theirs; make room on its file system", to-after)}
}

// lostBefore is how many numbers a line accounts for that says how many records were lost; 0 when it is no such line.
func lostBefore(line []byte) uint64 {
	var d struct {
		Plane, Action, Rule string
		Count               uint64
	}
	if err := json.Unmarshal(line, &d); err != nil || d.Plane != string(policy.PlaneSystem) || d.Action != "lost" || d.Rule != "builtin" {
		return 0
	}
	return d.Count
}

// Sync returns when the record of a number is on the disk, so that no power cut takes it away, or why it is not. Who waits at the
// same time waits for the same write.
func (w *Writer) Sync(seq uint64) error {
	w.syncing.Lock()
	defer w.syncing.Unlock()
	if w.synced < seq {
		w.writePending()
		w.disk.Lock()
		log, wrote := w.log, w.wrote.Seq
		w.disk.Unlock()
		if err := w.Err(); err != nil {
			return err
		}
		// A file that is closed meanwhile has been forced to the disk then.
		if err := log.Sync(); err != nil && !errors.Is(err, os.ErrClosed) {
			return fmt.Errorf("audit log %s: force to the disk: %w", w.Path(), err)
		}
		w.synced = wrote
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return w.err
	}
	// Not only what was lost: what was appended just before is told the same, and may be tried again.
	if seq <= w.losing.to {
		return fmt.Errorf("audit log %s: no space left on its file system; make room there", w.Path())
	}
	return nil
}
