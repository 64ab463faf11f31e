// Package inference is the privacy router: it answers the APIs of model servers at one name inside a sandbox, and decides for each
// request which model serves it, by what the request carries.
//
// What it can't judge never leaves this host: a text that the classifier fails on, a body that is too large or that it does not
// know, a model that does not answer. Such a request is refused, in the caller's dialect and with status 400, which no client
// takes for a reason to try again. It never lets a key into the sandbox, an answer, an error or a record, passes nothing on that
// a caller said of its own key, and writes no matched text down, unless the policy says so.
package inference

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"hash/maphash"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/nemoclaw/nemoclaw/agent/inference/classify"
	"github.com/nemoclaw/nemoclaw/agent/trace"
	"github.com/nemoclaw/nemoclaw/policy"
)

const (
	maxBody   = 16 << 20        // of a request
	maxBodies = 64 << 20        // of all requests of a sandbox that are served at once
	maxValues = 1 << 19         // of the JSON of all requests of a sandbox that are served at once
	maxAnswer = 32 << 20        // that is no stream
	maxSmall  = 256 << 10       // of it that is read without room for more
	maxWhole  = 128 << 20       // of all answers of a sandbox that are read at once, beside these
	maxFound  = 4 << 20         // values of the JSON of all answers of a sandbox that are read at once: embeddings have many
	bodyTime  = 2 * time.Minute // for a request to be complete
	headTime  = time.Minute     // for its head, and for TLS before it: fifty programs that begin at once load their roots in the middle of it
)

// Source is what the router of a sandbox is given from outside the policy.
type Source struct {
	AuthorityFile string                                // where the certificate authority is kept; "": nowhere
	LedgerFile    string                                // where it is kept what the models took today; "": nowhere
	Model         func() string                         // PROVIDER/MODEL to use instead of the policy's cloud model; nil or "": the policy's
	Key           func(*policy.Backend) (string, error) // of a backend for which the policy names none; nil or "": there is none
}

// Config is what a Router is made of. Policy and Record are needed.
type Config struct {
	Source
	Policy    *policy.Compiled
	Authority *Authority // nil: there is no https
	Record    func(policy.Decision)
	Permit    func(policy.Decision) error // is Record for a request that is about to be sent, where the policy is strict
	Traces    *trace.Source               // nil: nothing is traced
	// Ask answers what the policy asks about; nil: nobody is there.
	Ask func(ctx context.Context, d policy.Decision) policy.Verdict
}

// A Router serves one sandbox. Its methods may be called concurrently.
type Router struct {
	c       Config
	now     atomic.Pointer[rules]
	server  *http.Server
	conns   *queue
	tls     *tls.Config
	client  *http.Client
	memory  memory
	returns ring         // of tool results that have a record
	seed    maphash.Seed // of their marks

	upstreams sync.Map // policy.Backend.ID() to *upstream
	nowhere   *Metrics // of what no backend was asked
	ledger    *ledger
	life      context.Context    // of the router
	end       context.CancelFunc // of life

	began  time.Time
	bodies *semaphore.Weighted // bytes
	values *semaphore.Weighted // of requests; who waits for them has room for its body
	wholes *semaphore.Weighted // bytes of answers that are no streams
	found  *semaphore.Weighted // values of these; who waits for them has room for their bytes
	secret [32]byte            // of placeholders
}

// rules are a policy, made ready.
type rules struct {
	policy     *policy.Compiled
	section    *policy.Inference // nil: nothing is answered
	classifier *classify.Classifier
}

// New makes a router and begins to serve what Serve gives it.
func New(c Config) (*Router, error) {
	r := &Router{nowhere: newMetrics(), c: c, conns: newQueue(), client: newClient(), bodies: semaphore.NewWeighted(maxBodies), values: semaphore.NewWeighted(maxValues), wholes: semaphore.NewWeighted(maxWhole), found: semaphore.NewWeighted(maxFound), began: time.Now().UTC().Truncate(time.Second), seed: maphash.MakeSeed()}
	r.life, r.end = context.WithCancel(context.Background())
	newSecret(&r.secret)
	if c.Authority != nil {
		leaf, err := c.Authority.leaf()
		if err != nil {
			return nil, fmt.Errorf("making the certificate of %s: %w", policy.InferenceName, err)
		}
		r.tls = &tls.Config{Certificates: []tls.Certificate{leaf}, NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS12}
	}
	apply, err := r.Prepare(c.Policy)
	if err != nil {
		return nil, err
	}
	if r.ledger, err = openLedger(c.LedgerFile); err != nil {
		return nil, err
	}
	apply()
	r.server = &http.Server{
		Handler: r, ReadHeaderTimeout: headTime, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: silent, // what it would say comes from inside
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if t, ok := c.(*tls.Conn); ok {
				c = t.NetConn()
			}
			if s, ok := c.(*served); ok {
				ctx = context.WithValue(ctx, callerKey{}, s.who)
				if s.from != (trace.Link{}) {
					ctx = context.WithValue(ctx, linkKey{}, s.from)
				}
			}
			return ctx
		},
	}
	go func() { _ = r.server.Serve(r.conns) }() // ends with Close
	return r, nil
}

// Prepare makes another policy's section ready. It is in force once apply is called, for all that has not been sent on yet.
func (r *Router) Prepare(p *policy.Compiled) (apply func(), err error) {
	next, err := prepare(p)
	return func() { r.now.Store(next) }, err
}

// prepare makes a policy ready.
func prepare(p *policy.Compiled) (*rules, error) {
	next := &rules{policy: p, section: p.Inference}
	var err error
	if next.classifier, err = classify.New(Rules(p.Inference)); err != nil {
		return nil, fmt.Errorf("the policy's inference.custom: %w", err)
	}
	return next, nil
}

// Rules are what a policy adds to what is recognised. s may be nil.
func Rules(s *policy.Inference) (custom classify.Rules) {
	if s == nil {
		return custom
	}
	for _, c := range s.Custom {
		if c.Pattern != "" {
			custom.Patterns = append(custom.Patterns, classify.Pattern{Name: c.Name, Class: classify.Class(c.Name), Regexp: c.Pattern})
		}
		if len(c.Words) > 0 {
			custom.Dictionaries = append(custom.Dictionaries, classify.Dictionary{Name: c.Name, Class: classify.Class(c.Name), Words: c.Words})
		}
	}
	return custom
}

// Serve takes a connection over that somebody inside made to the router's name. from is its own span, where it has one.
func (r *Router) Serve(c net.Conn, port uint16, who policy.Subject, from trace.Link) {
	var conn net.Conn = &served{c, who, from}
	if port == 443 {
		if r.tls == nil {
			c.Close()
			return
		}
		conn = tls.Server(conn, r.tls)
	}
	r.conns.put(conn)
}

// Close ends all that is going on.
func (r *Router) Close() error {
	r.end()
	r.client.CloseIdleConnections()
	err := r.server.Close()
	r.ledger.close()
	return err
}

// served is a connection from inside, and who made it.
type served struct {
	net.Conn
	who  policy.Subject
	from trace.Link
}

type (
	callerKey struct{}
	linkKey   struct{}
)

// queue is a listener whose connections somebody else accepts.
type queue struct {
	conns chan net.Conn
	ended chan struct{}
	end   sync.Once
}

func newQueue() *queue { return &queue{conns: make(chan net.Conn), ended: make(chan struct{})} }

func (q *queue) put(c net.Conn) {
	select {
	case q.conns <- c:
	case <-q.ended:
		c.Close()
	}
}

// Accept is net.Listener's.
func (q *queue) Accept() (net.Conn, error) {
	select {
	case c := <-q.conns:
		return c, nil
	case <-q.ended:
		return nil, net.ErrClosed
	}
}

// Close is net.Listener's. The server calls it.
func (q *queue) Close() error {
	q.end.Do(func() { close(q.ended) })
	return nil
}

// Addr is net.Listener's.
func (q *queue) Addr() net.Addr { return &net.UnixAddr{Name: policy.InferenceName, Net: "unix"} }

// refusal is why a request is not served, as its caller is told.
type refusal struct {
	status  int // 0: 400
	message string
	class   string // for the record, where the message has what a backend said, which may be the prompt
	again   bool   // the backend is at fault: another may be asked
	down    string // why it can't be reached
}

// why is the refusal as it is written down.
func (e *refusal) why() string {
	if e.class != "" {
		return e.class
	}
	return e.message
}

func (e *refusal) Error() string { return e.message }

func refuse(format string, args ...any) error {
	return &refusal{message: fmt.Sprintf(format, args...)}
}

// asRefusal makes any error one.
func asRefusal(err error) *refusal {
	var r *refusal
	if errors.As(err, &r) {
		return r
	}
	return &refusal{message: err.Error()}
}
