package tui

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/gdamore/tcell/v2"
	"github.com/mattn/go-runewidth"

	"github.com/nemoclaw/nemoclaw/agent/text"
)

// A canvas is a part of the screen. Nothing that is drawn on it leaves it, and no text is more than text: there are no
// colour tags, and what a terminal could take for anything but a character is drawn as unknown.
type canvas struct {
	screen     tcell.Screen
	x, y, w, h int
}

// unknown stands for what can't be shown. It never does where the text was escaped before.
const unknown = '\uFFFD'

// maxMarks is how many combining marks a character may carry: a hundred would paint over other lines.
const maxMarks = 2

// sub is a part of c, in coordinates of c.
func (c canvas) sub(x, y, w, h int) canvas {
	x, y = min(max(x, 0), c.w), min(max(y, 0), c.h)
	return canvas{c.screen, c.x + x, c.y + y, max(min(w, c.w-x), 0), max(min(h, c.h-y), 0)}
}

// put draws s from x on and returns where it ended. What does not fit is left out.
func (c canvas) put(x, y int, style tcell.Style, s string) int {
	if y < 0 || y >= c.h || x < 0 {
		return x
	}
	marked := -1 // where the last character is, that a mark would belong to
	var marks []rune
	for _, r := range s {
		w := runewidth.RuneWidth(r)
		switch {
		case !drawable(r) || w > 2:
			r, w = unknown, 1
		case w == 0 || unicode.IsMark(r):
			if marked >= 0 && len(marks) < maxMarks {
				marks = append(marks, r)
				main, _, _, _ := c.screen.GetContent(c.x+marked, c.y+y)
				c.screen.SetContent(c.x+marked, c.y+y, main, marks, style)
				continue
			}
			r, w = unknown, 1
		}
		if x+w > c.w {
			return x
		}
		c.screen.SetContent(c.x+x, c.y+y, r, nil, style)
		if w == 2 { // nothing old may stand in its second half
			c.screen.SetContent(c.x+x+1, c.y+y, ' ', nil, style)
		}
		if marked, marks = -1, nil; unicode.IsLetter(r) || unicode.IsNumber(r) {
			marked = x
		}
		x += w
	}
	return x
}

// fill gives a line one style, without text.
func (c canvas) fill(y int, style tcell.Style) {
	for x := range c.w {
		if y >= 0 && y < c.h {
			c.screen.SetContent(c.x+x, c.y+y, ' ', nil, style)
		}
	}
}

// clear empties it.
func (c canvas) clear(style tcell.Style) {
	for y := range c.h {
		c.fill(y, style)
	}
}

// frame draws a border with a title, and returns what is inside.
func (c canvas) frame(style tcell.Style, title string) canvas {
	c.clear(tcell.StyleDefault)
	if c.w < 2 || c.h < 2 {
		return c.sub(0, 0, 0, 0)
	}
	for x := 1; x < c.w-1; x++ {
		c.put(x, 0, style, "─")
		c.put(x, c.h-1, style, "─")
	}
	for y := 1; y < c.h-1; y++ {
		c.put(0, y, style, "│")
		c.put(c.w-1, y, style, "│")
	}
	for _, corner := range []struct {
		x, y int
		s    string
	}{{0, 0, "┌"}, {c.w - 1, 0, "┐"}, {0, c.h - 1, "└"}, {c.w - 1, c.h - 1, "┘"}} {
		c.put(corner.x, corner.y, style, corner.s)
	}
	c.put(2, 0, style.Bold(true), cut(" "+title+" ", c.w-4))
	return c.sub(1, 1, c.w-2, c.h-2)
}

// width is how many columns put would need.
func width(s string) (n int) {
	for _, r := range s {
		n += runeWidth(r)
	}
	return n
}

func runeWidth(r rune) int {
	if r >= ' ' && r < 0x7f {
		return 1
	}
	w := runewidth.RuneWidth(r)
	switch {
	case !drawable(r) || w > 2:
		return 1
	case unicode.IsMark(r):
		return 0
	}
	return w
}

// drawable reports whether all terminals draw a character in as many columns: of the marks that take a column in some writing they
// don't.
func drawable(r rune) bool { return text.Steady(r) && !unicode.Is(unicode.Mc, r) }

// cut shortens s at its end to w columns, and shows that it did.
func cut(s string, w int) string {
	if w <= 0 {
		return ""
	}
	if head(s, w) == s {
		return s
	}
	return head(s, w-1) + "…"
}

// middle shortens s in its middle, so that neither what a name begins with nor the host that it belongs to is lost.
func middle(s string, w int) string {
	if head(s, w) == s {
		return s
	}
	if w < 8 {
		return cut(s, w)
	}
	front := (w - 1) / 3
	return head(s, front) + "…" + ending(s, w-1-front)
}

// head is the first w columns of s.
func head(s string, w int) string {
	n := 0
	for i, r := range s {
		if n += runeWidth(r); n > w {
			return s[:i]
		}
	}
	return s
}

// ending is the last w columns of s.
func ending(s string, w int) string {
	n := 0
	for i := len(s); i > 0; {
		r, size := utf8.DecodeLastRuneInString(s[:i])
		if n += runeWidth(r); n > w {
			return s[i:]
		}
		i -= size
	}
	return s
}

// longest is how many bytes of each end of a text from inside are looked at for a line of the screen.
const longest = 512

// show makes text from inside a sandbox safe, for one line. What is longer than any line loses its middle before it is looked at.
func show(s string) string {
	if len(s) > 2*longest {
		return text.Escape(whole(s[:longest])) + "…" + text.Escape(strings.TrimLeftFunc(s[len(s)-longest:], func(r rune) bool { return r == utf8.RuneError }))
	}
	return text.Escape(s)
}

// whole takes a character that was cut off its end.
func whole(s string) string {
	for i := 1; i <= utf8.UTFMax && i <= len(s); i++ {
		if utf8.RuneStart(s[len(s)-i]) {
			if !utf8.FullRuneInString(s[len(s)-i:]) {
				return s[:len(s)-i]
			}
			break
		}
	}
	return s
}

// wrap breaks a text of several lines, which is safe already, into lines of w columns: at blanks where there are some. It looks at
// each character once or twice, however long the text is.
func wrap(s string, w int) (lines []string) {
	w = max(w, 8)
	for rest := range strings.SplitSeq(s, "\n") {
		indent := rest[:len(rest)-len(strings.TrimLeft(rest, " "))]
		if len(indent) > w/2 {
			indent = indent[:w/2]
		}
		for room, before := w, ""; ; room, before = w-len(indent), indent {
			part := head(rest, room)
			if part == rest {
				lines = append(lines, before+rest)
				break
			}
			if i := strings.LastIndexByte(part, ' '); i > room/2 {
				part = part[:i]
			}
			lines = append(lines, before+part)
			rest = strings.TrimPrefix(rest[len(part):], " ")
		}
	}
	return lines
}
