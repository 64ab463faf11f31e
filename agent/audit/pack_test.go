package audit

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
)

// unpack puts the closed files back as they were written, for tests that spoil their lines.
func unpack(t *testing.T, f files) {
	t.Helper()
	numbers, err := f.numbers()
	if err != nil {
		t.Fatal(err)
	}
	dec, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	for _, n := range numbers {
		b, err := os.ReadFile(f.closed(n) + packedExtension)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil {
			b, err = dec.DecodeAll(b, nil)
		}
		if err == nil {
			err = errors.Join(os.WriteFile(f.closed(n), b, 0o600), os.Remove(f.closed(n)+packedExtension))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// large is a closed file of several blocks, compressed, and its lines.
func large(t *testing.T) (f files, lines []byte) {
	t.Helper()
	dir, _ := rotated(t, 12000, Options{Rotate: 4 << 20})
	f = files{dir, "agent"}
	lines = read(t, f.closed(1))
	if err := f.pack(1); err != nil {
		t.Fatal(err)
	}
	return f, lines
}

func TestPacked(t *testing.T) {
	f, lines := large(t)
	name := f.closed(1) + packedExtension
	in, err := f.open(1)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if p := in.(*packed); len(p.index.Blocks) < 3 {
		t.Fatalf("%d blocks", len(p.index.Blocks))
	}
	got := make([]byte, len(lines)+1)
	if n, _ := in.ReadAt(got, 0); !bytes.Equal(got[:n], lines) {
		t.Errorf("%d bytes of %d read back", n, len(lines))
	}
	for off := 0; off < len(lines); off += 77_777 {
		b := make([]byte, 2<<20)
		if n, _ := in.ReadAt(b, int64(off)); n == 0 || !bytes.HasPrefix(lines[off:], b[:n]) {
			t.Fatalf("at %d: %d bytes", off, n)
		}
	}
	for _, path := range []string{f.live(), name, f.closed(1)} {
		if r, err := VerifyFile(path); err != nil || r.Fault != nil {
			t.Errorf("%s: %v, %v", path, r.Fault, err)
		}
	}
	// Other programs read it too.
	if out, err := exec.Command("zstd", "-dc", name).Output(); err == nil && !bytes.Equal(out, lines) {
		t.Errorf("zstd reads %d bytes of %d", len(out), len(lines))
	} else if err != nil && !errors.Is(err, exec.ErrNotFound) {
		t.Error(err)
	}
}

// TestPackedTampered: whatever byte of a compressed file is another one, so that lines are, verify finds it, and in the index too, by which a
// search would miss records.
func TestPackedTampered(t *testing.T) {
	f, lines := large(t)
	name := f.closed(1) + packedExtension
	good := read(t, name)
	bad := func(what string, b []byte) {
		t.Helper()
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := VerifyFile(f.live())
		if err != nil || r.Fault != nil {
			return
		}
		// One text can be compressed in several ways: a copy of what stands so in two places may come from either.
		in, err := f.open(1)
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		got := make([]byte, len(lines)+1)
		if n, _ := in.ReadAt(got, 0); !bytes.Equal(got[:n], lines) {
			t.Errorf("%s: nothing was found, and the lines are others", what)
		} else if len(b) != len(good) {
			t.Errorf("%s: nothing was found", what)
		}
	}
	step := len(good) / 40
	for at := 3; at < len(good); at += step {
		b := bytes.Clone(good)
		b[at] ^= 4
		bad("a bit", b)
		bad("cut", good[:at])
	}
	if err := os.WriteFile(name, good, 0o600); err != nil {
		t.Fatal(err)
	}
	// With an index that hides a sandbox, a plane, a time.
	in, err := f.open(1)
	if err != nil {
		t.Fatal(err)
	}
	x := in.(*packed).index
	in.Close()
	for what, change := range map[string]func(b *block){
		"planes": func(b *block) { b.Planes = 0 }, "verdicts": func(b *block) { b.Verdicts = 0 }, "names": func(b *block) { b.Names = make([]byte, namesBits/8) },
		"newest": func(b *block) { b.Newest = b.Oldest }, "last": func(b *block) { b.Last = b.First },
	} {
		y := index{Blocks: append([]block(nil), x.Blocks...)}
		change(&y.Blocks[1])
		frame, err := y.frame()
		if err != nil {
			t.Fatal(err)
		}
		last := x.Blocks[len(x.Blocks)-1]
		bad(what, append(bytes.Clone(good[:last.At+last.Size]), frame...))
		if r, err := VerifyFile(f.live()); r.Fault != nil || err == nil || !strings.Contains(err.Error(), "a search could miss records") {
			t.Errorf("%s: %v, %v", what, r.Fault, err)
		}
	}
}

// TestPackCutShort has what a kill leaves between the steps of compressing.
func TestPackCutShort(t *testing.T) {
	dir, _ := rotated(t, 50, Options{Rotate: 5000})
	f := files{dir, "agent"}
	numbers, err := f.numbers()
	if err != nil {
		t.Fatal(err)
	}
	last := newest(numbers)
	saved := read(t, f.closed(last))
	if err := errors.Join(f.pack(last), os.WriteFile(f.closed(last), saved, 0o600), os.WriteFile(f.closed(1)+packedExtension+".tmp", []byte("half"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if r, err := VerifyFile(f.live()); err != nil || r.Fault != nil || r.Lines != 50 {
		t.Errorf("before: %+v, %v, %v", r, r.Fault, err)
	}
	w, err := OpenChain(dir, "agent", "", Options{Rotate: 5000})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Append(mixed(51)), w.Close()); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(left) != len(numbers)+2 {
		t.Errorf("left: %v, %v", left, err)
	}
	// The rotation was through, the file compressed, and nothing written after it.
	unpack(t, f)
	if err := errors.Join(os.Rename(f.live(), f.closed(last+1)), f.pack(last+1), os.WriteFile(f.live(), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if w, err = OpenChain(dir, "agent", "", Options{Rotate: 5000}); err != nil || w.Head().Seq != 51 {
		t.Fatal(w, err)
	}
	if err := errors.Join(w.Append(mixed(52)), w.Close()); err != nil {
		t.Fatal(err)
	}
	if r, err := VerifyFile(f.live()); err != nil || r.Fault != nil || r.Lines != 52 {
		t.Errorf("after: %+v, %v, %v", r, r.Fault, err)
	}
}

// TestRetention: by size and age, the oldest first, and nothing that was not forwarded, but where all of it is too large: then it is told.
func TestRetention(t *testing.T) {
	s, e := signer(t)
	var forwarded, told uint64 = 40, 40
	unforwarded := func(first, last uint64) {
		if first != told+1 || last < first {
			t.Errorf("it tells of %d to %d after %d", first, last, told)
		}
		told = last
	}
	for name, c := range map[string]struct {
		o     Options
		first func(uint64) bool
	}{
		"size":      {Options{MaxTotal: 12000}, func(n uint64) bool { return n > 30 }},
		"age":       {Options{MaxAge: time.Minute}, func(n uint64) bool { return n > 90 }}, // records are of months ago
		"young":     {Options{MaxAge: 100 * 365 * 24 * time.Hour}, func(n uint64) bool { return n == 1 }},
		"forwarded": {Options{MaxAge: time.Minute, Forwarded: func() uint64 { return forwarded }}, func(n uint64) bool { return n > 20 && n <= 41 }},
		"full":      {Options{MaxTotal: 12000, Forwarded: func() uint64 { return forwarded }, Unforwarded: unforwarded}, func(n uint64) bool { return n > 41 && n == told+1 }},
	} {
		dir := t.TempDir()
		signed(t, dir, s, 100, c.o)
		r, err := e.VerifyFile(files{dir, "agent"}.live())
		if err != nil || r.Fault != nil || !c.first(r.First) || r.Head.Seq != 100 {
			t.Errorf("%s: %+v, fault %v, %v", name, r, r.Fault, err)
		}
	}
}

// TestRetentionWithAWrongClock: a file is as old as its youngest record, though the last one says that it is of 1970.
func TestRetentionWithAWrongClock(t *testing.T) {
	dir := t.TempDir()
	w, err := OpenChain(dir, "agent", "", Options{Rotate: 3000, MaxAge: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint64(100) {
		d := record(i + 1)
		if d.Time = time.Now().UTC(); i%3 != 0 {
			d.Time = time.Unix(0, 0).UTC()
		}
		if err := errors.Join(w.Append(d), w.Flush()); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.tidyUp(), w.Close()); err != nil {
		t.Fatal(err)
	}
	f := files{dir, "agent"}
	numbers, err := f.numbers()
	if err != nil || len(numbers) < 10 {
		t.Fatal(numbers, err)
	}
	r, err := VerifyFile(f.live())
	if err != nil || r.Fault != nil || r.First != 1 {
		t.Errorf("%+v, %v", r, err)
	}
}

func FuzzIndex(f *testing.F) {
	x := index{Blocks: []block{blockOf([]byte("x\n"))}}
	x.Blocks[0].Size, x.Blocks[0].Bytes = 5, 7
	frame, err := x.frame()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(frame[8 : len(frame)-8])
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := parseIndex(b)
		if err != nil {
			return
		}
		if n := x.size(); n < 0 || x.at(n) != len(x.Blocks) || n > 0 && x.at(n-1) != len(x.Blocks)-1 {
			t.Fatalf("%d blocks, %d bytes", len(x.Blocks), n)
		}
		for i := range x.Blocks {
			x.Blocks[i].may(&Filter{Sandbox: "a", From: time.Unix(1, 0)})
		}
	})
}

// FuzzPacked opens what somebody else wrote as a compressed file.
func FuzzPacked(f *testing.F) {
	var good bytes.Buffer
	line, _ := appendLine(nil, record(1), genesis)
	if err := writePacked(&good, bytes.NewReader(line)); err != nil {
		f.Fatal(err)
	}
	f.Add(good.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		name := filepath.Join(t.TempDir(), "agent.000001.jsonl.zst")
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := VerifyFile(name)
		if err == nil && r.Fault == nil && r.Lines > 0 && !bytes.Equal(b, good.Bytes()) && r.Head.Hash != hashOf(line[:len(line)-1]) {
			t.Fatalf("it verifies as %+v", r)
		}
	})
}
