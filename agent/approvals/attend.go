package approvals

import (
	"context"
	"errors"
	"time"

	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

// A Reply is what the person at a prompt said to a question.
type Reply uint8

// The replies. The zero value denies.
const (
	Deny    Reply = iota // this time; the same question may be asked again
	DenyRun              // and whenever it is asked again in this run
	DenyAll              // and every other question of this run
	Once                 // what waits now
	ForRun               // and whenever it is asked again in this run
	Always               // as ForRun; the person was shown what to add to the policy
)

// answers are the replies as the queue takes them. A prompt shows the risks with the question, so its answer is confirmed.
var answers = map[Reply]api.NewAnswer{
	Deny:    {Verdict: "deny", Scope: api.ScopeOnce},
	DenyRun: {Verdict: "deny", Scope: api.ScopeSession},
	DenyAll: {Verdict: "deny", Scope: api.ScopeOnce},
	Once:    {Verdict: "allow", Scope: api.ScopeOnce, Confirm: true},
	ForRun:  {Verdict: "allow", Scope: api.ScopeSession, Confirm: true},
	Always:  {Verdict: "allow", Scope: api.ScopeSession, Confirm: true},
}

// A Question is one attempt that a person is asked about, and how many others there are.
type Question struct {
	policy.Decision
	Risks []api.Risk
	Until time.Time // when it is denied without an answer; zero: it has been already
	More  int       // other questions that wait
}

// ErrNoAnswer is what a Prompter returns when the question was withdrawn or can't be shown.
var ErrNoAnswer = errors.New("no answer")

// A Prompter shows questions to a person, one at a time.
type Prompter interface {
	// Prompt shows q and returns the reply to it. It must return soon after ctx ends: nothing waits for the reply any more
	// then. Any error denies.
	Prompt(ctx context.Context, q Question) (Reply, error)
}

// Attend puts the questions of the desk to one person, one at a time, until ctx ends.
func (k *Desk) Attend(ctx context.Context, who Answerer, p Prompter) {
	w := k.q.Watch(k.c.Sandbox)
	defer w.Close()
	for {
		r, q := k.next()
		if r == nil {
			if _, err := w.Next(ctx); err != nil {
				return
			}
			continue
		}
		reply, err := k.prompt(ctx, w, r, p, q)
		if err != nil {
			k.unanswered(r)
			continue
		}
		if _, err := k.answer(ctx, who, r, answers[reply]); err != nil {
			k.unanswered(r)
		}
		if reply == DenyAll {
			k.DenyRest()
		}
	}
}

// next is the oldest question, and how it is shown; nil when there is none.
func (k *Desk) next() (oldest *request, q Question) {
	k.mu.Lock()
	defer k.mu.Unlock()
	waiting := 0
	for _, r := range k.requests {
		if !r.askable() {
			continue
		}
		waiting++
		if oldest == nil || r.first.Before(oldest.first) {
			oldest = r
		}
	}
	if oldest == nil {
		return nil, q
	}
	oldest.prompted = oldest.count
	return oldest, Question{Decision: oldest.d, Risks: oldest.described.Risks, Until: oldest.until, More: waiting - 1}
}

// askable reports whether the person at a prompt is to be asked: something waits, or could not wait and was not asked about yet.
func (r *request) askable() bool {
	return r.held > 0 || r.d.Verdict == policy.Ask && r.count > r.prompted
}

// prompt asks about r, as long as there is something to ask.
func (k *Desk) prompt(ctx context.Context, w *Watcher, r *request, p Prompter, q Question) (Reply, error) {
	ctx, cancel := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		defer cancel()
		for {
			k.mu.Lock()
			over := !r.open() || r.held == 0 && !q.Until.IsZero()
			k.mu.Unlock()
			if over {
				return
			}
			if _, err := w.Next(ctx); err != nil {
				return
			}
		}
	}()
	reply, err := p.Prompt(ctx, q)
	cancel()
	<-watched
	return reply, err
}

// unanswered denies what still waits for an answer that can't be had.
func (k *Desk) unanswered(r *request) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if r.open() && !r.answering {
		k.end(r, api.Rejected, "it could not be asked about")
	}
}
