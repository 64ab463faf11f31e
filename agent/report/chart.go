package report

import (
	"fmt"
	"math"
	"time"

	"github.com/nemoclaw/nemoclaw/policy"
)

// A Chart is drawn by the page. It has its numbers as a table, too, which is what a reader without eyes gets, and Markdown.
type Chart struct {
	ID            string
	Title, Desc   string
	Width, Height float64
	Bars          []Bar
	Labels        []Label
	Lines         []Line
	Keys          []Key // what the colours mean; none: there is one
	Table         Table
}

// A Bar is a rectangle with a text to point at.
type Bar struct {
	X, Y, W, H float64
	Kind       string // its colour
	Tip        string
}

// A Label is a word in a chart.
type Label struct {
	X, Y   float64
	Anchor string
	Words  string
	Code   bool
}

// A Line is one of the grid.
type Line struct{ X1, Y1, X2, Y2 float64 }

// verdictKeys are the colours of verdicts.
var verdictKeys = []Key{{"allow", "allowed"}, {"ask", "asked"}, {"deny", "denied"}}

// A Key is a colour and its meaning.
type Key struct{ Kind, Words string }

const (
	chartWidth   = 960.0
	chartHeight  = 240.0
	maxBars      = 96
	leftMargin   = 56.0
	bottomMargin = 28.0
	topMargin    = 12.0
)

// steps are how long a bar of a timeline may stand for.
var steps = []time.Duration{time.Hour, 2 * time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour, 24 * time.Hour, 7 * 24 * time.Hour, 28 * 24 * time.Hour}

// timeline draws decisions over time, stacked by verdict; nil when there is none.
func (c *collected) timeline() *Chart {
	ch, step, low, high, most := overTime(c.hours.rows, timed{id: "timeline", title: "Decisions over time", keys: verdictKeys, order: []int{int(policy.Allow), int(policy.Ask), int(policy.Deny)}, unit: 1, write: number})
	if ch == nil {
		return nil
	}
	ch.Desc = fmt.Sprintf("Decisions for each %s from %s to %s UTC: %s allowed, %s asked about, %s denied. The most in one is %s.", stepWords(step), low, high,
		number(c.total(policy.Allow)), number(c.total(policy.Ask)), number(c.total(policy.Deny)), number(most))
	return ch
}

// timed is what a chart over time is of.
type timed struct {
	id, title string
	keys      []Key
	order     []int               // which part of an hour each key is, from below
	unit      uint64              // of the numbers beside it
	write     func(uint64) string // an amount in words
}

// overTime draws what there was in each hour, stacked by its parts; nil when there is none. It says from when to when, how long a bar
// stands for, and the most in one.
func overTime[V ~[3]uint64](hours map[int64]*V, of timed) (ch *Chart, step time.Duration, from, to string, most uint64) {
	if len(hours) == 0 {
		return nil, 0, "", "", 0
	}
	low, high := int64(math.MaxInt64), int64(math.MinInt64)
	for h := range hours {
		low, high = min(low, h), max(high, h)
	}
	step = steps[len(steps)-1]
	for _, s := range steps {
		if (high-low)/int64(s/time.Hour) < maxBars {
			step = s
			break
		}
	}
	per := int64(step / time.Hour)
	low -= mod(low, per)
	n := min(int((high-low)/per)+1, maxBars)
	bins := make([][3]uint64, n)
	for h, v := range hours {
		b := &bins[min(int((h-low)/per), n-1)]
		for i := range *v {
			b[i] += (*v)[i]
		}
	}
	ch = &Chart{ID: of.id, Title: of.title, Width: chartWidth, Height: chartHeight, Keys: of.keys, Table: Table{Title: of.title, Heads: heads("from (UTC)")}}
	for _, k := range of.keys {
		ch.Table.Heads = append(ch.Table.Heads, Head{k.Words, true})
	}
	for _, b := range bins {
		most = max(most, b[0]+b[1]+b[2])
	}
	top := round((most+of.unit-1)/of.unit) * of.unit
	height := chartHeight - topMargin - bottomMargin
	slot := (chartWidth - leftMargin) / float64(n)
	wide := min(slot*0.8, 48)
	ch.grid(top, height, of.write)
	for i, b := range bins {
		at := time.Unix((low+int64(i)*per)*3600, 0).UTC()
		x, y := leftMargin+slot*float64(i)+(slot-wide)/2, topMargin+height
		cells := []any{ours(at.Format("2006-01-02 15:04"))}
		for k, part := range of.order {
			cells = append(cells, ours(of.write(b[part])))
			if b[part] > 0 {
				h := height * float64(b[part]) / float64(top)
				y -= h
				ch.Bars = append(ch.Bars, Bar{x, y, wide, h, of.keys[k].Kind, fmt.Sprintf("%s: %s %s", at.Format("2006-01-02 15:04"), of.write(b[part]), of.keys[k].Words)})
			}
		}
		if b != [3]uint64{} {
			ch.Table.row(cells...)
		}
		if every := (n + 11) / 12; i%every == 0 {
			form := "15:04"
			if step >= 24*time.Hour || at.Hour() == 0 {
				form = "Jan 2"
			}
			ch.Labels = append(ch.Labels, Label{X: x + wide/2, Y: chartHeight - 8, Anchor: "middle", Words: at.Format(form)})
		}
	}
	written := func(h int64) string { return time.Unix(h*3600, 0).UTC().Format("2006-01-02 15:04") }
	return ch, step, written(low), written(high + 1), most
}

func mod(a, b int64) int64 { return ((a % b) + b) % b }

func stepWords(d time.Duration) string {
	switch {
	case d == time.Hour:
		return "hour"
	case d < 24*time.Hour:
		return fmt.Sprintf("%d hours", int(d.Hours()))
	case d == 24*time.Hour:
		return "day"
	}
	return fmt.Sprintf("%d days", int(d.Hours())/24)
}

// grid draws lines at quarters of top, with their numbers.
func (ch *Chart) grid(top uint64, height float64, write func(uint64) string) {
	parts := uint64(4)
	if top < parts {
		parts = max(top, 1)
	}
	for i := range parts + 1 {
		y := topMargin + height*(1-float64(i)/float64(parts))
		ch.Lines = append(ch.Lines, Line{leftMargin, y, chartWidth, y})
		ch.Labels = append(ch.Labels, Label{X: leftMargin - 8, Y: y + 4, Anchor: "end", Words: write(top * i / parts)})
	}
}

// round is the next number that has quarters to write beside a chart.
func round(n uint64) uint64 {
	for unit := uint64(1); ; unit *= 10 {
		for _, k := range []uint64{1, 2, 4, 8} {
			if k*unit >= n {
				return k * unit
			}
		}
		if unit > math.MaxUint64/100 {
			return n
		}
	}
}
