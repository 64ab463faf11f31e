package report

import (
	"io"
	"time"
)

// A Document is a report before it has a form. All of its texts are safe in either.
type Document struct {
	Title    string
	Subtitle Text
	Alerts   []Alert
	Figures  []Figure
	Sections []Section
	Made     Text // when, by whom
}

// An Alert stands on top of a document.
type Alert struct {
	Kind string // "good", "warning" or "bad"
	Text Text
}

// A Figure is a number that stands on top of a document.
type Figure struct {
	Name, Value, Note string
	Kind              string // as a Piece's
}

// A Section is a part of a document.
type Section struct {
	ID, Title string
	Words     []Text
	Parts     []Part
}

// A Part is a chart or a table of a section, with what is said below it.
type Part struct {
	Chart *Chart
	Table *Table
	Notes []Text
}

// A Table has rows as long as its heads.
type Table struct {
	Title string
	Heads []Head
	Rows  [][]Text
}

// A Head is what stands over a column.
type Head struct {
	Name    string
	Numbers bool
}

// heads are those of a table; a name that begins with # is over numbers.
func heads(names ...string) (list []Head) {
	for _, n := range names {
		if n[0] == '#' {
			list = append(list, Head{n[1:], true})
		} else {
			list = append(list, Head{n, false})
		}
	}
	return list
}

func (t *Table) row(cells ...any) {
	r := make([]Text, len(cells))
	for i, c := range cells {
		r[i] = pieces(c)
	}
	t.Rows = append(t.Rows, r)
}

// Formats are the forms that a document can be written in.
var Formats = map[string]func(io.Writer, *Document) error{"md": Markdown, "html": HTML}

// made says when and by which program a document was made.
func made(now time.Time, version string) Text {
	return say("Made at {} UTC by NemoClaw {}.", now, ours(version))
}

// rest says what a table left out, and how it is found.
func rest(n int, more uint64, find Text) (notes []Text) {
	if n > 0 {
		notes = append(notes, say("And {} more: {}", n, find))
	}
	if more > 0 {
		notes = append(notes, say("{} more attempts were of more different things than this report keeps apart (1,000 of a sandbox, plane and verdict). They are in all sums, and in the log: {}", more, find))
	}
	return notes
}
