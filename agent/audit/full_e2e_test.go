//go:build e2e

package audit

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/test/harness"
)

const perSecond = 100_000

// load appends records at perSecond until it is told to stop, and returns the last one. ack is given the numbers that Sync said
// are on the disk.
func load(w *Writer, stop func() bool, ack func(seq uint64)) (last uint64, err error) {
	began, seq := time.Now(), w.Head().Seq
	for n := 0; !stop(); {
		for due := int(time.Since(began).Seconds() * perSecond); n < due; n++ {
			seq++
			if err := w.Append(record(seq)); err != nil {
				return seq, err
			}
			if n%2000 == 0 {
				if err := w.Sync(seq); err == nil {
					ack(seq)
				}
			}
		}
		time.Sleep(time.Millisecond)
	}
	return seq, nil
}

func within(d time.Duration) func() bool {
	end := time.Now().Add(d)
	return func() bool { return time.Now().After(end) }
}

// ballast is a file that takes room until it is removed.
func ballast(t *testing.T, dir string, size int) string {
	t.Helper()
	name := filepath.Join(dir, "ballast")
	if err := os.WriteFile(name, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestFullDrop: a full disk under load. What it does not take is counted, nothing that was said to be on it is lost, and the log
// goes on once there is room.
func TestFullDrop(t *testing.T) {
	s, e := signer(t)
	dir := harness.Memory(t, "64m")
	room := ballast(t, dir, 56<<20)
	o := Options{Rotate: 3 << 20, Drop: true, Signer: s}
	w, err := OpenChain(dir, "agent", "", o)
	if err != nil {
		t.Fatal(err)
	}
	var acked []uint64
	ack := func(seq uint64) { acked = append(acked, seq) }
	if _, err := load(w, within(2*time.Second), ack); err != nil {
		t.Fatal(err)
	}
	if err := w.Sync(w.Head().Seq); err == nil || !strings.Contains(err.Error(), "make room") {
		t.Fatalf("the disk should be full: %v", err)
	}
	if err := os.Remove(room); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * retryEvery)
	last, err := load(w, within(200*time.Millisecond), ack)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Sync(last), w.Close()); err != nil {
		t.Fatal(err)
	}
	r, err := e.VerifyFile(w.Path())
	if err != nil || r.Fault != nil || r.Head.Seq != last || r.Lost == 0 || r.Signed.Seq != last {
		t.Fatalf("%+v, fault %v, %v; want %d", r, r.Fault, err, last)
	}
	if w.Lost() != r.Lost {
		t.Errorf("the writer counts %d lost records, the log %d", w.Lost(), r.Lost)
	}
	if notes := countNotes(t, files{dir, "agent"}); uint64(r.Lines)+r.Lost-uint64(notes) != last {
		t.Errorf("%d lines, of which %d count %d lost ones: of %d", r.Lines, notes, r.Lost, last)
	}
	present(t, files{dir, "agent"}, acked)
	t.Logf("%d records, %d lost, %d acknowledged", last, r.Lost, len(acked))
}

func countNotes(t *testing.T, f files) (n int) {
	each(t, f, func(l []byte) {
		if lostBefore(l) > 0 {
			n++
		}
	})
	return n
}

// each calls fn with every line of a chain.
func each(t *testing.T, f files, fn func(l []byte)) {
	t.Helper()
	if err := Query(t.Context(), f.dir, f.name, Filter{}, func(_ uint64, l []byte) error { fn(l); return nil }); err != nil {
		t.Fatal(err)
	}
}

// present wants records to be there as they were written.
func present(t *testing.T, f files, seqs []uint64) {
	t.Helper()
	if len(seqs) == 0 {
		t.Error("nothing was acknowledged")
	}
	there := map[uint64]bool{}
	each(t, f, func(l []byte) {
		if seq, ok := cutSeq(l); ok && lostBefore(l) == 0 {
			there[seq] = true
		}
	})
	for _, seq := range seqs {
		if !there[seq] {
			t.Fatalf("record %d was acknowledged, and is not there", seq)
		}
	}
}

// TestFullDeny: without Drop the writer ends at once, what was acknowledged is there, and with room the next one goes on.
func TestFullDeny(t *testing.T) {
	s, e := signer(t)
	dir := harness.Memory(t, "16m")
	room := ballast(t, dir, 8<<20)
	w, err := OpenChain(dir, "agent", "", Options{Rotate: 3 << 20, Signer: s})
	if err != nil {
		t.Fatal(err)
	}
	var acked []uint64
	_, err = load(w, within(10*time.Second), func(seq uint64) { acked = append(acked, seq) })
	if !full(err) {
		t.Fatalf("the load ended with %v", err)
	}
	<-w.Failed()
	if err := w.Close(); !full(err) {
		t.Errorf("Close: %v", err)
	}
	if err := os.Remove(room); err != nil {
		t.Fatal(err)
	}
	w, err = OpenChain(dir, "agent", "", Options{Signer: s})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Append(record(w.Head().Seq+1)), w.Close()); err != nil {
		t.Fatal(err)
	}
	r, err := e.VerifyFile(w.Path())
	if err != nil || r.Fault != nil || r.Lost != 0 {
		t.Fatalf("%+v, fault %v, %v", r, r.Fault, err)
	}
	present(t, files{dir, "agent"}, acked)
	t.Logf("%d records, %d acknowledged", r.Head.Seq, len(acked))
}

// TestLoadProcess is the writer that TestKilledUnderLoad kills. It prints what is acknowledged.
func TestLoadProcess(t *testing.T) {
	dir := os.Getenv("AUDIT_LOAD_DIR")
	if dir == "" {
		return
	}
	s, err := OpenSigner(os.Getenv("AUDIT_LOAD_KEY"))
	if err != nil {
		t.Fatal(err)
	}
	w, err := OpenChain(dir, "agent", "", Options{Rotate: 3 << 20, Drop: true, Signer: s})
	if err != nil {
		t.Fatal(err)
	}
	_, err = load(w, func() bool { return false }, func(seq uint64) { fmt.Println("acked", seq) })
	t.Fatal(err)
}

// TestKilledUnderLoad kills the writer of 100,000 records a second, with room on the disk and without.
func TestKilledUnderLoad(t *testing.T) {
	s, e := signer(t)
	dir := harness.Memory(t, "256m")
	var acked []uint64
	for round := range 6 {
		room := ""
		if round >= 4 {
			room = ballast(t, dir, (256-12)<<20-used(t, dir))
		}
		c := exec.Command(os.Args[0], "-test.run=^TestLoadProcess$")
		c.Env = append(os.Environ(), "AUDIT_LOAD_DIR="+dir, "AUDIT_LOAD_KEY="+s.dir)
		out, err := c.StdoutPipe()
		if err == nil {
			err = c.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(500*time.Millisecond+time.Duration(rand.IntN(1000))*time.Millisecond, func() { _ = c.Process.Kill() })
		for in := bufio.NewScanner(out); in.Scan(); {
			if num, ok := strings.CutPrefix(in.Text(), "acked "); ok {
				seq, err := strconv.ParseUint(num, 10, 64)
				if err != nil {
					t.Fatal(err)
				}
				acked = append(acked, seq)
			} else {
				t.Log(in.Text())
			}
		}
		_ = c.Wait()
		if room != "" {
			if err := os.Remove(room); err != nil {
				t.Fatal(err)
			}
		}
		w, err := OpenChain(dir, "agent", "", Options{Signer: s})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if r, err := e.VerifyFile(w.Path()); err != nil || r.Fault != nil || r.Signed == nil {
			t.Fatalf("round %d: %+v, fault %v, %v", round, r, r.Fault, err)
		}
	}
	present(t, files{dir, "agent"}, acked)
	each(t, files{dir, "agent"}, func(l []byte) {
		if strings.Contains(string(l), "not what it was") {
			t.Errorf("a kill was taken for a forgery: %s", l)
		}
	})
	t.Logf("%d acknowledged", len(acked))
}

func used(t *testing.T, dir string) int {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return int(st.Blocks-st.Bfree) * int(st.Bsize)
}
