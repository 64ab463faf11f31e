// Package hook tells programs of the host and servers that a sandbox asks for something that a person may decide: the hooks of
// the daemon's configuration. It owns what a message says, how it is signed, how often one is sent, and what becomes of one
// that can't be delivered.
//
// It never answers a request, never holds up who tells it of them, and keeps no more than a bound, however much is asked inside.
// Nothing secret of a hook (its key, the path of its address) gets into an error or a record.
package hook

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"sync"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/config"
	"github.com/nemoclaw/nemoclaw/agent/text"
	"github.com/nemoclaw/nemoclaw/api"
)

const (
	atOnce   = 4           // messages that one hook is sent at the same time
	attempts = 6           // to send one message
	first    = time.Second // before the second attempt; each further wait is longer by a factor
	factor   = 4           // so the last is after about six minutes
	longest  = 5 * time.Minute
)

// A Note records what becomes of a hook, for whoever runs the daemon.
type Note func(action, object, reason string)

// Hooks are the hooks of a daemon.
type Hooks []*hook

// Open checks that what the hooks need is there. socket is the daemon's, for programs that answer what they are told of.
func Open(list []config.Hook, socket string, note Note) (Hooks, error) {
	var hooks Hooks
	for _, c := range list {
		h := &hook{note: note, first: first, queue: newQueue(c)}
		var err error
		if len(c.Exec) > 0 {
			h.name = "exec " + c.Exec[0]
			h.sender, err = newProgram(c, socket)
		} else {
			h.sender, h.name, err = newWebhook(c)
		}
		if err != nil {
			return nil, fmt.Errorf("hook %s: %w", h.name, err)
		}
		hooks = append(hooks, h)
	}
	return hooks, nil
}

// Run tells the hooks of requests until follow returns, which is to call its function with each change of them, as
// api.Client.FollowRequests does. That function never waits.
func (h Hooks) Run(ctx context.Context, follow func(context.Context, func(api.RequestChange) error) error) error {
	if len(h) == 0 {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	for _, one := range h {
		running.Go(func() { one.run(ctx) })
	}
	return follow(ctx, func(c api.RequestChange) error {
		for _, one := range h {
			one.queue.change(c)
		}
		return nil
	})
}

// hook is one that is told.
type hook struct {
	name   string // as records call it
	note   Note
	sender sender
	queue  *queue
	first  time.Duration // see there

	mu   sync.Mutex
	lost uint64 // messages since one was delivered
}

// A sender makes one attempt to deliver a message. An error that is no *again is the last.
type sender interface {
	send(ctx context.Context, m *message) error
}

// again is the error of an attempt that can be made once more.
type again struct {
	error
	after time.Duration // not before
}

func (e *again) Unwrap() error { return e.error }

// message is what a hook is sent.
type message struct {
	id   string // the same at every attempt
	body []byte
}

// content is a message's body: Standard Webhooks recommends these names.
type content struct {
	Type      string      `json:"type"` // "approval.held", "approval.refused"
	Timestamp time.Time   `json:"timestamp"`
	Data      api.Request `json:"data"`
	Dropped   uint64      `json:"dropped,omitempty"` // requests of the sandbox that no message was about, since its last one
}

func newMessage(r api.Request, dropped uint64) (*message, error) {
	body, err := json.Marshal(content{"approval." + string(r.State), r.Last, r, dropped})
	if err != nil {
		return nil, err
	}
	return &message{id: "msg_" + rand.Text(), body: text.JSON(body)}, nil // a program may show it as it is
}

// run sends what is in the queue.
func (h *hook) run(ctx context.Context) {
	var sending sync.WaitGroup
	defer sending.Wait()
	free := make(chan struct{}, atOnce)
	for {
		select {
		case free <- struct{}{}: // before a request is taken: until then it can change
		case <-ctx.Done():
			return
		}
		r, dropped, ok := h.next(ctx)
		if !ok {
			return
		}
		sending.Go(func() {
			h.deliver(ctx, r, dropped)
			<-free
		})
	}
}

// next waits for a request that the hook may be told of now.
func (h *hook) next(ctx context.Context) (r api.Request, dropped uint64, ok bool) {
	for {
		for _, name := range h.queue.overflows() {
			h.note("hook", h.name, fmt.Sprintf("the sandbox %s asks for more than the hook is told of (its rate); the rest is counted in the next message", name))
		}
		r, dropped, wait := h.queue.take(time.Now())
		if wait == 0 {
			return r, dropped, true
		}
		timer := time.NewTimer(wait)
		select {
		case <-h.queue.changed:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return r, 0, false
		}
		timer.Stop()
	}
}

// deliver sends one message, until it has arrived, nobody needs it any more, or it was tried often enough.
func (h *hook) deliver(ctx context.Context, r api.Request, dropped uint64) {
	m, err := newMessage(r, dropped)
	wait := h.first
	for n := 1; err == nil; n++ {
		err = h.sender.send(ctx, m)
		var later *again
		switch {
		case err == nil:
			h.delivered()
			return
		case ctx.Err() != nil:
			return
		case !errors.As(err, &later) || n == attempts:
		default:
			err = nil
			select {
			case <-time.After(min(max(later.after, jitter(wait)), longest)):
			case <-ctx.Done():
				return
			}
			if !h.queue.open(r.ID) {
				return // it was answered meanwhile
			}
			wait *= factor
		}
	}
	h.queue.lose(r.Sandbox, 1+dropped)
	h.failed(err)
}

// jitter is a wait of about d: who failed together does not come back together.
func jitter(d time.Duration) time.Duration { return d/2 + mathrand.N(d) }

// failed records the first message of several that could not be delivered.
func (h *hook) failed(err error) {
	h.mu.Lock()
	h.lost++
	n := h.lost
	h.mu.Unlock()
	if n == 1 {
		h.note("hook", h.name, "a message could not be delivered: "+text.Short(err.Error(), 500))
	}
}

// delivered records that messages arrive again.
func (h *hook) delivered() {
	h.mu.Lock()
	n := h.lost
	h.lost = 0
	h.mu.Unlock()
	if n > 0 {
		h.note("hook", h.name, fmt.Sprintf("messages are delivered again; %d could not be", n))
	}
}
