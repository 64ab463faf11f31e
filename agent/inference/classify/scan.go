package classify

// What a byte is to the scanner. A word is letters, digits and what isn't ASCII.
const (
	bLetter uint8 = 1 << iota
	bUpper
	bDigit
	bHigh   // of a character outside ASCII
	bBlob   // not of a word, but of base64 and of tokens
	bSign   // a find may stand around it: @ : -
	bEscape // a character may be written with it: \ % &
)

const bWord = bLetter | bDigit | bHigh

var class = func() (t [256]uint8) {
	for b := range t {
		switch {
		case 'a' <= b && b <= 'z':
			t[b] = bLetter
		case 'A' <= b && b <= 'Z':
			t[b] = bLetter | bUpper
		case '0' <= b && b <= '9':
			t[b] = bDigit
		case b >= 0x80:
			t[b] = bHigh
		}
	}
	for _, b := range "+/_-" {
		t[b] |= bBlob
	}
	for _, b := range "@:-" {
		t[b] |= bSign
	}
	for _, b := range `\%&` {
		t[b] |= bEscape
	}
	return t
}()

// letters are a byte's class, and in the low byte what it is as a small letter: all that a word's bytes are asked in one look.
var letters = func() (t [256]uint16) {
	for b := range t {
		t[b] = uint16(class[b])<<8 | uint16(lower[b])
	}
	return t
}()

// wordy is one of the bytes of a word.
func wordy(b byte) bool { return class[b]&bWord != 0 }

// alnum is a letter or digit of ASCII.
func alnum(b byte) bool { return class[b]&(bLetter|bDigit) != 0 }

func digit(b byte) bool { return b-'0' < 10 }

// minBlob is the shortest run of characters that may be a token or encoded text.
const minBlob = 16

// scanner goes once over a text. What it sees on the way (words that mean something, digits, signs) tells it where to look
// closer; most of a text is passed over at the speed of one table.
type scanner struct {
	c     *Classifier
	s     string
	found []Match
	words []Match // of dictionaries
	blobs []blob
	seen  uint8 // of all bytes

	last    [numNear]int32 // 1 + where a word with that meaning ended last
	lastAny int32          // of them all
	done    int            // what lies before it has been matched as numbers and words
	blobs0  int            // what lies before it was looked at as a blob
	quiet   span           // where after found no word with a meaning
	jwtHead int            // where the first part of what was looked at as a JWT ended
	seeds   int            // what lies before it was looked at as a phrase of BIP 39
	g       digits
}

type blob struct{ start, end int }

func (s *scanner) scan() {
	text, n := s.s, len(s.s)
	table := s.c.words
	runStart, lastEnd := 0, 0 // of what may be one blob
	var seen, run uint8
	nth, seeds := 0, 0 // every fourth word is asked whether it may be of a phrase of BIP 39, which has twelve
	i := 0
	for i < n {
		// What separates words.
		all := uint8(0xff)
		for i < n {
			k := class[text[i]]
			if k&bWord != 0 {
				break
			}
			seen |= k
			all &= k
			if k&bSign != 0 {
				i = s.sign(i)
			}
			i++
		}
		if i >= n {
			break
		}
		start := i
		if all&bBlob == 0 {
			if lastEnd-runStart >= minBlob && run&(bLetter|bDigit) != 0 {
				s.opaque(runStart, lastEnd)
			}
			runStart, run = start, 0
		}
		// A word.
		var h hash
		var word uint16
		for i < n {
			k := letters[text[i]]
			if k>>8&uint16(bWord) == 0 {
				break
			}
			word |= k
			h = h.add(uint8(k))
			i++
		}
		kinds := uint8(word >> 8)
		lastEnd = i
		seen |= kinds
		run |= kinds
		if kinds&bDigit != 0 && start >= s.done {
			s.numeric(start, i, kinds)
		}
		h = h.sum()
		if kinds&^(bLetter|bUpper) == 0 {
			if nth++; nth&3 == 0 {
				if !table.seeds.has(h) {
					seeds = 0
				} else if seeds++; seeds > 2 {
					seeds = 0
					s.seedPhrase(i)
				}
			}
		}
		if table.bloom.has(h) {
			if w := table.find(h, text[start:i]); w != nil {
				s.word(w, start, i)
			}
		}
	}
	if lastEnd-runStart >= minBlob && run&(bLetter|bDigit) != 0 {
		s.opaque(runStart, lastEnd)
	}
	s.seen = seen
}

// add notes a find.
func (s *scanner) add(c Class, kind string, start, end int) {
	if s.c.off[c] || s.c.offKinds[kind] {
		return
	}
	s.found = append(s.found, Match{Class: c, Kind: kind, Start: start, End: end})
}

// word acts on a word of the table.
func (s *scanner) word(w *word, start, end int) {
	if w.near != 0 {
		s.lastAny = int32(end) + 1
		for n := w.near; n != 0; n &= n - 1 {
			s.last[bit(n)] = s.lastAny
		}
	}
	if w.act == 0 {
		return
	}
	if w.act&aDict != 0 {
		s.phrases(w, start)
	}
	if start < s.done {
		return
	}
	if w.act&(aTitle|aIntro|aFirst) != 0 {
		s.person(w, start, end)
	}
	if w.act&(aResidence|aStreetMid|aForces|aZip|aBoxAlone) != 0 {
		s.postal(w, start, end)
	}
	if start >= s.done && w.act&(aStreet|aStreetPre|aUnit|aBox) != 0 {
		s.addressWord(w, start, end)
	}
	if w.act&(aPassword|aSecret|aBearer) != 0 {
		s.assigned(w, start, end)
	}
	if w.act&aToken != 0 {
		s.token(start, end)
	}
	if w.act&aSwift != 0 {
		s.bic(w, end)
	}
	if w.act&aMarking != 0 {
		s.marking(w, start, end)
	}
	if w.act&(aDrug|aDisease) != 0 {
		s.medicalWord(w, start, end)
	}
}

// told reports whether a word that says something stands before a place, as near as any recogniser wants one.
func (s *scanner) told(at int) bool { return s.lastAny > 0 && at-int(s.lastAny)+1 <= 60 }

// before reports whether a word with one of these meanings stands at most so many bytes before a place.
func (s *scanner) before(at int, n near, within int) bool {
	if s.lastAny == 0 || at-int(s.lastAny)+1 > within {
		return false
	}
	for ; n != 0; n &= n - 1 {
		if p := s.last[bit(n)]; p > 0 && int(p)-1 <= at && at-int(p)+1 <= within {
			return true
		}
	}
	return false
}

// after looks for such a word behind a place, on the same line or the next.
func (s *scanner) after(at int, n near, within int) bool {
	t := s.s
	i, end := at, min(at+within, len(t))
	was := s.quiet
	quiet := at == len(t) || !wordy(t[at])
	if quiet && (at < was.start || at > was.end) {
		s.quiet = span{at, at}
	}
	for i < end {
		if quiet && i >= was.start && i < was.end {
			i = was.end
			s.quiet.end = max(s.quiet.end, i)
			continue
		}
		if !wordy(t[i]) {
			i++
			continue
		}
		start := i
		for i < len(t) && wordy(t[i]) && i-start < 40 {
			i++
		}
		if digit(t[start]) { // no word that says something of a number
			continue
		}
		if w := s.c.words.look(t[start:i]); w != nil && w.near != 0 {
			if w.near&n != 0 {
				return true
			}
			quiet = false
		}
		if quiet {
			s.quiet.end = max(s.quiet.end, i)
		}
	}
	return false
}

// around is before or after.
func (s *scanner) around(start, end int, n near) bool {
	return s.before(start, n, 60) || s.after(end, n, 30)
}

// sign looks around a sign for a find. It returns the last byte that was used up, or i.
func (s *scanner) sign(i int) int {
	switch s.s[i] {
	case '@':
		s.email(i)
	case ':':
		return s.colon(i)
	case '-':
		if i+15 > len(s.s) {
			break
		}
		if s.s[i+1] == '-' && (i == 0 || s.s[i-1] != '-') {
			return s.pem(i)
		}
		if s.s[i+3] == '-' && i >= 2 {
			s.dashedMAC(i)
		}
	}
	return i
}
