//go:build e2e

package hook

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nemoclaw/nemoclaw/agent/config"
)

// TestExecAsUser: a program runs as somebody else, with no more rights than they have.
func TestExecAsUser(t *testing.T) {
	t.Parallel()
	var n notes
	dir := t.TempDir()
	for d := dir; len(d) > len(os.TempDir()); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	name := filepath.Join(dir, "hook")
	if err := os.WriteFile(name, []byte("cd \"$1\"; { id -u; id -g; id -G; grep CapEff /proc/self/status; } > who.new; mv who.new who\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(name, 0o755); err != nil {
		t.Fatal(err)
	}
	start(t, config.Hook{Exec: []string{"/bin/sh", name, dir}, User: "nobody"}, &n)(held("one"))
	who := strings.Fields(read(t, filepath.Join(dir, "who")))
	if len(who) != 5 || who[0] != "65534" || who[1] != "65534" || who[2] != "65534" || strings.Trim(who[4], "0") != "" {
		t.Errorf("it ran as %q", who)
	}
}
