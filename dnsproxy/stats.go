package dnsproxy

import (
	"sync/atomic"
	"time"

	"github.com/nemoclaw/nemoclaw/histogram"
)

// A ConnOutcome is what became of a connection that the sandbox opened.
type ConnOutcome uint8

// The outcomes of connections.
const (
	ConnRelayed   ConnOutcome = iota // an upstream was reached
	ConnLocal                        // this process answers it
	ConnRefused                      // by the policy, a person, or for its framing
	ConnFailed                       // allowed, and no upstream was reached
	ConnFull                         // there were too many
	ConnAbandoned                    // it ended before anything was decided
	connOutcomes
)

// String returns the outcome's word.
func (o ConnOutcome) String() string {
	return [...]string{"relayed", "local", "refused", "failed", "full", "abandoned"}[o]
}

// A DNSOutcome is what a query was answered with.
type DNSOutcome uint8

// The outcomes of queries.
const (
	DNSAnswered DNSOutcome = iota // what there is, of a name that the policy lets be asked about; that may be nothing
	DNSNoName                     // there is no such name
	DNSBlocked                    // a deny rule names it
	DNSUnlisted                   // no rule lists it
	DNSLimited                    // too many names, or too many at once
	DNSFailed                     // the host's resolvers did not answer
	DNSRefused                    // malformed, or of a kind that is never answered
	DNSDropped                    // too many were waiting
	dnsOutcomes
)

// String returns the outcome's word.
func (o DNSOutcome) String() string {
	return [...]string{"answered", "no-name", "blocked", "unlisted", "limited", "failed", "refused", "dropped"}[o]
}

// stats is what a server counts. Each number has its place from the beginning: counting never waits and never allocates.
type stats struct {
	conns   [connOutcomes]atomic.Uint64
	queries [dnsOutcomes]atomic.Uint64
	setup   *histogram.Durations
}

func (s *stats) init() {
	s.setup = histogram.New(time.Millisecond, 2500*time.Microsecond, 5*time.Millisecond, 10*time.Millisecond, 25*time.Millisecond, 50*time.Millisecond,
		100*time.Millisecond, 250*time.Millisecond, 500*time.Millisecond, time.Second, 2500*time.Millisecond, 5*time.Second, 15*time.Second)
}

// answered counts a query by its answer, and returns that.
func (s *stats) answered(a *answer) *answer {
	s.queries[a.outcome].Add(1)
	return a
}

// came counts what became of the connection, once: what happens to it later is part of that.
func (c *conn) came(o ConnOutcome) {
	if !c.counted {
		c.counted = true
		c.s.stats.conns[o].Add(1)
		if c.trace != nil {
			c.trace.Outcome = o
		}
	}
}

// Stats is what a server counted since it was made.
type Stats struct {
	Conns          map[ConnOutcome]uint64
	Open           int // connections now
	Sent, Received int64
	Setup          histogram.Snapshot // from a connection's coming to its first byte's going on, without what a person took to answer
	Queries        map[DNSOutcome]uint64
}

// Stats returns them.
func (s *Server) Stats() Stats {
	n := Stats{Conns: map[ConnOutcome]uint64{}, Open: int(s.conns.Load()), Setup: s.stats.setup.Snapshot(), Queries: map[DNSOutcome]uint64{}}
	n.Sent, n.Received = s.Traffic()
	for o := range s.stats.conns {
		n.Conns[ConnOutcome(o)] = s.stats.conns[o].Load()
	}
	for o := range s.stats.queries {
		n.Queries[DNSOutcome(o)] = s.stats.queries[o].Load()
	}
	return n
}
