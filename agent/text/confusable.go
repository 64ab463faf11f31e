package text

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// lookalikes are the characters that are taken for another in a host name: of Latin, Cyrillic, Greek, Armenian, Lisu, Cherokee and
// Hebrew, small capitals, and digits. It is the part of confusables.txt (Unicode Technical Standard #39, 4, "Confusable Detection")
// that matters for names, with some that only look alike in small type. What decomposes (fullwidth, circled, with accents) isn't here.
var lookalikes = map[rune]string{
	'a': "\u0430\u0251\u03b1\u1d00\ua4ee",
	'b': "\u0432\u042c\u044c\u0184\u0185\u03b2\u13cf\u1472\u15af\ua4d0\u0299\u0253",
	'c': "\u0441\u03f2\u1d04\u2ca5\ua4da\u0188\ua793",
	'd': "\u0501\u13e7\u146f\ua4d3\u1d05\u0111\u0256\u0257\u00f0",
	'e': "\u0435\u04bd\u212e\uab32\u1d07\ua4f0\u03b5\u0454\u0247\u025b\u0259",
	'f': "\u0192\u017f\ua799\u0584\ua730\ua4dd\u03dd",
	'g': "\u0261\u0581\u018d\u0262\ua4d6\u0260\u0123",
	'h': "\u04bb\u0570\u13c2\u043d\u029c\ua4e7\u0127\u0266",
	'j': "\u0458\u03f3\u0575\u1d0a\ua4d9\u0249",
	'k': "\u043a\u03ba\u049b\u0138\u1d0b\ua4d7\u0199\u2c95",
	'i': "\u0456\u0131\u0269\u03b9\u026a",
	'l': "\u04cf\u01c0\u05c0\u05d5\u05df\u0627\u1d35\u029f\ua4e1\ua4f2\u0142\u026b\u026d\u2223\u23d0\u4e28\u07ca\u1963",
	'm': "\u043c\u1d0d\ua4df\u0271\u217f",
	'n': "\u0578\u057c\u03b7\u0274\u0146\u014b\ua4e0\u0273\u043f\u0572",
	'o': "\u043e\u03bf\u0585\u1d0f\u1d11\u05e1\u06be\u0647\u0665\u06c1\u06d5\u0966\u09e6\u0a66\u0ae6\u0b20\u0b66\u0be6\u0c66\u0ce6\u0d66\u0e50\u0ed0\u101d\u1040\u10ff\u3007\ua4f3\u00f8\u0275\u03c3\uab3d\u2c9f\u0c02",
	'p': "\u0440\u03c1\u03f1\u2ca3\u1d18\ua4d1\u01a5\u00fe",
	'q': "\u051b\u0563\u0566\u024b",
	'r': "\u0433\u1d26\uab47\uab48\u0280\ua4e3\u027e\u024d",
	's': "\u0455\u01bd\ua731\uabaa\ua4e2\u0282",
	't': "\u0442\u03c4\u1d1b\ua4d4\u0167\u01ad\u057f",
	'u': "\u057d\u03c5\u1d1c\ua4f4\u028b\u028a\u0446\ua79f\uab4e\uab52",
	'v': "\u0475\u03bd\u1d20\ua4e6\u2228\u22c1\uaba9",
	'w': "\u0461\u051d\u0561\u03c9\u0448\u1d21\ua4ea\u026f\uab83\u1999",
	'x': "\u0445\u03c7\u04b3\u1541\u157d\ua4eb\u00d7\u2a2f\u166e",
	'y': "\u0443\u04af\u03b3\u028f\u0263\u10e7\u1d8c\u1eff\u213d\ua4ec\uab5a\u01b4\u04b1",
	'z': "\u1d22\uab93\ua4dc\u01b6\u0290\u0225",
	'3': "\u0437\u0292\u01b7\u04e1\u10d5\u2ccd\ua76b",
	'4': "\u13ce",
	'6': "\u0431\u13ee",
	'8': "\u0222\u0223\u09ea\u0a6a",
	'9': "\u09ed\u0a67",
	'-': "\u2010\u2011\u2012\u2013\u2014\u2043\u02d7\u2212\u2796\u30fc\u3161\u1680",
	'.': "\u2024\u0660\u06f0\ua4f8\u00b7\u30fb\u3002\uff61\ua60e\u0701\u0702",
	'/': "\u2044\u2215\u29f8\u2571\u1735\u2cc6\u3033\u4e3f",
	':': "\u0589\u05c3\u02d0\u02f8\ua789\u2236\ua4fd\u0703\u0704\u16ec",
}

// multigraphs are letters that look like one other.
var multigraphs = strings.NewReplacer("rn", "m", "vv", "w", "cl", "d")

var plainOf = func() map[rune]rune {
	m := map[rune]rune{}
	for plain, like := range lookalikes {
		for _, r := range like {
			m[r] = plain
		}
	}
	return m
}()

// Skeleton is what a host name, or a label of one, is easily read as: two names that look alike have the same one. It is itself no
// name to show or to use.
func Skeleton(name string) string { return folded.Replace(multigraphs.Replace(latin(name))) }

// folded makes one of characters that can't be told apart in small type.
var folded = strings.NewReplacer("0", "o", "1", "l", "i", "l")

// latin puts for each character the plain one that it looks like.
func latin(name string) string {
	var b strings.Builder
	for _, r := range norm.NFKD.String(bounded(name)) {
		if unicode.Is(unicode.M, r) || unicode.Is(unicode.Cf, r) {
			continue
		}
		r = unicode.ToLower(r)
		if plain, ok := plainOf[r]; ok {
			r = plain
		}
		b.WriteRune(r)
	}
	return b.String()
}

// bounded limits the work on a name that can't be a host's.
func bounded(name string) string {
	const most = 1024
	if len(name) <= most {
		return name
	}
	for i := most; ; i-- {
		if utf8.RuneStart(name[i]) {
			return name[:i]
		}
	}
}

// scripts that are told apart in names. What is common to several is in none.
var scripts = []struct {
	name  string
	table *unicode.RangeTable
}{
	{"Latin", unicode.Latin}, {"Cyrillic", unicode.Cyrillic}, {"Greek", unicode.Greek}, {"Armenian", unicode.Armenian},
	{"Cherokee", unicode.Cherokee}, {"Lisu", unicode.Lisu}, {"Coptic", unicode.Coptic}, {"Hebrew", unicode.Hebrew}, {"Arabic", unicode.Arabic},
	{"Georgian", unicode.Georgian}, {"Han", unicode.Han}, {"Hiragana", unicode.Hiragana}, {"Katakana", unicode.Katakana},
	{"Hangul", unicode.Hangul}, {"Bopomofo", unicode.Bopomofo}, {"Thai", unicode.Thai}, {"Devanagari", unicode.Devanagari},
}

// eastAsian are written together, and with Latin letters between.
var eastAsian = map[string]bool{"Han": true, "Hiragana": true, "Katakana": true, "Hangul": true, "Bopomofo": true}

// Scripts lists the scripts that the letters of a label are of, where no language writes them together; nil where they belong
// together, as those of Japanese do.
func Scripts(label string) []string {
	var found []string
	apart := 0 // scripts that go with no other
	for _, s := range scripts {
		if strings.ContainsFunc(label, func(r rune) bool { return unicode.Is(s.table, r) }) {
			found = append(found, s.name)
			if !eastAsian[s.name] {
				apart++
			}
		}
	}
	other := strings.ContainsFunc(label, func(r rune) bool {
		if !unicode.IsLetter(r) || unicode.Is(unicode.Common, r) {
			return false
		}
		for _, s := range scripts {
			if unicode.Is(s.table, r) {
				return false
			}
		}
		return true
	})
	if other {
		found = append(found, "another")
		apart++
	}
	if apart > 1 || apart == 1 && len(found) > 1 && found[0] != "Latin" {
		return found
	}
	return nil
}
