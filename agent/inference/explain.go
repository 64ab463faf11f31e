package inference

import (
	"cmp"
	"slices"
	"strings"

	"github.com/nemoclaw/nemoclaw/agent/inference/classify"
	"github.com/nemoclaw/nemoclaw/policy"
)

// A Finding is something sensitive in a text.
type Finding struct {
	Line    int    `json:"line"`
	Column  int    `json:"column"` // in bytes, from 1
	Class   string `json:"class"`
	Kind    string `json:"kind"`
	Via     string `json:"via,omitempty"` // how it was hidden
	Verdict string `json:"verdict"`       // of its class
	Before  string `json:"before"`        // in its line, at most maxAround bytes
	Text    string `json:"text"`
	After   string `json:"after"` // likewise
}

// maxAround is how many bytes before and after a find are told.
const maxAround = 200

// An Explanation is what the router would do with a prompt, and why.
type Explanation struct {
	Verdict  string    `json:"verdict"`
	Model    string    `json:"model,omitempty"` // that would answer
	Reason   string    `json:"reason,omitempty"`
	Findings []Finding `json:"findings"`
	Named    []Named   `json:"named,omitempty"` // what it would do if the caller named another model
}

// Named is a model of the policy, and the verdict of a prompt that is for it.
type Named struct {
	Name    string `json:"name"`
	Model   string `json:"model"`
	Verdict string `json:"verdict"`
}

// Explain says what a policy does with a text that is a prompt of its own. Nothing is sent.
func Explain(p *policy.Compiled, text string) (Explanation, error) {
	rs, err := prepare(p)
	if err != nil {
		return Explanation{}, err
	}
	found, err := rs.parts([]string{text})
	if err != nil {
		return Explanation{}, err
	}
	e := Explanation{Findings: []Finding{}}
	f := rs.section
	b := cmp.Or(f.Cloud, &policy.Backend{}) // of a model that config set model names, the section's own rules hold
	if f.Cloud == nil && f.Local != nil {
		b = f.Local
	}
	v := &verdict{counts: map[string]int{}, matches: found}
	slices.SortStableFunc(found, func(a, b classify.Match) int { return cmp.Compare(a.Start, b.Start) })
	line, counted := 1, 0
	for _, m := range found {
		v.counts[string(m.Class)]++
		line += strings.Count(text[counted:m.Start], "\n")
		counted = m.Start
		begin := strings.LastIndexByte(text[:m.Start], '\n') + 1
		after, _, _ := strings.Cut(text[m.End:min(m.End+maxAround, len(text))], "\n")
		e.Findings = append(e.Findings, Finding{
			Line: line, Column: m.Start - begin + 1, Class: string(m.Class), Kind: m.Kind, Via: m.Via, Verdict: rs.routeOf(b, string(m.Class)).String(),
			Before: strings.ToValidUTF8(text[max(begin, m.Start-maxAround):m.Start], ""), Text: text[m.Start:m.End], After: strings.ToValidUTF8(after, ""),
		})
	}
	v.route, _ = rs.routeTo(b, v)
	e.Verdict, e.Reason = v.route.String(), v.summary()
	switch {
	case v.route == policy.RouteLocal && f.Local != nil, v.route < policy.RouteLocal && b == f.Local && b != nil:
		e.Model = f.Local.String()
	case v.route < policy.RouteLocal && f.Cloud != nil:
		e.Model = f.Cloud.String()
	}
	for _, n := range f.Models {
		route, _ := rs.routeTo(n, v)
		if n.Local && route != policy.RouteDeny {
			route = policy.RouteLocal
		}
		e.Named = append(e.Named, Named{n.Name, n.String(), route.String()})
	}
	return e, nil
}
