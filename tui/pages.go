package tui

import (
	"fmt"
	"strings"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/text"
	"github.com/nemoclaw/nemoclaw/api"
)

// answerPage is what a policy says to a question.
type answerPage struct {
	c      *console
	q      question
	answer api.Answer
	err    error
	came   bool
}

func (p *answerPage) title() string   { return "What the policy says" }
func (p *answerPage) keys() string    { return "p policy" }
func (p *answerPage) sandbox() string { return p.q.sandbox }

func (p *answerPage) lines(w int) []line {
	s := &sheet{theme: p.c.theme, w: w}
	s.field("sandbox", text.Escape(p.q.sandbox))
	s.styled("asked", text.Escape(p.q.action)+" "+value(p.q.object), s.theme.title)
	s.field("program", value(p.q.program))
	s.blank()
	switch {
	case !p.came:
		s.add(s.theme.dim, "asking the daemon …")
	case p.err != nil:
		s.add(s.theme.bad, text.Lines(p.err.Error()))
	default:
		s.styled("verdict", text.Escape(p.answer.Verdict), s.theme.verdict(p.answer.Verdict))
		s.field("rule", text.Escape(p.answer.Rule))
		s.field("", text.Escape(p.answer.RuleText))
		s.field("why", text.Escape(p.answer.Reason))
		for _, g := range p.answer.Grants {
			s.field("granted", text.Escape(fmt.Sprintf("%s %s by %s, %s, said %s", g.Verdict, g.Action, g.Program, g.Scope, g.Who)))
		}
		s.yaml("to allow it", p.answer.Suggest)
	}
	return s.out
}

// messages is what the console has said.
type messages struct{ c *console }

func (p *messages) title() string { return "Messages" }
func (p *messages) keys() string  { return "" }

func (p *messages) lines(w int) []line {
	s := &sheet{theme: p.c.theme, w: w}
	var notes []note
	p.c.model.read(func() { notes = append(notes, p.c.model.notes...) })
	for i := len(notes) - 1; i >= 0; i-- { // the latest first
		style := s.theme.text
		if notes[i].bad {
			style = s.theme.bad
		}
		s.styled(notes[i].when.Format(time.TimeOnly), notes[i].text, style)
	}
	if len(notes) == 0 {
		s.add(s.theme.dim, "nothing was said yet")
	}
	return s.out
}

// help is the keys.
type help struct{ c *console }

func (p *help) title() string { return "Keys" }
func (p *help) keys() string  { return "" }

const helpText = `A request is something that a program tried and that nobody has decided yet. One that is held waits for you, and the program with it; of one that was refused the next try is decided.

  a          approve what waits, or the next try: once
  r  x       reject it: once
  A  R       approve or reject with a scope: choose for what, and for how long; what it does is shown before
  e          explain: what the policy says of it, and which rule
  Enter      all about it

  Tab        the next pane; Shift-Tab: the one before
  j k arrows choose; PgUp PgDn Ctrl-U Ctrl-D by pages; 0 G Home End to the ends
  /          what the pane lists: words, sandbox:NAME plane:NAME verdict:deny
  s          a shell in the sandbox; leave it to come back
  p          its policy; e edits it: it is checked, and what changes is shown, before it is applied
  g          the grants that hold in it; d revokes one
  l          search the audit log: from:2h to:10m sandbox:NAME plane:network verdict:deny words
  m          what was said here
  Ctrl-L     draw everything again
  Esc        back; q: back, or leave the console

An answer goes to the request that was under the cursor, at rest, when the key went down. If the list moved just before, the key does nothing and says so. Pasted text answers nothing. What is dangerous is asked twice (marked !!; ! marks another risk).

The mouse chooses, scrolls and, clicked twice, shows all about a row. It never answers.`

func (p *help) lines(w int) []line {
	const keys = 13 // columns of their names
	s := &sheet{theme: p.c.theme, w: w}
	for l := range strings.SplitSeq(helpText, "\n") {
		if !strings.HasPrefix(l, "  ") {
			s.add(s.theme.text, l)
			continue
		}
		name := l[:keys]
		for _, part := range wrap(l[keys:], w-keys) {
			s.out = append(s.out, line{name + part, s.theme.text})
			name = strings.Repeat(" ", keys)
		}
	}
	return s.out
}
