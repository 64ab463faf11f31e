package tui

import (
	"fmt"
	"strconv"
	"time"

	"github.com/gdamore/tcell/v2"
	"github.com/rivo/tview"

	"github.com/nemoclaw/nemoclaw/agent/text"
	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

// A pane is one of the lists that are always there.
type pane interface {
	view
	covers(x, y int) bool
	hidden()
	filter() string // as it was typed
	search(q query)
	sandbox() string // of the selected row
	detail() page    // of the selected row; nil: none is selected
}

// listing is what the panes have in common: a titled table.
type listing[K comparable] struct {
	c     *console
	table table[K]
	where canvas
}

func newListing[K comparable](c *console, columns ...column) listing[K] {
	return listing[K]{c: c, table: table[K]{theme: c.theme, columns: columns}}
}

func (l *listing[K]) covers(x, y int) bool {
	return x >= l.where.x && x < l.where.x+l.where.w && y >= l.where.y && y < l.where.y+l.where.h
}

func (l *listing[K]) hidden()                        { l.table.hidden() }
func (l *listing[K]) handle(ev *tcell.EventKey) bool { return l.table.handle(ev) }

func (l *listing[K]) click(action tview.MouseAction, x, y int) {
	switch action {
	case tview.MouseScrollUp:
		l.table.move(-3)
	case tview.MouseScrollDown:
		l.table.move(3)
	case tview.MouseLeftDoubleClick:
		if l.table.click(x, y) {
			l.c.openDetail()
		}
	default:
		l.table.click(x, y)
	}
}

// title draws the line above the table, and returns what is below it.
func (l *listing[K]) title(c canvas, focused bool, name, find string) canvas {
	l.where = c
	style, mark := l.c.theme.border, "─"
	if focused {
		style, mark = l.c.theme.title, "━"
	}
	if find != "" {
		name += "  /" + text.Escape(find)
	}
	x := c.put(0, 0, style, mark+mark+" ")
	x = c.put(x, 0, style, cut(name, c.w-x-1)) + 1
	for ; x < c.w; x++ {
		c.put(x, 0, style, mark)
	}
	return c.sub(0, 1, c.w, c.h-1)
}

// boxes is the pane of the sandboxes.
type boxes struct{ listing[string] }

func newBoxes(c *console) *boxes {
	return &boxes{newListing[string](c,
		column{head: "SANDBOX", share: 3}, column{head: "STATE", width: 8}, column{head: "LEVEL", width: 6},
		column{head: "CPU", width: 5, right: true}, column{head: "MEMORY", width: 9, right: true},
		column{head: "GPU", width: 5, right: true, from: 90}, column{head: "GPU MEM", width: 9, right: true, from: 130},
		column{head: "PROCS", width: 5, right: true, from: 130}, column{head: "DISK", width: 9, right: true, from: 130}, column{head: "CONNS", width: 5, right: true, from: 90},
		column{head: "SENT/S", width: 9, right: true, from: 100}, column{head: "RECV/S", width: 9, right: true, from: 100},
		column{head: "DENIED", width: 7, right: true}, column{head: "/S", width: 6, right: true},
		column{head: "LAST MINUTE", share: 2}, column{head: "POLICY", share: 2, from: 140})}
}

func (p *boxes) draw(c canvas, focused bool) {
	m, now := p.c.model, time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	list := m.listed()
	c = p.title(c, focused, fmt.Sprintf("Sandboxes %d", len(list)), m.find.typed)
	var visible []string
	p.table.draw(c, focused, len(list), func(i int) string { return list[i].Name }, func(i int) []cell {
		if list[i].State == api.Running {
			visible = append(visible, list[i].Name)
		}
		return p.row(list[i], now)
	})
	m.visible = visible
}

// row is called while the model is held.
func (p *boxes) row(b *api.Sandbox, now time.Time) []cell {
	t := p.c.theme
	cells := []cell{{text.Escape(b.Name), t.text}, {string(b.State), t.verdict(string(b.State))}, {text.Escape(b.Level), t.text}}
	u, known := p.c.model.usage[b.Name]
	if known && b.State == api.Running {
		cpu, disk, sent, received := "", "", "", ""
		if u.known {
			cpu, sent, received = fmt.Sprintf("%.0f%%", u.cpu*100), size(int64(u.sent)), size(int64(u.received))
		}
		if u.Disk >= 0 {
			disk = size(u.Disk)
		}
		cells = append(cells, cell{cpu, t.text}, cell{size(u.Memory), t.text}, cell{gpuBusy(u.GPU), t.text}, cell{gpuMemory(u.GPU), t.text}, cell{strconv.Itoa(u.Processes), t.text}, cell{disk, t.text}, cell{strconv.Itoa(u.Conns), t.text},
			cell{sent, t.text}, cell{received, t.text})
	} else {
		cells = append(cells, make([]cell, 9)...)
	}
	bars, perSecond := "", ""
	if r := p.c.model.rates[b.Name]; r != nil {
		var mean float64
		bars, mean = r.spark(now, seconds)
		perSecond = fmt.Sprintf("%.1f", mean)
	}
	bars = ending(bars, p.sparkWidth())
	return append(cells, cell{strconv.FormatUint(b.Refused, 10), t.text}, cell{perSecond, t.text}, cell{bars, t.warn},
		cell{fmt.Sprintf("%s revision %d", text.Escape(b.Policy.Name), b.Policy.Revision), t.text})
}

// sparkWidth is the room of the bars: they lose their beginning where there is too little, not their middle.
func (p *boxes) sparkWidth() int { return p.table.widths(p.where.w)[14] }

func (p *boxes) filter() string  { return p.c.model.find.typed }
func (p *boxes) search(q query)  { p.c.model.change(func() { p.c.model.find = q }) }
func (p *boxes) sandbox() string { return p.table.sel }
func (p *boxes) hints() string {
	return "Enter detail  s shell  p policy  g grants  / filter  l log  ? help  q quit"
}

func (p *boxes) detail() page {
	if b := p.c.model.box(p.table.sel); p.table.has && b != nil {
		return &boxPage{c: p.c, name: b.Name}
	}
	return nil
}

// decisions is the pane of what was decided.
type decisions struct{ listing[uint64] }

func decisionColumns() []column {
	return []column{
		{head: "TIME", width: 8}, {head: "SANDBOX", share: 2, from: 60}, {head: "VERDICT", width: 7}, {head: "PLANE", width: 7, from: 100}, {head: "ACTION", width: 8},
		{head: "OBJECT", share: 6}, {head: "PROGRAM", share: 3, from: 76}, {head: "RULE", share: 3, from: 110}, {head: "TIMES", width: 6, right: true, from: 90},
	}
}

func newDecisions(c *console) *decisions {
	p := &decisions{newListing[uint64](c, decisionColumns()...)}
	p.table.follows = true
	return p
}

func (p *decisions) draw(c canvas, focused bool) {
	m := p.c.model
	m.mu.Lock()
	defer m.mu.Unlock()
	list := m.tail.match
	c = p.title(c, focused, fmt.Sprintf("Decisions %d", len(list)), m.tail.find.typed)
	p.table.draw(c, focused, len(list), func(i int) uint64 { return list[i] }, func(i int) []cell {
		d, _ := m.tail.get(list[i])
		return decisionRow(p.c.theme, &d)
	})
}

func decisionRow(t theme, d *policy.Decision) []cell {
	verdict, times := d.Verdict.String(), ""
	if d.Count > 1 {
		times = strconv.FormatUint(d.Count, 10)
	}
	return []cell{
		{d.Time.Local().Format(time.TimeOnly), t.dim}, {text.Escape(d.Sandbox), t.text}, {verdict, t.verdict(verdict)},
		{text.Escape(string(d.Plane)), t.text}, {text.Escape(d.Action), t.text}, {show(d.Object), t.text}, {show(d.Subject.Exe), t.text}, {text.Escape(d.Rule), t.dim}, {times, t.text},
	}
}

func (p *decisions) filter() string { return p.c.model.tail.find.typed }
func (p *decisions) search(q query) { p.c.model.change(func() { p.c.model.tail.filter(q) }) }
func (p *decisions) hints() string {
	return "Enter detail  e explain  / filter  End follow  l log  ? help  q quit"
}

// selected is the decision under the cursor.
func (p *decisions) selected() (d policy.Decision, ok bool) {
	if p.table.has {
		p.c.model.read(func() { d, ok = p.c.model.tail.get(p.table.sel) })
	}
	return d, ok
}

func (p *decisions) question() (question, bool) {
	d, ok := p.selected()
	if !ok {
		return question{}, false
	}
	return planeQuestion(d.Sandbox, string(d.Plane), d.Action, d.Object, d.Subject.Exe)
}

func (p *decisions) sandbox() string {
	d, _ := p.selected()
	return d.Sandbox
}

func (p *decisions) detail() page {
	if d, ok := p.selected(); ok {
		return &decisionPage{c: p.c, d: d}
	}
	return nil
}

// gpuBusy is the share of a GPU that a sandbox has kept busy lately; "-" when it has none, or nobody knows.
func gpuBusy(u *api.GPUUse) string {
	if u == nil || u.Busy == nil {
		return "-"
	}
	return fmt.Sprintf("%d%%", *u.Busy)
}

// gpuMemory is what a sandbox takes of its GPUs' memory; "-" as gpuBusy.
func gpuMemory(u *api.GPUUse) string {
	if u == nil || u.Memory == nil {
		return "-"
	}
	return size(*u.Memory)
}

// size is a number of bytes for a person: in nine columns, so "1.0 MiB" before it would be "1000.0 KiB".
func size(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f, i := float64(n)/1024, 0
	for f >= 999.95 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	return fmt.Sprintf("%.1f %ciB", f, units[i])
}
