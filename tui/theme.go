package tui

import "github.com/gdamore/tcell/v2"

// A theme is how things look. It has the terminal's own colours only, so that it fits dark and light ones, of 16 colours and
// more; and nothing is told by a colour alone.
type theme struct {
	text, dim, title, border  tcell.Style
	good, warn, bad           tcell.Style // verdicts and states
	selected, elsewhere, head tcell.Style // the selected row of the pane that has the keys, and of others; columns' names
	bar                       tcell.Style // the first and the last line
}

// newTheme is one without any colour where colours is false: bold, underlined and reversed alone.
func newTheme(colours bool) theme {
	plain := tcell.StyleDefault
	t := theme{
		text: plain, dim: plain, title: plain.Bold(true), border: plain,
		good: plain, warn: plain.Bold(true), bad: plain.Bold(true),
		selected: plain.Reverse(true), elsewhere: plain.Underline(true), head: plain.Underline(true),
		bar: plain.Reverse(true),
	}
	if !colours {
		return t
	}
	t.good = plain.Foreground(tcell.ColorGreen)
	t.warn = plain.Foreground(tcell.ColorOlive).Bold(true)
	t.bad = plain.Foreground(tcell.ColorMaroon).Bold(true)
	t.border = plain.Foreground(tcell.ColorTeal)
	t.title = plain.Foreground(tcell.ColorTeal).Bold(true)
	t.dim = plain.Foreground(tcell.ColorGray)
	return t
}

// verdict is how a verdict, or what a request's state is, looks.
func (t theme) verdict(word string) tcell.Style {
	switch word {
	case "allow", "approved", "running":
		return t.good
	case "ask", "held", "starting", "stopping":
		return t.warn
	case "deny", "rejected", "failed":
		return t.bad
	}
	return t.text
}
