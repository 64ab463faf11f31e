package vm

import (
	"strings"
	"testing"
)

// TestTrouble: the kernel's mistakes are seen, and what others say is not taken for one.
func TestTrouble(t *testing.T) {
	for text, want := range map[string]string{
		"[    0.1] Linux version 6.12\n[   15.164185] Oops: int3: 0000 [#1] SMP NOPTI\n[   15.2] after": "[   15.164185] Oops: int3: 0000 [#1] SMP NOPTI\n[   15.2] after",
		"[    3.5] WARNING: CPU: 0 PID: 1 at mm/slub.c:1\n":                                             "[    3.5] WARNING: CPU: 0 PID: 1 at mm/slub.c:1\n",
		"[    3.5][    T1] BUG: scheduling while atomic\n":                                              "[    3.5][    T1] BUG: scheduling while atomic\n",
		"[    0.1] Run /init\nWARNING: a program says this\n[  OK  ] Started BUG: unit\n":               "",
		"": "",
		strings.Repeat("[  1.0] RIP: 0010:x\n", 99): strings.TrimSuffix(strings.Repeat("[  1.0] RIP: 0010:x\n", 40), "\n"),
	} {
		var c console
		_, _ = c.Write([]byte(text))
		if got := c.trouble(); got != want {
			t.Errorf("%q: it was in trouble: %q, want %q", text, got, want)
		}
	}
}
