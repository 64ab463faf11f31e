package harness

import (
	"encoding/binary"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"
)

// Packet is one packet that the world's host side sent: the first of a TCP connection, or any other.
type Packet struct {
	Proto uint8 // IPPROTO_TCP, IPPROTO_UDP, ...
	Dst   netip.AddrPort
}

// Capture holds every packet that left the world's host side, on whatever device.
type Capture struct {
	mu      sync.Mutex
	packets []Packet
}

func newCapture() (*Capture, error) {
	proto := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL))
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(proto))
	if err != nil {
		return nil, err
	}
	const room = 16 << 20
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, room); err != nil {
		return nil, err
	}
	c := &Capture{}
	go c.read(fd)
	return c, nil
}

func (c *Capture) read(fd int) {
	buf := make([]byte, 128) // headers are enough
	for {
		n, from, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			return // closed with the process
		}
		ll, ok := from.(*unix.SockaddrLinklayer)
		if !ok || ll.Pkttype != unix.PACKET_OUTGOING {
			continue
		}
		if p, ok := parsePacket(buf[:n]); ok {
			c.mu.Lock()
			c.packets = append(c.packets, p)
			c.mu.Unlock()
		}
	}
}

// parsePacket keeps the first packet of a TCP connection and every packet of other protocols.
func parsePacket(b []byte) (Packet, bool) {
	if len(b) < 20 {
		return Packet{}, false
	}
	var p Packet
	var dst netip.Addr
	var payload []byte
	switch b[0] >> 4 {
	case 4:
		p.Proto = b[9]
		dst = netip.AddrFrom4([4]byte(b[16:20]))
		payload = b[min(int(b[0]&15)*4, len(b)):]
	case 6:
		if len(b) < 40 {
			return Packet{}, false
		}
		p.Proto = b[6]
		dst = netip.AddrFrom16([16]byte(b[24:40]))
		payload = b[40:]
	default:
		return Packet{}, false
	}
	var port uint16
	if len(payload) >= 4 && (p.Proto == unix.IPPROTO_TCP || p.Proto == unix.IPPROTO_UDP) {
		port = binary.BigEndian.Uint16(payload[2:4])
	}
	p.Dst = netip.AddrPortFrom(dst, port)
	if p.Proto == unix.IPPROTO_TCP {
		const syn, ack = 0x02, 0x10
		return p, len(payload) > 13 && payload[13]&syn != 0 && payload[13]&ack == 0
	}
	return p, true
}

// Packets returns the captured packets to a, in order.
func (w *World) Packets(a netip.Addr) []Packet {
	w.seen.mu.Lock()
	defer w.seen.mu.Unlock()
	var out []Packet
	for _, p := range w.seen.packets {
		if p.Dst.Addr() == a {
			out = append(out, p)
		}
	}
	return out
}

// Strangers returns the captured packets to addresses that are not the world's own: what really would have left the machine.
func (w *World) Strangers() []Packet {
	w.seen.mu.Lock()
	defer w.seen.mu.Unlock()
	var out []Packet
	for _, p := range w.seen.packets {
		a := p.Dst.Addr()
		icmp := p.Proto == unix.IPPROTO_ICMPV6 // the world's own neighbour discovery
		if internet4.Contains(a) || internet6.Contains(a) || private4.Contains(a) || a.IsLoopback() || icmp {
			continue
		}
		out = append(out, p)
	}
	return out
}
