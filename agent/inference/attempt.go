package inference

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/inference/dialect"
	"github.com/nemoclaw/nemoclaw/policy"
)

// errKept says that what a backend may have redacted only can't be taken out whole.
var errKept = refuse("what is to be redacted could not be taken out whole")

// forward has a request answered by the model that it is for, or by those that stand in for it.
func (r *Router) forward(ctx context.Context, w http.ResponseWriter, rec *record, x *exchange, b *policy.Backend) error {
	v := rec.verdict
	list, passed, err := r.candidates(rec.rs, v, b)
	if err != nil {
		return err
	}
	r.memory.keep(v.marks, v.carried)
	route, rule := v.route, v.rule
	var failed []failure
	for n := 0; n < len(list); n++ {
		c := list[n]
		v.route, v.rule = route, rule
		err := r.attempt(ctx, w, rec, x, c)
		var begun *streamError
		if err == nil || errors.As(err, &begun) || ctx.Err() != nil {
			rec.instead = names(failed)
			return err
		}
		if errors.Is(err, errKept) && c.ID() == b.ID() { // as if it had been told to stay at once
			v.stays = true
			since(v.carried, everything, len(x.request.Messages)-1) // what was said before it has been elsewhere
			if list, passed, err = r.candidates(rec.rs, v, b); err != nil {
				return err
			}
			r.memory.keep(v.marks, v.carried)
			n, failed, route, rule = -1, nil, v.route, v.rule
			continue
		}
		failed = append(failed, failure{c, asRefusal(err)})
		if c.ID() == b.ID() && !asRefusal(err).again {
			break
		}
	}
	return together(failed, passed)
}

// failure is a backend that did not answer.
type failure struct {
	of  *policy.Backend
	why *refusal
}

func names(list []failure) (names []string) {
	for _, f := range list {
		names = append(names, f.of.String()+": "+f.why.why())
	}
	return names
}

// together is why nothing answered: what the first that was asked said, and why nothing stood in for it.
func together(failed []failure, passed []string) error {
	e := *failed[0].why
	rest := append(names(failed[1:]), passed...)
	switch {
	case !e.again: // it is the request, or the sandbox
	case len(rest) == 0:
		e.message += "; the request was sent nowhere else. The person who runs the sandbox can start it, choose another model, or name inference.fallbacks in the policy"
	default:
		e.message += "; nor could another model answer (" + strings.Join(rest, "; ") + ")"
		e.class = strings.Join(append(names(failed), passed...), "; ")
	}
	return &e
}

// attempt has one backend answer. An error that is no streamError came before the caller had any of the answer.
func (r *Router) attempt(ctx context.Context, w http.ResponseWriter, rec *record, x *exchange, b *policy.Backend) error {
	v := rec.verdict
	rec.object, rec.model, rec.tried, rec.calls = b.String(), b.String(), true, calls{}
	x.to(b, r.upstream(b))
	if !b.Local {
		route, _ := rec.rs.routeTo(b, v)
		if route >= policy.RouteLocal || !rec.rs.section.Admits(b) { // candidates has none of these
			return refuse("%s may not have this request", b)
		}
		v.route = route
		v.rule = rec.rs.ruleFor(b, v)
		if err := r.ask(ctx, rec, b); err != nil {
			return err
		}
		rec.trace.enter("redact")
		var whole bool
		if x.hidden, whole = r.redact(rec.rs, b, x.texts, v.matches); !whole {
			return errKept
		}
	}
	if x.request.Operation == dialect.CountTokens && !counts(b) {
		return estimate(w, rec, x.request)
	}
	var err error
	if x.key, err = r.key(ctx, b); err != nil {
		return err
	}
	if rec.rs.policy.Audit.Strict {
		if err := r.c.Permit(rec.sending()); err != nil {
			return refuse("the request is allowed, and could not be written down before it would have been sent, so it was not: %s", err)
		}
	}
	if r.changed(rec.rs) {
		return refuse("the policy was changed while this request waited, so it was not sent to %s; send it again", b)
	}
	var l *lease
	if x.request.Operation != dialect.CountTokens {
		x.may = x.most(rec)
		if l, err = r.ledger.reserve(b, x.may.Input, x.may.Output, rec.rs.section.Budget); err != nil {
			x.server.count(v.route, Refused)
			return err
		}
	}
	x.began, rec.first, rec.usage, rec.estimated = time.Now(), 0, dialect.Usage{}, false
	rec.trace.upstream(b, x.request.Operation)
	err = r.exchange(ctx, w, rec, x)
	r.settle(ctx, rec, x, l, err)
	rec.trace.answered(rec, err)
	return err
}

// changed reports whether the section in force is another than the one that a request was judged by: a person may take long to answer,
// and another model too.
func (r *Router) changed(rs *rules) bool {
	now := r.now.Load()
	return now != rs && (now.section == nil || now.section.YAML() != rs.section.YAML())
}

// exchange sends a request to its backend, and passes on what comes back.
func (r *Router) exchange(ctx context.Context, w http.ResponseWriter, rec *record, x *exchange) error {
	s := x.server
	resp, err := r.send(ctx, x)
	if err != nil {
		if e := asRefusal(err); e.again {
			s.failed(e.down, 0)
		}
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		x.denied = true
		if faulty(resp.StatusCode) {
			s.failed("it answers "+status(resp), retryAfter(resp))
		}
		return x.refused(resp)
	}
	if x.request.Stream {
		err = r.stream(w, rec, x, resp)
	} else {
		err = r.answer(ctx, w, rec, x, resp)
	}
	switch {
	case err == nil:
		s.up()
	case asRefusal(err).again && ctx.Err() == nil:
		s.failed("it broke off its answer", 0)
	}
	return err
}

// ask asks a person whether a backend may have a request, where that is the verdict.
func (r *Router) ask(ctx context.Context, rec *record, b *policy.Backend) error {
	v := rec.verdict
	if v.route != policy.RouteAsk {
		return nil
	}
	if r.c.Ask == nil {
		return refuse("a person must agree to this request (%s), and nobody is there to ask; it was sent nowhere", v.summary())
	}
	ctx, cancel := context.WithTimeout(ctx, max(rec.rs.policy.Hold, time.Second))
	defer cancel()
	d := rec.decision(policy.Ask, "held until a person answers: "+v.summary())
	d.Object = b.String() + " (" + strings.Join(append(slices.Sorted(maps.Keys(v.counts)), v.unseen...), ", ") + ")"
	if r.c.Ask(rec.trace.asking(ctx), d) != policy.Allow {
		return refuse("it was asked whether %s may have this request (%s), and nobody allowed it; it was sent nowhere", b, v.summary())
	}
	return nil
}
