package agent

import (
	"context"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/agent/approvals"
	"github.com/nemoclaw/nemoclaw/agent/sandbox"
	"github.com/nemoclaw/nemoclaw/agent/term"
	"github.com/nemoclaw/nemoclaw/policy"
)

// terminal is the person's terminal for the time of a run: what the command's own is relayed to, and where questions
// are asked. A run may have neither, or questions only, when its streams go elsewhere.
type terminal struct {
	tty    *term.TTY
	stream bool // one of the command's streams is this terminal, so the command gets one of its own
	asks   bool
	policy *policy.Compiled // of the run; what "always" would mean is told by it

	relay    *term.Relay
	prompter approvals.Prompter
	ready    chan struct{} // closed when prompter is set
	once     sync.Once
}

// newTerminal opens the terminal that the standard streams are, or else the controlling one.
func newTerminal(o *Options) *terminal {
	t := &terminal{ready: make(chan struct{})}
	for _, f := range []*os.File{o.Stdin, o.Stdout, o.Stderr} {
		if f == nil || !term.Is(f) {
			continue
		}
		t.stream = true
		// The terminal anew, for this process alone. It need not be the controlling one.
		if tty, err := term.Open("/proc/self/fd/" + strconv.Itoa(int(f.Fd()))); err == nil {
			t.tty = tty
			break
		}
	}
	if t.tty == nil && !o.NoPrompt {
		t.tty, _ = term.Open("/dev/tty") // no terminal, no questions
	}
	t.asks = t.tty != nil && !o.NoPrompt
	return t
}

// Prompt implements approvals.Prompter.
func (t *terminal) Prompt(ctx context.Context, q approvals.Question) (approvals.Reply, error) {
	select {
	case <-t.ready:
		q.Suggest = t.policy.SuggestAlways(q.Decision)
		return t.prompter.Prompt(ctx, q)
	case <-ctx.Done():
		return approvals.Deny, approvals.ErrNoAnswer
	}
}

// begin connects the terminal with the command's, when it has one.
func (t *terminal) begin(p *sandbox.Process) {
	kind := os.Getenv("TERM")
	switch {
	case t.tty == nil:
		return
	case p.Terminal() != nil:
		t.relay = term.NewRelay(t.tty, p.Terminal(), func(rows, cols uint16) {
			_ = p.Resize(rows, cols) // a command that ends meanwhile needs no size
		})
		t.prompter = t.relay.Prompter(kind)
	default:
		t.prompter = term.NewPrompter(t.tty, kind)
	}
	close(t.ready)
}

// outputTime is how long the terminal has to take the last output: one that is stuck must not keep the run from ending.
const outputTime = 2 * time.Second

// end gives the terminal back, after the last output of the command. Everybody inside must be dead.
func (t *terminal) end() {
	t.once.Do(func() {
		if t.relay != nil {
			select {
			case <-t.relay.Done():
			case <-time.After(outputTime):
			}
			t.relay.Close()
		}
		if t.tty != nil {
			_ = t.tty.Close() // it is restored, or gone
		}
	})
}

// signal does what a signal to nemoclaw means for the command.
func (r *run) signal(sig syscall.Signal) {
	relay := r.terminal.relay
	switch sig {
	case unix.SIGWINCH:
		if relay != nil {
			relay.Resize()
		}
	case unix.SIGTSTP:
		if relay != nil {
			relay.Suspend()
		}
		_ = r.process.Signal(unix.SIGSTOP) // one that has ended needs none
		_ = unix.Kill(unix.Getpid(), unix.SIGSTOP)
	case unix.SIGCONT:
		if relay != nil {
			relay.Continue()
			relay.Resize()
		}
		_ = r.process.Signal(unix.SIGCONT)
	default:
		if err := r.process.Signal(sig); err != nil {
			r.fail(err)
		}
	}
}
