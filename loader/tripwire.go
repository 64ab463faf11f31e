package loader

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/florianl/go-nflog/v2"
	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// TripEvent is a packet that reached a socket, or would have, although the BPF programs let no such packet out. It
// was not stopped: it tells of a hole.
type TripEvent struct {
	Time     time.Time
	From, To netip.AddrPort // ports are 0 unless the protocol is TCP or UDP
	Protocol uint8          // IP protocol number
}

// Wire is a set tripwire.
type Wire struct {
	conn   *nftables.Conn
	chain  *nftables.Chain
	log    *nflog.Nflog
	cancel context.CancelFunc
}

const (
	wireTable  = "nemoclaw"
	wireGroup  = 1  // NFLOG group; groups belong to a network namespace
	wireRate   = 20 // packets per second that are reported; all are counted
	wireBytes  = 64 // of each packet: headers of IPv6 and UDP
	ipv4Header = 20
	ipv6Header = 40
)

// Tripwire sets an nftables table in a sandbox's network namespace that counts and reports what should never be
// there, and stops nothing. sink is called for each report, one at a time. The table goes with the namespace; Close
// ends the reports and must be called for the namespace to go.
//
// It costs some system calls and may load kernel modules, so call it beside the start, not in it.
func Tripwire(netns int, sink func(TripEvent)) (*Wire, error) {
	// Where the kernel has no such protocol, the library dereferences the connection that it did not get.
	probe, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("set the tripwire: open netfilter's netlink socket: %w; the kernel needs nfnetlink", err)
	}
	unix.Close(probe)
	conn, err := nftables.New(nftables.WithNetNSFd(netns))
	if err != nil {
		return nil, fmt.Errorf("set the tripwire: open netfilter's netlink socket: %w; the kernel needs nf_tables", err)
	}
	w := &Wire{conn: conn}
	table := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: wireTable})
	// On input: what is there has passed the cgroup programs of its sender.
	w.chain = conn.AddChain(&nftables.Chain{
		Name: "input", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookInput,
		Priority: nftables.ChainPriorityFilter,
	})
	conn.FlushChain(w.chain) // a killed agent's
	for _, rule := range wireRules() {
		conn.AddRule(&nftables.Rule{Table: table, Chain: w.chain, Exprs: rule})
	}
	if err := conn.Flush(); err != nil {
		return nil, fmt.Errorf("set the tripwire: add table %s: %w; the kernel needs nf_tables, nft_limit and nft_log", wireTable, err)
	}
	if err := w.listen(netns, sink); err != nil {
		return nil, fmt.Errorf("set the tripwire: listen to NFLOG group %d: %w; the kernel needs nfnetlink_log", wireGroup, err)
	}
	return w, nil
}

func (w *Wire) listen(netns int, sink func(TripEvent)) error {
	log, err := nflog.Open(&nflog.Config{NetNS: netns, Group: wireGroup, Copymode: nflog.CopyPacket, Bufsize: wireBytes, QThresh: 1})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	hook := func(a nflog.Attribute) int {
		if a.Payload != nil {
			if e, ok := parsePacket(*a.Payload); ok {
				e.Time = time.Now()
				sink(e)
			}
		}
		return 0
	}
	failed := func(error) int {
		// Losing reports to a full buffer is no reason to stop: the counter stays right.
		if ctx.Err() != nil {
			return 1
		}
		return 0
	}
	reads := &reading{Context: ctx, begun: make(chan struct{})}
	if err := log.RegisterWithErrorFunc(reads, hook, failed); err != nil {
		cancel()
		return errors.Join(err, log.Close())
	}
	<-reads.begun
	w.log, w.cancel = log, cancel
	return nil
}

// reading is a context that tells when it is first asked for its error. The library's reader does that when it has put itself among
// those that Close waits for: a Close before that would not wait for it.
type reading struct {
	context.Context
	once  sync.Once
	begun chan struct{}
}

func (r *reading) Err() error {
	r.once.Do(func() { close(r.begun) })
	return r.Context.Err()
}

// Count returns how many packets have tripped, reported or not.
func (w *Wire) Count() (uint64, error) {
	rules, err := w.conn.GetRules(w.chain.Table, w.chain)
	if err != nil {
		return 0, fmt.Errorf("read the tripwire's counter: %w", err)
	}
	var n uint64
	for _, r := range rules {
		for _, e := range r.Exprs {
			if c, ok := e.(*expr.Counter); ok {
				n += c.Packets
			}
		}
	}
	return n, nil
}

// Close ends the reports.
func (w *Wire) Close() error {
	w.cancel()
	return w.log.Close()
}

// wireRules returns the rules in order: what may be there is accepted, the last one counts and reports the rest.
func wireRules() [][]expr.Any {
	accept := &expr.Verdict{Kind: expr.VerdictAccept}
	loopback4 := netip.MustParsePrefix("127.0.0.0/8")
	return [][]expr.Any{
		// First what most packets are, TCP after its SYN: no connection comes without one, and the SYN goes through the rest.
		append(append(protocolIs(unix.IPPROTO_TCP), tcpFlagIsClear(tcpSYN)...), accept),
		append(between4(loopback4, loopback4), accept),
		append(between6(netip.IPv6Loopback()), accept),
		append(portIs(unix.IPPROTO_UDP, dstPort, 53), accept),
		append(portIs(unix.IPPROTO_UDP, srcPort, 53), accept),
		append(portIs(unix.IPPROTO_TCP, dstPort, 53), accept),
		append(portIs(unix.IPPROTO_TCP, dstPort, ConnectProxy4.Port()), accept),
		// Nothing but those two servers is to be reached at the agent's own addresses.
		append(append(protocolIs(unix.IPPROTO_TCP), prefixIs4(dst4, Reserved4)...), report()...),
		append(append(protocolIs(unix.IPPROTO_TCP), prefixIs6(dst6, Reserved6)...), report()...),
		append(protocolIs(unix.IPPROTO_TCP), accept),
		// Answers of the kernel itself to UDP that nobody takes.
		append(firstByteIs(unix.IPPROTO_ICMP, 3), accept),
		append(firstByteIs(unix.IPPROTO_ICMPV6, 1), accept),
		report(),
	}
}

// Offsets in headers.
const (
	src4, dst4       = 12, 16
	src6, dst6       = 8, 24
	srcPort, dstPort = 0, 2
	tcpFlags         = 13
	tcpSYN           = 0x02
)

func report() []expr.Any {
	return []expr.Any{
		&expr.Counter{},
		&expr.Limit{Type: expr.LimitTypePkts, Rate: wireRate, Unit: expr.LimitTimeSecond, Burst: wireRate},
		&expr.Log{Group: wireGroup, Snaplen: wireBytes, Key: 1<<unix.NFTA_LOG_GROUP | 1<<unix.NFTA_LOG_SNAPLEN},
	}
}

func equal(data []byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data} }

func familyIs(f byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, equal([]byte{f})}
}

func protocolIs(p byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, equal([]byte{p})}
}

func payload(base expr.PayloadBase, offset, length uint32) expr.Any {
	return &expr.Payload{DestRegister: 1, Base: base, Offset: offset, Len: length}
}

func prefixIs(family byte, offset uint32, p netip.Prefix) []expr.Any {
	addr := p.Masked().Addr().AsSlice()
	mask := make([]byte, len(addr))
	for i := range p.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	n := uint32(len(addr))
	return append(familyIs(family), payload(expr.PayloadBaseNetworkHeader, offset, n),
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: n, Mask: mask, Xor: make([]byte, n)}, equal(addr))
}

func prefixIs4(offset uint32, p netip.Prefix) []expr.Any {
	return prefixIs(unix.NFPROTO_IPV4, offset, p)
}
func prefixIs6(offset uint32, p netip.Prefix) []expr.Any {
	return prefixIs(unix.NFPROTO_IPV6, offset, p)
}

func between4(from, to netip.Prefix) []expr.Any {
	return append(prefixIs4(src4, from), prefixIs4(dst4, to)...)
}

func between6(a netip.Addr) []expr.Any {
	p := netip.PrefixFrom(a, a.BitLen())
	return append(prefixIs6(src6, p), prefixIs6(dst6, p)...)
}

func portIs(protocol byte, offset uint32, port uint16) []expr.Any {
	return append(protocolIs(protocol), payload(expr.PayloadBaseTransportHeader, offset, 2), equal(binaryutil.BigEndian.PutUint16(port)))
}

func firstByteIs(protocol, value byte) []expr.Any {
	return append(protocolIs(protocol), payload(expr.PayloadBaseTransportHeader, 0, 1), equal([]byte{value}))
}

func tcpFlagIsClear(flag byte) []expr.Any {
	return []expr.Any{
		payload(expr.PayloadBaseTransportHeader, tcpFlags, 1),
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{flag}, Xor: []byte{0}}, equal([]byte{0}),
	}
}

// parsePacket reads the beginning of an IP packet. It reports false for what is none.
func parsePacket(b []byte) (TripEvent, bool) {
	var e TripEvent
	var from, to netip.Addr
	var transport []byte
	switch {
	case len(b) >= ipv4Header && b[0]>>4 == 4:
		e.Protocol = b[9]
		from, to = netip.AddrFrom4([4]byte(b[src4:])), netip.AddrFrom4([4]byte(b[dst4:]))
		if n := int(b[0]&0xf) * 4; n >= ipv4Header && n <= len(b) && binary.BigEndian.Uint16(b[6:])&0x1fff == 0 {
			transport = b[n:]
		}
	case len(b) >= ipv6Header && b[0]>>4 == 6:
		e.Protocol = b[6]
		from, to = netip.AddrFrom16([16]byte(b[src6:])), netip.AddrFrom16([16]byte(b[dst6:]))
		transport = b[ipv6Header:]
	default:
		return TripEvent{}, false
	}
	var ports [2]uint16
	if len(transport) >= 4 && (e.Protocol == unix.IPPROTO_TCP || e.Protocol == unix.IPPROTO_UDP) {
		ports[0], ports[1] = binary.BigEndian.Uint16(transport), binary.BigEndian.Uint16(transport[2:])
	}
	e.From, e.To = netip.AddrPortFrom(from, ports[0]), netip.AddrPortFrom(to, ports[1])
	return e, true
}
