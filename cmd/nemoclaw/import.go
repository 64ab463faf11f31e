package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/nemoclaw/nemoclaw/agent/text"
	"github.com/nemoclaw/nemoclaw/policy"
)

func newImport() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Convert an OpenShell policy or a NemoClaw preset to this language",
		Long: `import reads an OpenShell policy (version: 1, filesystem_policy, network_policies, ...) or a NemoClaw preset (preset:,
network_policies) and writes a policy that says the same, with the origin of each rule as a comment. What has no equal in
this language, such as rules about methods and paths of requests, is an error with file, line and key, up to 20 of them at
once: nothing is dropped and nothing is widened. docs/import.md says what becomes of each key.

Exit status: 0 converted, 1 not, 2 wrong usage.`,
		Example: `  nemoclaw policy import openshell-policy.yaml
  nemoclaw policy import -o agent.yaml openshell-policy.yaml
  nemoclaw policy import preset.yaml > mine.yaml && nemoclaw policy check mine.yaml`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			src, err := policy.ImportFile(args[0])
			if all := (policy.Errors)(nil); errors.As(err, &all) {
				if _, own := policy.Load(args[0]); own == nil {
					return fmt.Errorf("policy import: %s is a policy of this language already: there is nothing to convert; nemoclaw policy check says whether it is right", args[0])
				}
				fmt.Fprintln(cmd.ErrOrStderr(), text.Lines(err.Error()))
				return &statusError{status: statusFailed}
			}
			if err != nil {
				return err
			}
			if out == "" {
				_, err = cmd.OutOrStdout().Write(src)
				return err
			}
			if err := writeNew(out, src, false); err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "nemoclaw: wrote %s; read it, and ask it: nemoclaw policy explain %s --connect HOST:PORT\n", text.Escape(out), text.Escape(out))
			return nil
		},
	}
	cmd.Flags().StringVarP(&out, "out", "o", "", "write to a new `FILE` instead of standard output")
	must(cmd.MarkFlagFilename("out", "yaml", "yml"))
	return cmd
}
