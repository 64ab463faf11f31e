package classify

import (
	"html"
	"strings"
	"unicode/utf8"
)

// nextFold is the next character from i on that stands for something else: n bytes of plain, for used bytes of the text; used is 0 when
// there is none. What stands before i was unfolded.
func (c *Classifier) nextFold(s string, i int) (at int, plain [4]byte, used, n int) {
	from := i
	for i < len(s) {
		b := s[i]
		if b < 0x80 && class[b]&bEscape == 0 {
			for i++; i+8 <= len(s) && foldless(s[i:i+8]); {
				i += 8
			}
			continue
		}
		switch {
		case b < 0x80:
		case i+2 < len(s) && b >= 0xe4 && b <= 0xed && s[i+1]&s[i+2]&0xc0 == 0x80: // Han, Hangul
			i += 3
			continue
		case i+2 < len(s) && b >= 0xe0 && b < 0xe4 && s[i+1]&s[i+2]&0xc0 == 0x80:
			if folds[rune(b&15)<<12|rune(s[i+1]&63)<<6|rune(s[i+2]&63)] == 0 {
				i += 3
				continue
			}
		case i+1 < len(s) && b >= 0xc2 && b < 0xe0 && s[i+1]&0xc0 == 0x80:
			if folds[rune(b&31)<<6|rune(s[i+1]&63)] == 0 {
				i += 2
				continue
			}
			if native(b) {
				if to := c.nativeWord(s, from, i); to > i {
					i = to
					continue
				}
			}
		}
		if plain, used, n = foldAt(s, i); used > 0 {
			return i, plain, used, n
		}
		i += max(-used, 1)
	}
	return i, plain, 0, 0
}

// foldless reports whether eight bytes are ASCII and none of the signs of escapes. They are asked all at once, as one number.
func foldless(b string) bool {
	x := uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16 | uint64(b[3])<<24 | uint64(b[4])<<32 | uint64(b[5])<<40 | uint64(b[6])<<48 | uint64(b[7])<<56
	const each, top = 0x0101010101010101, 0x8080808080808080
	percent, ampersand, backslash := x^each*'%', x^each*'&', x^each*'\\'
	return (x|(percent-each)&^percent|(ampersand-each)&^ampersand|(backslash-each)&^backslash)&top == 0
}

// native is the first byte of what has letters that look like ASCII's: Greek, Cyrillic, Armenian, and the marks upon them.
func native(b byte) bool { return b >= 0xcc && b <= 0xd6 }

// nativeWord is the end of a word whose letters are what they look like to those who read it: it has one that isn't like any of
// ASCII's, or nothing by it is ASCII and it means nothing when it is read so. Else it is i. The word's letters before i are like none, back to from, behind what was unfolded.
func (c *Classifier) nativeWord(s string, from, i int) int {
	start := i
	for start > from+1 && native(s[start-2]) && s[start-1]&0xc0 == 0x80 {
		start -= 2
	}
	if start == from && from > 0 {
		return i
	}
	own := start < i
	to := i
	var h hash
	for to+1 < len(s) && native(s[to]) && s[to+1]&0xc0 == 0x80 {
		switch l := folds[rune(s[to]&31)<<6|rune(s[to+1]&63)]; l {
		case 0:
			own = true
		case drop:
		default:
			h = h.add(lower[l])
		}
		to += 2
	}
	switch {
	case start > 0 && alnum(s[start-1]), to < len(s) && alnum(s[to]):
		return i
	case to < len(s) && s[to] >= 0x80:
		if _, used, _ := foldRune(s, to); used > 0 {
			return i
		}
	}
	if own || !c.words.bloom.has(h.sum()) && !tied(s, start-1, start-2) && !tied(s, to, to+1) {
		return to
	}
	return i
}

// tied reports whether a sign stands at a place that ties a word to what is behind it, as in keys and in addresses.
func tied(s string, sign, behind int) bool {
	return behind >= 0 && behind < len(s) && s[behind] > ' ' && strings.IndexByte("@_-/+=.:%#&\\", s[sign]) >= 0
}

// foldAt unfolds the character that begins at i: n bytes of plain, for used bytes of the text. used is not positive where nothing is to
// be done: then -used bytes may be passed over.
func foldAt(s string, i int) (plain [4]byte, used, n int) {
	switch s[i] {
	case '%':
		j := i + 1
		for strings.HasPrefix(s[j:], "25") {
			j += 2
		}
		if j+1 < len(s) && hexByte(s[j]) && hexByte(s[j+1]) {
			plain[0] = nibble(s[j])<<4 | nibble(s[j+1])
			return plain, j + 2 - i, 1
		}
		if j > i+1 {
			plain[0] = '%'
			return plain, j - i, 1
		}
	case '&':
		return entity(s, i)
	case '\\':
		return backslash(s, i)
	default:
		return foldRune(s, i)
	}
	return plain, 0, 0
}

func entity(s string, i int) (plain [4]byte, used, n int) {
	j := i + 1
	for strings.HasPrefix(s[j:], "amp;") {
		j += 4
	}
	end := j
	if end < len(s) && s[end] == '#' { // of a number, whose semicolon may be missing
		hexadecimal := end+1 < len(s) && lower[s[end+1]] == 'x'
		if end++; hexadecimal {
			end++
		}
		from := end
		for end < len(s) && end < j+10 && (digit(s[end]) || hexadecimal && hexByte(s[end])) {
			end++
		}
		if text := html.UnescapeString("&" + s[j:end] + ";"); end > from && len(text) <= 4 && text[0] != '&' {
			if end < len(s) && s[end] == ';' {
				end++
			}
			return plain, end - i, copy(plain[:], text)
		}
	}
	for end < len(s) && end < j+10 && alnum(s[end]) {
		end++
	}
	if end > j && end < len(s) && s[end] == ';' {
		if text := html.UnescapeString("&" + s[j:end+1]); len(text) <= 4 && text[0] != '&' {
			return plain, end + 1 - i, copy(plain[:], text)
		}
	}
	if j > i+1 {
		plain[0] = '&'
		return plain, j - i, 1
	}
	return plain, 0, 0
}

// backslash reads an escape, however many backslashes stand before it: texts within texts within texts.
func backslash(s string, i int) (plain [4]byte, used, n int) {
	j := i
	for j < len(s) && s[j] == '\\' {
		j++
	}
	if j >= len(s) {
		return plain, i - j, 0
	}
	switch s[j] {
	case 'n', 'r', 't', 'b', 'f':
		plain[0] = '\n'
		if s[j] == 't' {
			plain[0] = '\t'
		}
		return plain, j + 1 - i, 1
	case '"', '\'', '/':
		plain[0] = s[j]
		return plain, j + 1 - i, 1
	case 'x':
		if v, ok := hexRune(s, j+1, 2); ok {
			plain[0] = byte(v)
			return plain, j + 3 - i, 1
		}
	case '0', '1': // octal
		if j+3 <= len(s) && s[j+1]-'0' < 8 && s[j+2]-'0' < 8 {
			if v := (s[j]-'0')<<6 | (s[j+1]-'0')<<3 | (s[j+2] - '0'); printable(v) {
				plain[0] = v
				return plain, j + 3 - i, 1
			}
		}
	case 'u', 'U':
		if j+1 < len(s) && s[j+1] == '{' { // any number of digits in braces
			end := j + 2
			for end < len(s) && end < j+10 && hexByte(s[end]) {
				end++
			}
			if v, ok := hexRune(s, j+2, end-j-2); ok && end > j+2 && end < len(s) && s[end] == '}' {
				return plain, end + 1 - i, utf8.EncodeRune(plain[:], v)
			}
			break
		}
		digits := 4
		if s[j] == 'U' {
			digits = 8
		}
		if v, ok := hexRune(s, j+1, digits); ok {
			end := j + 1 + digits
			if v>>10 == 0x36 && strings.HasPrefix(s[end:], `\u`) { // the first of a pair
				if low, ok := hexRune(s, end+2, 4); ok && low>>10 == 0x37 {
					v = 0x10000 + (v&0x3ff)<<10 | low&0x3ff
					end += 6
				}
			}
			return plain, end - i, utf8.EncodeRune(plain[:], v)
		}
	}
	return plain, i - j, 0
}

func hexRune(s string, i, n int) (rune, bool) {
	if i+n > len(s) {
		return 0, false
	}
	v := rune(0)
	for _, b := range []byte(s[i : i+n]) {
		if !hexByte(b) {
			return 0, false
		}
		v = v<<4 | rune(nibble(b))
	}
	return v, v >= 0
}

// What folds says of characters below U+4000: 0 nothing, or the character that they look like, or one of these.
const (
	drop   = 1 + iota
	beside // it is folded next to a digit
)

var folds = func() (t [0x4000]byte) {
	for _, r := range "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180e\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2061\u2062\u2063\u2064\u2066\u2067\u2068\u2069" {
		t[r] = drop
	}
	for r := 0x300; r < 0x370; r++ { // marks on the letter before
		t[r] = drop
	}
	for r := 0x20d0; r <= 0x20ff; r++ { // and around it
		t[r] = drop
	}
	for plain, like := range lookalikes {
		for _, r := range like {
			t[r] = plain
		}
	}
	for _, zero := range []rune{0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66, 0xe50, 0xed0, 0xf20, 0x1040, 0x17e0, 0x1810} {
		for d := range rune(10) {
			t[zero+d] = byte('0' + d)
		}
	}
	for d := range rune(9) { // circled, in parentheses, with a full stop; super- and subscript
		t[0x2460+d], t[0x2474+d], t[0x2488+d], t[0x2776+d] = byte('1'+d), byte('1'+d), byte('1'+d), byte('1'+d)
	}
	for d := range rune(9) { // circled in other ways
		t[0x24f5+d], t[0x2780+d], t[0x278a+d] = byte('1'+d), byte('1'+d), byte('1'+d)
	}
	t[0x24ea], t[0x24ff] = '0', '0'
	for d, r := range []rune("⁰¹²³⁴⁵⁶⁷⁸⁹") {
		t[r], t[0x2080+d] = byte('0'+d), byte('0'+d)
	}
	t[0x3164] = drop
	for r := range rune(0x3100) {
		if typographic(r) != 0 {
			t[r] = beside
		}
	}
	for l := range rune(26) {
		t[0x24b6+l], t[0x24d0+l], t[0x249c+l] = byte('A'+l), byte('a'+l), byte('a'+l)
	}
	return t
}()

// lookalikes are letters that are taken for one of ASCII, of the same case, since keys care.
var lookalikes = map[byte]string{
	'A': "АΑᎪ", 'B': "ВΒᏴ", 'C': "СϹᏟⅭ", 'D': "ᎠⅮ", 'E': "ЕΕᎬ", 'G': "ԌᏀ", 'H': "НΗᎻ", 'I': "ІΙӀⅠ", 'J': "ЈᎫͿ", 'K': "КΚᏦK", 'L': "ᏞⅬ", 'M': "МΜᎷⅯ",
	'N': "Ν", 'O': "ОΟՕ", 'P': "РΡᏢ", 'Q': "Ԛ", 'R': "ᎡᏒ", 'S': "ЅՏᏚ", 'T': "ТΤᎢ", 'U': "Ս", 'V': "ѴᏙⅤ", 'W': "ԜᎳ", 'X': "ХΧⅩ", 'Y': "ҮΥ", 'Z': "ΖᏃ",
	'a': "аɑα", 'b': "Ьɓ", 'c': "сϲⅽ", 'd': "ԁⅾ", 'e': "еҽ", 'f': "ƒ", 'g': "ɡց", 'h': "һհ", 'i': "іıⅰι", 'j': "јϳ", 'k': "κк", 'l': "ӏⅼ", 'm': "ⅿм",
	'n': "ոռ", 'o': "оοօσ", 'p': "рρ", 'q': "ԛգ", 'r': "г", 's': "ѕ", 't': "т", 'u': "υսʋ", 'v': "νѵⅴ", 'w': "ԝѡա", 'x': "хχⅹ", 'y': "уүγ", 'z': "ᴢ",
	'@': "", '.': "․", '/': "⁄∕", ':': "∶ː", '_': "",
}

// typographic are signs that are folded next to a digit only: in ordinary text they are everywhere, and nothing is hidden by them.
func typographic(r rune) byte {
	switch {
	case r == 0xa0, r >= 0x2000 && r <= 0x200a, r == 0x202f, r == 0x205f, r == 0x3000, r == 0x1680, r == 0x2028, r == 0x2029, r == 0x2800:
		return ' '
	case r >= 0x2010 && r <= 0x2015, r == 0x2043, r == 0x2212, r == 0xff0d, r == 0xfe63, r == 0x2500:
		return '-'
	case r == 0xb7, r == 0x2022, r == 0x30fb, r == 0xff0e, r == 0x3002:
		return '.'
	case r == 0xff0f:
		return '/'
	case r == 0xff08:
		return '('
	case r == 0xff09:
		return ')'
	}
	return 0
}

func foldRune(s string, i int) (plain [4]byte, used, n int) {
	r, size := utf8.DecodeRuneInString(s[i:])
	b := byte(0)
	switch {
	case r < 0x4000:
		if b = folds[r]; b == beside {
			b = 0
		}
	case r >= 0xff01 && r <= 0xff5e:
		if c := byte(r - 0xff01 + '!'); alnum(c) || c == '@' || c == '_' || c == '+' {
			b = c
		}
	case r >= 0xfe00 && r <= 0xfe0f:
		if i > 0 && (alnum(s[i-1]) || i+size < len(s) && alnum(s[i+size])) {
			b = drop
		}
	case r == 0xfeff, r == 0xffa0, r >= 0xe0100 && r <= 0xe01ef:
		b = drop
	case r >= 0xe0020 && r <= 0xe007e: // tags: ASCII that isn't shown
		b = byte(r - 0xe0000)
	case r >= 0x1d400 && r <= 0x1d6a3: // mathematical letters: 52 of each style
		k := byte((r - 0x1d400) % 52)
		b = 'A' + k
		if k >= 26 {
			b = 'a' + k - 26
		}
	case r >= 0x1d7ce && r <= 0x1d7ff:
		b = '0' + byte((r-0x1d7ce)%10)
	case r >= 0x1fbf0 && r <= 0x1fbf9:
		b = '0' + byte(r-0x1fbf0)
	case r >= 0x1f130 && r <= 0x1f149:
		b = 'A' + byte(r-0x1f130)
	}
	if b == 0 {
		if t := typographic(r); t != 0 && (i > 0 && digit(s[i-1]) || i+size < len(s) && digit(s[i+size])) {
			b = t
		}
	}
	switch b {
	case 0:
		return plain, -size, 0
	case drop:
		return plain, size, 0
	}
	plain[0] = b
	return plain, size, 1
}
