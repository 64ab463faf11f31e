package tui

import (
	"strings"
	"unicode"

	"github.com/gdamore/tcell/v2"
)

// A field is a line that is typed into.
type field struct {
	label string
	help  string
	text  []rune
	at    int               // the cursor
	done  func(text string) // Enter
}

// maxField is the longest line.
const maxField = 1000

// handle takes a key, and reports whether the field is left.
func (f *field) handle(ev *tcell.EventKey) (left bool) {
	switch ev.Key() {
	case tcell.KeyEnter:
		f.done(string(f.text))
		return true
	case tcell.KeyEscape, tcell.KeyCtrlC:
		return true
	case tcell.KeyRune:
		f.paste(string(ev.Rune()))
	case tcell.KeyBackspace, tcell.KeyBackspace2:
		f.erase(f.at - 1)
	case tcell.KeyDelete:
		if f.at < len(f.text) {
			f.text = append(f.text[:f.at], f.text[f.at+1:]...)
		}
	case tcell.KeyCtrlW:
		i := f.at
		for i > 0 && f.text[i-1] == ' ' {
			i--
		}
		for i > 0 && f.text[i-1] != ' ' {
			i--
		}
		f.erase(i)
	case tcell.KeyCtrlU:
		f.erase(0)
	case tcell.KeyLeft:
		f.at = max(f.at-1, 0)
	case tcell.KeyRight:
		f.at = min(f.at+1, len(f.text))
	case tcell.KeyHome, tcell.KeyCtrlA:
		f.at = 0
	case tcell.KeyEnd, tcell.KeyCtrlE:
		f.at = len(f.text)
	}
	return false
}

// erase takes out what is between from and the cursor.
func (f *field) erase(from int) {
	from = max(from, 0)
	f.text = append(f.text[:from], f.text[f.at:]...)
	f.at = from
}

// paste puts text where the cursor is: what can be shown of it.
func (f *field) paste(text string) {
	typed := []rune(strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return -1
	}, text))
	typed = typed[:min(len(typed), max(maxField-len(f.text), 0))]
	f.text = append(f.text[:f.at], append(typed, f.text[f.at:]...)...)
	f.at += len(typed)
}

// draw draws it on the first line of c, with what can be typed after it.
func (f *field) draw(c canvas, t theme) {
	c.fill(0, t.text)
	x := c.put(0, 0, t.title, f.label)
	front := ending(string(f.text[:f.at]), c.w-x-10)
	x = c.put(x, 0, t.text, front)
	c.screen.ShowCursor(c.x+x, c.y)
	end := c.put(x, 0, t.text, string(f.text[f.at:]))
	c.put(end+3, 0, t.dim, cut(f.help, c.w-end-3))
}
