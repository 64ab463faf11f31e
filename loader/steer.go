package loader

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
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

// steer is a loaded look-up program and its sockets. It stays pinned beside the event ring of whoever loaded it, and is
// used for one network namespace after the other: loading one takes ten times as long as opening it.
type steer struct {
	program *ebpf.Program
	sockets *ebpf.Map
}

func (s *steer) close() error { return errors.Join(s.program.Close(), s.sockets.Close()) }

// What steers are pinned as, in the directory of the ring; a number follows.
const (
	steerPin   = "steer"
	socketsPin = "sockets"
)

// openSteer opens the n-th steer of this process's ring, or makes it. A loader that was killed meanwhile leaves sockets
// without a program.
func openSteer(dir string, n int) (*steer, error) {
	programPin, mapPin := filepath.Join(dir, steerPin+strconv.Itoa(n)), filepath.Join(dir, socketsPin+strconv.Itoa(n))
	program, err := ebpf.LoadPinnedProgram(programPin, nil)
	if errors.Is(err, os.ErrNotExist) {
		return makeSteer(programPin, mapPin)
	}
	if err != nil {
		return nil, fmt.Errorf("open pinned BPF program %s: %w", programPin, err)
	}
	sockets, err := ebpf.LoadPinnedMap(mapPin, nil)
	if err != nil {
		program.Close()
		return nil, fmt.Errorf("open pinned BPF map %s: %w", mapPin, err)
	}
	return &steer{program, sockets}, nil
}

func makeSteer(programPin, mapPin string) (*steer, error) {
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
	s := &steer{objects.Steer, objects.Sockets}
	if err = os.Remove(mapPin); err == nil || errors.Is(err, os.ErrNotExist) {
		if err = s.sockets.Pin(mapPin); err == nil {
			err = s.program.Pin(programPin)
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("pin the socket look-up program: %w", err), s.close())
	}
	return s, nil
}

// takeSteer returns a steer that no namespace has.
func (l *Loader) takeSteer() (*steer, error) {
	l.mu.Lock()
	if last := len(l.steers) - 1; last >= 0 {
		s := l.steers[last]
		l.steers = l.steers[:last]
		l.mu.Unlock()
		return s, nil
	}
	n := l.steerCount
	l.steerCount++
	l.mu.Unlock()
	return openSteer(l.ring.dir, n)
}

// steering is a steer at work in a network namespace.
type steering struct {
	l    *Loader
	link link.Link
	s    *steer
	once sync.Once
	err  error
}

// Close ends the steering. The steer goes to the next namespace, without a socket of this one.
func (s *steering) Close() error {
	s.once.Do(func() {
		if s.err = s.link.Close(); s.err == nil {
			s.err = s.l.giveSteer(s.s)
		}
	})
	return s.err
}

// giveSteer takes back a steer that is attached nowhere.
func (l *Loader) giveSteer(s *steer) error {
	for slot := range uint32(len(Sockets{}.slots())) {
		// A closed socket left by itself; the kernel calls what has none an invalid argument.
		if err := s.sockets.Delete(slot); err != nil && !errors.Is(err, syscall.EINVAL) {
			return errors.Join(fmt.Errorf("take socket %d from the socket look-up program: %w", slot, err), s.close())
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.steers = append(l.steers, s)
	return nil
}

// AttachNetns hands everything that is sent inside a network namespace to an address that is not loopback to the
// agent's sockets, whatever the address. Closing the result ends that. It decides nothing.
func (g *Guard) AttachNetns(netns int, s Sockets) (io.Closer, error) {
	steer, err := g.l.takeSteer()
	if err != nil {
		return nil, err
	}
	for i, conn := range s.slots() {
		if conn == nil {
			continue
		}
		if err := putSocket(steer.sockets, uint32(i), conn); err != nil {
			return nil, errors.Join(err, g.l.giveSteer(steer))
		}
	}
	l, err := link.AttachNetNs(netns, steer.program)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("attach the socket look-up program to the sandbox's network namespace: %w", err), g.l.giveSteer(steer))
	}
	return &steering{l: g.l, link: l, s: steer}, nil
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
