package report

import (
	"regexp"
	"strings"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/gpu"
	"github.com/nemoclaw/nemoclaw/policy"
)

// deed is something that a person did. Its object is left out: each of them is in the log.
type deed struct{ who, action, sandbox string }

// answer is a person's answer to what was attempted.
type answer struct {
	when    time.Time
	seq     uint64
	what    attempt
	verdict policy.Verdict
	said    said
	ended   bool // no answer: one that was taken back, or whose time was over
}

// said is what the record of an answer says: who, for how long, after which wait.
type said struct{ who, scope, waited string }

// grant is the answer in force for an attempt.
type grant struct {
	said
	when time.Time
	seq  uint64
}

// change is a revision of a policy.
type change struct {
	when              time.Time
	seq               uint64
	sandbox, revision string
	what, who         string
}

// note is a record about a sandbox itself: what began or ended, what a person did, what can't be seen.
type note struct {
	when            time.Time
	seq             uint64
	sandbox, action string
	object, reason  string
	count           uint64
}

// byWhom are the actions whose reason ends with the account that the kernel named.
var byWhom = map[string]bool{
	"create": true, "destroy": true, "command": true, "policy": true, "config": true, "upload": true, "download": true, "snapshot": true, "restore": true,
	"publish": true, "unpublish": true, "erase": true,
}

// system takes a record about a sandbox itself, or the daemon.
func (c *collected) system(d *policy.Decision, n uint64) {
	box := clip(d.Sandbox, maxWord)
	if action := clip(d.Action, maxWord); len(c.actions) < maxNotes || c.actions[action] > 0 {
		c.actions[action] += n
	}
	if d.Asked != "" {
		c.answer(d, box, n)
		return
	}
	about := note{d.Time, d.Seq, box, d.Action, clip(d.Object, maxObject), clip(d.Reason, maxObject), d.Count}
	switch d.Action {
	case gpu.Action:
		if !c.gpus.add(d) {
			c.lives.add(about) // which it was given
		}
	case "create", "start", "stop", "exit", "restore", "destroy":
		c.lives.add(about)
	case "command":
		c.commands.add(about)
	case "upload", "download":
		c.carried.add(about)
	case "lost", "recover", "erase", "unmasked", "failed", "adopt", "panic":
		if d.Action == "lost" {
			c.lostTotal += n
		}
		c.losses.add(about)
		if d.Action == "failed" || d.Action == "adopt" {
			c.lives.add(about)
		}
	case "policy":
		what, who := policyBy(d.Reason)
		c.policies.add(change{d.Time, d.Seq, box, clip(d.Object, maxWord), clip(what, maxObject), clip(who, maxWord)})
	}
	if byWhom[d.Action] {
		who := lastBy(d.Reason)
		if d.Action == "policy" {
			_, who = policyBy(d.Reason)
		}
		c.did(d, who, d.Action, box, n)
	}
}

func (c *collected) did(d *policy.Decision, who, action, box string, n uint64) {
	if v := c.people.at(deed{clip(who, maxWord), clip(action, maxWord), box}, "", n); v != nil {
		v.add(d, n)
	}
}

// answer takes the record of a person's answer, or of its end.
func (c *collected) answer(d *policy.Decision, box string, n uint64) {
	a := answer{when: d.Time, seq: d.Seq, verdict: d.Verdict, ended: d.Action != "answer",
		what: attempt{box, clip(d.Asked, maxWord), clip(d.Object, maxObject), clip(d.Subject.Exe, maxWord)}}
	if a.ended {
		c.ended += n
		who := ""
		if d.Action == "revoke" {
			who, _, _ = strings.Cut(d.Reason, " took back ")
			c.did(d, who, d.Action, box, n)
		}
		a.said = said{who: clip(who, maxWord), scope: map[string]string{"revoke": "taken back", "expired": "its time is over"}[d.Action]}
		c.answers.add(a)
		return
	}
	var ok bool
	if a.said, ok = readAnswer(d.Reason, d.Verdict); !ok {
		// An answer that came too late, or could not be put into force.
		a.said = said{who: "", scope: clip(d.Reason, maxObject)}
		c.answers.add(a)
		return
	}
	a.said.who = clip(a.said.who, maxWord)
	c.answered.add(d.Verdict, n)
	c.did(d, a.said.who, "answer", box, n)
	c.answers.add(a)
	if d.Verdict == policy.Allow {
		if v := c.given.at(a.what, box, 1); v != nil {
			*v = grant{a.said, d.Time, d.Seq}
		}
	}
}

// readAnswer reads `WHO allowed it (SCOPE) after WAITED: OFFER`. What a caller calls itself has no bracket in it, or is in quotes.
func readAnswer(reason string, v policy.Verdict) (s said, ok bool) {
	verb := map[policy.Verdict]string{policy.Allow: " allowed it (", policy.Deny: " denied it ("}[v]
	if verb == "" {
		return s, false
	}
	head, quoted := reason, ""
	if i := strings.Index(reason, `, by "`); i >= 0 && i < strings.Index(reason, verb) {
		j := strings.IndexByte(reason[i+len(`, by "`):], '"')
		if j < 0 {
			return s, false
		}
		quoted, head = reason[:i+len(`, by "`)+j+1], reason[i+len(`, by "`)+j+1:]
	}
	who, rest, ok := strings.Cut(head, verb)
	if !ok {
		return s, false
	}
	s.who = quoted + who
	if s.scope, rest, ok = strings.Cut(rest, ") after "); !ok {
		return said{}, false
	}
	s.waited, _, ok = strings.Cut(rest, ": ")
	s.scope, s.waited = clip(s.scope, maxWord), clip(s.waited, maxWord)
	return s, ok
}

// lastBy is who did it, by a reason that ends with "by NAME".
func lastBy(reason string) string {
	i := strings.LastIndex(" "+reason, " by ")
	if i < 0 {
		return ""
	}
	return reason[i+len("by "):]
}

// policyEnd is the end of a reason for a revision: an account, or an answer's account and what it answered with.
var policyEnd = regexp.MustCompile(`, by ([^,]*?(?: \(uid \d+[^()]*\)(?:, by (?:"[^"]*"|[^(),"]*))?)?)$`)

func policyBy(reason string) (what, who string) {
	m := policyEnd.FindStringSubmatchIndex(reason)
	if m == nil {
		return reason, ""
	}
	return reason[:m[0]], reason[m[2]:m[3]]
}
