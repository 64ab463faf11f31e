package inference

import (
	"fmt"
	"slices"
	"strings"

	"github.com/nemoclaw/nemoclaw/policy"
)

// chosen is the model that a request is for: the one that it names, where the policy has that name, else the sandbox's.
func (r *Router) chosen(f *policy.Inference, asked string) (*policy.Backend, error) {
	b := f.Named(asked)
	if b == nil || asked == policy.CloudName {
		var err error
		if b, err = r.configured(f); err != nil {
			return nil, err
		}
	}
	if !b.Local && !f.Admits(b) {
		return nil, refuse("%s is in no region that the policy's inference.residency (%s) admits, so nothing was sent to it", b, strings.Join(f.Residency, ", "))
	}
	return b, nil
}

// configured is the sandbox's model: the one that was set for it, else the policy's for the cloud, else the local one.
func (r *Router) configured(f *policy.Inference) (*policy.Backend, error) {
	var model string
	if r.c.Model != nil {
		model = r.c.Model()
	}
	switch named := f.Named(model); {
	case model == "" && f.Cloud != nil:
		return f.Cloud, nil
	case model == "" && f.Local != nil:
		return f.Local, nil
	case model == "":
		return nil, refuse("no model is configured for this sandbox; the person who runs it can say one: nemoclaw NAME config set model PROVIDER/MODEL, or inference.cloud in the policy")
	case named != nil:
		return named, nil
	case !strings.Contains(model, "/"):
		return nil, refuse("the model of this sandbox is %.80q, and its policy has no model of that name (any more); the person who runs it can choose another: nemoclaw NAME config set model ...", model)
	}
	return unnamed(f, model)
}

// unnamed is the backend of PROVIDER/MODEL. One whose provider the policy knows is asked where that says.
func unnamed(f *policy.Inference, model string) (*policy.Backend, error) {
	name, rest, _ := strings.Cut(model, "/")
	known := slices.Clone(f.Models)
	for _, b := range []*policy.Backend{f.Local, f.Cloud} {
		if b != nil {
			known = slices.Insert(known, 0, b)
		}
	}
	if i := slices.IndexFunc(known, func(b *policy.Backend) bool { return b.String() == model }); i >= 0 {
		return known[i], nil
	}
	if i := slices.IndexFunc(known, func(b *policy.Backend) bool { return b.Provider == name }); i >= 0 {
		other := *known[i]
		other.Name, other.Model, other.Price = "", rest, nil
		return &other, nil
	}
	b, err := policy.BackendOf(model)
	if err != nil {
		return nil, refuse("%v", err)
	}
	return b, nil
}

// candidates are the backends that may have a request which is for one of them, in the order in which they are to be asked. passed
// says of the others why not. What must stay on this host has local ones only, whatever it is for.
func (r *Router) candidates(rs *rules, v *verdict, b *policy.Backend) (list []*policy.Backend, passed []string, err error) {
	f := rs.section
	v.route, v.sticky = rs.routeTo(b, v)
	v.rule = rs.ruleFor(b, v)
	local := b.Local || v.route == policy.RouteLocal
	switch {
	case v.route == policy.RouteDeny:
		return nil, nil, refuse("the policy denies this request (%s), so it was sent nowhere; take out what is sensitive, or begin a new conversation without it", strings.TrimSuffix(v.summary()+"; "+v.rule, "; "))
	case !local || b.Local:
		list = append(list, b)
	case f.Local != nil:
		list = append(list, f.Local)
	}
	var others []*policy.Backend
	if c, err := r.configured(f); err == nil && local && c.Local {
		others = append(others, c)
	}
	for _, name := range f.Fallbacks {
		c := f.Named(name)
		if name == policy.CloudName {
			if c, err = r.chosen(f, name); err != nil {
				passed = append(passed, name+": "+err.Error())
				continue
			}
		}
		others = append(others, c)
	}
	for _, c := range others {
		if slices.ContainsFunc(list, func(b *policy.Backend) bool { return b.ID() == c.ID() }) {
			continue
		}
		switch why := r.unfit(rs, v, c); {
		case v.embeds && len(list) > 0 && list[0].Model != c.Model:
			passed = append(passed, c.String()+": another model's embeddings compare with nothing")
		case why != "":
			passed = append(passed, c.String()+": "+why)
		case c.Local || !local:
			list = append(list, c)
		}
	}
	if local {
		list = slices.DeleteFunc(list, func(b *policy.Backend) bool {
			route, _ := rs.routeTo(b, v)
			return !b.Local || route == policy.RouteDeny // a model's own classes can be milder than the section's, which are the local ones'
		})
	}
	if len(list) == 0 {
		return nil, nil, refuse("this request must stay on this host (%s), and there is no local model that may have it; the person who runs the sandbox can name one in the policy: inference: {local: {model: ollama/llama3.3:70b}}", v.summary())
	}
	return r.upFirst(list), passed, nil
}

// unfit says why a backend may not stand in for another with a request; "" where it may.
func (r *Router) unfit(rs *rules, v *verdict, b *policy.Backend) string {
	route, _ := rs.routeTo(b, v)
	switch {
	case route == policy.RouteDeny:
		return "its rules deny it this request"
	case b.Local:
		return ""
	case route == policy.RouteLocal:
		return "by its rules this request stays on this host"
	case !rs.section.Admits(b):
		return fmt.Sprintf("it is in no region that inference.residency (%s) admits", strings.Join(rs.section.Residency, ", "))
	}
	return ""
}
