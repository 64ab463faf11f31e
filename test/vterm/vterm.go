// Package vterm runs what a program prints on an emulated terminal, and says what it did there: what is to be read, and what became
// of the terminal's state. Tests prove with it that text from inside a sandbox, whatever it holds, is printed and does nothing else.
//
// It is for tests only. What the emulator does not know (palettes, character sets) is found by a reader of control functions of its
// own, so that nothing goes unseen because it is not emulated.
package vterm

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/gdamore/tcell/v3/vt"
)

// A Shown is a terminal after something was printed on it.
type Shown struct {
	Rows   []string // what is to be read, without blanks at the end
	Styles []string // per row: the columns' colours and attributes
	Row    int      // of the cursor, from 0
	Column int
	State  State
}

// State is all of a terminal but its cells and the place of its cursor.
type State struct {
	Size      string
	Title     string
	Clipboard string
	Bells     int
	Cursor    string   // how it looks
	Modes     string   // those that are on
	Margins   string   // where the cursor stops, and what scrolls
	Tabs      string   // the first stops
	Saved     string   // where a restored cursor comes to
	Next      string   // how the next character would look; "" for one that an unfinished sequence swallows
	Answers   string   // what the terminal told the program, or typed for it
	Controls  []string // each kind of control function that was printed, sorted
}

// Print prints on a new terminal of that size, whose lines end in "\r\n" or, as through a tty, in "\n". The terminal takes C1 controls,
// as 8-bit bytes and as UTF-8, which few still do.
func Print(columns, rows int, output string) *Shown {
	t := &terminal{MockTerm: vt.NewMockTerm(vt.MockOptSize{X: vt.Col(columns), Y: vt.Row(rows)}, vt.MockOpt8BitControls{})}
	t.read()
	defer t.close()
	t.print("\x1bc\x1b G\x1b[?2027h") // reset: the emulator has no saved cursor before; 8-bit controls; marks stand on their letters
	t.print(strings.ReplaceAll(strings.ReplaceAll(output, "\r\n", "\n"), "\n", "\r\n"))
	s := &Shown{Row: int(t.Pos().Y), Column: int(t.Pos().X)}
	size, _ := t.WindowSize() // the mock never fails
	columns, rows = size.Width, size.Height
	look, looks := vt.Style(nil), ""
	for y := range rows {
		var text, styles strings.Builder
		wide := false
		for x := range columns {
			c := t.GetCell(vt.Coord{X: vt.Col(x), Y: vt.Row(y)})
			if c.C == "" && !wide {
				c.C = " "
			}
			wide = c.W > 1
			text.WriteString(c.C)
			if look == nil || !look.Equal(c.S) { // most are the same
				look, looks = c.S, style(c.S)
			}
			styles.WriteString(looks + "|")
		}
		s.Rows = append(s.Rows, strings.TrimRight(text.String(), " "))
		s.Styles = append(s.Styles, styles.String())
	}
	s.State = State{
		Size: fmt.Sprint(columns, "x", rows), Title: t.GetTitle(), Clipboard: string(t.Backend().GetClipboard()), Bells: t.Bells(),
		Cursor: fmt.Sprint(t.Backend().GetCursor()), Controls: Controls(output),
	}
	t.probe(&s.State, rows)
	return s
}

func style(s vt.Style) string {
	if s == nil {
		return ""
	}
	url, id := s.Url()
	return fmt.Sprintf("%x %x %x %x %s %s", uint64(s.Fg()), uint64(s.Bg()), uint64(s.Uc()), uint64(s.Attr()), url, id)
}

// Differs says in what two terminals differ beside the characters that are shown; "" for nothing. A text is harmless when the terminal
// is as if letters of the same width had been printed for it.
func (s *Shown) Differs(o *Shown) string {
	if s.Row != o.Row || s.Column != o.Column {
		return fmt.Sprintf("the cursor is in row %d, column %d, and not in row %d, column %d", s.Row, s.Column, o.Row, o.Column)
	}
	for i := range s.Styles {
		if i < len(o.Styles) && s.Styles[i] != o.Styles[i] {
			return fmt.Sprintf("row %d has other colours", i)
		}
	}
	for _, x := range []struct{ what, is, was string }{
		{"size", s.State.Size, o.State.Size}, {"title", s.State.Title, o.State.Title}, {"clipboard", s.State.Clipboard, o.State.Clipboard},
		{"number of bells", fmt.Sprint(s.State.Bells), fmt.Sprint(o.State.Bells)}, {"cursor's look", s.State.Cursor, o.State.Cursor},
		{"modes", s.State.Modes, o.State.Modes}, {"margins", s.State.Margins, o.State.Margins}, {"tab stops", s.State.Tabs, o.State.Tabs},
		{"saved cursor", s.State.Saved, o.State.Saved}, {"next character", s.State.Next, o.State.Next}, {"answers", s.State.Answers, o.State.Answers},
		{"control functions", fmt.Sprint(s.State.Controls), fmt.Sprint(o.State.Controls)},
	} {
		if x.is != x.was {
			return fmt.Sprintf("the terminal's %s: %q, and not %q", x.what, x.is, x.was)
		}
	}
	return ""
}

// terminal is the emulator, with somebody who reads what it answers.
type terminal struct {
	vt.MockTerm
	mu   sync.Mutex
	said []byte
	done chan struct{}
}

func (t *terminal) read() {
	if err := t.Start(); err != nil {
		panic(err) // it was started twice
	}
	t.done = make(chan struct{})
	go func() {
		defer close(t.done)
		b := make([]byte, 4096)
		for {
			n, err := t.Read(b)
			t.mu.Lock()
			t.said = append(t.said, b[:n]...)
			t.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
}

func (t *terminal) close() {
	_ = t.Close()
	<-t.done
}

func (t *terminal) print(s string) { _, _ = t.Write([]byte(s)) } // it fails only when it is closed

// answers prints a question, and returns all that was answered since the last one.
func (t *terminal) answers(question string) string {
	const ask, answer = "\x1b[5n", "\x1b[0n"
	t.print(question + ask)
	for {
		t.mu.Lock()
		if said, ok := strings.CutSuffix(string(t.said), answer); ok {
			t.said = nil
			t.mu.Unlock()
			return said
		}
		t.mu.Unlock()
		_ = t.Drain()
		runtime.Gosched()
	}
}

// privateModes and modes are those that a terminal may have.
var (
	privateModes = []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 18, 19, 25, 42, 47, 66, 69, 1000, 1002, 1003, 1004, 1005, 1006, 1015, 1016, 1047, 1048, 1049, 2004, 2026, 2027, 2048, 9001}
	modes        = []int{2, 4, 12, 20}
)

// questions ask for modes, the saved cursor, where the cursor stops and the tab stops. The answers are compared, never read.
var questions, stops, tabs = func() (modesAsked, stops, tabs string) {
	const where = "\x1b[6n"
	for _, m := range privateModes {
		modesAsked += fmt.Sprintf("\x1b[?%d$p", m)
	}
	for _, m := range modes {
		modesAsked += fmt.Sprintf("\x1b[%d$p", m)
	}
	stops = "\x1b[H\x1b[999B" + where + "\x1b[999;999H\x1b[999A" + where + "\x1b[H\x1b[999C" + where + "\x1b[1;999H\x1b[999D" + where
	return modesAsked, stops, "\x1b[H" + strings.Repeat("\t"+where, 5)
}()

// probe finds out what the emulator doesn't tell, by printing. The screen is spoilt then.
func (t *terminal) probe(s *State, rows int) {
	before := t.Pos()
	t.print("x")
	if c := t.GetCell(before); c.C == "x" {
		s.Next = "x " + style(c.S)
	}
	s.Answers = t.answers("\x18\x1b\\") // which ends what may be open, so that the rest is heard
	s.Modes = t.answers(questions)
	s.Saved = t.answers("\x1b8\x1b[6n")
	s.Margins = t.answers(stops)
	s.Tabs = t.answers(tabs)
	lines := "\x1b[2J"
	for y := range rows {
		lines += fmt.Sprintf("\x1b[%d;1H%d", y+1, y%10)
	}
	t.print(lines + "\n\n")
	for y := range rows {
		s.Margins += t.GetCell(vt.Coord{Y: vt.Row(y)}).C
	}
}

// Controls lists the kinds of control functions in what is printed, sorted, each once: "CSI m", "OSC 52", "ESC (", "U+0007". Line ends
// are none. A sequence that isn't finished is one.
func Controls(output string) []string {
	seen := map[string]bool{}
	for i := 0; i < len(output); {
		kind, n := control(output[i:])
		if kind != "" {
			seen[kind] = true
		}
		i += n
	}
	var list []string
	for kind := range seen {
		list = append(list, kind)
	}
	slices.Sort(list)
	return list
}

// c1 are the control functions of ECMA-48 that begin a sequence, by the byte after ESC.
var c1 = map[byte]string{'[': "CSI", ']': "OSC", 'P': "DCS", 'X': "SOS", '^': "PM", '_': "APC"}

// control reads what s begins with: a character, or a control function of so many bytes.
func control(s string) (kind string, n int) {
	b := s[0]
	switch {
	case b == '\n' || b == '\r':
		return "", 1
	case b == 0x1b && len(s) > 1:
		if name, ok := c1[s[1]]; ok {
			return sequence(name, s, 2)
		}
		i := 1
		for i < len(s)-1 && s[i] >= 0x20 && s[i] <= 0x2f {
			i++
		}
		return "ESC " + s[1:min(2, len(s))], i + 1
	case b < 0x20 || b == 0x7f:
		return fmt.Sprintf("U+%04X", b), 1
	case b >= 0x80 && b < 0xa0:
		return c1Function(b, s, 1)
	case b == 0xc2 && len(s) > 1 && s[1] >= 0x80 && s[1] < 0xa0:
		return c1Function(s[1], s, 2)
	case b < 0x80:
		return "", 1
	}
	for n = 1; n < len(s) && n < 4 && s[n]&0xc0 == 0x80; n++ { // the rest of a character
	}
	return "", n
}

func c1Function(b byte, s string, from int) (string, int) {
	if name, ok := c1[b-0x40]; ok {
		return sequence(name, s, from)
	}
	return fmt.Sprintf("U+%04X", b), from
}

// sequence reads the rest of a sequence of a kind.
func sequence(name, s string, from int) (kind string, n int) {
	if name == "CSI" {
		for i := from; i < len(s); i++ {
			if s[i] >= 0x40 && s[i] <= 0x7e {
				return "CSI " + private(s[from:i]) + s[i:i+1], i + 1
			}
		}
		return "CSI, unfinished", len(s)
	}
	body, i, ok := s[from:], from, false
	for ; i < len(s); i++ {
		if s[i] == 0x07 || s[i] == 0x9c || strings.HasPrefix(s[i:], "\x1b\\") {
			body, ok = s[from:i], true
			break
		}
	}
	if !ok {
		return name + ", unfinished", len(s)
	}
	end := i + 1
	if s[i] == 0x1b {
		end++
	}
	if name == "OSC" {
		number, _, _ := strings.Cut(body, ";")
		return "OSC " + number, end
	}
	return name, end
}

// private are the parameter's prefix and intermediate bytes of a CSI sequence, with the numbers of modes.
func private(parameters string) string {
	if strings.HasPrefix(parameters, "?") {
		return parameters
	}
	return strings.Trim(parameters, "0123456789;:")
}
