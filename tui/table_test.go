package tui

import (
	"slices"
	"testing"
	"time"

	"github.com/gdamore/tcell/v2"
)

// TestRested follows since when the selected row has been where it is.
func TestRested(t *testing.T) {
	t.Parallel()
	screen := tcell.NewSimulationScreen("UTF-8")
	if err := screen.Init(); err != nil {
		t.Fatal(err)
	}
	defer screen.Fini()
	tb := table[string]{columns: []column{{head: "X", share: 1}}}
	start := time.Now()
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	draw := func(now int, list ...string) {
		c := canvas{screen, 0, 0, 20, 4} // three rows
		tb.drawAt(at(now), c, true, len(list), func(i int) string { return list[i] }, func(i int) []cell { return []cell{{text: list[i]}} })
	}
	want := func(what, sel string, since int) {
		t.Helper()
		if tb.sel != sel || !tb.rested().Equal(at(since)) {
			t.Errorf("%s: %q rests since %v, want %q since %v", what, tb.sel, tb.rested().Sub(start), sel, at(since).Sub(start))
		}
	}
	draw(0, "a", "b", "c")
	want("drawn first", "a", 0)
	draw(1, "a", "b", "c")
	want("at rest", "a", 0)
	tb.move(1)
	draw(2, "a", "b", "c")
	want("a person's move to a row that was there", "b", 0)
	draw(3, "x", "a", "b", "c")
	want("a row comes before it", "b", 3)
	draw(4, "x", "a", "b", "c", "d")
	want("one comes after it", "b", 3)
	draw(5, "a", "b", "c", "d")
	want("the first goes", "b", 5)
	draw(6, "a", "c", "d")
	want("it goes: another is under the cursor", "c", 6)
	tb.move(-1)
	draw(7, "a", "c", "d")
	want("back to one that was there: the cursor went by itself just before", "a", 6)
	draw(8)
	if tb.has || tb.rested() != never {
		t.Error("an empty list has a selected row")
	}
	draw(9, "z")
	want("one comes", "z", 9)
	tb.hidden()
	if tb.rested() != never {
		t.Error("a hidden row can be answered")
	}
	draw(10, "z")
	want("it is shown again", "z", 10)
}

// TestPins keeps the first rows on the screen wherever the cursor is.
func TestPins(t *testing.T) {
	t.Parallel()
	screen := tcell.NewSimulationScreen("UTF-8")
	if err := screen.Init(); err != nil {
		t.Fatal(err)
	}
	defer screen.Fini()
	tb := table[int]{columns: []column{{head: "X", share: 1}}}
	for _, c := range []struct {
		pins, move, n int
		want          []int
	}{
		{0, 0, 9, []int{0, 1, 2, 3}},
		{1, 8, 9, []int{0, 6, 7, 8}},
		{1, -4, 9, []int{0, 4, 5, 6}},
		{3, 0, 9, []int{0, 1, 4, 5}},
		{3, -4, 9, []int{0, 1, 2, 3}},
		{3, 9, 3, []int{0, 1, 2}},
	} {
		tb.pins = c.pins
		tb.move(c.move)
		tb.draw(canvas{screen, 0, 0, 20, 5}, true, c.n, func(i int) int { return i }, func(int) []cell { return []cell{{}} })
		if !slices.Equal(tb.keys, c.want) {
			t.Errorf("%d pinned of %d, moved by %d: %v are shown, want %v", c.pins, c.n, c.move, tb.keys, c.want)
		}
	}
}

// TestFollows keeps the last row selected while more come, until another is chosen.
func TestFollows(t *testing.T) {
	t.Parallel()
	tb := table[int]{follows: true}
	find := func(n, first int) { tb.find(n, func(i int) int { return first + i }, time.Now()) }
	find(3, 0)
	find(5, 0)
	if tb.sel != 4 {
		t.Errorf("selected %d", tb.sel)
	}
	tb.move(-2)
	find(9, 0)
	if tb.sel != 2 {
		t.Errorf("selected %d", tb.sel)
	}
	find(9, 1) // the first was dropped
	if tb.sel != 2 || tb.index != 1 {
		t.Errorf("selected %d at %d", tb.sel, tb.index)
	}
	find(9, 100) // all of them
	if tb.sel != 101 {
		t.Errorf("selected %d", tb.sel)
	}
	tb.move(100)
	find(20, 100)
	if tb.sel != 119 {
		t.Errorf("selected %d", tb.sel)
	}
}
