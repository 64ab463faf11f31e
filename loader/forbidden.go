package loader

import "strconv"

// GuardOp is what was attempted of what no sandbox may do.
type GuardOp uint8

// The attempts, in the order of enum guard_op in bpf/abi.h.
const (
	GuardBPF GuardOp = iota
	GuardTrace
	GuardSignal
	GuardLimit
	GuardPriority
	GuardMount
	GuardNamespace
	GuardLoad
	GuardModule
	GuardLockdown
	GuardPerf
	GuardLog
	GuardKey
	GuardURing
	GuardCapability
	guardOps
)

// String returns the words that records use.
func (op GuardOp) String() string {
	if op >= guardOps {
		return "attempt " + strconv.Itoa(int(op))
	}
	return [guardOps]string{
		"bpf command", "trace", "signal", "limit", "priority", "mount", "user namespace", "kernel code", "kernel module", "locked-down operation", "perf event",
		"kernel log", "key", "io_uring privilege", "capability",
	}[op]
}

// GuardAttempt is something refused that no sandbox may do.
type GuardAttempt struct {
	Op     GuardOp
	Detail uint32 // of a bpf command, signal, limit, capability and the like its number
	Target int    // process that it was tried on, in the host's pid namespace; 0: none
}

// String returns the attempt as records show it.
func (a GuardAttempt) String() string {
	s := a.Op.String()
	switch a.Op {
	case GuardBPF, GuardSignal, GuardLimit, GuardLoad, GuardLockdown, GuardCapability:
		s += " " + strconv.FormatUint(uint64(a.Detail), 10)
	}
	if a.Target != 0 {
		s += " of process " + strconv.Itoa(a.Target)
	}
	return s
}
