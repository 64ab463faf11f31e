package audit

import (
	"bytes"
	"slices"
)

// The texts of a record are what a person or a program inside may have written, and so what can be erased: the values of some keys.
// All else of a line is there for good: that something was decided, when, about which sandbox, and by which rule.

// kind is what a key's value is.
type kind byte

const (
	noText    kind = iota // nor has it any in it
	ofRecord              // the record itself
	ofSubject             // what has texts in it
	ofInference
	ofTool
	aText
	aList // of texts
	ofMatches
)

// below is what a key stands for.
func (in kind) below(key []byte) kind {
	switch in {
	case ofRecord:
		switch string(key) {
		case "object", "reason":
			return aText
		case "subject":
			return ofSubject
		case "inference":
			return ofInference
		}
	case ofSubject:
		switch string(key) {
		case "exe", "args":
			return aText
		}
	case ofInference:
		switch string(key) {
		case "asked":
			return aText
		case "instead":
			return aList
		case "matches":
			return ofMatches
		case "tool":
			return ofTool
		}
	case ofTool:
		switch string(key) {
		case "params", "result":
			return aText
		case "through":
			return aList
		}
	}
	return noText
}

// blanks are what stands in the place of erased texts: it decodes into what was there.
var blanks = map[kind][]byte{
	aText: []byte(`"` + Erased + `"`), aList: []byte(`["` + Erased + `"]`),
	ofMatches: []byte(`[{"class":"` + Erased + `","kind":"` + Erased + `","text":"` + Erased + `"}]`),
}

// Erased is what an erased text reads.
const Erased = "[erased]"

// maxTexts is more than the texts of any record.
const maxTexts = 16

// A text is where one stands in a line, as JSON.
type text struct {
	start, end int
	is         kind
}

// scan goes through a line once, from its first brace to what seals it, and keeps nothing but places.
type scan struct {
	b     []byte
	at    int
	texts []text
}

// cutTexts appends to list where the texts of a line are. b is the line up to what seals it, without the last brace. false: it is not
// as AppendJSON writes it, so where its texts are can't be said.
func cutTexts(list []text, b []byte) ([]text, bool) {
	s := scan{b: b, at: 1, texts: list}
	ok := len(b) > 0 && b[0] == '{' && s.object(ofRecord) && s.at == len(b)
	return s.texts, ok
}

// object reads what comes after an opening brace, with the closing one; the record itself ends with b.
func (s *scan) object(in kind) bool {
	if s.next('}') {
		return in != ofRecord
	}
	for {
		if !s.next('"') {
			return false
		}
		start := s.at
		if !s.quoted() || !s.next(':') {
			return false
		}
		is := in.below(s.b[start : s.at-2])
		start = s.at
		if holds := is == ofSubject || is == ofInference || is == ofTool; holds && s.next('{') {
			if !s.object(is) {
				return false
			}
		} else if !s.value() {
			return false
		} else if is >= aText {
			if len(s.texts) == maxTexts {
				return false
			}
			s.texts = append(s.texts, text{start, s.at, is})
		}
		switch {
		case s.next(','):
		case in == ofRecord:
			return s.at == len(s.b)
		default:
			return s.next('}')
		}
	}
}

// next takes a byte, if it is the next.
func (s *scan) next(c byte) bool {
	if s.at < len(s.b) && s.b[s.at] == c {
		s.at++
		return true
	}
	return false
}

// quoted reads what comes after an opening quote, with the closing one.
func (s *scan) quoted() bool {
	for {
		n := bytes.IndexByte(s.b[s.at:], '"')
		if n < 0 {
			return false
		}
		end := s.at + n
		slashes := 0
		for slashes < n && s.b[end-1-slashes] == '\\' {
			slashes++
		}
		s.at = end + 1
		if slashes%2 == 0 {
			return true
		}
	}
}

// value reads a value of any kind.
func (s *scan) value() bool {
	if s.next('"') {
		return s.quoted()
	}
	start, depth := s.at, 0
	for ; s.at < len(s.b); s.at++ {
		switch s.b[s.at] {
		case '"':
			s.at++
			if !s.quoted() {
				return false
			}
			s.at-- // the loop goes past the quote
		case '{', '[':
			depth++
		case '}', ']', ',':
			if depth == 0 {
				return s.at > start
			}
			if s.b[s.at] != ',' {
				if depth--; depth == 0 {
					s.at++
					return true
				}
			}
		}
	}
	return depth == 0 && s.at > start
}

// blank reports whether all texts of a line are erased.
func blank(line []byte, texts []text) bool {
	return !slices.ContainsFunc(texts, func(t text) bool { return !bytes.Equal(line[t.start:t.end], blanks[t.is]) })
}
