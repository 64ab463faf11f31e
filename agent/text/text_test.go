package text

import (
	"fmt"
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
		{"e\u0301\u0302", "e\u0301\u0302"},                           // two marks
		{"e\u0301\u0302\u0303\u0304", "e\u0301\u0302\\u0303\\u0304"}, // a flood of them
		{"\u0301a", `\u0301a`},                                       // without a letter: it would stand on ours
		{"/\u0301", `/\u0301`},
		{"x\ufe0f\u20e3", `x\ufe0f\u20e3`},               // variation selector, enclosing
		{"a\u3164\u2800\u1160b", `a\u3164\u2800\u1160b`}, // blanks that say they are letters
		{"\U0001f1e9\U0001f1ea", `\U0001f1e9\U0001f1ea`}, // a flag, or two letters
		{"\ue000\U000f0000", `\ue000\U000f0000`},         // private use
		{"한글 \U0001f642", "한글 \U0001f642"},
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

// check says what a text has that may not reach a screen.
func check(shown string) string {
	marks := maxMarks
	for _, r := range shown {
		switch {
		case !unicode.IsPrint(r), unicode.Is(unsteady, r):
			return fmt.Sprintf("%U is let through", r)
		case !unicode.Is(unicode.M, r):
			marks = 0
		case marks >= maxMarks:
			return fmt.Sprintf("the mark %U is one too many", r)
		default:
			marks++
		}
	}
	return ""
}

func FuzzEscape(f *testing.F) {
	f.Add("a\x1b]0;title\a\u202e\xff")
	f.Fuzz(func(t *testing.T, s string) {
		e := Escape(s)
		if !utf8.ValidString(e) {
			t.Fatalf("Escape(%q) is not UTF-8", s)
		}
		if err := check(e); err != "" {
			t.Fatalf("Escape(%q) = %q: %s", s, e, err)
		}
		if n := utf8.RuneCountInString(Short(s, 20)); n > 20 {
			t.Fatalf("Short(%q, 20) is %d long", s, n)
		}
	})
}
