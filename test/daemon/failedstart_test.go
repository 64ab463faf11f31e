//go:build e2e

package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nemoclaw/nemoclaw/policy"
	"github.com/nemoclaw/nemoclaw/test/harness"
)

// TestFailedStart: a start that came to nothing is a refusal in the log, with the reason.
func TestFailedStart(t *testing.T) {
	t.Parallel()
	d := harness.W.StartDaemon(t)
	ws := probeBox(t, d, "box", harness.Base)
	d.Do(t, "box", "stop")
	if err := os.Rename(ws, ws+"-away"); err != nil {
		t.Fatal(err)
	}
	if status, _, said := d.Call(t, "box", "start"); status == 0 || !strings.Contains(said, "workspace") {
		t.Fatalf("exit %d, %s", status, said)
	}
	if err := os.Rename(ws+"-away", ws); err != nil {
		t.Fatal(err)
	}
	until(t, "it is in the log", func() bool {
		for _, r := range decisions(t, filepath.Join(d.Dir, "audit")) {
			if r.Action == "start" && strings.Contains(r.Reason, "can't be started") {
				if r.Verdict != policy.Deny {
					t.Fatalf("%+v", r)
				}
				return true
			}
		}
		return false
	})
}
