package loader

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// MapUse is how full a map is.
type MapUse struct {
	Name     string
	Entries  int
	Capacity int
}

// MapUses counts the entries of every map that can fill up, for all agents of this version. It walks them, so it is for who asks
// now and then.
func (l *Loader) MapUses() ([]MapUse, error) {
	var list []MapUse
	all := l.maps.byName()
	maps.Copy(all, l.maps.lsm())
	for _, name := range slices.Sorted(maps.Keys(all)) {
		m := *all[name]
		if m == nil {
			continue // there are no LSM programs
		}
		switch m.Type() {
		case ebpf.Hash, ebpf.PerCPUHash, ebpf.LPMTrie:
		default:
			continue // an array has all its entries always, and one that forgets the oldest is full and fine
		}
		n, err := countOf(m)
		if err != nil {
			return nil, fmt.Errorf("count the entries of the BPF map %s: %w", name, err)
		}
		list = append(list, MapUse{name, n, int(m.MaxEntries())})
	}
	return list, nil
}

// batch is how many entries one system call reads: no fewer than a bucket of a hash can hold, else the kernel refuses.
const batch = 4096

// countOf counts what is in a map. Entries that come or go meanwhile may count or not.
func countOf(m *ebpf.Map) (n int, err error) {
	if m.Type() == ebpf.PerCPUHash { // as few as there are sandboxes
		return walked(m)
	}
	var at ebpf.MapBatchCursor
	keys, values := room(m.KeySize()), room(m.ValueSize())
	for n <= int(m.MaxEntries()) {
		got, err := m.BatchLookup(&at, keys, values, nil)
		n += got
		switch {
		case errors.Is(err, ebpf.ErrKeyNotExist):
			return n, nil
		case errors.Is(err, ebpf.ErrNotSupported):
			return walked(m)
		case err != nil:
			return n, err
		}
	}
	return int(m.MaxEntries()), nil // it changes faster than it is read
}

// room is for a batch of keys or values of a size.
func room(size uint32) any {
	one := reflect.ArrayOf(int(size), reflect.TypeFor[byte]())
	return reflect.MakeSlice(reflect.SliceOf(one), batch, batch).Interface()
}

func walked(m *ebpf.Map) (n int, err error) {
	var key []byte
	for next := make([]byte, m.KeySize()); n < int(m.MaxEntries()); n++ {
		if key == nil {
			err = m.NextKey(nil, &next)
		} else {
			err = m.NextKey(key, &next)
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		key = append(key[:0], next...)
	}
	return n, nil
}

// ProgramUse is how often a program ran, and how long that took in all.
type ProgramUse struct {
	Name string
	Runs uint64
	Time time.Duration
}

// statsFile says whether the kernel measures programs. That costs each run some nanoseconds, so it is the administrator's to say.
const statsFile = "/proc/sys/kernel/bpf_stats_enabled"

// Measured reports whether the kernel measures the programs that run. It never has it do so.
func Measured() bool {
	text, err := os.ReadFile(statsFile)
	return err == nil && strings.TrimSpace(string(text)) == "1"
}

// ProgramUses returns what the kernel measured of the programs that judge. Those that ran while it measured nothing are left out.
func (l *Loader) ProgramUses() ([]ProgramUse, error) {
	var list []ProgramUse
	for _, dir := range []string{linksDir, lsmDir} {
		pinned, err := os.ReadDir(filepath.Join(l.pins, dir))
		if errors.Is(err, os.ErrNotExist) && dir == lsmDir {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list the BPF programs: %w", err)
		}
		for _, e := range pinned {
			u, err := programUse(filepath.Join(l.pins, dir, e.Name()))
			if err != nil {
				return nil, fmt.Errorf("read what the BPF program %s took: %w", e.Name(), err)
			}
			if u.Name = e.Name(); u.Runs > 0 {
				list = append(list, u)
			}
		}
	}
	return list, nil
}

// programUse is of the program behind a pinned link.
func programUse(pin string) (u ProgramUse, err error) {
	l, err := link.LoadPinnedLink(pin, nil)
	if err != nil {
		return u, err
	}
	defer l.Close()
	info, err := l.Info()
	if err != nil {
		return u, err
	}
	p, err := ebpf.NewProgramFromID(info.Program)
	if err != nil {
		return u, err
	}
	defer p.Close()
	stats, err := p.Stats()
	if err != nil {
		return u, err
	}
	return ProgramUse{Runs: stats.RunCount, Time: stats.Runtime}, nil
}
