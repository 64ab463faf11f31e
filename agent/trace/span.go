package trace

import (
	"time"

	common "go.opentelemetry.io/proto/otlp/common/v1"
	traces "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/nemoclaw/nemoclaw/agent/otlp"
	"github.com/nemoclaw/nemoclaw/agent/text"
	"github.com/nemoclaw/nemoclaw/policy"
)

const (
	maxSpans = 64  // of a trace; what would be more is not made
	maxText  = 256 // characters of a text in a span
)

// A Kind is a span's: whether it asks somebody else.
type Kind int

// The kinds.
const (
	Internal = Kind(traces.Span_SPAN_KIND_INTERNAL)
	Client   = Kind(traces.Span_SPAN_KIND_CLIENT)
)

// A Link names a span of another trace. The zero Link names none.
type Link struct {
	Trace [16]byte
	Span  [8]byte
}

// A Span is one that is being made, by one goroutine at a time. All methods of a nil one do nothing: nobody wants to know.
type Span struct {
	trace *making
	id    [8]byte
	up    [8]byte // its parent's; zeros: it is the root
	link  Link

	name         string
	kind         Kind
	began, ended time.Time
	attrs        []*common.KeyValue
	events       []*traces.Span_Event
	failed       string
}

// making is a trace that is not over.
type making struct {
	of    *Source
	id    [16]byte
	begun time.Time
	spans []*Span
}

// now is the time, which goes on evenly within a trace, whatever somebody does to the host's clock meanwhile.
func (m *making) now() time.Time { return m.begun.Add(time.Since(m.begun)) }

// Begin begins a trace with its root, unless this is none of those that are chosen.
func (of *Source) Begin(name string, plane policy.Plane) *Span {
	id, chosen := of.newID()
	if !chosen {
		return nil
	}
	return of.root(id, &Span{id: newSpanID(), name: name, kind: Internal, began: time.Now()}, plane)
}

func (of *Source) root(id [16]byte, s *Span, plane policy.Plane) *Span {
	m := &making{of: of, id: id, begun: s.began}
	m.add(s)
	s.Set(Sandbox, of.sandbox)
	s.Set(Plane, string(plane))
	return s
}

func (m *making) add(s *Span) *Span {
	if len(m.spans) >= maxSpans {
		return nil
	}
	s.trace = m
	m.spans = append(m.spans, s)
	return s
}

// Child begins a span within s.
func (s *Span) Child(name string, kind Kind) *Span {
	if s == nil {
		return nil
	}
	return s.trace.add(&Span{id: newSpanID(), up: s.id, name: name, kind: kind, began: s.trace.now()})
}

// Set gives it an attribute with a text, which may come from inside. Empty ones are left out.
func (s *Span) Set(key, value string) {
	if s != nil && value != "" {
		s.attrs = append(s.attrs, otlp.Word(key, clean(value)))
	}
}

// Count gives it an attribute with a number.
func (s *Span) Count(key string, n int64) {
	if s != nil {
		s.attrs = append(s.attrs, otlp.Number(key, n))
	}
}

// Event notes something that happens within it.
func (s *Span) Event(name string, at time.Time) {
	if s != nil {
		s.events = append(s.events, &traces.Span_Event{Name: name, TimeUnixNano: nano(at)})
	}
}

// Link says which span of another trace it belongs to.
func (s *Span) Link(l Link) {
	if s != nil {
		s.link = l
	}
}

// Fail says that it was not done, in a word of ours.
func (s *Span) Fail(word string) {
	if s != nil {
		s.failed = word
	}
}

// End ends it, and all that is within it. The end of the root has the trace sent: nothing of it may be used any more.
func (s *Span) End() {
	if s == nil || !s.ended.IsZero() {
		return
	}
	s.ended = s.trace.now()
	if s.up != ([8]byte{}) {
		return
	}
	m := s.trace
	for _, c := range m.spans {
		if c.ended.IsZero() {
			c.ended = s.ended
		}
	}
	m.of.over(made{spans: len(m.spans), root: func() *Span { return s }})
}

// clean is a text that may come from inside.
func clean(s string) string { return text.Short(s, maxText) }

func nano(t time.Time) uint64 { return uint64(max(0, t.UnixNano())) }

// sampled is the flag of a span that was chosen (W3C Trace Context).
const sampled = 1

// proto appends the spans of s's trace as OTLP has them.
func (m *making) proto(list []*traces.Span) []*traces.Span {
	for _, s := range m.spans {
		p := &traces.Span{
			TraceId: m.id[:], SpanId: s.id[:], Name: clean(s.name), Kind: traces.Span_SpanKind(s.kind), Flags: sampled,
			StartTimeUnixNano: nano(s.began), EndTimeUnixNano: nano(s.ended), Attributes: s.attrs, Events: s.events,
		}
		if s.up != ([8]byte{}) {
			p.ParentSpanId = s.up[:]
		}
		if s.link != (Link{}) {
			p.Links = []*traces.Span_Link{{TraceId: s.link.Trace[:], SpanId: s.link.Span[:]}}
		}
		if s.failed != "" {
			p.Status = &traces.Status{Code: traces.Status_STATUS_CODE_ERROR, Message: s.failed}
		}
		list = append(list, p)
	}
	return list
}
