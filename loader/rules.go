package loader

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/bpf"
	"github.com/nemoclaw/nemoclaw/policy"
)

// PortRule is what the policy says of one port of an address, all its rules already weighed against each other. When
// the address has an entry for the port and one for port 0, the more severe verdict holds.
type PortRule struct {
	Port    uint16 // 0: any port
	Verdict policy.Verdict
	Rule    policy.RuleID
	Set     uint32    // not 0: a command set; Verdict and Rule then are for executables outside of it
	Expires time.Time // zero: never; an expired entry is no entry
}

func (p PortRule) value() bpf.GateRule {
	return bpf.GateRule{Expires: deadline(p.Expires), Rule: uint32(p.Rule), Set: p.Set, Verdict: uint8(p.Verdict)}
}

// Member is what a command set says of one executable.
type Member struct {
	File    FileID
	Verdict policy.Verdict
	Rule    policy.RuleID
}

// AddrRules are the rules of one synthetic address.
type AddrRules struct {
	Addr  netip.Addr
	Ports []PortRule
}

// Ruleset is one revision of a sandbox's network rules. Several can be in the kernel; one is live.
type Ruleset struct {
	g         *Guard
	revision  uint32
	otherwise policy.Verdict // of connections that no rule matches
	removed   bool
	rules     map[bpf.GateRuleKey]struct{}
	prefixes  map[bpf.GatePrefixKey]struct{}
	members   map[bpf.GateMemberKey]struct{}
}

// NewRuleset begins another revision, to be filled and then made live by Swap. Its number must not be in use. otherwise is
// the verdict of connections that no rule matches: Deny or Ask.
func (g *Guard) NewRuleset(revision uint32, otherwise policy.Verdict) *Ruleset {
	rs := newRuleset(g, revision)
	rs.otherwise = otherwise
	g.mu.Lock()
	defer g.mu.Unlock()
	g.staged[rs] = struct{}{}
	return rs
}

func newRuleset(g *Guard, revision uint32) *Ruleset {
	return &Ruleset{
		g: g, revision: revision,
		rules:    make(map[bpf.GateRuleKey]struct{}),
		prefixes: make(map[bpf.GatePrefixKey]struct{}),
		members:  make(map[bpf.GateMemberKey]struct{}),
	}
}

// Live returns the ruleset in force.
func (g *Guard) Live() *Ruleset {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.live
}

// PutAddrs says what may be done to synthetic addresses, each of which stands for a name.
func (rs *Ruleset) PutAddrs(addrs []AddrRules) error {
	entries := make(map[bpf.GateRuleKey]bpf.GateRule, len(addrs))
	for _, a := range addrs {
		if !Synthetic4.Contains(a.Addr) && !Synthetic6.Contains(a.Addr) {
			return fmt.Errorf("put the rules of %s into the kernel: it is in neither %s nor %s; other addresses take prefixes", a.Addr, Synthetic4, Synthetic6)
		}
		if Reserved4.Contains(a.Addr) || Reserved6.Contains(a.Addr) {
			return fmt.Errorf("put the rules of %s into the kernel: it is one of the agent's own addresses", a.Addr)
		}
		for _, p := range a.Ports {
			entries[bpf.GateRuleKey{Cgid: rs.g.cgid, Addr: words(a.Addr), Revision: rs.revision, Port: p.Port}] = p.value()
		}
	}
	return put(rs, rs.g.l.maps.rules, rs.rules, entries, "the rules of names")
}

// PutPrefix says what may be done to the addresses of a prefix. The longest prefix that has the port wins.
func (rs *Ruleset) PutPrefix(p netip.Prefix, ports []PortRule) error {
	if !p.IsValid() {
		return errors.New("put a prefix into the kernel: it is not valid")
	}
	bits := uint32(p.Bits())
	if p.Addr().Is4() {
		bits += 96
	}
	entries := make(map[bpf.GatePrefixKey]bpf.GateRule, len(ports))
	for _, port := range ports {
		entries[bpf.GatePrefixKey{
			Bits: prefixBits + bits, Revision: rs.revision, Cgid: rs.g.cgid, Port: port.Port,
			Family: family(p.Addr()), Addr: words(p.Masked().Addr()),
		}] = port.value()
	}
	return put(rs, rs.g.l.maps.prefixes, rs.prefixes, entries, "the rules of "+p.String())
}

// prefixBits is PREFIX_BITS of bpf/abi.h: what stands before the address in a prefix key.
const prefixBits = 8 * (4 + 8 + 4)

// PutCommandSet says what a command set answers for each executable. Executables that are not in it get the verdict
// of the PortRule that names the set. The set's number is not 0.
func (rs *Ruleset) PutCommandSet(set uint32, members []Member) error {
	if set == 0 {
		return errors.New("put a command set into the kernel: number 0 means none")
	}
	entries := make(map[bpf.GateMemberKey]bpf.GateMember, len(members))
	for _, m := range members {
		key := bpf.GateMemberKey{Cgid: rs.g.cgid, Exe: m.File.key(), Revision: rs.revision, Set: set}
		// One inode under several names: the more severe verdict stays.
		if old, ok := entries[key]; ok && policy.Verdict(old.Verdict) <= m.Verdict {
			continue
		}
		entries[key] = bpf.GateMember{Rule: uint32(m.Rule), Verdict: uint8(m.Verdict)}
	}
	return put(rs, rs.g.l.maps.members, rs.members, entries, "a command set")
}

// put enters what one call adds to a ruleset, and remembers the keys first: what fails half-way is removed with the rest.
func put[K comparable, V any](rs *Ruleset, m *ebpf.Map, known map[K]struct{}, entries map[K]V, what string) error {
	rs.g.mu.Lock()
	defer rs.g.mu.Unlock()
	if rs.removed {
		return fmt.Errorf("put %s into the kernel: revision %d was removed", what, rs.revision)
	}
	if rs.g.closed {
		return errClosed
	}
	for k := range entries {
		known[k] = struct{}{}
	}
	if err := putAll(m, entries); err != nil {
		return putError(what, err)
	}
	return nil
}

func (rs *Ruleset) remove(errs *[]error) {
	if rs.removed {
		return
	}
	rs.removed = true
	m := &rs.g.l.maps
	*errs = append(*errs, removeAll(m.rules, rs.rules), removeAll(m.prefixes, rs.prefixes), removeAll(m.members, rs.members))
}

// Swap makes a ruleset live, in one step: a connection is judged by the old rules or by the new ones, never by some
// of each. It then removes the old one, which waits until no connect in progress can be using it (some milliseconds).
func (g *Guard) Swap(rs *Ruleset) error {
	old, err := g.makeLive(rs)
	if err != nil || old == nil {
		return err
	}
	// The programs run under RCU; this command waits for a grace period. Without it (no kernel refuses it) the old
	// rules stay until Close: removing them early would deny connects in progress.
	if _, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, membarrierGlobal, 0, 0); errno != 0 {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.staged, old)
	var errs []error
	old.remove(&errs)
	return errors.Join(errs...)
}

// makeLive returns the ruleset that was live before, nil when nothing changed.
func (g *Guard) makeLive(rs *Ruleset) (*Ruleset, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.closed:
		return nil, errClosed
	case rs.removed:
		return nil, fmt.Errorf("make rules live: revision %d was removed", rs.revision)
	case rs == g.live:
		return nil, nil
	case rs.otherwise == policy.Allow:
		return nil, errors.New("make rules live: the default of a sandbox is deny or ask, never allow")
	}
	old, before := g.live, g.sandbox
	g.sandbox.Revision, g.sandbox.Verdict = rs.revision, uint8(rs.otherwise)
	if err := g.update(); err != nil {
		g.sandbox = before
		return nil, err
	}
	delete(g.staged, rs)
	g.live, g.staged[old] = rs, struct{}{}
	return old, nil
}

const membarrierGlobal = 1 // MEMBARRIER_CMD_GLOBAL

// Drop removes a ruleset that was never made live.
func (g *Guard) Drop(rs *Ruleset) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if rs == g.live {
		return errors.New("drop rules: they are live")
	}
	delete(g.staged, rs)
	var errs []error
	rs.remove(&errs)
	return errors.Join(errs...)
}

// PutName puts rules for the pair of synthetic addresses of a name into the live ruleset. An invalid address is left out.
func (g *Guard) PutName(addr4, addr6 netip.Addr, ports []PortRule) error {
	var addrs []AddrRules
	for _, a := range []netip.Addr{addr4, addr6} {
		if a.IsValid() {
			addrs = append(addrs, AddrRules{a, ports})
		}
	}
	return g.Live().PutAddrs(addrs)
}

// PutPrefix puts rules for a prefix into the live ruleset.
func (g *Guard) PutPrefix(p netip.Prefix, ports []PortRule) error {
	return g.Live().PutPrefix(p, ports)
}

// SetCommandSet puts a command set into the live ruleset.
func (g *Guard) SetCommandSet(set uint32, members []Member) error {
	return g.Live().PutCommandSet(set, members)
}
