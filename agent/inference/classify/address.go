package classify

import "strings"

// addressWord looks around a word that postal addresses have.
func (s *scanner) addressWord(w *word, start, end int) {
	t := s.s
	switch {
	case w.act&aStreet != 0 && capital(t[start:]):
		if from, ok := s.numberBefore(start, w); ok {
			s.address(from, end)
			return
		}
	case w.act&aUnit != 0:
		i := end
		for i < len(t) && i < end+3 && (t[i] == '.' || t[i] == ' ' || t[i] == '#') {
			i++
		}
		j := i
		for j < len(t) && digit(t[j]) {
			j++
		}
		if j > i && j-i <= 5 && i > end && (capital(t[start:]) || len(w.text) <= 3) && (j >= len(t) || t[j] != '.' && t[j] != '-' && !alnum(t[j]) || j-i <= 4 && j+1 >= len(t)) {
			s.address(s.streetLine(start), j)
			return
		}
	case w.act&aBox != 0:
		s.box(start, end)
		return
	}
	if w.act&aStreetPre != 0 && capital(t[start:]) || w.act&aStreetPre != 0 && s.numberJustBefore(start) >= 0 {
		s.streetBefore(start, end)
	}
}

// numberBefore walks back over the name of a street to the number of the house: 742 Evergreen Terrace.
func (s *scanner) numberBefore(start int, w *word) (int, bool) {
	t := s.s
	i := start
	for range 4 {
		j := i
		for j > 0 && (t[j-1] == ' ' || t[j-1] == '.') {
			j--
		}
		if j == i || i-j > 2 {
			return 0, false
		}
		k := j
		for k > 0 && (wordy(t[k-1]) || t[k-1] == '\'' || t[k-1] == '-') {
			k--
		}
		if k == j {
			return 0, false
		}
		word := t[k:j]
		if digit(word[0]) {
			if houseNo(word) && i < start && (k == 0 || t[k-1] != '.' && t[k-1] != '$' && t[k-1] != '#') {
				return k, true
			}
			if !ordinal(word) {
				return 0, false
			}
		} else if !capital(word) && !particle[word] {
			return 0, false
		}
		i = k
	}
	return 0, false
}

func houseNo(w string) bool {
	n := 0
	for n < len(w) && digit(w[n]) {
		n++
	}
	if n == 0 || n > 6 {
		return false
	}
	rest := w[n:]
	return rest == "" || len(rest) == 1 && class[rest[0]]&bLetter != 0 || rest[0] == '-' && len(rest) < 6 && digit(rest[len(rest)-1])
}

func ordinal(w string) bool {
	w = asciiLower(w)
	return strings.HasSuffix(w, "st") || strings.HasSuffix(w, "nd") || strings.HasSuffix(w, "rd") || strings.HasSuffix(w, "th")
}

// numberJustBefore is where a house number begins that stands right before a place, or -1.
func (s *scanner) numberJustBefore(start int) int {
	t := s.s
	i := start
	for i > 0 && start-i < 2 && (t[i-1] == ' ' || t[i-1] == ',') {
		i--
	}
	j := i
	for j > 0 && alnum(t[j-1]) {
		j--
	}
	if i == start || j == i || !houseNo(t[j:i]) || j > 0 && (t[j-1] == '.' || t[j-1] == '$') {
		return -1
	}
	return j
}

// streetBefore is a street whose kind stands first: Via Carlo Cattaneo 130, 12 rue de la Paix.
func (s *scanner) streetBefore(start, end int) {
	t := s.s
	i, names := end, 0
	to := end
	for range 6 {
		j := i
		for j < len(t) && j < i+2 && (t[j] == ' ' || t[j] == '.' || t[j] == ',') {
			j++
		}
		if j == i || j >= len(t) {
			break
		}
		k := j
		for k < len(t) && (wordy(t[k]) || t[k] == '\'' || t[k] == '-' && k+1 < len(t) && wordy(t[k+1])) {
			k++
		}
		word := t[j:k]
		if word == "" {
			break
		}
		if digit(word[0]) {
			if names > 0 && houseNo(word) {
				s.address(start, k)
				return
			}
			if !ordinal(word) && !houseNo(word) {
				break
			}
		} else if !capital(word) && !particle[word] && len(word) > 3 && names > 0 {
			break
		}
		if capital(word) || len(word) > 3 && word[1] == '\'' && capital(word[2:]) {
			names++
			to = k
		}
		i = k
		if k < len(t) && t[k] != ' ' && t[k] != '.' && t[k] != ',' {
			break
		}
	}
	if from := s.numberJustBefore(start); from >= 0 && names > 0 {
		s.address(from, to)
	}
}

// houseNumber is a street by the end of its name, and the number: Hauptstraße 5, törneby 2.
func (s *scanner) houseNumber(g *digits) {
	c := g.chunks[0]
	if c.n > 4 || g.start < 6 || s.s[g.start-1] != ' ' {
		return
	}
	t := s.s
	end := g.start - 1
	if end > 0 && t[end-1] == '.' {
		end--
	}
	start := end
	for start > 0 && (wordy(t[start-1]) || t[start-1] == '-' && start > 1 && wordy(t[start-2])) {
		start--
	}
	w := t[start:end]
	if len(w) < 4 || !streetLast[lower[w[len(w)-1]]] || !streetName(strings.ToLower(w)) || !capital(w) && s.numberJustBefore(start) < 0 {
		return
	}
	if from := s.numberJustBefore(start); from >= 0 {
		start = from
	}
	to := c.end
	if g.letter && to < len(t) && (to+1 == len(t) || !wordy(t[to+1])) {
		to++
	}
	s.address(start, to)
}

var streetEnds = strings.Fields(`straße strasse straat gasse allee platz weg gata gatan gate gaten vegen veien vej gade allé allén vägen stræti
	straeti laan plein kade steeg gracht singel dreef utca útca katu tie tänav vägen plads torget torg stigen backen väg rinne kuja polku
	ufer damm ring steig brücke berg bakken tuonela svingen stien vangen vænget parken allee dijk hof markt lindeboom`)

// streetLast are their last bytes.
var streetLast = func() (t [256]bool) {
	t['r'] = true // str
	for _, e := range streetEnds {
		t[e[len(e)-1]] = true
	}
	return t
}()

func streetName(w string) bool {
	if strings.HasSuffix(w, "str") && len(w) > 5 {
		return true
	}
	for _, e := range streetEnds {
		if strings.HasSuffix(w, e) && len(w) >= len(e)+2 {
			return len(e) > 3 || len(w) > 7
		}
	}
	return false
}

// box is a post office's box, and those of the American forces: PSC 9236, Box 1684 APO AP 02137.
func (s *scanner) box(start, end int) {
	t := s.s
	i := end
	for i < len(t) && i < end+2 && (t[i] == ' ' || t[i] == '#') {
		i++
	}
	j := i
	for j < len(t) && digit(t[j]) {
		j++
	}
	if j == i || j-i > 7 {
		return
	}
	head := t[max(0, start-14):start]
	low := asciiLower(head)
	from := -1
	for _, p := range []string{"p.o. ", "po ", "p.o ", "p. o. ", "post office ", "p.o."} {
		if strings.HasSuffix(low, p) {
			from = start - len(p)
			break
		}
	}
	for _, p := range []string{"psc ", "unit ", "cmr "} {
		if k := strings.LastIndex(low, p); k >= 0 {
			from = start - len(head) + k
		}
	}
	if from < 0 {
		return
	}
	s.address(from, j)
}

// address notes an address, with the place and the code behind it.
func (s *scanner) address(start, end int) {
	s.took(PII, "address", start, s.place(end))
}

// place reads ", Springfield, IL 62704" or a line such as "APO AP 02137".
func (s *scanner) place(end int) int {
	t := s.s
	i := end
	for words := 0; words < 7 && i < len(t); words++ {
		j := i
		for j < len(t) && j < i+4 && strings.IndexByte(" ,.\n", t[j]) >= 0 {
			j++
		}
		if j == i {
			return end
		}
		k := j
		for k < len(t) && wordy(t[k]) {
			k++
		}
		word := t[j:k]
		switch {
		case word == "":
			return end
		case len(word) == 2 && allCapitals(word) && class[word[0]]&bUpper != 0 && class[word[1]]&bUpper != 0:
			m := k
			for m < len(t) && t[m] == ' ' && m < k+2 {
				m++
			}
			n := m
			for n < len(t) && digit(t[n]) {
				n++
			}
			if n-m == 5 {
				if n+4 < len(t) && t[n] == '-' && digit(t[n+1]) && digit(t[n+4]) {
					n += 5
				}
				return n
			}
		case len(word) == 5 && words > 0 && allDigits(word): // of a country's code at the end
			return k
		case digit(word[0]):
			if len(word) > 5 || words > 2 {
				return end
			}
		case !capital(word):
			return end
		}
		i = k
	}
	return end
}
