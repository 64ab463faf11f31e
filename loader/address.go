package loader

import (
	"encoding/binary"
	"net/netip"
)

// The addresses inside a sandbox that stand for something else, as bpf/address.h has them. The reserved parts are the
// agent's own servers, where the resolver and the CONNECT proxy are all that can be reached; the rest stands for names.
var (
	Synthetic4    = netip.MustParsePrefix("198.18.0.0/15")
	Synthetic6    = netip.MustParsePrefix("fd6e:656d:6f63::/64")
	Reserved4     = netip.MustParsePrefix("198.18.0.0/24")
	Reserved6     = netip.MustParsePrefix("fd6e:656d:6f63::/112")
	ConnectProxy4 = netip.MustParseAddrPort("198.18.0.3:3128")
	ConnectProxy6 = netip.MustParseAddrPort("[fd6e:656d:6f63::3]:3128")
)

// words returns an address as the programs keep it: 16 bytes in network order, IPv4 as ::ffff:a.b.c.d.
func words(a netip.Addr) [4]uint32 {
	b := a.As16()
	var w [4]uint32
	for i := range w {
		w[i] = binary.NativeEndian.Uint32(b[4*i:])
	}
	return w
}

// fromWords is the inverse of words; IPv4 comes back as IPv4.
func fromWords(w [4]uint32) netip.Addr {
	var b [16]byte
	for i, v := range w {
		binary.NativeEndian.PutUint32(b[4*i:], v)
	}
	return netip.AddrFrom16(b).Unmap()
}

// The address families of keys.
const (
	familyIPv4 = 2  // AF_INET
	familyIPv6 = 10 // AF_INET6
)

func family(a netip.Addr) uint16 {
	if a.Unmap().Is4() {
		return familyIPv4
	}
	return familyIPv6
}
