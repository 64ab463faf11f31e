package main

import (
	"context"
	"errors"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/nemoclaw/nemoclaw/api"
)

// socketVariable names the daemon's socket where --socket does not.
const socketVariable = "NEMOCLAW_SOCKET"

// socketFlag adds --socket to a command that talks to the daemon.
func socketFlag(cmd *cobra.Command) {
	cmd.Flags().String("socket", defaultSocket(), "`PATH` of the daemon's socket (default: "+socketVariable+", or "+api.DefaultSocket+")")
	cmd.Flags().Lookup("socket").DefValue = "" // it is in the text
	must(cmd.MarkFlagFilename("socket"))
}

func defaultSocket() string {
	if s := os.Getenv(socketVariable); s != "" {
		return s
	}
	return api.DefaultSocket
}

// daemon is the daemon that a command's --socket names. Nothing is sent yet.
func daemon(cmd *cobra.Command) *api.Client {
	if f := cmd.Flag("socket"); f != nil {
		return api.Dial(f.Value.String())
	}
	return api.Dial(defaultSocket())
}

// talking makes a command one that talks to the daemon.
func talking(cmd *cobra.Command, run func(cmd *cobra.Command, d *api.Client, args []string) error) *cobra.Command {
	socketFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return run(cmd, daemon(cmd), args) }
	return cmd
}

// showing makes a command one that asks the daemon for something and shows it: as JSON where -o says so, else as show does.
// One without Args takes none.
func showing[T any](cmd *cobra.Command, ask func(cmd *cobra.Command, d *api.Client, args []string) (T, error), show func(cmd *cobra.Command, v T) error) *cobra.Command {
	if cmd.Args == nil {
		cmd.Args, cmd.ValidArgsFunction = usageArgs(cobra.NoArgs), cobra.NoFileCompletions
	}
	var format string
	outputFlag(cmd, &format)
	return talking(cmd, func(cmd *cobra.Command, d *api.Client, args []string) error {
		json, err := asJSON(format)
		if err != nil {
			return err
		}
		v, err := ask(cmd, d, args)
		if err != nil {
			return err
		}
		if json {
			return printJSON(cmd.OutOrStdout(), v)
		}
		return show(cmd, v)
	})
}

// is reports whether the daemon's answer was an error of that kind.
func is(err error, code api.Code) bool {
	var e *api.Error
	return errors.As(err, &e) && e.Code == code
}

// completionTime is how long a shell that completes waits for the daemon.
const completionTime = 500 * time.Millisecond

// completed asks the daemon for words that complete a command line. What goes wrong completes nothing.
func completed(cmd *cobra.Command, ask func(ctx context.Context, d *api.Client) ([]string, error)) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(context.Background(), completionTime)
	defer cancel()
	words, err := ask(ctx, daemon(cmd))
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return words, cobra.ShellCompDirectiveNoFileComp
}

// sandboxes completes the names of those that are not in args yet.
func sandboxes(cmd *cobra.Command, args []string) ([]string, cobra.ShellCompDirective) {
	return completed(cmd, func(ctx context.Context, d *api.Client) (names []string, err error) {
		list, err := d.List(ctx)
		for _, s := range list {
			if !slices.Contains(args, s.Name) {
				names = append(names, s.Name+"\t"+string(s.State))
			}
		}
		return names, err
	})
}

func completeSandboxes(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	return sandboxes(cmd, args)
}

func completeSandbox(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return sandboxes(cmd, nil)
}
