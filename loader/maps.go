package loader

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"

	"github.com/nemoclaw/nemoclaw/bpf"
)

// mapSet is the pinned maps, one per map of the object that the loader reads or writes.
type mapSet struct {
	sandboxes, conns, counts, strays         *ebpf.Map
	rules, prefixes, members, grants, flows  *ebpf.Map
	executables, devices, askers, identities *ebpf.Map
	departed, environs                       *ebpf.Map
	anchors, nodes, names, fileGrants        *ebpf.Map // nil where no LSM programs are loaded, as the others
	pending, answers, leases                 *ebpf.Map
}

// byName returns where each map goes.
func (m *mapSet) byName() map[string]**ebpf.Map {
	return map[string]**ebpf.Map{
		bpf.GateMapSandboxes:   &m.sandboxes,
		bpf.GateMapConns:       &m.conns,
		bpf.GateMapCounts:      &m.counts,
		bpf.GateMapStrays:      &m.strays,
		bpf.GateMapRules:       &m.rules,
		bpf.GateMapPrefixes:    &m.prefixes,
		bpf.GateMapMembers:     &m.members,
		bpf.GateMapGrants:      &m.grants,
		bpf.GateMapFlows:       &m.flows,
		bpf.GateMapExecutables: &m.executables,
		bpf.GateMapDevices:     &m.devices,
		bpf.GateMapAskers:      &m.askers,
		bpf.GateMapIdentities:  &m.identities,
		bpf.GateMapDeparted:    &m.departed,
		bpf.GateMapEnvirons:    &m.environs,
	}
}

// lsm returns where the maps go that only the LSM programs have.
func (m *mapSet) lsm() map[string]**ebpf.Map {
	return map[string]**ebpf.Map{
		bpf.LsmMapAnchors:    &m.anchors,
		bpf.LsmMapNodes:      &m.nodes,
		bpf.LsmMapNames:      &m.names,
		bpf.LsmMapFileGrants: &m.fileGrants,
		bpf.LsmMapPending:    &m.pending,
		bpf.LsmMapAnswers:    &m.answers,
		bpf.LsmMapLeases:     &m.leases,
	}
}

func (m *mapSet) open(dir string) error {
	if err := openMaps(dir, m.byName()); err != nil {
		return err
	}
	if err := openMaps(dir, m.lsm()); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func openMaps(dir string, fields map[string]**ebpf.Map) error {
	for name, field := range fields {
		path := filepath.Join(dir, name)
		opened, err := ebpf.LoadPinnedMap(path, nil)
		if err != nil {
			return fmt.Errorf("open pinned BPF map %s: %w", path, err)
		}
		*field = opened
	}
	return nil
}

func (m *mapSet) close() {
	for _, fields := range []map[string]**ebpf.Map{m.byName(), m.lsm()} {
		for _, field := range fields {
			if *field != nil {
				(*field).Close()
			}
		}
	}
}
