package learn

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/nemoclaw/nemoclaw/policy"
)

// maxProposals bounds the proposals for what was refused: a program inside can be refused anything, and would bury the rest.
const maxProposals = 100

// Proposals are what a session has shown that the policy could say.
type Proposals struct {
	List   []*Proposal // what was approved, then what was refused, then what goes
	Left   []Left      // what was approved or refused, and has no proposal
	More   int         // beyond those in Left
	Missed uint64      // attempts that were not looked at: there were too many different ones
}

// A Proposal is one change of the policy. Each can be made without the others.
type Proposal struct {
	Add     *policy.RuleSpec // nil: no rule is added
	Remove  *policy.RuleSpec // with Add: the rule that asks, whose place the new one takes where it must; else what goes
	Preset  string           // that goes
	Refused bool             // it is for what was refused, and nobody approved

	Evidence []string          // why, in sentences; escaped already
	Attempts []policy.Decision // what it is for, as a person was asked about it

	covers []policy.Query // what the policy allows with it
}

// Left is something that no rule is proposed for.
type Left struct {
	What  string // escaped already
	Count uint64
	Why   string
}

// errStays says that a policy does not allow what a rule was added for.
var errStays = errors.New("the rule would never act")

// Apply makes the change.
func (p *Proposal) Apply(file string, text []byte) (policy.Edited, error) {
	switch {
	case p.Preset != "":
		return policy.RemovePreset(file, text, p.Preset)
	case p.Add == nil:
		return policy.RemoveRule(file, text, *p.Remove)
	}
	e, err := p.add(file, text)
	if err == nil || p.Remove == nil {
		return e, err
	}
	// ask beats allow.
	without, rerr := policy.RemoveRule(file, text, *p.Remove)
	if rerr != nil {
		return e, err
	}
	e, err = p.add(file, without.Text)
	e.Did = slices.Concat(without.Did[:1], e.Did) // what the rest says holds no more
	return e, err
}

// add adds the rule, and sees that what it is for is allowed by it, now and later.
func (p *Proposal) add(file string, text []byte) (policy.Edited, error) {
	e, err := policy.AddRule(file, text, *p.Add)
	if err != nil {
		return e, err
	}
	for _, q := range p.covers {
		if a := e.Policy.ExplainAt(q, always); a.Verdict != policy.Allow {
			return e, fmt.Errorf("%w: %s (%s)", errStays, a.Reason, a.Rule.Pos)
		}
	}
	return e, nil
}

// always is the age of a sandbox at which only rules that last hold.
const always = time.Duration(math.MaxInt64)

// try adds a proposal to the list, if the change can be made.
func (out *Proposals) try(s *Session, p *Proposal) {
	if _, err := p.Apply(s.o.File, s.o.Text); err != nil {
		out.leave(p.what(), 0, err.Error())
		return
	}
	out.List = append(out.List, p)
}

func (out *Proposals) leave(what string, n uint64, why string) {
	if len(out.Left) == maxLeft {
		out.More++
		return
	}
	out.Left = append(out.Left, Left{policy.Comment(what, 160), n, policy.Comment(why, 300)})
}

// proposer turns what was approved and refused into rules.
type proposer struct {
	*Session
	l   *learner
	out *Proposals
}

// Proposals says what the policy could say: what a person approved and it does not allow, and, where the options say so, what
// was refused and what goes.
func (s *Session) Proposals() (*Proposals, error) {
	p := &proposer{Session: s, out: &Proposals{Missed: s.approved.more + s.refused.more}}
	r := &Recorder{policy: s.now, refused: map[question]bool{}}
	for id, a := range s.answers {
		if a.Verdict == policy.Deny && id.what == "network connect" {
			r.refused[question{id.object, id.exe}] = true
		}
	}
	p.l = &learner{Recorder: r, o: Options{Finished: true}, programs: map[string]*rule{}}
	for _, f := range slices.Concat(s.approved.facts, p.unused()) {
		at := f.last
		a := s.answers[askedBy(&f.Decision)]
		if a != nil {
			at = a.Time
		}
		switch gone, err := s.tookAway(f, at); {
		case err != nil:
			return nil, err
		case a != nil && a.Verdict != policy.Allow:
			p.leave(f, "a person approved it, and denied it or took that back later")
		case gone:
			p.leave(f, "a person approved it, and the rule for it was taken away later")
		default:
			p.take(f, approved)
		}
	}
	for _, f := range s.refused.facts {
		a := s.answers[askedBy(&f.Decision)]
		switch {
		case a != nil && a.Verdict == policy.Allow: // what was approved of it is there already
		case a != nil:
			p.leave(f, "a person denied it")
		default:
			p.take(f, refused)
		}
	}
	if s.o.Subdomains {
		p.l.generaliseNames()
	}
	if s.o.Dirs {
		p.l.generalisePaths()
	}
	p.write()
	s.prune(p.out)
	return p.out, nil
}

// tookAway reports whether a rule allowed from a time on what was approved then, and does not any more: an answer that holds
// always is such a rule.
func (s *Session) tookAway(f *fact, at time.Time) (bool, error) {
	if s.o.Since == nil {
		return false, nil
	}
	var list []policy.Query
	switch f.Plane {
	case policy.PlaneNetwork:
		name, addr, port, ok := target(f.Object)
		if command, _ := s.name(f.Subject); ok && command != "" {
			list = []policy.Query{{Action: policy.QueryConnect, Name: name, Addr: addr, Port: port, Command: command}}
		}
	case policy.PlaneExec:
		list = queries(f.Object, policy.Execute)
	case policy.PlaneFile:
		list = queries(f.Object, wanted(f))
	}
	if len(list) == 0 || allows(s.now, list) {
		return false, nil
	}
	policies, err := s.o.Since(at)
	return slices.ContainsFunc(policies, func(c *policy.Compiled) bool { return allows(c, list) }), err
}

// allows reports whether a policy's lasting rules allow all of what is asked.
func allows(c *policy.Compiled, list []policy.Query) bool {
	return !slices.ContainsFunc(list, func(q policy.Query) bool { return c.ExplainAt(q, always).Verdict != policy.Allow })
}

// wanted is what an attempt at a file was to do; nothing where the language can't say it.
func wanted(f *fact) (a policy.Access) {
	y := proposal(f.Decision)
	if y == nil || y.Filesystem == nil || len(y.Filesystem.Allow) != 1 {
		return 0
	}
	for _, word := range y.Filesystem.Allow[0].Permissions {
		a |= map[policy.Word]policy.Access{"read": policy.Read, "write": policy.Write, "execute": policy.Execute}[word.V]
	}
	return a
}

// unused are approvals that the records do not show to have been used: they were not yet, a grant in the kernel let through
// what was tried again, or so much happened that the log gave up the objects.
func (p *proposer) unused() (list []*fact) {
	used := map[asked]bool{}
	for _, f := range p.approved.facts {
		used[askedBy(&f.Decision)] = true
	}
	for id, a := range p.answers {
		plane, action, ok := strings.Cut(id.what, " ")
		if a.Verdict != policy.Allow || used[id] || !ok || policy.Plane(plane) == policy.PlaneDNS { // a name alone leads nowhere
			continue
		}
		f := &fact{Decision: a.Decision, last: a.Time}
		f.Plane, f.Action = policy.Plane(plane), action
		if c, err := p.o.Revision(a.Revision, a.Time); f.Rule != "default" && err == nil {
			f.of = c
		}
		list = append(list, f)
	}
	slices.SortFunc(list, func(a, b *fact) int { return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.Object, b.Object)) })
	return list
}

func (p *proposer) leave(f *fact, why string) {
	p.out.leave(f.Action+" "+f.Object+by(f), f.n, why)
}

// take sorts one fact.
func (p *proposer) take(f *fact, how how) {
	if strings.Contains(f.Object, `\`) { // so the log writes bytes that are no characters
		p.leave(f, "no rule is proposed for a name with such characters")
		return
	}
	switch f.Plane {
	case policy.PlaneNetwork:
		p.connection(f, how)
	case policy.PlaneExec:
		p.execution(f, how)
	case policy.PlaneFile:
		p.access(f, how)
	default:
		p.leave(f, "no rule is proposed for such a thing")
	}
}

// connection enters a rule for a connection.
func (p *proposer) connection(f *fact, how how) {
	name, addr, port, ok := target(f.Object)
	var rule *policy.Policy
	if ok {
		rule = proposal(f.Decision)
	}
	if rule == nil || rule.Network == nil || len(rule.Network.Allow) != 1 {
		p.leave(f, "nothing is proposed that opens a cloud's metadata service, or that the language can't say")
		return
	}
	command, why := p.name(f.Subject)
	if command == "" {
		p.leave(f, why)
		return
	}
	q := policy.Query{Action: policy.QueryConnect, Name: name, Addr: addr, Port: port, Command: command}
	if allows(p.now, []policy.Query{q}) {
		return // it says so by now
	}
	h := &host{target: name, port: port, commands: []string{command}, rule: ruleOf(how)}
	if name == "" {
		h.target, h.cidr = netip.PrefixFrom(addr, addr.BitLen()).String(), true
	}
	if h.protocol = policy.ProtocolOf(port); h.cidr {
		h.protocol = policy.TCP
	}
	if from := askedAbout(f, name, addr, port); from != nil {
		if from.ECH || from.Expires != 0 {
			p.leave(f, "the rule that asks has `ech` or `expires`: change it by hand")
			return
		}
		h.protocol = from.Protocol
	} else if near := p.l.nearest(name, addr, port); near != nil && !near.ECH {
		h.protocol = near.Protocol // two rules can't speak to one place in two ways
	}
	if p.l.clash(h) {
		p.leave(f, "another rule speaks to this place in another way")
		return
	}
	p.l.enter(h, f, how, nil)
}

// ruleOf begins a rule.
func ruleOf(how how) rule { return rule{refused: how == refused} }

// execution enters a rule for a program.
func (p *proposer) execution(f *fact, how how) {
	command := ""
	if f.of != nil {
		command = calls(f.of, f.Rule, f.Object)
	} else if y := proposal(f.Decision); y != nil && y.Process != nil && len(y.Process.Allow) == 1 {
		command = string(y.Process.Allow[0].Command.V)
	}
	if command == "" {
		p.leave(f, "no rule is proposed for this program: the language can't name it, or not alone")
		return
	}
	if !allows(p.now, queries(command, policy.Execute)) {
		p.l.program(command, f, how, how == refused)
	}
}

// access enters a rule for a file.
func (p *proposer) access(f *fact, how how) {
	x := &file{path: f.Object, access: wanted(f), rule: ruleOf(how)}
	if x.access == 0 || strings.HasPrefix(f.Object, "/proc/") {
		p.leave(f, "the language can't name this path, or it would be another one's later")
		return
	}
	if x.secret = policy.Reveals(x.path); x.secret != "" {
		p.leave(f, "a secret ("+x.secret+"): no rule is proposed; if it must be, `policy add --path` makes one")
		p.l.paths = append(p.l.paths, x) // so that its directory is no rule either
		return
	}
	if allows(p.now, queries(x.path, x.access)) {
		return
	}
	// A rule for a path replaces that of a directory above, so it gives no less.
	above, _, _ := p.now.At(always).Files.Access(x.path)
	x.access |= above
	i := slices.IndexFunc(p.l.paths, func(o *file) bool { return o.path == x.path && o.refused == x.refused })
	if i < 0 {
		i = len(p.l.paths)
		p.l.paths = append(p.l.paths, x)
	}
	p.l.paths[i].access |= x.access
	p.l.paths[i].add(f, how)
}

// queries are the questions that tell whether a path can be used so.
func queries(at string, a policy.Access) (list []policy.Query) {
	for access, action := range map[policy.Access]policy.Action{policy.Read: policy.QueryRead, policy.Write: policy.QueryWrite, policy.Execute: policy.QueryExec} {
		if a&access != 0 {
			list = append(list, policy.Query{Action: action, Path: at})
		}
	}
	return list
}
