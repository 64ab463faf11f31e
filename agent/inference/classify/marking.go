package classify

import _ "embed"

// markingsText has phrases that say that what they stand on is to be kept, one a line, in small letters.
//
//go:embed markings.txt
var markingsText string

// marking finds what an owner writes on what is to be kept: a phrase, or a heading in capitals.
func (s *scanner) marking(w *word, start, end int) {
	for _, p := range w.marks {
		to := start + len(p)
		if to <= len(s.s) && sameFold(p, s.s[start:to]) && (to == len(s.s) || !wordy(s.s[to]) || !wordy(p[len(p)-1])) {
			s.took(Confidential, "marking", start, to)
			return
		}
	}
	if w.act&aHeading != 0 && allCapitals(s.s[start:end]) {
		s.took(Confidential, "marking", start, end)
	}
}
