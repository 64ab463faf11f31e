package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nemoclaw/nemoclaw/agent/config"
	"github.com/nemoclaw/nemoclaw/agent/term"
	"github.com/nemoclaw/nemoclaw/agent/text"
	"github.com/nemoclaw/nemoclaw/agent/uninstall"
)

func newUninstall() *cobra.Command {
	var purge, purgeAudit, yes bool
	var file string
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Take NemoClaw off this host",
		Long: `uninstall stops the daemon and its sandboxes, takes the BPF programs and cgroups out of the kernel, and removes what
` + "`make install`" + ` put on this host. A file that was changed since then is left, and so is everything that is not ours.

What sandboxes keep, the configuration and the audit log stay, unless --purge and --purge-audit say otherwise.

Exit status: 0 it is gone, 1 something could not be removed, 2 wrong usage.`,
		Example: `  sudo nemoclaw uninstall
  sudo nemoclaw uninstall --purge --yes
  sudo nemoclaw uninstall --purge --purge-audit --yes`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if os.Geteuid() != 0 {
				return errors.New("uninstall: this needs root: run it with sudo")
			}
			cfg, err := config.Load(file)
			if err != nil {
				return err
			}
			program, err := os.Executable()
			if err != nil {
				return err
			}
			manifest, err := uninstall.Find(program)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			fmt.Fprintf(out, "The daemon and its sandboxes end, and what was installed goes.\n")
			if purge {
				fmt.Fprintf(out, "With it go all sandboxes with what they keep (%s) and the configuration.\n", text.Escape(cfg.StateDir))
			}
			if !yes {
				if err := confirm(cmd, "Go on?"); err != nil {
					return err
				}
				if purge && !purgeAudit {
					purgeAudit = confirm(cmd, fmt.Sprintf("Remove the audit log (%s) as well? It is the record of what was decided.", text.Escape(cfg.AuditDir))) == nil
				}
			}
			return uninstall.Run(cmd.Context(), uninstall.Options{
				Config: cfg, File: file, Manifest: manifest, Purge: purge, Audit: purgeAudit,
				Say: func(format string, args ...any) { fmt.Fprintln(out, text.Escape(fmt.Sprintf(format, args...))) },
			})
		},
	}
	cmd.Flags().BoolVar(&purge, "purge", false, "remove sandboxes, what they keep, and the configuration too")
	cmd.Flags().BoolVar(&purgeAudit, "purge-audit", false, "remove the audit log too")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "don't ask")
	configFlag(cmd, &file)
	return cmd
}

// confirm asks a question on the terminal. Without one nobody can have agreed.
func confirm(cmd *cobra.Command, question string) error {
	if !term.Is(os.Stdin) {
		return usage(errors.New("there is no terminal to ask on: say --yes"))
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s [y/N] ", question)
	answer, _ := bufio.NewReader(os.Stdin).ReadString('\n')
	if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
		return errors.New("nothing was removed")
	}
	return nil
}
