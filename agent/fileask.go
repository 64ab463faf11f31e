package agent

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/nemoclaw/nemoclaw/loader"
	"github.com/nemoclaw/nemoclaw/policy"
)

// fileAsks are the calls that wait in the kernel for an answer.
type fileAsks struct {
	end  context.Context // of the sandbox, or of this daemon's time with it
	stop context.CancelFunc

	mu     sync.Mutex
	held   map[loader.HeldCall]context.CancelFunc
	over   bool // no more
	answer sync.WaitGroup
}

func (a *fileAsks) init() {
	a.end, a.stop = context.WithCancel(context.Background())
	a.held = map[loader.HeldCall]context.CancelFunc{}
}

// begin notes a call that waits. It returns false when there is nothing to wait for: the sandbox ends.
func (a *fileAsks) begin(h loader.HeldCall, cancel context.CancelFunc) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over {
		return false
	}
	a.held[h] = cancel
	a.answer.Add(1)
	return true
}

// finish reports whether a call still waited.
func (a *fileAsks) finish(h loader.HeldCall) (waited bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, waited = a.held[h]
	delete(a.held, h)
	return waited
}

// withdraw ends the question about a call that does not wait any more.
func (a *fileAsks) withdraw(h loader.HeldCall) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if cancel := a.held[h]; cancel != nil {
		cancel()
		delete(a.held, h)
	}
}

// close denies what waits, and returns when that is done.
func (a *fileAsks) close() {
	a.mu.Lock()
	a.over = true
	a.mu.Unlock()
	a.stop()
	a.answer.Wait()
}

// askFile puts what a rule asks about to a person. The call waits meanwhile, if it can: else it was refused, and an answer is for
// another try.
func (i *Instance) askFile(e loader.Event, d policy.Decision) {
	h := e.File.Held
	if both := policy.Read | policy.Write; e.Verdict == policy.Ask && e.File.Op == loader.OpOpen && e.File.Missing&both == both {
		d.Action = "read and write" // who is asked has to see both
	}
	later := false
	switch {
	case e.Verdict != policy.Ask:
		i.asks.withdraw(h)
		i.c.Record(d)
		return
	case i.c.Ask == nil:
		d.Verdict, d.Reason = policy.Deny, "it has to be asked about, and nobody is there to answer"
	case h.IsZero() && e.File.Missing == 0:
		d.Verdict, d.Reason = policy.Deny, "it has to be asked about, and no answer could be given to it"
	case h.IsZero():
		later = true
		d.Verdict, d.Reason = policy.Deny, "it has to be asked about, and such a call can't wait: another try goes by the answer"
	default:
		d.Reason = "held until a person answers"
	}
	i.c.Record(d)
	switch {
	case later:
		d.Verdict = policy.Ask
		i.c.Refused(d)
		return
	case i.c.Ask != nil && !h.IsZero():
		i.hold(h, d)
	}
}

// hold asks about a call that waits.
func (i *Instance) hold(h loader.HeldCall, d policy.Decision) {
	ctx, cancel := context.WithTimeout(i.asks.end, i.recorder.policies.latest().Hold)
	if !i.asks.begin(h, cancel) {
		cancel() // a call that waits while the sandbox is let go of is refused by the next who takes over
		return
	}
	go func() {
		defer i.asks.answer.Done()
		defer cancel()
		select {
		case <-i.guarded: // an adopted sandbox asks while it is taken over
			i.answerFile(ctx, h, d)
		case <-i.asks.end.Done(): // and it may turn out that it can't be
		}
	}()
}

// answerFile waits for the answer to a question, and makes it true.
func (i *Instance) answerFile(ctx context.Context, h loader.HeldCall, d policy.Decision) {
	asked := time.Now()
	span := i.c.Traces.Hold(d)
	outcome := "withdrawn" // the caller is gone, or the sandbox
	defer func() { span.Answered(d, outcome) }()
	verdict := i.c.Ask(span.Asking(ctx), d)
	if !i.asks.finish(h) {
		return
	}
	d.Time, d.Verdict, d.Waited = time.Now(), verdict, true
	switch {
	case verdict == policy.Allow:
		outcome, d.Reason = "approved", "approved by a person after "
	case ctx.Err() != nil:
		outcome, d.Verdict, d.Reason = "unanswered", policy.Deny, "it was asked about, and nobody answered in "
	default:
		outcome, d.Verdict, d.Reason = "denied", policy.Deny, "it was asked about, and was denied after "
	}
	d.Reason += time.Since(asked).Round(time.Millisecond).String()
	// What goes on because of an answer comes after its record.
	i.c.Record(d)
	err := i.guard.Resume(h, d.Verdict)
	if errors.Is(err, loader.ErrNotHeld) && verdict == policy.Allow {
		outcome = "withdrawn"
		d.Time, d.Verdict, d.Reason = time.Now(), policy.Deny, "when the answer came the call did not wait any more"
		i.c.Record(d)
	} else if err != nil && !errors.Is(err, loader.ErrNotHeld) {
		i.c.Warn(err.Error())
	}
}
