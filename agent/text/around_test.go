package text

import (
	"strings"
	"testing"
)

func TestAround(t *testing.T) {
	long := strings.Repeat("0123456789", 20)
	for _, c := range []struct {
		before, s, after string
		limit            int
		want             string
	}{
		{"a ", "card", " b", 40, "a |card| b"},
		{"", "card", "", 40, "|card|"},
		{long, "card", long, 40, "...567890123456789|card|012345678901234..."},
		{long, "card", " b", 40, "...9" + strings.Repeat("0123456789", 3) + "|card| b"},
		{"a ", "card", long, 20, "a |card|01234567890..."},
		{"日本\x1b", "c\n", "\u202e", 40, `日本\x1b|c\n|\u202e`},
		{long, long, long, 40, "|012345678901...(177 bytes)...90123456789|"},
		{long, "card", long, 4, "|card|"},
		{long, "card", long, 6, ".|card|."},
	} {
		left, middle, right := Around(c.before, c.s, c.after, c.limit)
		got := left + "|" + middle + "|" + right
		if got != c.want && c.want != "" || Width(left+middle+right) > c.limit {
			t.Errorf("Around(%.20q, %.20q, %.20q, %d) = %q of %d columns, want %q", c.before, c.s, c.after, c.limit, got, Width(left+middle+right), c.want)
		}
	}
}

func FuzzAround(f *testing.F) {
	f.Add("a\xff", "\u0301b", "\x1b", 7)
	f.Fuzz(func(t *testing.T, before, s, after string, limit int) {
		limit %= 200
		left, middle, right := Around(before, s, after, limit)
		if all := left + middle + right; Width(all) > max(limit, 0) {
			t.Errorf("%q is wider than %d", all, limit)
		}
	})
}
