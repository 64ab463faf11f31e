package loader

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/bpf"
)

// rings is the number of event rings, hence of agents that can run at the same time: RINGS in bpf/abi.h.
const rings = 64

// attachments are the programs that are attached to the parent cgroup, by name.
var attachments = map[string]ebpf.AttachType{
	bpf.GateProgConnect4:   ebpf.AttachCGroupInet4Connect,
	bpf.GateProgConnect6:   ebpf.AttachCGroupInet6Connect,
	bpf.GateProgSendmsg4:   ebpf.AttachCGroupUDP4Sendmsg,
	bpf.GateProgSendmsg6:   ebpf.AttachCGroupUDP6Sendmsg,
	bpf.GateProgBind4:      ebpf.AttachCGroupInet4Bind,
	bpf.GateProgBind6:      ebpf.AttachCGroupInet6Bind,
	bpf.GateProgSockCreate: ebpf.AttachCGroupInetSockCreate,
	bpf.GateProgEgress:     ebpf.AttachCGroupInetEgress,
	bpf.GateProgIngress:    ebpf.AttachCGroupInetIngress,
	bpf.GateProgTrack:      ebpf.AttachCGroupSockOps,
	bpf.GateProgDevice:     ebpf.AttachCGroupDevice,
}

// tracepoints are the programs that are attached to tracepoints of the whole system, and where.
var tracepoints = map[string]string{
	bpf.GateProgExec:   "sched_process_exec",
	bpf.GateProgForked: "sched_process_fork",
	bpf.GateProgEnded:  "sched_process_exit",
}

// linkCount is how many links complete pins have.
var linkCount = len(attachments) + len(tracepoints)

// detachTime is how long the kernel may take to detach programs whose pins were just removed.
const detachTime = 2 * time.Second

// checkUnguarded refuses a parent that has programs of pins elsewhere. With two sets of programs on it each would refuse
// everything to the sandboxes that only the other knows.
func checkUnguarded(cfg Config, parent cgroup) error {
	for start := time.Now(); ; time.Sleep(time.Millisecond) {
		n := 0
		for _, how := range attachments {
			attached, err := link.QueryPrograms(link.QueryOptions{Target: int(parent.dir.Fd()), Attach: how})
			if err != nil {
				return fmt.Errorf("look for BPF programs on cgroup %s: %w", parent.path, err)
			}
			n += len(attached.Programs)
		}
		if n == 0 {
			return nil
		}
		if time.Since(start) > detachTime {
			return fmt.Errorf("cgroup %s has BPF programs already, and their pins are not in %s: use the BPF file system that they were loaded with (--bpffs), or another cgroup (--cgroup-parent)",
				parent.path, cfg.BPFFS)
		}
	}
}

// load loads the programs, attaches them to parent and pins everything in the new directory dir.
func load(dir string, parent cgroup) error {
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(bpf.GateObject()))
	if err != nil {
		return fmt.Errorf("read the built-in BPF object: %w", err)
	}
	// The kernel refuses type information on some maps and cilium/ebpf then tries again; creating those twice costs
	// RCU grace periods. Keys and values are described by the Go types.
	for _, m := range spec.Maps {
		if m.Type == ebpf.CGroupArray || m.Type == ebpf.ArrayOfMaps {
			m.Key, m.Value = nil, nil
		}
	}
	objects, err := ebpf.NewCollection(spec)
	if err != nil {
		return explainLoad(err)
	}
	defer objects.Close()

	for _, sub := range []string{"", mapsDir, linksDir, ringsDir} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			return fmt.Errorf("make a directory for BPF pins: %w", err)
		}
	}
	if err := objects.Maps[bpf.GateMapParent].Put(uint32(0), uint32(parent.dir.Fd())); err != nil {
		return fmt.Errorf("tell the BPF programs the parent cgroup: %w", err)
	}
	if err := makeRings(filepath.Join(dir, ringsDir), spec.Maps[bpf.GateMapRings].InnerMap, objects.Maps[bpf.GateMapRings]); err != nil {
		return err
	}
	var m mapSet
	for name := range m.byName() {
		if err := objects.Maps[name].Pin(filepath.Join(dir, mapsDir, name)); err != nil {
			return fmt.Errorf("pin BPF map %s: %w", name, err)
		}
	}
	if err := objects.Programs[bpf.GateProgIdentify].Pin(filepath.Join(dir, identifyPin)); err != nil {
		return fmt.Errorf("pin BPF program identify: %w", err)
	}
	if err := attach(filepath.Join(dir, linksDir), objects, parent); err != nil {
		return err
	}
	if ProbeLSM() != nil {
		return nil
	}
	if err := loadLSM(dir, objects); err != nil {
		// Level static holds without them, and LevelReason says why it is that one.
		return removeLSM(dir)
	}
	return nil
}

// makeRings makes, pins and enters the event rings. They go into the map of maps in one batch: each single update
// would wait for an RCU grace period.
func makeRings(dir string, spec *ebpf.MapSpec, outer *ebpf.Map) error {
	var indexes, fds []uint32
	for i := range uint32(rings) {
		ring, err := ebpf.NewMap(spec)
		if err != nil {
			return fmt.Errorf("make event ring %d: %w", i, err)
		}
		defer ring.Close()
		sub := filepath.Join(dir, strconv.FormatUint(uint64(i), 10))
		if err := os.Mkdir(sub, 0o700); err != nil {
			return fmt.Errorf("make a directory for BPF pins: %w", err)
		}
		if err := ring.Pin(filepath.Join(sub, ringPin)); err != nil {
			return fmt.Errorf("pin event ring %d: %w", i, err)
		}
		indexes = append(indexes, i)
		fds = append(fds, uint32(ring.FD()))
	}
	if _, err := outer.BatchUpdate(indexes, fds, nil); err != nil {
		return fmt.Errorf("enter the event rings: %w", err)
	}
	return nil
}

// attach attaches every program and pins its link. The links alone keep the programs in force.
func attach(dir string, objects *ebpf.Collection, parent cgroup) error {
	for name, how := range attachments {
		l, err := link.AttachCgroup(link.CgroupOptions{Path: parent.path, Attach: how, Program: objects.Programs[name]})
		if err != nil {
			return fmt.Errorf("attach BPF program %s to cgroup %s: %w", name, parent.path, err)
		}
		err = pinLink(l, filepath.Join(dir, name))
		if err != nil {
			return err
		}
	}
	for name, where := range tracepoints {
		l, err := link.AttachTracing(link.TracingOptions{Program: objects.Programs[name], AttachType: ebpf.AttachTraceRawTp})
		if err != nil {
			return fmt.Errorf("attach BPF program %s to the tracepoint %s: %w", name, where, err)
		}
		if err := pinLink(l, filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

func pinLink(l link.Link, path string) error {
	defer l.Close()
	if err := l.Pin(path); err != nil {
		return fmt.Errorf("pin BPF link %s: %w", path, err)
	}
	return nil
}

// explainLoad adds to a load error what can be done about it.
func explainLoad(err error) error {
	var verifier *ebpf.VerifierError
	switch {
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("load the BPF programs: %w; this needs root (CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON, CAP_SYS_ADMIN) and a kernel that is not locked down", err)
	case errors.As(err, &verifier):
		return fmt.Errorf("load the BPF programs: this kernel's verifier refuses one: %w; Linux 6.1 or newer with CONFIG_DEBUG_INFO_BTF is needed; please report this with the output of `uname -r`", err)
	default:
		return fmt.Errorf("load the BPF programs: %w; Linux 6.1 or newer with BPF and CONFIG_DEBUG_INFO_BTF (the file /sys/kernel/btf/vmlinux) is needed", err)
	}
}
