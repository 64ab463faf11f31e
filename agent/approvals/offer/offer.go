// Package offer says what an answer to a request can be about: exactly what was attempted, or something wider that a person may
// mean, each with the rule that would say it always.
//
// Nothing is widened by itself: the first offer is always the attempt. What it reads comes from inside a sandbox, and no rule is
// made of what the policy language doesn't take. It never changes a policy and never decides.
package offer

import (
	"slices"

	"github.com/nemoclaw/nemoclaw/agent/text"
	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

// The offers.
const (
	This       = "this"       // what was attempted, by the program that did
	Host       = "host"       // the same host and port, by any program
	Subdomains = "subdomains" // the host and those beside it, on the same port, by the program
	Directory  = "directory"  // everything below a file's directory, to read
)

// An Offer is what an answer can be about, with the rules of an answer that holds always. A rule that a policy could not have,
// or that another rule of the policy would beat, is nil.
type Offer struct {
	api.Offer
	Allow, Deny *policy.RuleSpec
	// Instead is the rule that asks about nothing else, and goes when Allow comes: ask beats allow. nil: none does.
	Instead *policy.RuleSpec
}

// Of returns the offers for what d tells of, under a policy in force; the first is This. There is none for what no answer can
// change: what no rule can be about (bind, raw sockets, UDP, devices, what no sandbox may do), and what isn't well formed.
//
// Scopes holds ScopeAlways where at least one of Allow and Deny is there. An offer wider than the attempt has no ScopeOnce and
// no ScopeSession: it is a rule of the policy, for a while (RuleSpec.Expires) or always.
func Of(d policy.Decision, c *policy.Compiled) []Offer {
	if d.Rule == "builtin" {
		return nil
	}
	var list []Offer
	switch d.Plane {
	case policy.PlaneNetwork, policy.PlaneDNS:
		list = network(d, c)
	case policy.PlaneFile:
		list = file(d, c)
	case policy.PlaneExec:
		list = exec(d, c)
	case policy.PlaneInference:
		list = []Offer{attempted("model calls like this one", nil, nil)}
	}
	return slices.DeleteFunc(list, func(o Offer) bool { return len(o.Scopes) == 0 })
}

// attempted is the offer of the attempt itself.
func attempted(what string, allow, deny *policy.RuleSpec) Offer {
	return written(This, what, allow, deny, api.ScopeOnce, api.ScopeSession, api.ScopeFor)
}

// wider is an offer of more than the attempt. It is there for who allows: what is only to be denied is denied rule by rule.
func wider(id, what string, allow, deny *policy.RuleSpec) Offer {
	if o := written(id, what, allow, deny); o.Allow != nil {
		o.Scopes = []api.Scope{api.ScopeFor, api.ScopeAlways}
		return o
	}
	return Offer{}
}

// written writes the rules of an offer. One that the language doesn't take is none.
func written(id, what string, allow, deny *policy.RuleSpec, scopes ...api.Scope) Offer {
	o := Offer{Offer: api.Offer{ID: id, Text: what, Scopes: scopes}}
	rule := func(s *policy.RuleSpec) (*policy.RuleSpec, string) {
		if s == nil {
			return nil, ""
		}
		y, err := s.YAML()
		if err != nil {
			return nil, ""
		}
		return s, y
	}
	o.Allow, o.YAML = rule(allow)
	o.Deny, o.Offer.Deny = rule(deny)
	if o.Allow != nil || o.Deny != nil {
		o.Scopes = append(o.Scopes, api.ScopeAlways)
	}
	return o
}

// denied makes a rule that refuses of one that allows.
func denied(allow policy.RuleSpec) *policy.RuleSpec {
	allow.Verdict, allow.Protocol = "deny", ""
	return &allow
}

// shown is text from inside as an offer quotes it; it is escaped where it is shown.
func shown(s string) string { return text.Clip(s, 200) }
