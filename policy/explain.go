package policy

import (
	"fmt"
	"net"
	"net/netip"
	"path"
	"strconv"
	"strings"
	"time"
)

// Action is what a Query asks about.
type Action uint8

// The actions that can be explained.
const (
	QueryRead Action = iota
	QueryWrite
	QueryExec
	QueryConnect
	QueryGPU
)

// String returns "read", "write", "exec", "connect" or "gpu".
func (a Action) String() string { return [...]string{"read", "write", "exec", "connect", "gpu"}[a] }

// Plane is where such an action is decided.
func (a Action) Plane() Plane {
	return [...]Plane{PlaneFile, PlaneFile, PlaneExec, PlaneNetwork, PlaneDevice}[a]
}

// Query is one question to a policy. Make it with NewQuery.
type Query struct {
	Action  Action
	Path    string     // read, write: absolute and clean; exec: a name or an absolute path; connect: a unix socket; gpu: as devices.gpus has it
	Name    string     // connect: the canonical name; "" for an address
	Addr    netip.Addr // connect to an address
	Port    uint16     // connect
	Command string     // who does it, as a command is written in a policy; "" when that is left open
}

// NewQuery reads a question: object is a path, a command, "host:port", the path of a unix socket, or a GPU. command says who connects, and may be "".
func NewQuery(action Action, object, command string) (Query, error) {
	q := Query{Action: action, Command: command}
	switch action {
	case QueryConnect:
		return q.connect(object)
	case QueryExec:
		if object == "" || strings.Contains(object, "/") && object[0] != '/' {
			return q, fmt.Errorf("policy: expected a command's name or absolute path, found %s", show(object))
		}
		q.Path = object
		if object[0] == '/' {
			q.Path = path.Clean(object)
		}
	case QueryGPU:
		if number, err := strconv.Atoi(object); !gpuForm.MatchString(object) && (err != nil || strconv.Itoa(number) != object || number < 0 || number > maxGPU) {
			return q, fmt.Errorf("policy: expected a GPU, found %s; %s", show(object), gpuHint)
		}
		q.Path = object
	default:
		if object == "" || object[0] != '/' {
			return q, fmt.Errorf("policy: expected an absolute path as it is inside the sandbox, found %s", show(object))
		}
		q.Path = path.Clean(object)
	}
	return q, nil
}

func (q Query) connect(object string) (Query, error) {
	if strings.HasPrefix(object, "/") {
		q.Path = path.Clean(object)
		return q, nil
	}
	host, port, err := net.SplitHostPort(object)
	if err != nil || strings.Contains(object, "/") {
		return q, fmt.Errorf("policy: expected host:port, found %s; for example api.example.org:443 or [2001:db8::1]:443", show(object))
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return q, fmt.Errorf("policy: the port of %s is not a number from 1 to 65535", show(object))
	}
	q.Port = uint16(n)
	if q.Addr, err = netip.ParseAddr(host); err == nil {
		q.Addr = q.Addr.Unmap().WithZone("")
		return q, nil
	}
	name, p := canonicalName(host)
	if p != nil {
		return q, fmt.Errorf("policy: %s", p.msg)
	}
	q.Name = name
	return q, nil
}

// Object is what the question is about, as a Decision writes it.
func (q Query) Object() string {
	switch {
	case q.Path != "":
		return q.Path
	case q.Name != "":
		return net.JoinHostPort(q.Name, strconv.Itoa(int(q.Port)))
	}
	return netip.AddrPortFrom(q.Addr, q.Port).String()
}

// Answer is what a policy says to a Query.
type Answer struct {
	Query   Query
	Verdict Verdict
	Rule    RuleRef // Pos is "default" where no rule decided, "builtin" where the product did
	Reason  string  // why, in one sentence
	Suggest string  // the YAML that would allow it; "" where it is allowed, or a rule refuses it
}

// String writes the answer on one line.
func (a Answer) String() string {
	return fmt.Sprintf("%-5s  %s %s  rule: %s  (%s)", a.Verdict, a.Query.Action, a.Query.Object(), a.Rule.Pos, a.Reason)
}

// builtin is the rule of what every sandbox has, or never has.
func builtin(text string) RuleRef { return RuleRef{Pos: "builtin", Text: text} }

// Explain answers a question from the policy alone: symbolic links are not followed and commands are not looked for.
func (c *Compiled) Explain(q Query) Answer { return c.ExplainAt(q, 0) }

// ExplainAt is Explain for a policy whose times began to run that long ago: rules that expired since then are none.
func (c *Compiled) ExplainAt(q Query, age time.Duration) Answer {
	a := Answer{Query: q}
	if len(c.Ends(0)) > 0 {
		c = c.At(age)
	}
	switch q.Action {
	case QueryConnect:
		c.explainConnect(&a, age)
	case QueryExec:
		c.explainExec(&a)
	case QueryGPU:
		c.explainGPU(&a)
	default:
		c.explainFile(&a)
	}
	if a.Verdict == Deny && a.Rule.Pos == "default" {
		plane := q.Action.Plane()
		if strings.HasPrefix(q.Path, gpuNodes) {
			return a // no rule for a path gives a device
		}
		if secret := Reveals(q.Path); secret != "" && plane == PlaneFile {
			a.Reason += "; no rule is suggested for what may be a secret: " + secret
			return a
		}
		a.Suggest = Suggest(Decision{Plane: plane, Action: q.Action.String(), Object: q.Object(), Verdict: Deny, Rule: "default"})
	}
	return a
}

func (a *Answer) set(v Verdict, rule RuleRef, format string, args ...any) {
	a.Verdict, a.Rule, a.Reason = v, rule, fmt.Sprintf(format, args...)
}

// shownAt is the path of the rule that brings r's path into the view.
func (r *FileRule) shownAt() string {
	if r.allowedAt != "" && r.Access != 0 {
		return r.allowedAt
	}
	return r.askedAt
}

// ask is the answer that a person is asked.
func (a *Answer) ask(c *Compiled, rule RuleID) {
	a.set(Ask, c.Rule(rule), "held until a person answers, denied after %s; needs level full", span(c.Hold))
}

const beatsAllow = "a deny rule, which beats every allow: only a change of that rule helps"

func (c *Compiled) explainFile(a *Answer) {
	q, want := a.Query, Read
	if q.Action == QueryWrite {
		want = Write
	}
	access, rule, found := c.Files.Access(q.Path)
	secret, at, hidden := SecretAt(q.Path)
	switch {
	case found && rule.Denied&want != 0:
		a.set(Deny, c.Rule(rule.RuleFor(want)), beatsAllow)
	case hidden && !(found && access|rule.Asked != 0 && under(rule.shownAt(), at)):
		a.set(Deny, builtin("secrets"), "left out: %s; only a rule for %s itself shows it", secret.Reason, at)
	case found && rule.Asked&want != 0:
		a.ask(c, rule.RuleFor(want))
	case access&want != 0:
		a.set(Allow, c.Rule(rule.RuleFor(want)), "allowed at and below %s", rule.allowedAt)
	case strings.HasPrefix(q.Path, gpuNodes):
		c.explainGPUNode(a)
	case underAny(q.Path, PrivateDirs):
		a.set(Allow, builtin("private directories"), "private to the sandbox and gone with it")
	case c.Files.Baseline && underAny(q.Path, BaselineDevices):
		a.set(Allow, builtin("baseline: system"), "a device that every sandbox has")
	case c.Files.Baseline && underAny(q.Path, BaselineRead) && want == Read:
		a.set(Allow, builtin("baseline: system"), "the system can be read")
	case c.Files.Baseline && underAny(q.Path, BaselineRead):
		a.set(Deny, c.Rule(0), "the baseline can be read only, and no rule allows to write here")
	case found && access != 0:
		a.set(Deny, c.Rule(0), "%s at %s allows %s only", rule.allowedAt, c.Rule(rule.ID).Pos, access)
	default:
		a.set(Deny, c.Rule(0), "no rule covers this path")
	}
	if a.Verdict == Allow && want == Read && c.Exec.Listed != 0 && !c.mapped(q.Path) {
		a.Reason += "; as a library it is not loaded: " + c.Rule(c.Exec.Listed).Text + " at " + c.Rule(c.Exec.Listed).Pos
	}
}

// mapped reports whether `map: listed` lets a file that may be read be loaded as a library.
func (c *Compiled) mapped(at string) bool {
	access, rule, _ := c.Files.Access(at)
	return access&Execute != 0 || c.Files.Baseline && underAny(at, BaselineRead) && access&Write == 0 && rule.Denied&Execute == 0
}

func (c *Compiled) explainExec(a *Answer) {
	p := a.Query.Path
	for _, x := range c.Exec.Deny {
		if sameCommand(x.Name, p) {
			a.set(Deny, c.Rule(x.ID), beatsAllow)
			return
		}
	}
	var rule FileRule
	if p[0] == '/' {
		if _, rule, _ = c.Files.Access(p); rule.Denied&Execute != 0 {
			a.set(Deny, c.Rule(rule.RuleFor(Execute)), beatsAllow)
			return
		}
	}
	for _, x := range c.Exec.Ask {
		if sameCommand(x.Name, p) {
			a.ask(c, x.ID)
			return
		}
	}
	for _, x := range c.Exec.Allow {
		if sameCommand(x.Name, p) {
			a.set(Allow, c.Rule(x.ID), "the program found as %s on the host, whatever name it is started by", x.Name)
			return
		}
	}
	for _, x := range c.Exec.Allow {
		for _, h := range x.Helpers {
			if sameHelper(h, p) {
				a.set(Allow, c.Rule(x.ID), "a helper of %s; at level static anything inside may start it", x.Name)
				return
			}
		}
	}
	switch {
	case rule.Asked&Execute != 0:
		a.ask(c, rule.RuleFor(Execute))
	case rule.Access&Execute != 0:
		a.set(Allow, c.Rule(rule.RuleFor(Execute)), "programs at and below %s may be executed", rule.allowedAt)
	case c.Exec.Any() && sameCommand("env", p):
		a.set(Allow, builtin("env"), "the launcher in the first line of scripts; it can start only what is allowed")
	case c.Exec.Default == Ask:
		a.ask(c, 0)
	default:
		a.set(Deny, c.Rule(0), "no rule allows this program")
	}
}

// String lists the permissions: "read, write".
func (a Access) String() string {
	var words []string
	for i, word := range [...]string{"read", "write", "execute"} {
		if a&accesses[i] != 0 {
			words = append(words, word)
		}
	}
	if len(words) == 0 {
		return "nothing"
	}
	return strings.Join(words, ", ")
}
