package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nemoclaw/nemoclaw/agent/text"
	"github.com/nemoclaw/nemoclaw/policy"
)

func newInit() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "init [FILE]",
		Short: "Write a first policy",
		Long: `init writes the policy that run uses when it is given none to FILE (nemoclaw.yaml when left out, "-" for standard output),
for you to change. Keep it outside of the workspace, where the command could change it. It never replaces a file unless
told to.

Exit status: 0 written, 1 not, 2 wrong usage.`,
		Example: `  nemoclaw init
  nemoclaw init policies/agent.yaml
  nemoclaw init - | less`,
		Args: usageArgs(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			file := "nemoclaw.yaml"
			if len(args) == 1 {
				file = args[0]
			}
			if file == "-" {
				_, err := cmd.OutOrStdout().Write(policy.Initial())
				return err
			}
			if err := writeNew(file, policy.Initial(), force); errors.Is(err, errThere) {
				return fmt.Errorf("%w, or replace it with --force", err)
			} else if err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "nemoclaw: wrote %s; run with it: nemoclaw run --policy %s --workspace DIR -- COMMAND\n", text.Escape(file), text.Escape(file))
			return nil
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "replace the file if it is there")
	return cmd
}

var errThere = errors.New("is there already; name another file")

// writeNew writes a file that must not be there yet, unless force is set. It leaves no half-written file.
func writeNew(file string, data []byte, force bool) error {
	flags := os.O_WRONLY | os.O_CREATE | os.O_EXCL
	if force {
		flags = os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	}
	f, err := os.OpenFile(file, flags, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("write the policy: %s %w", file, errThere)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write the policy: %w; make the directory first", err)
	}
	if err != nil {
		return fmt.Errorf("write the policy: %w", err)
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err != nil {
		if !force {
			err = errors.Join(err, os.Remove(file))
		}
		return fmt.Errorf("write the policy: %w", err)
	}
	return nil
}

// indent puts a margin before every line of s.
func indent(s, margin string) string {
	var b strings.Builder
	for l := range strings.Lines(s) {
		b.WriteString(margin + l)
	}
	return b.String()
}
