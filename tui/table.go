package tui

import (
	"time"

	"github.com/gdamore/tcell/v2"
)

// A column is a column of a table.
type column struct {
	head  string
	width int  // in cells; 0: it shares what the others leave
	share int  // its part of that
	from  int  // it is shown in a pane of at least so many columns
	right bool // numbers
}

// A cell is what stands in a row's column. Its text is safe already.
type cell struct {
	text  string
	style tcell.Style
}

// A table shows rows of which only those on the screen are asked for. What is selected is a row's key, never its place: rows may
// come, go and move.
type table[K comparable] struct {
	columns []column
	theme   theme
	follows bool // the last row stays selected when more come, once it is
	pins    int  // how many of the first rows are on the screen wherever the selected one is; half of the room at most

	sel   K
	index int  // where the selected row was
	has   bool // a row is selected
	top   int  // the first row shown after the pinned ones
	last  bool // the last row is selected

	rows  int           // how many fit
	at    canvas        // where the rows are
	keys  []K           // of the rows on the screen
	since map[K]place   // where each stands, since when
	moved time.Time     // when the selection last went to another row by itself
	key   func(i int) K // of the list that was drawn last
	n     int           // and how many it has
}

// place is where a row is on the screen, and since when it is there.
type place struct {
	y     int
	since time.Time
}

// find brings the selection up to date with a list of n rows: the row with the key, or the one that took its place.
func (t *table[K]) find(n int, key func(i int) K, now time.Time) {
	t.n, t.key = n, key
	switch {
	case n == 0:
		t.has, t.index, t.top = false, 0, 0
		return
	case t.follows && (t.last || !t.has):
		t.choose(n - 1)
		return
	case t.has && t.index < n && key(t.index) == t.sel:
		return
	case t.has:
		for i := range n {
			if key(i) == t.sel {
				t.index = i
				return
			}
		}
	}
	t.moved = now
	t.choose(min(t.index, n-1))
}

// choose selects the row at i.
func (t *table[K]) choose(i int) {
	t.index, t.sel, t.has, t.last = i, t.key(i), true, i == t.n-1
}

// move selects another row, by so many from the selected one.
func (t *table[K]) move(by int) {
	if t.n > 0 {
		t.choose(min(max(t.index+by, 0), t.n-1))
	}
}

// draw draws the heads and the rows that fit, and remembers what stands where.
func (t *table[K]) draw(c canvas, focused bool, n int, key func(i int) K, row func(i int) []cell) {
	t.drawAt(time.Now(), c, focused, n, key, row)
}

func (t *table[K]) drawAt(now time.Time, c canvas, focused bool, n int, key func(i int) K, row func(i int) []cell) {
	t.find(n, key, now)
	widths := t.widths(c.w)
	x := 1
	for i, col := range t.columns {
		if widths[i] > 0 {
			t.put(c, x, 0, t.theme.head, col, cut(col.head, widths[i]), widths[i])
			x += widths[i] + 1
		}
	}
	t.at = c.sub(0, 1, c.w, c.h-1)
	t.rows = t.at.h
	pins := min(t.pins, t.rows/2)
	t.top = max(min(t.top, t.index, n-t.rows+pins), pins)
	if t.index >= t.top+t.rows-pins {
		t.top = t.index - t.rows + pins + 1
	}
	was := t.since
	t.since, t.keys = make(map[K]place, t.rows), t.keys[:0]
	for y := range t.rows {
		i := y
		if y >= pins {
			i = t.top + y - pins
		}
		if i >= n {
			break
		}
		k := key(i)
		p, known := was[k]
		if !known || p.y != t.at.y+y {
			p = place{t.at.y + y, now}
		}
		t.since[k] = p
		t.keys = append(t.keys, k)
		t.row(y, row(i), widths, i == t.index && t.has, focused)
	}
}

// row draws a row.
func (t *table[K]) row(y int, cells []cell, widths []int, selected, focused bool) {
	over := tcell.StyleDefault
	if selected {
		over = t.theme.elsewhere
		if focused {
			over = t.theme.selected
		}
		t.at.fill(y, over)
		t.at.put(0, y, over, ">")
	}
	x := 1
	for i, cell := range cells {
		if widths[i] == 0 {
			continue
		}
		style := cell.style
		if selected {
			style = over
		}
		t.put(t.at, x, y, style, t.columns[i], middle(cell.text, widths[i]), widths[i])
		x += widths[i] + 1
	}
}

func (t *table[K]) put(c canvas, x, y int, style tcell.Style, col column, s string, w int) {
	if col.right {
		x += w - width(s)
	}
	c.put(x, y, style, s)
}

// widths gives each column its room; 0: it is not shown.
func (t *table[K]) widths(w int) []int {
	widths := make([]int, len(t.columns))
	left, shares := w-1, 0
	for i, col := range t.columns {
		if w < col.from {
			continue
		}
		widths[i] = col.width
		left -= col.width + 1
		shares += col.share
	}
	for i, col := range t.columns {
		if w >= col.from && col.share > 0 {
			widths[i] = max(left*col.share/shares, 4)
		}
	}
	return widths
}

// hidden says that something else is on the screen: what is drawn after it is new to who looks.
func (t *table[K]) hidden() { t.since = nil }

// rested is since when the selected row has been under the cursor, at its place; the future when it is not there.
func (t *table[K]) rested() time.Time {
	p, shown := t.since[t.sel]
	switch {
	case !t.has || !shown:
		return never
	case t.moved.After(p.since):
		return t.moved
	}
	return p.since
}

// never is a time that no key goes down after.
var never = time.Unix(1<<40, 0)

// click selects the row at a place of the screen, and reports whether there is one.
func (t *table[K]) click(x, y int) bool {
	i := y - t.at.y
	if x < t.at.x || x >= t.at.x+t.at.w || i < 0 || i >= len(t.keys) {
		return false
	}
	for j := range t.n { // the list may be another by now
		if t.key(j) == t.keys[i] {
			t.choose(j)
			return true
		}
	}
	return false
}

// keys that move the selection.
func (t *table[K]) handle(ev *tcell.EventKey) bool {
	switch ev.Key() {
	case tcell.KeyUp:
		t.move(-1)
	case tcell.KeyDown:
		t.move(1)
	case tcell.KeyPgUp, tcell.KeyCtrlB:
		t.move(-max(t.rows-1, 1))
	case tcell.KeyPgDn, tcell.KeyCtrlF:
		t.move(max(t.rows-1, 1))
	case tcell.KeyCtrlU:
		t.move(-max(t.rows/2, 1))
	case tcell.KeyCtrlD:
		t.move(max(t.rows/2, 1))
	case tcell.KeyHome:
		t.move(-t.n)
	case tcell.KeyEnd:
		t.move(t.n)
	case tcell.KeyRune:
		switch ev.Rune() {
		case 'k':
			t.move(-1)
		case 'j':
			t.move(1)
		case '0':
			t.move(-t.n)
		case 'G':
			t.move(t.n)
		default:
			return false
		}
	default:
		return false
	}
	return true
}
