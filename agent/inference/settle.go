package inference

import (
	"context"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/inference/dialect"
)

const (
	usualOutput = 4096    // tokens that are held back for an answer whose request has no limit
	maxTokens   = 1 << 32 // that a backend is believed to have taken
)

// most is what a request may take.
func (x *exchange) most(rec *record) taken {
	t := taken{Requests: 1, Input: rec.in/bytesPerToken + 1}
	if x.request.Operation == dialect.Generate {
		if t.Output = int64(x.request.MaxOutput()); t.Output == 0 {
			t.Output = usualOutput
		}
	}
	return t
}

// settle counts what an exchange took: what its backend says, where it says so. What it does not say is estimated, and an answer of
// which nothing was seen took all that it might: so a caller that goes away in time spares nothing.
func (r *Router) settle(ctx context.Context, rec *record, x *exchange, l *lease, err error) {
	s, v := x.server, rec.verdict
	outcome := Answered
	switch {
	case err == nil:
	case ctx.Err() != nil:
		outcome = Aborted
	default:
		outcome = Failed
	}
	s.count(v.route, outcome)
	if outcome == Answered {
		s.latency.Observe(time.Since(x.began))
		if x.request.Stream {
			s.first.Observe(rec.first - x.began.Sub(rec.began))
		}
	}
	if l == nil {
		return
	}
	input, output := x.took(rec, err == nil)
	rec.cost += l.settle(input, output)
	s.input.Add(uint64(input))
	s.output.Add(uint64(output))
}

// took is what an exchange took, and has it in the record. whole: the answer came to its end.
func (x *exchange) took(rec *record, whole bool) (input, output int64) {
	if !x.sent || x.denied {
		return 0, 0
	}
	said := func(n int) int64 { return min(max(int64(n), 0), maxTokens) }
	input, output = said(rec.usage.Input), said(rec.usage.Output)
	if input == 0 {
		input, rec.estimated = x.may.Input, true
	}
	seen := max((x.seen+bytesPerToken-1)/bytesPerToken, x.pieces)
	switch {
	case whole && output > 0:
	case seen > 0:
		output, rec.estimated = max(output, seen), true
	case !whole:
		output, rec.estimated = max(output, x.may.Output), true
	}
	rec.usage.Input, rec.usage.Output = int(input), int(output)
	rec.usage.Cached, rec.usage.Reasoning = min(max(rec.usage.Cached, 0), int(input)), min(max(rec.usage.Reasoning, 0), int(output))
	return input, output
}
