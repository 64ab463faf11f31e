package policy

import (
	"fmt"
	"sort"
	"strings"
)

// maxErrors bounds how many errors one Parse or Compile reports: past that a person starts again from the top anyway.
const maxErrors = 20

// Error is one thing wrong with a policy, and where.
type Error struct {
	File string
	Line int    // from 1; 0: the file as a whole
	Col  int    // from 1, in characters; 0: the line as a whole
	Key  string // path of the key: "network.allow[0].ports"; "" where there is none
	Msg  string // what is wrong
	Hint string // what to do; "" where Msg says it
}

// Error writes "file:line:col: key: message (hint)".
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d", e.Line)
		if e.Col > 0 {
			fmt.Fprintf(&b, ":%d", e.Col)
		}
	}
	b.WriteString(": ")
	if e.Key != "" {
		b.WriteString(e.Key)
		b.WriteString(": ")
	}
	b.WriteString(e.Msg)
	if e.Hint != "" {
		fmt.Fprintf(&b, " (%s)", e.Hint)
	}
	return b.String()
}

// Errors are all the errors found in one policy, in the order of the file, one a line.
type Errors []*Error

// Error joins the errors by newlines.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, err := range e {
		lines[i] = err.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap lets errors.As find the first *Error.
func (e Errors) Unwrap() []error {
	errs := make([]error, len(e))
	for i, err := range e {
		errs[i] = err
	}
	return errs
}

// collector gathers errors of one file and stops storing them at maxErrors.
type collector struct {
	file  string
	errs  Errors
	count int
}

func (c *collector) add(at At, key, msg, hint string) {
	c.count++
	if c.count <= maxErrors {
		c.errs = append(c.errs, &Error{File: c.file, Line: at.Line, Col: at.Col, Key: key, Msg: msg, Hint: hint})
	}
}

// err returns what was gathered as one error, or nil.
func (c *collector) err() error {
	if c.count == 0 {
		return nil
	}
	sort.SliceStable(c.errs, func(i, j int) bool {
		a, b := c.errs[i], c.errs[j]
		return a.Line < b.Line || a.Line == b.Line && a.Col < b.Col
	})
	if more := c.count - len(c.errs); more > 0 {
		c.errs = append(c.errs, &Error{File: c.file, Msg: fmt.Sprintf("and %d more errors", more)})
		c.count = len(c.errs)
	}
	return c.errs
}

// At is a place in a file, both from 1. Col counts characters, not bytes.
type At struct{ Line, Col int }

// Nearest returns the word of valid that word was most likely meant to be, or "".
func Nearest(word string, valid []string) string {
	word = strings.ToLower(word)
	best, bestDist := "", len(word)/3+2
	if len(word) < 4 {
		bestDist = 2 // with two letters changed, each short word is near each other
	}
	for _, v := range valid {
		d := distance(word, v)
		if len(word) > 1 && strings.HasPrefix(v, word) {
			d = 1 // a word cut short
		}
		if d < bestDist {
			best, bestDist = v, d
		}
	}
	return best
}

// DidYouMean asks for the word of valid that word was most likely meant to be, as an error's last words: blank, in brackets. It is ""
// where none is near.
func DidYouMean(word string, valid []string) string {
	if best := Nearest(word, valid); best != "" {
		return fmt.Sprintf(" (did you mean %q?)", best)
	}
	return ""
}

// nearest is a hint: the word that was most likely meant, or all of valid when none is near.
func nearest(word string, valid []string) string {
	if best := Nearest(word, valid); best != "" {
		return fmt.Sprintf("did you mean %q?", best)
	}
	return "valid: " + strings.Join(valid, ", ")
}

// distance is the number of letters to change, add, drop or swap with a neighbour (optimal string alignment).
func distance(a, b string) int {
	// Words of the language are short; a hostile key of megabytes must not cost a quadratic table.
	if len(a) > 64 {
		return len(a)
	}
	prev2, prev, cur := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], prev2[j-2]+1)
			}
		}
		prev2, prev, cur = prev, cur, prev2
	}
	return prev[len(b)]
}

// show quotes a text of the file for a message: escaped, and cut where it is long.
func show(s string) string {
	const most = 60
	if r := []rune(s); len(r) > most {
		s = string(r[:most]) + "..."
	}
	return fmt.Sprintf("%q", s)
}
