package tui

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/text"
	"github.com/nemoclaw/nemoclaw/api"
)

// waiting is the pane of the requests.
type waiting struct {
	listing[string]
	list []*api.Request // what was drawn last
}

func newWaiting(c *console) *waiting {
	return &waiting{listing: newListing[string](c,
		column{head: "STATE", width: 9}, column{head: "SANDBOX", share: 3}, column{head: "PLANE", width: 7, from: 100}, column{head: "ACTION", width: 8},
		column{head: "OBJECT", share: 8}, column{head: "PROGRAM", share: 4, from: 76}, column{head: "RULE", share: 2, from: 120},
		column{head: "AGE", width: 8, right: true, from: 100}, column{head: "TIMES", width: 7, right: true}, column{head: "RISK", width: 4})}
}

func (p *waiting) draw(c canvas, focused bool) {
	m, now := p.c.model, time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	p.list = m.requests.list()
	list := p.list
	held, refused := m.requests.count()
	name := fmt.Sprintf("Requests %d held, %d refused", held, refused)
	left := uint64(m.requests.left)
	for _, n := range m.unlisted {
		left += n
	}
	if left > 0 {
		name += fmt.Sprintf(" (and %d denied that are not listed: too many)", left)
	}
	p.table.pins = slices.IndexFunc(list, func(r *api.Request) bool { return r.State != api.Held }) // who is held waits for somebody to look
	if p.table.pins < 0 {
		p.table.pins = len(list)
	}
	below := p.title(c, focused, name, m.requests.find.typed)
	p.table.draw(below, focused, len(list), func(i int) string { return list[i].ID }, func(i int) []cell { return p.row(list[i], now) })
	if len(list) == 0 {
		below.put(1, 1, p.c.theme.dim, cut("nothing waits for an answer", below.w-1))
	}
}

func (p *waiting) row(r *api.Request, now time.Time) []cell {
	t := p.c.theme
	return []cell{
		{state(r, now), t.verdict(string(r.State))}, {text.Escape(r.Sandbox), t.text}, {text.Escape(r.Plane), t.text}, {text.Escape(r.Action), t.text},
		{show(r.Object), t.text}, {show(r.Program), t.text}, {text.Escape(r.Rule), t.dim}, {ago(now.Sub(r.First)), t.dim},
		{strconv.FormatUint(r.Count, 10), t.text}, risk(t, r),
	}
}

// state is what a request is, and how long its holder waits still.
func state(r *api.Request, now time.Time) string {
	if r.State == api.Held && r.Until != nil {
		return fmt.Sprintf("held %ds", max(int(r.Until.Sub(now).Seconds()), 0))
	}
	return string(r.State)
}

// risk says at a glance whether there is something to know.
func risk(t theme, r *api.Request) cell {
	switch {
	case r.Dangerous:
		return cell{"!!", t.bad}
	case len(r.Risks) > 0:
		return cell{"!", t.warn}
	}
	return cell{}
}

func (p *waiting) filter() string { return p.c.model.requests.find.typed }
func (p *waiting) search(q query) { p.c.model.change(func() { p.c.model.requests.filter(q) }) }
func (p *waiting) hints() string {
	return "a approve  r reject  A/R with scope  Enter detail  e explain  / filter  Tab panes  ? help"
}

// selected is the request under the cursor, as it was drawn.
func (p *waiting) selected() *api.Request {
	if !p.table.has {
		return nil
	}
	for _, r := range p.list {
		if r.ID == p.table.sel {
			return r
		}
	}
	return nil
}

func (p *waiting) asked() (*api.Request, time.Time) { return p.selected(), p.table.rested() }

func (p *waiting) question() (question, bool) {
	r := p.selected()
	if r == nil {
		return question{}, false
	}
	return planeQuestion(r.Sandbox, r.Plane, r.Action, r.Object, r.Program)
}

func (p *waiting) sandbox() string {
	if r := p.selected(); r != nil {
		return r.Sandbox
	}
	return ""
}

func (p *waiting) detail() page {
	if r := p.selected(); r != nil {
		return &requestPage{c: p.c, last: r}
	}
	return nil
}

// ago is a duration in its one or two largest units.
func ago(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", max(int(d.Seconds()), 0))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh %dmin", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%d days", int(d.Hours())/24)
}
