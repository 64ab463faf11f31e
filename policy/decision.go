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
	PlaneNetwork   Plane = "network" // connect, bind, sendto, packets, TLS and HTTP names
	PlaneDNS       Plane = "dns"     // names asked of the resolver
	PlaneFile      Plane = "file"
	PlaneExec      Plane = "exec"
	PlaneDevice    Plane = "device"
	PlaneInference Plane = "inference" // model calls
	PlaneSystem    Plane = "system"    // the sandbox itself: started, stopped, events lost
)

// Planes lists the planes.
func Planes() []Plane {
	return []Plane{PlaneNetwork, PlaneDNS, PlaneFile, PlaneExec, PlaneDevice, PlaneInference, PlaneSystem}
}

// ParsePlane reads a plane's word. The error lists those that there are.
func ParsePlane(word string) (Plane, error) {
	var words []string
	for _, p := range Planes() {
		if string(p) == word {
			return p, nil
		}
		words = append(words, string(p))
	}
	return "", fmt.Errorf("there is no plane %q; there are %s", word, strings.Join(words, ", "))
}

// Identity is the kernel's own identity of a file, where a path could be another's. Only the agent knows what it means. It is comparable;
// the zero value is no file's.
type Identity struct {
	Inode uint64 // address of the inode: never to be shown to anybody inside
	Ino   uint64
	Dev   uint32
	Gen   uint32
}

// Lasting is the identity without what the kernel may forget and find elsewhere again: two that are equal so are of one file.
func (i Identity) Lasting() Identity {
	i.Inode = 0
	return i
}

// Target is which file an attempt was about, and what it was refused of it.
type Target struct {
	File   Identity // zero: not known, or not about a file
	Name   string   // not empty: File is the directory, and this what was to be in it
	Access Access   // also rights that the language has no word for
}

// Subject is who attempted something: the kernel's own identity of the process, never its comm.
type Subject struct {
	PID  int    `json:"pid,omitempty"`  // in the host's pid namespace; 0: not known
	Exe  string `json:"exe,omitempty"`  // path of the executable's inode as the policy resolved it
	Args string `json:"args,omitempty"` // command line, arguments joined by a space; bytes from inside, escape before showing

	File Identity `json:"-"` // of the executable; zero: not known

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
	Seq       uint64     `json:"seq"`
	Time      time.Time  `json:"time"`
	Sandbox   string     `json:"sandbox"`
	Plane     Plane      `json:"plane"`
	Action    string     `json:"action"` // connect, bind, sendto, socket, resolve, request, exec, open, start, exit, ...
	Object    string     `json:"object"` // "name:port", "addr:port", a path
	Subject   Subject    `json:"subject"`
	Asked     string     `json:"asked,omitempty"` // of a person's answer: plane and action of what it is about, "file open"
	Verdict   Verdict    `json:"verdict"`
	Rule      string     `json:"rule"`                // "file:line", "default" or "builtin"
	Reason    string     `json:"reason,omitempty"`    // why, and what to do, in one sentence
	Inference *ModelCall `json:"inference,omitempty"` // of the plane inference; never changed once it is here
	Target    Target     `json:"-"`                   // of files and programs: what an answer to it is entered by
	Suggest   string     `json:"-"`                   // the YAML to add to allow it; empty where no rule could
	Waited    bool       `json:"-"`                   // a person was asked about it already
	Called    string     `json:"-"`                   // exec: the path as the caller gave it; of a script its own, where Object is its interpreter
	Revision  string     `json:"revision"`
	Count     uint64     `json:"count,omitempty"` // identical attempts folded into this record; 0 and 1 mean one
}
