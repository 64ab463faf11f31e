package tui

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gdamore/tcell/v2"

	"github.com/nemoclaw/nemoclaw/agent/text"
	"github.com/nemoclaw/nemoclaw/api"
)

const (
	wide      = 160 // from so many columns on, the selected row's detail stands beside the panes
	low       = 16  // below so many lines, only the pane that has the keys is shown
	noteStays = 15 * time.Second
)

// inASCII is what terminals get that have ASCII alone, for what tcell has nothing by itself.
var inASCII = map[rune]string{
	'━': "=", '…': "~", unknown: "?", '▁': "_", '▂': ".", '▃': ":", '▄': "-", '▅': "=", '▆': "+", '▇': "*", '█': "#",
}

// Draw draws everything: a line on top, the panes or what lies over them, what was said last, and the keys.
func (c *console) Draw(screen tcell.Screen) {
	if !c.ready {
		c.ready = true
		for r, instead := range inASCII {
			screen.RegisterRuneFallback(r, instead)
		}
	}
	screen.HideCursor()
	_, _, w, h := c.GetRect()
	all := canvas{screen, 0, 0, w, h}
	all.clear(c.theme.text)
	c.header(all.sub(0, 0, w, 1))
	middle := all.sub(0, 1, w, h-3)
	if len(c.stack) == 0 {
		c.drawPanes(middle)
	} else {
		for _, p := range c.panes {
			p.hidden()
		}
		for i, v := range c.stack {
			v.draw(middle, i == len(c.stack)-1)
		}
	}
	if c.field != nil {
		c.field.draw(all.sub(0, h-2, w, 1), c.theme)
	} else {
		c.drawNote(all.sub(0, h-2, w, 1))
	}
	bar := all.sub(0, h-1, w, 1)
	bar.fill(0, c.theme.bar)
	hints := c.top().hints()
	if c.field != nil {
		hints = "Enter take it  Esc leave it"
	}
	bar.put(1, 0, c.theme.bar, fit(hints, w-2))
}

// fit leaves out hints that have no room, the last but one first: the last leads to all others, or back.
func fit(hints string, w int) string {
	each := strings.Split(hints, "  ")
	for n := len(each); n > 2 && width(strings.Join(each, "  ")) > w; n-- {
		each = slices.Delete(each, n-2, n-1)
	}
	return cut(strings.Join(each, "  "), w)
}

// drawPanes draws the panes one above the other.
func (c *console) drawPanes(m canvas) {
	side := c.panes[c.focus].detail()
	if m.w >= wide {
		left := m.w * 3 / 5
		right := m.sub(left+1, 0, m.w-left-1, m.h)
		for y := range m.h {
			m.put(left, y, c.theme.border, "│")
		}
		if side != nil {
			body := right.sub(1, 1, right.w-2, right.h-1)
			right.put(1, 0, c.theme.title, cut(side.title(), right.w-2))
			drawLines(body, side.lines(body.w))
		}
		m = m.sub(0, 0, left, m.h)
	}
	if m.h < low {
		for i, p := range c.panes {
			if i == c.focus {
				p.draw(m, true)
			} else {
				p.hidden()
			}
		}
		return
	}
	first := max(m.h/4, 5)
	second := (m.h - first) * 9 / 16
	for i, part := range []struct{ y, h int }{{0, first}, {first, second}, {first + second, m.h - first - second}} {
		c.panes[i].draw(m.sub(0, part.y, m.w, part.h), i == c.focus)
	}
}

// header says where this is and how it stands.
func (c *console) header(line canvas) {
	m, now := c.model, time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	bar := c.theme.bar
	line.fill(0, bar)
	held, refused := m.requests.count()
	running := 0
	for _, b := range m.boxes {
		if b.State == api.Running {
			running++
		}
	}
	says := fmt.Sprintf("NemoClaw  level %s  %d of %d sandboxes run  %d held  %d refused", text.Escape(m.info.Level), running, len(m.boxes), held, refused)
	x := line.put(1, 0, bar, cut(says, line.w-2))
	state := ""
	switch {
	case !m.down.IsZero():
		state = fmt.Sprintf("THE DAEMON DOES NOT ANSWER for %s: what is shown is old; trying again", now.Sub(m.down).Round(time.Second))
	case m.info.Role == "watch":
		state = "watching only"
	}
	if room := line.w - x - 3; state != "" && width(state) > room { // it is what matters most
		line.fill(0, bar)
		line.put(1, 0, bar.Bold(true), cut(state, line.w-2))
	} else {
		line.put(line.w-1-width(state), 0, bar.Bold(true), state)
	}
}

// drawNote draws what was said last, for a while.
func (c *console) drawNote(line canvas) {
	var last note
	c.model.read(func() {
		if n := len(c.model.notes); n > 0 {
			last = c.model.notes[n-1]
		}
	})
	if last.text == "" || time.Since(last.when) > noteStays {
		return
	}
	style := c.theme.text
	if last.bad {
		style = c.theme.bad
	}
	const more = "  (m: all of it)"
	first := wrap(last.text, 1<<20)[0]
	if width(last.text) <= line.w-2 {
		line.put(1, 0, style, first)
		return
	}
	x := line.put(1, 0, style, cut(first, line.w-2-width(more)))
	line.put(x, 0, c.theme.dim, more)
}
