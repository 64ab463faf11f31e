package tui

import (
	"context"
	"fmt"
	"slices"

	"github.com/gdamore/tcell/v2"
	"github.com/rivo/tview"

	"github.com/nemoclaw/nemoclaw/agent/text"
	"github.com/nemoclaw/nemoclaw/api"
)

// grants lists the answers that hold in a sandbox, and takes them back.
type grants struct {
	c     *console
	name  string
	list  []api.Grant
	came  bool
	table table[string]
}

func (c *console) openGrants(name string) {
	g := &grants{c: c, name: name, table: table[string]{theme: c.theme, columns: []column{
		{head: "VERDICT", width: 7}, {head: "WHAT", width: 15}, {head: "OBJECT", share: 3}, {head: "PROGRAM", share: 2}, {head: "UNTIL", width: 19},
		{head: "BY", share: 1, from: 110},
	}}}
	c.open(g)
	g.load()
}

func (g *grants) load() {
	g.c.ask(func(ctx context.Context) func() {
		list, err := g.c.client.Grants(ctx, g.name)
		if err != nil {
			g.c.model.complain("the grants of %s: %s", text.Escape(g.name), text.Lines(err.Error()))
		}
		return func() { g.list, g.came = list, err == nil }
	})
}

func (g *grants) draw(c canvas, focused bool) {
	inner := c.frame(g.c.theme.title, "Grants of "+text.Escape(g.name))
	if len(g.list) == 0 {
		says := "asking the daemon …"
		if g.came {
			says = "no answer holds longer than once"
		}
		inner.put(1, 1, g.c.theme.dim, cut(says, inner.w-2))
	}
	list := g.list
	g.table.draw(inner, focused, len(list), func(i int) string { return list[i].ID }, func(i int) []cell {
		t, a := g.c.theme, list[i]
		return []cell{
			{text.Escape(a.Verdict), t.verdict(a.Verdict)}, {text.Escape(a.Plane + " " + a.Action), t.text}, {show(a.Object), t.text},
			{or(show(a.Program), "any"), t.text}, {holds(a), t.text}, {text.Escape(a.Who), t.dim},
		}
	})
}

// holds is until when a grant does.
func holds(g api.Grant) string {
	if g.Until == nil {
		return "the sandbox stops"
	}
	return g.Until.Local().Format("2006-01-02 15:04:05")
}

func (g *grants) handle(ev *tcell.EventKey) bool {
	switch {
	case g.table.handle(ev):
	case ev.Key() == tcell.KeyRune && ev.Rune() == 'd':
		g.revoke()
	case ev.Key() == tcell.KeyRune && ev.Rune() == 'g':
		g.load()
	default:
		return false
	}
	return true
}

// revoke asks whether the selected grant is to go.
func (g *grants) revoke() {
	i := slices.IndexFunc(g.list, func(a api.Grant) bool { return a.ID == g.table.sel })
	switch {
	case i < 0:
		g.c.model.complain("no grant is selected")
		return
	case g.c.model.watching():
		g.c.model.complain("you may watch, and not revoke: only members of the steering group may")
		return
	}
	a, s := g.list[i], &sheet{theme: g.c.theme}
	g.c.open(&confirm{c: g.c, title: "Revoke this grant?", doing: "revoke", lines: func(w int) []line {
		s.w, s.out = w, nil
		s.field("sandbox", text.Escape(a.Sandbox))
		s.field("verdict", text.Escape(a.Verdict))
		s.field("what", text.Escape(a.Plane+" "+a.Action))
		s.styled("object", value(a.Object), s.theme.title)
		s.field("program", or(value(a.Program), "any"))
		s.field("until", holds(a))
		s.field("given by", text.Escape(a.Who)+", "+stamp(a.When))
		s.blank()
		s.add(s.theme.warn, "The connections that it has allowed are closed at once.")
		return s.out
	}, yes: func() {
		g.c.ask(func(ctx context.Context) func() {
			did, err := g.c.client.Revoke(ctx, g.name, a.ID)
			if err != nil {
				g.c.model.complain("not revoked: %s", text.Lines(err.Error()))
			} else {
				g.c.model.say("revoked: %s", fmt.Sprintf("%s %s; %d connections were closed", text.Escape(a.Action), middle(show(a.Object), 60), did.Closed))
			}
			return g.load
		})
	}})
}

func (g *grants) click(action tview.MouseAction, x, y int) {
	if action == tview.MouseLeftDown {
		g.table.click(x, y)
	}
}

func (g *grants) hints() string   { return "d revoke  g look again  j k choose  Esc back" }
func (g *grants) sandbox() string { return g.name }
