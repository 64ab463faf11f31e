package classify

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// person finds who is named: behind a title or an introduction, or by a first name with another word in capitals behind it.
func (s *scanner) person(w *word, start, end int) {
	t := s.s
	switch {
	case w.act&aTitle != 0:
		if !capital(t[start:]) && (end >= len(t) || t[end] != '.') {
			break
		}
		i := end
		if i < len(t) && t[i] == '.' {
			if w.text == "miss" {
				break // no abbreviation: a sentence ends here
			}
			i++
		}
		if i == end && len(w.text) == 1 || i < len(t) && t[i] != ' ' && t[i] != '\u00a0' {
			break
		}
		for i < len(t) && t[i] == ' ' {
			i++
		}
		if _, to, n := s.name(i); n > 0 {
			s.took(PII, "person", start, to)
			return
		}
		if to := s.smallName(i, true); to > i && i > end+1 {
			s.took(PII, "person", start, to)
			return
		}
	case w.act&aIntro != 0:
		s.introduced(w, end)
		return
	}
	if w.act&(aFirst|aOrdinary) == aFirst && class[t[start]]&bUpper == 0 && s.smallTalk(start, end) {
		s.took(PII, "first-name", start, end)
		return
	}
	if w.act&aFirst == 0 || !capital(t[start:]) || start > 0 && (t[start-1] == '_' || t[start-1] == '/' || t[start-1] == '.' || t[start-1] == '@' || t[start-1] == '#') {
		return
	}
	from, to, n := s.name(start)
	switch {
	case n > 1:
		s.took(PII, "person", from, to)
	case n == 1 && w.act&aOrdinary == 0 && !allCapitals(t[start:end]) && (to == len(t) || !joined[t[to]]):
		s.took(PII, "first-name", from, to)
	}
}

// smallTalk reports whether a first name in small letters stands in a sentence that is written in small letters throughout, as people
// write to each other: no capital is near, and nothing that programs and their output have.
func (s *scanner) smallTalk(start, end int) bool {
	t := s.s
	if end-start < 4 || start > 0 && strings.IndexByte(" \n(", t[start-1]) < 0 || end < len(t) && strings.IndexByte(" \n\"',.!?:)", t[end]) < 0 || end+1 < len(t) && t[end] == '.' && wordy(t[end+1]) {
		return false
	}
	from, to := max(0, start-80), min(len(t), end+80)
	for i := from; i < to; i++ {
		if class[t[i]]&(bUpper|bDigit) != 0 || strings.IndexByte("{}[]<>=_/\\|;$#@*+`", t[i]) >= 0 {
			return false
		}
	}
	return strings.Count(t[from:to], " ") >= 2
}

// joined are signs behind a word that make a name of something else of it: Julia_set, Helm/values, Jackson(x).
var joined = [256]bool{'_': true, '/': true, '(': true, '=': true, '@': true, '\\': true, '[': true, '<': true, '{': true}

// smallName is where a name in small letters ends behind a title: a first name, and the word behind it.
// Where a title with its stop is before it, the word need not be known.
func (s *scanner) smallName(i int, titled bool) int {
	t := s.s
	j := i
	for j < len(t) && class[t[j]]&(bLetter|bHigh) != 0 {
		j++
	}
	e := s.c.words.look(t[i:j])
	if e == nil || e.act&aFirst == 0 {
		if titled && j-i > 2 && !noNames[t[i:j]] {
			return j
		}
		return i
	}
	if j+1 < len(t) && t[j] == ' ' && class[t[j+1]]&(bLetter|bHigh) != 0 {
		for j++; j < len(t) && class[t[j]]&(bLetter|bHigh) != 0; j++ {
		}
	}
	return j
}

// introduced is a name behind "Name:", "my name is", "Dear", "Regards,".
func (s *scanner) introduced(w *word, end int) {
	t := s.s
	i := end
	sign := false
	lines := 0
	for i < len(t) && i < end+6 && (t[i] == ' ' || t[i] == ':' || t[i] == ',' || t[i] == '"' || t[i] == '=' || t[i] == '\n' || t[i] == '\r') {
		if t[i] == ':' || t[i] == '=' || t[i] == ',' {
			sign = true
		}
		if t[i] == '\n' {
			lines++
		}
		i++
	}
	if w.text == "name" {
		if !sign {
			if i+3 > len(t) || !sameFold("is", t[i:i+2]) || t[i+2] != ' ' {
				return
			}
			i += 3
		}
	}
	if lines > 2 || lines > 0 && !sign {
		return
	}
	if i == end {
		return
	}
	if from, to, n := s.name(i); n > 0 {
		s.took(PII, "person", from, to)
	} else if to := s.smallName(i, false); to > i && w.text == "name" {
		s.took(PII, "person", i, to)
	}
}

// name reads words in capitals, with the small ones and initials that names have between. n counts the words.
func (s *scanner) name(i int) (from, to, n int) {
	t := s.s
	from, to = i, i
	first := ""
	particles := 0
	for n < 4 && i < len(t) {
		j := i
		for j < len(t) && j < i+32 && (class[t[j]]&(bLetter|bHigh) != 0 || (t[j] == '\'' || t[j] == '-') && j > i && j+1 < len(t) && class[t[j+1]]&(bLetter|bHigh) != 0 && capital(t[j+1:])) {
			j++
		}
		if j == i || j < len(t) && (digit(t[j]) || t[j] == '_' || t[j] == '(') || j-i > 30 {
			break
		}
		word := t[i:j]
		e := s.c.words.look(word)
		switch {
		case particle[word] && n > 0 && particles < 3:
			particles++
			if j >= len(t) || t[j] != ' ' {
				return from, to, n
			}
			i = j + 1
			continue
		case !capital(word), noNames[asciiLower(word)]:
			return from, to, n
		case j-i == 1: // an initial
			if j >= len(t) || t[j] != '.' && t[j] != ' ' {
				return from, to, n
			}
			if t[j] == '.' {
				j++
			}
		case n > 0 && allCapitals(word) && !allCapitals(first):
			return from, to, n
		default:
			if n == 0 {
				first = word
			}
			n++
			to = j
			if n == 1 && e != nil && e.act&(aStreet|aMarking) != 0 {
				return from, from, 0
			}
		}
		if j >= len(t) || t[j] != ' ' {
			break
		}
		i = j + 1
	}
	return from, to, n
}

var particle = map[string]bool{"van": true, "von": true, "de": true, "der": true, "den": true, "la": true, "le": true, "di": true, "da": true,
	"dos": true, "das": true, "del": true, "della": true, "bin": true, "ibn": true, "al": true, "el": true, "y": true, "ter": true, "zu": true, "af": true, "av": true}

// capital reports whether a text begins with a capital.
func capital(s string) bool {
	if s == "" {
		return false
	}
	if s[0] < 0x80 {
		return class[s[0]]&bUpper != 0
	}
	r, _ := utf8.DecodeRuneInString(s)
	return unicode.IsUpper(r) || unicode.IsTitle(r)
}

func allCapitals(s string) bool {
	for i := range len(s) {
		if 'a' <= s[i] && s[i] <= 'z' {
			return false
		}
	}
	return len(s) > 1
}
