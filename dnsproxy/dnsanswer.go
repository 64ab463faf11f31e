package dnsproxy

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/time/rate"

	"github.com/nemoclaw/nemoclaw/policy"
)

// How long the sandbox's own caches may keep an answer, in seconds, and how long ours are kept. A synthetic address never
// changes, so what bounds a positive answer is how soon upstream's "gone" should show.
const (
	answerTTL   = 60
	unlistedTTL = 5 // a person may allow the name at any time, and AAAA exists from then on
	blockedTTL  = 0

	answerKeep  = 60 * time.Second
	blockedKeep = 5 * time.Second
	failureKeep = time.Second

	maxAnswers = 32768 // prebuilt answers kept
)

// dnsState is what the DNS side of a server remembers.
type dnsState struct {
	answers answerCache
	slow    chan struct{} // slots for queries that must wait for something

	mu     sync.Mutex
	noted  map[string]noted                // what was recorded lately, to fold repetitions
	limits map[policy.RuleID]*rate.Limiter // of new names, by wildcard rule
}

func (d *dnsState) init() {
	d.answers.m = make(map[string]*answer)
	d.slow = make(chan struct{}, maxSlowQueries)
	d.noted = make(map[string]noted)
	d.limits = make(map[policy.RuleID]*rate.Limiter)
}

// answerCache holds prebuilt answers by name and type.
type answerCache struct {
	mu sync.RWMutex
	m  map[string]*answer
}

func (c *answerCache) get(key []byte, now int64) *answer {
	c.mu.RLock()
	a := c.m[string(key)] // no allocation: the compiler knows this form
	c.mu.RUnlock()
	if a != nil && now < a.until {
		return a
	}
	return nil
}

// put keeps an answer unless the policy it was made by is not current any longer. SetPolicy stores the new one before it
// clears the cache, so an answer of the old one is either seen here or cleared there.
func (c *answerCache) put(key string, a *answer, current func() bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !current() {
		return
	}
	if len(c.m) >= maxAnswers {
		clear(c.m)
	}
	c.m[key] = a
}

func (c *answerCache) clear() {
	c.mu.Lock()
	clear(c.m)
	c.mu.Unlock()
}

// Answers that are the same for everybody. They are never changed.
var (
	ansRefused  = &answer{rcode: dns.RcodeRefused, ede: -1, outcome: DNSRefused}
	ansNXDomain = &answer{rcode: dns.RcodeNameError, ede: -1, outcome: DNSNoName}
	ansNoData   = &answer{ede: -1}
	ansFull     = &answer{rcode: dns.RcodeServerFailure, ede: edeLimit, text: "this sandbox has asked for too many different names", outcome: DNSLimited}
	ansRate     = &answer{rcode: dns.RcodeServerFailure, ede: edeLimit, text: "too many new names under one wildcard rule at once", outcome: DNSLimited}
	ansFailed   = &answer{rcode: dns.RcodeServerFailure, ede: edeNoReach, text: "the host's resolvers did not answer", outcome: DNSFailed}
	ansInternal = &answer{rcode: dns.RcodeServerFailure, ede: edeOther, outcome: DNSFailed}
	ansBlocked  = &answer{rcode: dns.RcodeNameError, ede: edeBlocked, text: "blocked by a deny rule of the sandbox's policy", outcome: DNSBlocked}
	ansUnlisted = &answer{ede: edeBlocked, text: "the sandbox's policy does not list this name", outcome: DNSUnlisted}
)

// errorAnswer is the answer to a packet whose question was not understood.
func errorAnswer(rcode int) *answer { return &answer{rcode: rcode, ede: -1, outcome: DNSRefused} }

// quick returns an answer that needs nobody: from memory, or decided by the question's form. nil: slow must be asked.
func (s *Server) quick(q *query, now int64) *answer {
	if q.class != dns.ClassINET {
		return ansRefused // CHAOS (version.bind) and ANY class
	}
	if a := s.dns.answers.get(q.cacheKey(), now); a != nil {
		return a
	}
	switch q.qtype {
	case dns.TypeANY, dns.TypeAXFR, dns.TypeIXFR, dns.TypeMAILB, dns.TypeMAILA, dns.TypeOPT, dns.TypeTSIG, dns.TypeTKEY:
		return ansRefused
	}
	if q.nameN == 0 {
		return ansRefused
	}
	if q.weird {
		return ansNXDomain
	}
	return nil
}

// asker finds out who asks, when a record is to be made of it: most questions make none.
type asker func() policy.Subject

// slow makes the answer to a question that quick had none for, and keeps it. It may wait for upstream.
func (s *Server) slow(ctx context.Context, name string, qtype uint16, who asker) *answer {
	p := s.pol.Load()
	a, keep := s.compute(ctx, p, name, qtype, who)
	if keep <= 0 {
		return a
	}
	kept := *a // the shared ones must not be written to
	kept.until = s.now() + int64(keep)
	s.dns.answers.put(name+string([]byte{byte(qtype >> 8), byte(qtype)}), &kept, func() bool { return s.pol.Load() == p })
	return &kept
}

// isSpecial reports whether a name is answered by the proxy itself, whatever the policy says.
func isSpecial(name string) bool {
	return name == ProxyName || name == "localhost" || strings.HasSuffix(name, ".localhost")
}

// compute decides one question. keep is how long the answer may be repeated.
func (s *Server) compute(ctx context.Context, p *policy.Compiled, name string, qtype uint16, who asker) (a *answer, keep time.Duration) {
	switch {
	case name == ProxyName:
		return addressAnswer(qtype, ProxyAddr4, ProxyAddr6, answerTTL), answerKeep
	case isSpecial(name): // RFC 6761: localhost and everything below it
		return addressAnswer(qtype, netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback(), answerTTL), answerKeep
	case strings.HasSuffix(name, ".in-addr.arpa"), strings.HasSuffix(name, ".ip6.arpa"):
		return s.reverse(name, qtype)
	}
	class, rule := s.classify(p, name)
	switch class {
	case nameBlocked:
		s.noteDNS(s.decision(p, policy.PlaneDNS, "resolve", name, policy.Deny, rule, "a deny rule names it"), who, name)
		return ansBlocked, blockedKeep
	case nameUnlisted:
		return s.unlisted(p, name, qtype, who)
	default:
		return s.listed(ctx, p, rule, name, qtype, who)
	}
}

type nameClass uint8

const (
	nameUnlisted nameClass = iota
	nameListed             // an allow or ask rule speaks of it
	nameBlocked            // a deny rule covers every port and command
)

// classify says what the policy makes of a name as such, before a port or a command is known.
func (s *Server) classify(p *policy.Compiled, name string) (nameClass, *policy.NetRule) {
	var listed *policy.NetRule
	for _, r := range s.live(p.Network.Match(name)) {
		if r.Verdict == policy.Deny {
			if len(r.Ports) == 0 && len(r.Commands) == 0 {
				return nameBlocked, r
			}
		} else if listed == nil {
			listed = r
		}
	}
	if listed != nil {
		return nameListed, listed
	}
	return nameUnlisted, nil
}

// unlisted answers for a name that no allow or ask rule lists. Nothing is asked upstream. The name gets an IPv4 address only,
// so that a client makes one attempt, which the kernel refuses (or holds) with the name, the port and the command in its record.
func (s *Server) unlisted(p *policy.Compiled, name string, qtype uint16, who asker) (*answer, time.Duration) {
	switch qtype {
	case dns.TypeA:
		a4, _, ans := s.address(p, name, nil, who)
		if ans != nil {
			return ans, failureKeep
		}
		a := addressAnswer(dns.TypeA, a4, netip.Addr{}, unlistedTTL)
		a.outcome = DNSUnlisted
		return a, answerKeep
	case dns.TypeAAAA, dns.TypeHTTPS, dns.TypeSVCB:
		return ansUnlisted, answerKeep
	}
	// No connection follows that would be recorded, and the question may itself be the message.
	d := s.decision(p, policy.PlaneDNS, "resolve", name, policy.Deny, nil, "no rule lists the name; its "+typeName(qtype)+" records were asked for")
	s.noteDNS(d, who, name+" "+typeName(qtype))
	return ansUnlisted, blockedKeep
}

func typeName(qtype uint16) string { return dns.Type(qtype).String() }

// listed answers for a name that an allow or ask rule lists, as upstream answers.
func (s *Server) listed(ctx context.Context, p *policy.Compiled, rule *policy.NetRule, name string, qtype uint16, who asker) (*answer, time.Duration) {
	a4, a6, refused := s.address(p, name, rule, who)
	if refused != nil {
		return refused, failureKeep
	}
	if s.local(name) || s.proxied(name, rule) { // the host's proxy resolves names; the host itself may not be able to
		if qtype == dns.TypeA || qtype == dns.TypeAAAA {
			return addressAnswer(qtype, a4, a6, answerTTL), answerKeep
		}
		return ansNoData, answerKeep
	}
	switch qtype {
	case dns.TypeA, dns.TypeAAAA, dns.TypeHTTPS, dns.TypeSVCB:
	default:
		return s.otherType(ctx, name, qtype)
	}
	e, err := s.names.resolve(ctx, name)
	if err != nil {
		return failed(err), failureKeep
	}
	left := time.Duration(e.until - s.now())
	keep := min(left, answerKeep)
	switch {
	case e.NXDomain:
		return ansNXDomain, keep
	case qtype == dns.TypeA && len(e.IPv4) > 0, qtype == dns.TypeAAAA && len(e.IPv6) > 0:
		return addressAnswer(qtype, a4, a6, uint32(min(max(left/time.Second, 1), answerTTL))), keep
	default:
		// HTTPS and SVCB too: their hints are real addresses and their ECH keys would hide the name that is checked. RFC
		// 9460 has clients go on with A and AAAA.
		return ansNoData, keep
	}
}

// failed is the answer when upstream gave none.
func failed(err error) *answer {
	if errors.Is(err, context.Canceled) {
		return ansInternal
	}
	return ansFailed
}

// address returns a name's synthetic addresses, giving it some when it has none; or the answer that refuses. rule is the
// rule that lists it, nil when none does.
func (s *Server) address(p *policy.Compiled, name string, rule *policy.NetRule, who asker) (a4, a6 netip.Addr, refused *answer) {
	if a4, a6, ok := s.book.lookup(name); ok {
		return a4, a6, nil
	}
	wildcard := rule != nil && strings.HasPrefix(rule.Name, "*")
	if wildcard && !s.takeToken(rule.ID) {
		d := s.decision(p, policy.PlaneDNS, "resolve", name, policy.Deny, rule,
			fmt.Sprintf("more than %d new names at once, or %g a second, under one wildcard: labels can carry data out", s.cfg.WildcardBurst, s.cfg.WildcardRate))
		s.noteDNS(d, who, "rate "+rule.Name)
		return a4, a6, ansRate
	}
	a4, a6, err := s.book.add(name, false)
	switch {
	case err == nil:
		if wildcard {
			d := s.decision(p, policy.PlaneDNS, "resolve", name, policy.Allow, rule, "first query for a name under this wildcard")
			d.Subject = who()
			s.cfg.Record(d)
		}
		return a4, a6, nil
	case errors.Is(err, ErrBookFull):
		d := s.decision(p, policy.PlaneDNS, "resolve", name, policy.Deny, rule,
			fmt.Sprintf("the sandbox has asked for %d different names; no new one is answered", s.cfg.MaxLearnt))
		d.Rule = "builtin"
		s.noteOnce(d, who, "full")
		return a4, a6, ansFull
	default:
		d := s.decision(p, policy.PlaneDNS, "resolve", name, policy.Deny, rule, "the name could not be learnt: "+err.Error())
		d.Rule = "builtin"
		s.noteDNS(d, who, "learn failed")
		return a4, a6, ansInternal
	}
}

// addressAnswer answers A and AAAA with the matching address, everything else with no data.
func addressAnswer(qtype uint16, a4, a6 netip.Addr, ttl uint32) *answer {
	a := &answer{ede: -1}
	switch {
	case qtype == dns.TypeA && a4.IsValid():
		a.record(dns.TypeA, ttl, a4.AsSlice())
	case qtype == dns.TypeAAAA && a6.IsValid():
		a.record(dns.TypeAAAA, ttl, a6.AsSlice())
	}
	return a
}

// reverse answers PTR questions: synthetic addresses by their name, loopback by localhost. Others do not exist here, and
// nothing is asked upstream: the address asked about would be the message.
func (s *Server) reverse(name string, qtype uint16) (*answer, time.Duration) {
	addr, ok := reverseAddr(name)
	if !ok {
		return ansNXDomain, answerKeep
	}
	host, ok := s.book.name(addr)
	switch {
	case ok:
	case addr.IsLoopback():
		host = "localhost"
	case addr == ProxyAddr4 || addr == ProxyAddr6:
		host = ProxyName
	default:
		return ansNXDomain, unlistedTTL * time.Second
	}
	if qtype != dns.TypePTR {
		return ansNoData, answerKeep
	}
	a := &answer{ede: -1}
	a.record(dns.TypePTR, answerTTL, packName(host))
	return a, answerKeep
}

// reverseAddr reads 4.3.2.1.in-addr.arpa or 32 nibbles and ip6.arpa.
func reverseAddr(name string) (netip.Addr, bool) {
	if rest, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		parts := strings.Split(rest, ".")
		slices.Reverse(parts)
		a, err := netip.ParseAddr(strings.Join(parts, "."))
		return a, err == nil && a.Is4()
	}
	nibbles := strings.Split(strings.TrimSuffix(name, ".ip6.arpa"), ".")
	if len(nibbles) != 32 {
		return netip.Addr{}, false
	}
	slices.Reverse(nibbles)
	var text strings.Builder
	for i, n := range nibbles {
		if len(n) != 1 {
			return netip.Addr{}, false
		}
		if i > 0 && i%4 == 0 {
			text.WriteByte(':')
		}
		text.WriteString(n)
	}
	a, err := netip.ParseAddr(text.String())
	return a, err == nil
}

// forwardable are the record types that are asked upstream for a listed name. Types that carry addresses or keys for
// encrypted names, and types nobody needs inside a sandbox, are not.
var forwardable = map[uint16]bool{
	dns.TypeMX: true, dns.TypeTXT: true, dns.TypeSRV: true, dns.TypeNS: true, dns.TypeSOA: true, dns.TypeCAA: true,
	dns.TypeCNAME: true, dns.TypeNAPTR: true, dns.TypeSSHFP: true, dns.TypeTLSA: true, dns.TypeURI: true, dns.TypeDS: true,
	dns.TypeDNSKEY: true,
}

// otherType asks upstream for records that hold no addresses. Only the answer section comes back, without glue.
func (s *Server) otherType(ctx context.Context, name string, qtype uint16) (*answer, time.Duration) {
	if !forwardable[qtype] {
		return ansNoData, answerKeep
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.DialTimeout)
	defer cancel()
	rcode, records, err := s.cfg.Upstream.Query(ctx, name, qtype)
	if err != nil {
		return failed(err), failureKeep
	}
	if rcode == dns.RcodeNameError {
		return ansNXDomain, minTTL
	}
	a := &answer{ede: -1}
	keep := answerKeep
	for i, rr := range records {
		if i == maxRecords {
			break
		}
		if h := rr.Header(); h.Rrtype != qtype && h.Rrtype != dns.TypeCNAME {
			continue
		}
		keep = min(keep, max(time.Duration(rr.Header().Ttl)*time.Second, failureKeep))
		a.rr(rr)
	}
	return a, keep
}

// proxied reports whether connections to a name would go through the host's own proxy.
func (s *Server) proxied(name string, rule *policy.NetRule) bool {
	if s.cfg.HostProxy == nil {
		return false
	}
	for _, port := range rule.Ports {
		if s.cfg.HostProxy(name, port) != nil {
			return true
		}
	}
	return false
}
