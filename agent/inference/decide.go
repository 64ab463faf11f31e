package inference

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/nemoclaw/nemoclaw/agent/inference/classify"
	"github.com/nemoclaw/nemoclaw/agent/inference/dialect"
	"github.com/nemoclaw/nemoclaw/agent/provider"
	"github.com/nemoclaw/nemoclaw/policy"
)

// verdict is what a request carries, and where it goes therefore.
type verdict struct {
	route   policy.Route   // by the rules of the model that it is for
	rule    string         // where that is said, FILE:LINE; "": nowhere
	counts  map[string]int // of what was found, by class
	unseen  []string       // kinds of things that could not be looked at
	before  map[string]int // classes that its conversation has carried before, each from a message on
	carried map[string]int // those, and what of it some model may not have: its conversation is to be known by them
	marks   []marked       // what its conversation is known by
	sticky  bool           // it is local because of what was before
	stays   bool           // what should have been redacted could not be
	embeds  bool           // embeddings are asked for
	leftOut bool           // the request goes without tools that the server would have run
	matches []classify.Match
	shown   []policy.Matched // of them, where the policy has them logged
}

// summary says what was found, without any of it.
func (v *verdict) summary() string {
	var parts []string
	for _, class := range slices.Sorted(maps.Keys(v.counts)) {
		parts = append(parts, fmt.Sprintf("%s %d", class, v.counts[class]))
	}
	if len(v.unseen) > 0 {
		parts = append(parts, "not seen: "+strings.Join(v.unseen, " "))
	}
	if v.sticky {
		parts = append(parts, "its conversation was sensitive before")
	}
	if len(parts) == 0 {
		parts = []string{"nothing sensitive"}
	}
	if v.leftOut {
		parts = append(parts, "without the server's own tools")
	}
	return strings.Join(parts, ", ")
}

// judge looks at all that a model would see of a request. also is what else the caller has sent that would be passed on.
func (rs *rules) judge(r *dialect.Request, m *memory, also ...string) (*verdict, error) {
	seen := r.Texts()
	texts := append(values(seen), also...)
	v := &verdict{counts: map[string]int{}, marks: marks(r), embeds: r.Operation == dialect.Embed}
	found, err := rs.parts(texts)
	if err != nil {
		return nil, err
	}
	v.matches = found
	if rs.section.LogMatches {
		for _, m := range found[:min(len(found), maxMatches)] {
			v.shown = append(v.shown, policy.Matched{Class: string(m.Class), Kind: m.Kind, Via: m.Via, Text: copied(texts[m.Part][m.Start:m.End], maxMatch)})
		}
	}
	for _, f := range found {
		v.counts[string(f.Class)]++
	}
	for _, u := range r.Unseen() {
		// What the server itself has kept or encrypted came from there, and only goes back.
		if u != dialect.UnseenEncrypted && u != dialect.UnseenStored {
			if !slices.Contains(v.unseen, string(u)) {
				v.unseen = append(v.unseen, string(u))
			}
		}
	}
	v.before = m.carried(v.marks)
	v.carried = maps.Clone(v.before)
	var kept []string
	for class := range v.counts {
		if rs.kept(class) {
			kept = append(kept, class)
		}
	}
	unseen := len(v.unseen) > 0 && rs.kept(unseenThings)
	if unseen {
		kept = append(kept, unseenThings)
	}
	if len(kept) > 0 {
		from := carrier(r, rs.sensitive(seen, r.Aside(), found), unseen)
		for _, class := range kept {
			since(v.carried, class, from)
		}
	}
	v.route, v.sticky = rs.routeTo(&policy.Backend{}, v) // until it is known whom it is for
	return v, nil
}

// sensitive are the texts of a conversation in which something is that some model may not have.
func (rs *rules) sensitive(texts []*string, aside map[*string]bool, found []classify.Match) map[string]bool {
	in := map[string]bool{}
	for _, f := range found {
		if f.Part < len(texts) && !aside[texts[f.Part]] && rs.kept(string(f.Class)) {
			in[*texts[f.Part]] = false
		}
	}
	return in
}

// routeOf is where something of a class goes that is on its way to a backend.
func (rs *rules) routeOf(b *policy.Backend, class string) policy.Route {
	switch class {
	case unseenThings:
		return rs.section.Unseen
	case everything:
		return policy.RouteLocal
	}
	return rs.section.RouteTo(b, class)
}

// kept reports whether there is a model, or can be one, that may not have something of a class.
func (rs *rules) kept(class string) bool {
	f := rs.section
	return rs.routeOf(&policy.Backend{}, class) >= policy.RouteLocal ||
		slices.ContainsFunc(f.All(), func(b *policy.Backend) bool { return !b.Local && rs.routeOf(b, class) >= policy.RouteLocal })
}

// routeTo is where a request goes that is on its way to a backend, by that backend's rules. sticky: because of what its conversation
// has carried before.
func (rs *rules) routeTo(b *policy.Backend, v *verdict) (route policy.Route, sticky bool) {
	for class := range v.counts {
		route = max(route, rs.routeOf(b, class))
	}
	if len(v.unseen) > 0 {
		route = max(route, rs.section.Unseen)
	}
	if route < policy.RouteLocal {
		for class := range v.before {
			sticky = sticky || rs.routeOf(b, class) >= policy.RouteLocal
		}
	}
	if sticky || v.stays {
		route = max(route, policy.RouteLocal)
	}
	return max(route, rs.section.Default), sticky
}

// ruleFor is where the verdict stands that decides about a request on its way to a backend, FILE:LINE; "": it is what holds when nothing is
// said.
func (rs *rules) ruleFor(b *policy.Backend, v *verdict) string {
	f := rs.section
	for _, class := range slices.Sorted(maps.Keys(v.counts)) {
		if rs.routeOf(b, class) == v.route {
			return f.SaidOf(b, class)
		}
	}
	switch {
	case len(v.unseen) > 0 && f.Unseen == v.route:
		return f.UnseenAt
	case !v.sticky && !v.stays && f.Default == v.route:
		return f.DefaultAt
	}
	return ""
}

// parts is the classifier's word; a fault of its own is an error like any other.
func (rs *rules) parts(texts []string) (found []classify.Match, err error) {
	defer func() {
		if recover() != nil {
			found, err = nil, refuse("the request could not be judged, because of a fault in the classifier; please report it. It was not sent anywhere")
		}
	}()
	found, err = rs.classifier.Parts(texts)
	if err != nil {
		return nil, refuse("the request could not be judged (%v), so it was not sent anywhere; make it smaller, or take out what is encoded or compressed", err)
	}
	return found, nil
}

func values(pointers []*string) []string {
	list := make([]string, len(pointers))
	for i, p := range pointers {
		list[i] = *p
	}
	return list
}

// key is what a backend wants to see.
func (r *Router) key(ctx context.Context, b *policy.Backend) (string, error) {
	key, err := readKey(ctx, b.Key)
	if err == nil && key == "" && r.c.Key != nil {
		key, err = r.c.Key(b)
	}
	if err != nil {
		return "", refuse("%s can't be asked: %v", b.Provider, err)
	}
	if needs, err := provider.NeedsKey(b.String()); key == "" && err == nil && needs && !b.Local {
		return "", refuse("there is no key for %s; the person who runs the sandbox can give one: nemoclaw NAME config set model %s, then config set key -; for nemoclaw run, in %s; or the policy, with key under the model", b.Provider, b, KeyVariables[b.Provider])
	}
	return key, nil
}
