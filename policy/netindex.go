package policy

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
)

// netIndex finds the rules of a name with one look-up per label, and of an address with one per prefix length in use,
// however many rules there are.
type netIndex struct {
	names    map[string]*nameRules // by name, without its wildcard
	prefixes map[netip.Prefix][]*NetRule
	bits4    []int // lengths of the IPv4 prefixes in use, longest first
	bits6    []int
}

// nameRules are the rules about one name: about itself, about one label more, about any number of labels more.
type nameRules struct{ exact, one, deep []*NetRule }

func (m *merge) indexNetwork(rules []NetRule) netIndex {
	ix := netIndex{names: map[string]*nameRules{}, prefixes: map[netip.Prefix][]*NetRule{}}
	for i := range rules {
		m.steps++
		r := &rules[i]
		if r.Name == "" {
			if ix.prefixes[r.Prefix] == nil {
				bits := &ix.bits6
				if r.Prefix.Addr().Is4() {
					bits = &ix.bits4
				}
				if !slices.Contains(*bits, r.Prefix.Bits()) { // 129 lengths at most
					*bits = append(*bits, r.Prefix.Bits())
				}
			}
			ix.prefixes[r.Prefix] = append(ix.prefixes[r.Prefix], r)
			continue
		}
		name := strings.TrimLeft(r.Name, "*.")
		at := ix.names[name]
		if at == nil {
			at = &nameRules{}
			ix.names[name] = at
		}
		switch len(r.Name) - len(name) {
		case 0:
			at.exact = append(at.exact, r)
		case len("*."):
			at.one = append(at.one, r)
		default:
			at.deep = append(at.deep, r)
		}
	}
	for _, at := range ix.names {
		arrange(at.exact)
		arrange(at.one)
		arrange(at.deep)
	}
	for _, list := range ix.prefixes {
		arrange(list)
	}
	longest := func(a, b int) int { return b - a }
	slices.SortFunc(ix.bits4, longest)
	slices.SortFunc(ix.bits6, longest)
	return ix
}

// arrange puts the rules of one target in the order in which they are named: those that last longest first, so that
// a rule never hides an equal one by expiring, then by place in the files.
func arrange(rules []*NetRule) {
	slices.SortFunc(rules, func(a, b *NetRule) int {
		if (a.Expires == 0) != (b.Expires == 0) {
			if a.Expires == 0 {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(b.Expires, a.Expires), cmp.Compare(a.ID, b.ID))
	})
}

// Match returns the rules about a host name, the most specific first; nil when there is none, or when name can't be a
// host's. Case and a trailing dot don't matter. The slice is shared: don't change it.
func (n *Network) Match(name string) []*NetRule {
	name = lower(strings.TrimSuffix(name, "."))
	if len(name) > maxName {
		return nil
	}
	for label := range strings.SplitSeq(name, ".") {
		if badLabel(label) != "" {
			return nil
		}
	}
	var found []*NetRule
	if at := n.index.names[name]; at != nil {
		found = at.exact
	}
	for depth := 1; ; depth++ {
		_, parent, more := strings.Cut(name, ".")
		if !more {
			return found
		}
		name = parent
		if at := n.index.names[name]; at != nil {
			if depth == 1 {
				found = extend(found, at.one)
			}
			found = extend(found, at.deep)
		}
	}
}

// MatchAddr returns the rules about an address, the longest prefix first; nil when there is none. An IPv4 address in
// IPv6 spelling is the IPv4 address. The slice is shared: don't change it.
func (n *Network) MatchAddr(a netip.Addr) []*NetRule {
	a = a.Unmap().WithZone("")
	lengths := n.index.bits6
	if a.Is4() {
		lengths = n.index.bits4
	}
	var found []*NetRule
	for _, bits := range lengths {
		p, err := a.Prefix(bits)
		if err != nil { // the zero Addr
			return nil
		}
		found = extend(found, n.index.prefixes[p])
	}
	return found
}

// extend appends without ever writing to a slice of the index.
func extend(found, more []*NetRule) []*NetRule {
	switch {
	case len(more) == 0:
		return found
	case len(found) == 0:
		return more
	}
	return append(slices.Clip(found), more...)
}

// ExactNames are the names without a wildcard that are allowed or asked about, sorted: those that can have their
// synthetic address before anybody asks for it.
func (n *Network) ExactNames() []string {
	var names []string
	for name, at := range n.index.names {
		if slices.ContainsFunc(at.exact, func(r *NetRule) bool { return r.Verdict != Deny }) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Prefixes are the prefixes of all cidr rules, whatever their verdict, sorted.
func (n *Network) Prefixes() []netip.Prefix {
	prefixes := make([]netip.Prefix, 0, len(n.index.prefixes))
	for p := range n.index.prefixes {
		prefixes = append(prefixes, p)
	}
	slices.SortFunc(prefixes, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	return prefixes
}
