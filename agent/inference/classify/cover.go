package classify

import (
	"cmp"
	"slices"
)

// cover is what finds lie over already: for each part and class, spans in order that don't touch.
type cover map[place][]span

type place struct {
	part  int
	class Class
}

type span struct{ start, end int }

func covered(found []Match) cover {
	c := cover{}
	for _, m := range found {
		at := place{m.Part, m.Class}
		c[at] = append(c[at], span{m.Start, m.End})
	}
	for at, spans := range c {
		slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.start, b.start) })
		merged := spans[:1]
		for _, s := range spans[1:] {
			if last := &merged[len(merged)-1]; s.start <= last.end {
				last.end = max(last.end, s.end)
			} else {
				merged = append(merged, s)
			}
		}
		c[at] = merged
	}
	return c
}

// from is the first span that ends behind a place, or none.
func (c cover) from(m Match) (span, bool) {
	spans := c[place{m.Part, m.Class}]
	i, _ := slices.BinarySearchFunc(spans, m.Start, func(s span, at int) int { return cmp.Compare(s.end, at+1) })
	if i == len(spans) {
		return span{}, false
	}
	return spans[i], true
}

func (c cover) contains(m Match) bool {
	s, ok := c.from(m)
	return ok && s.start <= m.Start && m.End <= s.end
}

func (c cover) touches(m Match) bool {
	s, ok := c.from(m)
	return ok && s.start < m.End
}
