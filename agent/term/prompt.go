package term

import (
	"context"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/agent/approvals"
	"github.com/nemoclaw/nemoclaw/agent/text"
)

// A screen lends the terminal to a question: keys come by the channel until give is called, and nothing else is
// written meanwhile.
type screen interface {
	lend() (keys <-chan []byte, give func(pass []byte), err error)
}

// A Prompter asks on a terminal. It is an approvals.Prompter.
type Prompter struct {
	tty    *TTY
	screen screen
	plain  bool // no escape sequences: TERM is dumb or not set
	now    func() time.Time
}

// NewPrompter returns the prompter of a terminal that no relay uses: the run's own output goes elsewhere. kind is TERM.
func NewPrompter(tty *TTY, kind string) *Prompter {
	return &Prompter{tty: tty, screen: &alone{tty: tty}, plain: kind == "" || kind == "dumb", now: time.Now}
}

// Prompter returns the prompter of the relay's terminal. kind is TERM.
func (r *Relay) Prompter(kind string) *Prompter {
	return &Prompter{tty: r.tty, screen: r, plain: kind == "" || kind == "dumb", now: time.Now}
}

const (
	// Before a question: end whatever control string the program has left open (CAN, ST), keep the cursor (DECSC, DECRC)
	// while its origin mode and scroll region are undone, which move it; then undo what could hide or garble text:
	// insert mode, no wrapping, colours and "hidden", line-drawing characters, a hidden cursor, left and right margins,
	// output held back (synchronised), reverse video, default and palette colours. Clear what is below.
	calm = "\x18\x1b\\\x1b[?2026l\x1b[?5l\x1b]104\x1b\\\x1b]110\x1b\\\x1b]111\x1b\\\x1b7\x1b[?6l\x1b[?69l\x1b[r\x1b8\x1b[4l\x1b[?7h\x1b[0m\x0f\x1b(B\x1b[?25h\r\n\x1b[J"
	bold = "\x1b[1m"
	norm = "\x1b[0m"
)

// answers are the keys. Enter denies: who types a command while a question appears ends with it.
var answers = map[byte]approvals.Reply{
	'o': approvals.Once, 'r': approvals.ForRun, 'a': approvals.Always,
	'\r': approvals.Deny, '\n': approvals.Deny, interrupt: approvals.Deny,
	'd': approvals.DenyRun, 'D': approvals.DenyAll,
}

const interrupt = 0x03 // Ctrl-C

// Prompt shows q until a key answers it or ctx ends.
func (p *Prompter) Prompt(ctx context.Context, q approvals.Question) (approvals.Reply, error) {
	if !p.tty.Foreground() {
		return approvals.Deny, fmt.Errorf("%w: the terminal belongs to another job", approvals.ErrNoAnswer)
	}
	in, give, err := p.screen.lend()
	if err != nil {
		return approvals.Deny, fmt.Errorf("%w: %w", approvals.ErrNoAnswer, err)
	}
	var pass []byte
	defer func() { give(pass) }()
	_, cols := p.tty.Size()
	if err := p.write(p.question(q, int(cols))); err != nil {
		return approvals.Deny, fmt.Errorf("%w: %w", approvals.ErrNoAnswer, err)
	}
	k := keys{shown: p.now()}
	for {
		select {
		case <-ctx.Done():
			_ = p.write("\r\nnemoclaw: no answer: denied\r\n")
			return approvals.Deny, approvals.ErrNoAnswer
		case b, open := <-in:
			if !open {
				return approvals.Deny, fmt.Errorf("%w: the terminal is gone", approvals.ErrNoAnswer)
			}
			key, ok := k.feed(b, p.now())
			a, known := answers[key]
			if !ok || !known {
				continue
			}
			if key == interrupt {
				pass = []byte{interrupt} // the program is interrupted too, as the person meant
			}
			_ = p.write(outcome(a, q)) // the answer counts, whether it can be shown or not
			return a, nil
		}
	}
}

func (p *Prompter) write(s string) error {
	if p.plain {
		for _, code := range []string{calm, bold, norm} {
			s = strings.ReplaceAll(s, code, "")
		}
		s = "\r\n" + s
	}
	_, err := p.tty.f.WriteString(s)
	return err
}

// question is what is shown, with \r\n at each line's end, because the terminal is raw.
func (p *Prompter) question(q approvals.Question, cols int) string {
	var b strings.Builder
	b.WriteString(calm)
	width := max(cols-12, 20)
	row := func(label, value string) {
		// Long values are shown whole: what does not fit would be what a program wants to hide. Only a flood is cut.
		for _, line := range text.Wrap(text.Short(value, 6*width), width) {
			fmt.Fprintf(&b, "  %-9s %s\r\n", label, line)
			label = ""
		}
	}
	b.WriteString(bold + "nemoclaw: a program in the sandbox asks" + norm + "\r\n")
	row("to", q.Action+" "+q.Object)
	row("program", orUnknown(q.Subject.Exe))
	row("command", orUnknown(q.Subject.Args))
	if q.Subject.Taint != "" {
		row("tainted", "other code may run as it, by its environment: "+q.Subject.Taint)
	}
	row("rule", q.Rule)
	for _, r := range q.Risks {
		row("risk", r.Text)
	}
	var wait []string
	if !q.Until.IsZero() {
		wait = append(wait, fmt.Sprintf("denied in %d s", int(q.Until.Sub(p.now()).Round(time.Second)/time.Second)))
	}
	if q.More > 0 {
		wait = append(wait, fmt.Sprintf("%d more waiting", q.More))
	}
	if wait != nil {
		row("", strings.Join(wait, ", "))
	}
	b.WriteString("  allow: [o]nce, for this [r]un, [a]lways   deny: [Enter] once, [d] for this run, [D] all questions: ")
	return b.String()
}

func outcome(a approvals.Reply, q approvals.Question) string {
	what := text.Short(q.Action+" "+q.Object, 200)
	switch a {
	case approvals.Once:
		return "\r\nnemoclaw: " + what + ": allowed once\r\n"
	case approvals.ForRun:
		return "\r\nnemoclaw: " + what + ": allowed for this run\r\n"
	case approvals.Always:
		s := "\r\nnemoclaw: " + what + ": allowed for this run"
		if q.Suggest == "" {
			return s + "; no rule of a policy could allow it always\r\n"
		}
		if q.Rule != "default" {
			s += ";\r\n  ask beats allow, so to allow it always take it out of the rule at " + text.Escape(q.Rule) + " and add:"
		} else {
			s += "; to allow it always, add to the policy:"
		}
		return s + "\r\n\r\n" + strings.ReplaceAll(indent(text.Lines(q.Suggest)), "\n", "\r\n") + "\r\n"
	case approvals.DenyRun:
		return "\r\nnemoclaw: " + what + ": denied for this run\r\n"
	case approvals.DenyAll:
		return "\r\nnemoclaw: everything that would be asked in this run is denied now\r\n"
	default:
		return "\r\nnemoclaw: " + what + ": denied once\r\n"
	}
}

func indent(s string) string {
	return "    " + strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n    ") + "\n"
}

func orUnknown(s string) string {
	if s == "" {
		return "(not known)"
	}
	return s
}

// alone lends a terminal that is used for nothing but questions: it is raw while one is shown.
type alone struct{ tty *TTY }

func (a *alone) lend() (<-chan []byte, func([]byte), error) {
	if err := a.tty.Raw(); err != nil {
		return nil, nil, err
	}
	// What was typed before the question is nobody's answer.
	if err := a.tty.discard(); err != nil {
		_ = a.tty.Restore()
		return nil, nil, err
	}
	keys := make(chan []byte)
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(keys)
		for {
			b := make([]byte, 256)
			n, err := a.tty.f.Read(b)
			if err != nil {
				return
			}
			select {
			case keys <- b[:n]:
			case <-stop:
				return
			}
		}
	}()
	return keys, func(pass []byte) {
		close(stop)
		_ = a.tty.f.SetReadDeadline(time.Unix(1, 0)) // ends the read that waits; a terminal that can't was not opened
		<-done
		_ = a.tty.f.SetReadDeadline(time.Time{})
		_ = a.tty.Restore() // the terminal went away if it can't be
		if len(pass) > 0 {
			a.interrupted()
		}
	}, nil
}

// interrupted does what the terminal would have done with Ctrl-C, had it not been raw.
func (a *alone) interrupted() { _ = unix.Kill(0, unix.SIGINT) }
