package classify

import "slices"

var sortShapes = shapesOf("2-2-2", "2 2 2")

// labelled finds numbers that only a word before them tells from others.
func (s *scanner) labelled(g *digits) bool {
	k := 0
	for k+1 < g.k && (g.chunks[k+1].sep == '-' || g.chunks[k+1].sep == ' ' && g.chunks[k+1].n-g.chunks[k].n > 1) && !g.chunks[k+1].two {
		k++
	}
	c := g.chunks[k]
	if c.n < 5 || !g.ends(k) || dateTime(g) {
		return false
	}
	kind, class := s.label(g.start)
	return kind != "" && s.took(class, kind, g.start, c.end)
}

// labelledWord is the same of letters and digits.
func (s *scanner) labelledWord(start, end int) {
	digits := 0
	for i := start; i < end; i++ {
		if digit(s.s[i]) {
			digits++
		}
	}
	if digits < 4 {
		return
	}
	if kind, class := s.label(start); kind != "" {
		for start > s.done+1 && s.s[start-1] == '-' && alnum(s.s[start-2]) { // MRN-00A123
			start--
			for start > s.done && alnum(s.s[start-1]) {
				start--
			}
		}
		for end+1 < len(s.s) && s.s[end] == '-' && digit(s.s[end+1]) {
			for end++; end < len(s.s) && alnum(s.s[end]); end++ {
			}
		}
		s.took(class, kind, start, end)
	}
}

// label is what the nearest word before a number says that it is.
func (s *scanner) label(at int) (string, Class) {
	if !s.before(at, nRecord|nInsurance|nPassport|nLicence, 32) {
		return "", ""
	}
	best, kind, class := int32(0), "", Class("")
	for _, l := range [...]struct {
		near  near
		kind  string
		class Class
	}{{nRecord, "medical-record", Medical}, {nInsurance, "health-insurance", Medical}, {nPassport, "passport", PII}, {nLicence, "driving-licence", PII}} {
		if s.before(at, l.near, 32) && s.last[bit(l.near)] > best {
			best, kind, class = s.last[bit(l.near)], l.kind, l.class
		}
	}
	if s.last[bit(nNot)] > best && s.before(at, nNot, 32) {
		return "", ""
	}
	return kind, class
}

// bankNumber finds accounts, and the numbers of banks.
func (s *scanner) bankNumber(g *digits) bool {
	if !s.before(g.start, nAccount|nRouting|nSort, 40) {
		return false
	}
	k := 0
	for k+1 < g.k && (g.chunks[k+1].sep == '-' || g.chunks[k+1].sep == ' ') && !g.chunks[k+1].two {
		k++
	}
	for ; k >= 0; k-- {
		c := g.chunks[k]
		if !g.ends(k) {
			continue
		}
		switch {
		case c.n == 9 && k == 0 && s.before(g.start, nRouting, 40) && weighted(g.d[:9], 3, 7, 1, 3, 7, 1, 3, 7, 1)%10 == 0 && !same(g.d[:9]):
			return s.took(Financial, "routing", g.start, c.end)
		case c.n == 6 && s.before(g.start, nSort, 24) && (k == 0 || slices.Contains(sortShapes, c.shape)):
			return s.took(Financial, "sort-code", g.start, c.end)
		case c.n >= 6 && c.n <= 18 && s.before(g.start, nAccount, 32) && !dateTime(g):
			return s.took(Financial, "bank-account", g.start, c.end)
		}
	}
	return false
}

// bic is the code of a bank behind a word that says so: BIC: DEUTDEFF500, SWIFT code NEDSZAJJXXX.
func (s *scanner) bic(w *word, end int) {
	t := s.s
	said := w.text == "bic"
	for range 4 {
		i := end
		for i < len(t) && i < end+4 && !wordy(t[i]) {
			said = said || t[i] == ':' || t[i] == '='
			i++
		}
		end = i
		for end < len(t) && end-i < 12 && wordy(t[end]) {
			end++
		}
		switch asciiLower(t[i:end]) {
		case "code", "number", "no", "nr", "is":
			said = true
		case "swift", "bic":
		default:
			if said && bankCode(t[i:end]) {
				s.took(Financial, "swift", i, end)
			}
			return
		}
	}
}

// bankCode checks the form: four letters, a country, two for the place, three for the branch or none.
func bankCode(w string) bool {
	if len(w) != 8 && len(w) != 11 || !isUpper(w) || !form(w, "AAAAAA") {
		return false
	}
	for i := 6; i < len(w); i++ {
		if !alnum(w[i]) {
			return false
		}
	}
	for i := 0; i < len(countries); i += 2 {
		if countries[i:i+2] == w[4:6] {
			return true
		}
	}
	return false
}

// countries are those of ISO 3166 that have banks, and Kosovo.
const countries = "ADAEAFAGAIALAMAOARATAUAWAZBABBBDBEBFBGBHBIBJBMBNBOBQBRBSBTBWBYBZCACDCFCGCHCICKCLCMCNCOCRCUCVCWCYCZDEDJDKDMDODZECEEEGERESETFIFJFKFMFOFRGA" +
	"GBGDGEGFGGGHGIGLGMGNGPGQGRGTGUGWGYHKHNHRHTHUIDIEILIMINIQIRISITJEJMJOJPKEKGKHKIKMKNKPKRKWKYKZLALBLCLILKLRLSLTLULVLYMAMCMDMEMFMGMHMKMLMMMNMOMPMQMR" +
	"MSMTMUMVMWMXMYMZNANCNENGNINLNONPNRNUNZOMPAPEPFPGPHPKPLPMPRPSPTPWPYQARERORSRURWSASBSCSDSESGSHSISKSLSMSNSOSRSSSTSVSXSYSZTCTDTGTHTJTLTMTNTOTRTTTVTW" +
	"TZUAUGUSUYUZVAVCVEVGVIVNVUWFWSXKYEYTZAZMZW"
