package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// A match is a rule, or a part of one, that a RuleSpec names.
type match struct {
	section, verb string
	i             int // in the section's list of the verb
	at            At
	text          string
	list          string // of the rule, from which parts are taken: "ports", "permissions"; "": the whole rule goes
	part          int    // the index of one of them
	left          bool   // it can't be taken from the rule
}

// RemoveRule takes out every rule for exactly what s names, in allow, ask and deny or in the verb that s gives. Ports and
// permissions in s are taken from the rules' lists, and a rule goes when nothing is left of it; protocol, commands and
// expires narrow what is meant. Only the file's own rules can be removed: what a preset says is an error that tells so.
func RemoveRule(file string, src []byte, s RuleSpec) (Edited, error) {
	e, err := begin(file, src)
	if err != nil {
		return Edited{}, err
	}
	if err := s.one(); err != nil {
		return Edited{}, err
	}
	if s, err = s.canonical(); err != nil {
		return Edited{}, err
	}
	removed := false
	for {
		found := s.find(e.policy)
		if len(found) == 0 {
			break
		}
		m := found[0]
		if m.left {
			return Edited{}, fmt.Errorf("%s:%d is for every port (%s): remove it without ports, or add rules for the ports that are meant", file, m.at.Line, m.text)
		}
		removed = true
		if err := e.removeMatch(m); err != nil {
			return Edited{}, e.byHand(err, fmt.Sprintf("change line %d", m.at.Line))
		}
		p, err := Parse(file, e.bytes())
		if err != nil {
			return Edited{}, err
		}
		e.policy = p
	}
	if !removed {
		return Edited{}, e.notFound(s)
	}
	out, err := e.done()
	if err != nil {
		return Edited{}, err
	}
	out.Did = append(out.Did, out.Policy.stillSays(s)...)
	return out, nil
}

func (e *edit) removeMatch(m match) error {
	if m.list == "" {
		e.note("removed %s.%s: %s", m.section, m.verb, m.text)
		return e.removeFrom([]string{m.section, m.verb}, m.i)
	}
	list := value(value(value(e.root, m.section), m.verb).Content[m.i], m.list)
	e.note("removed %s from the %s of %s.%s: %s", list.Content[m.part].Value, m.list, m.section, m.verb, m.text)
	return e.removeItem(list, m.part)
}

// canonical writes what s names as the policy compares it.
func (s RuleSpec) canonical() (RuleSpec, error) {
	if !slices.Contains([]string{"", "allow", "ask", "deny"}, s.Verdict) {
		return s, fmt.Errorf("the rule: unknown verdict %s (%s)", cut(s.Verdict), nearest(s.Verdict, []string{"allow", "ask", "deny"}))
	}
	var p *problem
	switch {
	case s.Domain != "":
		s.Domain, p = canonicalDomain(s.Domain)
	case s.CIDR != "":
		prefix, err := netip.ParsePrefix(s.CIDR)
		if err != nil {
			return s, fmt.Errorf("the rule: expected a prefix of addresses, found %s", cut(s.CIDR))
		}
		s.CIDR = prefix.Masked().String()
	case s.Path != "":
		p = filePath(s.Path)
	default:
		p = command(s.Command)
	}
	if p != nil {
		return s, fmt.Errorf("the rule: %w", p)
	}
	return s, nil
}

// find lists the rules of a file that s names.
func (s RuleSpec) find(p *Policy) (found []match) {
	add := func(m match, verb string) {
		if m.section != "" && (s.Verdict == "" || s.Verdict == verb) {
			m.verb = verb
			found = append(found, m)
		}
	}
	if n := p.Network; n != nil && (s.Domain != "" || s.CIDR != "") {
		for i := range n.Allow {
			add(s.matchNet(i, &n.Allow[i].Rule, &n.Allow[i].NetTarget, n.Allow[i].Ports, n.Allow[i].Protocol.V, &n.Allow[i].NetLimits), "allow")
		}
		for i := range n.Ask {
			add(s.matchNet(i, &n.Ask[i].Rule, &n.Ask[i].NetTarget, n.Ask[i].Ports, n.Ask[i].Protocol.V, &n.Ask[i].NetLimits), "ask")
		}
		for i := range n.Deny {
			add(s.matchNet(i, &n.Deny[i].Rule, &n.Deny[i].NetTarget, n.Deny[i].Ports, n.Deny[i].Protocol.V, &n.Deny[i].NetLimits), "deny")
		}
	}
	if f := p.Filesystem; f != nil && s.Path != "" {
		for i := range f.Allow {
			add(s.matchFile(i, &f.Allow[i]), "allow")
		}
		for i := range f.Ask {
			add(s.matchFile(i, &f.Ask[i]), "ask")
		}
		for i := range f.Deny {
			add(s.matchFile(i, &f.Deny[i]), "deny")
		}
	}
	if x := p.Process; x != nil && s.Command != "" {
		for i := range x.Allow {
			if string(x.Allow[i].Command.V) == s.Command && s.ends(x.Allow[i].Expires) {
				add(match{section: "process", i: i, at: x.Allow[i].At, text: x.Allow[i].Text}, "allow")
			}
		}
		s.findNamed(x.Ask, func(m match) { add(m, "ask") })
		s.findNamed(x.Deny, func(m match) { add(m, "deny") })
	}
	return found
}

func (s RuleSpec) findNamed(rules []CommandDeny, add func(match)) {
	for i := range rules {
		if string(rules[i].Command.V) == s.Command && s.ends(rules[i].Expires) {
			add(match{section: "process", i: i, at: rules[i].At, text: rules[i].Text})
		}
	}
}

func (s RuleSpec) matchNet(i int, r *Rule, t *NetTarget, ports []Value[Number], protocol Word, l *NetLimits) match {
	var commands []string
	for _, c := range l.Commands {
		commands = append(commands, string(c.V))
	}
	m := match{section: "network", i: i, at: r.At, text: r.Text}
	prefix := ""
	if t.CIDR.Set {
		prefix = netip.Prefix(t.CIDR.V).String()
	}
	switch {
	case string(t.Domain.V) != s.Domain || prefix != s.CIDR,
		s.Protocol != "" && s.Protocol != string(protocol),
		len(s.Commands) > 0 && !slices.Equal(sorted(s.Commands), sorted(commands)):
		return match{}
	}
	if !s.ends(l.Expires) {
		return match{}
	}
	if len(s.Ports) == 0 {
		return m
	}
	m.left = len(ports) == 0
	return m.narrow("ports", len(ports), func(i int) bool { return slices.Contains(s.Ports, uint16(ports[i].V)) })
}

// ends reports whether a rule ends when s says, or s leaves that open.
func (s RuleSpec) ends(expires Value[Span]) bool {
	if s.Expires == "" {
		return true
	}
	d, err := time.ParseDuration(s.Expires)
	return err == nil && d == time.Duration(expires.V)
}

func (s RuleSpec) matchFile(i int, r *FileEntry) match {
	if string(r.Path.V) != s.Path || !s.ends(r.Expires) {
		return match{}
	}
	m := match{section: "filesystem", i: i, at: r.At, text: r.Text}
	if len(s.Permissions) == 0 {
		return m
	}
	return m.narrow("permissions", len(r.Permissions), func(i int) bool { return slices.Contains(s.Permissions, string(r.Permissions[i].V)) })
}

// narrow makes m one of the n items of a list, all of the rule when every item is named, nothing when none is.
func (m match) narrow(list string, n int, named func(int) bool) match {
	count := 0
	for i := range n {
		if named(i) {
			count++
			m.list, m.part = list, i
		}
	}
	switch {
	case m.left:
		return m
	case count == 0:
		return match{}
	case count == n:
		m.list = ""
	}
	return m
}

// notFound says why nothing was removed, and what could be done.
func (e *edit) notFound(s RuleSpec) error {
	what := s.Domain + s.CIDR + s.Path + s.Command
	if len(s.Ports) > 0 {
		what += " " + strings.Trim(fmt.Sprint(s.Ports), "[]")
	}
	for _, name := range e.policy.Extends {
		preset, err := parsePreset(string(name.V))
		if err != nil {
			return err
		}
		if found := s.find(preset); len(found) > 0 {
			return fmt.Errorf("%s has no rule of its own for %s: the preset %s has it (%s:%d: %s); remove the preset, or add a deny rule, which beats it",
				e.file, cut(what), name.V, preset.File, found[0].at.Line, found[0].text)
		}
	}
	why := "no rule is for exactly that"
	if says := e.was.stillSays(s); len(says) > 0 {
		why += "; " + says[0] + "; remove that rule, or add a deny rule, which beats it"
	}
	return fmt.Errorf("%s: %s: %s", e.file, cut(what), why)
}

// stillSays tells which rule lets through what s names.
func (c *Compiled) stillSays(s RuleSpec) []string {
	var a Answer
	switch {
	case s.Domain != "" && s.Domain[0] != '*':
		for _, r := range c.Network.Match(s.Domain) {
			if r.Verdict != Deny && (len(s.Ports) == 0 || slices.ContainsFunc(s.Ports, r.hasPort)) {
				port := r.Ports[0]
				if len(s.Ports) > 0 {
					port = s.Ports[slices.IndexFunc(s.Ports, r.hasPort)]
				}
				if a = c.Explain(Query{Action: QueryConnect, Name: s.Domain, Port: port, Command: strings.Join(r.Commands[:min(1, len(r.Commands))], "")}); a.Verdict != Deny {
					break
				}
			}
		}
	case s.Path != "":
		if a = c.Explain(Query{Action: QueryRead, Path: s.Path}); a.Verdict == Deny {
			a = c.Explain(Query{Action: QueryWrite, Path: s.Path})
		}
	case s.Command != "":
		a = c.Explain(Query{Action: QueryExec, Path: s.Command})
	}
	switch a.Verdict {
	case Allow:
		return []string{fmt.Sprintf("%s is allowed by %s (%s)", a.Query.Object(), a.Rule.Pos, a.Rule.Text)}
	case Ask:
		return []string{fmt.Sprintf("%s is asked about because of %s (%s)", a.Query.Object(), a.Rule.Pos, a.Rule.Text)}
	}
	return nil
}
