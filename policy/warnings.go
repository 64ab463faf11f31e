package policy

import (
	"fmt"
	"slices"
)

// Warnings lists what is valid and yet hardly meant: rules that can never act. Each names its rule.
func (c *Compiled) Warnings() []string {
	var list []string
	warn := func(id RuleID, format string, args ...any) {
		list = append(list, c.Rule(id).Pos+": "+fmt.Sprintf(format, args...))
	}
	for i := range c.Network.Rules {
		r := &c.Network.Rules[i]
		for _, name := range r.Commands {
			if !c.mayRun(name) {
				warn(r.ID, "the rule is for %s, which no rule of process allows to run", cut(name))
			}
		}
		if deny := c.hiddenBy(r); deny != nil {
			warn(r.ID, "the rule never acts: %s at %s is denied", deny.target(), c.Rule(deny.ID).Pos)
		}
	}
	for _, x := range c.Exec.Allow {
		if slices.ContainsFunc(c.Exec.Deny, func(d Command) bool { return d.Name == x.Name }) {
			warn(x.ID, "the rule never acts: %s is denied", cut(x.Name))
		}
	}
	for _, f := range c.Files.Rules {
		if f.allowedAt == f.Path && f.Access|f.Asked == 0 {
			warn(firstOf(f.by), "the rule never acts: all of %s is denied at %s", cut(f.Path), c.Rule(f.DenyID).Pos)
		}
	}
	if !c.Exec.Any() && !slices.ContainsFunc(c.Files.Rules, func(f FileRule) bool { return (f.Access|f.Asked)&Execute != 0 }) {
		list = append(list, "no program may be executed: process.allow is empty")
	}
	return list
}

// mayRun reports whether some rule may let a command run.
func (c *Compiled) mayRun(name string) bool {
	a := c.Explain(Query{Action: QueryExec, Path: name})
	return a.Verdict != Deny || name[0] != '/' && slices.ContainsFunc(c.Files.Rules, func(f FileRule) bool {
		return (f.Access|f.Asked)&Execute != 0 // it may be found there
	})
}

// hiddenBy returns a deny rule that covers all that r could allow.
func (c *Compiled) hiddenBy(r *NetRule) *NetRule {
	if r.Verdict == Deny {
		return nil
	}
	var about []*NetRule
	if r.Name == "" {
		about = c.Network.MatchAddr(r.Prefix.Addr())
	} else if at := c.Network.index.names[r.Name]; at != nil {
		about = c.Network.Match(r.Name)
	}
	for _, d := range about {
		all := d.Verdict == Deny && len(d.Commands) == 0 && d.Expires == 0
		if all && r.Name == "" && d.Prefix.Bits() > r.Prefix.Bits() {
			continue
		}
		if all && !slices.ContainsFunc(r.Ports, func(p uint16) bool { return !d.hasPort(p) }) {
			return d
		}
	}
	return nil
}
