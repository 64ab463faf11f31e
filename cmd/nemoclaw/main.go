// Command nemoclaw runs programs in sandboxes that can do only what a policy allows. This package is flags, wiring and
// words; it decides nothing and enforces nothing.
package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/nemoclaw/nemoclaw/agent/text"
)

// Exit statuses of every command but a run that got as far as its program.
const (
	statusFailed = 1 // what was asked for could not be done, or is not so
	statusUsage  = 2 // the command line is wrong
)

// statusError carries an exit status. A nil err means that everything was said already.
type statusError struct {
	status int
	err    error
}

func (e *statusError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *statusError) Unwrap() error { return e.err }

func usage(err error) error {
	if err == nil {
		return nil
	}
	return &statusError{statusUsage, err}
}

func main() {
	os.Exit(execute(os.Args[1:], os.Stdout, os.Stderr))
}

// execute runs one command line and returns its exit status.
func execute(args []string, stdout, stderr *os.File) int {
	root := newRoot()
	root.SetArgs(append([]string{}, args...)) // nil would mean the process's own
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteC()
	if err == nil {
		return 0
	}
	var status *statusError
	if !errors.As(err, &status) {
		status = &statusError{statusFailed, err}
		if cmd == root { // cobra's own: an unknown command
			status.status = statusUsage
		}
	}
	if status.err != nil {
		fmt.Fprintf(stderr, "nemoclaw: %s\n", text.Lines(status.err.Error()))
		if status.status == statusUsage {
			fmt.Fprintf(stderr, "Try '%s --help'.\n", cmd.CommandPath())
		}
	}
	return status.status
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "nemoclaw",
		Short: "Run AI agents in sandboxes that do only what a policy allows",
		Long: `nemoclaw runs a program, usually an AI agent, in a sandbox on this machine. What it may read, write, execute and
connect to stands in a YAML policy; everything else is refused, and every decision is written to an audit log.`,
		Example: `  nemoclaw init nemoclaw.yaml                write a first policy
  nemoclaw policy check nemoclaw.yaml        see that it is valid
  nemoclaw run --policy nemoclaw.yaml --workspace project -- python3 agent.py`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          usageArgs(cobra.NoArgs),
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage(err) })
	root.CompletionOptions.HiddenDefaultCmd = false
	root.AddCommand(newRun(), newInit(), newPolicy(), newAudit(), newDoctor(), newDebug(), newUninstall(), newVersion())
	return root
}

// usageArgs makes what is wrong with the arguments a usage error, in words of our own.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if check(cmd, args) == nil {
			return nil
		}
		if cmd.HasSubCommands() {
			cmd.SuggestionsMinimumDistance = 2
			nearest := ""
			if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
				nearest = fmt.Sprintf(" (nearest: %q)", near[0])
			}
			return usage(fmt.Errorf("unknown command %q for %q%s", args[0], cmd.CommandPath(), nearest))
		}
		given := fmt.Sprintf("%d arguments were", len(args))
		switch len(args) {
		case 0:
			given = "no argument was"
		case 1:
			given = "1 argument was"
		}
		return usage(fmt.Errorf("%s given, want: %s", given, cmd.UseLine()))
	}
}

// group is a command that only holds others.
func group(use, short string, subs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use: use, Short: short,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(subs...)
	return c
}
