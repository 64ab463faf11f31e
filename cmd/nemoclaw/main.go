// Command nemoclaw runs programs in sandboxes that can do only what a policy allows. This package is flags, wiring and
// words; it decides nothing and enforces nothing.
package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nemoclaw/nemoclaw/agent/text"
	"github.com/nemoclaw/nemoclaw/cmd/internal/flagerr"
	"github.com/nemoclaw/nemoclaw/policy"
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
	of     *cobra.Command // whose help there is to read; nil: that of the command that was run
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
	return &statusError{status: statusUsage, err: err}
}

// usageOf is a usage error that the help of another command than the one that was run is about.
func usageOf(cmd *cobra.Command, err error) error {
	return &statusError{status: statusUsage, err: err, of: cmd}
}

func main() {
	os.Exit(execute(os.Args[1:], os.Stdout, os.Stderr))
}

// execute runs one command line and returns its exit status.
func execute(args []string, stdout, stderr *os.File) int {
	root := newRoot(sandboxNamed(args))
	root.SetArgs(append([]string{}, args...)) // nil would mean the process's own
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteC()
	if err == nil {
		return 0
	}
	var status *statusError
	if !errors.As(err, &status) {
		status = &statusError{status: statusFailed, err: err}
		if cmd == root { // cobra's own: an unknown command
			status.status = statusUsage
		}
	}
	if status.err != nil {
		fmt.Fprintf(stderr, "nemoclaw: %s\n", text.Lines(status.err.Error()))
		if status.status == statusUsage {
			if status.of != nil {
				cmd = status.of
			}
			fmt.Fprintf(stderr, "Try '%s --help'.\n", cmd.CommandPath())
		}
	}
	return status.status
}

// newRoot is the whole command line. sandbox is the name that the line addresses, which becomes a command of its own with
// what can be done with a sandbox below it; "" when it addresses none.
func newRoot(sandbox string) *cobra.Command {
	root := &cobra.Command{
		Use:   "nemoclaw",
		Short: "Run AI agents in sandboxes that do only what a policy allows",
		Long: `nemoclaw runs programs, usually AI agents, in sandboxes on this machine. What they may read, write, execute and connect
to stands in a YAML policy; everything else is refused, and every decision is written to an audit log.

A sandbox that lasts belongs to the daemon, nemoclaw-agent, and is addressed by its name: nemoclaw NAME COMMAND, where
COMMAND is status (also when left out), connect, exec, logs, policy, config, snapshot, upload, download, publish and more:
nemoclaw NAME --help. A sandbox for one command needs no daemon: nemoclaw run.

Exit status: 0 done, 1 not, 2 wrong usage; exec, connect and run: see there.`,
		Example: `  nemoclaw onboard                                     make a first sandbox, step by step
  nemoclaw my-assistant status
  nemoclaw my-assistant connect                        a shell inside
  nemoclaw my-assistant policy add --domain api.openai.com --port 443
  nemoclaw my-assistant logs --follow

  nemoclaw run --policy nemoclaw.yaml --workspace project -- python3 agent.py`,
		SilenceUsage:      true,
		SilenceErrors:     true,
		Version:           programVersion(),
		Args:              unknownCommand,
		ValidArgsFunction: completeSandbox,
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		if args := cmd.Flags().Args(); !cmd.HasParent() && len(args) > 0 {
			return unknownCommand(cmd, args) // the flag is that command's
		}
		if near := nearest(root, sandbox); cmd.Name() == sandbox && cmd.Parent() == root && near != "" {
			return usageOf(root, fmt.Errorf("%w; and %s is no command of nemoclaw%s", err, sandbox, near)) // `nemoclaw lits --all`
		}
		return usage(flagerr.Explain(cmd.Flags(), err))
	})
	root.SetVersionTemplate("nemoclaw {{.Version}}\n")
	root.CompletionOptions.HiddenDefaultCmd = false
	const lasting, other = "lasting", "other"
	root.AddGroup(&cobra.Group{ID: lasting, Title: "Sandboxes that last:"}, &cobra.Group{ID: other, Title: "Other commands:"})
	for _, c := range []*cobra.Command{newOnboard(), newCreate(), newList(), newStart(""), newStop(""), newDestroy(""), newApprovals(), newGPUs(), newTerm()} {
		c.GroupID = lasting
		root.AddCommand(c)
	}
	for _, c := range []*cobra.Command{newRun(), newInit(), newPolicy(), newRoute(), newAudit(), newDoctor(), newDebug(), newUninstall(), newVersion()} {
		c.GroupID = other
		root.AddCommand(c)
	}
	root.SetHelpCommandGroupID(other)
	root.SetCompletionCommandGroupID(other)
	if sandbox != "" {
		root.AddCommand(newSandbox(sandbox))
	}
	return root
}

// ids are usageArgs none of which is empty, as a script's variable is that was never set.
func ids(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if i := slices.Index(args, ""); i >= 0 {
			return usage(fmt.Errorf("argument %d is empty, want: %s", i+1, cmd.UseLine()))
		}
		return usageArgs(check)(cmd, args)
	}
}

// usageArgs makes what is wrong with the arguments a usage error, in words of our own.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if check(cmd, args) == nil {
			return nil
		}
		if cmd.HasSubCommands() {
			return unknownCommand(cmd, args)
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

// unknownCommand refuses what is no command of cmd, and names the nearest that is.
func unknownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if !cmd.HasParent() && slices.Contains(sandboxWords, args[0]) {
		name := "NAME"
		if len(args) > 1 && !strings.HasPrefix(args[1], "-") {
			name = text.Short(args[1], 64)
		}
		return usage(fmt.Errorf("%s is for one sandbox; give its name before: nemoclaw %s %[1]s (nemoclaw list shows the names)", args[0], name))
	}
	return usage(fmt.Errorf("unknown command %q for %q%s", args[0], cmd.CommandPath(), nearest(cmd, args[0])))
}

// nearest names the command of cmd that word may have been meant for, in brackets; "" when there is none.
func nearest(cmd *cobra.Command, word string) string {
	if near := elsewhere(cmd, word); len(near) > 0 {
		return fmt.Sprintf(" (did you mean %q?)", strings.Join(near, " or "))
	}
	var names []string
	for _, sub := range cmd.Commands() {
		if sub.Name() != word && !sub.Hidden { // the sandbox that the line addresses, if there is one, is among the commands
			names = append(names, sub.Name())
		}
	}
	return policy.DidYouMean(word, names)
}

// elsewhere are the commands of cmd that other programs have under this name.
func elsewhere(cmd *cobra.Command, word string) (names []string) {
	for _, sub := range cmd.Commands() {
		if slices.Contains(sub.SuggestFor, word) {
			names = append(names, sub.Name())
		}
	}
	return names
}

// group is a command that only holds others.
func group(use, short, example string, subs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use: use, Short: short, Example: example,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(subs...)
	return c
}
