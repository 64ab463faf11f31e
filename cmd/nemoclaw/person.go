package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/agent/term"
	"github.com/nemoclaw/nemoclaw/agent/text"
)

// person is who sits at the terminal that standard input is.
type person struct {
	tty *term.TTY
}

var errNobody = errors.New("there is no terminal to ask on")

// findPerson returns errNobody when standard input is no terminal: a script's questions are answered by flags.
func findPerson() (*person, error) {
	if !term.Is(os.Stdin) {
		return nil, errNobody
	}
	tty, err := term.Open("/proc/self/fd/0")
	if err != nil {
		return nil, err
	}
	return &person{tty}, nil
}

func (p *person) close() { _ = p.tty.Close() } // it is restored, or gone

// say shows text of our own. What comes from elsewhere has to be escaped by the caller.
func (p *person) say(format string, args ...any) {
	_ = p.tty.Say(strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", "\r\n")) // the answer will fail if the terminal is gone
}

// ask asks for a line; what is in preset is the answer when the person gives none.
func (p *person) ask(ctx context.Context, question, preset string) (string, error) {
	if preset != "" {
		question += " [" + text.Escape(preset) + "]"
	}
	p.say("%s: ", question)
	line, err := p.tty.Line(ctx, false)
	if line = strings.TrimSpace(line); line == "" {
		line = preset
	}
	return line, err
}

// askSecret asks for a line that is not shown.
func (p *person) askSecret(ctx context.Context, question string) (string, error) {
	p.say("%s: ", question)
	line, err := p.tty.Line(ctx, true)
	return strings.TrimSpace(line), err
}

// interruptible returns a context that ends with the signals that end a program, so that what was begun can be undone.
func interruptible(ctx context.Context) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(ctx, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
}
