package tui

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gdamore/tcell/v2"

	"github.com/nemoclaw/nemoclaw/api"
)

// TestSizes shows what matters at each size, and more where there is room.
func TestSizes(t *testing.T) {
	t.Parallel()
	for _, dim := range [][2]int{{80, 24}, {240, 60}, {80, 12}, {30, 8}} {
		t.Run(fmt.Sprintf("%dx%d", dim[0], dim[1]), func(t *testing.T) {
			t.Parallel()
			d := newDaemon(t)
			d.request(held("r", "one.example:443"))
			s := open(t, d, dim[0], dim[1], Options{Colours: true})
			s.see(">held")
			s.see("a approve")
			s.see("? help")
			if dim[0] >= wide {
				s.see("to allow it always, the policy would have:") // beside the panes
			}
			if dim[1] >= low+3 {
				s.see("Sandboxes 2")
				s.see("Decisions 0")
			}
			if dim[0] >= 80 {
				s.see("one.example:443")
			}
			s.screen.SetSize(100, 30)
			s.see("one.example:443")
			s.press('a')
			d.given(t, 1)
		})
	}
}

// TestTiny draws every screen in terminals that have no room for it: a window that is dragged is of any size for a moment.
func TestTiny(t *testing.T) {
	t.Parallel()
	screen := tcell.NewSimulationScreen("UTF-8")
	c := staged(t, screen, 80, 24, false)
	infest(c, "one.example:443")
	for name, look := range sights(c, "one.example:443") {
		look()
		for w := range 14 {
			for h := range 9 {
				screen.SetSize(w, h)
				c.SetRect(0, 0, w, h)
				done := make(chan struct{})
				go func() { defer close(done); c.Draw(screen) }()
				select {
				case <-done:
				case <-time.After(10 * time.Second):
					t.Fatalf("%s is never drawn at %dx%d", name, w, h)
				}
			}
		}
	}
}

// TestNoTerminal says of a terminal that can't show the console what to do about it.
func TestNoTerminal(t *testing.T) {
	for _, kind := range []string{"dumb", "no-such-terminal"} {
		t.Setenv("TERM", kind)
		c := newConsole(context.Background(), api.Dial("/nowhere"), Options{}, api.Info{})
		if err := c.run(); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("TERM=%q", kind)) || !strings.Contains(err.Error(), "set TERM") {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

// TestNoColour draws without any, and still tells the selected row and what is dangerous.
func TestNoColour(t *testing.T) {
	t.Parallel()
	screen := tcell.NewSimulationScreen("UTF-8")
	c := staged(t, screen, 120, 40, false)
	screen.SetSize(120, 40)
	r := held("r", "10.0.0.1:22")
	r.Dangerous, r.Risks = true, []api.Risk{{Text: "it is an address", Dangerous: true}}
	c.model.requests.take(api.RequestChange{Request: &r})
	c.Draw(screen)
	c.give(&r, api.NewAnswer{Verdict: "allow"}, "")
	c.Draw(screen)
	screen.Show()
	cells, w, _ := screen.GetContents()
	for i, cell := range cells {
		if fg, bg, _ := cell.Style.Decompose(); fg != tcell.ColorDefault || bg != tcell.ColorDefault {
			t.Fatalf("the cell at %d, %d has the colours %v on %v", i%w, i/w, fg, bg)
		}
	}
}

// TestASCII shows all in a terminal that has nothing else.
func TestASCII(t *testing.T) {
	t.Parallel()
	screen := tcell.NewSimulationScreen("US-ASCII")
	c := staged(t, screen, 120, 40, true)
	screen.SetSize(120, 40)
	r := held("r", "m\u00fcnchen.example:443")
	c.model.requests.take(api.RequestChange{Request: &r})
	c.Draw(screen)
	screen.Show()
	var shown strings.Builder
	cells, _, _ := screen.GetContents()
	for _, cell := range cells {
		shown.Write(cell.Bytes)
		for _, b := range cell.Bytes {
			if b < ' ' || b > '~' {
				t.Fatalf("a cell has %q", cell.Bytes)
			}
		}
	}
	if !strings.Contains(shown.String(), "== Requests 1 held") {
		t.Errorf("%.2000s", shown.String())
	}
}

// TestSize keeps to the column that sizes have: one that was cut would be another number.
func TestSize(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 999 << 10: "999.0 KiB", 1003 << 10: "1.0 MiB", 1<<20 - 1: "1.0 MiB", 1023 << 20: "1.0 GiB", 1 << 62: "4.0 EiB",
	} {
		if got := size(n); got != want || width(got) > 9 {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}
