package policy

import (
	"bytes"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// writer makes the YAML of a policy, line by line. Values go through Quote, comments through Comment: both may come
// from inside a sandbox or from a foreign file.
type writer struct{ buf bytes.Buffer }

func (w *writer) line(format string, args ...any) {
	fmt.Fprintf(&w.buf, format, args...)
	w.buf.WriteByte('\n')
}

// comment writes a comment of one line.
func (w *writer) comment(margin, format string, args ...any) {
	w.line("%s# %s", margin, Comment(fmt.Sprintf(format, args...), maxComment))
}

func (w *writer) bytes() []byte { return w.buf.Bytes() }

// maxComment is the most characters of one comment.
const maxComment = 300

// Comment makes any bytes fit to stand in a YAML comment, on one line of at most limit characters: whatever could end
// the line, hide text or move a cursor is spelled out, and the backslash doubled, so that nobody can write a rule
// into a policy by what a program or a file is called. What was cut off ends in "...".
func Comment(s string, limit int) string {
	var b bytes.Buffer
	n, room := 0, 0 // characters so far; bytes after which "..." still fits
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		piece := s[i : i+size]
		switch {
		case r == utf8.RuneError && size == 1:
			piece = fmt.Sprintf(`\x%02x`, s[i])
		case r == '\\':
			piece = `\\`
		case r == '\n':
			piece = `\n`
		case r < 0x80 && !unicode.IsPrint(r):
			piece = fmt.Sprintf(`\x%02x`, r)
		case !printable(r) || !unicode.IsPrint(r):
			piece = fmt.Sprintf(`\u%04x`, r)
		}
		i += size
		b.WriteString(piece)
		if n += utf8.RuneCountInString(piece); n > limit {
			b.Truncate(room)
			b.WriteString("...")
			break
		}
		if n <= limit-len("...") {
			room = b.Len()
		}
	}
	return b.String()
}

// quoteAll writes the items of a flow list.
func quoteAll(items []string) string {
	out := make([]string, len(items))
	for i, s := range items {
		out[i] = Quote(s)
	}
	return strings.Join(out, ", ")
}
