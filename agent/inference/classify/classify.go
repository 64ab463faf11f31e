// Package classify finds what is sensitive in the texts that a model would see: cards and accounts, national ids, people and
// where they live, what they suffer from, keys and passwords, what its owner marked confidential, and what a policy adds. A
// find is checked as far as it can be (check digits, formats, entropy, the words near it), and it is looked for in what is
// encoded too: base64, gzip, hex, escapes, letters that only look like others, pieces in several parts.
//
// It never opens a file or a connection, knows no policy and decides nothing: what a find means is for the router. It never
// passes over a text that it can't judge: that is an error. No error has any of the text in it.
package classify

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Class is a kind of sensitivity: one of those below, or a label of the policy's own.
type Class string

// What is recognised without rules.
const (
	Medical      Class = "medical"
	Financial    Class = "financial"
	PII          Class = "pii"
	Credentials  Class = "credentials"
	Confidential Class = "confidential"
)

// Classes are those that are recognised without rules.
func Classes() []Class { return []Class{Medical, Financial, PII, Credentials, Confidential} }

// A Match is one find.
type Match struct {
	Class Class
	Kind  string // "card", "iban", "e-mail", "private-key" ...; of custom rules their name
	// Start and End are bytes of the part it was found in; of what was decoded, those of the encoded text. They are never
	// empty, and never overlap those of the same class in the same part unless both were decoded.
	Start, End int
	Part       int    // which of the parts
	Via        string // how it was hidden: "", "base64", "gzip", "hex", "escape", "homoglyph", "split"; several joined by "+"
}

// Rules are what a policy adds and takes away.
type Rules struct {
	Patterns     []Pattern
	Dictionaries []Dictionary
	Off          []Class  // not looked for
	OffKinds     []string // not looked for
}

// A Pattern finds what an expression says.
type Pattern struct {
	Name   string
	Class  Class
	Regexp string   // RE2
	Words  []string // where there are any, one of them must stand within 80 bytes before or after
}

// A Dictionary finds words and phrases, whatever their case and the blanks between them.
type Dictionary struct {
	Name  string
	Class Class
	Words []string
}

// Bounds on the work: more is an error, never overlooked.
const (
	maxText    = 64 << 20 // of all parts together
	maxDecoded = 64 << 20 // of all that was decoded from them
	maxDepth   = 5        // encodings within each other
	maxMatches = 100_000
)

// Texts that can't be judged.
var (
	ErrTooLarge    = errors.New("more text than can be judged")
	ErrTooDeep     = errors.New("encoded too many times over to be judged")
	ErrUndecodable = errors.New("compressed text that can't be decompressed")
)

// A Classifier knows what to look for. Many may use it at once.
type Classifier struct {
	words    *wordTable
	patterns []pattern
	off      map[Class]bool
	offKinds map[string]bool
}

// New makes a classifier. An error names the rule that is wrong.
func New(r Rules) (*Classifier, error) {
	c := &Classifier{words: builtin(), off: map[Class]bool{}, offKinds: map[string]bool{}}
	for _, o := range r.Off {
		c.off[o] = true
	}
	for _, k := range r.OffKinds {
		if !known(k) {
			return nil, fmt.Errorf("nothing called %q is recognised", k)
		}
		c.offKinds[k] = true
	}
	if err := c.custom(r); err != nil {
		return nil, err
	}
	return c, nil
}

// Parts finds what is sensitive in all that a model would see of a conversation, in order. The matches are in order of part and
// place. An error means that the texts could not be judged, whatever was found.
func (c *Classifier) Parts(parts []string) ([]Match, error) {
	w := &work{c: c, left: maxDecoded}
	total := 0
	for _, p := range parts {
		if total += len(p); total > maxText {
			return nil, fmt.Errorf("%w: over %d bytes", ErrTooLarge, maxText)
		}
	}
	for i, p := range parts {
		found, err := w.text(p, 0)
		if err != nil {
			return nil, err
		}
		for _, m := range found {
			m.Part = i
			w.out = append(w.out, m)
		}
		if len(w.out) > maxMatches {
			return nil, fmt.Errorf("%w: over %d matches", ErrTooLarge, maxMatches)
		}
	}
	if len(parts) > 1 {
		if err := w.split(parts); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(w.out, order)
	return w.out, nil
}

func order(a, b Match) int {
	switch {
	case a.Part != b.Part:
		return a.Part - b.Part
	case a.Start != b.Start:
		return a.Start - b.Start
	case a.End != b.End:
		return a.End - b.End
	case a.Class != b.Class:
		return strings.Compare(string(a.Class), string(b.Class))
	case a.Kind != b.Kind:
		return strings.Compare(a.Kind, b.Kind)
	}
	return strings.Compare(a.Via, b.Via)
}

// work is one call of Parts.
type work struct {
	c    *Classifier
	sc   scanner // of the text that is gone over: one at a time
	out  []Match
	left int // bytes that may still be decoded
}

// text finds everything in one text and in what is encoded in it.
func (w *work) text(s string, depth int) ([]Match, error) {
	if strings.HasPrefix(s, gzipMagic) {
		if found, how, err := w.zipped(s, depth); how != "" || err != nil {
			return found, err
		}
	}
	u := w.c.unescaped(s)
	if u == nil {
		return w.flat(s, depth)
	}
	found, err := w.escaped(u, depth)
	if err != nil || len(w.c.patterns) == 0 {
		return found, err
	}
	have := covered(found)
	for _, m := range w.c.matchPatterns(s) { // an expression may be meant for what is written
		if !have.contains(m) {
			found = append(found, m)
		}
	}
	return found, nil
}

// flat finds everything in a text without escapes of programs.
func (w *work) flat(s string, depth int) ([]Match, error) {
	w.sc = scanner{c: w.c, s: s}
	w.sc.scan()
	seen, blobs := w.sc.seen, w.sc.blobs // the scanner is used again for what is decoded
	found := append(tidy(w.sc.found), w.sc.words...)
	found = append(found, w.c.matchPatterns(s)...)
	if len(blobs) > 0 {
		inner, err := w.blobs(s, blobs, depth)
		if err != nil {
			return nil, err
		}
		found = append(found, inner...)
	}
	if seen&(bHigh|bEscape) != 0 {
		inner, err := w.unfolded(s, found, depth)
		if err != nil {
			return nil, err
		}
		found = append(found, inner...)
	}
	return found, nil
}

// tidy drops what lies within another find.
func tidy(found []Match) []Match {
	if len(found) < 2 {
		return found
	}
	slices.SortStableFunc(found, func(a, b Match) int {
		if a.Start != b.Start {
			return a.Start - b.Start
		}
		return b.End - a.End
	})
	kept := found[:1]
	for _, m := range found[1:] {
		last := &kept[len(kept)-1]
		switch {
		case m.Start >= last.End:
			kept = append(kept, m)
		case m.End > last.End && m.Class == last.Class:
			last.End = m.End // they overlap: one find
		case m.End > last.End:
			kept = append(kept, m)
		}
	}
	return kept
}
