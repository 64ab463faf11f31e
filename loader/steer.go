package loader

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"

	"github.com/nemoclaw/nemoclaw/bpf"
)

// Sockets are the agent's sockets in a sandbox's network namespace, listening or bound. What is sent to a nil one is
// dropped. A TCP listener must not be an MPTCP one, which Go makes by default.
type Sockets struct {
	TCP4, TCP6         syscall.Conn // every TCP port that no other socket here takes
	DNSTCP4, DNSTCP6   syscall.Conn // TCP port 53
	DNSUDP4, DNSUDP6   syscall.Conn // UDP port 53
	Connect4, Connect6 syscall.Conn // ConnectProxy4, ConnectProxy6
}

// slots returns the sockets in the order of enum slot in bpf/steer.c.
func (s Sockets) slots() []syscall.Conn {
	return []syscall.Conn{s.TCP4, s.TCP6, s.DNSTCP4, s.DNSTCP6, s.DNSUDP4, s.DNSUDP6, s.Connect4, s.Connect6}
}

// steerSpec is parsed once and without type information: the kernel refuses that of socket maps, and trying costs an
// RCU grace period at every start.
var steerSpec = sync.OnceValues(func() (*ebpf.CollectionSpec, error) {
	spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(bpf.SteerObject()))
	if err != nil {
		return nil, fmt.Errorf("read the built-in BPF object: %w", err)
	}
	sockets := spec.Maps[bpf.SteerMapSockets]
	sockets.Key, sockets.Value = nil, nil
	code := spec.Programs[bpf.SteerProgSteer].Instructions
	for i := range code {
		code[i] = btf.WithFuncMetadata(code[i], nil).WithSource(nil)
	}
	return spec, nil
})

// AttachNetns hands everything that is sent inside a network namespace to an address that is not loopback to the
// agent's sockets, whatever the address. Closing the result ends that. It decides nothing.
func (g *Guard) AttachNetns(netns int, s Sockets) (io.Closer, error) {
	spec, err := steerSpec()
	if err != nil {
		return nil, err
	}
	var objects struct {
		Steer   *ebpf.Program `ebpf:"steer"`
		Sockets *ebpf.Map     `ebpf:"sockets"`
	}
	if err := spec.LoadAndAssign(&objects, nil); err != nil {
		return nil, explainLoad(err)
	}
	defer objects.Steer.Close()
	defer objects.Sockets.Close()
	for i, conn := range s.slots() {
		if conn == nil {
			continue
		}
		if err := putSocket(objects.Sockets, uint32(i), conn); err != nil {
			return nil, err
		}
	}
	l, err := link.AttachNetNs(netns, objects.Steer)
	if err != nil {
		return nil, fmt.Errorf("attach the socket look-up program to the sandbox's network namespace: %w", err)
	}
	return l, nil
}

func putSocket(m *ebpf.Map, slot uint32, conn syscall.Conn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return fmt.Errorf("hand socket %d to the socket look-up program: %w", slot, err)
	}
	var putErr error
	if err := raw.Control(func(fd uintptr) { putErr = m.Put(slot, uint64(fd)) }); err != nil {
		return fmt.Errorf("hand socket %d to the socket look-up program: %w", slot, err)
	}
	if errors.Is(putErr, syscall.EOPNOTSUPP) {
		return fmt.Errorf("hand socket %d to the socket look-up program: %w; is it a listening socket, without MPTCP?", slot, putErr)
	}
	if putErr != nil {
		return fmt.Errorf("hand socket %d to the socket look-up program: %w", slot, putErr)
	}
	return nil
}
