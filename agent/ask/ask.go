// Package ask decides what happens to an operation that a policy's `ask` rule holds: it brings equal questions together,
// puts them to one person one at a time, and remembers what was answered for the run. It owns no screen (a Prompter
// does) and changes no policy: an answer lasts at most as long as the run.
package ask

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/nemoclaw/nemoclaw/policy"
)

// An Answer is what a person said to a question.
type Answer uint8

// The answers. The zero value denies.
const (
	Deny    Answer = iota // this time; the same question may be asked again
	DenyRun               // and whenever it is asked again in this run
	DenyAll               // and every other question of this run
	Once                  // what waits now
	ForRun                // and whenever it is asked again in this run
	Always                // as ForRun; the person was shown what to add to the policy
)

// Verdict is what an answer means for the operations that wait.
func (a Answer) Verdict() policy.Verdict {
	if a >= Once {
		return policy.Allow
	}
	return policy.Deny
}

// reasons are what the record of an answer says.
var reasons = map[Answer]string{
	Deny:    "the person at the terminal denied it",
	DenyRun: "the person at the terminal denied it for this run",
	DenyAll: "the person at the terminal denied it, and every further question of this run",
	Once:    "the person at the terminal allowed it once",
	ForRun:  "the person at the terminal allowed it for this run",
	Always:  "the person at the terminal allowed it for this run, and was shown the rule that allows it always",
}

// A Question is one operation that waits, and how many others do.
type Question struct {
	policy.Decision
	Until time.Time // when it is denied without an answer; zero: never
	More  int       // other questions that wait
}

// ErrNoAnswer is what a Prompter returns when the question was withdrawn or can't be shown.
var ErrNoAnswer = errors.New("no answer")

// A Prompter shows questions to a person, one at a time.
type Prompter interface {
	// Prompt shows q and returns the answer to it. It must return soon after ctx ends: nothing waits for the answer
	// any more then. Any error denies.
	Prompt(ctx context.Context, q Question) (Answer, error)
}

// maxWaiting bounds the different questions that wait: a program that asks for everything only blocks itself.
const maxWaiting = 64

// A Desk takes questions from the planes. Its methods may be called from any goroutine.
type Desk struct {
	prompter Prompter
	record   func(policy.Decision)
	remember func(policy.Decision, policy.Verdict)

	mu       sync.Mutex
	busy     bool // a goroutine is prompting
	queue    []*question
	waiting  map[key]*question
	answered map[key]policy.Verdict // for the rest of the run
	denyAll  bool
}

// key is what makes two questions equal: who and what, not which process or connection.
type key struct {
	plane               policy.Plane
	action, object, exe string
	taint               string // other code may run as exe: an answer about one is none about the other
	which               string // the file itself, and what is wanted of it: others can have its path, or one that is cut to the same text
}

type question struct {
	key     key
	d       policy.Decision
	waiters int
	until   time.Time       // the latest that anybody waits
	ctx     context.Context // ends when nobody waits
	cancel  context.CancelFunc
	done    chan struct{}
	verdict policy.Verdict // valid after done
}

// New returns a desk that asks by p and hands a record of each answer to record. remember is told of each answer that
// holds for the run, before anything goes on because of it: the kernel may know it too, and judge without asking.
func New(p Prompter, record func(policy.Decision), remember func(policy.Decision, policy.Verdict)) *Desk {
	return &Desk{prompter: p, record: record, remember: remember, waiting: map[key]*question{}, answered: map[key]policy.Verdict{}}
}

// Ask waits for the answer to d, at most until ctx ends: then it denies. Equal questions that wait at the same time are
// shown once and share the answer.
func (k *Desk) Ask(ctx context.Context, d policy.Decision) policy.Verdict {
	id := key{d.Plane, d.Action, d.Object, d.Subject.Exe, d.Subject.Taint, d.Which}
	k.mu.Lock()
	if v, ok := k.answered[id]; ok {
		k.mu.Unlock()
		return v
	}
	q := k.waiting[id]
	if q == nil {
		if k.denyAll || len(k.waiting) >= maxWaiting {
			k.mu.Unlock()
			return policy.Deny
		}
		q = &question{key: id, d: d, done: make(chan struct{})}
		q.ctx, q.cancel = context.WithCancel(context.Background())
		k.waiting[id] = q
		k.queue = append(k.queue, q)
	}
	q.waiters++
	if t, ok := ctx.Deadline(); ok && t.After(q.until) {
		q.until = t
	}
	if !k.busy {
		k.busy = true
		go k.attend()
	}
	k.mu.Unlock()

	select {
	case <-q.done:
		return q.verdict
	case <-ctx.Done():
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if q.waiters--; q.waiters == 0 {
		q.cancel()
		// A new equal question must not join one that is being withdrawn.
		if k.waiting[id] == q {
			delete(k.waiting, id)
		}
	}
	select {
	case <-q.done: // answered in the same moment
		return q.verdict
	default:
		return policy.Deny
	}
}

// attend puts the questions to the person until none waits.
func (k *Desk) attend() {
	for {
		k.mu.Lock()
		if len(k.queue) == 0 {
			k.busy = false
			k.mu.Unlock()
			return
		}
		q := k.queue[0]
		k.queue = k.queue[1:]
		show := Question{Decision: q.d, Until: q.until, More: len(k.queue)}
		denied := k.denyAll
		k.mu.Unlock()

		if denied {
			k.settle(q, Deny, ErrNoAnswer)
			continue
		}
		if q.ctx.Err() != nil {
			continue // nobody waits any more
		}
		a, err := k.prompter.Prompt(q.ctx, show)
		k.settle(q, a, err)
	}
}

// settle makes an answer true. The record comes first: what goes on because of an answer is written after it.
func (k *Desk) settle(q *question, a Answer, err error) {
	if err != nil {
		a = Deny
	} else {
		d := q.d
		d.Plane, d.Action, d.Verdict, d.Reason = policy.PlaneSystem, "answer", a.Verdict(), reasons[a]
		k.record(d)
		if a != Deny && a != DenyAll && a != Once {
			k.remember(q.d, a.Verdict())
		}
	}
	k.mu.Lock()
	if k.waiting[q.key] == q {
		delete(k.waiting, q.key)
	}
	switch a {
	case ForRun, Always:
		k.answered[q.key] = policy.Allow
	case DenyRun:
		k.answered[q.key] = policy.Deny
	case DenyAll:
		k.denyAll = true
	}
	q.verdict = a.Verdict()
	close(q.done)
	k.mu.Unlock()
	q.cancel()
}
