package tui

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/gdamore/tcell/v2"
	"github.com/rivo/tview"

	"github.com/nemoclaw/nemoclaw/agent/text"
	"github.com/nemoclaw/nemoclaw/api"
)

// scopes is where an answer is given for more than once: each thing that it can be about, for each time that it can hold, and
// what it would do, as the daemon says it.
type scopes struct {
	c       *console
	r       *api.Request
	verdict string
	choices []choice
	table   table[int]
	top     int  // of what the chosen one would do: the first line shown
	more    bool // there are lines below
	shown   time.Time
}

// choice is one answer.
type choice struct {
	offer  api.Offer
	answer api.NewAnswer

	asked   bool // the daemon was, what it would do
	effect  []line
	restart string // what it would restart, and why
}

// durations are those that are offered; another can be typed.
var durations = []string{"15m", "1h", "8h"}

func (c *console) openScopes(r *api.Request, verdict string) {
	d := &scopes{c: c, r: r, verdict: verdict, table: table[int]{theme: c.theme, columns: []column{
		{head: "ANSWER FOR", share: 1}, {head: "HOLDS", width: len("until the sandbox stops")},
	}}}
	for _, o := range r.Offers {
		d.offer(o)
	}
	if len(d.choices) == 0 {
		c.model.complain("the daemon offers no other answer for this than once: a or r")
		return
	}
	c.open(d)
}

func (d *scopes) offer(o api.Offer) {
	add := func(s api.Scope, length string) {
		d.choices = append(d.choices, choice{offer: o, answer: api.NewAnswer{Verdict: d.verdict, Scope: s, For: length, Offer: o.ID}})
	}
	for _, s := range o.Scopes {
		switch {
		case s == api.ScopeFor:
			for _, length := range durations {
				add(s, length)
			}
		case s == api.ScopeAlways && d.rule(o) == "": // no rule can say it
		default:
			add(s, "")
		}
	}
}

// rule is what an answer that holds always adds to the policy.
func (d *scopes) rule(o api.Offer) string {
	if d.verdict == "deny" {
		return o.Deny
	}
	return o.YAML
}

// scopeText is how long an answer holds, in words.
func scopeText(a api.NewAnswer) string {
	switch a.Scope {
	case api.ScopeSession:
		return "until the sandbox stops"
	case api.ScopeFor:
		return "for " + text.Escape(a.For)
	case api.ScopeAlways:
		return "always"
	}
	return string(api.ScopeOnce)
}

func (d *scopes) draw(c canvas, focused bool) {
	title := "Approve with scope"
	if d.verdict == "deny" {
		title = "Reject with scope"
	}
	inner := c.frame(d.c.theme.title, title)
	inner = inner.sub(1, 0, inner.w-2, inner.h)
	what := text.Escape(d.r.Sandbox) + ": " + text.Escape(d.r.Plane+" "+d.r.Action) + " " + show(d.r.Object) + " by " + or(show(d.r.Program), "(not known)")
	head := wrap(what, inner.w)
	head = head[:min(len(head), 3)]
	for y, l := range head {
		inner.put(0, y, d.c.theme.title, l)
	}
	list := min(len(d.choices)+1, max(inner.h/2-len(head), 4))
	d.table.draw(inner.sub(0, len(head), inner.w, list), focused, len(d.choices), func(i int) int { return i }, func(i int) []cell {
		return []cell{{text.Escape(d.choices[i].offer.Text), d.c.theme.text}, {scopeText(d.choices[i].answer), d.c.theme.text}}
	})
	below := inner.sub(0, len(head)+list, inner.w, inner.h-len(head)-list)
	below.put(0, 0, d.c.theme.border, strings.Repeat("─", below.w))
	chosen := &d.choices[d.table.index]
	if !chosen.asked {
		d.dryRun(chosen)
	}
	lines := d.effect(chosen, below.w)
	d.top = max(min(d.top, len(lines)-(below.h-1)), 0)
	drawLines(below.sub(0, 1, below.w, below.h-1), lines[d.top:])
	if d.more = len(lines) > d.top+below.h-1; d.more {
		c.put(c.w-18, c.h-1, d.c.theme.title, cut(" more: space ", 16))
	}
	if focused && d.shown.IsZero() {
		d.shown = time.Now()
	}
}

// effect is what a choice would do.
func (d *scopes) effect(ch *choice, w int) []line {
	s := &sheet{theme: d.c.theme, w: w}
	if ch.effect == nil { // what is sure already
		s.add(s.theme.dim, "asking the daemon what this would do …")
		if ch.answer.Scope == api.ScopeAlways {
			s.yaml(map[string]string{"allow": "To allow it", "deny": "To deny it"}[d.verdict], d.rule(ch.offer))
		}
	}
	for _, l := range ch.effect {
		s.add(l.style, l.text)
	}
	return s.out
}

// dryRun asks the daemon what a choice would do.
func (d *scopes) dryRun(ch *choice) {
	ch.asked = true
	a := ch.answer
	a.DryRun, a.Confirm, a.Restart, a.By = true, true, true, by
	d.c.ask(func(ctx context.Context) func() {
		got, err := d.c.client.Answer(ctx, d.r.ID, a)
		return func() { ch.effect, ch.restart = d.words(got, err) }
	})
}

// words says what an answer would do.
func (d *scopes) words(got api.AnswerResult, err error) (out []line, restart string) {
	t := d.c.theme
	if err != nil {
		return []line{{text.Lines(err.Error()), t.bad}}, ""
	}
	out = []line{{"It answers what waits now, or the next try; nothing is remembered.", t.text}}
	if g := got.Grant; g != nil {
		until := "until the sandbox stops"
		if g.Until != nil {
			until = "until " + stamp(*g.Until)
		}
		by := ""
		if g.Program != "" {
			by = " by " + show(g.Program)
		}
		out = []line{{fmt.Sprintf("A grant: %s %s %s%s, %s. g lists and revokes grants.", text.Escape(g.Verdict), text.Escape(g.Action), show(g.Object), by, until), t.text}}
	}
	if p := got.Policy; p != nil {
		out = []line{{"A change of the policy:", t.text}}
		if len(p.Restart) > 0 {
			restart = text.Escape(strings.Join(p.Restart, "; "))
			out = append(out, line{"It needs a restart of the sandbox: " + restart, t.bad})
		}
		for _, warning := range p.Warnings {
			out = append(out, line{"warning: " + text.Escape(warning), t.warn})
		}
		out = append(out, diffLines(t, p.Diff)...)
	}
	return out, restart
}

// diffLines is a unified diff.
func diffLines(t theme, diff string) (out []line) {
	for l := range strings.SplitSeq(strings.TrimRight(diff, "\n"), "\n") {
		style := t.text
		switch {
		case strings.HasPrefix(l, "+"):
			style = t.good
		case strings.HasPrefix(l, "-"):
			style = t.bad
		case strings.HasPrefix(l, "@@"):
			style = t.dim
		}
		out = append(out, line{text.Lines(l), style})
	}
	return out
}

func (d *scopes) handle(ev *tcell.EventKey) bool {
	switch {
	case d.table.handle(ev):
		d.top = 0
	case ev.Key() == tcell.KeyRune && ev.Rune() == ' ':
		if d.top += 5; !d.more {
			d.top = 0
		}
	case ev.Key() == tcell.KeyEnter:
		d.take(ev)
	case ev.Key() == tcell.KeyRune && ev.Rune() == 'd':
		d.ownDuration()
	default:
		return ev.Key() == tcell.KeyRune && ev.Rune() != 'q' && ev.Rune() != '?' // no other key answers anything here
	}
	return true
}

// take gives the chosen answer, once it could be read what it does.
func (d *scopes) take(ev *tcell.EventKey) {
	ch := &d.choices[d.table.index]
	switch {
	case d.shown.IsZero() || !d.c.read(d.shown, ev.When()):
		d.c.model.complain("that was too soon to have read it: press Enter again, or Esc")
	case ch.effect == nil:
		d.c.model.complain("wait until the daemon has said what this would do, or Esc")
	default:
		d.c.drop(d)
		d.c.give(d.r, ch.answer, ch.restart)
	}
}

// ownDuration asks for a duration for what the chosen answer is about.
func (d *scopes) ownDuration() {
	ch := d.choices[d.table.index]
	d.c.field = &field{label: "for how long: ", help: "such as 45m or 2h30m", done: func(s string) {
		length, err := time.ParseDuration(strings.TrimSpace(s))
		if err != nil || length <= 0 {
			d.c.model.complain("%s is no duration: want one such as 45m or 2h30m", text.Escape(s))
			return
		}
		a := ch.answer
		a.Scope, a.For = api.ScopeFor, strings.TrimSpace(s)
		d.choices = append(d.choices, choice{offer: ch.offer, answer: a})
		d.table.n = len(d.choices)
		d.table.choose(len(d.choices) - 1)
		d.shown = time.Time{}
	}}
}

func (d *scopes) click(action tview.MouseAction, x, y int) {
	if action == tview.MouseLeftDown {
		d.table.click(x, y)
	}
}

func (d *scopes) hints() string {
	return "Enter take it  j k choose  space read on  d another duration  Esc leave it"
}
