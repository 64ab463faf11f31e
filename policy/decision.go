package policy

import (
	"fmt"
	"strings"
	"time"
)

// Verdict is what a policy says of one attempt. The zero value denies.
type Verdict uint8

// The verdicts, from the most to the least severe: deny beats ask beats allow.
const (
	Deny Verdict = iota
	Ask
	Allow
)

// String returns "deny", "ask" or "allow".
func (v Verdict) String() string {
	switch v {
	case Allow:
		return "allow"
	case Ask:
		return "ask"
	default:
		return "deny"
	}
}

// MarshalText writes the verdict as its word.
func (v Verdict) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText reads a verdict from its word.
func (v *Verdict) UnmarshalText(text []byte) error {
	for _, known := range []Verdict{Deny, Ask, Allow} {
		if string(text) == known.String() {
			*v = known
			return nil
		}
	}
	return fmt.Errorf("policy: %q is no verdict; allow, ask and deny are", text)
}

// Plane is the enforcement plane that made a decision.
type Plane string

// The planes of design.md that this version decides on.
const (
	PlaneNetwork Plane = "network" // connect, bind, sendto, packets, TLS and HTTP names
	PlaneDNS     Plane = "dns"     // names asked of the resolver
	PlaneFile    Plane = "file"
	PlaneExec    Plane = "exec"
	PlaneDevice  Plane = "device"
	PlaneSystem  Plane = "system" // the sandbox itself: started, stopped, events lost
)

// Planes lists the planes.
func Planes() []Plane {
	return []Plane{PlaneNetwork, PlaneDNS, PlaneFile, PlaneExec, PlaneDevice, PlaneSystem}
}

// Subject is who attempted something: the kernel's own identity of the process, never its comm.
type Subject struct {
	PID  int    `json:"pid,omitempty"`  // in the host's pid namespace; 0: not known
	Exe  string `json:"exe,omitempty"`  // path of the executable's inode as the policy resolved it
	Args string `json:"args,omitempty"` // command line, arguments joined by a space; bytes from inside, escape before showing

	// Taint is what was in its environment when it was executed by which code that is not the executable's may run in it: a
	// variable's name, or a word in parentheses where that could not be found out. It is told of who connects or is executed.
	Taint string `json:"taint,omitempty"`
}

// Withheld says why a rule for a command is not for the subject, which is tainted, and what to do.
func (s Subject) Withheld() string {
	why, remedy := "how it was started is not known", "start it again"
	switch {
	case s.Taint == "(unread)":
		why = "its environment could not be read when it was started"
	case s.Taint == "(long)":
		why, remedy = "its environment is too long to be looked through", "start it with less"
	case !strings.HasPrefix(s.Taint, "("):
		why, remedy = s.Taint+" was set when it was started", "start it without"
	}
	return "the rule is for a command alone, and " + why + ", so that other code may run as it; " + remedy
}

// Decision is the one record of the product: what was attempted, by whom, what was decided and which rule
// decided. Planes fill everything but Seq, Time and Sandbox, which the hub sets.
type Decision struct {
	Seq      uint64    `json:"seq"`
	Time     time.Time `json:"time"`
	Sandbox  string    `json:"sandbox"`
	Plane    Plane     `json:"plane"`
	Action   string    `json:"action"` // connect, bind, sendto, socket, resolve, request, exec, open, start, exit, ...
	Object   string    `json:"object"` // "name:port", "addr:port", a path
	Subject  Subject   `json:"subject"`
	Verdict  Verdict   `json:"verdict"`
	Rule     string    `json:"rule"`             // "file:line", "default" or "builtin"
	Reason   string    `json:"reason,omitempty"` // why, and what to do, in one sentence
	Which    string    `json:"-"`                // of a question about a file: tells it from one that reads the same; never shown
	Suggest  string    `json:"-"`                // the YAML to add to allow it; empty where no rule could
	Called   string    `json:"-"`                // exec: the path as the caller gave it; of a script its own, where Object is its interpreter
	Revision string    `json:"revision"`
	Count    uint64    `json:"count,omitempty"` // identical attempts folded into this record; 0 and 1 mean one
}
