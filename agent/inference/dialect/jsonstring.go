package dialect

import (
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// JSON's strings: most of a prompt is one, so each byte counts.

func (p *parser) string() (string, error) {
	p.i++
	start := p.i
	p.i += bare(p.s[p.i:])
	switch {
	case p.i >= len(p.s):
		return "", p.fail("a string doesn't end")
	case p.s[p.i] == '"':
		p.i++
		return p.s[start : p.i-1], nil
	case p.s[p.i] == '\\':
		return p.escaped(start)
	}
	return "", p.fail("a control character in a string")
}

// bare is how many bytes at the beginning of s stand for themselves in a string. Eight at a time are looked at.
func bare(s string) int {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	i := 0
	for ; i+8 <= len(s); i += 8 {
		w := s[i : i+8]
		x := uint64(w[0]) | uint64(w[1])<<8 | uint64(w[2])<<16 | uint64(w[3])<<24 | uint64(w[4])<<32 | uint64(w[5])<<40 | uint64(w[6])<<48 | uint64(w[7])<<56
		quote, slash := x^ones*'"', x^ones*'\\'
		if ((x-ones*' ')&^x|(quote-ones)&^quote|(slash-ones)&^slash)&highs != 0 { // one is less than a space, or nothing is left of it
			break
		}
	}
	for ; i < len(s); i++ {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' {
			break
		}
	}
	return i
}

// escaped reads the rest of a string that has escapes.
func (p *parser) escaped(start int) (string, error) {
	var b strings.Builder
	b.Grow(p.length(start))
	for from := start; ; from = p.i {
		p.i += bare(p.s[p.i:])
		b.WriteString(p.s[from:p.i])
		rest := p.s[p.i:]
		switch {
		case strings.HasPrefix(rest, `"`):
			p.i++
			return b.String(), nil
		case len(rest) < 2:
			return "", p.fail("a string doesn't end")
		case rest[0] != '\\':
			return "", p.fail("a control character in a string")
		}
		p.i += 2
		if rest[1] == 'u' {
			r, err := p.unicode()
			if err != nil {
				return "", err
			}
			b.WriteRune(r)
		} else if j := strings.IndexByte(`"\/bfnrt`, rest[1]); j >= 0 {
			b.WriteByte("\"\\/\b\f\n\r\t"[j])
		} else {
			return "", p.fail("an escape that JSON doesn't have")
		}
	}
}

// length is how long the string that begins at start is as it is written: without its escapes it isn't longer.
func (p *parser) length(start int) int {
	for i := start; ; i++ {
		n := strings.IndexByte(p.s[i:], '"')
		if n < 0 {
			return len(p.s) - start
		}
		i += n
		slashes := 0
		for p.s[i-1-slashes] == '\\' { // ends at the quote that the string begins with
			slashes++
		}
		if slashes%2 == 0 {
			return i - start
		}
	}
}

// unicode reads what follows \u, with the second half if it is a pair.
func (p *parser) unicode() (rune, error) {
	hex := func() (rune, bool) {
		if p.i+4 > len(p.s) {
			return 0, false
		}
		n, err := strconv.ParseUint(p.s[p.i:p.i+4], 16, 32)
		p.i += 4
		return rune(n), err == nil
	}
	r, ok := hex()
	if !ok {
		return 0, p.fail("an escape that JSON doesn't have")
	}
	if !utf16.IsSurrogate(r) {
		return r, nil
	}
	if strings.HasPrefix(p.s[p.i:], `\u`) {
		p.i += 2
		if low, ok := hex(); ok {
			if r = utf16.DecodeRune(r, low); r != utf8.RuneError {
				return r, nil
			}
		}
	}
	return 0, p.fail("half a surrogate pair")
}

func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for {
		n := bare(s)
		b = append(b, s[:n]...)
		if n == len(s) {
			return append(b, '"')
		}
		switch c := s[n]; c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
		s = s[n+1:]
	}
}
