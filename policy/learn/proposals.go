package learn

import (
	"cmp"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/nemoclaw/nemoclaw/policy"
)

// write makes proposals of the rules: of what was approved first, so that nothing that was refused stands before it.
func (p *proposer) write() {
	var list []*Proposal
	sortHosts(p.l.hosts)
	add := func(x *Proposal, r *rule, what string) {
		x.Refused, x.Evidence = r.refused, p.evidence(r, what)
		for _, e := range r.evidence {
			x.Attempts = append(x.Attempts, e.Decision)
		}
		list = append(list, x)
	}
	for _, h := range p.l.hosts {
		add(p.ofHost(h), &h.rule, "connection")
	}
	slices.SortFunc(p.l.paths, func(a, b *file) int { return cmp.Compare(a.path, b.path) })
	for _, x := range p.l.paths {
		if x.secret == "" {
			add(ofFile(x), &x.rule, "access")
		}
	}
	for _, command := range slices.SortedFunc(maps.Keys(p.l.programs), byName) {
		add(ofProgram(command), p.l.programs[command], "execution")
	}
	slices.SortStableFunc(list, func(a, b *Proposal) int { return cmp.Compare(rank(a), rank(b)) })
	refused := 0
	for _, x := range list {
		if x.Refused {
			if refused++; refused > maxProposals {
				p.out.Missed++
				continue
			}
		}
		p.out.try(p.Session, x)
	}
}

func rank(p *Proposal) int {
	if p.Refused {
		return 1
	}
	return 0
}

// what names the subject of a proposal.
func (p *Proposal) what() string {
	spec := p.Add
	if spec == nil {
		spec = p.Remove
	}
	if spec == nil {
		return p.Preset
	}
	s := spec.Domain + spec.CIDR + spec.Path + spec.Command
	if len(spec.Ports) > 0 {
		s += ":" + strings.Trim(fmt.Sprint(spec.Ports), "[]")
	}
	return s
}

func (p *proposer) ofHost(h *host) *Proposal {
	spec := policy.RuleSpec{Domain: h.target, Ports: []uint16{h.port}, Protocol: h.protocol.String(), Commands: h.commands}
	asks := policy.RuleSpec{Verdict: "ask", Domain: h.target, Ports: spec.Ports}
	if h.cidr {
		spec.Domain, spec.CIDR, asks.Domain, asks.CIDR = "", h.target, "", h.target
	}
	x := &Proposal{Add: &spec, Remove: &asks}
	for _, e := range h.evidence {
		name, addr, port, _ := target(e.Object)
		command, _ := p.name(e.Subject)
		x.covers = append(x.covers, policy.Query{Action: policy.QueryConnect, Name: name, Addr: addr, Port: port, Command: command})
	}
	return x
}

func ofFile(f *file) *Proposal {
	words := strings.Split(f.access.String(), ", ")
	return &Proposal{
		Add: &policy.RuleSpec{Path: f.path, Permissions: words}, Remove: &policy.RuleSpec{Verdict: "ask", Path: f.path, Permissions: words},
		covers: queries(f.path, f.access),
	}
}

func ofProgram(command string) *Proposal {
	return &Proposal{
		Add: &policy.RuleSpec{Command: command}, Remove: &policy.RuleSpec{Verdict: "ask", Command: command},
		covers: []policy.Query{{Action: policy.QueryExec, Path: command}},
	}
}

// evidence tells why a rule is proposed: each fact, and below it who approved it.
func (p *proposer) evidence(r *rule, what string) (list []string) {
	for _, e := range r.evidence[:min(len(r.evidence), maxEvidence)] {
		list = append(list, policy.Comment(p.sentence(e, what), 400))
		if a := p.answers[askedBy(&e.Decision)]; a != nil && e.how == approved {
			s := "approved"
			if a.n > 1 {
				s += fmt.Sprintf(" %d times, the last time", a.n)
			}
			list = append(list, policy.Comment(s+" "+stamp(a.Time)+": "+a.Reason, 400))
		}
	}
	if n := len(r.evidence) - maxEvidence; n > 0 {
		list = append(list, fmt.Sprintf("and %d more like this", n))
	}
	if what != "connection" {
		list = append(list, "the rule is for every program: only rules of the network name some")
	}
	return list
}

// sentence tells one fact: "3 connections to x.org:443 by curl, 2026-01-02 15:04:05 to 15:10:00: curl https://x.org".
func (p *proposer) sentence(e evidence, what string) string {
	var b strings.Builder
	switch {
	case e.n == 0:
		b.WriteString("no " + what + " yet")
	case e.how == refused:
		fmt.Fprintf(&b, "REFUSED %s: %s", times(e.n), e.Action)
	default:
		fmt.Fprintf(&b, "%d %s", e.n, what)
		if e.n != 1 {
			b.WriteString(map[bool]string{true: "es", false: "s"}[strings.HasSuffix(what, "s")])
		}
	}
	if e.Plane != policy.PlaneExec {
		b.WriteString(map[bool]string{true: " of ", false: " to "}[e.Plane == policy.PlaneFile] + e.Object)
		if e.Subject.Exe != "" {
			b.WriteString(" by " + path.Base(e.Subject.Exe))
		}
	} else {
		b.WriteString(" of " + e.Object)
	}
	if e.n > 0 {
		b.WriteString(", " + stamp(e.Time))
		if e.last.Sub(e.Time) >= time.Second {
			b.WriteString(" to " + stamp(e.last))
		}
	}
	if e.Subject.Args != "" {
		b.WriteString(": " + cut(e.Subject.Args))
	}
	return b.String()
}

func stamp(t time.Time) string { return t.UTC().Format(time.DateTime) }
