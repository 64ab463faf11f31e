package dnsproxy

import (
	"encoding/binary"
	"net/netip"

	"github.com/nemoclaw/nemoclaw/policy"
)

// inward are the ranges that a name must not lead into: a resolved address in one of them reaches the host, its
// neighbours or a cloud's metadata service instead of the internet. Sources: the IANA special-purpose registries
// (RFC 6890 and updates). The documentation ranges are left out on purpose: nothing lives there, and some closed
// networks number their mirrors from them.
var inward = []struct {
	prefix netip.Prefix
	what   string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "this network"},
	{netip.MustParsePrefix("10.0.0.0/8"), "private"},
	{netip.MustParsePrefix("100.64.0.0/10"), "carrier-grade NAT"},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
	{netip.MustParsePrefix("168.63.129.16/32"), "cloud metadata"}, // Azure's, a public address
	{netip.MustParsePrefix("169.254.169.254/32"), "cloud metadata"},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local"},
	{netip.MustParsePrefix("172.16.0.0/12"), "private"},
	{netip.MustParsePrefix("192.0.0.0/24"), "IETF protocol assignments"},
	{netip.MustParsePrefix("192.168.0.0/16"), "private"},
	{netip.MustParsePrefix("198.18.0.0/15"), "the sandbox's synthetic range"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},
	{netip.MustParsePrefix("240.0.0.0/4"), "reserved or broadcast"},
	{netip.MustParsePrefix("::/128"), "unspecified"},
	{netip.MustParsePrefix("::1/128"), "loopback"},
	{netip.MustParsePrefix("100::/64"), "discard-only"},
	{netip.MustParsePrefix("fd00:ec2::254/128"), "cloud metadata"},
	{netip.MustParsePrefix("fd6e:656d:6f63::/64"), "the sandbox's synthetic range"},
	{netip.MustParsePrefix("fc00::/7"), "private (unique local)"},
	{netip.MustParsePrefix("fe80::/10"), "link-local"},
	{netip.MustParsePrefix("fec0::/10"), "private (site-local)"},
	{netip.MustParsePrefix("ff00::/8"), "multicast"},
}

// Inward says what an address is that leads to the host, its neighbours or a cloud's metadata service; false for one of the internet.
func Inward(a netip.Addr) (what string, inward bool) {
	_, what, inward = inwardRange(a)
	return what, inward
}

// inwardRange returns the range that makes a an address a name must not lead to. IPv6 forms that carry an IPv4 address
// (mapped, compatible, NAT64, 6to4, Teredo, ISATAP) are judged by what they carry.
func inwardRange(a netip.Addr) (p netip.Prefix, what string, bad bool) {
	a = a.Unmap().WithZone("")
	for i := range inward {
		if inward[i].prefix.Contains(a) {
			return inward[i].prefix, inward[i].what, true
		}
	}
	for _, e := range embedded(a) {
		if _, what, bad := inwardRange(e); bad {
			// The carrier itself is what a rule would have to name.
			return netip.PrefixFrom(a, a.BitLen()), what + " address embedded in IPv6", true
		}
	}
	return netip.Prefix{}, "", false
}

var (
	nat64     = netip.MustParsePrefix("64:ff9b::/96")
	nat64Priv = netip.MustParsePrefix("64:ff9b:1::/48")
	sixToFour = netip.MustParsePrefix("2002::/16")
	teredo    = netip.MustParsePrefix("2001::/32")
	compat    = netip.MustParsePrefix("::/96")
)

// embedded returns the IPv4 addresses that an IPv6 address carries.
func embedded(a netip.Addr) []netip.Addr {
	if !a.Is6() {
		return nil
	}
	b := a.As16()
	v4 := func(off int) netip.Addr { return netip.AddrFrom4([4]byte(b[off : off+4])) }
	switch {
	case nat64.Contains(a), nat64Priv.Contains(a), compat.Contains(a):
		return []netip.Addr{v4(12)}
	case sixToFour.Contains(a):
		return []netip.Addr{v4(2)}
	case teredo.Contains(a):
		client := binary.BigEndian.Uint32(b[12:]) ^ 0xffffffff // RFC 4380: the client's address is stored inverted
		var c [4]byte
		binary.BigEndian.PutUint32(c[:], client)
		return []netip.Addr{v4(4), netip.AddrFrom4(c)}
	case binary.BigEndian.Uint32(b[8:])&^0x02000000 == 0x00005efe: // ISATAP, RFC 5214
		return []netip.Addr{v4(12)}
	}
	return nil
}

// admits reports whether an address may be dialled on port for a caller. An address of the internet may unless a CIDR rule
// denies it; an inward address only when an allow rule's CIDR lies within the inward range, so that it names that range and
// does not merely contain it (0.0.0.0/0 is not permission to reach cloud metadata). why says what is wrong, for the record,
// and by is the deny rule that says so, nil when the guard itself does.
func admits(n *policy.Network, rules func([]*policy.NetRule) []*policy.NetRule, a netip.Addr, port uint16, who policy.Caller) (ok bool, by *policy.NetRule, why string) {
	a = a.Unmap()
	verdict, rule := n.Judge(rules(n.MatchAddr(a)), port, who)
	if rule != nil && verdict == policy.Deny {
		return false, rule, "a rule denies " + rule.Prefix.String()
	}
	zone, what, bad := inwardRange(a)
	if !bad {
		return true, nil, ""
	}
	if !isSynthetic(a) && rule != nil && verdict == policy.Allow && zone.Overlaps(rule.Prefix) && rule.Prefix.Bits() >= zone.Bits() {
		return true, nil, ""
	}
	return false, nil, "it is " + what + " (" + zone.String() + ")"
}
