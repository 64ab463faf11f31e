package loader

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"

	"github.com/nemoclaw/nemoclaw/bpf"
)

// loadLSM loads the LSM programs beside those of gate, whose maps they share, attaches them to the system and pins them in
// the new directory dir. Programs of other pins may be attached at the same time: each judges the tasks below its own parent.
func loadLSM(dir string, gate *ebpf.Collection) error {
	objects, err := lsmPrograms(gate.Maps)
	if err != nil {
		return err
	}
	defer objects.Close()
	var m mapSet
	for name := range m.lsm() {
		if err := objects.Maps[name].Pin(filepath.Join(dir, mapsDir, name)); err != nil {
			return fmt.Errorf("pin BPF map %s: %w", name, err)
		}
	}
	links := filepath.Join(dir, lsmDir)
	if err := os.Mkdir(links, 0o700); err != nil {
		return fmt.Errorf("make a directory for BPF pins: %w", err)
	}
	for name, program := range objects.Programs {
		l, err := link.AttachLSM(link.LSMOptions{Program: program})
		if err != nil {
			return fmt.Errorf("attach BPF program %s to its LSM hook: %w", name, err)
		}
		if err := pinLink(l, filepath.Join(links, name)); err != nil {
			return err
		}
	}
	return nil
}

// removeLSM removes what a loadLSM that failed has left: all of the programs are in force, or none.
func removeLSM(dir string) error {
	errs := []error{os.RemoveAll(filepath.Join(dir, lsmDir))}
	var m mapSet
	for name := range m.lsm() {
		if err := os.Remove(filepath.Join(dir, mapsDir, name)); !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// tryLSM loads the LSM programs and lets go of them, to learn why a kernel does not take them.
func tryLSM() error {
	objects, err := lsmPrograms(nil)
	if err == nil {
		objects.Close()
	}
	return err
}

// lsmPrograms loads the LSM programs, with these maps instead of some of their own.
func lsmPrograms(maps map[string]*ebpf.Map) (*ebpf.Collection, error) {
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(bpf.LSMObject()))
	if err != nil {
		return nil, fmt.Errorf("read the built-in BPF object: %w", err)
	}
	for _, m := range spec.Maps {
		if m.Type == ebpf.CGroupArray || m.Type == ebpf.ArrayOfMaps {
			m.Key, m.Value = nil, nil // as in load
		}
	}
	at, err := kernelSymbol("rename_lock")
	if err != nil {
		return nil, err
	}
	if err := spec.Variables[bpf.LsmVarRenameLock].Set(at); err != nil {
		return nil, fmt.Errorf("tell the BPF programs the kernel's rename_lock: %w", err)
	}
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		return nil, fmt.Errorf("read the kernel's type information: %w", err)
	}
	if err := errors.Join(chooseSetattr(spec, kernel), chooseACL(spec, kernel)); err != nil {
		return nil, err
	}
	if err := checkHooks(spec, kernel); err != nil {
		return nil, err
	}
	shared := make(map[string]*ebpf.Map)
	for name := range spec.Maps {
		if m := maps[name]; m != nil {
			shared[name] = m
		}
	}
	objects, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: shared})
	if err != nil {
		return nil, explainLoad(err)
	}
	return objects, nil
}

// kernelSymbol returns the address of one of the kernel's variables.
func kernelSymbol(name string) (uint64, error) {
	f, err := os.Open("/proc/kallsyms")
	if err != nil {
		return 0, fmt.Errorf("find the kernel's %s: %w", name, err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		// ffffffff81a00000 D rename_lock
		at, rest, _ := strings.Cut(lines.Text(), " ")
		if len(rest) < 3 || rest[2:] != name {
			continue
		}
		address, err := strconv.ParseUint(at, 16, 64)
		if err == nil && address == 0 {
			err = errors.New("it is hidden (sysctl kernel.kptr_restrict)")
		}
		if err != nil {
			return 0, fmt.Errorf("find the kernel's %s in /proc/kallsyms: %w", name, err)
		}
		return address, nil
	}
	if err := lines.Err(); err != nil {
		return 0, fmt.Errorf("find the kernel's %s in /proc/kallsyms: %w", name, err)
	}
	return 0, fmt.Errorf("find the kernel's %s: it is not in /proc/kallsyms (CONFIG_KALLSYMS_ALL)", name)
}

// chooseSetattr leaves the one of two programs that fits: the hook inode_setattr has an argument more since Linux 6.9.
func chooseSetattr(spec *ebpf.CollectionSpec, kernel *btf.Spec) error {
	var hook *btf.Func
	if err := kernel.TypeByName("bpf_lsm_inode_setattr", &hook); err != nil {
		return fmt.Errorf("find the LSM hook inode_setattr: %w", err)
	}
	switch n := len(hook.Type.(*btf.FuncProto).Params); n {
	case 2:
		delete(spec.Programs, bpf.LsmProgInodeSetattr)
	case 3:
		delete(spec.Programs, bpf.LsmProgInodeSetattr2)
	default:
		return fmt.Errorf("the kernel's LSM hook inode_setattr has %d arguments: this version knows two and three", n)
	}
	return nil
}

// chooseACL leaves out the hooks of ACLs where the kernel has none: before Linux 6.2 the hooks of other attributes see them.
func chooseACL(spec *ebpf.CollectionSpec, kernel *btf.Spec) error {
	var hook *btf.Func
	err := kernel.TypeByName("bpf_lsm_inode_set_acl", &hook)
	if errors.Is(err, btf.ErrNotFound) {
		delete(spec.Programs, bpf.LsmProgInodeSetAcl)
		delete(spec.Programs, bpf.LsmProgInodeRemoveAcl)
		return nil
	}
	if err != nil {
		return fmt.Errorf("find the LSM hook inode_set_acl: %w", err)
	}
	return nil
}

// checkHooks refuses a kernel that lacks a hook of one of the programs, and names all that it lacks: without one, what it sees
// would be allowed.
func checkHooks(spec *ebpf.CollectionSpec, kernel *btf.Spec) error {
	var lacks []string
	for _, program := range spec.Programs {
		var hook *btf.Func
		err := kernel.TypeByName("bpf_lsm_"+program.AttachTo, &hook)
		switch {
		case errors.Is(err, btf.ErrNotFound):
			lacks = append(lacks, program.AttachTo)
		case err != nil:
			return fmt.Errorf("find the LSM hook %s: %w", program.AttachTo, err)
		}
	}
	if lacks == nil {
		return nil
	}
	slices.Sort(lacks)
	return fmt.Errorf("this kernel has no LSM hook %s, so what it sees could not be refused: Linux 6.1 or newer with CONFIG_BPF_LSM, CONFIG_KEYS, CONFIG_IO_URING and CONFIG_SECURITY_PATH is needed",
		strings.Join(slices.Compact(lacks), ", "))
}
