package loader

import (
	"errors"
	"fmt"
	"net/netip"
	"unsafe"

	"github.com/cilium/ebpf"

	"github.com/nemoclaw/nemoclaw/bpf"
	"github.com/nemoclaw/nemoclaw/policy"
)

// Peer is who opened a connection, as the kernel saw it at connect, and what it decided.
type Peer struct {
	PID      int // of the process, in the host's pid namespace
	Exe      FileID
	Args     string // command line, arguments joined by a space, at most 256 bytes
	Taint    Taint  // what other code may run in the process by; not known of who asks by UDP
	Verdict  policy.Verdict
	Rule     policy.RuleID
	Revision uint32
}

func peer(p *bpf.GatePeer) Peer {
	return Peer{
		PID: int(p.Tgid), Exe: fileID(p.Exe), Args: joinArgs(p.Args[:min(int(p.ArgsLen), len(p.Args))]),
		Taint: Taint(p.Taint), Verdict: policy.Verdict(p.Verdict), Rule: policy.RuleID(p.Rule), Revision: p.Revision,
	}
}

// Peer returns who opened the TCP connection between two addresses, as an accepted socket inside the sandbox's network
// namespace names them: client is its remote address, server its local one. When it reports false nobody may be
// served: the connection was not judged, is beyond the cap, or ended long ago.
func (g *Guard) Peer(client, server netip.AddrPort) (Peer, bool) {
	key := bpf.GateTuple{
		Cgid: g.cgid, Local: words(client.Addr()), Remote: words(server.Addr()),
		LocalPort: client.Port(), RemotePort: server.Port(),
	}
	var value bpf.GatePeer
	// A client that is done already was entered into departed before it was taken out of flows. By pointers: to have the
	// types looked at costs more than the look-up, and every connection waits for it.
	for _, m := range [...]*ebpf.Map{g.l.maps.flows, g.l.maps.departed} {
		if m.Lookup(unsafe.Pointer(&key), unsafe.Pointer(&value)) == nil {
			return peer(&value), true
		}
	}
	return Peer{}, false
}

// Asker returns who last sent a DNS query by UDP from an address, for records only: a port can change hands, and
// the oldest askers are forgotten.
func (g *Guard) Asker(client netip.AddrPort) (Peer, bool) {
	key := bpf.GateAskerKey{Cgid: g.cgid, Port: uint32(client.Port()), Family: uint32(family(client.Addr()))}
	var value bpf.GatePeer
	if g.l.maps.askers.Lookup(key, &value) != nil {
		return Peer{}, false
	}
	return peer(&value), true
}

// Connections returns how many connections count against the cap now.
func (g *Guard) Connections() (int, error) {
	var n uint64
	if err := g.l.maps.conns.Lookup(g.cgid, &n); err != nil {
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return 0, errClosed
		}
		return 0, fmt.Errorf("read the connection count: %w", err)
	}
	return int(n), nil
}
