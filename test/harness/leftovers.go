package harness

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf"
)

// Cgroups returns the directories of the world's parent cgroups in every hierarchy that is mounted, deepest first.
func (w *World) Cgroups() []string { return cgroupsOf(w.Parent) }

func cgroupsOf(parent string) []string {
	var out []string
	for _, root := range CgroupRoots() {
		_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() && strings.Contains(path[len(root):], parent) {
				out = append(out, path)
			}
			return nil // a cgroup that goes away while it is walked is not an error
		})
	}
	slices.Sort(out)
	slices.Reverse(out)
	return out
}

// endCgroups kills everybody in cgroups, deepest first, and removes them. What outlives a test that failed or was killed ends here:
// a daemon's sandboxes would go on without it.
func endCgroups(list []string) {
	for _, c := range list {
		_ = os.WriteFile(filepath.Join(c, "cgroup.kill"), []byte("1"), 0) // cgroup v2 has it
	}
	for _, c := range list {
		for range 500 { // it can go once the dead have left it
			if err := os.Remove(c); err == nil || os.IsNotExist(err) {
				break
			}
			time.Sleep(2 * time.Millisecond)
		}
	}
}

// MapEntries counts the entries of the hashes that are pinned for the cgroup parents that match pattern. The other maps have a fixed
// size, and those that forget by themselves may fill up.
func (w *World) MapEntries(t T, pattern string) map[string]int {
	t.Helper()
	pins, err := filepath.Glob(filepath.Join(w.BPFFS, "nemoclaw", pattern, "maps", "*"))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]int{}
	for _, pin := range pins {
		m, err := ebpf.LoadPinnedMap(pin, nil)
		if err != nil {
			t.Fatal(err)
		}
		switch m.Type() {
		case ebpf.Hash, ebpf.PerCPUHash, ebpf.LPMTrie:
			out[filepath.Base(pin)] += entriesOf(m)
		}
		m.Close()
	}
	if len(out) == 0 {
		t.Fatal("no pinned map was found")
	}
	return out
}

func entriesOf(m *ebpf.Map) int {
	n := 0
	key, next := make([]byte, m.KeySize()), make([]byte, m.KeySize())
	for err := m.NextKey(nil, &next); err == nil && n < int(m.MaxEntries()); err = m.NextKey(key, &next) {
		n++
		copy(key, next)
	}
	return n
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
