package learn

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/publicsuffix"

	"github.com/nemoclaw/nemoclaw/policy"
)

// host is one network rule to write.
type host struct {
	rule
	target   string // a name, a wildcard or a prefix
	cidr     bool
	port     uint16
	protocol policy.Protocol
	ech      bool
	expires  time.Duration
	commands []string // sorted; valid unless anybody
	anybody  bool
	unnamed  bool   // anybody, because what connected has no name in the policy
	why      string // instead of evidence
}

// network sorts a connection, or an HTTP request on one.
func (l *learner) network(f *fact) {
	name, addr, port, ok := target(f.Object)
	if !ok {
		if f.Verdict == policy.Deny {
			l.leave(f, f.Reason)
		}
		return
	}
	if name == policy.InferenceName { // its section is kept whole, and no other rule could let anybody there
		if f.Verdict == policy.Deny {
			l.leave(f, f.Reason)
		}
		return
	}
	from := l.ruleOf(f.Rule, name, addr, port)
	h := &host{target: name, port: port}
	if name == "" {
		h.target, h.cidr = netip.PrefixFrom(addr, addr.BitLen()).String(), true
	}
	how := used
	if from != nil && !l.o.Finished { // the rule is kept as it is
		l.use(from, f)
		return
	}
	switch {
	case f.Verdict == policy.Allow && from != nil:
		h.speaks(from)
		if from.Verdict == policy.Ask {
			how = approved
		}
	case f.Verdict == policy.Allow: // a person approved what no rule is about
		how = approved
		h.protocol = policy.ProtocolOf(port)
		if h.cidr {
			h.protocol = policy.TCP
		}
	case l.refused[question{f.Object, f.Subject.Exe}]:
		l.leave(f, "a person denied it")
		return
	case f.Rule == "default" || from != nil && from.Verdict == policy.Ask:
		how = refused
		p := proposal(f.Decision)
		if p == nil || p.Network == nil || len(p.Network.Allow) != 1 {
			l.leave(f, "nothing is proposed that opens a cloud's metadata service, or that the language can't say")
			return
		}
		h.protocol = map[policy.Word]policy.Protocol{"tcp": policy.TCP, "tls": policy.TLS, "http": policy.HTTP, "https": policy.HTTPS}[p.Network.Allow[0].Protocol.V]
		h.speaks(l.nearest(name, addr, port))
	default:
		l.leave(f, f.Reason)
		return
	}
	l.who(h, f, from)
	h.refused = how == refused
	l.enter(h, f, how, from)
}

// use notes what a kept rule was used for.
func (l *learner) use(r *policy.NetRule, f *fact) {
	how := used
	switch {
	case l.refused[question{f.Object, f.Subject.Exe}] && f.Verdict == policy.Deny:
		l.leave(f, "a person denied it")
		return
	case f.Verdict == policy.Deny && r.Verdict == policy.Allow:
		l.leave(f, f.Reason)
		return
	case f.Verdict == policy.Deny:
		how = refused
	case r.Verdict == policy.Ask:
		how = approved
	}
	if l.uses[r.ID] == nil {
		l.uses[r.ID] = &rule{}
	}
	l.uses[r.ID].add(f, how)
}

// speaks takes from a rule how connections are checked, nil changing nothing.
func (h *host) speaks(r *policy.NetRule) {
	if r != nil {
		h.protocol, h.ech, h.expires = r.Protocol, r.ECH, r.Expires
	}
}

// about returns the rules about a name or an address.
func (l *learner) about(name string, addr netip.Addr) []*policy.NetRule {
	if name != "" {
		return l.policy.Network.Match(name)
	}
	return l.policy.Network.MatchAddr(addr)
}

// ruleOf finds the rule that a record names: two may stand on one line.
func (l *learner) ruleOf(pos, name string, addr netip.Addr, port uint16) *policy.NetRule {
	for _, r := range l.about(name, addr) {
		if r.Verdict != policy.Deny && slices.Contains(r.Ports, port) && l.policy.Rule(r.ID).Pos == pos {
			return r
		}
	}
	return nil
}

// nearest finds a rule that allows the same to others: what is refused to one program is spoken as with them.
func (l *learner) nearest(name string, addr netip.Addr, port uint16) *policy.NetRule {
	for _, r := range l.about(name, addr) {
		if r.Verdict != policy.Deny && slices.Contains(r.Ports, port) {
			return r
		}
	}
	return nil
}

// who limits a rule to the program that used it. One that the policy does not list by itself can't be named in a rule,
// and a rule for a command is not for a tainted one; then the rule is as wide as the one that it comes from.
func (l *learner) who(h *host, f *fact, from *policy.NetRule) {
	if command, ok := l.command[f.Subject.Exe]; ok && f.Subject.Exe != "" && f.Subject.Taint == "" {
		h.commands = []string{command}
		return
	}
	if from != nil && len(from.Commands) > 0 {
		h.commands = slices.Sorted(slices.Values(from.Commands))
		return
	}
	h.anybody, h.unnamed = true, from == nil
}

// same reports whether two rules are about the same and check the same way. What was refused has a rule of its own,
// which a person can take out.
func (h *host) same(o *host) bool {
	return h.target == o.target && h.port == o.port && h.protocol == o.protocol && h.ech == o.ech && h.expires == o.expires && h.refused == o.refused
}

// clashes reports whether a policy could not tell two rules apart.
func (h *host) clashes(o *host) bool {
	return h.target == o.target && h.port == o.port && (h.protocol != o.protocol || h.ech != o.ech)
}

// enter adds a fact to its rule. Where two rules of the policy spoke differently to one place, for two programs, the
// second keeps the target that the policy gives it.
func (l *learner) enter(h *host, f *fact, how how, from *policy.NetRule) {
	if l.clash(h) && from != nil {
		h.target, h.cidr = from.Name, from.Name == ""
		if h.cidr {
			h.target = from.Prefix.String()
		}
	}
	if l.clash(h) {
		l.leave(f, "another rule speaks to this place in another way: "+f.Reason)
		return
	}
	i := slices.IndexFunc(l.hosts, h.same)
	if i < 0 {
		i = len(l.hosts)
		l.hosts = append(l.hosts, h)
	}
	at := l.hosts[i]
	at.add(f, how)
	at.merge(h)
}

func (l *learner) clash(h *host) bool { return slices.ContainsFunc(l.hosts, h.clashes) }

// merge lets the callers of o use h as well.
func (h *host) merge(o *host) {
	h.anybody, h.unnamed = h.anybody || o.anybody, h.unnamed || o.unnamed
	for _, c := range o.commands {
		if !slices.Contains(h.commands, c) {
			h.commands = append(h.commands, c)
		}
	}
	slices.Sort(h.commands)
}

// keepPrivate keeps the cidr rules that may have let a name lead into a private network: no record says which address
// a name had. Their ports are those of names that were used.
func (l *learner) keepPrivate() {
	for i := range l.policy.Network.Rules {
		r := &l.policy.Network.Rules[i]
		if r.Name != "" || r.Verdict != policy.Allow {
			continue
		}
		for _, port := range r.Ports {
			named := slices.ContainsFunc(l.hosts, func(h *host) bool { return !h.cidr && h.port == port && !h.refused })
			h := &host{
				target: r.Prefix.String(), cidr: true, port: port, protocol: r.Protocol, expires: r.Expires, anybody: len(r.Commands) == 0,
				commands: slices.Sorted(slices.Values(r.Commands)),
				why:      "kept from " + l.policy.Rule(r.ID).Pos + ": a name may lead there, which records do not show",
			}
			if named && !l.clash(h) && !slices.ContainsFunc(l.hosts, h.same) {
				l.hosts = append(l.hosts, h)
			}
		}
	}
}

// generaliseNames makes one wildcard of two or more names that differ in their first label only, and are used in the
// same way by the same programs; never over a public suffix, nor over a name that a person denied or is to be asked about.
func (l *learner) generaliseNames() {
	type family struct {
		parent, commands string
		port             uint16
		protocol         policy.Protocol
		ech, anybody     bool
		refused          bool
		expires          time.Duration
	}
	members := map[family][]*host{}
	var order []family
	for _, h := range l.hosts {
		_, parent, ok := strings.Cut(h.target, ".")
		if h.cidr || !ok || strings.HasPrefix(h.target, "*") {
			continue
		}
		if suffix, _ := publicsuffix.PublicSuffix(parent); suffix == parent {
			continue
		}
		k := family{parent, strings.Join(h.commands, " "), h.port, h.protocol, h.ech, h.anybody, h.refused, h.expires}
		if members[k] == nil {
			order = append(order, k)
		}
		members[k] = append(members[k], h)
	}
	for _, k := range order {
		list := members[k]
		if len(list) < 2 || l.reserved(k.parent, k.port, list) {
			continue
		}
		wide := *list[0]
		wide.target = "*." + k.parent
		wide.rule = rule{refused: k.refused}
		if l.clash(&wide) {
			continue
		}
		for _, h := range list {
			for _, e := range h.evidence {
				wide.add(e.fact, e.how)
			}
		}
		l.hosts = slices.DeleteFunc(l.hosts, func(h *host) bool { return slices.Contains(list, h) })
		if i := slices.IndexFunc(l.hosts, wide.same); i >= 0 {
			for _, e := range wide.evidence {
				l.hosts[i].add(e.fact, e.how)
			}
			l.hosts[i].merge(&wide)
			continue
		}
		l.hosts = append(l.hosts, &wide)
	}
}

// reserved reports whether there is a name right below parent that the policy asks about or that a person denied, beside
// those in list: a wildcard would let it through unasked.
func (l *learner) reserved(parent string, port uint16, list []*host) bool {
	other := func(name string) bool {
		_, above, _ := strings.Cut(name, ".")
		return above == parent && !slices.ContainsFunc(list, func(h *host) bool { return h.target == name })
	}
	for i := range l.policy.Network.Rules {
		if r := &l.policy.Network.Rules[i]; r.Verdict == policy.Ask && slices.Contains(r.Ports, port) && other(r.Name) {
			return true
		}
	}
	for q := range l.Recorder.refused {
		if name, _, at, ok := target(q.object); ok && at == port && other(name) {
			return true
		}
	}
	return false
}

// sortHosts puts names before addresses, and names by what they are below.
func sortHosts(hosts []*host) {
	slices.SortFunc(hosts, func(a, b *host) int {
		if a.cidr != b.cidr {
			if a.cidr {
				return 1
			}
			return -1
		}
		return cmp.Or(cmp.Compare(reversed(a.target), reversed(b.target)), cmp.Compare(a.port, b.port),
			cmp.Compare(a.protocol, b.protocol), cmp.Compare(a.expires, b.expires))
	})
}

// reversed is a name with its labels in reverse order.
func reversed(name string) string {
	labels := strings.Split(name, ".")
	slices.Reverse(labels)
	return strings.Join(labels, ".")
}
