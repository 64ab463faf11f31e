package loader

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Unload removes the programs, their maps and the parent cgroup of this version, for the end of a test. It fails when an
// agent has them open or a sandbox's cgroup still exists.
func Unload(cfg Config) error {
	cfg = cfg.withDefaults()
	parent, err := findParent(cfg)
	if err != nil {
		return err
	}
	return unload(cfg, parent)
}

// Parents returns the parent cgroups of every version of the programs that is loaded or left something, for an uninstall.
func Parents(cfg Config) ([]string, error) {
	cfg = cfg.withDefaults()
	parent, err := findParent(cfg)
	if err != nil {
		return nil, err
	}
	ours := regexp.MustCompile("^" + regexp.QuoteMeta(cfg.Parent) + "-[0-9a-f]{8}$")
	var names []string
	entries, err := os.ReadDir(filepath.Dir(parent))
	if err != nil {
		return nil, fmt.Errorf("look for parent cgroups: %w", err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	pins, err := os.ReadDir(filepath.Join(cfg.BPFFS, pinsRoot))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("list BPF pins: %w", err)
	}
	for _, e := range pins {
		if name, _, ok := splitPinName(strings.TrimSuffix(e.Name(), unfinished)); ok {
			names = append(names, name)
		}
	}
	names = slices.DeleteFunc(names, func(name string) bool { return !ours.MatchString(name) })
	slices.Sort(names)
	for i, name := range names {
		names[i] = filepath.Join(filepath.Dir(parent), name)
	}
	return slices.Compact(names), nil
}

// UnloadParent removes one of Parents with its programs and maps, and the directory of all pins when nothing is left in
// it. It fails as Unload does.
func UnloadParent(cfg Config, parent string) error {
	cfg = cfg.withDefaults()
	if err := unload(cfg, parent); err != nil {
		return err
	}
	root := filepath.Join(cfg.BPFFS, pinsRoot)
	if err := unix.Rmdir(root); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) {
		return fmt.Errorf("remove the directory of BPF pins %s: %w", root, err)
	}
	return nil
}

func unload(cfg Config, parent string) error {
	root := filepath.Join(cfg.BPFFS, pinsRoot)
	unlock, err := lockDir(root, unix.LOCK_EX)
	if errors.Is(err, os.ErrNotExist) {
		return removeCgroup(parent)
	}
	if err != nil {
		return err
	}
	defer unlock.Close()
	entries, err := os.ReadDir(root)
	if err != nil {
		return fmt.Errorf("list BPF pins: %w", err)
	}
	for _, e := range entries {
		if name, _, ok := splitPinName(strings.TrimSuffix(e.Name(), unfinished)); !ok || name != filepath.Base(parent) {
			continue
		}
		if err := removeIdle(filepath.Join(root, e.Name()), parent); err != nil {
			return err
		}
	}
	return removeCgroup(parent)
}
