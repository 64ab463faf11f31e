package loader

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/bpf"
)

// ErrSilent says that a BPF LSM program was loaded and attached, and never called.
var ErrSilent = errors.New("a BPF LSM program was loaded and attached, and its hook never fired")

// ProbeLSM proves that BPF LSM programs fire here: it attaches one, asks for a socket of a protocol that there is not, and wants
// the program's answer. It returns nil, ErrSilent, or why the kernel takes no such program. Nothing of it stays.
func ProbeLSM() error {
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(bpf.FireObject()))
	if err != nil {
		return fmt.Errorf("read the built-in BPF object: %w", err)
	}
	protocol := 1<<30 | rand.Uint32N(1<<30) // no family knows one so high
	if err := spec.Variables[bpf.FireVarProtocol].Set(protocol); err != nil {
		return fmt.Errorf("tell the BPF program the protocol: %w", err)
	}
	program, err := ebpf.NewCollection(spec)
	if err != nil {
		return fmt.Errorf("load a BPF LSM program: %w", err)
	}
	defer program.Close()
	hook, err := link.AttachLSM(link.LSMOptions{Program: program.Programs[bpf.FireProgFire]})
	if err != nil {
		return fmt.Errorf("attach a BPF LSM program: %w", err)
	}
	defer hook.Close()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, int(protocol))
	if err == nil {
		unix.Close(fd)
	}
	if !errors.Is(err, unix.ENOANO) {
		return ErrSilent
	}
	return nil
}
