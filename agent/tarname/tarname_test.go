package tarname

import (
	"strings"
	"testing"
)

func TestClean(t *testing.T) {
	deep := strings.Repeat("d/", MaxDepth)
	for name, want := range map[string]string{
		"a": "a", "./a/": "a", "/a//b/.": "a/b", "": "", ".": "", "/": "", "..a/b..": "..a/b..", "a\xff": "a\xff", deep: deep[:len(deep)-1],
	} {
		if got, err := Clean(name); err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", name, got, err, want)
		}
	}
	for name, want := range map[string]string{
		"..": "with ..", "../a": "with ..", "a/../b": "with ..", "/..": "with ..", "a\x00": "NUL", deep + "x": "128 directories deep",
		strings.Repeat("x", MaxLength): "4096 bytes",
	} {
		if got, err := Clean(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: %.20q, %v; want %q", name, got, err, want)
		}
	}
}
