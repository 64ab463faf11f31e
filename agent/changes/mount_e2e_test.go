//go:build e2e

package changes

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMount: another mount is not looked at, and what it hides neither.
func TestMount(t *testing.T) {
	t.Parallel()
	dir := tree(t)
	on := filepath.Join(dir, "mounted")
	must(t, os.Mkdir(on, 0o700), unix.Mount("changes-test", on, "tmpfs", 0, ""))
	t.Cleanup(func() { must(t, unix.Unmount(on, 0)) })
	write(t, filepath.Join(on, "other"), "x")
	if c := lookAt(t, open(t, dir), time.Time{}, time.Time{}); strings.Contains(list(c), "other") || c.Unread != 0 {
		t.Errorf("%s", list(c))
	}
}
