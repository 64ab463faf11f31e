package policy

import (
	"fmt"
	"slices"
	"strings"
)

// Route is where a model call goes.
type Route uint8

// The routes, from the least to the most severe. What several classes say the most severe decides. RouteRedact is the cloud,
// with placeholders for what was found; RouteAsk the cloud, if a person says so.
const (
	RouteCloud Route = iota
	RouteRedact
	RouteAsk
	RouteLocal
	RouteDeny
)

var routeWords = [...]string{"cloud", "redact", "ask", "local", "deny"}

// String returns the route's word.
func (r Route) String() string {
	if int(r) < len(routeWords) {
		return routeWords[r]
	}
	return "deny"
}

// routeOf reads a route's word; what was left out is otherwise.
func routeOf(w Value[Word], otherwise Route) Route {
	if i := slices.Index(routeWords[:], string(w.V)); i >= 0 {
		return Route(i)
	}
	return otherwise
}

// Key says where on the host a backend's key is. At most one of its fields is set.
type Key struct{ File, Command, Credential string }

// Backend is a model and who answers for it.
type Backend struct {
	Provider, Model string
	Name            string            // that it is chosen by; "": none
	URL             string            // without a slash at its end
	API             string            // openai, anthropic, ollama, gemini
	Region          string            // "": not said
	Key             Key               // zero: where keys usually are
	Local           bool              // it may see everything
	Classes         map[string]Route  // what of the section's holds otherwise for what goes to it
	Said            map[string]string // where that stands, FILE:LINE
	Price           *Price            // nil: not said
}

// String returns PROVIDER/MODEL.
func (b *Backend) String() string { return b.Provider + "/" + b.Model }

// BackendOf returns the backend of PROVIDER/MODEL of a known provider.
func BackendOf(model string) (*Backend, error) {
	name, rest, ok := strings.Cut(model, "/")
	p, known := providers[name]
	if !ok || rest == "" || !known {
		return nil, fmt.Errorf("the model %s: want PROVIDER/MODEL of anthropic, google, llamacpp, nvidia, ollama, openai or vllm; another provider needs url and api in the policy, under inference.cloud", cut(model))
	}
	return &Backend{Provider: name, Model: rest, URL: p.url, API: p.api, Local: onThisHost(p.url)}, nil
}

// CustomRule is a class of the policy's own.
type CustomRule struct {
	ID      RuleID
	Name    string
	Pattern string // "": none
	Words   []string
}

// Inference is the inference section.
type Inference struct {
	ID         RuleID
	Local      *Backend // nil: none
	Cloud      *Backend // nil: none
	Default    Route
	Unseen     Route             // of what can't be looked into
	Classes    map[string]Route  // of every class, those of Custom included
	Said       map[string]string // where a class's verdict stands, FILE:LINE; one that is left out stands nowhere
	DefaultAt  string            // likewise
	UnseenAt   string
	Custom     []CustomRule
	Residency  []string   // empty: anywhere
	Models     []*Backend // beside Local and Cloud, in the order in which they stand
	Fallbacks  []string   // names, in the order in which they are asked
	Budget     Budget
	LogMatches bool // records have the texts in which something was found
}

// Route is where something of a class goes, where no model says otherwise. A class that nobody knows stays on this host.
func (f *Inference) Route(class string) Route {
	if r, known := f.Classes[class]; known {
		return r
	}
	return RouteLocal
}

// RouteTo is where something of a class goes that is on its way to a backend.
func (f *Inference) RouteTo(b *Backend, class string) Route {
	if r, own := b.Classes[class]; own {
		return r
	}
	return f.Route(class)
}

// SaidOf is where the verdict stands that RouteTo returns, FILE:LINE; "": it is what holds when nothing is said.
func (f *Inference) SaidOf(b *Backend, class string) string {
	if at, own := b.Said[class]; own {
		return at
	}
	return f.Said[class]
}

// Admits reports whether a prompt may leave for a backend's region.
func (f *Inference) Admits(b *Backend) bool {
	return len(f.Residency) == 0 || slices.Contains(f.Residency, b.Region)
}

// inference enters the section, and the name that its router answers at.
func (m *merge) inference(s *InferenceSection) {
	out := &Inference{Default: routeOf(s.Default, RouteCloud), Unseen: routeOf(s.Unseen, RouteLocal), Classes: map[string]Route{}, LogMatches: s.Log.V == "matches"}
	for _, r := range s.Residency {
		out.Residency = append(out.Residency, string(r.V))
	}
	if s.Local != nil {
		out.Local = backend(LocalName, s.Local.Model, &s.Local.Endpoint)
		out.Local.Local = true
	}
	if s.Cloud != nil {
		out.Cloud = backend(CloudName, s.Cloud.Model, &s.Cloud.Endpoint)
		m.terms(out.Cloud, &s.Cloud.Terms)
		m.admitted(out, out.Cloud, s.Cloud.At, "inference.cloud")
	}
	m.models(out, s)
	out.DefaultAt, out.UnseenAt = m.said(s.Default), m.said(s.Unseen)
	out.Said = map[string]string{}
	for class, v := range s.Classes.verdicts() {
		out.Classes[class], out.Said[class] = routeOf(v, RouteLocal), m.said(v)
	}
	for i := range s.Custom {
		c := &s.Custom[i]
		r := CustomRule{ID: m.ref(c.At, "custom", c.Text), Name: string(c.Name.V), Pattern: string(c.Pattern.V)}
		for _, w := range c.Words {
			r.Words = append(r.Words, string(w.V))
		}
		out.Custom = append(out.Custom, r)
		out.Classes[r.Name], out.Said[r.Name] = routeOf(c.Verdict, RouteLocal), m.out.Rules[r.ID].Pos
	}
	out.ID = m.ref(s.At, "inference", out.text())
	m.out.Inference = out
	for i := range m.out.Network.Rules {
		if r := &m.out.Network.Rules[i]; r.Name == InferenceName && r.Verdict == Allow {
			m.collector.add(s.At, "inference", "the privacy router answers at "+InferenceName+", and the rule at "+m.out.Rules[r.ID].Pos+" lets connections to it through", "remove that rule")
		}
	}
	m.out.Network.Rules = append(m.out.Network.Rules, NetRule{ID: out.ID, Verdict: Allow, Name: InferenceName, Ports: []uint16{80, 443}})
}

// said is where a word stands; "" where it is left out.
func (m *merge) said(w Value[Word]) string {
	if !w.Set {
		return ""
	}
	return fmt.Sprintf("%s:%d", m.file, w.At.Line)
}

func backend(name string, model Value[ModelName], e *Endpoint) *Backend {
	of, rest, _ := strings.Cut(string(model.V), "/")
	b := &Backend{Name: name, Provider: of, Model: rest, URL: providers[of].url, API: providers[of].api}
	if e.URL.Set {
		b.URL = string(e.URL.V)
	}
	if e.API.Set {
		b.API = string(e.API.V)
	}
	if e.Key != nil {
		b.Key = Key{File: string(e.Key.File.V), Command: string(e.Key.Command.V), Credential: string(e.Key.Credential.V)}
	}
	return b
}

// text is the section in short, for records.
func (f *Inference) text() string {
	var parts []string
	for _, b := range []struct {
		as string
		b  *Backend
	}{{"local", f.Local}, {"cloud", f.Cloud}} {
		if b.b != nil {
			parts = append(parts, b.as+": "+b.b.String())
		}
	}
	return "{" + strings.Join(append(parts, "default: "+f.Default.String()), ", ") + "}"
}

func (c *Compiled) saysInference() map[string]said {
	m := map[string]said{}
	f := c.Inference
	if f == nil {
		return m
	}
	at := c.pos(f.ID)
	m["default"] = said{f.Default.String(), at}
	m["unseen"] = said{f.Unseen.String(), at}
	m["log"] = said{f.logWord(), at}
	if len(f.Residency) > 0 {
		m["residency"] = said{strings.Join(append([]string{"of"}, sorted(f.Residency)...), " "), at}
	}
	for _, b := range f.All() {
		m[b.subject()] = said{b.says(), at}
	}
	if f.Budget != (Budget{}) {
		m["budgets"] = said{f.Budget.yaml(), at}
	}
	if len(f.Fallbacks) > 0 {
		m["fallbacks"] = said{strings.Join(append([]string{"to"}, f.Fallbacks...), " "), at}
	}
	for class, r := range f.Classes {
		m["class "+class] = said{r.String(), at}
	}
	for _, r := range f.Custom {
		m["custom "+r.Name] = said{fmt.Sprintf("%q %q", r.Pattern, sorted(r.Words)), c.pos(r.ID)}
	}
	return m
}

func (f *Inference) logWord() string {
	if f.LogMatches {
		return "matches"
	}
	return "counts"
}

// OfInference reports whether a rule of the network is the one that comes with the section inference.
func (c *Compiled) OfInference(r *NetRule) bool { return c.Inference != nil && r.ID == c.Inference.ID }

// YAML writes what the section says, without its key.
func (f *Inference) YAML() string {
	var w writer
	for _, b := range []struct {
		as string
		b  *Backend
	}{{"local", f.Local}, {"cloud", f.Cloud}} {
		if b.b != nil {
			w.line("%s: {%s}", b.as, b.b.yaml())
		}
	}
	w.line("default: %s", f.Default)
	w.line("unseen: %s", f.Unseen)
	w.line("log: %s", f.logWord())
	var classes []string
	for class, r := range f.Classes {
		if builtinClass(class) {
			classes = append(classes, class+": "+r.String())
		}
	}
	w.line("classes: {%s}", strings.Join(sorted(classes), ", "))
	if len(f.Custom) > 0 {
		w.line("custom:")
	}
	for _, c := range f.Custom {
		w.line("  - name: %s", Quote(c.Name))
		w.line("    verdict: %s", f.Classes[c.Name])
		if c.Pattern != "" {
			w.line("    pattern: %s", Quote(c.Pattern))
		}
		if len(c.Words) > 0 {
			w.line("    words: [%s]", quotedList(c.Words))
		}
	}
	if len(f.Residency) > 0 {
		w.line("residency: [%s]", quotedList(f.Residency))
	}
	if len(f.Models) > 0 {
		w.line("models:")
	}
	for _, b := range f.Models {
		w.line("  - {name: %s, %s, route: %s}", Quote(b.Name), b.yaml(), b.route())
	}
	if len(f.Fallbacks) > 0 {
		w.line("fallbacks: [%s]", quotedList(f.Fallbacks))
	}
	if f.Budget != (Budget{}) {
		w.line("budgets: %s", f.Budget.yaml())
	}
	return string(w.bytes())
}

func (b *Backend) yaml() string {
	parts := []string{"model: " + Quote(b.String()), "url: " + Quote(b.URL), "api: " + b.API}
	if b.Region != "" {
		parts = append(parts, "region: "+Quote(b.Region))
	}
	for _, k := range [][2]string{{"file", b.Key.File}, {"command", b.Key.Command}, {"credential", b.Key.Credential}} {
		if k[1] != "" {
			parts = append(parts, "key: {"+k[0]+": "+Quote(k[1])+"}")
		}
	}
	if len(b.Classes) > 0 {
		parts = append(parts, "classes: {"+b.classes()+"}")
	}
	if b.Price != nil {
		parts = append(parts, "price: "+b.Price.yaml())
	}
	return strings.Join(parts, ", ")
}

func quotedList(list []string) string {
	quoted := make([]string, len(list))
	for i, s := range list {
		quoted[i] = Quote(s)
	}
	return strings.Join(quoted, ", ")
}
