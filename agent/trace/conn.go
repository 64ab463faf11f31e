package trace

import (
	"context"

	"github.com/nemoclaw/nemoclaw/dnsproxy"
	"github.com/nemoclaw/nemoclaw/policy"
)

// The attributes that are ours. The others are OpenTelemetry's (its semantic conventions).
const (
	Sandbox  = "nemoclaw.sandbox"
	Plane    = "nemoclaw.plane"
	Verdict  = "nemoclaw.verdict"
	Rule     = "nemoclaw.rule"
	Revision = "nemoclaw.revision"
	Outcome  = "nemoclaw.outcome"
	Approval = "nemoclaw.approval.id"
	Taint    = "nemoclaw.taint"
	Sent     = "nemoclaw.bytes_sent" // to whoever was asked
	Received = "nemoclaw.bytes_received"
)

// Who says which program did it. Its arguments are in no span.
func (s *Span) Who(who policy.Subject) {
	if s == nil {
		return
	}
	s.Set("process.executable.path", who.Exe)
	if who.PID != 0 {
		s.Count("process.pid", int64(who.PID))
	}
	s.Set(Taint, who.Taint)
}

// Decided says what was decided, and by what.
func (s *Span) Decided(v policy.Verdict, rule, revision string) {
	if s == nil {
		return
	}
	s.Set(Verdict, v.String())
	s.Set(Rule, rule)
	s.Set(Revision, revision)
}

// Connections are the hooks of the sandbox's proxy; nil where nothing is traced.
func (of *Source) Connections() (begin func() *dnsproxy.ConnTrace, over func(*dnsproxy.ConnTrace)) {
	if of == nil {
		return nil, nil
	}
	begin = func() *dnsproxy.ConnTrace {
		id, chosen := of.newID()
		if !chosen {
			return nil
		}
		return &dnsproxy.ConnTrace{ID: id, Span: newSpanID()}
	}
	return begin, func(c *dnsproxy.ConnTrace) {
		of.over(made{spans: 1 + len(c.Steps), root: func() *Span { return of.connection(c) }})
	}
}

// connection makes the spans of a connection that is over.
func (of *Source) connection(c *dnsproxy.ConnTrace) *Span {
	root := of.root(c.ID, &Span{id: c.Span, name: "connect " + c.To, kind: Internal, began: c.Began, ended: c.Began.Add(c.Took)}, policy.PlaneNetwork)
	if c.Decided {
		root.Decided(c.Verdict, c.Rule, c.Revision)
	}
	root.Set(Outcome, c.Outcome.String())
	root.Set("nemoclaw.consent", c.Consent)
	root.Who(c.Subject)
	root.Set("server.address", c.Host)
	root.Count("server.port", int64(c.Port))
	switch {
	case c.Decided && c.Verdict == policy.Deny:
		root.Fail("refused")
	case c.Outcome == dnsproxy.ConnFailed:
		root.Fail("failed")
	}
	asked := c.Approval()
	for i, step := range c.Steps {
		s := root.trace.add(&Span{id: newSpanID(), up: c.Span, name: step.Step.String(), kind: Internal, began: c.Began.Add(step.Began), ended: c.Began.Add(step.Ended)})
		if last := i == len(c.Steps)-1; last {
			s.Fail(root.failed)
		}
		switch step.Step {
		case dnsproxy.StepAsk:
			s.Set(Approval, asked)
		case dnsproxy.StepResolve:
			s.Set("dns.question.name", c.Host)
			s.Count("nemoclaw.addresses", int64(c.Found))
		case dnsproxy.StepDial:
			s.kind = Client
			if c.Dialled.IsValid() {
				s.Set("network.peer.address", c.Dialled.Addr().String())
				s.Count("network.peer.port", int64(c.Dialled.Port()))
			}
		case dnsproxy.StepRelay:
			s.Count(Sent, c.Sent)
			s.Count(Received, c.Received)
		}
	}
	return root
}

type askKey struct{}

// Asking returns a context for a question to a person: whoever puts it there says by which id (Asked).
func Asking(ctx context.Context, told func(id string)) context.Context {
	return context.WithValue(ctx, askKey{}, told)
}

// Asking is that for a question that s is about.
func (s *Span) Asking(ctx context.Context) context.Context {
	if s == nil {
		return ctx
	}
	return Asking(ctx, func(id string) { s.Set(Approval, id) })
}

// Asked tells who has put a question by which id it waits for its answer.
func Asked(ctx context.Context, id string) {
	if told, ok := ctx.Value(askKey{}).(func(string)); ok {
		told(id)
	}
}

// Hold begins the trace of a call that waits for a person.
func (of *Source) Hold(d policy.Decision) *Span {
	s := of.Begin("hold "+d.Action, d.Plane)
	if s == nil {
		return nil
	}
	if !d.Time.IsZero() && d.Time.Before(s.began) {
		s.began = d.Time // when the kernel held it
	}
	s.Set("nemoclaw.object", d.Object)
	s.Who(d.Subject)
	return s
}

// Answered ends it, with how it ended in a word.
func (s *Span) Answered(d policy.Decision, outcome string) {
	s.Decided(d.Verdict, d.Rule, d.Revision)
	s.Set(Outcome, outcome)
	if d.Verdict == policy.Deny {
		s.Fail("refused")
	}
	s.End()
}
