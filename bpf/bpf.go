// Package bpf holds the BPF programs, in C, and the Go types and objects that bpf2go makes of them. It owns what runs
// in the kernel: the decision on sockets, packets, devices and execution, by maps that package loader fills. It never
// loads or attaches anything.
//
// The generated files are committed, so building needs no clang. To regenerate (Debian 12: apt-get install clang-14
// llvm-14; nothing else, no kernel or libbpf headers): go generate ./bpf. Another clang makes other, equivalent
// objects; CI compares with exactly this one.
package bpf

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-14 -strip llvm-strip-14 -cflags "-O2 -g -std=gnu11 -mcpu=v3 -nostdinc -Wall -Wextra -Werror -Wno-unused-function -Wno-unused-const-variable -Wno-unused-variable" -target amd64,arm64 -go-package bpf -type sandbox -type rule_key -type rule -type prefix_key -type member_key -type member -type grant_key -type grant -type tuple -type peer -type asker_key -type exec_key -type exec_value -type device_key -type counters -type event -type file_id -type identified -type environ_key Gate gate.c
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-14 -strip llvm-strip-14 -cflags "-O2 -g -std=gnu11 -mcpu=v3 -nostdinc -Wall -Wextra -Werror -Wno-unused-function -Wno-unused-const-variable -Wno-unused-variable" -target amd64,arm64 -go-package bpf Steer steer.c
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-14 -strip llvm-strip-14 -cflags "-O2 -g -std=gnu11 -mcpu=v3 -nostdinc -Wall -Wextra -Werror -Wno-unused-function -Wno-unused-const-variable -Wno-unused-variable" -target amd64,arm64 -go-package bpf -type refused_exec Refused refused.c
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-14 -strip llvm-strip-14 -cflags "-O2 -g -std=gnu11 -mcpu=v3 -nostdinc -Wall -Wextra -Werror -Wno-unused-function -Wno-unused-const-variable -Wno-unused-variable" -target amd64,arm64 -go-package bpf Fire fire.c
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-14 -strip llvm-strip-14 -cflags "-O2 -g -std=gnu11 -mcpu=v3 -nostdinc -Wall -Wextra -Werror -Wno-unused-function -Wno-unused-const-variable -Wno-unused-variable" -target amd64,arm64 -go-package bpf -type file_id -type query Judge judge.c
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-14 -strip llvm-strip-14 -cflags "-O2 -g -std=gnu11 -mcpu=v3 -nostdinc -Wall -Wextra -Werror -Wno-unused-function -Wno-unused-const-variable -Wno-unused-variable" -target amd64,arm64 -go-package bpf -type held_key -type held -type call_key -type call_answer -type file_grant_key -type asked -type lease -type file_event Lsm lsm.c
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-14 -strip llvm-strip-14 -cflags "-O2 -g -std=gnu11 -mcpu=v3 -nostdinc -Wall -Wextra -Werror -Wno-unused-function -Wno-unused-const-variable -Wno-unused-variable" -target amd64,arm64 -go-package bpf -type place -type name_key -type node -type file_query -type judged_file JudgeFile judgefile.c
//go:generate sh -c "for a in x86:amd64 arm64:arm64; do printf 'package bpf\n\n// Made by go generate: the start of the SHA-256 of the objects gate, steer and lsm, one after the other.\nconst version = \"%s\"\n' $(cat gate_${DOLLAR}{a%:*}_bpfel.o steer_${DOLLAR}{a%:*}_bpfel.o lsm_${DOLLAR}{a%:*}_bpfel.o | sha256sum | cut -c1-8) >version_${DOLLAR}{a#*:}.go; done"

// GateObject returns the ELF object of the programs that are attached to the parent cgroup, for this architecture.
// It must not be changed.
func GateObject() []byte { return _GateBytes }

// Version names what is pinned of the objects gate, steer and lsm: two that differ have different names. It is 8 hexadecimal
// digits, and a constant because every start needs it.
func Version() string { return version }

// SteerObject returns the ELF object of the socket look-up program of a network namespace. It must not be changed.
func SteerObject() []byte { return _SteerBytes }

// RefusedObject returns the ELF object of the program that reports refused executions. It must not be changed.
func RefusedObject() []byte { return _RefusedBytes }

// FireObject returns the ELF object of the program that proves that LSM programs fire. It must not be changed.
func FireObject() []byte { return _FireBytes }

// JudgeObject returns the ELF object of the decision core alone, for tests.
func JudgeObject() []byte { return _JudgeBytes }

// JudgeFileObject returns the ELF object of the decision on files alone, for tests.
func JudgeFileObject() []byte { return _JudgeFileBytes }

// AnchorBits is ANCHOR_BITS of abi.h.
const AnchorBits = 18

// Anchor returns the index, in the map "anchors", of an inode that has a node: anchor_of of files.h.
func Anchor(ino uint64, dev uint32) uint32 {
	return uint32((ino ^ uint64(dev)<<32) * 0x9e3779b97f4a7c15 >> (64 - AnchorBits))
}

// LSMObject returns the ELF object of the LSM programs. It must not be changed.
func LSMObject() []byte { return _LsmBytes }
