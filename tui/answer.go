package tui

import (
	"context"
	"time"

	"github.com/gdamore/tcell/v2"
	"github.com/rivo/tview"

	"github.com/nemoclaw/nemoclaw/agent/text"
	"github.com/nemoclaw/nemoclaw/api"
)

// by is what answers from here are recorded with, besides who gave them.
const by = "console"

// answerKey takes a key that answers. What it answers is the request that a shows now, and nothing that comes later.
func (c *console) answerKey(key rune, at time.Time, a asker) {
	r, since := a.asked()
	verdict := "allow"
	if key != 'a' && key != 'A' {
		verdict = "deny"
	}
	switch {
	case c.model.watching():
		c.model.complain("you may watch, and not answer: only members of the steering group may")
	case r == nil:
		c.model.complain("no request is selected")
	case c.rushed:
		c.model.complain("several keys came at once, as pasted text does: nothing was answered")
	case !c.read(since, at):
		c.model.complain("the list moved just before the key: nothing was answered; look again, and press it again")
	case !waits(r):
		c.model.complain("this request needs no answer any more: it is %s", r.State)
	case key == 'A' || key == 'R':
		c.openScopes(r, verdict)
	default:
		c.give(r, api.NewAnswer{Verdict: verdict, Scope: api.ScopeOnce}, "")
	}
}

// give gives an answer, after a second question where one is due: what is dangerous, and what restarts a sandbox.
func (c *console) give(r *api.Request, a api.NewAnswer, restart string) {
	a.By = by
	dangerous := a.Verdict == "allow" && r.Dangerous
	if !dangerous && restart == "" {
		c.send(r, a)
		return
	}
	a.Confirm, a.Restart = dangerous, restart != ""
	s := &sheet{theme: c.theme}
	title, doing := "Restart the sandbox for it?", a.Verdict
	if dangerous {
		title = "This is dangerous. Allow it all the same?"
	}
	c.open(&confirm{c: c, title: title, doing: doing, lines: func(w int) []line {
		s.w, s.out = w, nil
		s.field("sandbox", text.Escape(r.Sandbox))
		s.field("what", text.Escape(r.Plane+" "+r.Action))
		s.styled("object", value(r.Object), s.theme.title)
		s.styled("  reads", reads(r.Plane, r.Object), s.theme.warn)
		s.field("program", or(value(r.Program), "(not known)"))
		for _, k := range r.Risks {
			s.styled("risk", text.Escape(k.Text), s.theme.bad)
		}
		s.styled("restart", restart, s.theme.bad)
		s.field("command", show(r.Args))
		return s.out
	}, yes: func() { c.send(r, a) }})
}

// send sends an answer. Who else answers at the same time was first or is too late: the daemon says which.
func (c *console) send(r *api.Request, a api.NewAnswer) {
	what := text.Escape(r.Sandbox) + ": " + text.Escape(r.Action) + " " + middle(show(r.Object), 60)
	c.model.change(func() { c.model.mine[r.ID] = true })
	c.ask(func(ctx context.Context) func() {
		got, err := c.client.Answer(ctx, r.ID, a)
		switch {
		case err != nil:
			c.model.change(func() { delete(c.model.mine, r.ID) })
			c.model.complain("%s: not answered: %s", what, text.Lines(err.Error()))
		case got.Policy != nil:
			c.model.say("%s: %s, in revision %d of the policy", what, done[a.Verdict], got.Policy.Policy.Revision)
		default:
			c.model.say("%s: %s (%s)", what, done[a.Verdict], scopeText(a))
		}
		return nil
	})
}

var done = map[string]string{"allow": "approved", "deny": "rejected"}

// A confirm asks once more. The key that says yes is none that opens a confirm, so that a key pressed twice confirms nothing.
type confirm struct {
	c     *console
	title string
	doing string // in the hint: "allow", "revoke", ...
	lines func(w int) []line
	yes   func()
	top   int // the first line shown
	shown time.Time
}

func (d *confirm) draw(c canvas, focused bool) {
	w := min(c.w, max(c.w*3/4, 76))
	lines := d.lines(w - 4)
	h := min(len(lines)+4, c.h)
	inner := c.sub((c.w-w)/2, (c.h-h)/2, w, h).frame(d.c.theme.bad, d.title)
	body := inner.sub(1, 0, inner.w-2, inner.h-2)
	d.top = max(min(d.top, len(lines)-body.h), 0)
	drawLines(body, lines[d.top:])
	keys := "y: " + d.doing + "    n, Esc: leave it"
	if len(lines) > body.h {
		keys += "    j k: read on"
	}
	inner.put(1, inner.h-1, d.c.theme.title, cut(keys, inner.w-2))
	if focused && d.shown.IsZero() {
		d.shown = time.Now()
	}
}

func (d *confirm) handle(ev *tcell.EventKey) bool {
	if ev.Key() == tcell.KeyRune && ev.Rune() == 'y' {
		if d.shown.IsZero() || !d.c.read(d.shown, ev.When()) {
			d.c.model.complain("that was too soon to have read the question: press y again, or Esc")
			return true
		}
		d.c.drop(d)
		d.yes()
		return true
	}
	switch key := ev.Rune(); {
	case ev.Key() == tcell.KeyEscape, ev.Key() == tcell.KeyRune && (key == 'n' || key == 'q'):
		d.c.drop(d)
	case ev.Key() == tcell.KeyDown, ev.Key() == tcell.KeyRune && (key == 'j' || key == ' '):
		d.top++
	case ev.Key() == tcell.KeyUp, ev.Key() == tcell.KeyRune && key == 'k':
		d.top--
	}
	return true // nothing else means anything while it is asked
}

func (d *confirm) click(tview.MouseAction, int, int) {}
func (d *confirm) hints() string                     { return "y " + d.doing + "  n leave it" }
