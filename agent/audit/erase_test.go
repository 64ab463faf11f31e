package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/nemoclaw/nemoclaw/policy"
)

// secret is in one record only.
func secret(seq uint64) string { return fmt.Sprintf("secret-%06d-text", seq) }

func secretRecord(seq uint64) *policy.Decision {
	d := record(seq)
	switch seq % 4 {
	case 0:
		d.Object = secret(seq)
	case 1:
		d.Subject.Args = "tool --token " + secret(seq)
	case 2:
		d.Reason = `"` + secret(seq) + `"`
	default:
		d.Plane, d.Inference = policy.PlaneInference, &policy.ModelCall{ID: "1", Model: "m/x", Tool: &policy.ToolUse{Params: `{"x":"` + secret(seq) + `"}`}}
	}
	return d
}

// chain is a signed log of n records with secrets, in several files.
type secretChain struct {
	f   files
	key *Signer
	w   *Writer

	close func() error // w, once
}

func newChain(t *testing.T, n int, o Options) *secretChain {
	t.Helper()
	dir := t.TempDir()
	key, err := OpenSigner(filepath.Join(dir, "key"))
	if err != nil {
		t.Fatal(err)
	}
	o.Signer = key
	if o.Rotate == 0 {
		o.Rotate = 6000
	}
	c := &secretChain{f: files{filepath.Join(dir, "log"), "agent"}, key: key}
	c.open(t, o)
	for range n {
		c.append(t)
	}
	return c
}

func (c *secretChain) open(t *testing.T, o Options) {
	t.Helper()
	o.Signer = c.key
	w, err := OpenChain(c.f.dir, c.f.name, "", o)
	if err != nil {
		t.Fatal(err)
	}
	c.w = w
	c.close = sync.OnceValue(w.Close)
	closing := c.close
	t.Cleanup(func() { _ = closing() })
}

func (c *secretChain) append(t *testing.T) {
	t.Helper()
	if err := errors.Join(c.w.Append(secretRecord(c.w.Head().Seq+1)), c.w.Flush()); err != nil {
		t.Fatal(err)
	}
}

func (c *secretChain) erase(t *testing.T, records string) Survey {
	t.Helper()
	list, err := ParseRanges(records)
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.w.Erase(t.Context(), Erasure{Records: list, Reason: "a person asked for it", By: "root"}, c.w.Recorder(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// known is what root of the host knows of the log.
func (c *secretChain) known(t *testing.T) Evidence {
	t.Helper()
	e, err := c.key.Evidence(c.f.live())
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func (c *secretChain) verify(t *testing.T) Report {
	t.Helper()
	r, err := c.known(t).VerifyFile(c.f.live())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (c *secretChain) good(t *testing.T, erased uint64) {
	t.Helper()
	if r := c.verify(t); r.Fault != nil || r.Erased != erased {
		t.Fatalf("fault %v, %d erased, want %d", r.Fault, r.Erased, erased)
	}
}

// bytesOf is all that is in the log's directory, decompressed too.
func bytesOf(t *testing.T, dir string) []byte {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	dec, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	var all []byte
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b...)
		if strings.HasSuffix(e.Name(), packedExtension) {
			if b, err = dec.DecodeAll(b, nil); err != nil {
				t.Fatalf("%s: %v", e.Name(), err)
			}
			all = append(all, b...)
		}
	}
	return all
}

// TestErase: whatever set of records is erased, their texts are in no file, all others are, and the chain is whole.
func TestErase(t *testing.T) {
	t.Parallel()
	const n = 150
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			c := newChain(t, n, Options{})
			r := rand.New(rand.NewPCG(seed, 1))
			gone := map[uint64]bool{}
			for range 1 + r.IntN(3) {
				var list []string
				for range 1 + r.IntN(20) {
					first := 1 + r.Uint64N(n)
					last := min(n, first+r.Uint64N(4))
					list = append(list, fmt.Sprintf("%d-%d", first, last))
					for seq := first; seq <= last; seq++ {
						gone[seq] = true
					}
				}
				c.erase(t, strings.Join(list, ","))
				c.good(t, uint64(len(gone)))
				c.append(t)
			}
			head := c.w.Head()
			if err := c.close(); err != nil {
				t.Fatal(err)
			}
			c.good(t, uint64(len(gone)))
			all := bytesOf(t, c.f.dir)
			for seq := uint64(1); seq <= n; seq++ {
				if is := bytes.Contains(all, []byte(secret(seq))); is == gone[seq] {
					t.Errorf("record %d: erased %v, its text is there: %v", seq, gone[seq], is)
				}
			}
			c.open(t, Options{Rotate: 6000}) // the chain goes on
			if c.w.Head() != head {
				t.Errorf("head %v, was %v", c.w.Head(), head)
			}
			c.append(t)
			c.good(t, uint64(len(gone)))
		})
	}
}

func TestEraseSays(t *testing.T) {
	t.Parallel()
	c := newChain(t, 40, Options{})
	before := c.w.Head().Seq
	s := c.erase(t, "3-5,39-40")
	if s.Records.String() != "3-5,39-40" || len(s.Files) != 2 || s.Files[0].Records != 3 || s.Files[1].Records != 2 {
		t.Errorf("%+v", s)
	}
	var said []policy.Decision
	if err := c.w.Query(t.Context(), Filter{Since: before}, func(_ uint64, line []byte) error {
		said = append(said, read1(t, line))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(said) != 1 || said[0].Action != "erase" || said[0].Object != "3-5,39-40" || said[0].Reason != "a person asked for it, by root" || said[0].Plane != policy.PlaneSystem {
		t.Errorf("recorded %+v", said)
	}
	// Again: nothing is left to do, and nothing is written down. Nor is the record of it erased.
	if s := c.erase(t, "3-5,41"); s.Records != nil || s.Already != 3 || s.Keeps != 1 || c.w.Head().Seq != before+1 {
		t.Errorf("again: %+v, head %v", s, c.w.Head())
	}
	for name, e := range map[string]Erasure{
		"nothing":         {Reason: "x"},
		"no reason":       {Records: Ranges{{1, 1}}},
		"a long reason":   {Records: Ranges{{1, 1}}, Reason: strings.Repeat("x", maxReason+1)},
		"no such record":  {Records: Ranges{{50, 50}}, Reason: "x"},
		"one that is not": {Records: Ranges{{1, 100}}, Reason: "x"},
	} {
		if _, err := c.w.Erase(t.Context(), e, c.w.Recorder(), nil); err == nil {
			t.Errorf("%s: it is erased", name)
		}
	}
	c.good(t, 5)
}

// TestEraseManyRanges: what one record has no room for is said by several.
func TestEraseManyRanges(t *testing.T) {
	t.Parallel()
	c := newChain(t, 2400, Options{Rotate: 200_000})
	var list []string
	for seq := 1; seq < 2400; seq += 2 {
		list = append(list, fmt.Sprint(seq))
	}
	c.erase(t, strings.Join(list, ","))
	if said := c.w.Head().Seq - 2400; said < 2 {
		t.Errorf("%d records say it", said)
	}
	c.good(t, 1200)
}

func TestFind(t *testing.T) {
	t.Parallel()
	c := newChain(t, 30, Options{})
	look := func(sel Selection) Survey {
		t.Helper()
		lines := 0
		s, err := Find(t.Context(), c.f.dir, "agent", sel, func([]byte) { lines++ })
		if err != nil || uint64(lines) != s.Records.Count() {
			t.Fatalf("%d lines, %+v, %v", lines, s, err)
		}
		return s
	}
	for match, want := range map[string]string{"SECRET-000007": "7", `"SECRET-000006-TEXT"`: "6", "secret-00000": "1-9", "--token secret-000009": "9", `{"x":"secret-000003`: "3"} {
		if s := look(Selection{Match: match}); s.Records.String() != want {
			t.Errorf("%s: %v, want %s", match, s.Records, want)
		}
	}
	if s := look(Selection{Match: "p.yaml"}); s.Records != nil || s.Named != 30 {
		t.Errorf("a rule's file: %+v", s)
	}
	if s := look(Selection{Match: "secret", Filter: Filter{Planes: []policy.Plane{policy.PlaneInference}}}); s.Records.Count() != 7 {
		t.Errorf("a plane: %+v", s)
	}
	if s := look(Selection{Match: "secret", Filter: Filter{Sandbox: "none"}}); s.Records != nil {
		t.Errorf("another sandbox: %+v", s)
	}
	c.erase(t, "7")
	if s := look(Selection{Match: "secret-000007"}); s.Records != nil {
		t.Errorf("erased: %+v", s)
	}
}

// TestEraseLeavesEvidence: what was changed is not erased, and neither is anything else then.
func TestEraseLeavesEvidence(t *testing.T) {
	t.Parallel()
	c := newChain(t, 40, Options{})
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
	unpack(t, c.f)
	b := read(t, c.f.closed(1))
	b = bytes.Replace(b, []byte(secret(4)), []byte("secret-000004-TEXT"), 1)
	if err := os.WriteFile(c.f.closed(1), b, 0o600); err != nil {
		t.Fatal(err)
	}
	c.open(t, Options{})
	head := c.w.Head()
	_, err := c.w.Erase(t.Context(), Erasure{Records: Ranges{{2, 6}}, Reason: "x", By: "root"}, c.w.Recorder(), nil)
	if err == nil || !strings.Contains(err.Error(), "record 4 was changed") || c.w.Head() != head {
		t.Fatalf("%v, head %v, was %v", err, c.w.Head(), head)
	}
	if r := c.verify(t); r.Fault == nil || r.Fault.Seq != 4 || r.Fault.Kind != Changed {
		t.Errorf("%v", r.Fault)
	}
	c.erase(t, "2-3,5-6") // what is around it can go, and the fault stays
	if r := c.verify(t); r.Fault == nil || r.Fault.Seq != 4 || r.Fault.Kind != Changed {
		t.Errorf("%v", r.Fault)
	}
}

// blankLine erases a line of a file that is not compressed, as who may write it and has no key can.
func blankLine(t *testing.T, name string, seq uint64) {
	t.Helper()
	l := lines(read(t, name))
	for i, line := range l {
		if got, _ := cutSeq(line); got == seq {
			out, ok := erase(nil, line[:len(line)-1])
			if !ok {
				t.Fatal("it can't be erased")
			}
			l[i] = append(out, '\n')
			if err := os.WriteFile(name, bytes.Join(l, nil), 0o600); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatalf("record %d is not in %s", seq, name)
}

// TestBlankedUnseen: a line that nobody has said to be erased is named, also when who blanked it writes a record that says so.
func TestBlankedUnseen(t *testing.T) {
	t.Parallel()
	c := newChain(t, 40, Options{})
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
	unpack(t, c.f)
	blankLine(t, c.f.closed(2), 20)
	blanked := func(what string, r Report, err error) {
		t.Helper()
		if err != nil || r.Fault == nil || r.Fault.Kind != Blanked || r.Fault.Seq != 20 || r.Fault.File != c.f.closed(2) || r.Fault.Line < 2 {
			t.Errorf("%s: %+v, fault %+v, %v", what, r, r.Fault, err)
		}
	}
	blanked("with the key", c.verify(t), nil)
	r, err := VerifyFile(c.f.live())
	blanked("without", r, err)
	r, err = VerifyFile(c.f.closed(2))
	if err != nil || r.Fault != nil || r.Erased != 1 || r.Unaccounted != 1 {
		t.Errorf("alone: %+v, fault %v, %v", r, r.Fault, err)
	}

	// The forger writes the record of it behind the last one: the chain is whole, but nobody has signed that.
	forged, err := OpenChain(c.f.dir, "agent", "", Options{})
	if err != nil {
		t.Fatal(err)
	}
	e := Erasure{Records: Ranges{{20, 20}}, Reason: "forged", By: "root"}
	for _, d := range e.decisions() {
		if err := forged.Recorder()(d); err != nil {
			t.Fatal(err)
		}
	}
	if err := forged.Close(); err != nil {
		t.Fatal(err)
	}
	unpack(t, c.f)
	r, err = VerifyFile(c.f.live())
	if err != nil || r.Fault != nil || r.Erased != 1 {
		t.Errorf("without a key: %+v, fault %v, %v", r, r.Fault, err)
	}
	r, err = Evidence{Keys: c.known(t).Keys}.VerifyFile(c.f.live())
	blanked("with the key, and a forged record", r, err)

	// The daemon's next start finds it behind the head that it kept, and says so.
	c.open(t, Options{})
	var found []string
	if err := c.w.Query(t.Context(), Filter{Since: 41}, func(_ uint64, line []byte) error {
		found = append(found, read1(t, line).Reason)
		return nil
	}); err != nil || len(found) != 1 || !strings.Contains(found[0], "record 41 says that texts were erased") {
		t.Errorf("found %q, %v", found, err)
	}
}

// TestRecordOfErasingCounts: which records speak of an erased one, and which don't.
func TestRecordOfErasingCounts(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(d *policy.Decision)
		at     uint64 // of 6
		ok     bool
	}{
		"as it is":          {func(*policy.Decision) {}, 6, true},
		"more than needed":  {func(d *policy.Decision) { d.Object = "1-3,5" }, 6, true},
		"itself too":        {func(d *policy.Decision) { d.Object = "2-6" }, 6, true},
		"before it":         {func(*policy.Decision) {}, 1, false},
		"another record":    {func(d *policy.Decision) { d.Object = "1,3-5" }, 6, false},
		"no numbers":        {func(d *policy.Decision) { d.Object = "all" }, 6, false},
		"backwards":         {func(d *policy.Decision) { d.Object = "3-1" }, 6, false},
		"of another plane":  {func(d *policy.Decision) { d.Plane = policy.PlaneExec }, 6, false},
		"of another action": {func(d *policy.Decision) { d.Action = "erased" }, 6, false},
		"of a policy":       {func(d *policy.Decision) { d.Rule = "p.yaml:3" }, 6, false},
		"that was denied":   {func(d *policy.Decision) { d.Verdict = policy.Deny }, 6, false},
		"in a text":         {func(d *policy.Decision) { d.Action, d.Reason = "x", `","action":"erase","` }, 6, false},
	} {
		var log []byte
		hash := genesis
		for seq := uint64(1); seq <= 6; seq++ {
			d := secretRecord(seq)
			if seq == c.at {
				d = &(&Erasure{Records: Ranges{{2, 2}}, Reason: "r", By: "root"}).decisions()[0]
				d.Seq = seq
				c.change(d)
			}
			line := one(d, hash)
			hash = hashOf(line)
			if seq == 2 {
				line, _ = erase(nil, line)
			}
			log = append(append(log, line...), '\n')
		}
		r, err := Verify(bytes.NewReader(log), Head{6, hash})
		if err != nil || (r.Fault == nil) != c.ok || !c.ok && (r.Fault.Kind != Blanked || r.Fault.Line != 2) {
			t.Errorf("%s: fault %v, %v", name, r.Fault, err)
		}
	}
}

// TestRetentionAfterErasing: however many of the oldest files go, what says that texts were erased is left as long as they are.
func TestRetentionAfterErasing(t *testing.T) {
	t.Parallel()
	c := newChain(t, 100, Options{})
	c.erase(t, "5,30,100")
	for range 30 {
		c.append(t)
	}
	c.erase(t, "6,101-110")
	for range 30 {
		c.append(t)
	}
	numbers, err := c.f.numbers()
	if err != nil || len(numbers) < 8 {
		t.Fatal(numbers, err)
	}
	for keep := len(numbers); keep > 0; keep-- {
		c.w.keeping.Lock()
		c.w.keep = keep
		c.w.keeping.Unlock()
		if err := c.w.tidyUp(); err != nil {
			t.Fatal(err)
		}
		if r := c.verify(t); r.Fault != nil {
			t.Fatalf("%d files kept: %v", keep, r.Fault)
		}
	}
}

// TestReadersWhileErasing: who reads a file when it is replaced goes on at the same record, and gets no text that is erased by then.
func TestReadersWhileErasing(t *testing.T) {
	t.Parallel()
	c := newChain(t, 0, Options{Rotate: 4 << 20})
	for range 2000 {
		if err := c.w.Append(secretRecord(c.w.Head().Seq + 1)); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	read := func(name string, follow func(context.Context, Filter, func(uint64, []byte) error) error) func() {
		var wg sync.WaitGroup
		paused, goOn := make(chan struct{}), make(chan struct{})
		wg.Go(func() {
			next := uint64(1)
			err := follow(ctx, Filter{}, func(seq uint64, line []byte) error {
				if seq != next {
					t.Errorf("%s: record %d comes after %d", name, seq, next-1)
				}
				next = seq + 1
				if seq == 3 {
					close(paused)
					<-goOn
				}
				if seq == 1900 && bytes.Contains(line, []byte(secret(seq))) {
					t.Errorf("%s: the text that was erased: %s", name, line)
				}
				if seq == 2000 {
					return errEnough
				}
				return nil
			})
			if !errors.Is(err, errEnough) {
				t.Errorf("%s: ended at %d: %v", name, next, err)
			}
		})
		<-paused
		return func() { close(goOn); wg.Wait() }
	}
	ends := []func(){read("query", c.w.Query), read("follow", c.w.Follow)}
	c.erase(t, "1900") // in the live file, which is closed, compressed and replaced
	for _, end := range ends {
		end()
	}
	ends = []func(){read("query of a compressed file", c.w.Query), read("follow of a compressed file", c.w.Follow)}
	c.erase(t, "1800-1899")
	for _, end := range ends {
		end()
	}
	c.good(t, 101)
}

var errEnough = errors.New("enough")

// TestVerifyWhileErasing: verifying at any moment finds no fault.
func TestVerifyWhileErasing(t *testing.T) {
	t.Parallel()
	c := newChain(t, 120, Options{})
	var wg sync.WaitGroup
	done := make(chan struct{})
	known := c.known(t).Keys
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if r, err := (Evidence{Keys: known}).VerifyFile(c.f.live()); err != nil || r.Fault != nil {
					t.Errorf("fault %v, %v", r.Fault, err)
					return
				}
			}
		})
	}
	for seq := uint64(1); seq < 120; seq += 7 {
		c.erase(t, fmt.Sprintf("%d,%d", seq, seq+2))
		c.append(t)
	}
	close(done)
	wg.Wait()
	c.good(t, 34)
}

// TestKilledWhileErasing: after each step the log is whole, and the same again ends it.
func TestKilledWhileErasing(t *testing.T) {
	t.Parallel()
	const records = "3-5,25,60"
	list, _ := ParseRanges(records)
	e := Erasure{Records: list, Reason: "x", By: "root"}
	steps := []struct {
		name string
		do   func(c *secretChain) error
	}{
		{"the file is closed", func(c *secretChain) error { return c.w.closeLive(list) }},
		{"it is written down", func(c *secretChain) error { return errors.Join(c.w.Recorder()(e.decisions()[0]), c.w.Flush()) }},
		{"it is signed", func(c *secretChain) error { return c.w.vouch() }},
		{"half of a file is written", func(c *secretChain) error {
			return os.WriteFile(c.f.closed(1)+packedExtension+".tmp", read1st(c.f.closed(1)+packedExtension), 0o600)
		}},
		{"one file is replaced", func(c *secretChain) error { _, err := c.f.eraseIn(1, list); return err }},
		{"all are", func(c *secretChain) error { return c.f.erase(list, nil) }},
	}
	for i := range steps {
		t.Run(steps[i].name, func(t *testing.T) {
			t.Parallel()
			c := newChain(t, 60, Options{})
			c.w.keeping.Lock()
			if err := c.f.tidy(true); err != nil {
				t.Fatal(err)
			}
			for _, s := range steps[:i+1] {
				if err := s.do(c); err != nil {
					t.Fatalf("%s: %v", s.name, err)
				}
			}
			was := c
			was.w.disk.Lock() // the rest of this writer's life does not happen
			c = &secretChain{f: files{t.TempDir(), "agent"}, key: was.key}
			if err := os.CopyFS(c.f.dir, os.DirFS(was.f.dir)); err != nil {
				t.Fatal(err)
			}
			if r, err := (Evidence{Keys: was.known(t).Keys}).VerifyFile(c.f.live()); err != nil || r.Fault != nil {
				t.Fatalf("fault %v, %v", r.Fault, err)
			}
			was.w.disk.Unlock()
			was.w.keeping.Unlock()
			c.open(t, Options{Rotate: 6000})
			c.erase(t, records)
			if err := c.close(); err != nil {
				t.Fatal(err)
			}
			c.good(t, 5)
			all := bytesOf(t, c.f.dir)
			for _, seq := range []uint64{3, 4, 5, 25, 60} {
				if bytes.Contains(all, []byte(secret(seq))) {
					t.Errorf("the text of record %d is there", seq)
				}
			}
		})
	}
}

func read1st(name string) []byte {
	b, _ := os.ReadFile(name)
	return b[:len(b)/2]
}

func TestRanges(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"7": "7", "7-9,12": "7-9,12", "12,7-9": "7-9,12", "1-3,2-5,6": "1-6", "4,4,4": "4", "18446744073709551614": "18446744073709551614"} {
		if r, err := ParseRanges(in); err != nil || r.String() != want {
			t.Errorf("%s: %v, %v; want %s", in, r, err, want)
		}
	}
	for _, bad := range []string{"", "0", "a", "3-1", "1,", "-1", "1-", "1-2-3", " 1", "18446744073709551615", "1--2", "+1"} {
		if r, err := ParseRanges(bad); err == nil {
			t.Errorf("%q gives %v", bad, r)
		}
	}
	r, _ := ParseRanges("3-5,9,100-200")
	for seq, want := range map[uint64]bool{2: false, 3: true, 5: true, 6: false, 9: true, 99: false, 200: true, 201: false} {
		if r.Has(seq) != want {
			t.Errorf("%d: %v", seq, !want)
		}
	}
	var joined []string
	for _, part := range r.Split(5) {
		if len(part.String()) > 7 { // one range may be longer
			t.Errorf("%s", part)
		}
		joined = append(joined, part.String())
	}
	if len(joined) != 3 || strings.Join(joined, ",") != r.String() {
		t.Errorf("%q", joined)
	}
}

// FuzzRanges: a record of the log, or a request, may say anything; what is read says the same again, in order and without overlap.
func FuzzRanges(f *testing.F) {
	f.Add("7-9,12")
	f.Add("18446744073709551614,1-18446744073709551613")
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseRanges(s)
		if err != nil {
			return
		}
		again, err := ParseRanges(r.String())
		if err != nil || again.String() != r.String() || len(r) == 0 {
			t.Fatalf("%q is %v, then %v, %v", s, r, again, err)
		}
		for i, x := range r {
			if x.First == 0 || x.Last < x.First || i > 0 && x.First <= r[i-1].Last+1 || !r.Has(x.First) || !r.Has(x.Last) || r.Has(x.Last+1) {
				t.Fatalf("%q is %v", s, r)
			}
		}
	})
}
