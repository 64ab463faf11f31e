package sandbox

import (
	"encoding/binary"
	"fmt"
	"slices"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Offsets in the kernel's struct seccomp_data. Arguments are 64 bits wide, and the kernel takes most of them as ints:
// only the low half may be compared, else TIOCSTI|1<<32 would be another ioctl to the filter and the same to the kernel.
const (
	offNumber  = 0
	offArch    = 4
	offArgs    = 16
	sizeArg    = 8
	x32Bit     = 0x40000000
	maxFilter  = 4096 // instructions, the kernel's own limit
	lastKnown  = 469  // file_setattr: what is newer does not exist for programs inside
	maxBpfSkip = 255
)

// verdict is what the filter returns.
type verdict uint32

const (
	callAllow verdict = unix.SECCOMP_RET_ALLOW
	callKill  verdict = unix.SECCOMP_RET_KILL_PROCESS
)

func callErrno(e unix.Errno) verdict { return unix.SECCOMP_RET_ERRNO | verdict(e) }

// condition compares 32 bits of an argument, masked, with a list of values.
type condition struct {
	arg    int
	mask   uint32 // 0: all bits
	any    []uint32
	negate bool // true when the argument is none of any
	high   bool // of a pointer: the high half, which an int has not
}

// check is one line of a decision about a system call: when all conditions hold, do it.
type check struct {
	when []condition
	do   verdict
}

// call is one system call that is not simply allowed.
type call struct {
	name         string
	amd64, arm64 int // numbers; -1 where the architecture has none
	checks       []check
	otherwise    verdict
}

// filterFor assembles the seccomp filter for an architecture as Go names it. noMemfd takes memfd_create away, for
// kernels that can't make memfds non-executable (before 6.3).
func filterFor(goarch string, noMemfd bool) ([]bpf.Instruction, error) {
	arch := uint32(unix.AUDIT_ARCH_X86_64)
	if goarch == "arm64" {
		arch = unix.AUDIT_ARCH_AARCH64
	} else if goarch != "amd64" {
		return nil, fmt.Errorf("sandbox: there is no system call filter for %s: amd64 and arm64 are supported", goarch)
	}
	leaves, err := segments(goarch, noMemfd)
	if err != nil {
		return nil, err
	}
	program := []bpf.Instruction{
		bpf.LoadAbsolute{Off: offArch, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: arch, SkipTrue: 1},
		// A program of another architecture (32-bit, by file or by int 0x80): its calls would need a table of their own.
		bpf.RetConstant{Val: uint32(callKill)},
		bpf.LoadAbsolute{Off: offNumber, Size: 4},
		// The x32 calls of amd64 are above this as well.
		bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: lastKnown, SkipFalse: 1},
		bpf.RetConstant{Val: uint32(callErrno(unix.ENOSYS))},
	}
	program = append(program, search(leaves)...)
	if len(program) > maxFilter {
		return nil, fmt.Errorf("sandbox: the system call filter has %d instructions; the kernel takes %d", len(program), maxFilter)
	}
	return program, nil
}

// encodeFilter writes a program as the kernel's struct sock_filter.
func encodeFilter(program []bpf.Instruction) ([]byte, error) {
	raw, err := bpf.Assemble(program)
	if err != nil {
		return nil, fmt.Errorf("sandbox: assembling the system call filter: %w", err)
	}
	var out []byte
	for _, r := range raw {
		out = binary.LittleEndian.AppendUint16(out, r.Op)
		out = append(out, r.Jt, r.Jf)
		out = binary.LittleEndian.AppendUint32(out, r.K)
	}
	return out, nil
}

// segment is a range of system call numbers that are judged alike, up to the next segment's start.
type segment struct {
	start uint32
	code  []bpf.Instruction
}

// segments covers all numbers from 0 to lastKnown.
func segments(goarch string, noMemfd bool) ([]segment, error) {
	special := map[int]call{}
	for _, c := range calls {
		nr := c.amd64
		if goarch == "arm64" {
			nr = c.arm64
		}
		if nr < 0 || c.name == "memfd_create" && !noMemfd {
			continue
		}
		if other, double := special[nr]; double {
			return nil, fmt.Errorf("sandbox: the system calls %s and %s have one number", c.name, other.name)
		}
		special[nr] = c
	}
	allow := []bpf.Instruction{bpf.RetConstant{Val: uint32(callAllow)}}
	var list []segment
	for nr := range lastKnown + 1 {
		code := allow
		if c, ok := special[nr]; ok {
			code = judge(c)
		}
		if len(list) == 0 || !slices.Equal(list[len(list)-1].code, code) {
			list = append(list, segment{uint32(nr), code})
		}
	}
	return list, nil
}

// judge compiles the checks of one call; the number is no longer needed.
func judge(c call) []bpf.Instruction {
	var code []bpf.Instruction
	for _, k := range c.checks {
		code = append(code, compileCheck(k)...)
	}
	return append(code, bpf.RetConstant{Val: uint32(c.otherwise)})
}

// compileCheck is built from its end, so that each condition knows how far the next check is.
func compileCheck(k check) []bpf.Instruction {
	rest := []bpf.Instruction{bpf.RetConstant{Val: uint32(k.do)}}
	for _, when := range slices.Backward(k.when) {
		offset := offArgs + when.arg*sizeArg
		if when.high {
			offset += sizeArg / 2
		}
		block := []bpf.Instruction{bpf.LoadAbsolute{Off: uint32(offset), Size: 4}}
		if when.mask != 0 {
			block = append(block, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: when.mask})
		}
		for i, value := range when.any {
			left := len(when.any) - 1 - i
			jump := bpf.JumpIf{Cond: bpf.JumpEqual, Val: value}
			switch {
			case when.negate:
				jump.SkipTrue = uint8(left + len(rest))
			case left > 0:
				jump.SkipTrue = uint8(left)
			default:
				jump.SkipFalse = uint8(len(rest))
			}
			block = append(block, jump)
		}
		rest = append(block, rest...)
	}
	return rest
}

// search finds the segment of a number by halves: the cost of a call does not grow with the list.
func search(list []segment) []bpf.Instruction {
	if len(list) == 1 {
		return list[0].code
	}
	middle := len(list) / 2
	low, high := search(list[:middle]), search(list[middle:])
	var code []bpf.Instruction
	if len(low) <= maxBpfSkip {
		code = []bpf.Instruction{bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: list[middle].start, SkipTrue: uint8(len(low))}}
	} else {
		code = []bpf.Instruction{
			bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: list[middle].start, SkipFalse: 1},
			bpf.Jump{Skip: uint32(len(low))},
		}
	}
	return append(append(code, low...), high...)
}
