//go:build e2e

package audit

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/test/harness"
)

func TestMain(m *testing.M) { harness.Mounts(m) }

// crash leaves a chain as a kill does: nothing more is written, and nothing that is queued either.
func crash(t *testing.T, w *Writer) {
	t.Helper()
	w.mu.Lock()
	w.pending, w.closing, w.losing.now = nil, true, false
	w.work.Signal()
	w.mu.Unlock()
	<-w.stopped
	close(w.rotated)
	<-w.kept
	w.disk.Lock()
	defer w.disk.Unlock()
	if err := errors.Join(w.head.Close(), w.log.Close()); err != nil {
		t.Fatal(err)
	}
	w.signing.stop()
}

// lostRecords are the counts of what the log says was lost.
func lostRecords(t *testing.T, f files) (list []uint64) {
	t.Helper()
	each(t, f, func(l []byte) {
		if n := lostBefore(l); n > 0 {
			list = append(list, n)
		}
	})
	return list
}

// TestFullKilled: a writer that is killed while its disk is full, over and over, forgets no number that it gave.
func TestFullKilled(t *testing.T) {
	s, e := signer(t)
	dir := harness.Memory(t, "4m")
	f := files{dir, "agent"}
	o := Options{Drop: true, Signer: s}
	open := func() *Writer {
		t.Helper()
		w, err := OpenChain(dir, "agent", "", o)
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	appended := func(w *Writer, n int) (seq uint64) {
		t.Helper()
		for range n {
			seq = w.Head().Seq + 1
			if err := w.Append(record(seq)); err != nil {
				t.Fatal(err)
			}
		}
		return seq
	}
	w := open()
	written := appended(w, 10)
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	room := harness.Fill(t, dir)
	without := 0            // starts that found no room even for the count
	for round := range 10 { // what is left of the last page takes a record now and then
		last := appended(w, 2000)
		if err := w.Sync(last); err == nil || !strings.Contains(err.Error(), "make room") {
			t.Fatalf("the disk should be full: %v", err)
		}
		last = appended(w, 5) // after it was found to be full
		crash(t, w)
		w = open()
		if got := w.Head().Seq; got != last {
			t.Fatalf("round %d: the next writer begins after record %d, want %d", round, got, last)
		}
		w.mu.Lock()
		if w.losing.now {
			without++
		}
		w.mu.Unlock()
	}
	if without == 0 {
		t.Error("each start has found room")
	}
	crash(t, w)
	room()
	w = open()
	last := w.Head().Seq
	if err := errors.Join(w.Sync(last), w.Close()); err != nil {
		t.Fatal(err)
	}
	r, err := e.VerifyFile(w.Path())
	if err != nil || r.Fault != nil || r.Head.Seq != last || r.Signed == nil || r.Signed.Seq != last {
		t.Fatalf("%+v, fault %v, %v; want %d", r, r.Fault, err, last)
	}
	list := lostRecords(t, f)
	if uint64(r.Lines-len(list))+r.Lost != last || r.Lost < last-written-100 {
		t.Errorf("%d lines, %v lost of %d", r.Lines, list, last)
	}
	t.Logf("%d starts found no room; %v lost of %d", without, list, last)
}

// TestFullAtBirth: a log whose first record finds no room begins with the count of what was lost.
func TestFullAtBirth(t *testing.T) {
	s, e := signer(t)
	dir := harness.Memory(t, "1m")
	w, err := OpenChain(dir, "agent", "", Options{Drop: true, Signer: s})
	if err != nil {
		t.Fatal(err)
	}
	room := harness.Fill(t, dir)
	if err := errors.Join(w.Append(record(1)), w.Append(record(2))); err != nil {
		t.Fatal(err)
	}
	if err := w.Sync(2); err == nil {
		t.Fatal("there is room")
	}
	room()
	time.Sleep(2 * retryEvery)
	if err := errors.Join(w.Append(record(3)), w.Sync(3), w.Close()); err != nil {
		t.Fatal(err)
	}
	if r, err := e.VerifyFile(w.Path()); err != nil || r.Fault != nil || r.Lost != 2 || r.Head.Seq != 3 {
		t.Fatalf("%+v, fault %v, %v", r, r.Fault, err)
	}
}

// TestFullAndTorn: a start that finds no room leaves a torn line for the next one to keep.
func TestFullAndTorn(t *testing.T) {
	dir := harness.Memory(t, "1m")
	w, err := OpenChain(dir, "agent", "", Options{})
	if err != nil {
		t.Fatal(err)
	}
	for seq := range uint64(200) {
		if err := w.Append(record(seq + 1)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(w.Path())
	if err != nil {
		t.Fatal(err)
	}
	// The torn line ends with its page, so that the record about it needs another one.
	page := int64(os.Getpagesize())
	log, err := os.OpenFile(w.Path(), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	torn := strings.Repeat("x", int(2*page-st.Size()%page))
	_, err = log.WriteString(torn)
	if err := errors.Join(err, log.Close()); err != nil {
		t.Fatal(err)
	}
	room := harness.Fill(t, dir)
	if _, err := OpenChain(dir, "agent", "", Options{}); !full(err) {
		t.Fatalf("without room: %v", err)
	}
	if !strings.HasSuffix(string(read(t, w.Path())), torn) {
		t.Error("the torn line is gone")
	}
	room()
	if w, err = OpenChain(dir, "agent", "", Options{}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if r, err := VerifyFile(w.Path()); err != nil || r.Fault != nil || r.Lines != 201 {
		t.Errorf("%+v, %v", r, err)
	}
}
