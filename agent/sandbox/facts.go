package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// LandlockABI returns the kernel's Landlock ABI, or why there is none that a sandbox can use.
func LandlockABI() (int, error) { return landlockABI(false) }

// Controllers says where the cgroup file systems are that limits are set in: v2's mount point, and those of version 1 by controller.
func Controllers() (v2 string, v1 map[string]string, err error) {
	h, err := hostHierarchies("")
	return h.v2, h.v1, err
}

// Group is the cgroup of v2 that a process is in, below where that is mounted; "" when the process has ended.
func Group(pid int) string {
	text, err := readFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if at, ok := strings.CutPrefix(line, "0::"); ok {
			return strings.TrimSuffix(at, "\n")
		}
	}
	return ""
}

// RemoveParents removes the groups of version 1 that held the sandboxes of parent cgroups; the name may be a pattern. It fails
// while there is a sandbox.
func RemoveParents(name string) error {
	h, err := hostHierarchies("")
	failed := []error{err}
	for _, point := range h.v1 {
		groups, err := filepath.Glob(filepath.Join(point, name))
		failed = append(failed, err)
		for _, group := range groups {
			if err := os.Remove(group); err != nil && !errors.Is(err, fs.ErrNotExist) {
				failed = append(failed, fmt.Errorf("sandbox: remove the cgroup of all sandboxes: %w", err))
			}
		}
	}
	return errors.Join(failed...)
}
