package tui

import (
	"context"
	"time"

	"github.com/gdamore/tcell/v2"
	"github.com/rivo/tview"

	"github.com/nemoclaw/nemoclaw/agent/text"
	"github.com/nemoclaw/nemoclaw/api"
)

// What a view may have under its cursor, besides.
type (
	// asker has a request, and says since when it is there, at rest.
	asker interface {
		asked() (*api.Request, time.Time)
	}
	// boxed has a sandbox.
	boxed interface{ sandbox() string }
	// explained has something that the policy can be asked about.
	explained interface{ question() (question, bool) }
)

// InputHandler takes the keys.
func (c *console) InputHandler() func(*tcell.EventKey, func(tview.Primitive)) {
	return func(ev *tcell.EventKey, _ func(tview.Primitive)) {
		c.rushed = ev.When().Sub(c.last) < c.burst
		c.last = ev.When()
		top := c.top()
		switch _, types := top.(typist); {
		case c.field != nil:
			if f := c.field; f.handle(ev) && c.field == f {
				c.field = nil
			}
		case top.handle(ev), types:
		case ev.Key() == tcell.KeyRune:
			c.letter(ev, top)
		default:
			c.special(ev)
		}
	}
}

// interrupt makes Ctrl-C leave what is typed, and else the console.
func (c *console) interrupt(ev *tcell.EventKey) *tcell.EventKey {
	if _, types := c.top().(typist); ev.Key() == tcell.KeyCtrlC && (types || c.field != nil) {
		return tcell.NewEventKey(tcell.KeyEscape, 0, tcell.ModNone)
	}
	return ev
}

func (c *console) special(ev *tcell.EventKey) {
	switch ev.Key() {
	case tcell.KeyEscape:
		c.close()
	case tcell.KeyTab, tcell.KeyBacktab:
		if len(c.stack) == 0 {
			by := 1
			if ev.Key() == tcell.KeyBacktab {
				by = len(c.panes) - 1
			}
			c.focus = (c.focus + by) % len(c.panes)
		}
	case tcell.KeyEnter:
		if len(c.stack) == 0 {
			c.openDetail()
		}
	case tcell.KeyCtrlL:
		c.app.Sync()
	}
}

func (c *console) letter(ev *tcell.EventKey, top view) {
	switch r := ev.Rune(); r {
	case 'q':
		if len(c.stack) == 0 {
			c.app.Stop()
		}
		c.close()
	case 'a', 'r', 'x', 'A', 'R':
		if a, ok := top.(asker); ok {
			c.answerKey(r, ev.When(), a)
		} else {
			c.model.complain("there is no request here to answer: Tab goes to the requests")
		}
	case 'e':
		c.explain(top)
	case 's', 'p', 'g':
		b, ok := top.(boxed)
		if !ok || b.sandbox() == "" {
			c.model.complain("no sandbox is selected")
			return
		}
		switch r {
		case 's':
			c.openShell(b.sandbox())
		case 'p':
			c.openPolicy(b.sandbox())
		case 'g':
			c.openGrants(b.sandbox())
		}
	case '/':
		if len(c.stack) == 0 {
			c.openFilter()
		}
	case 'l':
		c.openLog(top)
	case 'm':
		c.openOnce(&messages{c: c})
	case '?':
		c.openOnce(&help{c: c})
	}
}

// openOnce shows a page, unless it lies on top already.
func (c *console) openOnce(p page) {
	if r, ok := c.top().(*reader); ok && r.page.title() == p.title() {
		return
	}
	c.open(newReader(c, p))
}

// openDetail shows all about the selected row.
func (c *console) openDetail() {
	if p := c.panes[c.focus].detail(); p != nil {
		c.open(newReader(c, p))
	}
}

// openFilter asks what the pane should list.
func (c *console) openFilter() {
	p := c.panes[c.focus]
	typed := []rune(p.filter())
	c.field = &field{label: "/", help: queryHelp, text: typed, at: len(typed), done: func(s string) {
		q, err := parseQuery(s, false, time.Now())
		if err != nil {
			c.model.complain("%s", text.Escape(err.Error()))
			return
		}
		p.search(q)
	}}
}

// openShell lends the terminal to a shell inside.
func (c *console) openShell(name string) {
	switch {
	case c.model.watching():
		c.model.complain("you may watch, and not run commands: only members of the steering group may")
		return
	case c.shell == nil:
		c.model.complain("this console can't open a shell: use nemoclaw %s connect", name)
		return
	}
	var err error
	lent := c.app.Suspend(func() { err = c.shell(name) })
	// What was on the screen before is news to who comes back.
	for _, p := range c.panes {
		p.hidden()
	}
	switch {
	case !lent:
		c.model.complain("the terminal can't be lent to a shell")
	case err != nil:
		c.model.complain("the shell in %s: %s", name, text.Lines(err.Error()))
	}
}

// question is what is asked of a policy.
type question struct{ sandbox, action, object, program string }

// planeQuestion is what to ask about something that was attempted; false: a policy has no answer to it.
func planeQuestion(sandbox, plane, action, object, program string) (question, bool) {
	q := question{sandbox: sandbox, object: object, program: program}
	switch plane {
	case "network":
		q.action = "connect"
	case "dns":
		q.action, q.object = "connect", object+":443"
	case "exec":
		q.action = "exec"
	case "file":
		q.action = "write"
		if action == "read" || action == "exec" {
			q.action = action
		}
	}
	return q, q.action != ""
}

// explain asks the policy about what is under the cursor.
func (c *console) explain(top view) {
	e, ok := top.(explained)
	var q question
	if ok {
		q, ok = e.question()
	}
	if !ok {
		c.model.complain("there is nothing here that a policy could explain")
		return
	}
	p := &answerPage{c: c, q: q}
	c.open(newReader(c, p))
	c.ask(func(ctx context.Context) func() {
		a, err := c.client.Explain(ctx, q.sandbox, q.action, q.object, q.program)
		return func() { p.answer, p.err, p.came = a, err, true }
	})
}
