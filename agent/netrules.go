package agent

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nemoclaw/nemoclaw/loader"
	"github.com/nemoclaw/nemoclaw/policy"
)

// netRules turns the network section into what the kernel looks up at connect: for each synthetic address (a name) and
// each prefix the verdict per port, with all rules weighed, and command sets where the verdict depends on who asks.
// It also knows which name is behind a synthetic address. The proxy judges by the same policy a second time, so where
// the kernel's tables can't say something exactly, they say ask or default, never allow.
type netRules struct {
	programs *programs
	guard    *loader.Guard
	start    time.Time // what `expires` counts from
	policies *policies // told of each ruleset before it is in force
	failed   func(error)

	mu       sync.Mutex
	policy   *policy.Compiled
	live     ruleset
	revision uint32 // of live
	sets     map[string]uint32
	pairs    map[string][2]netip.Addr // the addresses of each name
	names    map[netip.Addr]string
	made     time.Time // which rules had expired then is what the first ruleset goes by
	timer    *time.Timer
}

// ruleset is the part of loader.Ruleset that takes rules.
type ruleset interface {
	PutAddrs([]loader.AddrRules) error
	PutPrefix(netip.Prefix, []loader.PortRule) error
	PutCommandSet(uint32, []loader.Member) error
}

// newNetRules puts the rules for prefixes into the kernel, into a guard's ruleset that is in force or is to be. Names come
// one by one: see learn. failed is told when rules that expire could not be taken back in the kernel.
func newNetRules(c *policy.Compiled, p *programs, g *loader.Guard, into ruleset, revision uint32, start time.Time, known *policies, failed func(error)) (*netRules, error) {
	n := &netRules{
		policy: c, programs: p, guard: g, start: start, policies: known, failed: failed, live: into, revision: revision,
		sets: map[string]uint32{}, pairs: map[string][2]netip.Addr{}, names: map[netip.Addr]string{},
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.policies.set(revision, c)
	n.made = time.Now()
	return n, n.putPrefixes(n.made)
}

// begin waits for rules to expire. The rules are in force: what expired while they were put there is taken back at once.
func (n *netRules) begin() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.schedule(n.made)
}

// firstRevision is the number of the ruleset that a guard begins with.
const firstRevision = 1

// learn puts the rules of a name into the kernel, for both its addresses.
func (n *netRules) learn(name string, a4, a6 netip.Addr) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.putName(name, [2]netip.Addr{a4, a6}, time.Now()); err != nil {
		return err
	}
	n.pairs[name] = [2]netip.Addr{a4, a6}
	n.names[a4], n.names[a6] = name, name
	return nil
}

// name returns the name behind a synthetic address.
func (n *netRules) name(a netip.Addr) (string, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	name, ok := n.names[a]
	return name, ok
}

// addrs returns the synthetic addresses of a name; none when it has none.
func (n *netRules) addrs(name string) []netip.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	pair, ok := n.pairs[name]
	if !ok {
		return nil
	}
	return pair[:]
}

// stop ends the taking back of expired rules.
func (n *netRules) stop() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.timer != nil {
		n.timer.Stop()
	}
}

func (n *netRules) putName(name string, pair [2]netip.Addr, now time.Time) error {
	ports, err := n.ports(n.policy.Network.Match(name), now)
	if err != nil || len(ports) == 0 {
		return err
	}
	return n.live.PutAddrs([]loader.AddrRules{{Addr: pair[0], Ports: ports}, {Addr: pair[1], Ports: ports}})
}

func (n *netRules) putPrefixes(now time.Time) error {
	for _, p := range n.policy.Network.Prefixes() {
		// Of the rules about the prefix's first address those about a part of the prefix only have their own entry.
		about := slices.DeleteFunc(slices.Clone(n.policy.Network.MatchAddr(p.Addr())), func(r *policy.NetRule) bool {
			return r.Prefix.Bits() > p.Bits()
		})
		ports, err := n.ports(about, now)
		if err != nil {
			return err
		}
		if len(ports) == 0 {
			continue
		}
		if err := n.live.PutPrefix(p, ports); err != nil {
			return err
		}
	}
	return nil
}

// ports weighs rules, the most specific first, and returns what the kernel needs to know: nothing for a port where the
// default decides for everybody.
func (n *netRules) ports(rules []*policy.NetRule, now time.Time) ([]loader.PortRule, error) {
	rules = slices.DeleteFunc(slices.Clone(rules), func(r *policy.NetRule) bool { return n.expired(r, now) })
	seen := map[uint16]bool{}
	var out []loader.PortRule
	for _, r := range rules {
		// A deny without ports covers all of them. One with commands has no entry for "any port": what it would say
		// of other executables would count against allows of single ports. The proxy, or the default, refuses those.
		if len(r.Ports) == 0 && len(r.Commands) == 0 && !seen[0] {
			seen[0] = true
			out = append(out, loader.PortRule{Verdict: policy.Deny, Rule: r.ID})
		}
		for _, port := range r.Ports {
			if port == 0 || seen[port] {
				continue
			}
			seen[port] = true
			entry, needed, err := n.port(rules, port)
			if err != nil {
				return nil, err
			}
			if needed {
				out = append(out, entry)
			}
		}
	}
	return out, nil
}

func (n *netRules) port(rules []*policy.NetRule, port uint16) (entry loader.PortRule, needed bool, err error) {
	var about []*policy.NetRule
	byCommand := false
	for _, r := range rules {
		if len(r.Ports) == 0 || slices.Contains(r.Ports, port) {
			about = append(about, r)
			byCommand = byCommand || len(r.Commands) > 0
		}
	}
	entry = loader.PortRule{Port: port}
	entry.Verdict, entry.Rule = n.judge(about, port, nil)
	var members []loader.Member
	if byCommand {
		for _, id := range n.programs.ids {
			if v, rule := n.judge(about, port, n.programs.is(id)); v != entry.Verdict || rule != entry.Rule {
				members = append(members, loader.Member{File: id, Verdict: v, Rule: rule})
			}
		}
	}
	if len(members) > 0 {
		if entry.Set, err = n.set(members); err != nil {
			return entry, false, err
		}
	}
	// Where something that lets through expires, the kernel itself stops believing the entry, and the default decides
	// until the entry is made anew without it.
	for _, r := range about {
		if at := n.start.Add(r.Expires); r.Expires > 0 && r.Verdict != policy.Deny && (entry.Expires.IsZero() || at.Before(entry.Expires)) {
			entry.Expires = at
		}
	}
	return entry, entry.Rule != 0 || len(members) > 0, nil
}

func (n *netRules) judge(rules []*policy.NetRule, port uint16, is func(command string) bool) (policy.Verdict, policy.RuleID) {
	v, r := n.policy.Network.Judge(rules, port, policy.Caller{Is: is})
	if r == nil {
		return v, 0
	}
	return v, r.ID
}

// set returns the number of a command set with these members; equal ones share it.
func (n *netRules) set(members []loader.Member) (uint32, error) {
	var key strings.Builder
	for _, m := range members {
		fmt.Fprintf(&key, "%x %d %d,", m.File.Inode, m.Verdict, m.Rule)
	}
	if id, ok := n.sets[key.String()]; ok {
		return id, nil
	}
	id := uint32(len(n.sets) + 1)
	if err := n.live.PutCommandSet(id, members); err != nil {
		return 0, err
	}
	n.sets[key.String()] = id
	return id, nil
}

func (n *netRules) expired(r *policy.NetRule, now time.Time) bool {
	return r.Expires > 0 && !now.Before(n.start.Add(r.Expires))
}

// schedule waits for the next rule to expire, and then makes all entries anew, as one revision.
func (n *netRules) schedule(now time.Time) {
	if n.timer != nil {
		n.timer.Stop()
	}
	var next time.Time
	for i := range n.policy.Network.Rules {
		r := &n.policy.Network.Rules[i]
		if at := n.start.Add(r.Expires); r.Expires > 0 && at.After(now) && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	if next.IsZero() {
		return
	}
	n.timer = time.AfterFunc(time.Until(next), func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		now := time.Now()
		if err := n.renew(n.policy, now); err != nil {
			n.failed(fmt.Errorf("take back network rules that have expired: %w", err))
			return
		}
		n.schedule(now)
	})
}

// change makes another policy's rules the ones in force, for the programs that it knows, in one step; the old ones stay when that fails.
func (n *netRules) change(c *policy.Compiled, p *programs) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	now, old := time.Now(), n.programs
	n.programs = p
	if err := n.renew(c, now); err != nil {
		n.programs = old
		return err
	}
	n.schedule(now)
	return nil
}

func (n *netRules) renew(c *policy.Compiled, now time.Time) error {
	old, oldSets, oldPolicy := n.live, n.sets, n.policy
	n.revision++
	next := n.guard.NewRuleset(n.revision, c.Network.Default)
	n.policies.set(n.revision, c)
	n.live, n.sets, n.policy = next, map[string]uint32{}, c
	err := n.putPrefixes(now)
	for name, pair := range n.pairs {
		if err == nil {
			err = n.putName(name, pair, now)
		}
	}
	if err == nil {
		err = n.guard.Swap(next)
	}
	if err != nil {
		_ = n.guard.Drop(next) // the old rules stay, with their own ends; what is left goes with the sandbox
		n.live, n.sets, n.policy = old, oldSets, oldPolicy
		n.policies.set(n.revision, oldPolicy)
	}
	return err
}
