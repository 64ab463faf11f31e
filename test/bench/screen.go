package main

import (
	"bytes"
	"strconv"
	"strings"
	"unicode/utf8"
)

const columns, lines = 80, 24

// screen is what a terminal shows of what the console writes to it, without colours. It knows the sequences that the console uses.
type screen struct {
	cells [lines][columns]rune
	x, y  int
	rest  []byte // a sequence that is not complete yet
}

// write takes the next bytes.
func (s *screen) write(b []byte) {
	s.rest = append(s.rest, b...)
	for len(s.rest) > 0 {
		n := s.next(s.rest)
		if n == 0 {
			return // more must come
		}
		s.rest = s.rest[n:]
	}
}

// next takes one character or sequence, and returns its length; 0: it is not complete.
func (s *screen) next(b []byte) int {
	switch {
	case b[0] == '\x1b':
		return s.sequence(b)
	case b[0] == '\r':
		s.x = 0
	case b[0] == '\n':
		s.y = min(s.y+1, lines-1)
	case b[0] == '\b':
		s.x = max(s.x-1, 0)
	case b[0] < ' ':
	case !utf8.FullRune(b):
		return 0
	default:
		r, n := utf8.DecodeRune(b)
		if s.x < columns {
			s.cells[s.y][s.x] = r
		}
		s.x++
		return n
	}
	return 1
}

// sequence takes a control sequence.
func (s *screen) sequence(b []byte) int {
	if len(b) < 3 {
		if len(b) == 2 && strings.IndexByte("[]()", b[1]) < 0 {
			return 2
		}
		return 0
	}
	switch b[1] {
	case '(', ')': // a character set
		return 3
	case ']': // up to BEL or ST
		if n := bytes.IndexAny(b, "\a\\"); n > 0 {
			return n + 1
		}
		return 0
	case '[':
	default:
		return 2
	}
	n := bytes.IndexFunc(b[2:], func(r rune) bool { return r >= '@' && r <= '~' })
	if n < 0 {
		return 0
	}
	args := strings.Split(string(b[2:2+n]), ";")
	arg := func(i int) int {
		if i >= len(args) {
			return 0
		}
		v, _ := strconv.Atoi(args[i]) // "" is 0
		return v
	}
	switch b[2+n] {
	case 'H':
		s.y, s.x = min(max(arg(0)-1, 0), lines-1), min(max(arg(1)-1, 0), columns-1)
	case 'J':
		s.cells = [lines][columns]rune{}
	case 'K':
		clear(s.cells[s.y][min(s.x, columns):])
	}
	return n + 3
}

// text is what it shows.
func (s *screen) text() []string {
	out := make([]string, lines)
	for y := range s.cells {
		line := s.cells[y]
		for x, r := range line {
			if r == 0 {
				line[x] = ' '
			}
		}
		out[y] = string(line[:])
	}
	return out
}
