package policy

import (
	"fmt"
	"slices"
	"time"
)

// Expiring is a rule that ends.
type Expiring struct {
	ID      RuleID
	Key     string         // what makes it the same rule in two revisions of a policy
	Expires *time.Duration // after the sandbox's start; to be set before anything is made of the policy
	Local   bool           // it is about files or programs
}

// Expiring lists the rules that end.
func (c *Compiled) Expiring() []Expiring {
	var list []Expiring
	add := func(local bool, id RuleID, expires *time.Duration, key ...any) {
		if *expires > 0 {
			list = append(list, Expiring{id, fmt.Sprint(append(key, *expires)...), expires, local})
		}
	}
	for i := range c.Network.Rules {
		r := &c.Network.Rules[i]
		add(false, r.ID, &r.Expires, "network", r.Verdict, r.Name, r.Prefix, r.Ports, r.Protocol, r.Commands, r.ECH)
	}
	for i := range c.Files.written {
		g := &c.Files.written[i]
		add(true, firstOf(g.by), &g.Expires, "file", g.Verdict, g.Path, g.Access)
	}
	for _, list := range []struct {
		verb     Verdict
		commands []Command
	}{{Allow, c.Exec.Allow}, {Ask, c.Exec.Ask}, {Deny, c.Exec.Deny}} {
		for i := range list.commands {
			x := &list.commands[i]
			add(true, x.ID, &x.Expires, "program", list.verb, x.Name, x.Helpers)
		}
	}
	return list
}

// Ends lists, in order, the ages of the sandbox after a given one at which rules for files and programs end.
func (c *Compiled) Ends(after time.Duration) []time.Duration {
	var ends []time.Duration
	for _, e := range c.Expiring() {
		if e.Local && *e.Expires > after {
			ends = append(ends, *e.Expires)
		}
	}
	slices.Sort(ends)
	return slices.Compact(ends)
}

// At is the policy without the rules for files and programs that have ended at an age of the sandbox. Network rules keep theirs: see
// Network.JudgeAt. Both have the same numbers of rules.
func (c *Compiled) At(age time.Duration) *Compiled {
	now, steps := *c, 0
	over := func(x Command) bool { return x.Expires != 0 && x.Expires <= age }
	now.Files = c.Files.at(age, &steps)
	now.Exec.Allow = slices.DeleteFunc(slices.Clone(c.Exec.Allow), over)
	now.Exec.Ask = slices.DeleteFunc(slices.Clone(c.Exec.Ask), over)
	now.Exec.Deny = slices.DeleteFunc(slices.Clone(c.Exec.Deny), over)
	return &now
}
