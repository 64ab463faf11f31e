package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/nemoclaw/nemoclaw/agent/support"
	"github.com/nemoclaw/nemoclaw/agent/text"
)

func newDebug() *cobra.Command {
	var output, file string
	var records int
	cmd := &cobra.Command{
		Use:   "debug",
		Short: "Gather what a report needs into one file, without secrets",
		Long: `debug writes an archive with what doctor finds, versions, facts of the kernel, the state and the journal of the daemon, its
sandboxes, and the last records of the audit logs. Values of environments and settings are left out, and what looks like a
key, a password or a token is replaced. Names stay, of hosts, files, programs and sandboxes: read it before you send it.

Exit status: 0 written, 1 not, 2 wrong usage.`,
		Example: `  sudo nemoclaw debug
  sudo nemoclaw debug -o report.tar.gz && tar -xOzf report.tar.gz | less`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if records < 0 {
				return usage(errors.New("--records: want a number, 0 or more"))
			}
			cfg, err := daemonConfig(file)
			if err != nil {
				return err
			}
			now := time.Now()
			dir := "nemoclaw-debug-" + now.Format("20060102-150405")
			if output == "" {
				output = dir + ".tar.gz"
			}
			f, err := os.OpenFile(output, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			if errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("debug: %s is there already; name another file with -o", output)
			}
			if err != nil {
				return fmt.Errorf("debug: %w; name another file with -o", err)
			}
			files := support.Gather(cmd.Context(), support.Options{Config: cfg, Version: thisProgram(), Records: records}, programVersion())
			if err := errors.Join(support.Write(f, dir, now, files), f.Close()); err != nil {
				return fmt.Errorf("debug: %s: %w", output, errors.Join(err, os.Remove(output)))
			}
			out := cmd.OutOrStdout()
			for _, f := range files {
				fmt.Fprintln(out, text.Escape(f.String()))
			}
			fmt.Fprintf(out, "wrote %s; read it before you send it\n", text.Escape(output))
			if os.Geteuid() != 0 {
				fmt.Fprintln(cmd.ErrOrStderr(), "nemoclaw: this is not root, so much could not be read: sudo "+strings.Join(os.Args, " "))
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "write to a new `FILE` (default: nemoclaw-debug-TIME.tar.gz)")
	cmd.Flags().IntVar(&records, "records", 1000, "how many of the last records of each audit log")
	must(cmd.MarkFlagFilename("output", "tar.gz"))
	configFlag(cmd, &file)
	return cmd
}
