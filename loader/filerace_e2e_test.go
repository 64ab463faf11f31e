//go:build e2e

package loader

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/policy"
)

// TestFileRenames moves directories at full speed while the file below them is judged, in an order that tempts a walk
// to an answer of a place where the file never was: the file's directory leaves a long path for the tree "refuge", and
// only then does the path go to the tree "trap", and back.
//
// Where the kernel lists rename_lock, no answer may be the trap's; a walk that was disturbed twice finds nothing. Where
// it doesn't, a walk may be lent the trap's rule, but nothing else: it never finds what is of none of the three.
func TestFileRenames(t *testing.T) {
	const decisions = 300000
	f := newFileTest(t)
	f.dir = f.mounted("tmpfs")
	long := "path" + strings.Repeat("/d", treeDepth-10)
	f.mk("home/"+long+"/moved/file", "refuge/", "trap/")
	f.rule("home", says(r, 10))
	f.rule("refuge", says(r, 20))
	f.rule("trap", says(r, 30))
	file := f.open("home/" + long + "/moved/file")

	stop, moved := make(chan struct{}), make(chan error)
	turns := 0
	go func() {
		moved <- func() error {
			home, refuge, trap := f.at("home/"+long), f.at("refuge"), f.at("trap")
			path, trapped := f.at("home/path"), filepath.Join(trap, "path")
			for ; ; turns++ {
				select {
				case <-stop:
					return nil
				default:
				}
				for _, m := range [][2]string{{home + "/moved", refuge + "/moved"}, {path, trapped}, {trapped, path}, {refuge + "/moved", home + "/moved"}} {
					if err := unix.Rename(m[0], m[1]); err != nil {
						return fmt.Errorf("rename %s to %s: %w", m[0], m[1], err)
					}
				}
			}
		}()
	}()
	seen := map[ruling]int{}
	for range decisions {
		answer, _ := f.decide(f, mine, file, 1, r, 0)
		seen[answer]++
	}
	close(stop)
	must(t, <-moved)
	t.Logf("rename_lock known: %v; %d turns; %v", f.still, turns, seen)
	home, refuge, trap := ruling{policy.Allow, 10}, ruling{policy.Allow, 20}, ruling{policy.Allow, 30}
	if seen[home] == 0 || seen[refuge] == 0 {
		t.Errorf("the file was not judged in both of its places: %v", seen)
	}
	for answer, n := range seen {
		switch {
		case answer == home, answer == refuge:
		case answer == trap && !f.still:
		case answer == unruled && f.still:
		default:
			t.Errorf("%d times %s, which no place of the file says", n, answer)
		}
	}
}
