package loader

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// isFull reports whether an update failed because the map has no room: E2BIG from hashes, ENOSPC from tries.
func isFull(err error) bool {
	return errors.Is(err, unix.E2BIG) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.ENOMEM)
}

// putAll inserts or replaces entries, with one system call where there are many.
func putAll[K comparable, V any](m *ebpf.Map, entries map[K]V) error {
	if len(entries) < batchFrom {
		for k, v := range entries {
			if err := m.Put(k, v); err != nil {
				return err
			}
		}
		return nil
	}
	keys := make([]K, 0, len(entries))
	values := make([]V, 0, len(entries))
	for k, v := range entries {
		keys, values = append(keys, k), append(values, v)
	}
	_, err := m.BatchUpdate(keys, values, nil)
	return err
}

// batchFrom is how many entries make a batch cheaper than single calls.
const batchFrom = 4

// removeAll deletes entries, and forgets them. Entries that are not there are no error.
func removeAll[K comparable, V any](m *ebpf.Map, entries map[K]V) error {
	keys := slices.Collect(maps.Keys(entries))
	clear(entries)
	for len(keys) >= batchFrom {
		n, err := m.BatchDelete(keys, nil)
		if err == nil {
			return nil
		}
		if !errors.Is(err, ebpf.ErrKeyNotExist) || n >= len(keys) {
			return fmt.Errorf("delete %d entries of %s: %w", len(keys), m, err)
		}
		keys = keys[n+1:] // the kernel stopped at one that is gone
	}
	for _, k := range keys {
		if err := remove(m, k); err != nil {
			return err
		}
	}
	return nil
}

// remove deletes one entry. That it is not there is no error.
func remove(m *ebpf.Map, key any) error {
	if err := m.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("delete an entry of %s: %w", m, err)
	}
	return nil
}
