package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"

	"github.com/spf13/cobra"

	"github.com/nemoclaw/nemoclaw/agent"
	"github.com/nemoclaw/nemoclaw/agent/term"
	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/tui"
)

func newTerm() *cobra.Command {
	return talking(&cobra.Command{
		Use:        "term",
		SuggestFor: []string{"tui", "console", "monitor", "top"},
		Short:      "Watch the sandboxes and answer what they ask",
		Long: `term shows, on this terminal, what waits for an answer, what is decided and what the sandboxes do, as it happens. A key
answers: a approves the request under the cursor, r rejects it, A and R say for what and for how long, and show what that
changes before. ? lists all keys.

A key answers only the request that was under the cursor, at rest, when it went down; what is dangerous is asked twice. Members
of the watching group see everything and answer nothing. When the daemon is restarted, the console waits for it.

It works in 16 and 256 colours, and without where NO_COLOR is set; in tmux, over ssh, and from 80 columns and 24 lines on.

Exit status: 0 it was left, 1 it could not be shown, 2 wrong usage.`,
		Example: `  nemoclaw term
  openshell term                     the same, where that name was installed
  NO_COLOR=1 nemoclaw term
  ssh -t host nemoclaw term`,
		Args:              usageArgs(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
	}, func(cmd *cobra.Command, d *api.Client, _ []string) error {
		if !term.Is(os.Stdin) || !term.Is(os.Stdout) {
			return errors.New("term: standard input and output must be a terminal; a script uses nemoclaw approvals list --follow -o json")
		}
		ctx, stop := interruptible(cmd.Context())
		defer stop()
		return tui.Run(ctx, d, tui.Options{Colours: os.Getenv("NO_COLOR") == "", Shell: shellIn(cmd.Flag("socket").Value.String())})
	})
}

// shellIn opens a shell in a sandbox as `nemoclaw NAME connect` does. What that says of a failure stays to be read.
func shellIn(socket string) func(name string) error {
	return func(name string) error {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		fmt.Printf("A shell in %s; exit goes back to the console.\n", name)
		cmd := exec.Command(self, name, "connect", "--socket", socket)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		var exit *exec.ExitError
		err = cmd.Run()
		if errors.As(err, &exit) && (exit.ExitCode() < agent.StatusFailed || exit.ExitCode() > agent.StatusNotFound) {
			return nil // the shell's own
		}
		if err != nil {
			fmt.Print("Enter goes back to the console. ")
			_, _ = bufio.NewReader(os.Stdin).ReadString('\n') // whatever was typed
		}
		return err
	}
}
