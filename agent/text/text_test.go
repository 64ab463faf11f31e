package text

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestEscape(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", ""},
		{"GET /a?b=c", "GET /a?b=c"},
		{"naïve 日本", "naïve 日本"},
		{"a\x1b[31mred", `a\x1b[31mred`},
		{"line\nnext\r\t", `line\nnext\r\t`},
		{"\u202egpj.exe", `\u202egpj.exe`},   // right-to-left override
		{"a\u200bb", `a\u200bb`},             // zero width
		{"\u009b31m", `\u009b31m`},           // C1 CSI
		{"\xff\xfe", `\xff\xfe`},             // not UTF-8
		{`\x1b`, `\\x1b`},                    // spelled out by the program itself
		{"\U000e0041", `\U000e0041`},         // tag characters
		{"a\u00a0b\u2028", `a\u00a0b\u2028`}, // spaces that aren't
		{"\x00\x7f", `\x00\x7f`},
	} {
		if got := Escape(c.in); got != c.want {
			t.Errorf("Escape(%q) = %q, want %q", c.in, got, c.want)
		}
	}
}

func TestShort(t *testing.T) {
	for _, c := range []struct {
		in    string
		limit int
		want  string
	}{
		{"abcdef", 6, "abcdef"},
		{"abcdefg", 6, "abc..."},
		{"\x1b\x1b\x1b", 6, `\x1...`},
		{strings.Repeat("x", 1<<20), 5, "xx..."},
		{"abc", 2, ".."},
		{"日本語日本語", 5, "日本..."},
	} {
		if got := Short(c.in, c.limit); got != c.want {
			t.Errorf("Short(%.10q, %d) = %q, want %q", c.in, c.limit, got, c.want)
		}
	}
}

func TestLines(t *testing.T) {
	if got, want := Lines("- path: \"a\\x1b\"\n  \x1b[2J"), "- path: \"a\\x1b\"\n  \\x1b[2J"; got != want {
		t.Errorf("Lines = %q, want %q", got, want)
	}
}

func FuzzEscape(f *testing.F) {
	f.Add("a\x1b]0;title\a\u202e\xff")
	f.Fuzz(func(t *testing.T, s string) {
		e := Escape(s)
		if !utf8.ValidString(e) {
			t.Fatalf("Escape(%q) is not UTF-8", s)
		}
		for _, r := range e {
			if !unicode.IsPrint(r) {
				t.Fatalf("Escape(%q) lets %U through", s, r)
			}
		}
		if n := utf8.RuneCountInString(Short(s, 20)); n > 20 {
			t.Fatalf("Short(%q, 20) is %d long", s, n)
		}
	})
}
