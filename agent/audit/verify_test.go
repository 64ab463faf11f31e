package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"testing"
)

// rehash makes a forged line's own hash right again, as a careful forger would.
func rehash(l []byte) []byte {
	p, ok := cutSealed(l[:len(l)-1])
	if !ok {
		panic("not sealed: " + string(l))
	}
	at := len(l) - hashLen - len("\"}\n")
	return []byte(string(l[:at]) + ownHash(p) + "\"}\n")
}

// ownHash is the hash that a line's content gives.
func ownHash(p sealed) string {
	s := getSealer()
	defer s.free()
	list, _ := cutTexts(nil, p.body)
	var salt [saltSize]byte
	var digest [sha256.Size]byte
	if p.salt != nil {
		_, _ = hex.Decode(salt[:], p.salt)
		digest = s.digest(salt[:], p.body, list)
	} else {
		_, _ = hex.Decode(digest[:], p.digest)
	}
	own := s.hash(p.body, list, digest, p.prev)
	return hex.EncodeToString(own[:])
}

func TestVerifyFaults(t *testing.T) {
	_, data := build(t, 6)
	type fault struct {
		line int
		seq  uint64
		kind FaultKind
	}
	swap := func(b []byte, old, new string) []byte { return bytes.Replace(b, []byte(old), []byte(new), 1) }
	for name, c := range map[string]struct {
		forge func(l [][]byte) [][]byte
		want  fault
	}{
		"changed":                   {func(l [][]byte) [][]byte { l[2] = swap(l[2], "deny", "allow"); return l }, fault{3, 3, Changed}},
		"changed last":              {func(l [][]byte) [][]byte { l[5] = swap(l[5], "curl", "wget"); return l }, fault{6, 6, Changed}},
		"changed, hash made to fit": {func(l [][]byte) [][]byte { l[2] = rehash(swap(l[2], "deny", "allow")); return l }, fault{3, 3, Changed}},
		"changed number":            {func(l [][]byte) [][]byte { l[2] = swap(l[2], `"seq":3`, `"seq":4`); return l }, fault{3, 4, Changed}},
		"first lost":                {func(l [][]byte) [][]byte { return l[1:] }, fault{1, 1, Lost}},
		"one lost":                  {func(l [][]byte) [][]byte { return slices.Delete(l, 2, 3) }, fault{3, 3, Lost}},
		"two lost":                  {func(l [][]byte) [][]byte { return slices.Delete(l, 1, 3) }, fault{2, 2, Lost}},
		"last lost":                 {func(l [][]byte) [][]byte { return l[:5] }, fault{6, 6, Lost}},
		"all lost":                  {func(l [][]byte) [][]byte { return nil }, fault{1, 1, Lost}},
		"swapped":                   {func(l [][]byte) [][]byte { l[2], l[3] = l[3], l[2]; return l }, fault{3, 4, Reordered}},
		"moved to the end":          {func(l [][]byte) [][]byte { return append(slices.Delete(slices.Clone(l), 1, 2), l[1]) }, fault{2, 3, Reordered}},
		"twice":                     {func(l [][]byte) [][]byte { return slices.Insert(l, 3, l[2]) }, fault{4, 3, Reordered}},
		"torn":                      {func(l [][]byte) [][]byte { l[5] = l[5][:30]; return l }, fault{6, 6, Torn}},
		"blank line":                {func(l [][]byte) [][]byte { return slices.Insert(l, 2, []byte("\n")) }, fault{3, 0, Changed}},
		"garbage":                   {func(l [][]byte) [][]byte { l[4] = []byte("\x00\xff\n"); return l }, fault{5, 0, Changed}},
		"huge":                      {func(l [][]byte) [][]byte { l[1] = append(bytes.Repeat([]byte("x"), 3*MaxLine), '\n'); return l }, fault{2, 0, Changed}},
		"joined":                    {func(l [][]byte) [][]byte { l[1] = bytes.TrimSpace(l[1]); return l }, fault{2, 0, Changed}},
		"a new chain": {func(l [][]byte) [][]byte {
			var forged [][]byte
			hash := genesis
			for i := range l {
				d := record(uint64(i + 1))
				d.Object = "harmless"
				var b []byte
				b, hash = appendLine(nil, d, hash)
				forged = append(forged, b)
			}
			return forged
		}, fault{6, 6, Changed}},
	} {
		t.Run(name, func(t *testing.T) {
			head := Head{Seq: 6, Hash: hashOf(bytes.TrimSuffix(lines(data)[5], []byte{'\n'}))}
			forged := bytes.Join(c.forge(lines(bytes.Clone(data))), nil)
			r, err := Verify(bytes.NewReader(forged), head)
			if err != nil || r.Fault == nil {
				t.Fatalf("fault %v, error %v", r.Fault, err)
			}
			if got := (fault{r.Fault.Line, r.Fault.Seq, r.Fault.Kind}); got != c.want {
				t.Errorf("%+v (%v), want %+v", got, r.Fault, c.want)
			}
		})
	}
}

func TestParseHead(t *testing.T) {
	h := Head{Seq: 12, Hash: strings.Repeat("0a", 32)}
	if got, err := ParseHead(h.String()); err != nil || got != h {
		t.Errorf("ParseHead(%s) = %v, %v", h, got, err)
	}
	for _, bad := range []string{"", "12", "12:", "x:" + h.Hash, "12:" + strings.Repeat("0A", 32), "12:" + h.Hash + "0", "-1:" + h.Hash} {
		if _, err := ParseHead(bad); err == nil {
			t.Errorf("ParseHead(%q) took it", bad)
		}
	}
}

// FuzzVerify mutates a good log in one place: whatever is changed, the verifier must say so, and never fail.
func FuzzVerify(f *testing.F) {
	var good []byte
	hash := genesis
	for i := range 4 {
		good, hash = appendLine(good, record(uint64(i+1)), hash)
	}
	head := Head{Seq: 4, Hash: hash}
	f.Add(3, 5, []byte("x"))
	f.Add(0, len(good), []byte{})
	f.Add(len(good)-2, 0, []byte("\n"))
	f.Fuzz(func(t *testing.T, at, drop int, insert []byte) {
		if at < 0 || drop < 0 || at > len(good) || drop > len(good)-at {
			return
		}
		forged := slices.Concat(good[:at], insert, good[at+drop:])
		r, err := Verify(bytes.NewReader(forged), head)
		if err != nil {
			t.Fatal(err)
		}
		if same := bytes.Equal(forged, good); same != (r.Fault == nil) {
			// Lines that go on after the head are a longer log, which only a writer of both files can forge.
			if bytes.HasPrefix(forged, good) {
				return
			}
			t.Fatalf("same %v, fault %v: %q", same, r.Fault, forged)
		}
	})
}
