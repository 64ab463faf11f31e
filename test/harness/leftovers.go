package harness

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Cgroups returns the directories of the world's parent cgroup in every hierarchy that is mounted, deepest first.
func (w *World) Cgroups() []string {
	var out []string
	for _, root := range CgroupRoots() {
		_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() && strings.Contains(path[len(root):], w.Parent) {
				out = append(out, path)
			}
			return nil // a cgroup that goes away while it is walked is not an error
		})
	}
	slices.Sort(out)
	slices.Reverse(out)
	return out
}

// CgroupRoots returns where cgroup hierarchies are mounted, version 2 first.
func CgroupRoots() []string {
	var v2, v1 []string
	for _, m := range mounts() {
		switch m.kind {
		case "cgroup2":
			v2 = append(v2, m.target)
		case "cgroup":
			v1 = append(v1, m.target)
		}
	}
	return append(v2, v1...)
}

type mount struct{ target, kind string }

func mounts() []mount {
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		panic(err) // proc is mounted, or nothing of this works
	}
	var out []mount
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 2 {
			out = append(out, mount{f[1], f[2]})
		}
	}
	return out
}

// Processes returns the command lines of what runs in the sandbox called name.
func (w *World) Processes(name string) []string {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		panic(err)
	}
	var out []string
	for _, d := range dirs {
		b, err := os.ReadFile(filepath.Join(d, "cgroup"))
		if err != nil || !strings.Contains(string(b), "/"+name) {
			continue
		}
		line, _ := os.ReadFile(filepath.Join(d, "cmdline"))
		if state, _ := os.ReadFile(filepath.Join(d, "stat")); strings.Contains(string(state), ") Z ") {
			continue // dead, and its parent will notice
		}
		out = append(out, filepath.Base(d)+" "+strings.ReplaceAll(string(line), "\x00", " "))
	}
	return out
}

// Leftovers lists what is still there of a run: processes, cgroups, mounts, files in its run directory, and, beside the shared
// programs and maps, pins that carry its name. The run directory's own lock is shared by all runs and stays.
func (w *World) Leftovers(s *Session) []string {
	var out []string
	for _, p := range w.Processes(s.Name) {
		out = append(out, "process "+p)
	}
	for _, c := range w.Cgroups() {
		if strings.Contains(c, s.Name) {
			out = append(out, "cgroup "+c)
		}
	}
	for _, m := range mounts() {
		if strings.HasPrefix(m.target, s.Dir) || strings.Contains(m.target, s.Name) {
			out = append(out, "mount "+m.target)
		}
	}
	for _, root := range []string{s.RunDir(), w.BPFFS} {
		_ = filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
			if err == nil && path != root && path != filepath.Join(s.RunDir(), ".lock") && (root != w.BPFFS || strings.Contains(path, s.Name)) {
				out = append(out, "file "+path)
			}
			return nil
		})
	}
	return out
}
