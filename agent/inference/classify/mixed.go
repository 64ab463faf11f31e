package classify

import "strings"

// mixed looks at a word of letters and digits.
func (s *scanner) mixed(start, end int) {
	w := s.s[start:end]
	n := len(w)
	first, second := w[0], w[1]
	letters2 := class[first]&bLetter != 0 && class[second]&bLetter != 0
	if n >= 4 && letters2 && digit(w[2]) && digit(w[3]) && s.iban(start) {
		return
	}
	switch {
	case n == 2 && first == '2' && s.corsican(start-len("1 85 05 "), end+len(" 004 123 66")), n == 15 && s.corsican(start, end):
		return
	case n <= 8 && s.icd(start, end):
		return
	case n <= 10 && letters2 && s.nino(start):
		return
	case n == 9 && s.spanish(start, end), n == 11 && s.finnish(start, end):
		return
	case n == 16 && codiceFiscale(w):
		s.took(PII, "it-cf", start, end)
		return
	case n == 18 && curp(w):
		s.took(PII, "mx-curp", start, end)
		return
	case n == 10 && indianPAN(w) && (isUpper(w) || s.before(start, nIN|nTax, 40)):
		s.took(PII, "in-pan", start, end)
		return
	case n == 9 && singapore(w) && s.around(start, end, nID):
		s.took(PII, "sg-nric", start, end)
		return
	}
	if n >= 6 && n <= 14 {
		s.labelledWord(start, end)
	}
}

func isUpper(w string) bool { return strings.ToUpper(w) == w }

// ibanLength is how long an IBAN of a country is.
var ibanLength = func() map[string]int {
	t := map[string]int{}
	for _, c := range strings.Fields(`AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20
		EG29 ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21
		LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24 SC31
		SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30`) {
		t[c[:2]] = int(c[2]-'0')*10 + int(c[3]-'0')
	}
	return t
}()

// iban finds an IBAN that begins here, in groups or not.
func (s *scanner) iban(start int) bool {
	country := [2]byte{s.s[start] &^ 0x20, s.s[start+1] &^ 0x20}
	want, ok := ibanLength[string(country[:])]
	if !ok {
		return false
	}
	rest := 0 // of the number that the rearranged IBAN is, mod 97
	var head [4]byte
	n, i := 0, start
	for ; i < len(s.s) && n < want; i++ {
		b := s.s[i]
		if !alnum(b) {
			if (b == ' ' || b == '-' || b == '.') && n >= 4 && i+1 < len(s.s) && alnum(s.s[i+1]) {
				continue
			}
			return false
		}
		if n < 4 {
			head[n] = b
		} else {
			rest = mod97(rest, b)
		}
		n++
	}
	if n < want || i < len(s.s) && alnum(s.s[i]) {
		return false
	}
	for _, b := range head {
		rest = mod97(rest, b)
	}
	return rest == 1 && !inUUID(s.s, start) && s.took(Financial, "iban", start, i)
}

// inUUID reports whether a group of a UUID begins at a place. One in some hundreds has groups that are an IBAN, to the check digits,
// and one in forty begins with eight digits, which "account_uuid" before it would make a bank account's.
func inUUID(s string, at int) bool {
	for _, group := range [...]int{0, 9, 14, 19, 24} {
		if i := at - group; i >= 0 && i+36 <= len(s) && isUUID(s[i:i+36]) {
			return true
		}
	}
	return false
}

// isUUID looks at 36 characters. Without a letter they are numbers that somebody wrote so: of a million UUIDs one has none.
func isUUID(s string) bool {
	letter := false
	for i := range len(s) {
		switch b := lower[s[i]]; {
		case (i == 8 || i == 13 || i == 18 || i == 23) != (b == '-'), b != '-' && !digit(b) && (b < 'a' || b > 'f'):
			return false
		case b >= 'a':
			letter = true
		}
	}
	return letter
}

func mod97(rest int, b byte) int {
	if digit(b) {
		return (rest*10 + int(b-'0')) % 97
	}
	return (rest*100 + int(lower[b]-'a') + 10) % 97
}

// nino is the British national insurance number: two letters, six digits, a letter from A to D.
func (s *scanner) nino(start int) bool {
	var c [9]byte
	n, i, spaces := 0, start, 0
	for ; i < len(s.s) && n < 9; i++ {
		b := lower[s.s[i]]
		if b == ' ' && n > 1 && spaces < 4 {
			spaces++
			continue
		}
		if !alnum(b) || (n < 2 || n == 8) == digit(b) {
			return false
		}
		c[n] = b
		n++
	}
	if n < 9 || c[8] > 'd' || i < len(s.s) && alnum(s.s[i]) || strings.IndexByte("dfiquv", c[0]) >= 0 || strings.IndexByte("dfiquvo", c[1]) >= 0 {
		return false
	}
	switch string(c[:2]) {
	case "bg", "gb", "kn", "nk", "nt", "tn", "zz":
		return false
	}
	if class[s.s[start]]&bUpper == 0 && !s.around(start, i, nUK|nSSN|nInsurance|nID) {
		return false
	}
	return s.took(PII, "uk-nino", start, i)
}

// corsican is the French number of somebody born in Corsica, whose department has a letter: 1 85 05 2A 004 123 66, with blanks or without.
func (s *scanner) corsican(start, end int) bool {
	t := s.s
	if start < 0 || end > len(t) || start > 0 && alnum(t[start-1]) || end < len(t) && alnum(t[end]) {
		return false
	}
	var d [15]byte
	n := 0
	for i := start; i < end; i++ {
		switch b := lower[t[i]]; {
		case b == ' ':
			continue
		case n == len(d):
			return false
		case digit(b):
			d[n] = b - '0'
		case n == 6 && d[5] == 2 && (b == 'a' || b == 'b'): // they count as 19 and 18
			d[5], d[6] = 1, 9-(b-'a')
		default:
			return false
		}
		n++
	}
	return n == len(d) && nir(d[:]) && s.took(PII, "fr-nir", start, end)
}

// spanish are the DNI and the NIE: their last letter is a check.
func (s *scanner) spanish(start, end int) bool {
	w := s.s[start:end]
	var v int
	switch lower[w[0]] {
	case 'x', 'y', 'z':
		v = int(lower[w[0]] - 'x')
	default:
		if !digit(w[0]) {
			return false
		}
		v = int(w[0] - '0')
	}
	for i := 1; i < 8; i++ {
		if !digit(w[i]) {
			return false
		}
		v = v*10 + int(w[i]-'0')
	}
	if "trwagmyfpdxbnjzsqvhlcke"[v%23] != lower[w[8]] {
		return false
	}
	kind := "es-dni"
	if !digit(w[0]) {
		kind = "es-nie"
	}
	if class[w[8]]&bUpper == 0 && !s.around(start, end, nES|nID) {
		return false
	}
	return s.took(PII, kind, start, end)
}

// finnish is the personal identity code, 131052-308T, whose part behind the sign is a word of its own.
func (s *scanner) finnish(start, end int) bool {
	w := s.s[start:end]
	for i := range 10 {
		if i != 6 && !digit(w[i]) {
			return false
		}
	}
	return finnishCheck(w[:6], w[7:10], w[10]) && s.took(PII, "fi-hetu", start, end)
}

func finnishCheck(date, serial string, check byte) bool {
	v := 0
	for _, b := range []byte(date + serial) {
		v = v*10 + int(b-'0')
	}
	d := num([]byte{date[0] - '0', date[1] - '0'}, 0, 2)
	m := num([]byte{date[2] - '0', date[3] - '0'}, 0, 2)
	return dayMonth(d, m) && "0123456789abcdefhjklmnprstuvwxy"[v%31] == lower[check]
}

// form compares a word with a pattern of A for letters and 9 for digits.
func form(w, pattern string) bool {
	for i := range len(pattern) {
		if pattern[i] == 'A' && class[w[i]]&bLetter == 0 || pattern[i] == '9' && !digit(w[i]) {
			return false
		}
	}
	return true
}

// codiceFiscale checks the Italian tax code. Where a digit stood a letter may stand instead, when two people would share a code.
func codiceFiscale(w string) bool {
	for i := range 16 {
		letter := class[w[i]]&bLetter != 0
		switch i {
		case 0, 1, 2, 3, 4, 5, 8, 11, 15:
			if !letter {
				return false
			}
		default:
			if letter && strings.IndexByte("lmnpqrstuv", lower[w[i]]) < 0 || !letter && !digit(w[i]) {
				return false
			}
		}
	}
	if strings.IndexByte("abcdehlmprst", lower[w[8]]) < 0 {
		return false
	}
	odd := [26]int{1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23}
	sum := 0
	for i := range 15 {
		v := int(w[i] - '0')
		if !digit(w[i]) {
			v = int(lower[w[i]] - 'a')
		}
		if i%2 == 0 {
			v = odd[v]
		}
		sum += v
	}
	return byte('a'+sum%26) == lower[w[15]]
}

// curp checks the Mexican population code.
func curp(w string) bool {
	if !form(w, "AAAA999999AAAAAX9") || !digit(w[17]) || strings.IndexByte("hmx", lower[w[10]]) < 0 {
		return false
	}
	if !dayMonth(int(w[8]-'0')*10+int(w[9]-'0'), int(w[6]-'0')*10+int(w[7]-'0')) {
		return false
	}
	sum := 0
	for i := range 17 {
		var v int
		switch b := lower[w[i]]; {
		case digit(b):
			v = int(b - '0')
		case b >= 'o': // after the letter that Spanish has behind n
			v = int(b-'a') + 11
		default:
			v = int(b-'a') + 10
		}
		sum += v * (18 - i)
	}
	return (10-sum%10)%10 == int(w[17]-'0')
}

// indianPAN checks the form of the permanent account number; its fourth letter says who holds it.
func indianPAN(w string) bool {
	return form(w, "AAAAA9999A") && strings.IndexByte("pchabgjlft", lower[w[3]]) >= 0
}

// singapore checks the NRIC and FIN.
func singapore(w string) bool {
	if !form(w, "A9999999A") {
		return false
	}
	sum := 0
	for i, k := range [7]int{2, 7, 6, 5, 4, 3, 2} {
		sum += int(w[i+1]-'0') * k
	}
	switch lower[w[0]] {
	case 's':
		return "jzihgfedcba"[sum%11] == lower[w[8]]
	case 't':
		return "jzihgfedcba"[(sum+4)%11] == lower[w[8]]
	case 'f':
		return "xwutrqpnmlk"[sum%11] == lower[w[8]]
	case 'g':
		return "xwutrqpnmlk"[(sum+4)%11] == lower[w[8]]
	}
	return false
}
