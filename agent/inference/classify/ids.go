package classify

import "slices"

// An id is a national number of digits alone. It is a find where it is written in one of its own shapes, or where its check
// digits are right and a word says what it is.
type id struct {
	kind   string
	class  Class
	n      int
	shapes []shape // sufficient by themselves
	words  near    // else one of these must be near
	ok     func(d []byte) bool
}

// idsOf are by their number of digits.
var idsOf = func() (t [maxDigits + 1]sized) {
	for _, x := range []id{
		{"us-ssn", PII, 9, shapesOf("3-2-4"), nSSN, ssn},
		{"us-itin", PII, 9, shapesOf("3-2-4"), nSSN | nTax, itin},
		{"us-ein", PII, 9, nil, nTax, func(d []byte) bool { return d[0]+d[1] > 0 }},
		{"uk-nhs", Medical, 10, nil, nUK, nhs},
		{"uk-utr", PII, 10, nil, nTax, utr},
		{"de-tax", PII, 11, shapesOf("2 3 3 3"), nDE | nTax, steuerID},
		{"fr-nir", PII, 15, shapesOf("15", "1 2 2 2 3 3 2", "13 2"), nFR | nSSN, nir},
		{"pl-pesel", PII, 11, nil, nPL, pesel},
		{"nl-bsn", PII, 9, nil, nNL, bsn},
		{"be-nn", PII, 11, shapesOf("2.2.2-3.2"), nBE, belgian},
		{"se-pn", PII, 10, shapesOf("6-4"), nSE, personnummer},
		{"se-pn", PII, 12, shapesOf("8-4"), nSE, func(d []byte) bool { return (d[0] == 1 && d[1] == 9 || d[0] == 2 && d[1] == 0) && personnummer(d[2:]) }},
		{"dk-cpr", PII, 10, nil, nNordic, func(d []byte) bool { return dayMonth(num(d, 0, 2), num(d, 2, 2)) }},
		{"no-fnr", PII, 11, shapesOf("6 5"), nNordic, norwegian},
		{"ch-ahv", PII, 13, shapesOf("13", "3.4.4.2"), nSSN | nID, func(d []byte) bool { return num(d, 0, 3) == 756 && ean(d) }},
		{"in-aadhaar", PII, 12, shapesOf("4 4 4", "4-4-4"), nIN, func(d []byte) bool { return d[0] >= 2 && verhoeff(d) }},
		{"br-cpf", PII, 11, shapesOf("3.3.3-2"), nBR, cpf},
		{"br-cnpj", PII, 14, shapesOf("2.3.3/4-2"), nBR, cnpj},
		{"cn-id", PII, 18, shapesOf("18"), nCN | nID, chinese},
		{"jp-mynumber", PII, 12, nil, nJP, myNumber},
		{"kr-rrn", PII, 13, shapesOf("6-7"), nKR, rrn},
		{"au-tfn", PII, 9, nil, nAU | nTax, func(d []byte) bool { return weighted(d, 1, 4, 3, 7, 5, 8, 6, 9, 10)%11 == 0 }},
		{"au-medicare", Medical, 10, nil, nAU | nInsurance, func(d []byte) bool {
			return d[0] >= 2 && d[0] <= 6 && weighted(d[:8], 1, 3, 7, 9, 1, 3, 7, 9)%10 == int(d[8]) && d[9] > 0
		}},
		{"ca-sin", PII, 9, nil, nCA, func(d []byte) bool { return d[0] != 0 && d[0] != 8 && luhn(d) }},
		{"tr-kimlik", PII, 11, nil, nTR | nID, turkish},
		{"ro-cnp", PII, 13, nil, nID, func(d []byte) bool {
			c := weighted(d[:12], 2, 7, 9, 1, 4, 6, 3, 5, 8, 2, 7, 9) % 11
			return d[0] > 0 && dayMonth(num(d, 5, 2), num(d, 3, 2)) && c%10 == int(d[12])
		}},
		{"za-id", PII, 13, nil, nID, func(d []byte) bool { return dayMonth(num(d, 4, 2), num(d, 2, 2)) && d[10] < 2 && luhn(d) }},
		{"pt-nif", PII, 9, nil, nTax, func(d []byte) bool {
			c := 11 - weighted(d[:8], 9, 8, 7, 6, 5, 4, 3, 2)%11
			return d[0] > 0 && d[0] != 4 && (c == int(d[8]) || c >= 10 && d[8] == 0)
		}},
	} {
		of := &t[x.n]
		of.ids = append(of.ids, x)
		of.shapes = append(of.shapes, x.shapes...)
		of.words |= x.words
	}
	return t
}()

// sized are the ids of one length, and all their shapes and words.
type sized struct {
	ids    []id
	shapes []shape
	words  near
}

// ids finds a national number that begins at the first digit.
func (s *scanner) ids(g *digits) bool {
	for k := g.k - 1; k >= 0; k-- {
		c := &g.chunks[k]
		if c.n < 9 || c.n > 18 {
			continue
		}
		if s.chineseX(g, k) {
			return true
		}
		of := &idsOf[c.n]
		if len(of.ids) == 0 || !g.ends(k) || s.longer(g, k) {
			continue
		}
		own := slices.Contains(of.shapes, c.shape) && !goesOn(g, k) && (k > 0 || !s.before(g.start, nNot, 30))
		told := plainShape(g, k) && s.around(g.start, c.end, of.words)
		if !own && !told {
			continue
		}
		for i := range of.ids {
			x := &of.ids[i]
			if (own && slices.Contains(x.shapes, c.shape) || told && s.around(g.start, c.end, x.words)) && x.ok(g.d[:c.n]) {
				return s.took(x.class, x.kind, g.start, c.end)
			}
		}
	}
	return false
}

// longer reports whether more digits stand at once before or behind, as in 12-345-67-8901-2: then it is something else.
func (s *scanner) longer(g *digits, k int) bool {
	if i := g.start - 1; i > 0 && (s.s[i] == '-' || s.s[i] == '.') && alnum(s.s[i-1]) {
		return true
	}
	end := g.chunks[k].end
	return end+1 < len(s.s) && (s.s[end] == '-' || s.s[end] == '.') && alnum(s.s[end+1])
}

// goesOn reports whether groups like those before follow.
func goesOn(g *digits, k int) bool {
	return k > 0 && k+1 < g.k && g.chunks[k+1].sep == g.chunks[k].sep && g.chunks[k+1].n-g.chunks[k].n == g.chunks[k].n-g.chunks[k-1].n
}

// plainShape is digits in groups with one separator.
func plainShape(g *digits, k int) bool {
	for i := 1; i <= k; i++ {
		if c := g.chunks[i]; c.sep == '(' || c.sep == ')' || c.sep == '\t' || c.two {
			return false
		}
	}
	return k <= 6
}

// chineseX is the Chinese id whose check digit is X.
func (s *scanner) chineseX(g *digits, k int) bool {
	end := g.chunks[k].end
	if k != 0 || g.n != 17 || end >= len(s.s) || lower[s.s[end]] != 'x' || end+1 < len(s.s) && alnum(s.s[end+1]) {
		return false
	}
	var d [18]byte
	copy(d[:], g.d[:17])
	d[17] = 10
	return chinese(d[:]) && s.took(PII, "cn-id", g.start, end+1)
}

// num is the number that some of the digits make.
func num(d []byte, from, n int) int {
	v := 0
	for _, x := range d[from : from+n] {
		v = v*10 + int(x)
	}
	return v
}

func num64(d []byte) int64 {
	v := int64(0)
	for _, x := range d {
		v = v*10 + int64(x)
	}
	return v
}

func weighted(d []byte, weights ...int) int {
	sum := 0
	for i, w := range weights {
		sum += int(d[i]) * w
	}
	return sum
}

func dayMonth(day, month int) bool { return day >= 1 && day <= 31 && month >= 1 && month <= 12 }

func ssn(d []byte) bool {
	area := num(d, 0, 3)
	return area != 0 && area != 666 && area < 900 && num(d, 3, 2) != 0 && num(d, 5, 4) != 0
}

func itin(d []byte) bool {
	group := num(d, 3, 2)
	return d[0] == 9 && group >= 50 && group != 89 && group != 93 && (group <= 65 || group >= 70)
}

func nhs(d []byte) bool {
	c := 11 - weighted(d, 10, 9, 8, 7, 6, 5, 4, 3, 2)%11
	return c%11 == int(d[9]) && c != 10 && d[0] > 0
}

func utr(d []byte) bool {
	return int("21987654321"[weighted(d[1:], 6, 7, 8, 9, 10, 5, 4, 3, 2)%11]-'0') == int(d[0])
}

// steuerID: one digit of the first ten comes twice or thrice, the others at most once.
func steuerID(d []byte) bool {
	var count [10]int
	for _, x := range d[:10] {
		count[x]++
	}
	more := 0
	for _, c := range count {
		if c > 3 {
			return false
		}
		if c > 1 {
			more++
		}
	}
	if d[0] == 0 || more != 1 {
		return false
	}
	p := 10
	for _, x := range d[:10] {
		sum := (int(x) + p) % 10
		if sum == 0 {
			sum = 10
		}
		p = sum * 2 % 11
	}
	return (11-p)%10 == int(d[10])
}

func nir(d []byte) bool {
	month := num(d, 3, 2)
	return (d[0] == 1 || d[0] == 2 || d[0] == 7 || d[0] == 8) && (month >= 1 && month <= 12 || month >= 20 && month <= 42 || month >= 50) &&
		int64(97)-num64(d[:13])%97 == num64(d[13:])
}

func pesel(d []byte) bool {
	sum := weighted(d, 1, 3, 7, 9, 1, 3, 7, 9, 1, 3)
	return (10-sum%10)%10 == int(d[10]) && dayMonth(num(d, 4, 2), num(d, 2, 2)%20)
}

func bsn(d []byte) bool {
	return num64(d) > 0 && weighted(d, 9, 8, 7, 6, 5, 4, 3, 2, -1)%11 == 0
}

func belgian(d []byte) bool {
	if m := num(d, 2, 2); m > 12 && m < 20 || m > 52 || num(d, 4, 2) > 31 {
		return false
	}
	v, c := num64(d[:9]), int64(num(d, 9, 2))
	return 97-v%97 == c || 97-(2_000_000_000+v)%97 == c
}

func personnummer(d []byte) bool {
	day := num(d, 4, 2)
	return dayMonth((day-1)%60+1, num(d, 2, 2)) && luhn(d)
}

func norwegian(d []byte) bool {
	return dayMonth((num(d, 0, 2)-1)%40+1, num(d, 2, 2)) && weighted(d, 3, 7, 6, 1, 8, 9, 4, 5, 2, 1)%11 == 0 &&
		weighted(d, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2, 1)%11 == 0
}

func ean(d []byte) bool {
	return weighted(d, 1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1)%10 == 0
}

func cpf(d []byte) bool {
	if same(d) {
		return false
	}
	a := weighted(d, 10, 9, 8, 7, 6, 5, 4, 3, 2) * 10 % 11 % 10
	b := weighted(d, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2) * 10 % 11 % 10
	return a == int(d[9]) && b == int(d[10])
}

func cnpj(d []byte) bool {
	if same(d) {
		return false
	}
	rest := func(sum int) int {
		if sum%11 < 2 {
			return 0
		}
		return 11 - sum%11
	}
	return rest(weighted(d, 5, 4, 3, 2, 9, 8, 7, 6, 5, 4, 3, 2)) == int(d[12]) && rest(weighted(d, 6, 5, 4, 3, 2, 9, 8, 7, 6, 5, 4, 3, 2)) == int(d[13])
}

func same(d []byte) bool {
	for _, x := range d {
		if x != d[0] {
			return false
		}
	}
	return true
}

func chinese(d []byte) bool {
	year := num(d, 6, 4)
	return d[0] >= 1 && d[0] <= 8 && year >= 1900 && year <= 2099 && dayMonth(num(d, 12, 2), num(d, 10, 2)) &&
		(12-weighted(d, 7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)%11)%11 == int(d[17])
}

func myNumber(d []byte) bool {
	c := weighted(d, 6, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2) % 11
	if c <= 1 {
		return d[11] == 0 && !same(d)
	}
	return 11-c == int(d[11])
}

// rrn: since October 2020 the last digits are drawn, and check nothing.
func rrn(d []byte) bool { return dayMonth(num(d, 4, 2), num(d, 2, 2)) && d[6] >= 1 && d[6] <= 8 }

func turkish(d []byte) bool {
	odd := int(d[0] + d[2] + d[4] + d[6] + d[8])
	even := int(d[1] + d[3] + d[5] + d[7])
	return d[0] > 0 && ((odd*7-even)%10+10)%10 == int(d[9]) && (odd+even+int(d[9]))%10 == int(d[10])
}

var verhoeffD = [10][10]byte{
	{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, {1, 2, 3, 4, 0, 6, 7, 8, 9, 5}, {2, 3, 4, 0, 1, 7, 8, 9, 5, 6}, {3, 4, 0, 1, 2, 8, 9, 5, 6, 7},
	{4, 0, 1, 2, 3, 9, 5, 6, 7, 8}, {5, 9, 8, 7, 6, 0, 4, 3, 2, 1}, {6, 5, 9, 8, 7, 1, 0, 4, 3, 2}, {7, 6, 5, 9, 8, 2, 1, 0, 4, 3},
	{8, 7, 6, 5, 9, 3, 2, 1, 0, 4}, {9, 8, 7, 6, 5, 4, 3, 2, 1, 0},
}

var verhoeffP = [8][10]byte{
	{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, {1, 5, 7, 6, 2, 8, 3, 0, 9, 4}, {5, 8, 0, 3, 7, 9, 6, 1, 4, 2}, {8, 9, 1, 6, 0, 4, 3, 5, 2, 7},
	{9, 4, 5, 3, 1, 2, 6, 8, 7, 0}, {4, 2, 8, 6, 5, 7, 3, 9, 0, 1}, {2, 7, 9, 3, 8, 0, 6, 4, 1, 5}, {7, 0, 4, 6, 9, 1, 3, 2, 5, 8},
}

func verhoeff(d []byte) bool {
	c := byte(0)
	for i := range d {
		c = verhoeffD[c][verhoeffP[i%8][d[len(d)-1-i]]]
	}
	return c == 0
}
