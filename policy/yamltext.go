package policy

import (
	"math"
	"regexp"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// maxRuleText bounds RuleRef.Text, in bytes: it is for a person's eye.
const maxRuleText = 300

var (
	// plainWord is what a message shows without quotes.
	plainWord = lazily(`^[A-Za-z0-9_./][A-Za-z0-9_./+-]*(:[0-9]+)?$`)
	// prefixWord is an IPv4 prefix, which needs no quotes although it starts with a digit. Nothing else that does is
	// bare: it may be a number in a spelling nobody expects (0_X1).
	prefixWord = lazily(`^[0-9]+(\.[0-9]+){3}/[0-9]+$`)
	// number is what YAML 1.1 or 1.2 readers take for a number, a date or a base-60 number.
	number = lazily(`^(?i:` +
		`[-+]?[0-9][0-9_,]*(\.[0-9_]*)?(e[-+]?[0-9]+)?|[-+]?\.[0-9][0-9_]*(e[-+]?[0-9]+)?|` + // decimals
		`[-+]?0x[0-9a-f_]+|[-+]?0o[0-7_]+|[-+]?0b[01_]+|[-+]?\.(inf|nan)|` + // other bases
		`[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?|` + // base 60
		`[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}.*)$`) // dates
)

// words are what those readers take for a boolean or nothing, in any case.
var words = []string{"y", "n", "yes", "no", "on", "off", "true", "false", "null", "~"}

// isReserved reports whether a scalar without quotes is something else than a string to some YAML reader.
func isReserved(s string) bool {
	if s == "" {
		return false
	}
	if c := s[0]; c >= '0' && c <= '9' || c == '-' || c == '+' || c == '.' {
		return number.MatchString(s)
	}
	return slices.ContainsFunc(words, func(w string) bool { return strings.EqualFold(w, s) })
}

// isBare reports whether a string needs no quotes in YAML wherever it stands.
func isBare(s string) bool {
	if s == "" || s[0] >= '0' && s[0] <= '9' {
		return prefixWord.MatchString(s)
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		letter := c|0x20 >= 'a' && c|0x20 <= 'z' || c == '_' || c == '/'
		if !letter && (i == 0 || !(c >= '0' && c <= '9' || c == '.' || c == '+' || c == '-')) {
			return false
		}
	}
	return !isReserved(s)
}

// lazy is a regular expression that is compiled when it is first needed. Most policies need few of them, and compiling
// all would be a good part of the time that a short command takes.
type lazy struct {
	expr string
	once sync.Once
	re   *regexp.Regexp
}

func lazily(expr string) *lazy { return &lazy{expr: expr} }

func (l *lazy) compiled() *regexp.Regexp {
	l.once.Do(func() { l.re = regexp.MustCompile(l.expr) })
	return l.re
}

// The methods of regexp.Regexp.
func (l *lazy) MatchString(s string) bool            { return l.compiled().MatchString(s) }
func (l *lazy) FindStringSubmatch(s string) []string { return l.compiled().FindStringSubmatch(s) }
func (l *lazy) String() string                       { return l.expr }

// oneLine writes a node as YAML in flow style on one line.
func oneLine(n *yaml.Node) string {
	var b strings.Builder
	writeFlow(&b, n, maxRuleText)
	s := b.String()
	if len(s) <= maxRuleText {
		return s
	}
	s = s[:maxRuleText]
	for !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s + "..."
}

// flowText is oneLine without a limit.
func flowText(n *yaml.Node) string {
	var b strings.Builder
	writeFlow(&b, n, math.MaxInt)
	return b.String()
}

// writeFlow stops when it has written more than limit bytes.
func writeFlow(b *strings.Builder, n *yaml.Node, limit int) {
	if b.Len() > limit {
		return
	}
	switch n.Kind {
	case yaml.MappingNode:
		b.WriteByte('{')
		for i := 0; i+1 < len(n.Content); i += 2 {
			if i > 0 {
				b.WriteString(", ")
			}
			writeFlow(b, n.Content[i], limit)
			b.WriteString(": ")
			writeFlow(b, n.Content[i+1], limit)
		}
		b.WriteByte('}')
	case yaml.SequenceNode:
		b.WriteByte('[')
		for i, item := range n.Content {
			if i > 0 {
				b.WriteString(", ")
			}
			writeFlow(b, item, limit)
		}
		b.WriteByte(']')
	default:
		if n.ShortTag() == "!!str" {
			b.WriteString(Quote(n.Value))
		} else {
			b.WriteString(n.Value)
		}
	}
}

// Quote writes a valid UTF-8 text as a YAML scalar that every reader takes for that text.
func Quote(s string) string {
	if isBare(s) {
		return s
	}
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case !printable(r):
			const hex = "0123456789abcdef"
			b.WriteString(`\U`)
			for shift := 28; shift >= 0; shift -= 4 {
				b.WriteByte(hex[r>>shift&15])
			}
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
