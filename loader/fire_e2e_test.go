//go:build e2e

package loader

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// TestProbeLSM: the probe says that the hook fires, or why it can't. The test in a VM wants the first.
func TestProbeLSM(t *testing.T) {
	t.Parallel()
	switch err := ProbeLSM(); {
	case err == nil:
		t.Log("BPF LSM programs fire here")
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EINVAL), errors.Is(err, ErrSilent):
		t.Log(err)
	default:
		t.Error(err)
	}
}
