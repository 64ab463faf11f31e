package agent

import (
	"errors"
	"os"
	"strconv"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/term"
)

// finish takes everything away, in the order in which nothing can act unjudged and no record is lost, and says what
// was refused. It returns what could not be done.
func (r *run) finish(status int) error {
	programs := r.learnPrograms()
	var errs []error
	done := func(err error) { errs = append(errs, err) }
	var lost uint64
	r.askNothing()
	done(r.end(func() {
		// Output that is on its way is written before the terminal is given back.
		r.terminal.end()
	}, func() {
		done(r.refusals.stop())
		if r.refusedExecs != nil {
			done(r.refusedExecs.Close())
			lost = r.refusedExecs.Lost()
		}
		lost += r.lost()
	}))
	if r.opened != nil {
		done(r.opened.Close())
	}
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

// summarise tells the person what was refused.
func (r *run) summarise(status int, lost uint64) {
	s := summary{
		policy: r.policyName, revision: r.policy.Revision, lost: lost, warnings: r.warnings, log: r.log.Path(),
		level: r.Level(), unseen: unseenRefusals(r.policy, r.Level(), r.refusals.reader != nil, r.refusedExecs != nil), failed: status != 0 && status < 128, terminal: term.Is(r.o.Stderr),
	}
	s.refused, s.more = r.records.Refusals()
	s.colour = s.terminal && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	_, _ = r.o.Stderr.WriteString(s.String()) // nobody is left to tell that nobody listens
}
