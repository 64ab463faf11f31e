package policy

import (
	"net/netip"
	"slices"
	"time"
)

// RuleID indexes Compiled.Rules. Rule 0 is always the default.
type RuleID uint32

// RuleRef says where a rule stands in its file and what it says, for records and explanations.
type RuleRef struct {
	Pos  string // "file:line"; "default" for rule 0
	Text string // the rule on one line, as YAML
}

// Level is how much of a policy the host can enforce: design.md, "Enforcement planes".
type Level uint8

// The two levels.
const (
	LevelStatic Level = iota
	LevelFull
)

// String returns "static" or "full".
func (l Level) String() string {
	if l == LevelFull {
		return "full"
	}
	return "static"
}

// Access is a set of what may be done below a path.
type Access uint8

// The accesses of `permissions`. Write includes create, delete, rename and attributes.
const (
	Read Access = 1 << iota
	Write
	Execute
)

// Compiled is a policy as plain data: nothing in it changes after Compile, and equal policies have equal revisions.
type Compiled struct {
	Revision    string // first 16 hex digits of the SHA-256 of the canonical policy
	Name        string // "" when the file names none
	Hold        time.Duration
	Enforcement Level
	Rules       []RuleRef
	Network     Network
	Files       Files
	Exec        Exec
	Limits      Limits
	Devices     Devices
	Inference   *Inference // nil: nothing answers model calls
	Audit       Audit
}

// Audit is how surely what is let through is written down, and what of it is not.
type Audit struct {
	Strict bool // it waits until its record is on the disk
	ID     RuleID

	Redact   []string // classes that records are without, in order
	RedactID RuleID
}

// Rule returns where rule id stands.
func (c *Compiled) Rule(id RuleID) RuleRef { return c.Rules[id] }

// Protocol is what may be spoken on an allowed connection.
type Protocol uint8

// The protocols of a network rule.
const (
	TCP   Protocol = iota // bytes are passed as they come
	TLS                   // the ClientHello's SNI must match
	HTTPS                 // as TLS
	HTTP                  // the Host of each request must match
)

// String returns the protocol's word.
func (p Protocol) String() string { return [...]string{"tcp", "tls", "https", "http"}[p&3] }

// NetRule is one entry of network.allow, ask or deny.
type NetRule struct {
	ID       RuleID
	Verdict  Verdict
	Name     string       // lower case, no trailing dot: "x.org", "*.x.org", "**.x.org"; "" for a CIDR rule
	Prefix   netip.Prefix // valid for a CIDR rule only
	Ports    []uint16     // in a deny rule empty means every port
	Protocol Protocol
	Commands []string      // as written; empty: any executable
	ECH      bool          // ech: allow
	Expires  time.Duration // after the sandbox's start; 0: never
}

// Network is the network section. Lookups cost the same with one rule and with ten thousand.
type Network struct {
	Default Verdict // Deny or Ask
	Rules   []NetRule
	Unix    []UnixSocket
	// unexported indexes, built by Compile: exact names, suffixes, prefixes
	index netIndex
}

// UnixSocket is a host socket made visible inside at the same path.
type UnixSocket struct {
	ID   RuleID
	Path string
}

// FileRule is the effective access below Path: deny already applied within the rule's own path, not below others'.
// The nearest (longest) path wins; Files.Rules has one entry per path.
type FileRule struct {
	ID     RuleID
	Path   string // absolute, cleaned; not resolved: symlinks are the sandbox's matter
	Access Access // what is allowed at and below Path
	Asked  Access // what a person is asked about at and below Path, by a rule or by default; none of it is in Access
	Denied Access // what a deny rule took away at and below Path (to tell "not granted" from "denied")
	DenyID RuleID // the nearest deny rule, when Denied != 0

	Varies bool // it depends on rules that expire

	by, askedBy, deniedBy [3]RuleID // per access: see RuleFor
	allowedAt, askedAt    string    // paths of the rules that Access and Asked come from
}

// Files is the filesystem section.
type Files struct {
	Baseline bool           // baseline: system
	Default  Verdict        // Deny or Ask
	Rules    []FileRule     // sorted by path
	index    map[string]int // in Rules, by path

	written          []FileGrant          // in the order of the files
	allow, ask, deny map[string]fileGrant // the same by path
}

// Command is one entry of process.allow, ask or deny.
type Command struct {
	ID      RuleID
	Name    string        // a name or an absolute path, as written
	Helpers []string      // names, absolute paths or globs
	Expires time.Duration // after the sandbox's start; 0: never
}

// Exec is the process section's programs.
type Exec struct {
	Default Verdict // Deny or Ask
	Allow   []Command
	Ask     []Command // without helpers; beats Allow
	Deny    []Command
	Listed  RuleID // where `map: listed` stands; 0: any
}

// Any reports whether the section lets, or may let, any program run.
func (x *Exec) Any() bool { return x.Default == Ask || len(x.Allow)+len(x.Ask) > 0 }

// AsksAboutFiles returns what asks about files or programs, which needs LevelFull: a rule, or a default as 0. The second
// value is false where nothing does.
func (c *Compiled) AsksAboutFiles() (RuleID, bool) {
	if len(c.Exec.Ask) > 0 {
		return c.Exec.Ask[0].ID, true
	}
	for i := range c.Files.Rules {
		if id := firstOf(c.Files.Rules[i].askedBy); id != 0 {
			return id, true
		}
	}
	return 0, c.Files.Default == Ask || c.Exec.Default == Ask
}

// AsksAbout reports whether a rule asks about files or programs.
func (c *Compiled) AsksAbout(rule RuleID) bool {
	return rule != 0 && (slices.ContainsFunc(c.Exec.Ask, func(x Command) bool { return x.ID == rule }) ||
		slices.ContainsFunc(c.Files.Rules, func(f FileRule) bool { return slices.Contains(f.askedBy[:], rule) }))
}

// Limits are the resource limits; zero means not set by the policy.
type Limits struct {
	Memory int64   // bytes
	PIDs   int64   // tasks
	CPUs   float64 // processors
	Files  int64   // open descriptors of one process
	Disk   int64   // bytes of HOME, /tmp and /dev/shm together
	ID     RuleID  // where `limits` stands
}

// Caller is who wants to connect, as far as rules with `commands` care.
type Caller struct {
	Is      func(command string) bool // whether it is the named command; nil: it is none, so only rules without commands apply
	Tainted bool                      // code that is not the command's may run as it (Subject.Taint): what only the command may do is withheld
}

// Judge returns the verdict of rules (as Match or MatchAddr returned them) for a port and a caller. The returned rule is
// nil when the default decided.
func (n *Network) Judge(rules []*NetRule, port uint16, who Caller) (Verdict, *NetRule) {
	return n.JudgeAt(rules, port, who, 0)
}

// JudgeAt is Judge at an age of the sandbox: rules that have expired by then say nothing.
func (n *Network) JudgeAt(rules []*NetRule, port uint16, who Caller, age time.Duration) (Verdict, *NetRule) {
	var best *NetRule
	for _, r := range rules {
		if r.Expires != 0 && age >= r.Expires || !r.hasPort(port) || !r.covers(who) {
			continue
		}
		// Match returns the most specific first, so the first of a verb is the one to name.
		if best == nil || r.Verdict < best.Verdict {
			best = r
		}
	}
	if best == nil {
		return n.Default, nil
	}
	return best.Verdict, best
}

func (r *NetRule) hasPort(port uint16) bool {
	if len(r.Ports) == 0 {
		return r.Verdict == Deny
	}
	for _, p := range r.Ports {
		if p == port {
			return true
		}
	}
	return false
}

func (r *NetRule) covers(who Caller) bool {
	if len(r.Commands) == 0 {
		return true
	}
	if who.Is == nil || who.Tainted && r.Verdict != Deny {
		return false
	}
	for _, c := range r.Commands {
		if who.Is(c) {
			return true
		}
	}
	return false
}
