package classify

import (
	"errors"
	"slices"
	"strings"
)

// edge is how much of each end of a part is read together with its neighbours'.
const edge = 128

// longEdge is how much it is where a run without blanks goes on, or a private key.
const longEdge = 8192

// gap stands for what lies between the ends of a part: they are no neighbours.
const gap = "\n\n\n\n"

// segment is a piece of a part in a joined text.
type segment struct{ part, from, at, n int }

// split finds what lies over several parts: those that follow each other, and every second one, since what one side of a conversation
// says is parted by the other's answers. What a part gives by itself is in w.out.
func (w *work) split(parts []string) error {
	for _, order := range [...][2]int{{1, 0}, {2, 0}, {2, 1}} {
		stride, first := order[0], order[1]
		if stride == 2 && len(parts) < 3 {
			continue
		}
		if err := w.joined(parts, first, stride); err != nil {
			return err
		}
	}
	return nil
}

func (w *work) joined(parts []string, first, stride int) error {
	have := covered(w.out)
	firm := covered(slices.DeleteFunc(slices.Clone(w.out), func(m Match) bool { return loose[m.Kind] }))
	open := make([]bool, len(parts)) // a private key begins there, and doesn't end
	for _, m := range w.out {
		if m.Kind == "private-key" && m.End >= len(parts[m.Part])-1 {
			open[m.Part] = true
		}
	}
	size := 0
	for i := first; i < len(parts); i += stride {
		size += min(len(parts[i]), 2*edge+len(gap))
	}
	var b strings.Builder
	b.Grow(size + size/8) // the ends go on to a blank
	segments := make([]segment, 0, 2*len(parts)/stride+2)
	add := func(part, from, to int) {
		if from < to {
			segments = append(segments, segment{part, from, b.Len(), to - from})
			b.WriteString(parts[part][from:to])
		}
	}
	for i := first; i < len(parts); i += stride {
		p := parts[i]
		if len(p) == 36 && isUUID(p) { // whole, and the ends of two make numbers by chance
			b.WriteString(gap)
			continue
		}
		from := len(p) - len(strings.TrimLeft(p, " \t\r\n"))
		to := len(strings.TrimRight(p, " \t\r\n"))
		head, tail := from+edge, to-edge
		if open[i] {
			head, tail = from+longEdge, to-longEdge
		}
		for head < to && head < from+longEdge && p[head] > ' ' {
			head++
		}
		for tail > from && tail > to-longEdge && p[tail] > ' ' {
			tail--
		}
		if head >= tail {
			add(i, from, to)
			continue
		}
		add(i, from, head)
		b.WriteString(gap)
		add(i, tail, to)
	}
	if len(segments) < 2 {
		return nil
	}
	text := b.String()
	if w.left -= len(text); w.left < 0 {
		return ErrTooLarge
	}
	found, err := w.text(text, 1)
	if errors.Is(err, ErrUndecodable) {
		return nil // it was cut here; whole, or in its own part, it was judged
	}
	if err != nil {
		return err
	}
	k := 0
	for _, m := range found {
		for k > 0 && segments[k].at > m.Start {
			k--
		}
		for k+1 < len(segments) && segments[k+1].at <= m.Start {
			k++
		}
		w.pieces(m, text, segments[k:], have, firm)
	}
	return nil
}

// pieces notes a match of a joined text in each part that it lies in.
func (w *work) pieces(m Match, text string, segments []segment, have, firm cover) {
	var found []Match
	for _, s := range segments {
		from, to := max(m.Start, s.at), min(m.End, s.at+s.n)
		if s.at >= m.End {
			break
		}
		if from >= to {
			continue
		}
		piece := m
		piece.Part, piece.Start, piece.End = s.part, from-s.at+s.from, to-s.at+s.from
		piece.Via = "split"
		if m.Via != "" {
			piece.Via += "+" + m.Via
		}
		found = append(found, piece)
	}
	if len(found) > 1 && (loose[m.Kind] || m.Kind == "e-mail" && !endsAsHosts(text[m.Start:m.End])) {
		return
	}
	if m.Kind == "e-mail" { // whose first half may be somebody's name
		have = firm
	}
	for _, piece := range found {
		if m.Kind != "private-key" && have.touches(piece) {
			return
		}
	}
	w.out = append(w.out, found...)
}

// loose are kinds that words of two parts make by chance.
var loose = map[string]bool{"person": true, "first-name": true, "address": true, "drug": true, "diagnosis": true, "icd-10": true, "marking": true, "ip": true}

// endsAsHosts reports whether a name ends as those of hosts do: two words that meet by chance (user@host, console.log) seldom do.
func endsAsHosts(name string) bool {
	top := asciiLower(name[strings.LastIndexByte(name, '.')+1:])
	return len(top) == 2 || strings.Contains(" com org net edu gov mil int info biz app dev cloud online email name pro xyz ", " "+top+" ")
}
