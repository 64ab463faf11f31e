package audit

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/policy"
)

func TestChainHasOneWriter(t *testing.T) {
	dir := t.TempDir()
	w, err := OpenChain(dir, "agent", "", Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = OpenChain(dir, "agent", "", Options{})
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%s: in use by process %d (", w.Path(), os.Getpid())) {
		t.Errorf("a second writer: %v", err)
	}
	run, err := Open(dir, "box", Options{})
	if err != nil {
		t.Fatalf("a run beside it: %v", err)
	}
	if err := errors.Join(run.Close(), w.Close()); err != nil {
		t.Fatal(err)
	}
	if w, err = OpenChain(dir, "agent", "", Options{}); err != nil {
		t.Fatalf("after it was closed: %v", err)
	}
	w.Close()
	for _, bad := range []string{"", "../agent", "a.000001", "A"} {
		if _, err := OpenChain(dir, bad, "", Options{}); err == nil {
			t.Errorf("the name %q was taken", bad)
		}
	}
	if got, err := Chains(dir); err != nil || len(got) != 2 {
		t.Errorf("chains %v, %v", got, err)
	}
}

func TestVerifyRotated(t *testing.T) {
	const n = 100
	dir, _ := rotated(t, n, Options{Rotate: 5000})
	f := files{dir, "agent"}
	numbers, err := f.numbers()
	if err != nil || len(numbers) < 5 || numbers[0] != 1 {
		t.Fatalf("closed files %v, %v", numbers, err)
	}
	whole, err := VerifyFile(f.live())
	if err != nil || whole.Fault != nil || whole.Lines != n || whole.First != 1 || whole.Files != len(numbers)+1 {
		t.Fatalf("%+v, %v, %v", whole, whole.Fault, err)
	}
	// Each file alone; together they are the chain.
	next := uint64(1)
	for _, i := range numbers {
		r, err := VerifyFile(f.closed(i))
		if err != nil || r.Fault != nil || r.First != next || r.Lines != int(r.Head.Seq-r.First+1) {
			t.Fatalf("file %d alone: %+v, %v, %v", i, r, r.Fault, err)
		}
		next = r.Head.Seq + 1
		if r, err := VerifyFile(f.closed(i), r.Head); err != nil || r.Fault != nil {
			t.Errorf("file %d with its head: %v, %v", i, r.Fault, err)
		}
		if _, err := VerifyFile(f.closed(i), whole.Head); err == nil || !strings.Contains(err.Error(), "can't be checked here") {
			t.Errorf("file %d with the head of the chain: %v", i, err)
		}
	}
	third, err := VerifyFile(f.closed(3))
	if err != nil {
		t.Fatal(err)
	}
	mustBe := func(what string, kind FaultKind, seq uint64, file string) {
		t.Helper()
		r, err := VerifyFile(f.live())
		if err != nil || r.Fault == nil || r.Fault.Kind != kind || r.Fault.Seq != seq || r.Fault.File != file {
			t.Errorf("%s: %+v, %v", what, r.Fault, err)
		}
	}
	saved := read(t, f.closed(3))
	write := func(b []byte) {
		t.Helper()
		if err := os.WriteFile(f.closed(3), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l := lines(bytes.Clone(saved))
	l[1] = bytes.Replace(l[1], []byte("curl"), []byte("wget"), 1)
	write(bytes.Join(l, nil))
	mustBe("changed", Changed, third.First+1, f.closed(3))
	l = lines(bytes.Clone(saved))
	l[len(l)-1] = rehash(bytes.Replace(l[len(l)-1], []byte("curl"), []byte("wget"), 1))
	write(bytes.Join(l, nil))
	mustBe("changed with its hash", Changed, third.Head.Seq+1, f.closed(4))
	write(saved[:len(saved)-1])
	mustBe("cut", Torn, third.Head.Seq, f.closed(3))
	if err := os.Remove(f.closed(3)); err != nil {
		t.Fatal(err)
	}
	mustBe("removed", Lost, third.First, f.closed(4))
	write(saved)
	if err := os.Remove(f.live()); err != nil {
		t.Fatal(err)
	}
	r, err := VerifyFile(f.live())
	if err != nil || r.Fault == nil || r.Fault.Kind != Lost || r.Fault.Seq != next {
		t.Errorf("without its live file: %+v, %v", r.Fault, err)
	}
}

func TestVerifyWithOldFilesRemoved(t *testing.T) {
	dir, _ := rotated(t, 100, Options{Rotate: 5000, Keep: 3})
	f := files{dir, "agent"}
	r, err := VerifyFile(f.live())
	if err != nil || r.Fault != nil || r.Files != 4 || r.First < 10 || r.Head.Seq != 100 {
		t.Fatalf("%+v, %v, %v", r, r.Fault, err)
	}
	old := Head{Seq: r.First - 2, Hash: genesis}
	if _, err := VerifyFile(f.live(), old); err == nil || !strings.Contains(err.Error(), "can't be checked") {
		t.Errorf("the head of a record that was removed: %v", err)
	}
	first := Head{Seq: r.First, Hash: genesis}
	if r, err := VerifyFile(f.live(), first); err != nil || r.Fault == nil || r.Fault.Kind != Changed {
		t.Errorf("a wrong head of the first record: %v, %v", r.Fault, err)
	}
}

// TestRotationCutShort has what a kill leaves between the steps of a rotation.
func TestRotationCutShort(t *testing.T) {
	for name, empty := range map[string]bool{"no live file": false, "an empty live file": true} {
		t.Run(name, func(t *testing.T) {
			dir, _ := rotated(t, 50, Options{Rotate: 5000})
			f := files{dir, "agent"}
			numbers, err := f.numbers()
			if err != nil {
				t.Fatal(err)
			}
			err = os.Rename(f.live(), f.closed(newest(numbers)+1))
			if empty {
				err = errors.Join(err, os.WriteFile(f.live(), nil, 0o600))
			}
			if err != nil {
				t.Fatal(err)
			}
			if r, err := VerifyFile(f.live()); err != nil || r.Fault != nil || r.Lines != 50 {
				t.Errorf("before the repair: %+v, %v, %v", r, r.Fault, err)
			}
			w, err := OpenChain(dir, "agent", "", Options{Rotate: 5000})
			if err != nil || w.Head().Seq != 50 {
				t.Fatalf("%v, %v", w.Head(), err)
			}
			for i := range 50 {
				if err := errors.Join(w.Append(mixed(uint64(51+i))), w.Flush()); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if r, err := VerifyFile(f.live()); err != nil || r.Fault != nil || r.Lines != 100 {
				t.Errorf("after it: %+v, %v, %v", r, r.Fault, err)
			}
		})
	}
}

// TestWriterProcess is the writer that TestKilledWriter kills.
func TestWriterProcess(t *testing.T) {
	dir := os.Getenv("AUDIT_TEST_DIR")
	if dir == "" {
		return
	}
	w, err := OpenChain(dir, "agent", "", Options{Rotate: 3000})
	if err != nil {
		t.Fatal(err)
	}
	for seq := w.Head().Seq + 1; ; seq++ {
		if err := w.Append(&policy.Decision{Seq: seq, Object: strings.Repeat("x", int(seq%500))}); err != nil {
			t.Fatal(err)
		}
		if seq%3 == 0 {
			if err := w.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestKilledWriter kills a writer that rotates all the time, at random moments: the chain always goes on, and is whole.
func TestKilledWriter(t *testing.T) {
	dir := t.TempDir()
	var before uint64
	for range 12 {
		c := exec.Command(os.Args[0], "-test.run=^TestWriterProcess$")
		c.Env = append(os.Environ(), "AUDIT_TEST_DIR="+dir)
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(10+rand.IntN(40)) * time.Millisecond)
		_ = c.Process.Kill()
		_ = c.Wait()
		w, err := OpenChain(dir, "agent", "", Options{Rotate: 3000})
		if err != nil {
			t.Fatal(err)
		}
		head := w.Head()
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		r, err := VerifyFile(filepath.Join(dir, "agent.jsonl"))
		if err != nil || r.Fault != nil || head.Seq < before || r.Head != head && head.Seq > 0 {
			t.Fatalf("after %d records: %+v, fault %v, %v, head %v", before, r, r.Fault, err, head)
		}
		before = head.Seq
	}
	if before == 0 {
		t.Error("no writer wrote anything")
	}
}
