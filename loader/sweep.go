package loader

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"

	"github.com/cilium/ebpf"

	"github.com/nemoclaw/nemoclaw/bpf"
)

// Sweep removes the entries of sandboxes whose cgroup is gone: what agents that were killed left. It costs a system
// call or two when there is nothing to do, and a walk over all maps when there is.
func (l *Loader) Sweep() error {
	known, err := collect[uint64, bpf.GateSandbox](l.maps.sandboxes, func(uint64) bool { return true })
	if err != nil || len(known) == 0 {
		return err
	}
	// After the entries: a sandbox that starts meanwhile has no entry in known.
	living, err := l.livingCgroups()
	if err != nil {
		return err
	}
	dead := make(map[uint64]struct{})
	for id := range known {
		if _, ok := living[id]; !ok {
			dead[id] = struct{}{}
		}
	}
	if len(dead) == 0 {
		return nil
	}
	m := &l.maps
	err = errors.Join(
		sweep[bpf.GateRuleKey, bpf.GateRule](m.rules, func(k bpf.GateRuleKey) uint64 { return k.Cgid }, dead),
		sweep[bpf.GatePrefixKey, bpf.GateRule](m.prefixes, func(k bpf.GatePrefixKey) uint64 { return k.Cgid }, dead),
		sweep[bpf.GateMemberKey, bpf.GateMember](m.members, func(k bpf.GateMemberKey) uint64 { return k.Cgid }, dead),
		sweep[bpf.GateGrantKey, bpf.GateGrant](m.grants, func(k bpf.GateGrantKey) uint64 { return k.Cgid }, dead),
		sweep[bpf.GateTuple, bpf.GatePeer](m.flows, func(k bpf.GateTuple) uint64 { return k.Cgid }, dead),
		sweep[bpf.GateExecKey, bpf.GateExecValue](m.executables, func(k bpf.GateExecKey) uint64 { return k.Cgid }, dead),
		sweep[bpf.GateDeviceKey, uint32](m.devices, func(k bpf.GateDeviceKey) uint64 { return k.Cgid }, dead),
		sweep[bpf.GateEnvironKey, uint32](m.environs, func(k bpf.GateEnvironKey) uint64 { return k.Cgid }, dead),
	)
	if m.nodes != nil {
		err = errors.Join(err,
			sweep[bpf.LsmPlace, bpf.LsmNode](m.nodes, func(k bpf.LsmPlace) uint64 { return k.Cgid }, dead),
			sweep[bpf.LsmNameKey, bpf.LsmNode](m.names, func(k bpf.LsmNameKey) uint64 { return k.Dir.Cgid }, dead),
			sweep[bpf.LsmFileGrantKey, bpf.GateGrant](m.fileGrants, func(k bpf.LsmFileGrantKey) uint64 { return k.What.Cgid }, dead),
			sweep[bpf.LsmHeldKey, bpf.LsmHeld](m.pending, func(k bpf.LsmHeldKey) uint64 { return k.What.Cgid }, dead),
			sweep[bpf.LsmCallKey, bpf.LsmCallAnswer](m.answers, func(k bpf.LsmCallKey) uint64 { return k.Cgid }, dead))
	}
	if err != nil {
		return fmt.Errorf("sweep what killed agents left in the kernel: %w", err)
	}
	for id := range dead {
		err = errors.Join(err, remove(m.conns, id), remove(m.counts, id), remove(m.sandboxes, id))
	}
	return err
}

// livingCgroups returns the ids of all cgroups below the parent.
func (l *Loader) livingCgroups() (map[uint64]struct{}, error) {
	living := make(map[uint64]struct{})
	err := filepath.WalkDir(l.parent.path, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed while we walk
		}
		if err != nil || !d.IsDir() {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		living[info.Sys().(*syscall.Stat_t).Ino] = struct{}{}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list the cgroups of sandboxes: %w", err)
	}
	return living, nil
}

// sweep deletes the entries of dead cgroups from one map.
func sweep[K comparable, V any](m *ebpf.Map, cgid func(K) uint64, dead map[uint64]struct{}) error {
	found, err := collect[K, V](m, func(k K) bool {
		_, ok := dead[cgid(k)]
		return ok
	})
	if err != nil {
		return err
	}
	return removeAll(m, found)
}

// collect returns the keys of a map for which want holds.
func collect[K comparable, V any](m *ebpf.Map, want func(K) bool) (map[K]struct{}, error) {
	found := make(map[K]struct{})
	var key K
	var value V
	entries := m.Iterate()
	for entries.Next(&key, &value) {
		if want(key) {
			found[key] = struct{}{}
		}
	}
	// Other agents insert and delete meanwhile, which can restart the walk; what it misses stays for the next sweep.
	if err := entries.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
		return nil, fmt.Errorf("read %s: %w", m, err)
	}
	return found, nil
}
