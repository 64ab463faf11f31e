package vterm

import (
	"strings"
	"testing"

	"github.com/nemoclaw/nemoclaw/agent/text"
)

// TestNoticed: whatever changes a terminal is noticed when it is printed as it is.
func TestNoticed(t *testing.T) {
	t.Parallel()
	for _, c := range Commands() {
		with, without := Print(80, 24, "name: "+c), Print(80, 24, "name: ")
		if c != "\n" && c != "\r" && len(with.State.Controls) == 0 {
			t.Errorf("%q: no control function is seen in it", c)
		}
		if with.Differs(without) == "" && c != "\x00" {
			t.Errorf("%q does nothing that is noticed", c)
		}
	}
}

// TestEmulated: the emulator itself knows what matters, beside what is read in the bytes.
func TestEmulated(t *testing.T) {
	t.Parallel()
	plain := Print(80, 24, "")
	for _, c := range []struct{ output, what string }{
		{"\x1b]2;title\x07", "title"}, {"\u009d2;title\u009c", "title"}, {"\x1b]52;c;eA==\x07", "clipboard"}, {"\a", "bells"}, {"\x1b[?25l", "look"},
		{"\x1b[?1000h", "modes"}, {"\x1b[?7l", "modes"}, {"\x1b[2;3r\x1b[H", "margins"}, {"\x1b[?69h\x1b[3;9s\x1b[?69l\x1b[H", "margins"},
		{"\x1b[3g", "tab stops"}, {"\x1b[5C\x1b7\x1b[H", "saved"}, {"\x1b[31m", "next"}, {"\x1b]0;", "next"}, {"\x1b[c", "answers"}, {"\x1b[8;10;20t", "row|size"},
		{"x\x1b[31mx\x1b[m\r", "colours"}, {"\x1b[5C", "cursor is"},
	} {
		got := Print(80, 24, c.output)
		got.State.Controls = nil
		if d := got.Differs(plain); !strings.Contains(d, c.what) && !(c.what == "row|size" && d != "") {
			t.Errorf("%q: %s, want something about the %s", c.output, d, c.what)
		}
	}
	if got := Print(20, 3, "日本a\u0301\nx").Rows; got[0] != "日本a\u0301" || got[1] != "x" {
		t.Errorf("%q is to be read", got)
	}
}

// ways are those in which text from inside is made fit to be shown.
var ways = map[string]func(string) string{
	"Escape": text.Escape,
	"Short":  func(s string) string { return text.Short(s, 60) },
	"Middle": func(s string) string { return text.Middle(s, 60) },
	"Host":   text.Host,
	"Lines":  func(s string) string { return strings.ReplaceAll(text.Lines(s), "\n", "") }, // its line ends are its caller's
}

// harmless proves that what was made of s is printed and does nothing else: the terminal is as after as many letters.
func harmless(t *testing.T, way, s, shown string) {
	t.Helper()
	if controls := Controls(shown); controls != nil {
		t.Errorf("%s(%q) = %q holds %q", way, s, shown, controls)
	}
	if text.Width(shown) > 200 {
		return // of the same
	}
	const columns, rows = 220, 2 // one line: where a line is full does not matter here
	got, want := Print(columns, rows, "it: "+shown+"."), Print(columns, rows, "it: "+Harmless(shown)+".")
	if d := got.Differs(want); d != "" {
		t.Errorf("%s(%q) = %q: %s", way, s, shown, d)
	}
}

// FuzzHostile: no text from inside changes the state of a terminal, once it is made fit to be shown.
func FuzzHostile(f *testing.F) {
	for _, s := range Hostile() {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for way, f := range ways {
			harmless(t, way, s, f(s))
		}
	})
}

func FuzzControls(f *testing.F) {
	for _, s := range Commands() {
		f.Add(s)
	}
	f.Fuzz(func(_ *testing.T, s string) { Controls(s) })
}
