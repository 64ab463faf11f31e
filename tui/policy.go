package tui

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/gdamore/tcell/v2"
	"github.com/rivo/tview"

	"github.com/nemoclaw/nemoclaw/agent/text"
	"github.com/nemoclaw/nemoclaw/api"
)

// policyPage is a sandbox's policy as it is written.
type policyPage struct {
	c    *console
	name string
	text api.PolicyText
	came bool
	err  error
}

func (c *console) openPolicy(name string) {
	p := &policyPage{c: c, name: name}
	c.open(newReader(c, p))
	p.load()
}

func (p *policyPage) load() {
	p.c.ask(func(ctx context.Context) func() {
		got, err := p.c.client.Policy(ctx, p.name, 0)
		return func() { p.text, p.err, p.came = got, err, true }
	})
}

func (p *policyPage) title() string {
	if !p.came || p.err != nil {
		return "Policy of " + text.Escape(p.name)
	}
	return fmt.Sprintf("Policy of %s: %s revision %d", text.Escape(p.name), text.Escape(p.text.Name), p.text.Revision)
}

func (p *policyPage) sandbox() string { return p.name }
func (p *policyPage) keys() string    { return "e edit  g grants" }

func (p *policyPage) lines(w int) []line {
	s := &sheet{theme: p.c.theme, w: w}
	switch {
	case !p.came:
		s.add(s.theme.dim, "asking the daemon …")
		return s.out
	case p.err != nil:
		s.add(s.theme.bad, text.Lines(p.err.Error()))
		return s.out
	}
	s.add(s.theme.dim, fmt.Sprintf("%s by %s: %s", stamp(p.text.When), text.Escape(p.text.Who), text.Escape(p.text.What)))
	for _, rule := range p.text.Expired {
		s.add(s.theme.warn, "expired: "+text.Escape(rule))
	}
	s.blank()
	for i, l := range strings.Split(strings.TrimRight(text.Lines(p.text.Text), "\n"), "\n") {
		number := fmt.Sprintf("%4d  ", i+1) // as rules are named: FILE:LINE
		for _, part := range wrap(l, w-len(number)) {
			s.out = append(s.out, line{number + part, s.theme.text})
			number = "      "
		}
	}
	return s.out
}

func (p *policyPage) handle(ev *tcell.EventKey) bool {
	if ev.Key() != tcell.KeyRune || ev.Rune() != 'e' {
		return false
	}
	switch {
	case !p.came || p.err != nil:
		p.c.model.complain("there is no text yet to edit")
	case p.c.model.watching():
		p.c.model.complain("you may watch, and not change policies: only members of the steering group may")
	case text.Lines(p.text.Text) != p.text.Text:
		p.c.model.complain("the policy has characters that can't be shown as they are (tabs, control characters): nemoclaw %s policy get and set take it as it is", p.name)
	default:
		p.c.open(newEditor(p))
	}
	return true
}

// An editor changes a policy's text. What comes of it is shown before it is applied, and nothing that somebody else did
// meanwhile is lost: the change is one of the revision that was there when it began.
type editor struct {
	c      *console
	page   *policyPage
	area   *tview.TextArea
	base   api.PolicyText // what the text is a change of
	asking bool
}

func newEditor(p *policyPage) *editor {
	e := &editor{c: p.c, page: p, area: tview.NewTextArea(), base: p.text}
	t := p.c.theme
	e.area.SetWrap(false).SetTextStyle(t.text).SetSelectedStyle(t.selected).SetText(p.text.Text, false)
	e.area.SetBackgroundColor(tcell.ColorDefault)
	e.area.Focus(nil)
	return e
}

func (e *editor) draw(c canvas, focused bool) {
	inner := c.frame(e.c.theme.title, fmt.Sprintf("Editing the policy of %s, from revision %d", text.Escape(e.page.name), e.base.Revision))
	e.area.SetRect(inner.x, inner.y, inner.w, inner.h)
	if !focused {
		e.area.Blur()
	} else {
		e.area.Focus(nil)
	}
	e.area.Draw(c.screen)
}

func (e *editor) handle(ev *tcell.EventKey) bool {
	switch ev.Key() {
	case tcell.KeyCtrlS:
		e.check()
	case tcell.KeyEscape:
		e.leave()
	case tcell.KeyRune:
		if !unicode.IsPrint(ev.Rune()) {
			return true
		}
		fallthrough
	default:
		e.area.InputHandler()(ev, func(tview.Primitive) {})
	}
	return true
}

// paste takes what can be shown of a text.
func (e *editor) paste(s string) {
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) || r == '\n' {
			return r
		}
		return -1
	}, s)
	e.area.PasteHandler()(s, func(tview.Primitive) {})
}

func (e *editor) leave() {
	if e.area.GetText() == e.base.Text {
		e.c.drop(e)
		return
	}
	e.c.open(&confirm{c: e.c, title: "Throw the changes away?", doing: "throw them away", lines: func(int) []line {
		return []line{{"The policy stays as it is.", e.c.theme.text}}
	}, yes: func() { e.c.drop(e) }})
}

// check asks the daemon what the text would change, and shows that.
func (e *editor) check() {
	if e.asking {
		return
	}
	change := api.PolicyChange{Text: e.area.GetText(), PolicyName: e.base.Name, Expect: e.base.Revision, DryRun: true, Restart: true}
	if change.Text == e.base.Text {
		e.c.model.say("nothing is changed yet")
		return
	}
	e.asking = true
	e.c.ask(func(ctx context.Context) func() {
		would, err := e.c.client.ChangePolicy(ctx, e.page.name, change)
		return func() {
			e.asking = false
			if err != nil {
				e.refused(err)
				return
			}
			e.propose(change, would)
		}
	})
}

// propose shows what a change would do, and applies it when it is wanted.
func (e *editor) propose(change api.PolicyChange, would api.PolicyResult) {
	restart := strings.Join(would.Restart, "; ")
	doing := "apply it"
	if restart != "" {
		doing = "apply it and restart the sandbox"
	}
	change.DryRun, change.Restart = false, restart != ""
	s := &sheet{theme: e.c.theme}
	e.c.open(&confirm{c: e.c, title: "Apply this change?", doing: doing, lines: func(w int) []line {
		s.w, s.out = w, nil
		if restart != "" {
			s.add(s.theme.bad, "It needs a restart of the sandbox: "+text.Escape(restart))
		}
		if would.Closed > 0 {
			s.add(s.theme.warn, fmt.Sprintf("It closes %d connections.", would.Closed))
		}
		for _, warning := range would.Warnings {
			s.add(s.theme.warn, "warning: "+text.Escape(warning))
		}
		if would.Diff == "" {
			s.add(s.theme.text, "It changes nothing of what the policy means.")
			return s.out
		}
		return append(s.out, diffLines(s.theme, would.Diff)...)
	}, yes: func() { e.apply(change) }})
}

func (e *editor) apply(change api.PolicyChange) {
	e.c.ask(func(ctx context.Context) func() {
		did, err := e.c.client.ChangePolicy(ctx, e.page.name, change)
		return func() {
			if err != nil {
				e.refused(err)
				return
			}
			e.c.model.say("%s has revision %d of its policy", text.Escape(e.page.name), did.Policy.Revision)
			e.c.drop(e)
			e.page.load()
		}
	})
}

// refused says why a change was refused. Where somebody else was faster, the text stays, and becomes a change of theirs.
func (e *editor) refused(err error) {
	e.c.model.complain("%s", text.Lines(err.Error()))
	var refusal *api.Error
	if !errors.As(err, &refusal) || refusal.Code != api.Conflict {
		return
	}
	e.c.ask(func(ctx context.Context) func() {
		now, err := e.c.client.Policy(ctx, e.page.name, 0)
		if err != nil {
			return nil
		}
		return func() {
			if now.Revision != e.base.Revision {
				e.base = now
				e.c.model.complain("%s changed the policy meanwhile: it has revision %d. Your text is kept: Ctrl-S shows what it would change of theirs",
					text.Escape(now.Who), now.Revision)
			}
		}
	})
}

func (e *editor) click(action tview.MouseAction, x, y int) {
	ev := tcell.NewEventMouse(x, y, tcell.ButtonPrimary, tcell.ModNone)
	e.area.MouseHandler()(action, ev, func(tview.Primitive) {})
}

func (e *editor) hints() string {
	return "Ctrl-S check it and show what changes  Ctrl-Z undo  Esc leave it"
}
