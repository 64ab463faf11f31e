package trace

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	common "go.opentelemetry.io/proto/otlp/common/v1"
	traces "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/nemoclaw/nemoclaw/agent/otlp"
	"github.com/nemoclaw/nemoclaw/agent/text"
)

const (
	maxBatch  = 256       // traces of a request
	tellEvery = time.Hour // refusals are noted no more often
)

// run sends what comes, and at the end what is left.
func (t *Tracer) run() {
	defer close(t.done)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		defer cancel()
		<-t.ended
		select {
		case <-time.After(t.grace):
		case <-t.done:
		}
	}()
	for ctx.Err() == nil {
		batch := t.gather()
		if len(batch) == 0 {
			return
		}
		t.deliver(ctx, batch)
	}
}

// gather waits for a trace, and then a while or until there is a whole batch. It returns none when there is none left at the end.
//
// It does not take them one by one as they come: each would wake a thread, which costs more than the trace.
func (t *Tracer) gather() (batch []made) {
	select {
	case m := <-t.queue:
		batch = append(batch, m.taken())
	case <-t.ended:
	}
	if len(t.queue) < maxBatch {
		select {
		case <-t.crowded:
		case <-time.After(t.pace):
		case <-t.ended:
		}
	}
	for len(batch) < maxBatch {
		select {
		case m := <-t.queue:
			batch = append(batch, m.taken())
		default:
			return batch
		}
	}
	return batch
}

// deliver sends traces until the collector has answered for good, or the end is there.
func (t *Tracer) deliver(ctx context.Context, batch []made) {
	spans := uint64(0)
	var list []*traces.Span
	for _, m := range batch {
		list = m.root().trace.proto(list)
		spans += uint64(m.spans)
	}
	scope := &common.InstrumentationScope{Name: "nemoclaw"}
	body, err := proto.Marshal(&traces.TracesData{ResourceSpans: []*traces.ResourceSpans{{Resource: otlp.Resource(), ScopeSpans: []*traces.ScopeSpans{{Scope: scope, Spans: list}}}}})
	if err != nil {
		t.refuse(spans, err.Error())
		return
	}
	for wait := t.first; ; wait = min(2*wait, t.longest) {
		err := t.post(ctx, body, spans)
		var l *later
		if !errors.As(err, &l) {
			return
		}
		t.failed(err)
		select {
		case <-time.After(max(l.after, wait/2+rand.N(wait))): // who failed together does not come back together
		case <-t.ended:
			t.full.Add(spans)
			return
		}
	}
}

// later is an error that goes by, maybe.
type later struct {
	error
	after time.Duration // not before
}

// post sends a request once. An error says that it may be sent again.
func (t *Tracer) post(ctx context.Context, body []byte, spans uint64) error {
	a, err := t.client.Post(ctx, body)
	if err != nil {
		return &later{err, 0}
	}
	switch a.Status {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout: // OTLP's list
		return &later{errors.New(a.Reason()), a.RetryAfter(time.Now())}
	}
	if a.Status/100 != 2 {
		t.refuse(spans, a.Reason())
		return nil
	}
	refused, reason, ok := otlp.Partial(a.Body)
	if !ok {
		t.refuse(spans, t.client.Host()+" answered with something that is no collector's; is it one, and is the path right?")
		return nil
	}
	lost := min(uint64(max(refused, 0)), spans)
	t.sent.Add(spans - lost)
	t.arrived()
	if lost > 0 {
		t.refuse(lost, t.client.Host()+" does not take all: "+text.Short(a.Hide(reason), 300))
	}
	return nil
}

// failed keeps why nothing arrives, and notes it when it has lasted.
func (t *Tracer) failed(err error) {
	t.mu.Lock()
	if t.err == nil {
		t.since, t.lostThen = time.Now(), t.full.Load()
	}
	t.err = err
	tell := !t.told && time.Since(t.since) >= t.patience
	t.told = t.told || tell
	t.mu.Unlock()
	if tell {
		t.note("traces", t.client.Host(), "traces don't arrive; what there is no room for is lost: "+text.Short(err.Error(), 500))
	}
}

// arrived keeps that something arrives.
func (t *Tracer) arrived() {
	t.mu.Lock()
	told, since, lost := t.told, t.since, t.full.Load()-t.lostThen
	t.err, t.told = nil, false
	t.mu.Unlock()
	if told {
		t.note("traces", t.client.Host(), fmt.Sprintf("traces arrive again, after %s; %d spans were lost", time.Since(since).Round(time.Second), lost))
	}
}

// refuse counts spans that the collector does not take. They are not sent again.
func (t *Tracer) refuse(spans uint64, reason string) {
	t.refused.Add(spans)
	t.mu.Lock()
	tell := time.Since(t.toldOf) >= tellEvery
	if tell {
		t.toldOf = time.Now()
	}
	t.mu.Unlock()
	if tell {
		t.note("traces", t.client.Host(), fmt.Sprintf("%d spans were refused, and are not sent again: %s", spans, reason))
	}
}
