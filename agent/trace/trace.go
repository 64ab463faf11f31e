// Package trace sends OpenTelemetry traces of what sandboxes do to a collector: one of each connection, of each request to a model, and
// of each call that waits for a person. It owns the spans, their ids, the choice of which are made, and their way to the collector.
//
// It never takes an id or a choice from inside: a traceparent that a program sends is bytes like all others, since whoever is inside
// could put its own spans between a person's. It has no prompt, no answer, no URL and no arguments in a span; what comes from inside
// (names, paths) is escaped and short. It never holds up what it traces: what the queue has no room for is lost, and counted. Nothing of
// it is kept on the disk; the audit log is what tells everything.
//
// OpenTelemetry's own SDK is not used: its exporter brings gRPC, it takes settings from the environment, and it does not say what its
// queue has lost.
package trace

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/config"
	"github.com/nemoclaw/nemoclaw/agent/otlp"
	"github.com/nemoclaw/nemoclaw/agent/sink"
)

const (
	maxQueue   = 2048         // traces that wait for the collector: some megabytes
	maxWaiting = maxQueue / 4 // of them one sandbox's: who floods the queue loses its own
)

// A Note records what becomes of the collector, for whoever runs the daemon.
type Note func(action, object, reason string)

// A Tracer makes traces and sends them. A nil one makes none. Its methods may be called from any goroutine.
type Tracer struct {
	client *sink.Client
	share  uint64 // of 1<<63, of what comes
	note   Note

	queue   chan made
	crowded chan struct{} // says that there may be a whole batch
	ended   chan struct{} // closed by Close
	end     func()
	done    chan struct{} // closed when nothing is sent any more

	pace           time.Duration // traces are sent no more often, unless there is a whole batch
	first, longest time.Duration // waits after a failure
	patience       time.Duration // a failure of so long is noted
	grace          time.Duration // for what is left at the end

	sent, full, refused atomic.Uint64 // spans

	mu       sync.Mutex
	err      error     // why nothing arrives now
	since    time.Time // that
	told     bool      // that was noted
	toldOf   time.Time // a refusal
	lostThen uint64    // of full, when nothing arrived any more
}

// A Source is a sandbox whose traces are made. A nil one has none. Its methods may be called from any goroutine.
type Source struct {
	tracer  *Tracer
	sandbox string
	waiting atomic.Int64 // traces in the queue
}

// Source returns that of a sandbox.
func (t *Tracer) Source(sandbox string) *Source {
	if t == nil {
		return nil
	}
	return &Source{tracer: t, sandbox: sandbox}
}

// made is a trace that is over. It is put together when it is sent: what it is about has other things to do.
type made struct {
	of    *Source
	spans int
	root  func() *Span
}

// Open makes a tracer, and begins to send. There is none (nil) where the configuration has no collector.
func Open(c config.Traces, note Note) (*Tracer, error) {
	t, err := newTracer(c, note)
	if t != nil {
		go t.run()
	}
	return t, err
}

// Check says what is wrong with the files that the settings name.
func Check(c config.Traces) error {
	_, err := newTracer(c, nil)
	return err
}

func newTracer(c config.Traces, note Note) (*Tracer, error) {
	if c.Endpoint == "" {
		return nil, nil
	}
	client, err := sink.Open(sink.Options{
		URL: c.Endpoint, Path: "/v1/traces", Server: c.Server, Scheme: "Bearer", Header: http.Header{"Content-Type": {otlp.ContentType}},
	})
	if err != nil {
		return nil, fmt.Errorf("traces: %w", err)
	}
	t := &Tracer{
		client: client, share: share(c.Ratio), note: note, queue: make(chan made, maxQueue), crowded: make(chan struct{}, 1), ended: make(chan struct{}), done: make(chan struct{}),
		pace: time.Second, first: time.Second, longest: time.Minute, patience: 30 * time.Second, grace: 2 * time.Second,
	}
	t.end = sync.OnceFunc(func() { close(t.ended) })
	return t, nil
}

// share is a part of 1<<63.
func share(ratio float64) uint64 {
	if ratio >= 1 {
		return 1 << 63
	}
	return uint64(math.Ldexp(max(ratio, 0), 63))
}

// Close sends what is left, for two seconds at most.
func (t *Tracer) Close() {
	if t == nil {
		return
	}
	t.end()
	<-t.done
}

// newID returns the id of a trace that is to be made. It is its choice, too, as OpenTelemetry's samplers make it: by the id's last 63
// bits, so that whoever samples further along by the same rule chooses the same.
func (of *Source) newID() (id [16]byte, chosen bool) {
	if of == nil {
		return id, false
	}
	low := rand.Uint64()
	if low>>1 >= of.tracer.share {
		return id, false
	}
	put(id[:8], rand.Uint64())
	put(id[8:], low|1) // an id of zeros is none
	return id, true
}

func newSpanID() (id [8]byte) {
	put(id[:], rand.Uint64()|1)
	return id
}

func put(to []byte, n uint64) {
	for i := range to {
		to[i] = byte(n >> (56 - 8*i))
	}
}

// over takes a trace that is over.
func (of *Source) over(m made) {
	m.of = of
	if of.waiting.Add(1) <= maxWaiting {
		select {
		case of.tracer.queue <- m:
			if len(of.tracer.queue) >= maxBatch {
				select {
				case of.tracer.crowded <- struct{}{}:
				default:
				}
			}
			return
		default:
		}
	}
	of.waiting.Add(-1)
	of.tracer.full.Add(uint64(m.spans))
}

// taken is a trace that has left the queue.
func (m made) taken() made {
	m.of.waiting.Add(-1)
	return m
}

// State is how the collector is.
type State struct {
	Sent    uint64 // spans that it has
	Full    uint64 // spans that the queue had no room for
	Refused uint64 // spans that it does not take
	Error   error  // why it gets nothing now; nil: it does
}

// State returns it. false: there is no collector.
func (t *Tracer) State() (State, bool) {
	if t == nil {
		return State{}, false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return State{t.sent.Load(), t.full.Load(), t.refused.Load(), t.err}, true
}
