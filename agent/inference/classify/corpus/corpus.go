// Package corpus is labelled texts for measuring a classifier: half of them with something sensitive, whose place is known, half with
// what only looks like it. It makes them anew each time, always the same. It never asks the classifier how a number is made: what it
// writes has check digits of its own making, or is taken from what the issuers publish as examples.
package corpus

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// A Span is something sensitive in a text.
type Span struct {
	Label      string // "card", "iban", "ssn", "e-mail", "credential", "phone", "person", "address", "birth-date", "ip", "mac", "id", "bank", "crypto", "medical", "marking"
	Start, End int
}

// A Text is one text of the corpus. One without spans only looks sensitive.
type Text struct {
	Text  string
	Spans []Span
}

// Labels are all labels, in the order of tables.
var Labels = []string{"card", "iban", "ssn", "e-mail", "credential", "phone", "person", "address", "birth-date", "ip", "mac", "id", "bank", "crypto", "medical", "marking"}

// Texts are 2,400 texts made by rule and those written by hand.
func Texts() []Text {
	g := &generator{rand.New(rand.NewPCG(7, 2026))}
	var out []Text
	for i := range 1200 {
		out = append(out, g.sensitive(i))
	}
	for i := range 1200 {
		out = append(out, Text{Text: g.benign(i)})
	}
	return append(out, written()...)
}

// generator draws texts.
type generator struct{ *rand.Rand }

func pick[T any](g *generator, list []T) T { return list[g.IntN(len(list))] }

func (g *generator) digits(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte('0' + g.IntN(10))
	}
	return string(b)
}

func (g *generator) from(alphabet string, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = alphabet[g.IntN(len(alphabet))]
	}
	return string(b)
}

const (
	lower  = "abcdefghijklmnopqrstuvwxyz"
	upper  = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	number = "0123456789"
	hexa   = "0123456789abcdef"
	alnum  = lower + upper + number
)

// mark stands around what is labelled while a text is put together: {label|value}.
func parse(s string) Text {
	var b strings.Builder
	var t Text
	for {
		i := strings.Index(s, "⟦")
		if i < 0 {
			b.WriteString(s)
			t.Text = b.String()
			return t
		}
		b.WriteString(s[:i])
		s = s[i+len("⟦"):]
		label, rest, _ := strings.Cut(s, "|")
		value, after, ok := strings.Cut(rest, "⟧")
		if !ok {
			panic(s)
		}
		t.Spans = append(t.Spans, Span{label, b.Len(), b.Len() + len(value)})
		b.WriteString(value)
		s = after
	}
}

func label(label, value string) string { return "⟦" + label + "|" + value + "⟧" }

// fill puts what is asked for into a template: a word in braces is a maker's name.
func (g *generator) fill(template string) string {
	var b strings.Builder
	for {
		i := strings.IndexByte(template, '{')
		if i < 0 {
			b.WriteString(template)
			return b.String()
		}
		name, _, _ := strings.Cut(template[i+1:], "}")
		f := makers[name]
		if f == nil { // a brace of the text's own
			b.WriteString(template[:i+1])
			template = template[i+1:]
			continue
		}
		b.WriteString(template[:i])
		b.WriteString(f(g))
		template = template[i+len(name)+2:]
	}
}

func (g *generator) sensitive(i int) Text {
	s := g.fill(sensitiveTemplates[i%len(sensitiveTemplates)])
	if g.IntN(3) == 0 {
		s = g.fill(pick(g, around)) + " " + s
	}
	if g.IntN(3) == 0 {
		s += pick(g, []string{" ", "\n", "\n\n"}) + g.fill(pick(g, around))
	}
	return parse(s)
}

func (g *generator) benign(i int) string {
	s := g.fill(benignTemplates[i%len(benignTemplates)])
	if g.IntN(4) == 0 {
		s += "\n" + g.fill(benignTemplates[g.IntN(len(benignTemplates))])
	}
	return s
}

// check appends what makes a number whole: the first of ten that ok takes.
func check(body string, ok func(string) bool) string {
	for d := range 100 {
		for _, s := range []string{fmt.Sprint(d), fmt.Sprintf("%02d", d)} {
			if ok(body + s) {
				return body + s
			}
		}
	}
	panic("no check digit for " + body)
}
