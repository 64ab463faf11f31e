package audit

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
)

// tamperEvery is the distance of the lines that TestTamper spoils: `make test-tamper` spoils each one.
func tamperEvery() int {
	if os.Getenv("TAMPER") == "all" {
		return 1
	}
	return 211
}

const (
	signedEvery = 50 // in TestTamper
	erasedEvery = 97
)

func isErased(i int) bool { return i%erasedEvery == 5 }

// stand is the verifier's state before each line of a good log, so that what comes before a spoiled line is not read ten thousand
// times. What comes from there on is read by the verifier itself.
type stand struct {
	lines [][]byte
	from  [][]byte // what stands at a line and after it
	at    []verifier
	in    *bufio.Reader
	known Evidence
	sigs  []Checkpoint
}

func stands(t *testing.T, n int) *stand {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	s := &stand{in: bufio.NewReaderSize(nil, 64<<10)}
	var data []byte
	var starts []int
	var sigs []Checkpoint
	hash := genesis
	var gone Ranges
	for i := range n {
		starts = append(starts, len(data))
		d := record(uint64(i + 1))
		if i == n-1 { // it says what was erased
			d = &(&Erasure{Records: gone, Reason: "r", By: "root"}).decisions()[0]
			d.Seq = uint64(n)
		}
		var line []byte
		if line, hash = appendLine(nil, d, hash); isErased(i) {
			gone = gone.add(d.Seq)
			line, _ = erase(nil, line[:len(line)-1])
			line = append(line, '\n')
		}
		data = append(data, line...)
		if (i+1)%signedEvery == 0 {
			line := signHead(key, Checkpoint{Head: Head{uint64(i + 1), hash}})
			c, err := ReadCheckpoint(line[:len(line)-1], []ed25519.PublicKey{key.Public().(ed25519.PublicKey)})
			if err != nil {
				t.Fatal(err)
			}
			sigs = append(sigs, c)
		}
	}
	s.known = Evidence{Keys: []ed25519.PublicKey{key.Public().(ed25519.PublicKey)}}
	s.sigs = sigs
	v := s.known.verifier(sigs)
	for i, from := range starts {
		to := len(data)
		if i+1 < n {
			to = starts[i+1]
		}
		s.lines, s.from, s.at = append(s.lines, data[from:to]), append(s.from, data[from:]), append(s.at, v.copied())
		if f := v.check(data[from:to-1], true); f != nil {
			t.Fatal(f)
		}
	}
	return s
}

// verify goes on from before line i (from 0) with other bytes.
func (s *stand) verify(t *testing.T, i int, parts ...[]byte) *Fault {
	t.Helper()
	v := s.at[i].copied()
	readers := make([]io.Reader, len(parts))
	for k, p := range parts {
		readers[k] = bytes.NewReader(p)
	}
	s.in.Reset(io.MultiReader(readers...))
	v.in, v.buf = s.in, nil
	whole, err := v.lines()
	if err != nil {
		t.Fatal(err)
	}
	if whole {
		v.atEnd()
		v.signed(s.known, s.sigs, signEvery+maxBatch)
		v.accounted(true)
	}
	return v.report.Fault
}

// copied is a verifier that goes on by itself.
func (v *verifier) copied() verifier {
	c := *v
	c.account = account{slices.Clone(v.account.blank), slices.Clone(v.account.said)}
	return c
}

func TestTamper(t *testing.T) {
	const n = 10000
	s := stands(t, n)
	after := func(i int) []byte { // what stands after line i
		if i+1 < n {
			return s.from[i+1]
		}
		return nil
	}
	tried := 0
	want := func(what string, i, line int, f *Fault) {
		t.Helper()
		tried++
		if f == nil || f.Line != line {
			t.Fatalf("%s, line %d: %v, want line %d named", what, i+1, f, line)
		}
	}
	var forged []byte
	for i := 0; i < n; i += tamperEvery() {
		line := s.lines[i]
		for _, at := range []int{0, 8, i % len(line), len(line) - 40, len(line) - 120, len(line) - 1} {
			b := slices.Clone(line)
			b[at] ^= 1 << (i % 7)
			want(fmt.Sprintf("a bit of byte %d", at), i, i+1, s.verify(t, i, b, after(i)))
		}
		want("drop", i, i+1, s.verify(t, i, after(i)))
		want("twice", i, i+2, s.verify(t, i, line, line, after(i)))
		want("insert an old one", i, i+1, s.verify(t, i, s.lines[(i+n-1)%n], s.from[i]))
		if i+1 < n {
			want("insert a later one", i, i+1, s.verify(t, i, s.lines[n-1], s.from[i]))
			want("swap", i, i+1, s.verify(t, i, s.lines[i+1], line, after(i+1)))
		}
		prev := genesis
		if i > 0 {
			prev = s.at[i].hash
		}
		d := record(uint64(i + 1))
		d.Object = "harmless"
		forged, hash := appendLine(forged[:0], d, prev)
		want("insert a forged one", i, i+1, s.verify(t, i, forged, s.from[i]))
		if p, _ := cutSealed(line[:len(line)-1]); isErased(i) {
			other := strings.Repeat("0", hashLen)
			for what, b := range map[string][]byte{
				"another digest":       bytes.Replace(line, p.digest, []byte(other), 1),
				"a text put back":      bytes.Replace(line, []byte(`"object":"`+Erased), []byte(`"object":"harmless`), 1),
				"a salt in its place":  bytes.Replace(line, append(keyErased, p.digest...), append(keySalt, p.digest[:saltLen]...), 1),
				"nothing in its place": bytes.Replace(line, append(append(keyErased, p.digest...), '"'), nil, 1),
			} {
				want(what, i, i+1, s.verify(t, i, b, after(i)))
			}
		} else if i%(100*tamperEvery()) == 0 && i < n-1 { // it is all read to its end
			b, _ := erase(nil, line[:len(line)-1])
			want("erased, and no record of it", i, i+1, s.verify(t, i, b, []byte("\n"), after(i)))
		}
		want("truncate", i, i+1, s.verify(t, i))
		want("truncate in the line", i, i+1, s.verify(t, i, line[:1+i%(len(line)-1)]))

		// All of it again from here on, as the writer would: the next checkpoint is where it shows.
		next := i/signedEvery*signedEvery + signedEvery
		for k := i + 1; k < next; k++ { // erased ones with their texts, and the last one without what it said
			forged, hash = appendLine(forged, record(uint64(k+1)), hash)
		}
		want("a new chain", i, next, s.verify(t, i, forged))
	}
	t.Logf("%d logs", tried)
}
