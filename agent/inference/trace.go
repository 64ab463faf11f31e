package inference

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/nemoclaw/nemoclaw/agent/inference/dialect"
	"github.com/nemoclaw/nemoclaw/agent/trace"
	"github.com/nemoclaw/nemoclaw/policy"
)

// traced is the trace of a request. It has no text of the request's or of an answer's, and no address. Where nobody wants it all of it
// is nil.
type traced struct {
	root *trace.Span
	step *trace.Span // that goes on
}

// begin begins the trace of a request that came on a connection with a trace of its own, maybe.
func (r *Router) begin(ctx context.Context) traced {
	root := r.c.Traces.Begin("request", policy.PlaneInference)
	if from, ok := ctx.Value(linkKey{}).(trace.Link); ok {
		root.Link(from)
	}
	return traced{root: root}
}

// enter begins a step, and ends the one before.
func (t *traced) enter(name string) {
	t.step.End()
	t.step = t.root.Child(name, trace.Internal)
}

// classified says what was found, by its classes.
func (t *traced) classified(v *verdict) {
	if t.step != nil && v != nil {
		t.step.Set("nemoclaw.classes", strings.Join(slices.Sorted(maps.Keys(v.counts)), ", "))
	}
}

// asking begins the step in which a person is asked with the context that it returns.
func (t *traced) asking(ctx context.Context) context.Context {
	t.enter("ask")
	return t.step.Asking(ctx)
}

// operations are those of a model, in the words of OpenTelemetry's conventions for generative AI.
var operations = map[dialect.Operation]string{dialect.Generate: "chat", dialect.Embed: "embeddings", dialect.CountTokens: "count_tokens"}

// upstream begins the step in which a backend is asked.
func (t *traced) upstream(b *policy.Backend, op dialect.Operation) {
	if t.root == nil {
		return
	}
	t.step.End()
	t.step = t.root.Child(operations[op]+" "+b.Model, trace.Client)
	t.step.Set("gen_ai.operation.name", operations[op])
	t.step.Set("gen_ai.provider.name", b.Provider)
	t.step.Set("gen_ai.request.model", b.Model)
}

// answered ends it.
func (t *traced) answered(rec *record, err error) {
	if t.step == nil {
		return
	}
	t.step.Set("nemoclaw.route", rec.verdict.route.String())
	t.step.Count("gen_ai.usage.input_tokens", int64(rec.usage.Input))
	t.step.Count("gen_ai.usage.output_tokens", int64(rec.usage.Output))
	if rec.first > 0 {
		t.step.Event("first byte", rec.began.Add(rec.first))
	}
	if err != nil {
		t.step.Fail(whyNot(err))
	}
	t.step.End()
	t.step = nil
}

// over ends the trace. d is the request's record.
func (t *traced) over(rec *record, d policy.Decision, err error) {
	if t.root == nil {
		return
	}
	t.root.Decided(d.Verdict, d.Rule, d.Revision)
	t.root.Who(d.Subject)
	t.root.Set("nemoclaw.request.id", rec.id)
	t.root.Set("gen_ai.request.model", rec.asked)
	t.root.Set("nemoclaw.model", rec.model)
	if rec.verdict != nil {
		t.root.Set("nemoclaw.route", rec.verdict.route.String())
	}
	outcome := "answered"
	if err != nil {
		outcome = whyNot(err)
		t.step.Fail(outcome)
		t.root.Fail(outcome)
	}
	t.root.Set(trace.Outcome, outcome)
	t.root.Count(trace.Sent, rec.in)
	t.root.Count(trace.Received, rec.out)
	t.root.End()
}

// whyNot is a word for why a request was not answered: what a server or a caller has said stays in the record.
func whyNot(err error) string {
	var begun *streamError
	switch {
	case errors.As(err, &begun):
		return "broken off"
	case asRefusal(err).again:
		return "failed"
	}
	return "refused"
}
