// Command nemoclaw-agent is the daemon that owns the sandboxes of a host. This package is flags and wiring.
package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/nemoclaw/nemoclaw/agent/config"
	"github.com/nemoclaw/nemoclaw/agent/forward"
	"github.com/nemoclaw/nemoclaw/agent/hook"
	"github.com/nemoclaw/nemoclaw/agent/metrics"
	"github.com/nemoclaw/nemoclaw/agent/text"
	"github.com/nemoclaw/nemoclaw/agent/trace"
	"github.com/nemoclaw/nemoclaw/cmd/internal/flagerr"
)

// version is set by the release build (-ldflags "-X main.version=...").
var version string

func main() {
	if err := newRoot().Execute(); err != nil {
		fmt.Fprintf(os.Stderr, "nemoclaw-agent: %s\n", text.Lines(err.Error()))
		os.Exit(1)
	}
}

func newRoot() *cobra.Command {
	var check bool
	var flags *config.Flags
	root := &cobra.Command{
		Use:   "nemoclaw-agent",
		Short: "The daemon that runs AI agents in sandboxes",
		Long: `nemoclaw-agent owns every sandbox of this host; nemoclaw talks to it through a socket. It is started by systemd, and needs
root. When it is stopped or killed its sandboxes go on running, with every rule in force and without a network, until it
is started again and takes them back.

Settings are read from a file; flags win over it. Every path can be moved, so that two daemons on one host don't meet.

Exit status: 0 it was told to stop, or the configuration is right (--check); 1 otherwise.`,
		Example: `  systemctl enable --now nemoclaw-agent
  nemoclaw-agent --check --config /etc/nemoclaw/agent.yaml
  nemoclaw-agent --state-dir /srv/second/state --run-dir /run/second --audit /srv/second/audit --cgroup-parent second`,
		Version:       version,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := flags.Load()
			if err != nil {
				return err
			}
			if check {
				if _, err := hook.Open(cfg.Hooks, cfg.Socket, nil); err != nil {
					return err
				}
				if err := metrics.Check(cfg); err != nil {
					return err
				}
				if err := forward.Check(cfg.Forward); err != nil {
					return err
				}
				if err := trace.Check(cfg.Traces); err != nil {
					return err
				}
				fmt.Fprint(cmd.OutOrStdout(), cfg)
				return nil
			}
			return serve(cfg)
		},
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return flagerr.Explain(cmd.Flags(), err) })
	root.Flags().SortFlags = false
	root.Flags().BoolVar(&check, "check", false, "say whether the configuration is right, show what is in force, and end")
	flags = config.Bind(root.Flags())
	return root
}
