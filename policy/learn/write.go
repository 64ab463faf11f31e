package learn

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nemoclaw/nemoclaw/policy"
)

// What a person can read of the evidence; the audit log has all of it.
const (
	maxEvidence = 3   // lines for each rule
	maxLeft     = 50  // refusals without a rule
	maxText     = 100 // characters of a command line
)

// page is the YAML on its way.
type page struct{ bytes.Buffer }

func (p *page) line(format string, args ...any) {
	fmt.Fprintf(p, format, args...)
	p.WriteByte('\n')
}

// note writes a comment. What stands in it is escaped here, once for all.
func (p *page) note(margin, text string) { p.line("%s# %s", margin, policy.Comment(text, 400)) }

// write makes the policy, and reads it back: what is no policy is not returned.
func (l *learner) write() (*Result, error) {
	res := &Result{Missed: l.more}
	var p page
	l.head(&p)
	p.line("version: 1")
	if l.policy.Name != "" {
		p.line("name: %s", policy.Quote(l.policy.Name))
	}
	l.writeNetwork(&p, res)
	l.writeFiles(&p, res)
	l.writeProcess(&p, res)
	l.writeDevices(&p)
	l.writeInference(&p)
	l.tail(&p)
	res.YAML = p.Bytes()
	parsed, err := policy.Parse("the learnt policy", res.YAML)
	if err == nil {
		_, err = policy.Compile(parsed)
	}
	if err != nil {
		return nil, fmt.Errorf("learn: what was learnt is no policy, please report it: %w", err)
	}
	return res, nil
}

func (l *learner) head(p *page) {
	for _, t := range l.o.Title {
		p.note("", t)
	}
	p.line("#")
	p.line("# Read it before you use it. Rules marked REFUSED are for what the run was not allowed; take out what should stay so.")
	p.line("# Command lines and names in comments are what programs inside said.")
	p.line("#")
	p.line("# Seen: every connection, every name refused, every program executed or refused, but what is listed here.")
	if len(l.o.Unseen) > 0 {
		p.line("# Not seen at this level:")
		for _, u := range l.o.Unseen {
			p.note("", "  - "+u)
		}
	}
	if !l.o.Finished {
		p.line("# The command failed, so it may have needed more than was seen: every rule of the policy is kept, used or not.")
	}
	p.line("# File rules are kept from the policy: which files were used is not recorded, only what was refused.")
	if l.o.Lost > 0 {
		p.note("", fmt.Sprintf("WARNING: %d records were lost, so rules may be missing: run it again with fewer things at once.", l.o.Lost))
	}
	if l.more > 0 {
		p.note("", fmt.Sprintf("WARNING: %d records beyond %d different ones were not looked at, so rules may be missing.", l.more, len(l.facts)))
	}
	p.line("")
}

func (l *learner) writeNetwork(p *page, res *Result) {
	verdict := policy.Deny
	if !l.o.Finished {
		verdict = l.policy.Network.Default
	}
	p.line("")
	p.line("network:")
	p.line("  default: %s", verdict)
	sortHosts(l.hosts)
	if len(l.hosts) > 0 {
		p.line("  allow:")
	}
	for _, h := range l.hosts {
		res.count(&h.rule, &res.Hosts)
		l.writeHost(p, h)
	}
	for _, verdict := range []policy.Verdict{policy.Allow, policy.Ask, policy.Deny} {
		head := verdict == policy.Allow && len(l.hosts) > 0
		for i := range l.policy.Network.Rules {
			r := &l.policy.Network.Rules[i]
			if r.Verdict != verdict || verdict != policy.Deny && l.o.Finished || l.policy.OfInference(r) {
				continue
			}
			if !head {
				p.line("  %s:", verdict)
				head = true
			}
			l.writeKept(p, r)
			if verdict == policy.Allow {
				res.Hosts++
			}
		}
	}
	if len(l.policy.Network.Unix) > 0 {
		p.line("  unix:")
		for _, s := range l.policy.Network.Unix {
			p.note("    ", "kept from "+l.policy.Rule(s.ID).Pos+": whether it was used is not recorded")
			p.line("    - %s", policy.Quote(s.Path))
		}
	}
}

// writeHost writes a learnt rule.
func (l *learner) writeHost(p *page, h *host) {
	l.reasons(p, "    ", &h.rule, "connection")
	if h.why != "" {
		p.note("    ", h.why)
	}
	if h.unnamed {
		p.note("    ", "for every program, since what connected has no name in process.allow")
	}
	writeTarget(p, h.target, h.cidr)
	p.line("      ports: [%d]", h.port)
	p.line("      protocol: %s", h.protocol)
	if h.ech {
		p.line("      ech: allow")
	}
	if !h.anybody {
		p.line("      commands: %s", list(h.commands))
	}
	if h.expires > 0 {
		p.line("      expires: %s", h.expires)
	}
}

// writeKept writes a rule of the policy as it was.
func (l *learner) writeKept(p *page, r *policy.NetRule) {
	l.kept(p, "    ", r.ID)
	if u := l.uses[r.ID]; u != nil {
		l.reasons(p, "    ", u, "connection")
	}
	if r.Name != "" {
		writeTarget(p, r.Name, false)
	} else {
		writeTarget(p, r.Prefix.String(), true)
	}
	if len(r.Ports) > 0 {
		p.line("      ports: [%s]", strings.Join(strings.Fields(strings.Trim(fmt.Sprint(r.Ports), "[]")), ", "))
	}
	if r.Verdict != policy.Deny {
		p.line("      protocol: %s", r.Protocol)
	}
	if r.ECH {
		p.line("      ech: allow")
	}
	if len(r.Commands) > 0 {
		p.line("      commands: %s", list(r.Commands))
	}
	if r.Expires > 0 {
		p.line("      expires: %s", r.Expires)
	}
}

func writeTarget(p *page, target string, cidr bool) {
	key := "domain"
	if cidr {
		key = "cidr"
	}
	p.line("    - %s: %s", key, policy.Quote(target))
}

func (l *learner) writeFiles(p *page, res *Result) {
	p.line("")
	p.line("filesystem:")
	p.line("  default: deny")
	if !l.policy.Files.Baseline {
		p.line("  baseline: none")
	}
	slices.SortFunc(l.paths, func(a, b *file) int { return cmp.Compare(a.path, b.path) })
	var grants, denies []policy.FileGrant
	for _, g := range l.files {
		if g.Verdict == policy.Deny {
			denies = append(denies, g)
			continue
		}
		if l.trees[g.Path] == nil && l.o.Finished {
			g.Access &^= policy.Execute // every execution was seen, and none was below
		}
		if i := slices.IndexFunc(l.paths, func(x *file) bool { return x.path == g.Path && x.secret == "" }); i >= 0 {
			g.Access = 0 // the rule for what was refused says both
		}
		if g.Access != 0 {
			grants = append(grants, g)
		}
	}
	live := slices.ContainsFunc(l.paths, func(x *file) bool { return x.secret == "" })
	if len(grants) > 0 || live {
		p.line("  allow:")
	}
	for _, g := range grants {
		p.note("    ", "kept from "+l.policy.Rule(g.RuleFor(g.Access)).Pos)
		if t := l.trees[g.Path]; t != nil {
			l.reasons(p, "    ", t, "execution")
		}
		p.line("    - path: %s", policy.Quote(g.Path))
		p.line("      permissions: [%s]", g.Access)
		res.Paths++
	}
	for _, x := range l.paths {
		if x.secret != "" {
			continue
		}
		res.count(&x.rule, &res.Paths)
		l.reasons(p, "    ", &x.rule, "access")
		p.line("    - path: %s", policy.Quote(x.path))
		p.line("      permissions: [%s]", x.access)
	}
	if len(denies) > 0 {
		p.line("  deny:")
	}
	for _, g := range denies {
		l.kept(p, "    ", g.RuleFor(g.Access))
		p.line("    - path: %s", policy.Quote(g.Path))
		p.line("      permissions: [%s]", g.Access)
	}
	for _, x := range l.paths {
		if x.secret == "" {
			continue
		}
		res.Withheld++
		p.note("  ", "A SECRET ("+x.secret+"), so this is no rule. Put it under allow only if the command must have it:")
		l.reasons(p, "  ", &x.rule, "access")
		p.note("  ", "    - path: "+policy.Quote(x.path))
		p.note("  ", "      permissions: ["+x.access.String()+"]")
	}
}

func (l *learner) writeProcess(p *page, res *Result) {
	p.line("")
	p.line("process:")
	p.line("  default: deny")
	helpers := l.helpersOf()
	if len(l.programs) > 0 {
		p.line("  allow:")
	}
	for _, command := range slices.SortedFunc(maps.Keys(l.programs), byName) {
		r := l.programs[command]
		res.count(r, &res.Programs)
		if len(r.evidence) == 0 {
			p.note("    ", "kept, although it was not used")
		}
		l.reasons(p, "    ", r, "execution")
		p.line("    - command: %s", policy.Quote(command))
		own := helpers[command]
		if len(own) == 0 {
			continue
		}
		slices.SortFunc(own, func(a, b *helper) int { return cmp.Compare(a.path, b.path) })
		p.line("      helpers:")
		for _, h := range own {
			l.reasons(p, "        ", &h.rule, "execution")
			p.line("        - %s", policy.Quote(h.path))
		}
	}
	if len(l.policy.Exec.Deny) > 0 {
		p.line("  deny:")
	}
	for _, x := range l.policy.Exec.Deny {
		l.kept(p, "    ", x.ID)
		p.line("    - command: %s", policy.Quote(x.Name))
	}
	if listed := l.policy.Exec.Listed; listed != 0 {
		l.kept(p, "  ", listed)
		p.line("  map: listed")
	}
	l.writeLimits(p)
}

// helpersOf returns the helpers to write with each command: those that were used, or all that the policy has where every
// rule is kept. It adds the commands to write beside those that were used.
func (l *learner) helpersOf() map[string][]*helper {
	helpers := map[string][]*helper{}
	if !l.o.Finished {
		for _, x := range l.policy.Exec.Allow {
			if l.programs[x.Name] == nil {
				l.programs[x.Name] = &rule{}
			}
			for _, h := range x.Helpers {
				helpers[x.Name] = append(helpers[x.Name], &helper{path: h})
			}
		}
		return helpers
	}
	for _, h := range l.helpers {
		if r := l.programs[h.owner]; r != nil && !r.refused {
			helpers[h.owner] = append(helpers[h.owner], h)
			continue
		}
		// Its command was not used, so it is a command by itself.
		if l.programs[h.path] == nil {
			l.programs[h.path] = &rule{}
		}
		l.programs[h.path].evidence = append(l.programs[h.path].evidence, h.evidence...)
	}
	return helpers
}

// writeLimits keeps the limits.
func (l *learner) writeLimits(p *page) {
	m := l.policy.Limits
	var parts []string
	add := func(set bool, key, value string) {
		if set {
			parts = append(parts, key+": "+value)
		}
	}
	add(m.Memory > 0, "memory", strconv.FormatInt(m.Memory, 10))
	add(m.PIDs > 0, "pids", strconv.FormatInt(m.PIDs, 10))
	add(m.CPUs > 0, "cpus", strconv.FormatFloat(m.CPUs, 'f', -1, 64))
	add(m.Files > 0, "files", strconv.FormatInt(m.Files, 10))
	add(m.Disk > 0, "disk", strconv.FormatInt(m.Disk, 10))
	if len(parts) > 0 {
		l.kept(p, "  ", m.ID)
		p.line("  limits: {%s}", strings.Join(parts, ", "))
	}
}

// writeDevices keeps the section: what a GPU was used for no record says.
func (l *learner) writeDevices(p *page) {
	if d := l.policy.Devices; len(d.GPUs) > 0 {
		p.line("")
		l.kept(p, "", d.ID)
		p.line("devices:")
		p.line("  gpus: [%s]", strings.Join(d.GPUs, ", "))
	}
}

// writeInference keeps the section.
func (l *learner) writeInference(p *page) {
	f := l.policy.Inference
	if f == nil {
		return
	}
	p.line("")
	l.kept(p, "", f.ID)
	p.line("inference:")
	for line := range strings.Lines(f.YAML()) {
		p.line("  %s", strings.TrimSuffix(line, "\n"))
	}
}

// byName sorts names before paths.
func byName(a, b string) int {
	if x, y := strings.HasPrefix(a, "/"), strings.HasPrefix(b, "/"); x != y {
		if x {
			return 1
		}
		return -1
	}
	return cmp.Compare(a, b)
}

// kept says where a rule is from, and how often it refused.
func (l *learner) kept(p *page, margin string, id policy.RuleID) {
	pos := l.policy.Rule(id).Pos
	s := "kept from " + pos
	if n := l.denied[pos]; n > 0 {
		s += fmt.Sprintf(": refused %s in this run", times(n))
	}
	p.note(margin, s)
}

// tail lists what was refused and has no rule.
func (l *learner) tail(p *page) {
	if len(l.left) == 0 {
		return
	}
	p.line("")
	p.line("# Refused, and not proposed:")
	for _, s := range l.left[:min(len(l.left), maxLeft)] {
		p.line("#   %s", s) // escaped where it was made
	}
	if n := len(l.left) - maxLeft; n > 0 {
		p.line("#   and %d more", n)
	}
}

// count adds a rule to a sum.
func (res *Result) count(r *rule, sum *int) {
	*sum++
	if r.refused {
		res.Refused++
	}
}

// reasons writes the evidence for a rule.
func (l *learner) reasons(p *page, margin string, r *rule, what string) {
	for _, e := range r.evidence[:min(len(r.evidence), maxEvidence)] {
		p.note(margin, l.sentence(e, what))
	}
	if n := len(r.evidence) - maxEvidence; n > 0 {
		p.note(margin, fmt.Sprintf("and %d more like this", n))
	}
}

// sentence tells one piece of evidence: "3 connections by node, first 2026-01-02 15:04:05: npm install (allowed by p.yaml:4)".
func (l *learner) sentence(e evidence, what string) string {
	var b strings.Builder
	if e.how == refused {
		fmt.Fprintf(&b, "REFUSED %s", times(e.n))
	} else {
		fmt.Fprintf(&b, "%d %s", e.n, what)
		if e.n != 1 {
			b.WriteString(map[bool]string{true: "es", false: "s"}[strings.HasSuffix(what, "s")])
		}
	}
	if exe := e.Subject.Exe; exe != "" && e.Plane != policy.PlaneExec {
		name := l.command[exe]
		if name == "" {
			name = exe
		}
		fmt.Fprintf(&b, " by %s", path.Base(name))
	}
	if e.Plane == policy.PlaneFile {
		fmt.Fprintf(&b, ", %s %s", e.Action, e.Object)
	}
	fmt.Fprintf(&b, ", first %s", e.Time.UTC().Format(time.DateTime))
	if e.Subject.Args != "" {
		b.WriteString(": " + cut(e.Subject.Args))
	}
	switch e.how {
	case used:
		fmt.Fprintf(&b, " (allowed by %s)", e.Rule)
	case approved:
		b.WriteString(" (approved by a person)")
	}
	return b.String()
}

// cut shortens a command line; it is escaped later, with the comment.
func cut(s string) string {
	if r := []rune(s); len(r) > maxText {
		return string(r[:maxText]) + "..."
	}
	return s
}

func times(n uint64) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

// list writes a flow list.
func list(items []string) string {
	quoted := make([]string, len(items))
	for i, s := range items {
		quoted[i] = policy.Quote(s)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}
