package report

import (
	"bufio"
	_ "embed" // the page
	"html/template"
	"io"
)

//go:embed page.html
var page string

var pages = template.Must(template.New("page").Parse(page))

// HTML writes a document as one page without scripts, which loads nothing: it can be mailed, kept and printed.
func HTML(w io.Writer, d *Document) error {
	b := bufio.NewWriter(w)
	if err := pages.Execute(b, d); err != nil {
		return err
	}
	return b.Flush()
}
