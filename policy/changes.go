package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Section is the part of a policy that a Change is in.
type Section string

// The sections that are put into force by different means. Network rules can change while a sandbox runs; sockets are mounts, and
// limits, devices, and whether libraries are listed, are set when it starts. Files and programs are both, by the level of enforcement.
const (
	SectionNetwork    Section = "network"
	SectionSockets    Section = "network.unix"
	SectionFilesystem Section = "filesystem"
	SectionProcess    Section = "process"
	SectionMap        Section = "process.map"
	SectionLimits     Section = "process.limits"
	SectionDevices    Section = "devices"
	SectionInference  Section = "inference"
	SectionAudit      Section = "audit"
	SectionOther      Section = "other" // name, hold, enforcement
)

// A Change is one thing that two policies say differently.
type Change struct {
	Section Section
	What    string // in words: "/data: read, write instead of read"
	Pos     string // of the new rule, or of the old one where it went; "" for a default
}

// String is "section: what (file:line)".
func (c Change) String() string {
	s := string(c.Section) + ": " + c.What
	if c.Pos != "" {
		s += " (" + c.Pos + ")"
	}
	return s
}

// Changes lists what differs in meaning from old to new, by section. It is empty when their revisions are equal.
func Changes(old, new *Compiled) []Change {
	if old.Revision == new.Revision {
		return nil
	}
	var list []Change
	for _, s := range []struct {
		section Section
		says    func(*Compiled) map[string]said
	}{
		{SectionNetwork, (*Compiled).saysNetwork}, {SectionSockets, (*Compiled).saysSockets}, {SectionFilesystem, (*Compiled).saysFiles},
		{SectionProcess, (*Compiled).saysPrograms}, {SectionMap, (*Compiled).saysMap}, {SectionLimits, (*Compiled).saysLimits},
		{SectionDevices, (*Compiled).saysDevices}, {SectionInference, (*Compiled).saysInference}, {SectionAudit, (*Compiled).saysAudit},
		{SectionOther, (*Compiled).saysOther},
	} {
		list = append(list, changesOf(s.section, s.says(old), s.says(new))...)
	}
	return list
}

// said is what a policy says of a subject, and where.
type said struct{ what, pos string }

func changesOf(section Section, old, new map[string]said) (list []Change) {
	for subject, now := range new {
		was, there := old[subject]
		switch {
		case !there && now.what == "":
			list = append(list, Change{section, "added: " + subject, now.pos})
		case !there:
			list = append(list, Change{section, "added: " + subject + ": " + now.what, now.pos})
		case was.what != now.what:
			list = append(list, Change{section, subject + ": " + now.what + " instead of " + was.what, now.pos})
		}
	}
	for subject, was := range old {
		if _, there := new[subject]; !there {
			list = append(list, Change{section, "removed: " + subject, was.pos})
		}
	}
	slices.SortFunc(list, func(a, b Change) int { return strings.Compare(a.What, b.What) })
	return list
}

func (c *Compiled) pos(id RuleID) string {
	if id == 0 {
		return ""
	}
	return c.Rule(id).Pos
}

func (c *Compiled) saysNetwork() map[string]said {
	m := map[string]said{"default": {c.Network.Default.String(), ""}}
	for i := range c.Network.Rules {
		r := &c.Network.Rules[i]
		subject := r.Verdict.String() + " " + r.target()
		if len(r.Ports) > 0 {
			subject += " on " + strings.Trim(fmt.Sprint(r.Ports), "[]")
		}
		if r.Verdict != Deny {
			subject += " " + r.Protocol.String()
		}
		if len(r.Commands) > 0 {
			subject += " for " + strings.Join(sorted(r.Commands), ", ")
		}
		if r.ECH {
			subject += " with ech"
		}
		subject += after(r.Expires)
		if _, twice := m[subject]; !twice {
			m[subject] = said{"", c.pos(r.ID)}
		}
	}
	return m
}

func (c *Compiled) saysSockets() map[string]said {
	m := map[string]said{}
	for _, s := range c.Network.Unix {
		m[s.Path] = said{"", c.pos(s.ID)}
	}
	return m
}

func (c *Compiled) saysFiles() map[string]said {
	baseline := "none"
	if c.Files.Baseline {
		baseline = "system"
	}
	m := map[string]said{"baseline": {baseline, ""}, "default": {c.Files.Default.String(), ""}}
	for i := range c.Files.Rules {
		r := &c.Files.Rules[i]
		what := r.Access.String()
		if r.Asked != 0 {
			what += ", asked " + r.Asked.String()
		}
		if r.Denied != 0 {
			what += ", denied " + r.Denied.String()
		}
		m[r.Path] = said{what, c.pos(r.ID)}
	}
	for i := range c.Files.written {
		if g := &c.Files.written[i]; g.Expires != 0 {
			m[fmt.Sprintf("%s %s: %s%s", g.Verdict, g.Path, g.Access, after(g.Expires))] = said{"", c.pos(firstOf(g.by))}
		}
	}
	return m
}

// after says when a rule ends.
func after(expires time.Duration) string {
	if expires == 0 {
		return ""
	}
	return " for " + span(expires) + " after the start"
}

func (c *Compiled) saysPrograms() map[string]said {
	m := map[string]said{"default": {c.Exec.Default.String(), ""}}
	for _, x := range c.Exec.Allow {
		what := "without helpers"
		if len(x.Helpers) > 0 {
			what = "with " + strings.Join(sorted(x.Helpers), ", ")
		}
		m["allow "+x.Name+after(x.Expires)] = said{what, c.pos(x.ID)}
	}
	for _, x := range c.Exec.Ask {
		m["ask "+x.Name+after(x.Expires)] = said{"", c.pos(x.ID)}
	}
	for _, x := range c.Exec.Deny {
		m["deny "+x.Name+after(x.Expires)] = said{"", c.pos(x.ID)}
	}
	return m
}

func (c *Compiled) saysMap() map[string]said {
	if c.Exec.Listed != 0 {
		return map[string]said{"what may be loaded": {"listed", c.pos(c.Exec.Listed)}}
	}
	return map[string]said{"what may be loaded": {"any", ""}}
}

func (c *Compiled) saysLimits() map[string]said {
	m := map[string]said{}
	set := func(key string, value float64) {
		what := "no limit"
		if value != 0 {
			what = fmt.Sprintf("%.12g", value)
		}
		m[key] = said{what, c.pos(c.Limits.ID)}
	}
	set("memory", float64(c.Limits.Memory))
	set("pids", float64(c.Limits.PIDs))
	set("cpus", c.Limits.CPUs)
	set("files", float64(c.Limits.Files))
	set("disk", float64(c.Limits.Disk))
	return m
}

func (c *Compiled) saysAudit() map[string]said {
	m := map[string]said{"what is let through": {"is written down as it goes", ""}, "what records are without": {"nothing", ""}}
	if c.Audit.Strict {
		m["what is let through"] = said{"is on the disk first", c.pos(c.Audit.ID)}
	}
	if len(c.Audit.Redact) > 0 {
		m["what records are without"] = said{strings.Join(c.Audit.Redact, ", "), c.pos(c.Audit.RedactID)}
	}
	return m
}

func (c *Compiled) saysOther() map[string]said {
	return map[string]said{"name": {Quote(c.Name), ""}, "hold": {span(c.Hold), ""}, "enforcement": {c.Enforcement.String(), ""}}
}
