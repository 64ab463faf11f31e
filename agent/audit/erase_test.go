package audit

import (
	"bytes"
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
