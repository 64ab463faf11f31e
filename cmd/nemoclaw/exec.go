package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/agent"
	"github.com/nemoclaw/nemoclaw/agent/term"
	"github.com/nemoclaw/nemoclaw/api"
)

// execStatus is how exec and connect say their exit status.
const execStatus = `Exit status: the command's own; 128 and the signal's number when a signal ended it; 127 when it was not found inside, 126
when it may not or can't be executed; 125 when it could not be started, or the sandbox or the daemon ended; 2 wrong usage.`

func newExec(name string) *cobra.Command {
	var e api.Exec
	var env []string
	cmd := talking(&cobra.Command{
		Use:   "exec [flags] [--] COMMAND [ARG...]",
		Short: "Run a command in it",
		Long: `exec runs COMMAND in the sandbox, under its policy, and waits for it. Its standard streams are yours: files and pipes as
they are, a terminal as a new one of the sandbox's own. Signals are passed on. With --detach it has no streams, and exec
does not wait.

` + execStatus,
		Example: `  nemoclaw ` + name + ` exec -- python3 agent.py
  tar c src | nemoclaw ` + name + ` exec -- tar x
  nemoclaw ` + name + ` exec --dir /tmp --env CI=1 -- sh -c 'npm install && npm test'
  nemoclaw ` + name + ` exec --detach -- node server.js`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usage(errors.New("no command was given"))
			}
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}, func(cmd *cobra.Command, d *api.Client, args []string) (err error) {
		e.Args, e.Env = args, os.Environ()
		if e.Set, err = environment(env, os.LookupEnv); err != nil {
			return usage(err)
		}
		return inside(cmd, d, name, e)
	})
	f := cmd.Flags()
	f.SetInterspersed(false) // what follows the command's name is the command's
	f.StringArrayVarP(&env, "env", "e", nil, "`NAME=VALUE` for the command's environment; NAME alone passes yours on (can be given several times)")
	f.StringVar(&e.Dir, "dir", "", "`DIR` inside to start in (default: the workspace)")
	f.BoolVarP(&e.Detach, "detach", "d", false, "don't wait for it, and give it no streams")
	return cmd
}

func newConnect(name string) *cobra.Command {
	cmd := talking(&cobra.Command{
		Use:        "connect [-- COMMAND [ARG...]]",
		SuggestFor: []string{"shell", "ssh"},
		Short:      "Open a shell in it",
		Long: `connect opens a shell in the sandbox on this terminal: the first one that the policy allows, or COMMAND. When the policy
allows no shell, it says what to add.

` + execStatus,
		Example:           "  nemoclaw " + name + " connect\n  nemoclaw " + name + " connect -- python3",
		ValidArgsFunction: cobra.NoFileCompletions,
	}, func(cmd *cobra.Command, d *api.Client, args []string) error {
		if !term.Is(os.Stdin) || !term.Is(os.Stdout) {
			return &statusError{status: agent.StatusFailed, err: fmt.Errorf("connect: standard input and output must be a terminal; without one: nemoclaw %s exec -- COMMAND", name)}
		}
		return inside(cmd, d, name, api.Exec{Args: args, Shell: len(args) == 0, Env: os.Environ()})
	})
	cmd.Flags().SetInterspersed(false)
	return cmd
}

// inside runs a command in a sandbox, on the standard streams, and returns its status as an error.
func inside(cmd *cobra.Command, d *api.Client, name string, e api.Exec) error {
	signals := takeSignals() // before it starts, so that none is lost
	files := [3]*os.File{os.Stdin, os.Stdout, os.Stderr}
	if e.Detach {
		files = [3]*os.File{}
	}
	p, early, err := start(cmd.Context(), d, name, e, files, signals)
	if err != nil {
		return err
	}
	defer p.Close()
	if e.Detach {
		return nil
	}
	s := session{process: p}
	if err := s.attach(files); err != nil {
		return &statusError{status: agent.StatusFailed, err: err}
	}
	defer s.restore()
	if early != nil {
		if err := s.signal(early.(syscall.Signal)); err != nil {
			return &statusError{status: agent.StatusFailed, err: err}
		}
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = p.Wait() // asked again below
	}()
	for {
		select {
		case <-ended:
			status, err := p.Wait()
			s.restore()
			switch {
			case err != nil:
				return &statusError{status: agent.StatusFailed, err: err}
			case status != 0:
				return &statusError{status: status}
			}
			return nil
		case sig := <-signals:
			if err := s.signal(sig.(syscall.Signal)); err != nil {
				return &statusError{status: agent.StatusFailed, err: err}
			}
		}
	}
}

// start starts the command. A signal that comes meanwhile is the command's, which may run already, and is returned; a second
// one ends the waiting.
func start(ctx context.Context, d *api.Client, name string, e api.Exec, files [3]*os.File, signals <-chan os.Signal) (p *api.Process, early os.Signal, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	started := make(chan struct{})
	go func() {
		defer close(started)
		p, err = d.Exec(ctx, name, e, files)
	}()
	for {
		select {
		case <-started:
			if err != nil {
				return nil, nil, &statusError{status: startStatus(err), err: err}
			}
			return p, early, nil
		case sig := <-signals:
			if sig == unix.SIGWINCH || sig == unix.SIGCONT || sig == unix.SIGTSTP {
				continue // nothing has this terminal's size yet, or could be stopped
			}
			if early == nil {
				early = sig
				continue
			}
			cancel()
			if <-started; err == nil {
				p.Close() // it hangs up
			}
			return nil, nil, &statusError{status: 128 + int(sig.(syscall.Signal))}
		}
	}
}

// startStatus is the status of a command that could not be started.
func startStatus(err error) int {
	switch {
	case is(err, api.CommandNotFound):
		return agent.StatusNotFound
	case is(err, api.CommandRefused):
		return agent.StatusNotExecutable
	}
	return agent.StatusFailed
}

// session is this terminal, for as long as a command inside has one of its own.
type session struct {
	process *api.Process
	tty     *term.TTY // nil: the command has no terminal
	relay   *term.Relay
}

// attach relays the terminal, the first of files that is one, to the command's own.
func (s *session) attach(files [3]*os.File) error {
	if s.process.Terminal() == nil {
		return nil
	}
	for _, f := range files {
		if !term.Is(f) {
			continue
		}
		// The terminal anew, for this process alone. It need not be the controlling one.
		tty, err := term.Open("/proc/self/fd/" + strconv.Itoa(int(f.Fd())))
		if err != nil {
			return err
		}
		s.tty = tty
		s.relay = term.NewRelay(tty, s.process.Terminal(), func(rows, cols uint16) { resize(s.process.Terminal(), rows, cols) })
		return nil
	}
	return nil
}

// resize tells the command's terminal its size. A command that ends meanwhile needs none.
func resize(master *os.File, rows, cols uint16) {
	c, err := master.SyscallConn()
	if err != nil {
		return
	}
	_ = c.Control(func(fd uintptr) {
		_ = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
	})
}

// lastOutput is how long the terminal has to take the last output: what the command left running may hold it open.
const lastOutput = 500 * time.Millisecond

// restore gives the terminal back, after the last output of the command.
func (s *session) restore() {
	if s.tty == nil {
		return
	}
	select {
	case <-s.relay.Done():
	case <-time.After(lastOutput):
	}
	s.relay.Close()
	_ = s.tty.Close() // it is restored, or gone
	s.tty = nil
}

// signal does what a signal to nemoclaw means for the command.
func (s *session) signal(sig syscall.Signal) error {
	switch sig {
	case unix.SIGWINCH:
		if s.relay != nil {
			s.relay.Resize()
		}
		return nil
	case unix.SIGTSTP:
		if s.relay != nil {
			s.relay.Suspend()
		}
		if err := s.process.Signal(int(unix.SIGSTOP)); err != nil {
			return err
		}
		return unix.Kill(unix.Getpid(), unix.SIGSTOP)
	case unix.SIGCONT:
		if s.relay != nil {
			s.relay.Continue()
			s.relay.Resize()
		}
	}
	return s.process.Signal(int(sig))
}
