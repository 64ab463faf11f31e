package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nemoclaw/nemoclaw/loader"
	"github.com/nemoclaw/nemoclaw/policy"
)

// fileAsks are the questions about files and programs that are open. Most are about a call that waits in the kernel; a call that can't
// wait was refused, and its answer is for another try.
type fileAsks struct {
	end  context.Context // of the sandbox, or of this daemon's time with it
	stop context.CancelFunc

	mu     sync.Mutex
	held   map[loader.HeldCall]context.CancelFunc
	open   map[fileQuestion]*fileQuestionState
	over   bool // no more
	answer sync.WaitGroup
}

func (a *fileAsks) init() { a.end, a.stop = context.WithCancel(context.Background()) }

// fileQuestion is what makes two questions the same, as for ask.Desk.
type fileQuestion struct {
	plane                             policy.Plane
	action, object, exe, taint, which string
}

func questionOf(d policy.Decision) fileQuestion {
	return fileQuestion{d.Plane, d.Action, d.Object, d.Subject.Exe, d.Subject.Taint, d.Which}
}

// which names what an answer lets through: who, which file, and what is wanted of it. An opening for writing may be one for reading, too.
func which(e loader.Event) string {
	exe := e.Exe
	exe.Inode = 0 // the kernel may forget the file and find it again
	return fmt.Sprint(exe, e.File.Object, e.File.Missing)
}

// fileQuestionState is a question that somebody waits for.
type fileQuestionState struct {
	waiting    int
	grant      loader.FileGrant // what an answer for the run comes to in the kernel
	remembered bool             // it has been entered
}

// begin opens a question. It returns false when there is nothing to wait for: the sandbox ends, or a call that can't wait asks what is
// asked already.
func (a *fileAsks) begin(h loader.HeldCall, id fileQuestion, grant loader.FileGrant, cancel context.CancelFunc) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	q := a.open[id]
	if a.over || h.IsZero() && q != nil {
		return false
	}
	if a.open == nil {
		a.open, a.held = map[fileQuestion]*fileQuestionState{}, map[loader.HeldCall]context.CancelFunc{}
	}
	if q == nil {
		q = &fileQuestionState{grant: grant}
		a.open[id] = q
	}
	q.waiting++
	if !h.IsZero() {
		a.held[h] = cancel
	}
	a.answer.Add(1)
	return true
}

// finish closes a question. It reports whether the call still waited, and whether the answer is in the kernel for the run.
func (a *fileAsks) finish(h loader.HeldCall, id fileQuestion) (waited, remembered bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	q := a.open[id]
	if q.waiting--; q.waiting == 0 {
		delete(a.open, id)
	}
	_, waited = a.held[h]
	delete(a.held, h)
	return waited, q.remembered
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

// askFile puts what a rule asks about to a person. The call waits meanwhile, if it can.
func (i *Instance) askFile(e loader.Event, d policy.Decision) {
	h := e.File.Held
	if both := policy.Read | policy.Write; e.Verdict == policy.Ask && e.File.Op == loader.OpOpen && e.File.Missing&both == both {
		d.Action = "read and write" // who is asked has to see both
	}
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
		d.Verdict, d.Reason = policy.Deny, "it has to be asked about, and such a call can't wait: another try goes by the answer"
	default:
		d.Reason = "held until a person answers"
	}
	i.c.Record(d)
	if i.c.Ask == nil || h.IsZero() && e.File.Missing == 0 {
		return
	}
	d.Which = which(e)
	grant := loader.FileGrant{Exe: e.Exe, Object: e.File.Object, Access: e.File.Missing, Rule: e.Rule}
	ctx, cancel := context.WithTimeout(i.asks.end, i.recorder.policies.latest().Hold)
	if !i.asks.begin(h, questionOf(d), grant, cancel) {
		cancel() // a call that waits while the sandbox is let go of is refused by the next who takes over
		return
	}
	go func() {
		defer i.asks.answer.Done()
		defer cancel()
		select {
		case <-i.guarded: // an adopted sandbox asks while it is taken over
			i.answerFile(ctx, h, grant, d)
		case <-i.asks.end.Done(): // and it may turn out that it can't be
		}
	}()
}

// answerFile waits for the answer to a question, and makes it true.
func (i *Instance) answerFile(ctx context.Context, h loader.HeldCall, grant loader.FileGrant, d policy.Decision) {
	asked := time.Now()
	d.Verdict = policy.Ask
	d.Suggest = i.recorder.policies.latest().SuggestAlways(d)
	verdict := i.c.Ask(ctx, d)
	waited, remembered := i.asks.finish(h, questionOf(d))
	d.Time, d.Verdict, d.Suggest = time.Now(), verdict, ""
	d.Reason = "approved by a person after "
	if verdict != policy.Allow {
		d.Verdict, d.Reason = policy.Deny, "it was asked about, and nobody allowed it in "
	}
	d.Reason += time.Since(asked).Round(time.Millisecond).String()
	if h.IsZero() {
		if grant.Verdict, grant.Once = policy.Allow, true; verdict == policy.Allow && !remembered {
			i.grantFile(grant)
		}
		return
	}
	if !waited {
		return
	}
	// What goes on because of an answer comes after its record.
	i.c.Record(d)
	err := i.guard.Resume(h, d.Verdict)
	if errors.Is(err, loader.ErrNotHeld) && verdict == policy.Allow {
		d.Time, d.Verdict, d.Reason = time.Now(), policy.Deny, "when the answer came the call did not wait any more"
		i.c.Record(d)
	} else if err != nil && !errors.Is(err, loader.ErrNotHeld) {
		i.c.Warn(err.Error())
	}
}

// rememberFile enters an answer for the run into the kernel, which then judges without asking.
func (i *Instance) rememberFile(d policy.Decision, v policy.Verdict) {
	i.asks.mu.Lock()
	q := i.asks.open[questionOf(d)]
	var grant loader.FileGrant
	if q != nil {
		q.remembered, grant = true, q.grant
	}
	i.asks.mu.Unlock()
	if q != nil && grant.Access != 0 {
		grant.Verdict = v
		i.grantFile(grant)
	}
}

func (i *Instance) grantFile(g loader.FileGrant) {
	if g.Exe.IsZero() {
		return // it would be for everybody
	}
	if err := i.guard.GrantFile(g); err != nil {
		i.c.Warn(err.Error())
	}
}
