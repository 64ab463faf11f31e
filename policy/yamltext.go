package policy

import (
	"regexp"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// maxRuleText bounds RuleRef.Text, in bytes: it is for a person's eye.
const maxRuleText = 300

var (
	// plainWord is what a message shows without quotes.
	plainWord = regexp.MustCompile(`^[A-Za-z0-9_./][A-Za-z0-9_./+-]*(:[0-9]+)?$`)
	// bareWord is what needs no quotes in YAML wherever it stands, unless reserved says otherwise. What starts with a
	// digit may be a number in a spelling nobody expects (0_X1), so of that only IPv4 prefixes are bare.
	bareWord = regexp.MustCompile(`^([A-Za-z_/][A-Za-z0-9_./+-]*|[0-9]+(\.[0-9]+){3}/[0-9]+)$`)
	// reserved is what YAML 1.1 or 1.2 readers take for a boolean, nothing, a number, a date or a base-60 number.
	reserved = regexp.MustCompile(`^(?i:y|n|yes|no|on|off|true|false|null|~|` + // words
		`[-+]?[0-9][0-9_,]*(\.[0-9_]*)?(e[-+]?[0-9]+)?|[-+]?\.[0-9][0-9_]*(e[-+]?[0-9]+)?|` + // decimals
		`[-+]?0x[0-9a-f_]+|[-+]?0o[0-7_]+|[-+]?0b[01_]+|[-+]?\.(inf|nan)|` + // other bases
		`[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?|` + // base 60
		`[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}.*)$`) // dates
)

// oneLine writes a node as YAML in flow style on one line.
func oneLine(n *yaml.Node) string {
	var b strings.Builder
	writeFlow(&b, n)
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

func writeFlow(b *strings.Builder, n *yaml.Node) {
	if b.Len() > maxRuleText {
		return
	}
	switch n.Kind {
	case yaml.MappingNode:
		b.WriteByte('{')
		for i := 0; i+1 < len(n.Content); i += 2 {
			if i > 0 {
				b.WriteString(", ")
			}
			writeFlow(b, n.Content[i])
			b.WriteString(": ")
			writeFlow(b, n.Content[i+1])
		}
		b.WriteByte('}')
	case yaml.SequenceNode:
		b.WriteByte('[')
		for i, item := range n.Content {
			if i > 0 {
				b.WriteString(", ")
			}
			writeFlow(b, item)
		}
		b.WriteByte(']')
	default:
		if n.ShortTag() == "!!str" {
			b.WriteString(quote(n.Value))
		} else {
			b.WriteString(n.Value)
		}
	}
}

// quote writes a valid UTF-8 text as a YAML scalar that every reader takes for that text.
func quote(s string) string {
	if bareWord.MatchString(s) && !reserved.MatchString(s) {
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
