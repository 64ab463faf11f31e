//go:build e2e

package loader

import (
	"os"
	"path/filepath"
	"testing"
)

// TestWatchRefused: executions of the sandbox that fail with EACCES are told, nobody else's, and no
// other failure.
func TestWatchRefused(t *testing.T) {
	w := newWorld(t, Options{})
	tmp := t.TempDir()
	plain := filepath.Join(tmp, "plain")
	must(t, os.WriteFile(plain, []byte("no program"), 0o644))
	var got []RefusedExec
	watch, err := w.WatchRefused(func(e RefusedExec) { got = append(got, e) })
	must(t, err)
	w.out.wants("EACCES", "exec %s", plain)
	w.in.wants("EACCES", "exec %s", plain)
	w.in.wants("ENOENT", "exec %s/none", tmp)
	w.in.wants("EACCES", "exec %s", plain)
	must(t, watch.Close())
	w.in.wants("EACCES", "exec %s", plain)
	if len(got) != 2 || got[0].Path != plain || got[0].PID == 0 || got[0].Time.IsZero() || got[0].PID == got[1].PID {
		t.Errorf("told %+v", got)
	}
}
