package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// The names of the two models that have a key of their own.
const (
	LocalName = "local"
	CloudName = "cloud"
)

// checkModels checks the models that have names, and what refers to them.
func (s *InferenceSection) checkModels(d *decoder, key string) {
	names := []string{}
	if s.Local != nil {
		names = append(names, LocalName)
	}
	if s.Cloud != nil {
		names = append(names, CloudName)
	}
	for i := range s.Models {
		name := string(s.Models[i].Name.V)
		switch {
		case name == LocalName || name == CloudName:
			d.add(s.Models[i].Name.At, join(key, "models"), name+" is the name of the model that stands under "+join(key, name), "call it otherwise")
		case slices.Contains(names, name):
			d.add(s.Models[i].Name.At, join(key, "models"), "there is a model "+name+" already", "call it otherwise")
		}
		names = append(names, name)
	}
	for _, f := range s.Fallbacks {
		if !slices.Contains(names, string(f.V)) {
			hint := "name it under " + join(key, "models")
			if len(names) > 0 {
				hint = nearest(string(f.V), names)
			}
			d.add(f.At, join(key, "fallbacks"), "there is no model "+cut(string(f.V)), hint)
		}
	}
	if s.Budgets == nil || !s.Budgets.Cost.Set {
		return
	}
	priced := func(at At, key string, p *PriceSection) {
		if p == nil {
			d.add(at, key, "budgets has a cost, and nobody knows what this model costs", "say it: price: {input: 0.6, output: 2.4}, in USD for a million tokens")
		}
	}
	if s.Cloud != nil {
		priced(s.Cloud.At, join(key, CloudName), s.Cloud.Price)
	}
	for i := range s.Models {
		if m := &s.Models[i]; !m.local() {
			priced(m.At, join(key, "models"), m.Price)
		}
	}
}

func (s *BudgetSection) check(d *decoder, key string) {
	if !s.Tokens.Set && !s.Cost.Set {
		d.add(s.At, key, "nothing is limited", "write budgets: {tokens: 2000000}, or {cost: 20}, or both")
	}
}

func (m *NamedModel) check(d *decoder, key string) {
	m.Endpoint.check(d, m.Model, key)
	if !m.local() {
		m.Endpoint.checkEncrypted(d, key)
		return
	}
	const hint = "write route: cloud if it may not, or take this out"
	if m.Classes != nil {
		d.add(m.Classes.At, join(key, "classes"), "a local model may see everything", hint)
	}
	if m.Price != nil {
		d.add(m.Price.At, join(key, "price"), "a local model costs nothing", hint)
	}
}

// local reports whether the model may see everything.
func (m *NamedModel) local() bool {
	of, _, _ := strings.Cut(string(m.Model.V), "/")
	return m.Route.V == LocalName || !m.Route.Set && !m.URL.Set && onThisHost(providers[of].url)
}

// verdicts are what is said of each class; nil says nothing.
func (c *ClassVerdicts) verdicts() map[string]Value[Word] {
	if c == nil {
		c = &ClassVerdicts{}
	}
	return map[string]Value[Word]{
		"medical": c.Medical, "financial": c.Financial, "pii": c.PII, "credentials": c.Credentials, "confidential": c.Confidential,
	}
}

// models enters the models that have names, the order in which they stand in for others, and what all may take.
func (m *merge) models(out *Inference, s *InferenceSection) {
	for i := range s.Models {
		n := &s.Models[i]
		b := backend(string(n.Name.V), n.Model, &n.Endpoint)
		m.terms(b, &n.Terms)
		b.Local = n.local()
		m.ref(n.At, "model", n.Text)
		m.admitted(out, b, n.At, "inference.models")
		out.Models = append(out.Models, b)
	}
	for _, f := range s.Fallbacks {
		out.Fallbacks = append(out.Fallbacks, string(f.V))
	}
	if s.Budgets != nil {
		out.Budget = Budget{Tokens: int64(s.Budgets.Tokens.V), Cost: float64(s.Budgets.Cost.V)}
	}
}

// admitted refuses a model that residency keeps everything from.
func (m *merge) admitted(out *Inference, b *Backend, at At, key string) {
	if !b.Local && !out.Admits(b) {
		m.collector.add(at, key, "its region is not one of residency, so nothing could ever go there", "say its region, or take the model out")
	}
}

func (m *merge) terms(b *Backend, t *Terms) {
	b.Region = string(t.Region.V)
	if t.Price != nil {
		b.Price = &Price{Input: float64(t.Price.Input.V), Output: float64(t.Price.Output.V)}
	}
	for class, v := range t.Classes.verdicts() {
		if v.Set {
			if b.Classes == nil {
				b.Classes, b.Said = map[string]Route{}, map[string]string{}
			}
			b.Classes[class], b.Said[class] = routeOf(v, RouteLocal), m.said(v)
		}
	}
}

// ID tells a backend from every other, whatever it is called.
func (b *Backend) ID() string { return b.String() + " at " + b.URL }

// All are the section's models: the local one, the cloud's, and those with names. No section has none.
func (f *Inference) All() []*Backend {
	if f == nil {
		return nil
	}
	var list []*Backend
	for _, b := range append([]*Backend{f.Local, f.Cloud}, f.Models...) {
		if b != nil {
			list = append(list, b)
		}
	}
	return list
}

// Named is the model of a name; nil: there is none.
func (f *Inference) Named(name string) *Backend {
	for _, b := range f.All() {
		if b.Name == name {
			return b
		}
	}
	return nil
}

// Names are all that a model can be chosen by.
func (f *Inference) Names() []string {
	var names []string
	for _, b := range f.All() {
		names = append(names, b.Name)
	}
	return names
}

func (b *Backend) route() string {
	if b.Local {
		return LocalName
	}
	return CloudName
}

// subject is what a change of it is told by.
func (b *Backend) subject() string {
	if b.Name == LocalName || b.Name == CloudName {
		return b.Name
	}
	return "model " + b.Name
}

// says is all that its use depends on.
func (b *Backend) says() string {
	s := fmt.Sprintf("%s at %s speaking %s in %s key %s", b, b.URL, b.API, Quote(b.Region), Quote(b.Key.File+b.Key.Command+b.Key.Credential))
	if b.subject() != b.Name {
		s += " route " + b.route()
	}
	if len(b.Classes) > 0 {
		s += " with " + b.classes()
	}
	if b.Price != nil {
		s += " for " + b.Price.yaml()
	}
	return s
}

// Price is what a model costs, in USD for a million tokens.
type Price struct{ Input, Output float64 }

func (p *Price) yaml() string {
	return fmt.Sprintf("{input: %s, output: %s}", decimal(p.Input), decimal(p.Output))
}

// decimal writes a number as the language reads it.
func decimal(x float64) string { return strconv.FormatFloat(x, 'f', -1, 64) }

// Cost is what a backend takes for tokens, in USD. false: nobody knows.
func (b *Backend) Cost(input, output int64) (usd float64, known bool) {
	switch {
	case b.Local:
		return 0, true
	case b.Price == nil:
		return 0, false
	}
	return (float64(input)*b.Price.Input + float64(output)*b.Price.Output) / 1e6, true
}

// Budget is the most that a sandbox's models may take in a day. 0 is no limit.
type Budget struct {
	Tokens int64
	Cost   float64 // USD
}

func (b Budget) yaml() string {
	var parts []string
	if b.Tokens != 0 {
		parts = append(parts, fmt.Sprintf("tokens: %d", b.Tokens))
	}
	if b.Cost != 0 {
		parts = append(parts, "cost: "+decimal(b.Cost))
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

func (b *Backend) classes() string {
	var list []string
	for class, r := range b.Classes {
		list = append(list, class+": "+r.String())
	}
	return strings.Join(sorted(list), ", ")
}
