package text

import (
	"slices"
	"strings"
	"testing"
)

func TestHost(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"api.example.org", "api.example.org"},
		{"xn--mnchen-3ya.example", "xn--mnchen-3ya.example (münchen.example)"},
		{"xn--80ak6aa92e.com", "xn--80ak6aa92e.com (\u0430\u0440\u0440\u04cf\u0435.com, looks like apple.com)"},
		{"\u0430\u0440\u0440\u04cf\u0435.com", "xn--80ak6aa92e.com (\u0430\u0440\u0440\u04cf\u0435.com, looks like apple.com)"},
		{"xn--penai-iye.com", "xn--penai-iye.com (\u043epenai.com, looks like openai.com)"},
		{"xn--wgv71a119e.jp", "xn--wgv71a119e.jp (日本語.jp)"},
		{"xn--4dbrk0ce.example", "xn--4dbrk0ce.example (letters from right to left)"}, // ישראל
		{"xn--", "xn--"},
		{"XN--80AK6AA92E.com", "XN--80AK6AA92E.com (\u0430\u0440\u0440\u04cf\u0435.com, looks like apple.com)"},
		{"a\x1b[31m", `a\x1b[31m`},
		{strings.Repeat("a", 300), strings.Repeat("a", 257) + "..."},
	} {
		if got := Host(c.in); got != c.want {
			t.Errorf("Host(%q) = %q, want %q", c.in, got, c.want)
		}
	}
}

func TestSkeleton(t *testing.T) {
	for _, c := range [][2]string{
		{"github", "g\u0456thub"}, {"github", "GITHUB"}, {"github", "g1thub"}, {"modern", "rnodern"}, {"openai", "\uff4fpenai"}, {"openai", "0penai"},
		{"openai", "\u043e\u0440\u0435nai"}, {"openai", "op\u00e9nai"}, {"window", "vvindow"}, {"hub", "\u04bb\u057d\u0185"}, {"abc", "a\u200bbc"}, {"x-y", "x\u2010y"},
	} {
		if a, b := Skeleton(c[0]), Skeleton(c[1]); a != b {
			t.Errorf("%q and %q look alike, and have the skeletons %q and %q", c[0], c[1], a, b)
		}
	}
	if Skeleton("github") == Skeleton("gitlab") {
		t.Error("github and gitlab do not look alike")
	}
}

// TestLookalikes: a character is taken for one other.
func TestLookalikes(t *testing.T) {
	seen := map[rune]rune{}
	for plain, like := range lookalikes {
		for _, r := range like {
			if was, twice := seen[r]; twice {
				t.Errorf("%U is taken for %q and for %q", r, was, plain)
			}
			seen[r] = plain
			if _, again := lookalikes[r]; again {
				t.Errorf("%U is taken for %q, and itself one that others are taken for", r, plain)
			}
		}
	}
}

func TestScripts(t *testing.T) {
	for label, want := range map[string][]string{
		"github": nil, "münchen": nil, "日本ひらカタabc": nil, "한글abc": nil, "привет": nil, "a-1": nil,
		"g\u0456thub": {"Latin", "Cyrillic"}, "\u03b1\u0430": {"Cyrillic", "Greek"}, "日\u0430": {"Cyrillic", "Han"},
	} {
		if got := Scripts(label); !slices.Equal(got, want) {
			t.Errorf("Scripts(%q) = %q, want %q", label, got, want)
		}
	}
}

func FuzzHost(f *testing.F) {
	f.Add("xn--80ak6aa92e.com")
	f.Add("\u202e.xn--\xff")
	f.Fuzz(func(t *testing.T, s string) {
		if err := check(Host(s)); err != "" {
			t.Fatalf("Host(%q) = %q: %s", s, Host(s), err)
		}
		_ = Skeleton(s)
		if found := Scripts(s); len(found) == 1 {
			t.Fatalf("Scripts(%q) = %q", s, found)
		}
	})
}
