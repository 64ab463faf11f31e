package text

import (
	"slices"
	"strings"
	"testing"
)

func TestMiddle(t *testing.T) {
	for _, c := range []struct {
		in    string
		limit int
		want  string
	}{
		{"/srv/x.pem", 40, "/srv/x.pem"},
		{"/srv/" + strings.Repeat("a", 4000) + "/x.pem", 40, "/srv/aaaaaa...(3989 bytes)...aaaaa/x.pem"},
		{strings.Repeat("日", 50), 40, "日日日日日日...(117 bytes)...日日日日日"},
		{strings.Repeat("\x1b", 50), 40, `\x1b\x1b\x1b...(44 bytes)...\x1b\x1b\x1b`},
		{strings.Repeat("a\u0301", 50), 40, strings.Repeat("a\u0301", 12) + "...(81 bytes)..." + strings.Repeat("a\u0301", 11)},
		{strings.Repeat("x", 50), 8, "x..."},
		{"abc", 0, ""},
		{"abc", -40, ""},
	} {
		if got := Middle(c.in, c.limit); got != c.want {
			t.Errorf("Middle(%.20q, %d) = %q, want %q", c.in, c.limit, got, c.want)
		}
	}
}

func TestWrap(t *testing.T) {
	for _, c := range []struct {
		in    string
		limit int
		want  []string
	}{
		{"", 5, []string{""}},
		{"abcde", 5, []string{"abcde"}},
		{"abcdefg", 5, []string{"abcde", "fg"}},
		{"日本語", 5, []string{"日本", "語"}},
		{"abcde\u0301f", 5, []string{"abcde\u0301", "f"}},
		{"日本", 0, []string{"日", "本"}},
		{"to be or not", 9, []string{"to be or ", "not"}},
		{"a bcdefgh", 6, []string{"a bcde", "fgh"}},
		{"/a/path/of one/thing", 12, []string{"/a/path/of ", "one/thing"}},
	} {
		if got := Wrap(c.in, c.limit); !slices.Equal(got, c.want) {
			t.Errorf("Wrap(%q, %d) = %q, want %q", c.in, c.limit, got, c.want)
		}
	}
}

func TestClip(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"abc", "abc"}, {"abcdefghijk", "abcd...hijk"}, {"a\xff\x1b", "a\ufffd\x1b"}, {"日本語日本語", "日\ufffd...\ufffd語"},
	} {
		if got := Clip(c.in, 8); got != c.want {
			t.Errorf("Clip(%q, 8) = %q, want %q", c.in, got, c.want)
		}
	}
}

func TestWidth(t *testing.T) {
	for s, want := range map[string]int{"": 0, "abc": 3, "日本": 4, "a\u0301": 1, "ａ": 2, "é": 1, "한": 2, "🙂": 2} {
		if got := Width(s); got != want {
			t.Errorf("Width(%q) = %d, want %d", s, got, want)
		}
	}
}

func FuzzMiddle(f *testing.F) {
	f.Add("/srv/"+strings.Repeat("\u0301a", 99), 40)
	f.Add("\xff\u202e日本", 3)
	f.Fuzz(func(t *testing.T, s string, limit int) {
		limit %= 300
		m := Middle(s, limit)
		if w := Width(m); w > max(limit, 0) {
			t.Fatalf("Middle(%q, %d) takes %d columns: %q", s, limit, w, m)
		}
		if err := check(m); err != "" {
			t.Fatalf("Middle(%q, %d) = %q: %s", s, limit, m, err)
		}
	})
}
