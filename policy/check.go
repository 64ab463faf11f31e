package policy

import (
	"fmt"
	"net/netip"
)

// The checks between the keys of one rule. A key that could not be read counts as there, so that one mistake makes
// one error.

func (r *NetAllow) check(d *decoder, key string) {
	r.NetTarget.check(d, r.At, key)
	if !r.CIDR.Set || !r.Protocol.Set {
		r.checkECH(d, key)
		return
	}
	if p := r.Protocol.V; p == "https" || p == "tls" || p == "http" {
		d.add(r.Protocol.At, join(key, "protocol"), "a cidr rule has no name that "+string(p)+" could be checked against", "write tcp, or a domain rule")
	}
	r.checkECH(d, key)
}

func (r *NetAllow) checkECH(d *decoder, key string) {
	if p := r.Protocol.V; r.ECH.Set && p != "" && p != "https" && p != "tls" {
		d.add(r.ECH.At, join(key, "ech"), "ech says something of https and tls only; the protocol is "+string(p), "remove it")
	}
}

func (r *NetDeny) check(d *decoder, key string) { r.NetTarget.check(d, r.At, key) }

// check is not a method that decoder.mapping would find on its own: NetTarget is embedded.
func (t *NetTarget) check(d *decoder, at At, key string) {
	switch {
	case t.Domain.Set && t.CIDR.Set:
		d.add(t.CIDR.At, join(key, "cidr"), "a rule has a domain or a cidr, not both", "write two rules")
	case !t.Domain.Set && !t.CIDR.Set && !d.meant["domain"] && !d.meant["cidr"]:
		d.add(at, join(key, "domain"), "the key is missing", "a rule needs domain or cidr")
	}
}

func (s *NetworkSection) check(d *decoder, key string) {
	for i := range s.Allow {
		p := netip.Prefix(s.Allow[i].CIDR.V)
		if p.IsValid() && p.Bits() == 0 {
			d.add(s.Allow[i].CIDR.At, fmt.Sprintf("%s.allow[%d].cidr", key, i), p.String()+" would be every address", "name the prefixes that are needed")
		}
	}
}
