package classify

import "math/bits"

// bit is the number of the lowest one.
func bit(n near) int { return bits.TrailingZeros64(uint64(n)) }

const maxDigits = 24

// digits are the digits from one place on, with the signs that people put between them.
type digits struct {
	start  int
	d      [maxDigits]byte // their values
	n      int
	chunks [maxDigits]chunk
	k      int
	letter bool // a letter follows the last digit at once
}

// chunk is one run of digits.
type chunk struct {
	end int  // in the text
	n   int  // digits up to its end, from the start of the whole
	sep byte // what separates it from the one before: the first byte; 0 for none
	two bool // two bytes did, as in "(978) 645"
	shape
}

// shape is how digits are written up to the end of a chunk: their counts, and the separators.
type shape uint64

func (s shape) add(n int, sep byte, two bool) shape {
	v := uint64(n)<<16 | uint64(sep)<<8
	if two {
		v++
	}
	return (s ^ shape(v)) * 0x9e3779b97f4a7c15
}

// shapeOf is the shape that is written so: "3-2-4"; with a + behind a separator of two bytes.
func shapeOf(s string) shape {
	var is shape
	n, sep, two := 0, byte(0), false
	for i := range len(s) {
		switch {
		case digit(s[i]):
			n = n*10 + int(s[i]-'0')
		case s[i] == '+':
			two = true
		default:
			is = is.add(n, sep, two)
			n, sep, two = 0, s[i], false
		}
	}
	return is.add(n, sep, two)
}

func shapesOf(list ...string) []shape {
	var out []shape
	for _, s := range list {
		out = append(out, shapeOf(s))
	}
	return out
}

// collect reads digits from i on.
func (s *scanner) collect(i int, g *digits) {
	text := s.s
	n, k := 0, 0
	sep, two := byte(0), false
	var is shape
	g.start, g.letter = i, false
	for k < maxDigits {
		before := n
		for i < len(text) && n < maxDigits && digit(text[i]) {
			g.d[n] = text[i] - '0'
			n++
			i++
		}
		if i < len(text) && digit(text[i]) { // longer than anything that is recognised: it is no chunk
			g.letter = true
			break
		}
		is = is.add(n-before, sep, two)
		g.chunks[k] = chunk{i, n, sep, two, is}
		k++
		if i+1 >= len(text) || n == maxDigits {
			g.letter = i < len(text) && class[text[i]]&bLetter != 0
			break
		}
		what := around[text[i]]
		if what == 0 {
			break
		}
		if what == aroundLetter {
			g.letter = true
			break
		}
		sep, two = text[i], false
		if digit(text[i+1]) {
			i++
		} else if i+2 < len(text) && digit(text[i+2]) && twoSep(text[i], text[i+1]) {
			two = true
			i += 2
		} else {
			break
		}
	}
	g.n, g.k = n, k
}

// around says what may stand behind a digit: a letter, or what separates it from the next.
var around = func() (t [256]uint8) {
	for b := range t {
		t[b] = class[b] & bLetter
	}
	for _, b := range " -./()_\t" {
		t[b] = aroundSep
	}
	return t
}()

const (
	aroundLetter = bLetter
	aroundSep    = bLetter << 1
)

func twoSep(a, b byte) bool {
	return a == ')' && (b == ' ' || b == '-') || a == ' ' && (b == '(' || b == '-' || b == ' ') || a == '-' && b == ' ' || a == '.' && b == ' ' || a == '-' && b == '-'
}

// numeric looks at a word with digits in it.
func (s *scanner) numeric(start, end int, kinds uint8) {
	if kinds&bHigh != 0 { // digits between letters of scripts that put no blanks
		for i := start; i < end && i >= s.done; i++ {
			if digit(s.s[i]) && (i == start || class[s.s[i-1]]&bHigh != 0) {
				s.digitsAt(i)
				for i+1 < end && digit(s.s[i+1]) {
					i++
				}
			}
		}
		return
	}
	if digit(s.s[start]) {
		s.digitsAt(start)
		if start < s.done {
			return
		}
	}
	if kinds&bLetter != 0 {
		s.mixed(start, end)
	}
}

// digitsAt tries everything that begins with a digit.
func (s *scanner) digitsAt(i int) {
	if s.alone(i) {
		return
	}
	g := &s.g
	s.collect(i, g)
	if g.k == 0 {
		return
	}
	if g.n < 5 && g.k < 3 { // most numbers
		if !s.dayName(g) {
			s.houseNumber(g)
		}
		return
	}
	// A fraction's digits, or those of a longer number's, are no number of their own.
	if i > 0 && s.s[i-1] == '.' && i > 1 && digit(s.s[i-2]) && g.chunks[0].n > 4 {
		return
	}
	if i >= 3 && s.s[i-1] == ' ' && g.chunks[0].n == 2 && class[s.s[i-2]]&class[s.s[i-3]]&bUpper != 0 && (i == 3 || !wordy(s.s[i-4])) && s.nino(i-3) {
		return
	}
	if g.n < 7 && g.k < 4 && !s.told(i) {
		s.houseNumber(g)
		return
	}
	if inUUID(s.s, i) {
		return
	}
	if g.n >= 12 && s.card(g) {
		return
	}
	if g.k > 8 && g.chunks[7].n == 8 {
		return // a row of digits, each alone
	}
	if g.n >= 7 && s.ids(g) {
		return
	}
	if s.date(g) || s.ipv4(g) {
		return
	}
	if g.n >= 5 && s.bankNumber(g) {
		return
	}
	if g.n >= 7 && s.phone(g) {
		return
	}
	if g.n >= 5 && s.labelled(g) {
		return
	}
	s.houseNumber(g)
}

// alone reports whether up to four digits begin here that are no day, no house's number and no part of a longer number: most are.
func (s *scanner) alone(i int) bool {
	t := s.s
	end := i + 1
	for end < len(t) && end < i+5 && digit(t[end]) {
		end++
	}
	if end > i+4 || end+1 < len(t) && around[t[end]] == aroundSep && (digit(t[end+1]) || end+2 < len(t) && digit(t[end+2])) {
		return false
	}
	house := i > 1 && t[i-1] == ' ' && (t[i-2] == '.' || streetLast[lower[t[i-2]]])
	return !house && !s.before(i, nBirth, 45)
}

// took notes a find that nothing else may be made of.
func (s *scanner) took(c Class, kind string, start, end int) bool {
	s.add(c, kind, start, end)
	s.done = end
	return true
}

// ends reports whether the digits may end with chunk k: no letter follows at once.
func (g *digits) ends(k int) bool { return k < g.k-1 || !g.letter }

// card finds the number of a payment card.
func (s *scanner) card(g *digits) bool {
	for k := g.k - 1; k >= 0; k-- {
		n := g.chunks[k].n
		if n < 12 || n > 19 || !g.ends(k) {
			continue
		}
		d := g.d[:n]
		sure, maybe := issuer(d)
		if !sure && !maybe || !luhn(d) {
			continue
		}
		if (!sure || !g.cardLike(k)) && !s.around(g.start, g.chunks[k].end, nCard) {
			continue
		}
		return s.took(Financial, "card", g.start, g.chunks[k].end)
	}
	return false
}

// cardLike reports whether the digits are grouped as on cards, or not at all, or each is alone.
func (g *digits) cardLike(k int) bool {
	if k == 0 {
		return true
	}
	n := g.chunks[k].n
	prev := 0
	ones := true
	sep := g.chunks[1].sep
	for i := range k + 1 {
		c := g.chunks[i]
		if c.n-prev != 1 {
			ones = false
		}
		if i > 0 && (c.sep != sep || c.two) {
			return false
		}
		prev = c.n
	}
	if ones {
		return k == g.k-1
	}
	if sep == '/' || sep == '(' || sep == ')' {
		return false
	}
	first := g.chunks[0].n
	if n == 15 || n == 14 {
		return k == 2 && first == 4 && g.chunks[1].n == 10
	}
	for i := range k + 1 {
		if c := g.chunks[i]; i < k && c.n%4 != 0 {
			return false
		}
	}
	return true
}

// issuer says whether a card's number may begin so: sure when its length fits, too, and few others look like it.
func issuer(d []byte) (sure, maybe bool) {
	n := len(d)
	six := 0
	for _, x := range d[:6] {
		six = six*10 + int(x)
	}
	four, three, two := six/100, six/1000, six/10000
	switch {
	case d[0] == 4:
		return n == 16, n == 13 || n == 19
	case two >= 51 && two <= 55, four >= 2221 && four <= 2720:
		return n == 16, false
	case two == 34 || two == 37:
		return n == 15, false
	case four == 6011, three >= 644 && three <= 649, two == 65, four >= 3528 && four <= 3589:
		return n == 16, n > 16
	case three >= 300 && three <= 305, four == 3095, two == 36, two == 38, two == 39:
		return n == 14, n > 14
	case two == 62, two == 81:
		return n == 16, n > 16
	case four >= 2200 && four <= 2204, four == 9792:
		return n == 16, false
	case two == 50, two >= 56 && two <= 58, d[0] == 6, two == 82:
		return false, true
	}
	return false, false
}

func luhn(d []byte) bool {
	sum, same := 0, true
	for i := range d {
		x := int(d[len(d)-1-i])
		if i&1 == 1 {
			if x *= 2; x > 9 {
				x -= 9
			}
		}
		sum += x
		same = same && d[i] == d[0]
	}
	return sum%10 == 0 && !same
}
