package learn

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/nemoclaw/nemoclaw/policy"
)

// usage is which rules of a policy the records are about. It errs on the side of use: whatever a rule could have been needed
// for counts, whichever rule decided.
type usage struct {
	policy   *policy.Compiled
	ports    map[policy.RuleID]map[uint16]bool // of network rules that allow
	named    map[uint16]bool                   // ports of names: no record says which address a name had
	listed   map[string]bool                   // last elements of what the policy calls programs
	commands map[string]bool                   // of those, what was executed
	seen     map[string]bool                   // objects of connections that are entered already
	any      bool                              // something was executed
}

func newUsage(c *policy.Compiled) *usage {
	u := &usage{policy: c, ports: map[policy.RuleID]map[uint16]bool{}, named: map[uint16]bool{}, listed: map[string]bool{}, commands: map[string]bool{}, seen: map[string]bool{}}
	for _, x := range c.Exec.Allow {
		u.listed[path.Base(x.Name)] = true
	}
	return u
}

func (u *usage) add(d *policy.Decision) {
	switch d.Plane {
	case policy.PlaneNetwork:
		if u.seen[d.Object] {
			return
		}
		if len(u.seen) < maxFacts {
			u.seen[d.Object] = true
		}
		name, addr, port, ok := target(d.Object)
		if !ok {
			return
		}
		about := u.policy.Network.MatchAddr(addr)
		if name != "" {
			about = u.policy.Network.Match(name)
			u.named[port] = true
		}
		for _, r := range about {
			if !slices.Contains(r.Ports, port) {
				continue
			}
			if u.ports[r.ID] == nil {
				u.ports[r.ID] = map[uint16]bool{}
			}
			u.ports[r.ID][port] = true
		}
	case policy.PlaneExec:
		u.any = true
		u.executed(d.Object)
		for word := range strings.FieldsSeq(d.Subject.Args) { // a script stands there, where its interpreter was executed
			u.executed(word)
		}
	}
}

// executed notes a program, by whichever way it was written.
func (u *usage) executed(program string) {
	if base := path.Base(program); u.listed[base] {
		u.commands[base] = true
	}
}

// prune proposes to take away what was of no use.
func (s *Session) prune(out *Proposals) {
	if s.usage == nil {
		return
	}
	const of = "rules that were of no use"
	if !s.usage.any {
		out.leave(of, 0, "nothing was executed in this time, so nothing is taken away")
		return
	}
	if s.folded > 0 {
		out.leave(of, s.folded, "so many different things were attempted that the log has these without their objects: nothing is taken away, since they may have needed it")
		return
	}
	for _, name := range s.unusedPresets() {
		out.try(s, &Proposal{Preset: name, Evidence: []string{"nothing was connected to or executed that only this preset allows"}})
	}
	const never = "nothing that this rule is about was attempted"
	for i := range s.now.Network.Rules {
		r := &s.now.Network.Rules[i]
		if r.Verdict != policy.Allow || !s.own(r.ID) || r.Expires != 0 || s.now.OfInference(r) {
			continue
		}
		unused := slices.DeleteFunc(slices.Clone(r.Ports), func(port uint16) bool { return s.usage.ports[r.ID][port] || r.Name == "" && s.usage.named[port] })
		if len(unused) == 0 {
			continue
		}
		why := never
		if len(unused) < len(r.Ports) {
			why = "nothing was connected to on " + strings.Trim(fmt.Sprint(unused), "[]")
		}
		spec := policy.RuleSpec{Verdict: "allow", Domain: r.Name, Ports: unused, Protocol: r.Protocol.String(), Commands: r.Commands}
		if r.Name == "" {
			spec.CIDR = r.Prefix.String()
		}
		out.try(s, &Proposal{Remove: &spec, Evidence: []string{why + " (" + s.now.Rule(r.ID).Pos + ")"}})
	}
	for _, x := range s.now.Exec.Allow {
		if s.own(x.ID) && x.ID != s.now.Devices.ID && x.Expires == 0 && !s.executed(x) {
			out.try(s, &Proposal{Remove: &policy.RuleSpec{Verdict: "allow", Command: x.Name}, Evidence: []string{"it was not executed (" + s.now.Rule(x.ID).Pos + ")"}})
		}
	}
}

// executed reports whether a program was executed, or one that it may start.
func (s *Session) executed(x policy.Command) bool {
	if s.usage.commands[path.Base(x.Name)] {
		return true
	}
	for program, name := range s.ran {
		if name == x.Name {
			return true
		}
		if name == program && slices.ContainsFunc(x.Helpers, func(h string) bool {
			ok, err := path.Match(h, program)
			return h == program || err == nil && ok || h == path.Base(program)
		}) {
			return true
		}
	}
	return false
}

// own reports whether a rule stands in the policy itself, not in a preset.
func (s *Session) own(id policy.RuleID) bool {
	return strings.HasPrefix(s.now.Rule(id).Pos, s.o.File+":")
}

// unusedPresets are those of which nothing was of use. One that has rules for files or sockets is not among them: what of these
// was of use no record says.
func (s *Session) unusedPresets() (list []string) {
	for _, name := range s.extends {
		used := false
		of := func(id policy.RuleID) bool { return strings.HasPrefix(s.now.Rule(id).Pos, "preset:"+name+":") }
		for i := range s.now.Network.Rules {
			r := &s.now.Network.Rules[i]
			used = used || of(r.ID) && (r.Verdict != policy.Allow || len(s.usage.ports[r.ID]) > 0)
		}
		for _, g := range s.now.Files.Written() {
			used = used || of(g.RuleFor(g.Access))
		}
		for _, x := range s.now.Network.Unix {
			used = used || of(x.ID)
		}
		for _, x := range s.now.Exec.Allow {
			used = used || of(x.ID) && s.executed(x)
		}
		for _, x := range slices.Concat(s.now.Exec.Ask, s.now.Exec.Deny) {
			used = used || of(x.ID)
		}
		if !used {
			list = append(list, name)
		}
	}
	return list
}
