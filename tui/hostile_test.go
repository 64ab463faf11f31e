package tui

import (
	"bytes"
	"context"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/gdamore/tcell/v2"

	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
	"github.com/nemoclaw/nemoclaw/test/vterm"
)

// hostile is what somebody inside could call a file, a host or an argument.
var hostile = []string{
	"plain", "", " ", "[red]not red[-]", "[::b]bold[\"x\"]region[\"\"]", "a[]b[[]c", `\x1b[2J`,
	"\x1b[2J\x1b[H\x1b]0;title\x07\x1b]52;c;cm0gLXJm\x07", "\x1bc", "\x1b[6n\x1b[c", "\x9b2J\xc2\x9b2J\x90\x9d", "\a\b\t\r\n\v\f\x00\x7f", "\x0e\x0f",
	"user\u202egnp.exe", "\u2066a\u2069", "a\u200bb\u200d\ufeffc\u00ad", "e\u0301", "\u0301\u0301", "Z" + strings.Repeat("\u0335\u0336\u0489", 300),
	"\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f1e9\U0001f1ea", "\u263a\ufe0f", "漢字かな", strings.Repeat("漢", 400), "ﷺ", "\U000e0041\U000e0100",
	"\u1160\u3164\uffa0", "\u2028\u2029\u0085", strings.Repeat("x", 100_000), strings.Repeat("\x1b", 20_000), "\xff\xfe\xc0\x80\xed\xa0\x80", "\ufffd\ufffe\uffff", "𒐫﷽",
}

// staged is a console that nothing feeds but the test, and that draws when it is told to.
func staged(t testing.TB, screen tcell.Screen, w, h int, colours bool) *console {
	c := newConsole(context.Background(), api.Dial("/nowhere"), Options{Colours: colours, Screen: screen}, api.Info{Level: "full", Role: "steer"})
	t.Cleanup(c.cancel)
	c.SetRect(0, 0, w, h)
	return c
}

// infest puts a text everywhere where text from inside can be.
func infest(c *console, s string) {
	r := held("r", s)
	r.Sandbox, r.Program, r.Args, r.Rule, r.Plane, r.Action, r.Taint = s, s, s, s, s, s, s
	r.RawObject, r.RawArgs, r.Ancestors = []byte(s), []byte(s), []api.Ancestor{{PID: 1, Args: s}}
	r.Risks = []api.Risk{{Code: s, Text: s}}
	r.Offers[0].Text, r.Offers[0].YAML, r.Offers[0].Deny = s, s, s
	c.model.requests = newRequests()
	c.model.requests.take(api.RequestChange{Request: &r})
	c.model.tail = newTail()
	c.model.tail.add(policy.Decision{Sandbox: s, Action: s, Object: s, Subject: policy.Subject{Exe: s, Args: s, Taint: s}, Rule: s, Reason: s, Revision: s, Time: time.Now(), Inference: &policy.ModelCall{
		ID: s, Asked: s, Model: s, Route: s, Classes: map[string]int{s: 1}, Unseen: []string{s}, Matches: []policy.Matched{{Class: s, Kind: s, Via: s, Text: s}},
		Tool: &policy.ToolUse{Through: []string{s}, Params: s, Result: s, Failed: true, Withheld: true},
	}})
	c.model.setBoxes([]api.Sandbox{{Name: s, State: api.State(s), Reason: s, Level: s, Image: s, Workspace: s, Warnings: []string{s}, Publish: []api.Published{{Host: s}}, Policy: api.PolicyState{Name: s, Hash: s}}})
	c.model.info.Level = s
	ended := r
	ended.State, ended.Answer = api.Approved, &api.Answered{Who: s, Scope: api.Scope(s)}
	c.model.notes = nil
	c.model.say("%s", outcome(&ended))
}

// sights are the screens on which a text can be.
func sights(c *console, s string) map[string]func() {
	p := c.panes[1].(*waiting)
	d, _ := c.model.tail.get(0)
	over := func(v view) func() { return func() { c.stack = []view{v} } }
	result := api.AnswerResult{Grant: &api.Grant{Verdict: s, Action: s, Object: s, Program: s}, Policy: &api.PolicyResult{Diff: s, Warnings: []string{s}, Restart: []string{s}}}
	return map[string]func(){
		"panes":    func() { c.stack = nil },
		"request":  over(newReader(c, &requestPage{c: c, last: p.c.model.requests.list()[0]})),
		"decision": over(newReader(c, &decisionPage{c: c, d: d})),
		"sandbox":  over(newReader(c, &boxPage{c: c, name: s})),
		"messages": over(newReader(c, &messages{c: c})),
		"explain":  over(newReader(c, &answerPage{c: c, came: true, q: question{s, s, s, s}, answer: api.Answer{Verdict: s, Rule: s, RuleText: s, Reason: s, Suggest: s}})),
		"policy":   over(newReader(c, &policyPage{c: c, name: s, came: true, text: api.PolicyText{Text: s, Who: s, What: s, Expired: []string{s}}})),
		"grants": over(func() view {
			c.openGrants(s)
			g := c.top().(*grants)
			g.list, g.came = []api.Grant{{ID: "g", Sandbox: s, Verdict: s, Plane: s, Action: s, Object: s, Program: s, Who: s}}, true
			return g
		}()),
		"scopes": over(func() view {
			c.openScopes(p.c.model.requests.list()[0], "allow")
			sc := c.top().(*scopes)
			for i := range sc.choices {
				sc.choices[i].asked = true
				sc.choices[i].effect, sc.choices[i].restart = sc.words(result, nil)
			}
			return sc
		}()),
		"dangerous": over(func() view {
			r := *p.c.model.requests.list()[0]
			r.Dangerous = true
			c.give(&r, api.NewAnswer{Verdict: "allow"}, s)
			return c.top()
		}()),
		"log": over(&auditLog{c: c, stop: func() {}, table: table[uint64]{theme: c.theme, columns: decisionColumns()}, found: []policy.Decision{d}, state: "x", find: query{typed: s}}),
	}
}

// checkCells fails when a cell has anything that is more than a character.
func checkCells(t *testing.T, where, s string, screen tcell.SimulationScreen) {
	t.Helper()
	cells, w, _ := screen.GetContents()
	for i, cell := range cells {
		if len(cell.Runes) > 1+maxMarks {
			t.Fatalf("%s of %.80q: the cell at %d, %d has %d runes: %q", where, s, i%w, i/w, len(cell.Runes), cell.Runes)
		}
		for j, r := range cell.Runes {
			if !unicode.IsPrint(r) || j > 0 && !unicode.IsMark(r) && !unicode.IsLetter(r) {
				t.Fatalf("%s of %.80q: the cell at %d, %d has %q", where, s, i%w, i/w, cell.Runes)
			}
		}
	}
}

// FuzzShow puts a text everywhere, and looks at each cell of each screen.
func FuzzShow(f *testing.F) {
	for _, s := range hostile {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, dim := range [][2]int{{80, 24}, {240, 60}, {7, 5}} {
			screen := tcell.NewSimulationScreen("UTF-8")
			c := staged(t, screen, dim[0], dim[1], true)
			screen.SetSize(dim[0], dim[1])
			infest(c, s)
			for where, show := range sights(c, s) {
				show()
				screen.Clear()
				c.Draw(screen)
				screen.Show()
				checkCells(t, where, s, screen)
			}
			screen.Fini()
		}
	})
}

// TestTagsAreText shows what tview takes for colours as it is.
func TestTagsAreText(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	d.request(held("r", "[red]x[-]:443"))
	s := open(t, d, 240, 60, Options{Colours: true})
	s.see("[red]x[-]:443")
}

// TestTerminalKeepsItsState gives what a real screen writes to an emulated terminal: whatever the text, the terminal shows what was
// drawn, and is else as with a harmless text.
func TestTerminalKeepsItsState(t *testing.T) {
	t.Setenv("LC_ALL", "C.UTF-8")
	plain := emulate(t, "plain", "panes")
	for _, s := range append(vterm.Hostile(), hostile...) {
		for _, last := range []string{"panes", "request"} {
			got := emulate(t, s, last)
			for _, control := range got.State.Controls {
				if !slices.Contains(plain.State.Controls, control) {
					t.Errorf("%.80q: the terminal gets %s", s, control)
				}
			}
			got.State.Controls = plain.State.Controls
			if d := (&vterm.Shown{State: got.State}).Differs(&vterm.Shown{State: plain.State}); d != "" {
				t.Errorf("%.80q: %s", s, d)
			}
		}
	}
}

// emulate draws all screens with a text in them on one terminal, and compares the last one with what the terminal shows.
func emulate(t *testing.T, s, last string) *vterm.Shown {
	t.Helper()
	const w, h = 80, 24
	var written bytes.Buffer
	info, err := tcell.LookupTerminfo("screen-256color")
	if err != nil {
		t.Fatal(err)
	}
	screen, err := tcell.NewTerminfoScreenFromTtyTerminfo(&tty{to: &written, w: w, h: h, closed: make(chan struct{})}, info)
	if err != nil {
		t.Fatal(err)
	}
	c := staged(t, screen, w, h, true)
	infest(c, s)
	all := sights(c, s)
	for _, where := range append(slices.Sorted(maps.Keys(all)), last) {
		all[where]()
		screen.Clear()
		c.Draw(screen)
		screen.Show()
	}
	shown := vterm.Print(w, h, written.String())
	for y := range h {
		var drawn strings.Builder
		for x := 0; x < w; {
			main, _, _, width := screen.GetContent(x, y)
			drawn.WriteRune(main)
			x += max(width, 1)
		}
		if want, got := strings.TrimRight(drawn.String(), " "), letters(shown.Rows[y]); got != want {
			t.Errorf("%s of %.80q: line %d is drawn as\n%q and shown as\n%q", last, s, y, want, got)
		}
	}
	screen.Fini()
	return shown
}

// letters is a line without marks, which the emulated terminal has no place for.
func letters(s string) string {
	return strings.TrimRight(strings.Map(func(r rune) rune {
		if unicode.IsMark(r) {
			return -1
		}
		return r
	}, s), " ")
}

// A tty is a terminal for tcell, of which nothing is typed.
type tty struct {
	to     io.Writer
	w, h   int
	closed chan struct{}
}

func (t *tty) Start() error                { return nil }
func (t *tty) Stop() error                 { return nil }
func (t *tty) Drain() error                { close(t.closed); return nil }
func (t *tty) Close() error                { return nil }
func (t *tty) NotifyResize(func())         {}
func (t *tty) Write(b []byte) (int, error) { return t.to.Write(b) }

func (t *tty) WindowSize() (tcell.WindowSize, error) {
	return tcell.WindowSize{Width: t.w, Height: t.h}, nil
}

func (t *tty) Read([]byte) (int, error) {
	<-t.closed
	return 0, io.EOF
}
