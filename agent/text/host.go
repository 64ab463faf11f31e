package text

import (
	"strings"
	"unicode"

	"golang.org/x/net/idna"
	"golang.org/x/text/unicode/bidi"
)

// Host is a host name as it can be shown and compared by eye. A name that isn't spelt in plain letters is shown in its plain form,
// which two different names never share, then in letters, and what it is easily read as:
//
//	xn--mnchen-3ya.example (münchen.example)
//	xn--80ak6aa92e.com (аррӏе.com, looks like apple.com)
//
// Letters that are written from right to left are left out: they would reorder the text around them.
func Host(name string) string {
	plain, letters := name, name
	if isASCII(name) {
		low := strings.ToLower(name)
		if u, err := idna.Punycode.ToUnicode(low); err == nil && u != low && strings.Trim(u, ".") != "" {
			letters = u
		}
	} else if a, err := idna.Punycode.ToASCII(name); err == nil {
		plain = a
	}
	if plain == letters {
		return Short(plain, maxHost)
	}
	says := Short(letters, maxHost)
	if strings.ContainsFunc(letters, rightToLeft) {
		says = "letters from right to left"
	}
	if look := reads(letters); look != "" {
		says += ", looks like " + Short(look, maxHost)
	}
	return Short(plain, maxHost) + " (" + says + ")"
}

// maxHost is how much of a name is shown: more can't be a host's.
const maxHost = 260

// reads is what a name in letters is easily taken for, "" where it is written in Latin letters or for nothing.
func reads(letters string) string {
	labels := strings.Split(bounded(letters), ".")
	changed := false
	for i, l := range labels {
		foreign := strings.ContainsFunc(l, func(r rune) bool { return unicode.IsLetter(r) && !unicode.In(r, unicode.Latin, unicode.Common) })
		if look := latin(l); isASCII(look) && !isASCII(l) && (foreign || Scripts(l) != nil) {
			labels[i], changed = look, true
		}
	}
	if !changed {
		return ""
	}
	return strings.Join(labels, ".")
}

func rightToLeft(r rune) bool {
	p, _ := bidi.LookupRune(r)
	switch p.Class() {
	case bidi.R, bidi.AL, bidi.AN:
		return true
	}
	return false
}

func isASCII(s string) bool { return !strings.ContainsFunc(s, func(r rune) bool { return r >= 0x80 }) }
