package approvals

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/approvals/offer"
	"github.com/nemoclaw/nemoclaw/agent/text"
	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

// An Answerer is who answers, in words for the record: "root (uid 0, pts/3)".
type Answerer string

// maxFor bounds an answer for a while: longer is a rule.
const maxFor = 366 * 24 * time.Hour

// maxBy bounds what a caller says that it answers with.
const maxBy = 64

// past is a verdict as what somebody did.
func past(v policy.Verdict) string {
	if v == policy.Allow {
		return "allowed"
	}
	return "denied"
}

// decision is a NewAnswer that makes sense.
type decision struct {
	api.NewAnswer
	attempt  policy.Decision // that is answered, as it was shown: a stop of the sandbox changes the request's
	gate     Gate            // of the sandbox's life in which it was answered
	verdict  policy.Verdict
	offer    offer.Offer
	duration time.Duration
	rule     *policy.RuleSpec // nil: it is a grant, or for what waits alone
}

// Answer carries out a person's answer to a request. What waits goes on when everything that the answer says is in force.
func (q *Queue) Answer(ctx context.Context, who Answerer, id string, a api.NewAnswer) (api.AnswerResult, error) {
	r, err := q.find(id)
	if err != nil {
		return api.AnswerResult{}, err
	}
	return r.desk.answer(ctx, who, r, a)
}

func (k *Desk) answer(ctx context.Context, who Answerer, r *request, a api.NewAnswer) (res api.AnswerResult, err error) {
	k.mu.Lock()
	d, err := k.decide(r, a)
	if err != nil {
		k.mu.Unlock()
		return res, err
	}
	waits, since := r.held > 0, r.first
	if waits {
		since = r.since // nobody waits for what was refused before
	}
	if r.answering = !a.DryRun; a.DryRun {
		res.Request = r.view()
	}
	k.mu.Unlock()
	if d.By != "" {
		by := text.Short(d.By, maxBy)
		if strings.ContainsAny(by, `(),"`) { // it is the caller's own word, and reads as no account
			by = `"` + strings.ReplaceAll(by, `"`, "'") + `"`
		}
		who = Answerer(fmt.Sprintf("%s, by %s", who, by))
	}
	now := time.Now()
	g := grantOf(d, who, now, waits)
	if a.DryRun {
		if d.rule != nil {
			return k.byRule(ctx, who, d, res)
		}
		if g != nil {
			v := g.view(k.c.Sandbox)
			res.Grant = &v
		}
		return res, nil
	}
	waited := now.Sub(since)
	record := func() error {
		return k.permit(d.attempt, "answer", d.verdict, fmt.Sprintf("%s %s it (%s) after %s: %s", who, past(d.verdict), d.lasting(), waited.Round(time.Millisecond), d.offer.Text))
	}
	switch {
	case d.rule != nil:
		if err = record(); err != nil {
			break
		}
		if res, err = k.byRule(ctx, who, d, res); err != nil {
			k.record(d.attempt, "answer", policy.Deny, "the answer could not be put into force: "+err.Error())
		}
	case g != nil:
		// Before anything can go on because of it.
		if err = record(); err != nil {
			break
		}
		if err = k.enter(*g, d.gate); err != nil {
			k.record(d.attempt, "answer", policy.Deny, "the answer could not be put into force: "+err.Error())
		}
		v := g.view(k.c.Sandbox)
		res.Grant = &v
	default:
		err = record()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	r.answering = false
	if err != nil {
		res = api.AnswerResult{}
		if errors.Is(err, ErrNoGate) {
			err = &api.Error{Code: api.Conflict, Message: err.Error() + ": answer with scope always, which makes it a rule"}
		}
		return res, err
	}
	if waits && r.open() && r.held == 0 && d.verdict == policy.Allow && d.Scope == api.ScopeOnce {
		k.record(r.d, "answer", policy.Deny, "the answer came when nothing waited any more")
		return api.AnswerResult{}, &api.Error{Code: api.Conflict, Message: "what waited for the answer was denied meanwhile: nobody had answered in time; answer again, for the next attempt"}
	}
	if !r.open() { // the sandbox was stopped meanwhile
		res.Request = r.view()
		return res, nil
	}
	r.answer = &api.Answered{Verdict: d.verdict.String(), Scope: d.Scope, Offer: d.offer.ID, Who: string(who), When: now.UTC(), Waited: waited}
	if d.duration > 0 {
		until := now.Add(d.duration).UTC()
		r.answer.Until = &until
	}
	r.verdict = d.verdict
	state := api.Rejected
	if d.verdict == policy.Allow {
		state = api.Approved
	}
	if g != nil && g.Once() && r.held > 0 { // what came to wait meanwhile was the one attempt
		if in := k.grants[keyOf(g.Decision)]; in != nil && in.ID == g.ID {
			k.spend(in)
		}
	}
	k.end(r, state, fmt.Sprintf("%s %s it at %s", who, past(d.verdict), now.Format(time.TimeOnly)))
	res.Request = r.view()
	return res, nil
}

// lasting says how long an answer holds.
func (d decision) lasting() string {
	if d.Scope == api.ScopeFor {
		return "for " + d.For
	}
	return string(d.Scope)
}

// byRule makes an answer a rule of the policy.
func (k *Desk) byRule(ctx context.Context, who Answerer, d decision, res api.AnswerResult) (api.AnswerResult, error) {
	var instead *policy.RuleSpec
	if d.verdict == policy.Allow {
		instead = d.offer.Instead
	}
	p, err := k.c.Rule(ctx, who, d.attempt, *d.rule, instead, d.NewAnswer)
	res.Policy = &p
	return res, err
}

// grantOf is the grant that an answer makes; nil when it makes none.
func grantOf(d decision, who Answerer, now time.Time, waits bool) *Grant {
	if d.rule != nil || d.Scope == api.ScopeOnce && (waits || d.verdict == policy.Deny) {
		return nil
	}
	g := &Grant{ID: newID(), Decision: d.attempt, Decided: d.verdict, Scope: d.Scope, Who: string(who), When: now}
	switch d.Scope {
	case api.ScopeOnce:
		g.Until = now.Add(onceTime)
	case api.ScopeFor:
		g.Until = now.Add(d.duration)
	}
	return g
}

// decide reads an answer. The caller holds mu.
func (k *Desk) decide(r *request, a api.NewAnswer) (d decision, err error) {
	bad := func(code api.Code, format string, args ...any) (decision, error) {
		return d, &api.Error{Code: code, Message: fmt.Sprintf(format, args...)}
	}
	switch {
	case !r.open():
		return bad(api.Conflict, "request %s needs no answer any more", r.id)
	case r.answering:
		return bad(api.Conflict, "somebody else's answer to request %s is being carried out", r.id)
	}
	d.NewAnswer, d.attempt, d.gate = a, r.d, k.gate
	switch a.Verdict {
	case "allow":
		d.verdict = policy.Allow
	case "deny":
	default:
		return bad(api.Invalid, "the verdict %.40q: want allow or deny", a.Verdict)
	}
	if d.Scope == "" {
		d.Scope = api.ScopeOnce
	}
	if d.Offer == "" {
		d.Offer = offer.This
	}
	at := slices.IndexFunc(r.described.Offers, func(o offer.Offer) bool { return o.ID == d.Offer })
	if at < 0 {
		return bad(api.Invalid, "the offer %.40q: request %s has %s", d.Offer, r.id, offered(r.described.Offers))
	}
	d.offer = r.described.Offers[at]
	// To deny what waits, or to have it off the list, needs nothing that could be in force.
	if !slices.Contains(d.offer.Scopes, d.Scope) && !(d.verdict == policy.Deny && d.Scope == api.ScopeOnce) {
		return bad(api.Invalid, "the scope %.40q: %s (%s) can be answered with %s", d.Scope, d.offer.ID, d.offer.Text, scopes(d.offer.Scopes))
	}
	if d.Scope == api.ScopeFor {
		if d.duration, err = time.ParseDuration(a.For); err != nil || d.duration < time.Second || d.duration > maxFor {
			return bad(api.Invalid, "for %.40q: want a duration such as 30m or 8h, of a second to a year", a.For)
		}
	} else if a.For != "" {
		return bad(api.Invalid, "for %.40q: this goes with the scope for", a.For)
	}
	if d.Scope == api.ScopeAlways || d.offer.ID != offer.This && d.Scope != api.ScopeOnce {
		d.rule = d.offer.Allow
		if d.verdict == policy.Deny {
			d.rule = d.offer.Deny
		}
		if d.rule == nil || k.c.Rule == nil {
			return bad(api.Invalid, "no rule of a policy can say %s (%s) to %s", past(d.verdict), d.offer.Text, text.Short(r.d.Object, 200))
		}
		rule := *d.rule
		if d.Scope == api.ScopeFor {
			rule.Expires = a.For
		}
		d.rule = &rule
	}
	if d.verdict == policy.Allow && !a.Confirm && !a.DryRun {
		for _, risk := range r.described.Risks {
			if risk.Dangerous {
				return bad(api.NeedsConfirm, "%s; it is allowed when the answer is confirmed", risk.Text)
			}
		}
	}
	return d, nil
}

func offered(list []offer.Offer) string {
	words := make([]string, len(list))
	for i, o := range list {
		words[i] = o.ID
	}
	return join(words)
}

func scopes(list []api.Scope) string {
	words := make([]string, len(list))
	for i, s := range list {
		words[i] = string(s)
	}
	return join(words)
}

func join(words []string) string {
	switch n := len(words); n {
	case 0:
		return "nothing"
	case 1:
		return words[0]
	default:
		s := words[0]
		for _, w := range words[1 : n-1] {
			s += ", " + w
		}
		return s + " or " + words[n-1]
	}
}

// record writes down what became of an attempt.
func (k *Desk) record(d policy.Decision, action string, v policy.Verdict, reason string) {
	k.c.Record(became(d, action, v, reason))
}

// permit is record for what may let the attempt go on.
func (k *Desk) permit(d policy.Decision, action string, v policy.Verdict, reason string) error {
	d = became(d, action, v, reason)
	if v != policy.Allow || k.c.Permit == nil {
		k.c.Record(d)
		return nil
	}
	if err := k.c.Permit(d); err != nil {
		return fmt.Errorf("the answer could not be written down, so nothing goes on because of it: %w", err)
	}
	return nil
}

func became(d policy.Decision, action string, v policy.Verdict, reason string) policy.Decision {
	d.Time, d.Count = time.Time{}, 0
	d.Asked = string(d.Plane) + " " + d.Action
	d.Plane, d.Action, d.Verdict, d.Reason = policy.PlaneSystem, action, v, reason
	return d
}
