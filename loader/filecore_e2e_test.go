//go:build e2e

package loader

import (
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/policy"
)

// TestFileCore makes a million decisions on random trees under random rules, with the program and with the reference,
// while the trees and the rules change. Every tenth tree is on the file system of the test's directory, which gives
// the numbers of removed files again.
func TestFileCore(t *testing.T) {
	const rounds, steps, decisions = 1000, 60, 17
	j := loadFileJudge(t, commonLoader(t))
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	seen := map[policy.Verdict]int{}
	for round := range rounds {
		dir := unnamedTmpfs(t)
		if round%10 == 0 {
			unix.Close(dir)
			dir = openPath(t, unix.AT_FDCWD, t.TempDir())
		}
		f := newFileWorld(t, j, dir, random.IntN)
		for range steps {
			f.step()
			for range decisions {
				f.decideOnce()
			}
		}
		f.close()
		for v, n := range f.seen {
			seen[v] += n
		}
	}
	t.Logf("verdicts: %v", seen)
	if len(seen) != 3 {
		t.Errorf("not all verdicts came up: %v", seen)
	}
}

// unnamedTmpfs is a tmpfs that goes with its descriptor.
func unnamedTmpfs(t testing.TB) int {
	t.Helper()
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	must(t, err)
	defer unix.Close(fs)
	must(t, unix.FsconfigCreate(fs))
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	must(t, err)
	return fd
}

// FuzzFileDecision takes its bytes for what to do to a tree and its rules, and compares decisions after every step.
func FuzzFileDecision(f *testing.F) {
	if os.Geteuid() != 0 {
		f.Fatal("it loads BPF programs: run it as root")
	}
	random := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{50, 500, 5000} {
		seed := make([]byte, size)
		for i := range seed {
			seed[i] = byte(random.Uint32())
		}
		f.Add(seed)
	}
	j := loadFileJudge(f, openLoader(f, privateConfig(f)))
	f.Fuzz(func(t *testing.T, choices []byte) {
		w := newFileWorld(t, j, unnamedTmpfs(t), func(n int) int {
			if len(choices) == 0 {
				return 0
			}
			c := int(choices[0])
			choices = choices[1:]
			return c % n
		})
		defer w.close()
		for len(choices) > 0 {
			w.step()
			w.decideOnce()
		}
	})
}
