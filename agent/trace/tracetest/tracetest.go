// Package tracetest is a collector of traces for tests: it reads OTLP over HTTP strictly, and keeps what came.
package tracetest

import (
	"bytes"
	"cmp"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	traces "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// A Collector is a server that takes traces.
type Collector struct {
	*httptest.Server

	mu      sync.Mutex
	spans   []*traces.Span
	bytes   []byte
	posts   int
	headers http.Header
}

// New starts one, to the end of the test. answer says what it answers to what it has read; nil: that all is well.
func New(t testing.TB, answer func(http.ResponseWriter, *http.Request)) *Collector {
	c := &Collector{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // who sent it has gone
		}
		var all traces.TracesData
		err = proto.Unmarshal(body, &all)
		if err != nil || r.Method != http.MethodPost || r.URL.Path != "/v1/traces" || r.Header.Get("Content-Type") != "application/x-protobuf" {
			t.Errorf("no request for a collector: %s %s of %s: %v", r.Method, r.URL.Path, r.Header.Get("Content-Type"), err)
		}
		c.take(&all, body, r.Header)
		if answer != nil {
			answer(w, r)
		}
	}))
	t.Cleanup(c.Close)
	return c
}

func (c *Collector) take(all *traces.TracesData, body []byte, headers http.Header) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.posts++
	c.bytes = append(c.bytes, body...)
	c.headers = headers.Clone()
	for _, res := range all.ResourceSpans {
		for _, scope := range res.ScopeSpans {
			c.spans = append(c.spans, scope.Spans...)
		}
	}
}

// Spans are all that came.
func (c *Collector) Spans() []*traces.Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.spans)
}

// Posts is how many requests came.
func (c *Collector) Posts() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.posts
}

// Headers are the last request's.
func (c *Collector) Headers() http.Header {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.headers
}

// Has reports whether something is in the bytes that came.
func (c *Collector) Has(s string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return bytes.Contains(c.bytes, []byte(s))
}

// Text is an attribute as it is shown; "" where there is none.
func Text(s *traces.Span, key string) string {
	for _, a := range s.GetAttributes() {
		if a.Key == key {
			return cmp.Or(a.Value.GetStringValue(), strconv.FormatInt(a.Value.GetIntValue(), 10))
		}
	}
	return ""
}

// A Trace is a root, and what is in it in the order in which it began.
type Trace struct {
	Root  *traces.Span
	Steps []*traces.Span
}

// Find returns the last trace whose root has a name and an outcome, and checks that its steps are one after the other within it. false:
// there is none yet.
func (c *Collector) Find(t testing.TB, name, outcome string) (tr Trace, ok bool) {
	t.Helper()
	all := c.Spans()
	for _, s := range all {
		if s.Name == name && Text(s, "nemoclaw.outcome") == outcome {
			tr.Root = s
		}
	}
	if tr.Root == nil {
		return tr, false
	}
	for _, s := range all {
		if bytes.Equal(s.TraceId, tr.Root.TraceId) && s != tr.Root {
			tr.Steps = append(tr.Steps, s)
		}
	}
	slices.SortFunc(tr.Steps, func(a, b *traces.Span) int {
		return cmp.Or(cmp.Compare(a.StartTimeUnixNano, b.StartTimeUnixNano), cmp.Compare(a.EndTimeUnixNano, b.EndTimeUnixNano))
	})
	end := tr.Root.StartTimeUnixNano
	for _, s := range tr.Steps {
		if !bytes.Equal(s.ParentSpanId, tr.Root.SpanId) || s.StartTimeUnixNano < end || s.EndTimeUnixNano < s.StartTimeUnixNano || s.EndTimeUnixNano > tr.Root.EndTimeUnixNano {
			t.Errorf("%s of %s is not within its parent, after those before: %v", s.Name, name, s)
		}
		end = s.EndTimeUnixNano
	}
	if len(tr.Root.ParentSpanId) != 0 || len(tr.Root.TraceId) != 16 || len(tr.Root.SpanId) != 8 {
		t.Errorf("%s is %x of %x, below %x", name, tr.Root.SpanId, tr.Root.TraceId, tr.Root.ParentSpanId)
	}
	return tr, true
}

// Step is the one of a name; an empty span where there is none.
func (tr Trace) Step(name string) *traces.Span {
	for _, s := range tr.Steps {
		if s.Name == name {
			return s
		}
	}
	return &traces.Span{}
}

// Names are those of its steps.
func (tr Trace) Names() string {
	var list []string
	for _, s := range tr.Steps {
		list = append(list, s.Name)
	}
	return strings.Join(list, ", ")
}

// Is checks its steps, and attributes of its root.
func (tr Trace) Is(t testing.TB, steps string, attributes ...string) {
	t.Helper()
	if got := tr.Names(); got != steps {
		t.Errorf("%s has the steps %q, not %q", tr.Root.Name, got, steps)
	}
	for i := 0; i < len(attributes); i += 2 {
		if got := Text(tr.Root, attributes[i]); got != attributes[i+1] {
			t.Errorf("%s: %s is %q, not %q", tr.Root.Name, attributes[i], got, attributes[i+1])
		}
	}
}
