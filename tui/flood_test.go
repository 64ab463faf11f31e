package tui

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gdamore/tcell/v2"

	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

// TestBounds gives the model more than it may keep.
func TestBounds(t *testing.T) {
	t.Parallel()
	m := newModel()
	args := strings.Repeat("x", 20<<10)
	for i := range 3 * maxDecisions {
		d := policy.Decision{Seq: uint64(i + 1), Object: fmt.Sprint("object", i), Verdict: policy.Deny}
		if i%2 == 0 {
			d.Subject.Args = args
		}
		m.tail.add(d)
	}
	if kept := m.tail.next - m.tail.first; kept > maxDecisions || m.tail.bytes > maxBytes || len(m.tail.match) != int(kept) {
		t.Errorf("%d decisions of %d bytes are kept, %d listed", kept, m.tail.bytes, len(m.tail.match))
	}
	if d, ok := m.tail.get(m.tail.next - 1); !ok || d.Seq != 3*maxDecisions {
		t.Errorf("the last is %+v", d.Seq)
	}
	first := time.Now()
	for i := range 3 * maxRequests {
		r := held(fmt.Sprint(i), "x:443")
		r.State, r.First = api.Refused, first.Add(time.Duration(i)*time.Millisecond)
		m.requests.take(api.RequestChange{Request: &r})
	}
	if n := len(m.requests.all); n > maxRequests+maxRequests/10+1 || n+m.requests.left != 3*maxRequests {
		t.Errorf("%d requests are kept, %d were left out", n, m.requests.left)
	}
	if list := m.requests.list(); list[0].ID != fmt.Sprint(3*maxRequests-1) {
		t.Errorf("the first that is listed is %s", list[0].ID)
	}
	for i := range 3 * maxNotes {
		m.say("%d", i)
	}
	if len(m.notes) != maxNotes {
		t.Errorf("%d notes", len(m.notes))
	}
}

// TestResetKeepsTheSelection tells everything again, as after a break: nothing is gone meanwhile, and what is no more goes then.
func TestResetKeepsTheSelection(t *testing.T) {
	t.Parallel()
	q := newRequests()
	a, b := held("a", "a:1"), held("b", "b:1")
	q.take(api.RequestChange{Request: &a})
	q.take(api.RequestChange{Request: &b})
	q.take(api.RequestChange{Reset: true})
	q.take(api.RequestChange{Request: &b})
	if len(q.list()) != 2 {
		t.Errorf("%d are listed before all was told", len(q.list()))
	}
	q.take(api.RequestChange{Complete: true})
	if list := q.list(); len(list) != 1 || list[0].ID != "b" {
		t.Errorf("listed: %v", list)
	}
}

func TestRate(t *testing.T) {
	t.Parallel()
	var r rate
	now := time.Unix(1_000_000, 0)
	r.add(now.Add(-3*time.Second), 8)
	r.add(now.Add(-1*time.Second), 1)
	r.add(now.Add(-time.Hour), 5) // long ago
	bars, mean := r.spark(now, 5)
	if bars != "  █ ▁" || mean != 0.9 {
		t.Errorf("%q, %v", bars, mean)
	}
	if bars, mean = r.spark(now.Add(time.Hour), 5); bars != "     " || mean != 0 {
		t.Errorf("an hour later: %q, %v", bars, mean)
	}
}

// flooded is a console with as much as it keeps.
func flooded(b *testing.B, w, h int) (*console, tcell.SimulationScreen) {
	screen := tcell.NewSimulationScreen("UTF-8")
	c := staged(b, screen, w, h, true)
	screen.SetSize(w, h)
	for i := range maxRequests {
		r := held(fmt.Sprint(i), fmt.Sprintf("host%d.example:443", i))
		c.model.requests.take(api.RequestChange{Request: &r})
	}
	for i := range maxDecisions {
		c.model.tail.add(policy.Decision{Seq: uint64(i), Object: fmt.Sprintf("host%d.example:443", i), Subject: policy.Subject{Exe: "/usr/bin/curl"}})
	}
	var boxes []api.Sandbox
	for i := range 200 {
		boxes = append(boxes, api.Sandbox{Name: fmt.Sprintf("box%d", i), State: api.Running})
	}
	c.model.setBoxes(boxes)
	return c, screen
}

// BenchmarkDraw is what a key costs at least while requests pour in: one changed, and all is drawn.
func BenchmarkDraw(b *testing.B) {
	for _, dim := range [][2]int{{80, 24}, {240, 60}} {
		b.Run(fmt.Sprintf("%dx%d", dim[0], dim[1]), func(b *testing.B) {
			c, screen := flooded(b, dim[0], dim[1])
			i := 0
			for b.Loop() {
				r := held(fmt.Sprint(i%maxRequests), "host.example:443")
				c.model.requests.take(api.RequestChange{Request: &r})
				screen.Clear()
				c.Draw(screen)
				screen.Show()
				i++
			}
		})
	}
}

// BenchmarkTake is what a change of a request costs.
func BenchmarkTake(b *testing.B) {
	c, _ := flooded(b, 80, 24)
	i := 0
	for b.Loop() {
		r := held(fmt.Sprint(i), "host.example:443")
		c.model.change(func() { c.model.requests.take(api.RequestChange{Request: &r}) })
		i++
	}
}
