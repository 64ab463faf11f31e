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
// UTF-8 as \xff, and the backslash itself doubled, so that two different inputs never look the same.
func Escape(s string) string {
	if plain(s) {
		return s
	}
	var b strings.Builder
	b.Grow(len(s) + 16)
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n <= 1:
			hex(&b, 'x', rune(s[i]), 2)
		case r == '\\':
			b.WriteString(`\\`)
		case unicode.IsPrint(r):
			b.WriteString(s[i : i+n])
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r < 0x80:
			hex(&b, 'x', r, 2)
		case r < 0x10000:
			hex(&b, 'u', r, 4)
		default:
			hex(&b, 'U', r, 8)
		}
		i += n
	}
	return b.String()
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
