// Package learn says what policy covers what was needed, from records: for a run (Recorder), the least policy, written
// anew; for a sandbox that lasts (Session), changes of the policy that it has, each to be accepted by a person. It owns what
// counts as needed, what is generalised, and how the evidence is written down.
//
// It never widens what it was not told to: every rule is one that the policy had and that was used, one that a
// person approved, or one for exactly what was refused, marked as such. It trusts no text of a record: names, paths
// and command lines come from inside the sandbox, and only what the language takes is ever written outside of a comment.
package learn

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nemoclaw/nemoclaw/policy"
)

// What bounds the different records that are kept apart: a program inside can make any number, of any length, and a
// policy that it makes too long is none.
const (
	maxFacts = 4096
	maxBytes = 3 << 20 // of what is written of them, roughly; a policy has 4 MiB at most
)

// A Recorder gathers the records of one run. Its methods may be called from any goroutine.
type Recorder struct {
	policy *policy.Compiled

	mu sync.Mutex
	gathered
	refused map[question]bool // what a person said no to
}

// gathered is records of which equal ones are one fact, within bounds.
type gathered struct {
	facts []*fact // in the order in which they were seen first
	index map[kind]*fact
	bytes int    // what is written of the facts comes to no more, roughly
	more  uint64 // records beyond maxFacts or maxBytes
}

// fact is one thing that happened, however often.
type fact struct {
	policy.Decision // the first one
	n               uint64
	last            time.Time
	of              *policy.Compiled // a Session: the policy that its rule is of; nil: it is the default
}

// kind is what makes two records the same fact.
type kind struct {
	plane                                    policy.Plane
	action, object, exe, taint, rule, called string
	verdict                                  policy.Verdict
}

// question is what a person was asked: the object, and who wanted it.
type question struct{ object, exe string }

// New returns a Recorder for a run under c.
func New(c *policy.Compiled) *Recorder {
	return &Recorder{policy: c, refused: map[question]bool{}}
}

// Add takes one record.
func (r *Recorder) Add(d *policy.Decision) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if d.Plane == policy.PlaneSystem {
		if d.Action == "answer" && d.Verdict == policy.Deny && len(r.refused) < maxFacts {
			r.refused[question{d.Object, d.Subject.Exe}] = true
		}
		return
	}
	r.add(d)
}

// add takes a record, and returns its fact; nil where there is no room for another one.
func (g *gathered) add(d *policy.Decision) *fact {
	n := max(d.Count, 1)
	k := kind{d.Plane, d.Action, d.Object, d.Subject.Exe, d.Subject.Taint, d.Rule, d.Called, d.Verdict}
	f := g.index[k]
	// The object stands in a rule, quoted, and in its evidence.
	size := 250 + 3*len(d.Object) + len(d.Subject.Exe) + 4*min(len(d.Subject.Args), maxText)
	switch {
	case f != nil:
		f.n, f.last = f.n+n, d.Time
	case len(g.facts) == maxFacts, g.bytes+size > maxBytes:
		g.more += n
	default:
		if g.index == nil {
			g.index = map[kind]*fact{}
		}
		g.bytes += size
		f = &fact{Decision: *d, n: n, last: d.Time}
		g.index[k] = f
		g.facts = append(g.facts, f)
	}
	return f
}

// A Program is one that the run's policy allowed to be executed, as the sandbox found it.
type Program struct {
	Command string // as the policy writes it; of a helper, the command that it helps
	Path    string // of the file, symbolic links followed
	Rule    policy.RuleID
	Helper  bool
	Script  bool // what the kernel executes is its interpreter
}

// Options say what a policy is made of beside the records.
type Options struct {
	Title      []string  // the first comments: what was run, when, under which policy
	Programs   []Program // all that could run
	Unseen     []string  // what could be refused without a record, one sentence each
	Finished   bool      // the command ended well; else it may have needed more, and every rule is kept
	Lost       uint64    // records that the kernel could not hand over
	Dirs       bool      // two refused files of one directory become the directory
	Subdomains bool      // two names below one become a wildcard
}

// Result is a learnt policy, and what to tell of it.
type Result struct {
	YAML     []byte
	Hosts    int // network rules
	Programs int
	Paths    int    // file rules
	Refused  int    // of all these, rules for what was refused in the run
	Withheld int    // secrets that are proposed as comments only
	Missed   uint64 // records that were not looked at: there were too many
}

// Policy writes the least policy that covers what was recorded. The error is about this package: what it wrote was no
// policy, and is not returned.
func (r *Recorder) Policy(o Options) (*Result, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := &learner{Recorder: r, o: o, files: r.policy.Files.Written(), uses: map[policy.RuleID]*rule{}, programs: map[string]*rule{}, trees: map[string]*rule{}, denied: map[string]uint64{}}
	l.names()
	for _, f := range r.facts {
		l.take(f)
	}
	if o.Finished {
		l.keepPrivate()
	}
	if o.Subdomains {
		l.generaliseNames()
	}
	if o.Dirs {
		l.generalisePaths()
	}
	return l.write()
}

// learner turns facts into rules.
type learner struct {
	*Recorder
	o        Options
	command  map[string]string // what to call a program in a rule, by its path
	hosts    []*host
	files    []policy.FileGrant      // as the policy has them
	uses     map[policy.RuleID]*rule // of network rules that are kept
	programs map[string]*rule        // by what the policy calls them
	helpers  []*helper
	trees    map[string]*rule // filesystem rules whose programs were executed, by path
	paths    []*file          // refused
	left     []string         // refused and not proposed
	denied   map[string]uint64
}

// rule is what is known of one rule to write.
type rule struct {
	evidence []evidence
	refused  bool // it is for what was refused in the run
}

// evidence is one fact as a reason for a rule.
type evidence struct {
	*fact
	how how
}

// how a fact became a reason.
type how uint8

const (
	used how = iota
	approved
	refused
)

func (r *rule) add(f *fact, h how) { r.evidence = append(r.evidence, evidence{f, h}) }

// names decides what rules call the programs: the command as the policy writes it, else the path.
func (l *learner) names() {
	l.command = map[string]string{}
	for _, p := range l.o.Programs {
		if _, known := l.command[p.Path]; p.Helper {
			if !known {
				l.command[p.Path] = p.Path
			}
		} else if !known || l.command[p.Path] == p.Path {
			l.command[p.Path] = p.Command
		}
	}
}

// take sorts one fact.
func (l *learner) take(f *fact) {
	switch {
	case f.Verdict == policy.Deny && l.deniedByRule(f):
	case f.Plane == policy.PlaneNetwork && (f.Action == "connect" || f.Action == "request"):
		l.network(f)
	case f.Plane == policy.PlaneExec:
		l.exec(f)
	case f.Plane == policy.PlaneFile && f.Verdict == policy.Deny:
		l.file(f)
	case f.Verdict == policy.Deny && !l.connected(f):
		l.leave(f, f.Reason)
	}
}

// deniedByRule counts what a deny rule of the policy refused: such a rule is kept, and nothing is proposed against it.
func (l *learner) deniedByRule(f *fact) bool {
	for i := range l.policy.Network.Rules {
		if r := &l.policy.Network.Rules[i]; r.Verdict == policy.Deny && l.policy.Rule(r.ID).Pos == f.Rule {
			l.denied[f.Rule] += f.n
			return true
		}
	}
	for _, g := range l.files {
		if g.Verdict == policy.Deny && l.policy.Rule(g.RuleFor(g.Access)).Pos == f.Rule {
			l.denied[f.Rule] += f.n
			return true
		}
	}
	for _, x := range l.policy.Exec.Deny {
		if l.policy.Rule(x.ID).Pos == f.Rule {
			l.denied[f.Rule] += f.n
			return true
		}
	}
	return false
}

// connected reports whether a name that the resolver refused to a program was also connected to: then that says it.
func (l *learner) connected(f *fact) bool {
	if f.Plane != policy.PlaneDNS {
		return false
	}
	for _, other := range l.facts {
		if host, _, err := net.SplitHostPort(other.Object); err == nil && host == f.Object && other.Plane == policy.PlaneNetwork {
			return true
		}
	}
	return false
}

// leave lists a refusal that no rule is proposed for.
func (l *learner) leave(f *fact, why string) {
	s := strconv.FormatUint(f.n, 10) + "x " + f.Action + " " + policy.Comment(f.Object, 120) + by(f)
	if why != "" {
		s += ": " + policy.Comment(why, 160)
	}
	l.left = append(l.left, s)
}

// by says who did it.
func by(f *fact) string {
	if f.Subject.Exe == "" || f.Plane == policy.PlaneExec { // what was executed is who it is
		return ""
	}
	return " by " + policy.Comment(f.Subject.Exe, 80)
}

// proposal is the policy that would have allowed what a fact tells of, as the run's summary suggests it; nil where no
// rule could.
func proposal(d policy.Decision) *policy.Policy {
	d.Rule, d.Verdict = "default", policy.Deny
	y := policy.Suggest(d)
	if y == "" {
		return nil
	}
	p, err := policy.Parse("proposal", []byte(y))
	if err != nil {
		return nil // Suggest's promise; a rule more is not worth a broken policy
	}
	return p
}

// target reads the object of a connection.
func target(object string) (name string, addr netip.Addr, port uint16, ok bool) {
	h, p, err := net.SplitHostPort(object)
	if err != nil {
		return "", addr, 0, false
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil || n == 0 {
		return "", addr, 0, false
	}
	if addr, err = netip.ParseAddr(h); err == nil {
		return "", addr.Unmap().WithZone(""), uint16(n), true
	}
	name, ok = policy.Canonical(strings.TrimSuffix(h, "."))
	return name, netip.Addr{}, uint16(n), ok
}
