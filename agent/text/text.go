// Package text makes bytes from inside a sandbox safe to show to a person: on a terminal, in a log line, in JSON.
// It owns the one rule of what may reach a screen as it is. It never interprets the bytes, and it never writes anything.
package text

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Escape returns s with everything that could move a cursor, change a colour, reorder or hide text spelled out:
// control bytes as \n or \x1b, format characters (bidi overrides, zero-width ones) as \u202e, bytes that are not
// UTF-8 as \xff, and the backslash itself doubled, so that two different inputs never look the same. What takes no column, or
// as many as the terminal likes, is spelled out too: more marks on one letter than any language writes, marks without a letter,
// blanks that aren't, parts of emoji.
func Escape(s string) string {
	if plain(s) {
		return s
	}
	var b strings.Builder
	b.Grow(len(s) + 16)
	for e := (escaper{}); s != ""; {
		s = s[e.next(&b, s):]
	}
	return b.String()
}

// escaper escapes a text character by character.
type escaper struct{ room int } // marks that the letter before can take

// next writes the first character of s, which is not empty, and returns how many bytes of s it was.
func (e *escaper) next(b *strings.Builder, s string) int {
	r, n := utf8.DecodeRuneInString(s)
	room := 0
	switch {
	case r == utf8.RuneError && n <= 1:
		hex(b, 'x', rune(s[0]), 2)
	case r == '\\':
		b.WriteString(`\\`)
	case unicode.Is(unicode.M, r) && e.room > 0 && Steady(r):
		b.WriteString(s[:n])
		room = e.room - 1
	case !unicode.Is(unicode.M, r) && Steady(r):
		b.WriteString(s[:n])
		if unicode.IsLetter(r) || unicode.IsNumber(r) {
			room = maxMarks
		}
	case r == '\n':
		b.WriteString(`\n`)
	case r == '\r':
		b.WriteString(`\r`)
	case r == '\t':
		b.WriteString(`\t`)
	case r < 0x80:
		hex(b, 'x', r, 2)
	case r < 0x10000:
		hex(b, 'u', r, 4)
	default:
		hex(b, 'U', r, 8)
	}
	e.room = room
	return n
}

// Steady reports whether every terminal shows a character alike: a letter or sign of its own, or a mark on one.
func Steady(r rune) bool { return unicode.IsPrint(r) && !unicode.Is(unsteady, r) }

// maxMarks is how many marks a letter has in writing: Vietnamese and pointed Hebrew need two.
const maxMarks = 2

// unsteady are characters that Unicode calls printable, and that no two terminals show alike, or that show nothing: fillers and blanks,
// variation selectors, enclosing marks, and what changes the width of the character before it.
var unsteady = &unicode.RangeTable{
	R16: []unicode.Range16{
		{Lo: 0x034f, Hi: 0x034f, Stride: 1}, // joins graphemes, shows nothing
		{Lo: 0x0488, Hi: 0x0489, Stride: 1}, // enclosing
		{Lo: 0x1100, Hi: 0x11ff, Stride: 1}, // parts of Hangul syllables, which join to one; the first ones are two columns, the rest none
		{Lo: 0x17b4, Hi: 0x17b5, Stride: 1}, // vowels that show nothing
		{Lo: 0x180b, Hi: 0x180f, Stride: 1}, // variation selectors
		{Lo: 0x1abe, Hi: 0x1abe, Stride: 1}, // enclosing
		{Lo: 0x20dd, Hi: 0x20e0, Stride: 1},
		{Lo: 0x20e2, Hi: 0x20e4, Stride: 1},
		{Lo: 0x2800, Hi: 0x2800, Stride: 1}, // a blank of Braille
		{Lo: 0x3164, Hi: 0x3164, Stride: 1}, // a filler
		{Lo: 0xa670, Hi: 0xa672, Stride: 1}, // enclosing
		{Lo: 0xa960, Hi: 0xa97c, Stride: 1}, // parts of Hangul syllables
		{Lo: 0xd7b0, Hi: 0xd7fb, Stride: 1},
		{Lo: 0xfe00, Hi: 0xfe0f, Stride: 1}, // variation selectors
		{Lo: 0xffa0, Hi: 0xffa0, Stride: 1}, // a filler
		{Lo: 0xfffc, Hi: 0xfffc, Stride: 1}, // stands for an object
	},
	R32: []unicode.Range32{
		{Lo: 0x13430, Hi: 0x13455, Stride: 1}, // joins hieroglyphs
		{Lo: 0x1d159, Hi: 0x1d159, Stride: 1}, // a blank of music
		{Lo: 0x1f1e6, Hi: 0x1f1ff, Stride: 1}, // two make a flag
		{Lo: 0x1f3fb, Hi: 0x1f3ff, Stride: 1}, // colours of skin
		{Lo: 0xe0100, Hi: 0xe01ef, Stride: 1}, // variation selectors
	},
}

// Short is Escape, cut to at most limit characters on the screen; what was cut is shown by "..." at the end.
func Short(s string, limit int) string {
	// Escape only lengthens, so bytes beyond 4 times the limit can't show: a megabyte of arguments costs nothing.
	cut := false
	if len(s) > 4*limit {
		s, cut = s[:4*limit], true
	}
	e := Escape(s)
	if utf8.RuneCountInString(e) <= limit && !cut {
		return e
	}
	runes := []rune(e)
	if limit < 3 {
		return strings.Repeat(".", max(limit, 0))
	}
	return string(runes[:min(limit-3, len(runes))]) + "..."
}

// Lines is Escape for text of several lines, such as YAML to copy: newlines stay, the rest is escaped, and the
// backslash is left alone, because the text carries its own quoting.
func Lines(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		lines[i] = strings.ReplaceAll(Escape(l), `\\`, `\`)
	}
	return strings.Join(lines, "\n")
}

func plain(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < 0x20 || s[i] >= 0x7f || s[i] == '\\' {
			return false
		}
	}
	return true
}

const digits = "0123456789abcdef"

func hex(b *strings.Builder, kind byte, r rune, width int) {
	b.WriteByte('\\')
	b.WriteByte(kind)
	for i := width - 1; i >= 0; i-- {
		b.WriteByte(digits[r>>(4*i)&0xf])
	}
}
