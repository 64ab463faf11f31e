package audit

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/policy"
)

const (
	maxWriters = 1024        // logs of one directory in use at once
	maxTorn    = MaxLine / 2 // bytes of a torn line; base64 makes them a third longer
)

// Options are the limits of a chain's files.
type Options struct {
	Rotate int64 // bytes after which a file is closed and the next one begun; 0: 64 MiB
	Keep   int   // closed files that are kept, the newest; 0: all

	MaxTotal int64         // bytes of the closed files; the oldest are removed when they are more; 0: no limit
	MaxAge   time.Duration // closed files whose last record is older are removed; 0: no limit
	// Forwarded is the last record that other logs have: none after it is removed, but for MaxTotal, which bounds what a disk has to
	// hold. Unforwarded is told the numbers of those that are removed all the same. nil: none has to be elsewhere.
	Forwarded   func() uint64
	Unforwarded func(first, last uint64)

	Drop bool // what a full disk does not take is lost, and counted in a record once there is room; else it is an error

	Signer *Signer                 // signs checkpoints; nil: there are none
	Anchor func(line []byte) error // takes checkpoints to where who can forge the log can't; nil: nowhere
	Warn   func(error)             // is told what could not be anchored, compressed or removed; needed with Anchor
}

// rotateAt is Options.Rotate where it is left out.
const rotateAt = 64 << 20

// Open takes the lowest free chain of a directory, run.jsonl, run-2.jsonl, ..., locks it and makes it ready to append:
// a torn last line is repaired first. The directory is made (0700) when it is missing; the files are 0600. sandbox is
// the name for records about the log itself.
func Open(dir, sandbox string, o Options) (*Writer, error) {
	for n := 1; n <= maxWriters; n++ {
		name := "run"
		if n > 1 {
			name = fmt.Sprintf("run-%d", n)
		}
		w, err := openFiles(files{dir, name}, sandbox, o)
		if errors.Is(err, syscall.EWOULDBLOCK) {
			continue
		}
		return w, err
	}
	return nil, fmt.Errorf("audit directory %s: all %d logs are in use by other runs", dir, maxWriters)
}

// OpenChain is Open for the one chain of a name, of letters, digits and hyphens.
func OpenChain(dir, name, sandbox string, o Options) (*Writer, error) {
	if name == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return nil, fmt.Errorf("audit log %q: the name must be lower-case letters, digits and hyphens", name)
	}
	f := files{dir, name}
	w, err := openFiles(f, sandbox, o)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, fmt.Errorf("audit log %s: %w by %s; end it, or name another directory with --audit", f.live(), ErrInUse, holder(f.live()+".head"))
	}
	return w, err
}

// ErrInUse says that another writer has the log.
var ErrInUse = errors.New("in use")

// openFiles opens one chain; the error is EWOULDBLOCK when another writer holds it.
func openFiles(f files, sandbox string, o Options) (_ *Writer, err error) {
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return nil, fmt.Errorf("audit directory %s: %w; make it, or name another with --audit", f.dir, err)
	}
	// The head is what is locked: it is the one file that stays when the log is rotated.
	head, err := os.OpenFile(f.live()+".head", os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("audit log: %w; name another directory with --audit", err)
	}
	defer func() {
		if err != nil {
			head.Close()
		}
	}()
	if err := unix.Flock(int(head.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, err
	}
	number, err := f.unrotate()
	if err != nil {
		return nil, err
	}
	// No O_APPEND: pwrite would ignore the place that a repair writes to.
	log, err := os.OpenFile(f.live(), os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("audit log: %w; name another directory with --audit", err)
	}
	defer func() {
		if err != nil {
			log.Close()
		}
	}()
	st, err := log.Stat()
	if err != nil {
		return nil, fmt.Errorf("audit log: %w", err)
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("audit log %s: is a %s, not a regular file; name another directory with --audit", f.live(), fileKind(st.Mode()))
	}
	w := newWriter(f, log, head)
	w.number, w.keep, w.drop = number, o.Keep, o.Drop
	w.maxTotal, w.maxAge, w.forwarded, w.unforwarded, w.warn = o.MaxTotal, o.MaxAge, o.Forwarded, o.Unforwarded, o.Warn
	if o.Rotate > 0 {
		w.limit = o.Rotate
	}
	var was state
	if o.Signer != nil {
		if w.signing, was, err = o.Signer.begin(f); err != nil {
			return nil, err
		}
		w.signing.anchorTo(o.Anchor, o.Warn)
		defer func() {
			if err != nil {
				w.signing.stop()
			}
		}()
	}
	if err := w.resume(st.Size(), sandbox, was); err != nil {
		return nil, err
	}
	if err := w.signing.sign(true); err != nil && !(w.drop && full(err)) {
		return nil, fmt.Errorf("audit checkpoints: %w", err)
	}
	go w.run()
	go w.keeper()
	w.rotated <- struct{}{} // something may have been left to do
	return w, nil
}

func newWriter(f files, log, head *os.File) *Writer {
	w := &Writer{files: f, log: log, head: head, limit: rotateAt, failed: make(chan struct{}), stopped: make(chan struct{}),
		rotated: make(chan struct{}, 1), kept: make(chan struct{}), began: time.Now()}
	w.work.L, w.done.L = &w.mu, &w.mu
	w.last.Hash = genesis
	w.wrote = w.last
	return w
}

// holder says which process holds a lock, as far as the kernel tells.
func holder(path string) string {
	st, err := os.Stat(path)
	if err != nil {
		return "another process"
	}
	inode := fmt.Sprintf(":%d", st.Sys().(*syscall.Stat_t).Ino)
	locks, _ := os.ReadFile("/proc/locks")
	for line := range strings.Lines(string(locks)) {
		// 1: FLOCK  ADVISORY  WRITE 4711 fd:01:131 0 EOF
		f := strings.Fields(line)
		if len(f) < 6 || f[1] != "FLOCK" || !strings.HasSuffix(f[5], inode) {
			continue
		}
		if comm, err := os.ReadFile("/proc/" + f[4] + "/comm"); err == nil {
			return fmt.Sprintf("process %s (%s)", f[4], strings.TrimSpace(string(comm)))
		}
	}
	return "another process"
}

// resume finds the end of the chain, repairs it, and writes down what it found wrong.
func (w *Writer) resume(size int64, sandbox string, was state) error {
	if size == 0 && w.number > 0 { // a kill came between the rotation and the first record after it
		h, err := w.files.headOf(w.number)
		if err != nil {
			return err
		}
		w.last = h
	} else if size == 0 && was.kept.Seq == 0 && was.lost == 0 {
		return nil
	}
	last, torn, err := w.tail(size)
	if err != nil {
		return err
	}
	if f, ok := cutFields(last); ok {
		w.began = f.when() // or before
	}
	w.offset = size - int64(len(torn))
	l, parseErr := parseLine(last)
	if last != nil {
		w.last = Head{Seq: l.seq, Hash: hashOf(last)}
	}
	var found []policy.Decision
	if last != nil && parseErr != nil {
		found = append(found, policy.Decision{Action: "recover", Object: w.Path(),
			Reason: "the last line " + parseErr.Error() + "; it was left as it is, and `nemoclaw audit verify` names it"})
	}
	if fault, err := w.compare(was); err != nil {
		return err
	} else if fault != "" {
		found = append(found, policy.Decision{Action: "recover", Object: w.Path(),
			Reason: fmt.Sprintf("the log is not what it was when its writer ended: %s; only records 1 to %d are vouched for by a checkpoint of before", fault, was.last.Seq)})
	}
	void, err := w.voided(was.kept.Seq)
	if err != nil {
		return err
	}
	found = append(found, void...)
	// The numbers of lost lines are not given again: the gap stays for the verifier to see.
	h, _ := readHead(w.head) // what can't be read is no head, and is written anew
	if h.Seq < was.kept.Seq {
		h = was.kept
	}
	if h.Seq > w.last.Seq {
		found = append(found, policy.Decision{Action: "recover", Object: w.Path(),
			Reason: fmt.Sprintf("records %d to %d were here before and are missing: the log was cut short after it was written", w.last.Seq+1, h.Seq)})
		w.last.Seq = h.Seq
	}
	w.wrote = w.last
	lostTo := max(was.lost, w.last.Seq) // it is less where the record that counts them was written just before a kill
	if len(torn) > 0 {
		found = append(found, policy.Decision{Action: "recover", Object: "base64:" + base64.StdEncoding.EncodeToString(torn),
			Reason: fmt.Sprintf("the last line had no end: its writer was killed or the disk was full; the %d bytes that were there are kept in this record's object", len(torn))})
	}
	if found == nil && lostTo == w.last.Seq {
		return w.signing.took(w, w.last)
	}
	var batch []byte
	if lostTo > w.last.Seq {
		d := lost(w.last.Seq, lostTo)
		w.last.Seq = lostTo
		batch, w.last.Hash = appendLine(batch, &d, w.last.Hash)
	}
	for i := range found {
		d := &found[i]
		w.last.Seq++
		d.Seq, d.Time, d.Sandbox, d.Plane, d.Rule = w.last.Seq, time.Now(), sandbox, policy.PlaneSystem, "builtin"
		if d.Action != erasing { // that is what does not count
			d.Verdict = policy.Allow
		}
		batch, w.last.Hash = appendLine(batch, d, w.last.Hash)
	}
	// One write over the torn bytes: they are in the record that replaces them, which is longer than they were.
	at := w.offset
	err = w.write(batch, w.last)
	switch {
	case w.drop && full(err): // nobody else has the writer yet, so no lock is needed
		w.lose()
		return nil
	case err != nil && w.offset == at: // what was torn stays for the next writer to keep, if the disk lets us
		_, _ = w.log.WriteAt(torn, at)
	}
	return err
}

// tail returns the last whole line without its newline (nil when there is none) and what stands after it.
func (w *Writer) tail(size int64) (last, torn []byte, err error) {
	if size == 0 {
		return nil, nil, nil
	}
	for n := min(size, 4096); n <= 4*MaxLine; n = min(size, 4*n) {
		buf := make([]byte, n)
		if _, err := w.log.ReadAt(buf, size-n); err != nil {
			return nil, nil, fmt.Errorf("audit log %s: read: %w", w.Path(), err)
		}
		end := bytes.LastIndexByte(buf, '\n')
		if n-int64(end+1) > maxTorn {
			break
		}
		start := bytes.LastIndexByte(buf[:max(end, 0)], '\n')
		switch {
		case end >= 0 && (start >= 0 || n == size):
			return buf[start+1 : end], buf[end+1:], nil
		case n == size: // no newline at all
			return nil, buf, nil
		}
	}
	return nil, nil, fmt.Errorf("audit log %s: does not end with a record of this log; move the file away and keep it, and run again", w.Path())
}

// readHead reads a head file; one that was never written gives Head{}.
func readHead(r io.ReaderAt) (Head, error) {
	buf := make([]byte, 128)
	n, err := r.ReadAt(buf, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return Head{}, err
	}
	if n == 0 {
		return Head{}, nil
	}
	h, err := ParseHead(strings.TrimSuffix(string(buf[:n]), "\n"))
	if err != nil { // which has what is there; it may be another file's, that a link leads to
		return Head{}, errors.New("it is not SEQ:HASH, a number and 64 lower-case hex digits")
	}
	return h, nil
}

func fileKind(m os.FileMode) string {
	switch {
	case m.IsDir():
		return "directory"
	case m&os.ModeNamedPipe != 0:
		return "pipe"
	case m&os.ModeSocket != 0:
		return "socket"
	default:
		return "device"
	}
}

// headOf returns the head of a closed file.
func (f files) headOf(number int) (h Head, err error) {
	in, err := f.open(number)
	if err != nil {
		return h, err
	}
	defer in.Close()
	err = backwards(in, func(line []byte) bool {
		if seq, ok := cutSeq(line); ok {
			h = Head{seq, hashOf(line)}
		}
		return false
	})
	if err == nil && h.Seq == 0 {
		err = fmt.Errorf("audit log %s: does not end with a record of this log; move the files of this log away and keep them, and start again", in.Name())
	}
	return h, err
}
