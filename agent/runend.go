package agent

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/nemoclaw/nemoclaw/agent/term"
)

// finish takes everything away, in the order in which nothing can act unjudged and no record is lost, and says what
// was refused. It returns what could not be done.
func (r *run) finish(status int) error {
	r.ending.Store(true)
	var errs []error
	done := func(err error) { errs = append(errs, err) }
	programs := r.learnPrograms()
	var box errgroup.Group
	if r.box != nil {
		done(r.box.Kill())
		box.Go(r.box.Close) // cgroups, mounts and directories have nothing to do with the rest
	}
	// Output that is on its way is written before the terminal is given back.
	r.terminal.end()
	if r.process != nil {
		if wire, ok := <-r.wire; ok {
			done(wire.Close())
		}
	}
	if r.rules != nil {
		r.rules.stop()
	}
	if r.proxy != nil {
		done(r.proxy.Close())
	}
	for _, f := range r.idle {
		_ = f.Close() // ends the wait, if it did not end by itself
	}
	if r.steering != nil {
		done(r.steering.Close())
	}
	done(r.refusals.stop())
	var lost uint64
	if r.refusedExecs != nil {
		done(r.refusedExecs.Close())
		lost = r.refusedExecs.Lost()
	}
	if r.guard != nil {
		r.guard.Drain()
		lost += r.lost()
		done(r.guard.Close())
	}
	if r.loader != nil {
		done(r.loader.Close())
	}
	done(box.Wait())
	if r.process != nil {
		r.note("exit", "status "+strconv.Itoa(status), "")
	}
	if r.hub != nil {
		r.hub.Close()
	}
	if r.events != nil {
		done(r.events.Wait(eventsTime))
	}
	if r.log != nil {
		done(r.log.Close())
	}
	if r.process != nil && !r.o.Quiet {
		r.summarise(status, lost)
	}
	done(r.writeLearnt(status, programs, lost))
	r.learnt.close()
	return errors.Join(errs...)
}

// eventsTime is how long the reader of --json-events has to take the last ones.
const eventsTime = 2 * time.Second

// lost is how many refusals the kernel counted and could not report.
func (r *run) lost() uint64 {
	c, err := r.guard.Counters()
	if err != nil {
		return 0 // the guard was never whole, so nothing ran
	}
	if n := c.Lost + c.Suppressed; n > 0 {
		r.note("lost", "events", fmt.Sprintf("%d of the kernel's events could not be written down one by one; what they were about was judged all the same", n))
		return n
	}
	return 0
}

// summarise tells the person what was refused.
func (r *run) summarise(status int, lost uint64) {
	s := summary{
		policy: r.policyName, revision: r.policy.Revision, lost: lost, warnings: r.warnings, log: r.log.Path(),
		unseen: unseenRefusals(r.policy, r.refusals.reader != nil, r.refusedExecs != nil), failed: status != 0 && status < 128, terminal: term.Is(r.o.Stderr),
	}
	s.refused, s.more = r.records.Refusals()
	s.colour = s.terminal && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	_, _ = r.o.Stderr.WriteString(s.String()) // nobody is left to tell that nobody listens
}
