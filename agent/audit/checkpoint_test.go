package audit

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// signed writes n records with a signer, in files of 5,000 bytes, and closes.
func signed(t *testing.T, dir string, s *Signer, n int, o Options) {
	t.Helper()
	if o.Rotate == 0 {
		o.Rotate = 5000
	}
	o.Signer = s
	w, err := OpenChain(dir, "agent", "", o)
	if err != nil {
		t.Fatal(err)
	}
	for range n {
		if err := errors.Join(w.Append(mixed(w.Head().Seq+1)), w.Flush()); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	unpack(t, files{dir, "agent"})
}

func signer(t *testing.T) (*Signer, Evidence) {
	t.Helper()
	s, err := OpenSigner(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return s, Evidence{Keys: []ed25519.PublicKey{s.Public()}}
}

func TestSigned(t *testing.T) {
	s, e := signer(t)
	dir := t.TempDir()
	signed(t, dir, s, 60, Options{})
	signed(t, dir, s, 40, Options{})
	f := files{dir, "agent"}
	r, err := e.VerifyFile(f.live())
	if err != nil || r.Fault != nil || r.Signed == nil || r.Signed.Seq != 100 {
		t.Fatalf("%+v, fault %v, %v", r, r.Fault, err)
	}
	numbers, err := f.numbers()
	if err != nil || len(numbers) < 5 {
		t.Fatal(numbers, err)
	}
	for _, n := range numbers {
		if r, err := e.VerifyFile(f.closed(n)); err != nil || r.Fault != nil || r.Signed == nil || r.Signed.Seq != r.Head.Seq {
			t.Errorf("file %d alone: %+v, fault %v, %v", n, r, r.Fault, err)
		}
	}
	again, err := OpenSigner(s.dir)
	if err != nil || !again.Public().Equal(s.Public()) {
		t.Errorf("the key is another: %v", err)
	}
	if st, err := os.Stat(filepath.Join(s.dir, keyFile)); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the key's mode: %v, %v", st.Mode(), err)
	}
	if k, err := ParseKey(FormatKey(s.Public()) + "\n"); err != nil || !k.Equal(s.Public()) {
		t.Errorf("the key as text: %v", err)
	}
	if err := os.Chmod(filepath.Join(s.dir, keyFile), 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenSigner(s.dir); err == nil || !strings.Contains(err.Error(), "others than its owner can read it") {
		t.Errorf("a key that others can read: %v", err)
	}
}

// TestSignedAndRemoved: what is left after the oldest files were removed is vouched for from its beginning; what is left after
// somebody removed more is not.
func TestSignedAndRemoved(t *testing.T) {
	s, e := signer(t)
	dir := t.TempDir()
	signed(t, dir, s, 100, Options{Keep: 3})
	f := files{dir, "agent"}
	r, err := e.VerifyFile(f.live())
	if err != nil || r.Fault != nil || r.First < 20 || r.Signed.Seq != 100 {
		t.Fatalf("%+v, fault %v, %v", r, r.Fault, err)
	}
	b := lines(read(t, f.live()+sigExtension))
	if c, err := ReadCheckpoint(bytes.TrimSpace(b[0]), e.Keys); err != nil || c.Seq+1 != r.First {
		t.Errorf("the first checkpoint left is of record %d, the log begins with %d: %v", c.Seq, r.First, err)
	}
	if err := os.WriteFile(f.live()+sigExtension, bytes.Join(b[1:], nil), 0o600); err != nil {
		t.Fatal(err)
	}
	if r, err := e.VerifyFile(f.live()); err != nil || r.Fault == nil || !strings.Contains(r.Fault.Detail, "no checkpoint says that record") {
		t.Errorf("without the checkpoint of its beginning: %v, %v", r.Fault, err)
	}
}

// forgeAll writes the log anew, as its writer would have, but for one word; the head beside it too.
func forgeAll(t *testing.T, f files, from uint64) {
	t.Helper()
	numbers, err := f.numbers()
	if err != nil {
		t.Fatal(err)
	}
	hash := genesis
	var seq uint64
	for _, n := range append(numbers, 0) {
		var out []byte
		for _, l := range lines(read(t, f.closed(n))) {
			seq++
			if seq >= from {
				l = bytes.Replace(l, []byte(`"pid":42`), []byte(`"pid":41`), 1)
				content := l[:len(l)-len(keyHash)-hashLen-len("\"}\n")-len(keyPrev)-hashLen-1]
				l = rehash([]byte(string(content) + string(keyPrev) + hash + `"` + string(keyHash) + hash + "\"}\n"))
			}
			hash = hashOf(l[:len(l)-1])
			out = append(out, l...)
		}
		if err := os.WriteFile(f.closed(n), out, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	head, err := os.OpenFile(f.live()+".head", os.O_RDWR, 0)
	if err == nil {
		err = errors.Join(writeHead(head, Head{seq, hash}), head.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestForgedWithoutTheKey: who may write the log and all that is beside it writes it anew.
func TestForgedWithoutTheKey(t *testing.T) {
	s, e := signer(t)
	other, theirs := signer(t)
	forge := func(t *testing.T, from uint64) files {
		dir := t.TempDir()
		signed(t, dir, s, 60, Options{})
		f := files{dir, "agent"}
		forgeAll(t, f, from)
		if r, err := VerifyFile(f.live()); err != nil || r.Fault != nil {
			t.Fatalf("the forger is not good enough: %v, %v", r.Fault, err)
		}
		return f
	}
	found := func(t *testing.T, what string, f files, want string) {
		t.Helper()
		r, err := e.VerifyFile(f.live())
		if r.Fault != nil {
			err = r.Fault
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", what, err, want)
		}
	}
	for _, from := range []uint64{1, 30, 60} {
		f := forge(t, from)
		found(t, "with the checkpoints as they were", f, "its hash is not the one that was kept")
		// Signed with a key of the forger's.
		r, err := VerifyFile(f.live())
		if err != nil {
			t.Fatal(err)
		}
		forged := signHead(other.key, Checkpoint{r.Head, time.Now()})
		if err := os.WriteFile(f.live()+sigExtension, forged, 0o600); err != nil {
			t.Fatal(err)
		}
		found(t, "with another key", f, "is not signed with the key")
		if r, err := theirs.VerifyFile(f.live()); err != nil || r.Fault != nil {
			t.Errorf("the forger's own key: %v, %v", r.Fault, err)
		}
		// A signature of the true log, put to another record.
		sig := signHead(s.key, Checkpoint{Head{60, r.Head.Hash}, time.Now()})
		bad := bytes.Replace(sig, []byte(`{"seq":60`), []byte(`{"seq":59`), 1)
		if err := os.WriteFile(f.live()+sigExtension, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		found(t, "with a signature of something else", f, "is not signed with the key")
	}
	// Where the daemon starts again it finds it, whatever is beside the log, and says so in it.
	for _, from := range []uint64{1, 30, 60} {
		f := forge(t, from)
		if err := os.Remove(f.live() + sigExtension); err != nil {
			t.Fatal(err)
		}
		signed(t, f.dir, s, 1, Options{Rotate: 1 << 20})
		if last := lines(read(t, f.live())); !bytes.Contains(bytes.Join(last, nil), []byte("the log is not what it was when its writer ended")) {
			t.Errorf("forged from %d on, the next start wrote %s", from, last)
		}
	}
	// Cut off, with all that is beside it made to fit: the head that is kept with the key is another.
	dir := t.TempDir()
	signed(t, dir, s, 60, Options{Rotate: 1 << 20})
	f := files{dir, "agent"}
	l := lines(read(t, f.live()))
	err := errors.Join(os.WriteFile(f.live(), bytes.Join(l[:40], nil), 0o600), os.Remove(f.live()+".head"),
		os.WriteFile(f.live()+sigExtension, signHead(s.key, Checkpoint{Head{40, hashOf(l[39][:len(l[39])-1])}, time.Now()}), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	signed(t, dir, s, 1, Options{Rotate: 1 << 20})
	found(t, "cut off", f, "record 41 lost")
}

// TestUnsignedTail: a log whose checkpoints were taken off goes on for longer than its writer would let it.
func TestUnsignedTail(t *testing.T) {
	s, e := signer(t)
	dir := t.TempDir()
	w, err := OpenChain(dir, "agent", "", Options{Signer: s})
	if err != nil {
		t.Fatal(err)
	}
	const n = 5 * signEvery
	for i := range n {
		if err := w.Append(record(uint64(i + 1))); err != nil {
			t.Fatal(err)
		}
		if i%500 == 499 {
			if err := w.Flush(); err != nil {
				t.Fatal(err)
			}
			if i == 499 {
				w.sign()
			}
			if r, err := e.VerifyFile(w.Path()); err != nil || r.Fault != nil {
				t.Fatalf("after %d: %v, %v", i, r.Fault, err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	b := lines(read(t, w.Path()+sigExtension))
	if len(b) < 3 {
		t.Fatalf("%d checkpoints", len(b))
	}
	if err := os.WriteFile(w.Path()+sigExtension, b[0], 0o600); err != nil {
		t.Fatal(err)
	}
	if r, err := e.VerifyFile(w.Path()); err != nil || r.Fault == nil || r.Fault.Kind != Unsigned {
		t.Errorf("with one checkpoint: %v, %v", r.Fault, err)
	}
	// What was anchored is found to be there, or not.
	c, err := ReadCheckpoint(bytes.TrimSpace(b[len(b)-1]), e.Keys)
	if err != nil {
		t.Fatal(err)
	}
	e.Anchors = []Checkpoint{c}
	l := lines(read(t, w.Path()))
	if err := errors.Join(os.WriteFile(w.Path(), bytes.Join(l[:signEvery], nil), 0o600), os.Remove(w.Path()+".head")); err != nil {
		t.Fatal(err)
	}
	if r, err := e.VerifyFile(w.Path()); err != nil || r.Fault == nil || r.Fault.Kind != Lost {
		t.Errorf("cut before what was anchored: %v, %v", r.Fault, err)
	}
}

// TestCheckpointInTime: a log in which nothing more happens is signed too.
func TestCheckpointInTime(t *testing.T) {
	s, e := signer(t)
	w, err := OpenChain(t.TempDir(), "agent", "", Options{Signer: s})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := errors.Join(w.Append(record(1)), w.Flush()); err != nil {
		t.Fatal(err)
	}
	w.sign() // what the timer does
	if r, err := e.VerifyFile(w.Path()); err != nil || r.Signed == nil || r.Signed.Seq != 1 {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestAnchor: the last checkpoint is anchored when the log is closed, and an anchor that fails is told, and stops nothing.
func TestAnchor(t *testing.T) {
	s, e := signer(t)
	var got []byte
	var warned int
	o := Options{Anchor: func(line []byte) error { got = append(got, line...); return nil }, Signer: s}
	dir := t.TempDir()
	signed(t, dir, s, 10, o)
	file := filepath.Join(t.TempDir(), "anchored")
	if err := os.WriteFile(file, append([]byte("Nov 23 host nemoclaw: "), got...), 0o600); err != nil {
		t.Fatal(err)
	}
	list, err := ReadCheckpoints(file, e.Keys)
	if err != nil || len(list) == 0 || list[len(list)-1].Seq != 10 {
		t.Fatalf("%v, %v", list, err)
	}
	signed(t, dir, s, 10, Options{Anchor: func([]byte) error { return errors.New("no") }, Warn: func(error) { warned++ }})
	if warned == 0 {
		t.Error("nobody was told")
	}
}

func FuzzCheckpoint(f *testing.F) {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	good := signHead(key, Checkpoint{Head{12, genesis}, time.Unix(1, 2)})
	f.Add(good[:len(good)-1])
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ReadCheckpoint(b, []ed25519.PublicKey{key.Public().(ed25519.PublicKey)})
		if err == nil && !bytes.Equal(append(bytes.Clone(b), '\n'), signHead(key, c)) {
			t.Fatalf("%q is read as %+v", b, c)
		}
	})
}

// TestOneKey: who asks for a key at the same time, with none there yet, gets the same one.
func TestOneKey(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state", "audit")
	keys := make([]string, 16)
	var all sync.WaitGroup
	for i := range keys {
		all.Go(func() {
			s, err := OpenSigner(dir)
			if err != nil {
				t.Error(err)
				return
			}
			keys[i] = FormatKey(s.Public())
		})
	}
	all.Wait()
	slices.Sort(keys)
	if different := slices.Compact(keys); len(different) != 1 {
		t.Errorf("%d keys", len(different))
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 1 {
		t.Errorf("%v, %v", names, err)
	}
}

// TestSignedAtOnce: a log is signed from its first record on, so nobody who looks early finds it unsigned.
func TestSignedAtOnce(t *testing.T) {
	t.Parallel()
	key, _ := signer(t)
	w, err := Open(t.TempDir(), "box", Options{Signer: key})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for n := range uint64(3) {
		if n > 0 {
			if err := errors.Join(w.Append(mixed(n)), w.Flush()); err != nil {
				t.Fatal(err)
			}
		}
		known, err := key.Evidence(w.Path())
		if err != nil {
			t.Fatal(err)
		}
		r, err := known.VerifyFile(w.Path())
		if err != nil || r.Fault != nil || n > 0 && r.Signed == nil {
			t.Errorf("of %d records, signed %v: %v, %v", n, r.Signed, r.Fault, err)
		}
	}
}
