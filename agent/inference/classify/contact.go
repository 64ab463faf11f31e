package classify

import (
	"net/netip"
	"slices"
	"strings"
)

// email looks around an @.
func (s *scanner) email(at int) {
	t := s.s
	if n := len(s.found); n > 0 && s.found[n-1].Kind == "url-password" && s.found[n-1].End == at {
		return // the host behind a user and a password
	}
	start := at
	for start > 0 && at-start < 64 && (alnum(t[start-1]) || strings.IndexByte("._%+-'", t[start-1]) >= 0 || t[start-1] >= 0x80) {
		start--
	}
	for start < at && !wordy(t[start]) {
		start++
	}
	if start == at || strings.IndexByte(".-", t[at-1]) >= 0 {
		return
	}
	// The domain: labels, the last of which is letters.
	end, lastDot, labelStart := at+1, -1, at+1
	for end < len(t) && end-at < 255 {
		b := t[end]
		if b == '.' {
			if end == labelStart || end+1 >= len(t) || !wordy(t[end+1]) {
				break
			}
			lastDot, labelStart = end, end+1
		} else if !wordy(b) && (b != '-' || end == labelStart || end+1 >= len(t) || !wordy(t[end+1])) {
			break
		}
		end++
	}
	if lastDot < 0 {
		return
	}
	top := t[lastDot+1 : end]
	if len(top) < 2 || len(top) > 24 || fileEnding[asciiLower(top)] {
		return
	}
	for i := range len(top) {
		if digit(top[i]) && !strings.HasPrefix(top, "xn--") {
			return
		}
	}
	switch local := t[start:at]; local {
	case "git", "hg":
		if end < len(t) && (t[end] == ':' || t[end] == '/') {
			return // whose place of code it is, not whose mail
		}
	case "noreply", "no-reply":
		return // nobody's
	}
	s.add(PII, "e-mail", start, end)
	s.done = max(s.done, end)
}

// fileEnding are the ends of names such as icon@2x.png.
var fileEnding = func() map[string]bool {
	t := map[string]bool{}
	for _, e := range strings.Fields("png jpg jpeg gif svg webp js mjs ts tsx jsx css scss go py rb json yaml yml toml md txt html xml lock sum tgz gz zip service socket timer target mount") {
		t[e] = true
	}
	return t
}()

// phone finds a telephone number that begins at the first digit, or at a + or ( before it.
func (s *scanner) phone(g *digits) bool {
	t := s.s
	start := g.start
	plus, paren := false, false
	if start > 0 && t[start-1] == '(' {
		start--
		paren = true
	}
	if start > 0 && t[start-1] == '+' {
		start--
		plus = true
	}
	if !plus && start > 1 && (t[start-1] == '-' || t[start-1] == '.' || t[start-1] == '_' || t[start-1] == '#' || t[start-1] == '$' || t[start-1] == '/' || t[start-1] == '=' && t[start-2] != ':') {
		if !(t[start-1] == '/' && strings.HasSuffix(t[:start], "//")) && !s.before(g.start, nPhone, 20) {
			return false
		}
	}
	if dateTime(g) {
		return false
	}
	for k := g.k - 1; k >= 0; k-- {
		c := g.chunks[k]
		if c.n < 7 || c.n > 15 || !s.phoneEnd(g, k) {
			continue
		}
		ok := false
		switch {
		case plus:
			ok = c.n >= 8 && g.d[0] > 0 && !s.before(g.start, nCode, 8)
		case same(g.d[:c.n]), k == 1 && g.chunks[1].sep == '.':
		case dotted(g, k) && c.n == 12:
		case nanp(g, k, paren):
			ok = !s.before(g.start, nNot, 30) || s.around(g.start, c.end, nPhone)
		case k > 0 && k <= 6 || c.n >= 9 && c.n <= 11:
			ok = phoneShape(g, k) && (s.before(g.start, nPhone, 40) && !s.before(g.start, nNot, 12) || s.after(c.end, nPhone, 14))
		default:
			ok = (c.n == 7 || c.n == 8 || c.n == 12) && s.before(g.start, nPhone, 16) && !s.before(g.start, nNot, 12)
		}
		if !ok {
			continue
		}
		end := c.end
		if end < len(t) && lower[t[end]] == 'x' && end+1 < len(t) && digit(t[end+1]) { // an extension
			for end++; end < len(t) && digit(t[end]); end++ {
			}
		}
		return s.took(PII, "phone", start, end)
	}
	return false
}

// phoneEnd reports whether a number may end there: no letter but the x of an extension.
func (s *scanner) phoneEnd(g *digits, k int) bool {
	end := g.chunks[k].end
	if g.ends(k) {
		return end+1 >= len(s.s) || s.s[end] != '.' || !digit(s.s[end+1]) || k < g.k-1
	}
	return lower[s.s[end]] == 'x' && end+1 < len(s.s) && digit(s.s[end+1])
}

// nanp is the form of North America's numbers, which are told by it alone.
func nanp(g *digits, k int, paren bool) bool {
	country := 0
	switch is := g.chunks[k].shape; g.chunks[k].n {
	case 10:
		if !slices.Contains(nanpShapes, is) && !(paren && slices.Contains(nanpParens, is)) {
			return false
		}
	case 11:
		if country = 1; !slices.Contains(nanpCountry, is) || g.d[0] != 1 {
			return false
		}
	case 13:
		return slices.Contains(nanpAbroad, is) && g.d[0] == 0 && g.d[1] == 0 && g.d[2] == 1
	default:
		return false
	}
	return g.d[country] >= 2 && g.d[country+3] >= 2
}

var (
	nanpShapes  = shapesOf("3-3-4", "3.3.4")
	nanpParens  = shapesOf("3)3-4", "3)+3-4", "3)3.4", "3)+3.4", "3)+3 4", "3)3 4")
	nanpCountry = shapesOf("1-3-3-4", "1.3.3.4", "1 3 3 4", "1 +3)+3-4", "1(3)3-4", "1 3-3-4", "1-3.3.4")
	nanpAbroad  = shapesOf("3-1-3-3-4", "3-3-3-4")
)

func dotted(g *digits, k int) bool {
	for i := 1; i <= k; i++ {
		if g.chunks[i].sep != '.' {
			return false
		}
	}
	return k == 3
}

// phoneShape refuses groups that no number is written in.
func phoneShape(g *digits, k int) bool {
	prev := 0
	for i := range k + 1 {
		c := g.chunks[i]
		if n := c.n - prev; n > 8 && k > 0 || c.sep == '\t' || c.sep == '_' {
			return false
		}
		prev = c.n
	}
	return true
}

// dateTime is a date such as 2010-03-10 with what follows.
func dateTime(g *digits) bool {
	if g.k < 3 {
		return false
	}
	a, b, c := g.chunks[0], g.chunks[1], g.chunks[2]
	if a.n == 4 && b.n <= 6 && c.n <= 8 && (g.d[0] == 1 && g.d[1] == 9 || g.d[0] == 2 && g.d[1] == 0) {
		return b.sep == c.sep && dayMonth(num(g.d[:], b.n, c.n-b.n), num(g.d[:], 4, b.n-4))
	}
	return a.n <= 2 && b.n-a.n <= 2 && c.n-b.n == 4 && b.sep == c.sep && b.sep != ' ' && (num(g.d[:], b.n, 2) == 19 || num(g.d[:], b.n, 2) == 20)
}

// date finds a day of birth: a date behind a word that says so.
func (s *scanner) date(g *digits) bool {
	if g.k < 3 || !s.before(g.start, nBirth, 45) {
		return s.dayName(g)
	}
	a, b, c := g.chunks[0], g.chunks[1], g.chunks[2]
	if b.sep != c.sep && b.sep != ' ' || s.before(g.start, nVersion, 10) {
		return false
	}
	x, y, z := num(g.d[:], 0, a.n), num(g.d[:], a.n, b.n-a.n), num(g.d[:], b.n, c.n-b.n)
	switch {
	case a.n == 4 && dayMonth(z, y), a.n <= 2 && (c.n-b.n == 4 || c.n-b.n == 2) && (dayMonth(x, y) || dayMonth(y, x)):
		return s.took(PII, "birth-date", g.start, c.end)
	}
	return false
}

// dayName is a date with the name of the month: 3 May 1980, May 3, 1980.
func (s *scanner) dayName(g *digits) bool {
	c := g.chunks[0]
	if c.n > 2 && c.n != 4 || !s.before(g.start, nBirth, 45) {
		return false
	}
	t := s.s
	if c.n <= 2 { // forward: a month and a year, or the year when the month stood before
		i := c.end
		if g.letter {
			for i < len(t) && class[t[i]]&bLetter != 0 && i < c.end+2 {
				i++
			}
		}
		from := g.start
		month := s.month(g.start, -1)
		if month >= 0 {
			from = month
		} else {
			for i < len(t) && (t[i] == ' ' || t[i] == '.') {
				i++
			}
			j := i
			for j < len(t) && class[t[j]]&bLetter != 0 {
				j++
			}
			if !months[asciiLower(t[i:j])] {
				return false
			}
			i = j
		}
		for i < len(t) && (t[i] == ' ' || t[i] == ',' || t[i] == '.') {
			i++
		}
		if i+4 <= len(t) && (t[i:i+2] == "19" || t[i:i+2] == "20") && digit(t[i+2]) && digit(t[i+3]) {
			return s.took(PII, "birth-date", from, i+4)
		}
	}
	return false
}

// month is where the name of a month before a place begins, or -1.
func (s *scanner) month(at, none int) int {
	i := at
	for i > 0 && (s.s[i-1] == ' ' || s.s[i-1] == '.') {
		i--
	}
	j := i
	for j > 0 && class[s.s[j-1]]&bLetter != 0 {
		j--
	}
	if i == at || !months[asciiLower(s.s[j:i])] {
		return none
	}
	return j
}

var months = func() map[string]bool {
	t := map[string]bool{}
	for _, m := range strings.Fields(`january february march april may june july august september october november december jan feb mar apr jun jul
		aug sep sept oct nov dec januar februar mai juni juli oktober dezember enero febrero marzo abril mayo junio julio agosto septiembre
		octubre noviembre diciembre janvier mars avril juin juillet septembre octobre novembre`) {
		t[m] = true
	}
	return t
}()

// ipv4 finds an address of the internet's version 4 that may be somebody's.
func (s *scanner) ipv4(g *digits) bool {
	if g.k < 4 || g.k > 5 || g.letter && g.k == 4 {
		return false
	}
	prev := 0
	var a [4]byte
	for i := range 4 {
		c := g.chunks[i]
		n := c.n - prev
		if i > 0 && (c.sep != '.' || c.two) || n > 3 || n > 1 && g.d[prev] == 0 {
			return false
		}
		v := num(g.d[:], prev, n)
		if v > 255 {
			return false
		}
		a[i] = byte(v)
		prev = c.n
	}
	end := g.chunks[3].end
	if g.k == 5 && g.chunks[4].sep == '.' || end+1 < len(s.s) && s.s[end] == '.' && alnum(s.s[end+1]) {
		return false
	}
	if i := g.start - 1; i >= 0 && (s.s[i] == '.' || s.s[i] == '-' && i > 0 && alnum(s.s[i-1])) || s.before(g.start, nVersion, 24) {
		return false
	}
	addr := netip.AddrFrom4(a)
	if a[0] == 0 || a[0] == 127 || a[0] == 255 || addr.IsMulticast() {
		return false // everybody's
	}
	if a[0] < 10 && a[2] == 0 && a[3] == 0 { // a version's look
		return false
	}
	return s.took(PII, "ip", g.start, end)
}

// colon looks around a colon for a password in an address, an address of version 6, and a hardware address.
func (s *scanner) colon(i int) int {
	t := s.s
	if i+2 < len(t) && t[i+1] == '/' && t[i+2] == '/' {
		s.userinfo(i)
		return i
	}
	if i+1 >= len(t) || i < s.done || t[i+1] != ':' && !hexByte(t[i+1]) {
		return i
	}
	start := i
	for start > 0 && i-start < 5 && hexByte(t[start-1]) {
		start--
	}
	if start > 0 && (wordy(t[start-1]) || t[start-1] == ':' || t[start-1] == '.') {
		return i
	}
	end, colons := i, 0
	for end < len(t) && end-start < 45 && (hexByte(t[end]) || t[end] == ':' || t[end] == '.') {
		if t[end] == ':' {
			colons++
		}
		end++
	}
	for end > i && (t[end-1] == '.' || t[end-1] == ':' && t[end-2] != ':') {
		end--
	}
	if end < len(t) && wordy(t[end]) || colons < 2 {
		return i
	}
	w := t[start:end]
	if len(w) == 17 && colons == 5 && hardware(w) {
		s.took(PII, "mac", start, end)
		return i
	}
	if len(w) < 8 || colons < 3 && !strings.Contains(w, "::") || colons == 2 && len(w) < 9 || strings.IndexByte("23fF", w[0]) < 0 && colons < 7 {
		return i
	}
	if a, err := netip.ParseAddr(w); err == nil && !a.IsLoopback() && !a.IsMulticast() {
		s.took(PII, "ip", start, end)
	}
	return i
}

func hexByte(b byte) bool { return digit(b) || lower[b] >= 'a' && lower[b] <= 'f' }

// dashedMAC is a hardware address with dashes, at its first.
func (s *scanner) dashedMAC(i int) bool {
	t := s.s
	start, end := i-2, i+15
	if start < 0 || end > len(t) || start > 0 && wordy(t[start-1]) || end < len(t) && (wordy(t[end]) || t[end] == '-') || !hardware(t[start:end]) {
		return false
	}
	return s.took(PII, "mac", start, end)
}

// hardware is six pairs of hexadecimal digits, not all the same.
func hardware(w string) bool {
	for i := 0; i < 17; i++ {
		if i%3 == 2 {
			if w[i] != w[2] {
				return false
			}
		} else if !hexByte(w[i]) {
			return false
		}
	}
	return w != "00:00:00:00:00:00" && asciiLower(w) != "ff:ff:ff:ff:ff:ff"
}
