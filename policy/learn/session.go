package learn

import (
	"net/netip"
	"path"
	"slices"
	"time"

	"github.com/nemoclaw/nemoclaw/policy"
)

// various is the object of records whose objects the log gave up, because there were too many (agent/hub).
const various = "(various)"

// A Session gathers from the records of a sandbox that lasts what a person let through and no rule does, and which rules
// were of use. Its policy can have changed meanwhile, so the rule of a record is looked for in the policy of the record.
//
// It is given the records twice: first those of the system, for the answers, then all others. An answer counts for attempts
// before it, and nothing that a program inside attempts takes the place of what a person answered.
type Session struct {
	o   SessionOptions
	now *policy.Compiled

	extends  []string // the presets of the policy
	answers  map[asked]*answer
	approved gathered
	refused  gathered
	ran      map[string]string // what rules call a program that was executed, by its path
	places   map[place]verbs
	usage    *usage // nil: nothing is to be pruned
	folded   uint64 // attempts that the log has without their objects
}

// SessionOptions say what a session's proposals are made from beside its records.
type SessionOptions struct {
	File string // the policy's name, as positions have it
	Text []byte // the policy that is to be changed

	// Revision finds the policy that a record's rule is of: it had this hash at that time. nil: it is not known any more.
	Revision func(hash string, at time.Time) (*policy.Compiled, error)

	// Since finds the policies that the sandbox has had from a time on. nil: it has the one that it had.
	Since func(at time.Time) ([]*policy.Compiled, error)

	Refused    bool // propose what was refused, too, unless a person denied it
	Prune      bool // propose to take away what was of no use
	Dirs       bool // two files of one directory become the directory
	Subdomains bool // two names below one become a wildcard
}

// asked is what makes two questions to a person the same.
type asked struct{ what, object, exe, taint string }

// answer is the latest answer to a question.
type answer struct {
	policy.Decision
	n int // how often it was answered so
}

// NewSession returns a session of a sandbox that has this policy now.
func NewSession(o SessionOptions) (*Session, error) {
	p, err := policy.Parse(o.File, o.Text)
	if err != nil {
		return nil, err
	}
	now, err := policy.Compile(p)
	if err != nil {
		return nil, err
	}
	s := &Session{o: o, now: now, answers: map[asked]*answer{}, ran: map[string]string{}, places: map[place]verbs{}}
	for _, e := range p.Extends {
		s.extends = append(s.extends, string(e.V))
	}
	if o.Prune {
		s.usage = newUsage(now)
	}
	return s, nil
}

// Answer takes a record of the system.
func (s *Session) Answer(d *policy.Decision) {
	switch {
	case d.Plane != policy.PlaneSystem:
		return
	case d.Action == "answer":
	case d.Action == "revoke": // who took an approval back did not approve
	default:
		return
	}
	id := askedBy(d)
	a := s.answers[id]
	switch {
	case a == nil && len(s.answers) >= maxFacts: // of so many nobody reads the proposals
		return
	case a == nil || a.Verdict != d.Verdict:
		s.answers[id] = &answer{*d, 1}
	default:
		s.answers[id] = &answer{*d, a.n + 1}
	}
}

// askedBy is the question that a record is about, as an attempt or as its answer.
func askedBy(d *policy.Decision) asked {
	what := d.Asked
	if what == "" {
		what = string(d.Plane) + " " + d.Action
	}
	switch what {
	case "network request": // on a connection that was asked about as one
		what = "network connect"
	case "exec exec": // who is asked sees who executes it, and the record of it has the program that it is by then
		return asked{what: what, object: d.Object}
	}
	return asked{what, d.Object, d.Subject.Exe, d.Subject.Taint}
}

// Add takes any other record. The error is that of Options.Revision.
func (s *Session) Add(d *policy.Decision) error {
	switch {
	case d.Plane == policy.PlaneNetwork && (d.Action == "connect" || d.Action == "request"), d.Plane == policy.PlaneExec, d.Plane == policy.PlaneFile:
	default:
		return nil
	}
	if d.Rule == "builtin" {
		if d.Object == various {
			s.folded += max(d.Count, 1)
		}
		return nil
	}
	if s.usage != nil {
		s.usage.add(d)
	}
	if d.Verdict == policy.Allow {
		return s.allowed(d)
	}
	if s.o.Refused && d.Verdict == policy.Deny {
		return s.denied(d)
	}
	return nil
}

// allowed takes what was let through.
func (s *Session) allowed(d *policy.Decision) error {
	if d.Rule == "default" {
		if d.Plane == policy.PlaneExec && isLauncher(s.now, d.Object) {
			return nil
		}
		s.approved.add(d) // no default allows, so a person did
		return nil
	}
	c, err := s.o.Revision(d.Revision, d.Time)
	if c == nil || err != nil {
		return err
	}
	if d.Plane == policy.PlaneExec && len(s.ran) < maxFacts {
		if name := calls(c, d.Rule, d.Object); name != "" {
			s.ran[d.Object] = name
		}
	}
	if v := s.verbs(c, d.Rule); v.asks && !v.allows {
		if f := s.approved.add(d); f != nil && f.of == nil {
			f.of = c
		}
	}
	return nil
}

// denied takes what was refused, and could be allowed.
func (s *Session) denied(d *policy.Decision) error {
	if d.Rule == "default" {
		s.refused.add(d)
		return nil
	}
	c, err := s.o.Revision(d.Revision, d.Time)
	if c == nil || err != nil {
		return err
	}
	if v := s.verbs(c, d.Rule); v.asks && !v.denies {
		if f := s.refused.add(d); f != nil && f.of == nil {
			f.of = c
		}
	}
	return nil
}

// isLauncher reports whether a program is the launcher of scripts, which comes with any program.
func isLauncher(c *policy.Compiled, program string) bool {
	q, err := policy.NewQuery(policy.QueryExec, program, "")
	return err == nil && c.Explain(q).Rule.Pos == "builtin"
}

// verbs are what the rules at one place say: two can stand on one line.
type verbs struct{ allows, asks, denies bool }

// place is a line of a policy.
type place struct {
	of  *policy.Compiled
	pos string
}

// verbs returns what the rules at a place say.
func (s *Session) verbs(c *policy.Compiled, pos string) verbs {
	at := place{c, pos}
	v, known := s.places[at]
	if !known {
		v = verbsAt(c, pos)
		if len(s.places) < maxFacts {
			s.places[at] = v
		}
	}
	return v
}

func verbsAt(c *policy.Compiled, pos string) (v verbs) {
	add := func(verdict policy.Verdict, id policy.RuleID) {
		if c.Rule(id).Pos != pos {
			return
		}
		switch verdict {
		case policy.Allow:
			v.allows = true
		case policy.Ask:
			v.asks = true
		default:
			v.denies = true
		}
	}
	for i := range c.Network.Rules {
		add(c.Network.Rules[i].Verdict, c.Network.Rules[i].ID)
	}
	for _, g := range c.Files.Written() {
		for _, one := range []policy.Access{policy.Read, policy.Write, policy.Execute} {
			if g.Access&one != 0 {
				add(g.Verdict, g.RuleFor(one))
			}
		}
	}
	for verdict, list := range map[policy.Verdict][]policy.Command{policy.Allow: c.Exec.Allow, policy.Ask: c.Exec.Ask, policy.Deny: c.Exec.Deny} {
		for _, x := range list {
			add(verdict, x.ID)
		}
	}
	return v
}

// calls is what the rule at a place calls a program that it let run; "" where that is not clear.
func calls(c *policy.Compiled, pos, program string) string {
	name := ""
	for _, x := range commands(c) {
		if c.Rule(x.ID).Pos != pos {
			continue
		}
		if name != "" {
			return "" // two on one line
		}
		name = x.Name
		if len(x.Helpers) > 0 && path.Base(x.Name) != path.Base(program) {
			name = program // a helper of it
		}
	}
	return name
}

// name is what a rule calls the program that did something. why says why no rule can name it.
func (s *Session) name(who policy.Subject) (name, why string) {
	switch {
	case who.Exe == "":
		return "", "which program it was is not known"
	case who.Taint != "":
		return "", "a rule for a command is not for one that other code may run as (" + policy.Comment(who.Taint, 60) + ")"
	}
	name = s.ran[who.Exe]
	if name == "" {
		name = who.Exe
	}
	for _, x := range commands(s.now) {
		if x.Name == name {
			return name, ""
		}
	}
	q, err := policy.NewQuery(policy.QueryExec, name, "")
	if err == nil {
		if a := s.now.Explain(q); a.Verdict != policy.Deny {
			for _, x := range commands(s.now) {
				if s.now.Rule(x.ID).Pos != a.Rule.Pos {
					continue
				}
				if path.Base(x.Name) == path.Base(name) {
					return x.Name, ""
				}
				return name, "" // a helper of it
			}
		}
	}
	// One that a person let run is a program of the policy once that is accepted.
	for _, f := range s.approved.facts {
		if f.Plane == policy.PlaneExec && f.Object == who.Exe {
			if p := proposal(f.Decision); p != nil && p.Process != nil {
				return string(p.Process.Allow[0].Command.V), ""
			}
		}
	}
	return "", "a rule can name no program that process does not list, and " + policy.Comment(who.Exe, 120) + " was not seen as one that it lists"
}

// commands are the programs that a policy lists.
func commands(c *policy.Compiled) []policy.Command { return slices.Concat(c.Exec.Allow, c.Exec.Ask) }

// askedAbout finds the rule that asked about a connection; nil where it was the default.
func askedAbout(f *fact, name string, addr netip.Addr, port uint16) *policy.NetRule {
	if f.of == nil {
		return nil
	}
	about := f.of.Network.MatchAddr(addr)
	if name != "" {
		about = f.of.Network.Match(name)
	}
	for _, r := range about {
		if r.Verdict == policy.Ask && slices.Contains(r.Ports, port) && f.of.Rule(r.ID).Pos == f.Rule {
			return r
		}
	}
	return nil
}
