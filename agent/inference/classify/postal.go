package classify

import "strings"

// postal looks around a word that says that an address is there, where the street itself has none that does.
func (s *scanner) postal(w *word, start, end int) {
	t := s.s
	switch {
	case w.act&aForces != 0: // APO AP 96201
		if i := end + 1; i+8 <= len(t) && allCapitals(t[start:end]) && (t[i:i+2] == "AA" || t[i:i+2] == "AE" || t[i:i+2] == "AP") && t[end] == ' ' && t[i+2] == ' ' &&
			allDigits(t[i+3:i+8]) && (i+8 == len(t) || !wordy(t[i+8])) {
			s.took(PII, "address", start, i+8)
		}
	case w.act&aZip != 0:
		s.zip(w, start, end)
	case w.act&aBoxAlone != 0:
		if i := end + 1; i < len(t) && t[end] == ' ' && capital(t[start:]) {
			if to := i + digitsLength(t[i:]); to > i && to-i <= 7 && (to == len(t) || !wordy(t[to])) {
				s.address(start, to)
			}
		}
	case w.act&aStreetMid != 0:
		s.streetMid(start, end)
	case w.act&aResidence != 0:
		s.residence(w, end)
	}
}

// zip is the code of a place behind a word that says so: zip code: 60601.
func (s *scanner) zip(w *word, start, end int) {
	t := s.s
	rest := asciiLower(t[end:min(len(t), end+16)])
	said := w.text != "zip" && w.text != "postal"
	i := 0
	for {
		was := i
		for i < len(rest) && strings.IndexByte(" :=\"'", rest[i]) >= 0 {
			said = said || rest[i] == ':' || rest[i] == '='
			i++
		}
		if strings.HasPrefix(rest[i:], "code") {
			said = true
			i += 4
		} else if strings.HasPrefix(rest[i:], "is ") {
			i += 3
		}
		if i == was {
			break
		}
	}
	from := end + i
	if to := from + digitsLength(t[from:]); said && to-from == 5 && (to == len(t) || !wordy(t[to])) {
		s.took(PII, "address", from, to)
	}
}

// streetMid is a street whose kind stands between its name and the number: Freistädter Straße 61, Kossuth Lajos u. 9.
func (s *scanner) streetMid(start, end int) {
	t := s.s
	i := end
	if i < len(t) && t[i] == '.' {
		i++
	}
	if i+1 >= len(t) || t[i] != ' ' || start < 3 || t[start-1] != ' ' || !wordy(t[start-2]) {
		return
	}
	i++
	n := digitsLength(t[i:])
	if n == 0 || n > 4 || i+n < len(t) && wordy(t[i+n]) && i+n+1 < len(t) && wordy(t[i+n+1]) {
		return
	}
	from := start
	for range 3 { // the name has up to three words
		to := from - 1
		k := to
		for k > 0 && to-k < 30 && (wordy(t[k-1]) || t[k-1] == '-') {
			k--
		}
		if k == to || !capital(t[k:]) || noNames[asciiLower(t[k:to])] {
			break
		}
		from = k
		if k < 2 || t[k-1] != ' ' {
			break
		}
	}
	if from == start {
		return
	}
	if number := s.numberJustBefore(from); number >= 0 {
		from = number
	}
	s.address(from, i+n)
}

// residence is what stands behind "address:" or "lives at": a number and a name, or a name and a number.
func (s *scanner) residence(w *word, end int) {
	t := s.s
	i, said := end, false
	for range 4 {
		for i < len(t) && i < end+16 && strings.IndexByte(" :=\"\t\n", t[i]) >= 0 {
			said = said || t[i] == ':' || t[i] == '='
			i++
		}
		j := i
		for j < len(t) && j < i+5 && class[t[j]]&bLetter != 0 {
			j++
		}
		switch word := t[i:j]; word {
		case "at", "is", "of":
			said = said || word != "of" || w.text == "corner"
		case "the", "to":
		default:
			j = i
		}
		if j == i {
			break
		}
		i = j
	}
	if !said || i >= len(t) {
		return
	}
	from, to, names, number := i, i, 0, digit(t[i])
	for range 7 {
		k := i
		for k < len(t) && k < i+30 && (wordy(t[k]) || (t[k] == '\'' || t[k] == '-') && k > i && k+1 < len(t) && wordy(t[k+1])) {
			k++
		}
		word := t[i:k]
		if word == "" {
			break
		}
		if digit(word[0]) {
			if !houseNo(word) {
				return
			}
			to = k
			if names > 0 {
				number = true
				break
			}
		} else if e := s.c.words.look(word); e != nil && e.near&(nNot|nVersion) != 0 {
			return // a port, a page
		} else if capital(word) && !noNames[asciiLower(word)] {
			names++
			to = k
		} else if !particle[word] {
			break
		}
		i = k
		if i < len(t) && t[i] == '.' && len(word) < 4 { // St. Mary's
			i++
		}
		if i >= len(t) || t[i] != ' ' {
			break
		}
		i++
	}
	if !number || names == 0 || to < len(t) && strings.IndexByte(",.;\n\r\"<)", t[to]) < 0 && !strings.HasPrefix(t[to:], " and ") && !s.unitAt(to) {
		return
	}
	s.address(from, to)
}

// unitAt reports whether an apartment follows.
func (s *scanner) unitAt(i int) bool {
	t := s.s
	if i >= len(t) || t[i] != ' ' {
		return false
	}
	k := i + 1
	for k < len(t) && k < i+16 && wordy(t[k]) {
		k++
	}
	w := s.c.words.look(t[i+1 : k])
	return w != nil && w.act&aUnit != 0
}

// streetLine is where the street stands before an apartment: on the line before, or on the same one, a number first.
func (s *scanner) streetLine(start int) int {
	t := s.s
	to := start
	for far := max(s.done, start-10); to > far && !wordy(t[to-1]); {
		to--
	}
	from := to
	for far := max(s.done, to-60); from > far && strings.IndexByte("\n:;\"|", t[from-1]) < 0; {
		from--
	}
	for from < to && !wordy(t[from]) {
		from++
	}
	if n := digitsLength(t[from:to]); n == 0 || n > 5 || strings.Count(t[from:to], " ") > 7 || strings.Count(t[from:to], " ") == 0 {
		return start
	}
	return from
}

func digitsLength(s string) int {
	n := 0
	for n < len(s) && n < 12 && digit(s[n]) {
		n++
	}
	return n
}

func allDigits(s string) bool { return s != "" && digitsLength(s) == len(s) }
