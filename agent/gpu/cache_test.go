package gpu

import (
	"os/exec"
	"strings"
	"testing"
)

// TestCache reads this machine's cache as ldconfig does.
func TestCache(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("/sbin/ldconfig", "-p").Output()
	if err != nil {
		t.Fatal(err)
	}
	found, checked := readCache("/etc/ld.so.cache"), 0
	for line := range strings.Lines(string(out)) {
		name, path, ok := strings.Cut(strings.TrimSpace(line), " => ")
		if !ok || !strings.Contains(name, "(libc6,x86-64)") && !strings.Contains(name, "(libc6,AArch64)") {
			continue
		}
		name, _, _ = strings.Cut(name, " ")
		checked++
		if !strings.Contains(strings.Join(found[name], " ")+" ", path+" ") {
			t.Errorf("%s: %q, want %s", name, found[name], path)
		}
	}
	if checked == 0 {
		t.Errorf("ldconfig lists nothing of this architecture:\n%s", out)
	}
}
