package audit

import (
	"cmp"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// A Range is the records from one number to another, both among them.
type Range struct{ First, Last uint64 }

// Ranges are records by their numbers: in order, without overlap, and with at least one record between two of them.
type Ranges []Range

// String writes them as ParseRanges reads them: "7-9,12".
func (r Ranges) String() string {
	var b []byte
	for i, x := range r {
		if i > 0 {
			b = append(b, ',')
		}
		b = x.append(b)
	}
	return string(b)
}

func (x Range) append(b []byte) []byte {
	b = strconv.AppendUint(b, x.First, 10)
	if x.Last > x.First {
		b = strconv.AppendUint(append(b, '-'), x.Last, 10)
	}
	return b
}

// ParseRanges reads numbers and ranges of them, in any order: "12,7-9".
func ParseRanges(s string) (Ranges, error) {
	var list Ranges
	for part := range strings.SplitSeq(s, ",") {
		from, to, both := strings.Cut(part, "-")
		if !both {
			to = from
		}
		x := Range{}
		var err1, err2 error
		x.First, err1 = strconv.ParseUint(from, 10, 64)
		x.Last, err2 = strconv.ParseUint(to, 10, 64)
		if err1 != nil || err2 != nil || x.First == 0 || x.Last < x.First || x.Last == forever {
			return nil, fmt.Errorf("records %q: want numbers and ranges of them, as in 7-9,12", s)
		}
		list = append(list, x)
	}
	return tidied(list), nil
}

// tidied puts ranges in order and makes one of those that meet.
func tidied(list []Range) (out Ranges) {
	slices.SortFunc(list, func(a, b Range) int { return cmp.Compare(a.First, b.First) })
	for _, x := range list {
		if n := len(out); n > 0 && x.First <= out[n-1].Last+1 {
			out[n-1].Last = max(out[n-1].Last, x.Last)
			continue
		}
		out = append(out, x)
	}
	return out
}

// add puts a number behind the others, which are less.
func (r Ranges) add(seq uint64) Ranges {
	if n := len(r); n > 0 && r[n-1].Last+1 == seq {
		r[n-1].Last = seq
		return r
	}
	return append(r, Range{seq, seq})
}

// Has reports whether a number is among them.
func (r Ranges) Has(seq uint64) bool {
	i := sort.Search(len(r), func(i int) bool { return r[i].Last >= seq })
	return i < len(r) && r[i].First <= seq
}

// meets reports whether a number from first to last is among them.
func (r Ranges) meets(first, last uint64) bool {
	i := sort.Search(len(r), func(i int) bool { return r[i].Last >= first })
	return i < len(r) && r[i].First <= last
}

// Count is how many numbers they are.
func (r Ranges) Count() (n uint64) {
	for _, x := range r {
		n += x.Last - x.First + 1
	}
	return n
}

// Split cuts them so that each part takes no more than so many bytes when it is written.
func (r Ranges) Split(size int) (parts []Ranges) {
	used := 0
	for i, x := range r {
		n := len(x.append(nil)) + len(",")
		if i == 0 || used+n > size {
			parts, used = append(parts, nil), 0
		}
		used += n
		parts[len(parts)-1] = append(parts[len(parts)-1], x)
	}
	return parts
}
