package inference

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/nemoclaw/nemoclaw/histogram"
	"github.com/nemoclaw/nemoclaw/policy"
)

// An Outcome is how a request ended.
type Outcome uint8

// The outcomes.
const (
	Answered Outcome = iota
	Refused          // by the router: it was sent nowhere
	Failed           // the backend did not answer, said no, or broke off
	Aborted          // its caller went away
	outcomes
)

var outcomeWords = [...]string{"answered", "refused", "failed", "aborted"}

// String returns the outcome's word.
func (o Outcome) String() string { return outcomeWords[o] }

const routes = int(policy.RouteDeny) + 1

// Metrics count what one model did for a sandbox since its router began. Its methods may be called concurrently, and none waits.
type Metrics struct {
	requests       [routes][outcomes]atomic.Uint64
	input, output  atomic.Uint64        // tokens
	latency, first *histogram.Durations // to the end of an answer, and to its first token where it is a stream
}

// A Snapshot is what Metrics counted so far.
type Snapshot struct {
	Requests       map[policy.Route]map[Outcome]uint64 // what is 0 is left out
	Input, Output  uint64                              // tokens
	Latency, First histogram.Snapshot
}

// Snapshot reads them. Requests that end meanwhile may be in one of its numbers and not in another.
func (m *Metrics) Snapshot() Snapshot {
	s := Snapshot{Requests: map[policy.Route]map[Outcome]uint64{}, Input: m.input.Load(), Output: m.output.Load(), Latency: m.latency.Snapshot(), First: m.first.Snapshot()}
	for route := range m.requests {
		for outcome := range m.requests[route] {
			if n := m.requests[route][outcome].Load(); n > 0 {
				r := policy.Route(route)
				if s.Requests[r] == nil {
					s.Requests[r] = map[Outcome]uint64{}
				}
				s.Requests[r][Outcome(outcome)] = n
			}
		}
	}
	return s
}

// Count is how many requests ended so, by whatever route.
func (s *Snapshot) Count(o Outcome) (n uint64) {
	for _, by := range s.Requests {
		n += by[o]
	}
	return n
}

func (m *Metrics) count(route policy.Route, o Outcome) { m.requests[route][o].Add(1) }

// bounds are how long the durations of each bucket are at most, from a millisecond to 17 minutes: that of the one before, times the root
// of two, so a quantile is at most 42 % more than it was.
var bounds = func() (list []time.Duration) {
	for i := range 41 {
		list = append(list, time.Duration(float64(time.Millisecond)*math.Pow(2, float64(i)/2)))
	}
	return list
}()

func newMetrics() *Metrics {
	return &Metrics{latency: histogram.New(bounds...), first: histogram.New(bounds...)}
}
