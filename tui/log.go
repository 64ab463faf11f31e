package tui

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/gdamore/tcell/v2"
	"github.com/rivo/tview"

	"github.com/nemoclaw/nemoclaw/agent/text"
	"github.com/nemoclaw/nemoclaw/policy"
)

// auditLog is a search of the audit log: what the daemon has of it, not only what the console was told.
type auditLog struct {
	c     *console
	find  query
	table table[uint64]
	found []policy.Decision // the last maxFound
	more  int               // found before those
	state string
	stop  context.CancelFunc
}

// maxFound is how many records are listed.
const maxFound = 5000

// openLog opens a search, of the sandbox under the cursor at first.
func (c *console) openLog(top view) {
	if _, ok := top.(*auditLog); ok {
		return
	}
	l := &auditLog{c: c, stop: func() {}, table: table[uint64]{theme: c.theme, columns: decisionColumns(), follows: true}}
	l.table.columns[0].width = len("01-02 15:04:05")
	typed := "from:1h "
	if b, ok := top.(boxed); ok && b.sandbox() != "" {
		typed += "sandbox:" + b.sandbox() + " "
	}
	c.open(l)
	l.ask(typed)
}

// ask asks what to look for.
func (l *auditLog) ask(typed string) {
	l.c.field = &field{label: "search: ", help: queryHelp, text: []rune(typed), at: len([]rune(typed)), done: func(s string) {
		q, err := parseQuery(s, true, time.Now())
		if err != nil {
			l.c.model.complain("%s", text.Escape(err.Error()))
			l.ask(s) // to be mended, not typed again
			return
		}
		l.search(q)
	}}
}

// search looks through the log, beside the loop. What is found is shown as it comes.
func (l *auditLog) search(q query) {
	l.stop()
	ctx, cancel := context.WithCancel(l.c.ctx)
	l.stop, l.find, l.found, l.more, l.state = cancel, q, nil, 0, "searching …"
	l.table.has = false
	deliver := func(part []policy.Decision, state string) {
		l.c.later(func() {
			if ctx.Err() != nil { // another search, or none
				return
			}
			l.found = append(l.found, part...)
			if over := len(l.found) - maxFound; over > 0 {
				l.found, l.more = append([]policy.Decision(nil), l.found[over:]...), l.more+over
			}
			l.state = state
		})
	}
	go func() {
		const batch = 500
		var part []policy.Decision
		err := l.c.client.Events(ctx, q.events(), func(_ []byte, d policy.Decision) error {
			if q.decision(&d) {
				part = append(part, d)
			}
			if len(part) == batch {
				deliver(part, "searching …")
				part = nil
			}
			return nil
		})
		state := ""
		if err != nil && ctx.Err() == nil {
			state = "the search failed: " + text.Lines(err.Error())
		}
		deliver(part, state)
	}()
}

func (l *auditLog) draw(c canvas, focused bool) {
	title := "Audit log"
	if l.find.typed != "" {
		title += ": " + text.Escape(l.find.typed)
	}
	inner := c.frame(l.c.theme.title, title)
	says := fmt.Sprintf("%d found", len(l.found)+l.more)
	if l.more > 0 {
		says += fmt.Sprintf(", the last %d are listed", len(l.found))
	}
	inner.put(1, 0, l.c.theme.dim, cut(strings.TrimSpace(says+"  "+l.state), inner.w-2))
	list := l.found
	l.table.draw(inner.sub(0, 1, inner.w, inner.h-1), focused, len(list), func(i int) uint64 { return list[i].Seq }, func(i int) []cell {
		row := decisionRow(l.c.theme, &list[i])
		row[0].text = list[i].Time.Local().Format("01-02 15:04:05")
		return row
	})
}

func (l *auditLog) handle(ev *tcell.EventKey) bool {
	switch {
	case l.table.handle(ev):
	case ev.Key() == tcell.KeyEnter:
		if d, ok := l.selected(); ok {
			l.c.open(newReader(l.c, &decisionPage{c: l.c, d: d}))
		}
	case ev.Key() == tcell.KeyRune && (ev.Rune() == '/' || ev.Rune() == 'l'):
		l.ask(l.find.typed)
	case ev.Key() == tcell.KeyEscape, ev.Key() == tcell.KeyRune && ev.Rune() == 'q':
		l.stop()
		l.c.drop(l)
	default:
		return false
	}
	return true
}

func (l *auditLog) selected() (d policy.Decision, ok bool) {
	if !l.table.has || l.table.index >= len(l.found) {
		return d, false
	}
	return l.found[l.table.index], true
}

func (l *auditLog) sandbox() string {
	d, _ := l.selected()
	return d.Sandbox
}

func (l *auditLog) question() (question, bool) {
	d, ok := l.selected()
	if !ok {
		return question{}, false
	}
	return planeQuestion(d.Sandbox, string(d.Plane), d.Action, d.Object, d.Subject.Exe)
}

func (l *auditLog) click(action tview.MouseAction, x, y int) {
	switch action {
	case tview.MouseScrollUp:
		l.table.move(-3)
	case tview.MouseScrollDown:
		l.table.move(3)
	default:
		l.table.click(x, y)
	}
}

func (l *auditLog) hints() string {
	return "/ search  Enter detail  e explain  p policy  g grants  j k choose  Esc back"
}
