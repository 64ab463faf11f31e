package classify

import (
	"slices"
	"strings"
)

// unfolding is a text, or what of it is near something unfolded, written plainly.
type unfolding struct {
	s    string // as it was
	out  strings.Builder
	runs []run
	done int // what of s is in out, or was left out
}

// run says where a stretch of out comes from, byte by byte; n bytes before it stand for something that is written otherwise.
type run struct{ at, from, n uint32 }

// place is where a byte of out comes from.
func (u *unfolding) place(at int) int {
	i, ok := slices.BinarySearchFunc(u.runs, at, func(r run, at int) int { return int(r.at) - at })
	if !ok {
		i--
	}
	for i+1 < len(u.runs) && int(u.runs[i+1].at) == at {
		i++ // what was left out before it is not its
	}
	if i+1 < len(u.runs) {
		at = min(at, int(u.runs[i+1].at-u.runs[i+1].n))
	}
	return int(u.runs[i].from) + at - int(u.runs[i].at)
}

// from goes on at a place, behind n bytes of out that are no longer what was written.
func (u *unfolding) from(to, n int) {
	u.done = to
	u.runs = append(u.runs, run{uint32(u.out.Len()), uint32(to), uint32(n)})
}

// plain takes over what stands up to a place.
func (u *unfolding) plain(to int) {
	u.out.WriteString(u.s[u.done:to])
	u.done = to
}

// fold writes what the characters up to a place stand for.
func (u *unfolding) fold(plain []byte, to int) {
	u.out.Write(plain)
	u.from(to, len(plain))
}

// near takes over what stands before a place where something is unfolded: what is between it and the last such place when it is
// not far, else its neighbourhood.
func (u *unfolding) near(i int) {
	if len(u.runs) > 0 {
		if i <= u.done+2*edge {
			u.plain(i)
			return
		}
		u.leave(i - edge)
	}
	from := max(i-edge, u.done)
	for from > u.done && i-from < longEdge && !blank(u.s[from-1]) {
		from--
	}
	if len(u.runs) == 0 {
		u.from(from, 0)
	} else if from > u.done {
		u.fold([]byte(gap), from)
	}
	u.plain(i)
}

// leave takes over what stands behind the last place where something was unfolded, to a blank, but not beyond limit.
func (u *unfolding) leave(limit int) {
	to := min(u.done+edge, limit)
	for far := min(u.done+longEdge, limit); to < far && !blank(u.s[to]); {
		to++
	}
	u.plain(to)
}

// blank is what a key, a token or encoded text doesn't go on behind; a new line doesn't end them.
func blank(b byte) bool { return b == ' ' || b == '\t' }

// unescaped is a text without escapes of programs, or nil when it has none. Where what stands behind may be meant
// as it is (\token, \123), the text stays, and is read both ways later: unfolded does so where it is near.
func (c *Classifier) unescaped(s string) *unfolding {
	u := &unfolding{s: s}
	for i := 0; i < len(s); {
		k := strings.IndexByte(s[i:], '\\')
		if k < 0 {
			break
		}
		i += k
		plain, used, n := backslash(s, i)
		if used <= 0 || c.meant(s[i:]) {
			i += max(used, -used, 1)
			continue
		}
		if len(u.runs) == 0 {
			u.out.Grow(len(s))
			u.runs = make([]run, 0, 2+min(strings.Count(s[i:], `\`), len(s)/8))
			u.from(0, 0)
		}
		u.plain(i)
		i += used
		u.fold(plain[:n], i)
	}
	if len(u.runs) == 0 {
		return nil
	}
	u.plain(len(s))
	return u
}

// meant reports whether what stands behind backslashes may be meant as it is: a number, or a word that means something.
func (c *Classifier) meant(s string) bool {
	s = strings.TrimLeft(s, `\`)
	if digit(s[0]) {
		return true
	}
	to := 0
	for to < len(s) && to < 40 && wordy(s[to]) {
		to++
	}
	return to > 1 && c.words.look(s[:to]) != nil
}

// escaped finds what is in a text with escapes.
func (w *work) escaped(u *unfolding, depth int) ([]Match, error) {
	if w.left -= u.out.Len(); w.left < 0 {
		return nil, ErrTooLarge
	}
	found, err := w.flat(u.out.String(), depth)
	if err != nil {
		return nil, err
	}
	kept := found[:0]
	for _, m := range found {
		length := m.End - m.Start
		m.Start, m.End = u.place(m.Start), u.place(m.End)
		if m.Start >= m.End {
			continue
		}
		if m.End-m.Start != length {
			m.Via = joinVia("escape", m.Via)
		}
		kept = append(kept, m)
	}
	return kept, nil
}

func joinVia(outer, inner string) string {
	if outer != "" && inner != "" {
		return outer + "+" + inner
	}
	return outer + inner
}

// unfolded finds what is written in escapes (of addresses, of HTML) and in characters that look like others: it goes again over what
// is near them. found is what the text gives as it stands, so that nothing comes twice.
func (w *work) unfolded(s string, found []Match, depth int) ([]Match, error) {
	u := &unfolding{s: s}
	for {
		i, plain, used, n := w.c.nextFold(s, u.done)
		if used == 0 {
			break
		}
		u.near(i)
		u.fold(plain[:n], i+used)
	}
	if len(u.runs) == 0 {
		return nil, nil
	}
	u.leave(len(s))
	if w.left -= u.out.Len(); w.left < 0 {
		return nil, ErrTooLarge
	}
	inner, err := w.inner(u.out.String(), depth)
	if err != nil {
		return nil, err
	}
	have := covered(found)
	kept := inner[:0]
	for _, m := range inner {
		m.Start, m.End = u.place(m.Start), u.place(m.End)
		if m.Start >= m.End || have.contains(m) {
			continue
		}
		m.Via = joinVia(how(s[m.Start:m.End]), m.Via)
		kept = append(kept, m)
	}
	return kept, nil
}

// how is how a text is hidden.
func how(s string) string {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return "homoglyph"
		}
	}
	switch {
	case strings.IndexByte(s, '%') >= 0:
		return "url"
	case strings.IndexByte(s, '&') >= 0:
		return "html"
	case strings.IndexByte(s, '\\') >= 0:
		return "escape"
	}
	return "" // only what stands beside it was escaped
}
