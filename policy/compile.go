package policy

import (
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"
	"time"
)

// defaultHold is how long an asked operation waits where the policy doesn't say.
const defaultHold = 60 * time.Second

// Compile merges the presets that p extends with p and makes plain data of them. It is pure: the same policy gives the
// same result, and nothing of the host is looked at. It refuses rules that can't be told apart, with both places.
func Compile(p *Policy) (*Compiled, error) {
	m := newMerge(p.File)
	for _, name := range p.Extends {
		preset, err := parsePreset(string(name.V))
		if err != nil {
			return nil, err
		}
		m.add(preset)
	}
	m.add(p)
	m.settings(p)
	m.finish()
	if err := m.err(); err != nil {
		return nil, err
	}
	return m.out, nil
}

// merge gathers the rules of several files into one Compiled.
type merge struct {
	*collector
	out      *Compiled
	spoken   map[spokenKey]spoken
	commands map[commandKey]int // index in out.Exec.Allow
	named    map[namedKey]bool  // in out.Exec.Ask and Deny
	sockets  map[string]bool
	steps    int // elementary steps taken: what the tests count instead of the time
}

// commandKey is what rules for one command have in common: those that end at different times are several.
type commandKey struct {
	name    string
	expires time.Duration
}

// namedKey is the same for the verbs whose rules say nothing more.
type namedKey struct {
	verb Verdict
	commandKey
}

// spokenKey and spoken find two rules of one verb that would speak differently on the same connection.
type spokenKey struct {
	verdict Verdict
	target  string
	port    uint16
}
type spoken struct {
	protocol Protocol
	ech      bool
	pos      string
}

func newMerge(file string) *merge {
	return &merge{
		collector: &collector{file: file},
		out: &Compiled{
			Hold:  defaultHold,
			Rules: []RuleRef{{Pos: "default", Text: "no rule"}},
			Files: Files{Baseline: true},
		},
		spoken:   map[spokenKey]spoken{},
		commands: map[commandKey]int{},
		named:    map[namedKey]bool{},
		sockets:  map[string]bool{},
	}
}

// settings takes what only the file itself can say.
func (m *merge) settings(p *Policy) {
	m.out.Name = string(p.Name.V)
	if p.Hold.Set {
		m.out.Hold = time.Duration(p.Hold.V)
	}
	if p.Enforcement.V == "full" {
		m.out.Enforcement = LevelFull
	}
	if p.Network != nil && p.Network.Default.V == "ask" {
		m.out.Network.Default = Ask
	}
	if p.Filesystem != nil && p.Filesystem.Default.V == "ask" {
		m.out.Files.Default = Ask
	}
	if p.Process != nil && p.Process.Default.V == "ask" {
		m.out.Exec.Default = Ask
	}
	if p.Filesystem != nil && p.Filesystem.Baseline.V == "none" {
		m.out.Files.Baseline = false
	}
	if p.Process != nil && p.Process.Map.V == "listed" {
		m.out.Exec.Listed = m.ref(p.Process.Map.At, "map", "listed")
	}
	if p.Process != nil && p.Process.Limits != nil {
		l := p.Process.Limits
		m.out.Limits = Limits{
			Memory: int64(l.Memory.V), PIDs: int64(l.PIDs.V), CPUs: float64(l.CPUs.V), Files: int64(l.Files.V),
			Disk: int64(l.Disk.V), ID: m.ref(l.At, "limits", limitsText(l)),
		}
	}
	if p.Audit != nil && bool(p.Audit.Strict.V) {
		m.out.Audit.Strict, m.out.Audit.ID = true, m.ref(p.Audit.Strict.At, "audit", "{strict: true}")
	}
	if p.Inference != nil {
		m.inference(p.Inference)
	}
	if p.Audit != nil {
		m.redact(p.Audit.Redact)
	}
}

// redact takes the classes that records are to be without.
func (m *merge) redact(classes []Value[Label]) {
	for _, c := range classes {
		name := string(c.V)
		if !builtinClass(name) && (m.out.Inference == nil || !slices.ContainsFunc(m.out.Inference.Custom, func(c CustomRule) bool { return c.Name == name })) {
			m.collector.add(c.At, "audit.redact", "there is no class "+name, "classes are medical, financial, pii, credentials, confidential, and the names of inference.custom")
			continue
		}
		m.out.Audit.Redact = append(m.out.Audit.Redact, name)
	}
	if len(m.out.Audit.Redact) > 0 {
		slices.Sort(m.out.Audit.Redact)
		m.out.Audit.RedactID = m.ref(classes[0].At, "audit", "{redact: ["+strings.Join(m.out.Audit.Redact, ", ")+"]}")
	}
}

func limitsText(l *LimitsSection) string {
	var parts []string
	add := func(set bool, key string, v any) {
		if set {
			parts = append(parts, fmt.Sprintf("%s: %v", key, v))
		}
	}
	add(l.Memory.Set, "memory", l.Memory.V)
	add(l.PIDs.Set, "pids", l.PIDs.V)
	add(l.CPUs.Set, "cpus", l.CPUs.V)
	add(l.Files.Set, "files", l.Files.V)
	add(l.Disk.Set, "disk", l.Disk.V)
	return "{" + strings.Join(parts, ", ") + "}"
}

// ref enters a rule into the table of rules.
func (m *merge) ref(at At, verb, text string) RuleID {
	m.steps++
	m.out.Rules = append(m.out.Rules, RuleRef{Pos: fmt.Sprintf("%s:%d", m.file, at.Line), Text: verb + ": " + text})
	return RuleID(len(m.out.Rules) - 1)
}

// add enters the rules of one file.
func (m *merge) add(p *Policy) {
	m.file = p.File
	if n := p.Network; n != nil {
		for i := range n.Allow {
			m.netAllow(&n.Allow[i], Allow)
		}
		for i := range n.Ask {
			m.netAllow(&n.Ask[i], Ask)
		}
		for i := range n.Deny {
			m.netDeny(&n.Deny[i])
		}
		for _, s := range n.Unix {
			if path := string(s.V); !m.sockets[path] {
				m.sockets[path] = true
				m.out.Network.Unix = append(m.out.Network.Unix, UnixSocket{ID: m.ref(s.At, "unix", Quote(path)), Path: path})
			}
		}
	}
	if f := p.Filesystem; f != nil {
		for i := range f.Allow {
			m.grant(&f.Allow[i], Allow)
		}
		for i := range f.Ask {
			m.grant(&f.Ask[i], Ask)
		}
		for i := range f.Deny {
			m.grant(&f.Deny[i], Deny)
		}
	}
	if p.Devices != nil {
		m.devices(p.Devices)
	}
	if x := p.Process; x != nil {
		for i := range x.Allow {
			m.allowCommand(&x.Allow[i])
		}
		m.out.Exec.Ask = m.name(m.out.Exec.Ask, x.Ask, Ask)
		m.out.Exec.Deny = m.name(m.out.Exec.Deny, x.Deny, Deny)
	}
}

// name enters the commands that a verb names, each once.
func (m *merge) name(into []Command, rules []CommandDeny, verb Verdict) []Command {
	for i := range rules {
		name, expires := string(rules[i].Command.V), time.Duration(rules[i].Expires.V)
		if key := (namedKey{verb, commandKey{name, expires}}); !m.named[key] {
			m.named[key] = true
			into = append(into, Command{ID: m.ref(rules[i].At, verb.String(), rules[i].Text), Name: name, Expires: expires})
		}
	}
	return into
}

var protocols = map[Word]Protocol{"tcp": TCP, "tls": TLS, "https": HTTPS, "http": HTTP}

func (m *merge) netAllow(r *NetAllow, v Verdict) {
	rule := m.netRule(r.At, r.Text, &r.NetTarget, r.Ports, &r.NetLimits, v)
	rule.Protocol = protocols[r.Protocol.V]
	rule.ECH = r.ECH.V == "allow"
	for _, port := range rule.Ports {
		m.steps++
		key := spokenKey{v, rule.target(), port}
		now := spoken{rule.Protocol, rule.ECH, m.out.Rules[rule.ID].Pos}
		first, there := m.spoken[key]
		switch {
		case !there:
			m.spoken[key] = now
		case first.protocol != now.protocol:
			m.collector.add(r.At, "network."+v.String(), fmt.Sprintf("%s:%d is %s here and %s at %s", key.target, port, now.protocol, first.protocol, first.pos),
				"the two can't be told apart: keep one")
		case first.ech != now.ech:
			m.collector.add(r.At, "network."+v.String(), fmt.Sprintf("%s:%d has another ech here than at %s", key.target, port, first.pos),
				"the two can't be told apart: keep one")
		}
	}
	m.out.Network.Rules = append(m.out.Network.Rules, rule)
}

func (m *merge) netDeny(r *NetDeny) {
	m.out.Network.Rules = append(m.out.Network.Rules, m.netRule(r.At, r.Text, &r.NetTarget, r.Ports, &r.NetLimits, Deny))
}

func (m *merge) netRule(at At, text string, t *NetTarget, ports []Value[Number], l *NetLimits, v Verdict) NetRule {
	rule := NetRule{
		ID: m.ref(at, v.String(), text), Verdict: v,
		Name: string(t.Domain.V), Prefix: netip.Prefix(t.CIDR.V), Expires: time.Duration(l.Expires.V),
	}
	for _, p := range ports {
		rule.Ports = append(rule.Ports, uint16(p.V)) // 1 to 65535: the parser saw to it
	}
	slices.Sort(rule.Ports)
	for _, c := range l.Commands {
		rule.Commands = append(rule.Commands, string(c.V))
	}
	return rule
}

// target is what the rule is about, as text.
func (r *NetRule) target() string {
	if r.Name != "" {
		return r.Name
	}
	return r.Prefix.String()
}

func (m *merge) allowCommand(c *CommandAllow) {
	name := string(c.Command.V)
	key := commandKey{name, time.Duration(c.Expires.V)}
	i, there := m.commands[key]
	if !there {
		i = len(m.out.Exec.Allow)
		m.commands[key] = i
		m.out.Exec.Allow = append(m.out.Exec.Allow, Command{ID: m.ref(c.At, "allow", c.Text), Name: name, Expires: key.expires})
	}
	entry := &m.out.Exec.Allow[i]
	if !there {
		entry.Helpers = slices.Clone(ownHelpers[path.Base(name)])
	}
	for _, h := range c.Helpers {
		if !slices.Contains(entry.Helpers, string(h.V)) {
			entry.Helpers = append(entry.Helpers, string(h.V))
		}
	}
}

// ownHelpers are the programs that a command consists of: with git alone `git clone https://...` could not run
// git-remote-https, and a rule that says `command: git` means git as people know it. The places are those of Debian
// and Ubuntu, and of Fedora and openSUSE.
var ownHelpers = map[string][]string{
	"git": {"/usr/lib/git-core/*", "/usr/libexec/git-core/*"},
}

// finish builds what needs all rules.
func (m *merge) finish() {
	m.out.Network.index = m.indexNetwork(m.out.Network.Rules)
	m.out.Files = m.out.Files.at(0, &m.steps)
	m.out.Revision = revision(m.out)
}
