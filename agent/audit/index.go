package audit

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"slices"
	"sort"
	"time"

	"github.com/nemoclaw/nemoclaw/policy"
)

// index says where the blocks of a compressed file are, and what can be in each: the numbers and times of its records, which planes
// and verdicts there are, and a Bloom filter of the sandboxes' names. A search reads only blocks that may have what it looks for.
type index struct {
	Blocks []block `json:"blocks"`
}

type block struct {
	At       int64     `json:"at"`   // where the frame begins
	Size     int64     `json:"size"` // of the frame
	From     int64     `json:"from"` // where its lines begin, of all of the file's
	Bytes    int64     `json:"bytes"`
	First    uint64    `json:"first"` // numbers
	Last     uint64    `json:"last"`
	Oldest   time.Time `json:"oldest"`
	Newest   time.Time `json:"newest"`
	Planes   uint32    `json:"planes"`   // bits, in the order of policy.Planes
	Verdicts uint32    `json:"verdicts"` // bits
	Names    []byte    `json:"names"`    // Bloom filter of namesBits bits, two for each name
}

const (
	namesBits  = 1024
	other      = 31 // the bit of a word that nobody knows
	magicSkip  = 0x184D2A5E
	magicIndex = 0x4e434958
	maxIndex   = 16 << 20
)

// blockOf is what an index says of lines.
func blockOf(lines []byte) block {
	b := block{Names: make([]byte, namesBits/8)}
	var plane, sandbox []byte // of the line before, mostly the same
	for line := range bytes.Lines(lines) {
		f, ok := cutFields(line)
		if !ok {
			continue
		}
		if b.First == 0 {
			b.First = f.seq
		}
		b.Last = max(b.Last, f.seq)
		if t := f.when(); !t.IsZero() {
			if b.Oldest.IsZero() || t.Before(b.Oldest) {
				b.Oldest = t
			}
			if t.After(b.Newest) {
				b.Newest = t
			}
		}
		b.Verdicts |= verdictBit(f.verdict())
		if plane == nil || !bytes.Equal(f.plane, plane) {
			plane = f.plane
			b.Planes |= planeBit(policy.Plane(plane))
		}
		if sandbox == nil || !bytes.Equal(f.sandbox, sandbox) {
			sandbox = f.sandbox
			for _, bit := range nameBits(sandbox) {
				b.Names[bit/8] |= 1 << (bit % 8)
			}
		}
	}
	return b
}

func planeBit(p policy.Plane) uint32 {
	if i := slices.Index(policy.Planes(), p); i >= 0 {
		return 1 << i
	}
	return 1 << other
}

func verdictBit(word []byte) uint32 {
	for v := policy.Deny; v <= policy.Allow; v++ {
		if string(word) == v.String() {
			return 1 << v
		}
	}
	return 1 << other
}

func nameBits(name []byte) [2]uint32 {
	h := fnv.New64a()
	h.Write(name)
	s := h.Sum64()
	return [2]uint32{uint32(s) % namesBits, uint32(s>>32) % namesBits}
}

// may reports whether a block can have a record that the filter selects.
func (b *block) may(flt *Filter) bool {
	if b.Last <= flt.Since || !flt.From.IsZero() && b.Newest.Before(flt.From) || !flt.To.IsZero() && b.Oldest.After(flt.To) {
		return false
	}
	if flt.Sandbox != "" {
		for _, bit := range nameBits([]byte(flt.Sandbox)) {
			if b.Names[bit/8]&(1<<(bit%8)) == 0 {
				return false
			}
		}
	}
	var planes, verdicts uint32
	for _, p := range flt.Planes {
		planes |= planeBit(p)
	}
	for _, v := range flt.Verdicts {
		verdicts |= 1 << v
	}
	return (planes == 0 || b.Planes&planes != 0) && (verdicts == 0 || b.Verdicts&verdicts != 0)
}

func (b block) equal(c block) bool {
	same := b.Oldest.Equal(c.Oldest) && b.Newest.Equal(c.Newest) && bytes.Equal(b.Names, c.Names)
	return same && b.At == c.At && b.Size == c.Size && b.From == c.From && b.Bytes == c.Bytes && b.First == c.First && b.Last == c.Last &&
		b.Planes == c.Planes && b.Verdicts == c.Verdicts
}

// at returns the block that has a byte, their number when there is none.
func (x *index) at(off int64) int {
	return sort.Search(len(x.Blocks), func(i int) bool { return off < x.Blocks[i].From+x.Blocks[i].Bytes })
}

func (x *index) size() int64 {
	if n := len(x.Blocks); n > 0 {
		return x.Blocks[n-1].From + x.Blocks[n-1].Bytes
	}
	return 0
}

// last is the number of the last record.
func (x *index) last() (seq uint64) {
	for i := range x.Blocks {
		seq = max(seq, x.Blocks[i].Last)
	}
	return seq
}

// newest is the time of the youngest record.
func (x *index) newest() (t time.Time) {
	for i := range x.Blocks {
		if b := &x.Blocks[i]; b.Newest.After(t) {
			t = b.Newest
		}
	}
	return t
}

// after returns where the block is that has the first record after a number, the end of all when none does.
func (x *index) after(seq uint64) (from, to int64) {
	for i := range x.Blocks {
		if b := &x.Blocks[i]; b.Last > seq {
			return b.From, b.From + b.Bytes
		}
	}
	return x.size(), x.size()
}

// frame is the index as it stands at a file's end: a frame that zstd skips, whose last eight bytes say how long it is.
func (x *index) frame() ([]byte, error) {
	text, err := json.Marshal(x)
	if err != nil {
		return nil, err
	}
	b := binary.LittleEndian.AppendUint32(nil, magicSkip)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(text)+8))
	b = append(b, text...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(text)))
	return binary.LittleEndian.AppendUint32(b, magicIndex), nil
}

var errNoIndex = errors.New("it does not end with the index of a compressed log, so it was cut or changed; `zstd -dc` reads what is left of its lines")

func readIndex(file *os.File) (x index, err error) {
	st, err := file.Stat()
	if err != nil {
		return x, err
	}
	tail := make([]byte, 8)
	if st.Size() < 16 {
		return x, errNoIndex
	}
	if _, err := file.ReadAt(tail, st.Size()-8); err != nil {
		return x, err
	}
	n := int64(binary.LittleEndian.Uint32(tail))
	if binary.LittleEndian.Uint32(tail[4:]) != magicIndex || n > maxIndex || n+16 > st.Size() {
		return x, errNoIndex
	}
	text := make([]byte, n)
	if _, err := file.ReadAt(text, st.Size()-8-n); err != nil && !errors.Is(err, io.EOF) {
		return x, err
	}
	if x, err = parseIndex(text); err != nil {
		return x, err
	}
	var end int64
	if k := len(x.Blocks); k > 0 {
		end = x.Blocks[k-1].At + x.Blocks[k-1].Size
	}
	if end+n+16 != st.Size() {
		return x, errNoIndex
	}
	return x, nil
}

// parseIndex reads an index, which who writes the file may have made up.
func parseIndex(text []byte) (x index, err error) {
	if err := json.Unmarshal(text, &x); err != nil {
		return x, fmt.Errorf("its index: %w", err)
	}
	var at, from int64
	for i := range x.Blocks {
		b := &x.Blocks[i]
		if b.At != at || b.From != from || b.Size <= 0 || b.Bytes <= 0 || b.Bytes > maxBlock || b.Size > 2*maxBlock || len(b.Names) != namesBits/8 {
			return x, fmt.Errorf("its index is wrong about block %d", i+1)
		}
		at, from = at+b.Size, from+b.Bytes
	}
	return x, nil
}
