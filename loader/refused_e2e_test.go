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

// TestWatchRefusedCountsWhatIsLost: a flood that the reader is too slow for leaves its number.
func TestWatchRefusedCountsWhatIsLost(t *testing.T) {
	w := newWorld(t, Options{})
	plain := filepath.Join(t.TempDir(), "plain")
	must(t, os.WriteFile(plain, []byte("no program"), 0o644))
	slow, told := make(chan struct{}), uint64(0)
	watch, err := w.WatchRefused(func(RefusedExec) { <-slow; told++ })
	must(t, err)
	const all = 1100 // the ring holds some 930
	for range all {
		w.in.wants("EACCES", "exec %s", plain)
	}
	close(slow)
	must(t, watch.Close())
	if told+watch.Lost() != all || watch.Lost() == 0 {
		t.Errorf("%d told and %d lost of %d", told, watch.Lost(), all)
	}
}
