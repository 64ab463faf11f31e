package tui

import (
	"time"

	"github.com/gdamore/tcell/v2"
	"github.com/rivo/tview"

	"github.com/nemoclaw/nemoclaw/api"
)

// A page is text to read.
type page interface {
	title() string
	lines(w int) []line // as many columns wide
	keys() string       // hints; "": only those of a reader
}

// A line is a line of a page. Its text is safe already.
type line struct {
	text  string
	style tcell.Style
}

// drawLines draws the lines that fit.
func drawLines(c canvas, lines []line) {
	for y := 0; y < c.h && y < len(lines); y++ {
		c.put(0, y, lines[y].style, lines[y].text)
	}
}

// A reader shows a page.
type reader struct {
	c     *console
	page  page
	top   int
	n     int // lines
	rows  int // that fit
	shown time.Time
}

func newReader(c *console, p page) *reader { return &reader{c: c, page: p} }

func (r *reader) draw(c canvas, focused bool) {
	style := r.c.theme.border
	if focused {
		style = r.c.theme.title
	}
	inner := c.frame(style, r.page.title())
	inner = inner.sub(1, 0, inner.w-2, inner.h)
	lines := r.page.lines(inner.w)
	r.n, r.rows = len(lines), inner.h
	r.scroll(0)
	drawLines(inner, lines[r.top:])
	if r.n > r.rows {
		c.put(c.w-12, c.h-1, style, cut(" more: j k ", 11))
	}
	switch {
	case !focused:
		r.shown = time.Time{}
	case r.shown.IsZero():
		r.shown = time.Now()
	}
}

func (r *reader) scroll(by int) { r.top = max(min(r.top+by, r.n-r.rows), 0) }

func (r *reader) handle(ev *tcell.EventKey) bool {
	if k, ok := r.page.(interface{ handle(*tcell.EventKey) bool }); ok && k.handle(ev) {
		return true
	}
	switch ev.Key() {
	case tcell.KeyUp:
		r.scroll(-1)
	case tcell.KeyDown:
		r.scroll(1)
	case tcell.KeyPgUp, tcell.KeyCtrlB, tcell.KeyCtrlU:
		r.scroll(-max(r.rows-1, 1))
	case tcell.KeyPgDn, tcell.KeyCtrlF, tcell.KeyCtrlD:
		r.scroll(max(r.rows-1, 1))
	case tcell.KeyHome:
		r.scroll(-r.n)
	case tcell.KeyEnd:
		r.scroll(r.n)
	case tcell.KeyEnter:
		r.c.drop(r)
	case tcell.KeyRune:
		switch ev.Rune() {
		case 'k':
			r.scroll(-1)
		case 'j':
			r.scroll(1)
		case ' ':
			r.scroll(max(r.rows-1, 1))
		case '0':
			r.scroll(-r.n)
		case 'G':
			r.scroll(r.n)
		default:
			return false
		}
	default:
		return false
	}
	return true
}

func (r *reader) click(action tview.MouseAction, _, _ int) {
	switch action {
	case tview.MouseScrollUp:
		r.scroll(-3)
	case tview.MouseScrollDown:
		r.scroll(3)
	}
}

func (r *reader) hints() string {
	const reading = "j k scroll  Esc back"
	if keys := r.page.keys(); keys != "" {
		return keys + "  " + reading
	}
	return reading
}

func (r *reader) asked() (*api.Request, time.Time) {
	p, ok := r.page.(*requestPage)
	switch {
	case !ok:
		return nil, never
	case r.shown.IsZero():
		return p.request(), never
	}
	return p.request(), r.shown
}

func (r *reader) sandbox() string {
	if p, ok := r.page.(boxed); ok {
		return p.sandbox()
	}
	return ""
}

func (r *reader) question() (question, bool) {
	if p, ok := r.page.(explained); ok {
		return p.question()
	}
	return question{}, false
}
