package inference

import (
	"slices"
	"time"

	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/histogram"
	"github.com/nemoclaw/nemoclaw/policy"
)

// Models says which models there are, how they are, and what they took.
func (r *Router) Models() api.Models {
	f := r.now.Load().section
	if f == nil {
		return api.Models{Models: []api.Model{}}
	}
	settled, held := r.ledger.total()
	list := f.All()
	chosen, err := r.configured(f)
	if err != nil {
		chosen = &policy.Backend{}
	} else if !slices.ContainsFunc(list, func(b *policy.Backend) bool { return b.ID() == chosen.ID() }) {
		list = append([]*policy.Backend{chosen}, list...)
	}
	nowhere := r.nowhere.Snapshot()
	m := api.Models{
		Models: []api.Model{}, Fallbacks: f.Fallbacks, Refused: nowhere.Count(Refused), Today: shown(settled),
		Anew: time.Now().UTC().Truncate(24 * time.Hour).Add(24 * time.Hour),
	}
	if most := f.Budget.Tokens; most > 0 {
		m.Tokens = &api.Budget{Most: float64(most), Left: float64(max(most-settled.Input-settled.Output-held.Input-held.Output, 0))}
	}
	if most := f.Budget.Cost; most > 0 {
		m.Cost = &api.Budget{Most: most, Left: max(most-settled.Cost-held.Cost, 0)}
	}
	for _, b := range list {
		x := r.model(b)
		x.Chosen = b.ID() == chosen.ID()
		m.Models = append(m.Models, x)
	}
	return m
}

func (r *Router) model(b *policy.Backend) api.Model {
	u := r.upstream(b)
	s := u.Snapshot()
	x := api.Model{
		Name: b.Name, Model: b.String(), Route: policy.CloudName, Region: b.Region, Health: "unknown", Today: shown(r.ledger.taken(b)),
		Requests: map[string]map[string]uint64{}, Latency: quantiles(s.Latency), First: quantiles(s.First),
	}
	for route, by := range s.Requests {
		ended := map[string]uint64{}
		for outcome, n := range by {
			ended[outcome.String()] = n
		}
		x.Requests[route.String()] = ended
	}
	if b.Local {
		x.Route = policy.LocalName
	}
	if u.known.Load() {
		x.Health = "up"
	}
	if h := u.down.Load(); h != nil {
		x.Health, x.Reason, x.Since = "down", h.reason, &h.since
	}
	return x
}

// Measured is what one model did for the sandbox since its router began.
type Measured struct {
	Model string // PROVIDER/MODEL, with its name where there are two
	Down  bool
	Snapshot
}

// RefusedModel is what the model of Measured is called for requests that no model was asked.
const RefusedModel = "none"

// Measured returns the numbers of each model that there is now, and of no other, whatever was asked for.
func (r *Router) Measured() []Measured {
	f := r.now.Load().section
	list := f.All()
	if chosen, err := r.configured(f); f != nil && err == nil {
		list = append(list, chosen)
	}
	all := []Measured{{Model: RefusedModel, Snapshot: r.nowhere.Snapshot()}}
	seen, places := map[string]bool{}, map[*upstream]bool{}
	for _, b := range list {
		u, model := r.upstream(b), b.String()
		if places[u] {
			continue // it is chosen, or has two names
		}
		places[u] = true
		if seen[model] {
			model += " (" + b.Name + ")"
		}
		seen[model] = true
		all = append(all, Measured{Model: model, Down: u.down.Load() != nil, Snapshot: u.Snapshot()})
	}
	return all
}

func shown(t taken) api.Taken {
	return api.Taken{Requests: t.Requests, Input: t.Input, Output: t.Output, Cost: t.Cost}
}

func quantiles(h histogram.Snapshot) api.Quantiles {
	return api.Quantiles{P50: h.Quantile(0.5), P99: h.Quantile(0.99)}
}
