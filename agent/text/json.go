package text

import (
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// JSON returns text in JSON, as encoding/json writes it, with everything that Escape would spell out written as \u202e: encoding/json lets
// through all but the first 32 control characters. What it means stays the same.
func JSON(encoded []byte) []byte {
	if !strings.ContainsFunc(string(encoded), func(r rune) bool { return r >= 0x7f }) {
		return encoded
	}
	out := make([]byte, 0, len(encoded)+len(encoded)/4)
	var e escaper
	for i, s := 0, string(encoded); i < len(s); {
		if s[i] < 0x7f {
			out = append(out, s[i])
			i++
			continue
		}
		var shown strings.Builder
		if i > 0 && s[i-1] < 0x7f {
			e.next(&shown, s[i-1:i]) // it may take marks
			shown.Reset()
		}
		n := e.next(&shown, s[i:])
		if shown.String() == s[i:i+n] {
			out = append(out, s[i:i+n]...)
		} else {
			r, _ := utf8.DecodeRuneInString(s[i:])
			for _, unit := range utf16.AppendRune(nil, r) {
				out = append(out, '\\', 'u', digits[unit>>12], digits[unit>>8&0xf], digits[unit>>4&0xf], digits[unit&0xf])
			}
		}
		i += n
	}
	return out
}
