package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/nemoclaw/nemoclaw/agent/report"
	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

func newReport(name string) *cobra.Command {
	var since, until string
	var out document
	cmd := talking(&cobra.Command{
		Use:   "report",
		Short: "Report what it did today, as a page with charts",
		Long: `report writes what a sandbox did: when it ran, the names and addresses, changed files, programs and commands, what was denied, asked about
and let through by a person, the tokens and cost of its models, its GPU hours. It is one HTML page that loads nothing and runs nothing,
or Markdown, and says what no record tells. It is made from what the daemon gives, as logs is; for evidence there is
"nemoclaw audit report", which verifies the log. Its times are UTC; today begins at midnight where you are.

` + howToTime + `

Exit status: 0 written, 1 not, 2 wrong usage.`,
		Example: `  nemoclaw ` + name + ` report --output today.html
  nemoclaw ` + name + ` report --since 24h --format md
  nemoclaw ` + name + ` report --since 2026-11-01 --until 2026-12-01 --output november.html`,
		Args:              usageArgs(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
	}, func(cmd *cobra.Command, d *api.Client, _ []string) error {
		write, err := out.form()
		if err != nil {
			return err
		}
		now := time.Now()
		from, err := parseTime("since", since, now)
		if err != nil {
			return err
		}
		to, err := parseTime("until", until, now)
		if err != nil {
			return err
		}
		if !to.IsZero() && !to.After(from) {
			return usage(fmt.Errorf("--until %s is not after --since %s: there is no time between them", until, since))
		}
		box, err := d.Get(cmd.Context(), name)
		if err != nil {
			return err
		}
		did := report.NewActivity(name, from, to)
		last := now
		if !to.IsZero() && to.Add(report.Late).Before(now) {
			last = to.Add(report.Late)
		}
		end := waiting(cmd, "reading the log of %s", name)
		defer end()
		if err := d.Events(cmd.Context(), api.Events{Sandbox: name, From: from, To: last}, func(_ []byte, d policy.Decision) error {
			did.Add(&d)
			return nil
		}); err != nil {
			return err
		}
		found, err := d.Changes(cmd.Context(), name, from, to)
		if ctx := cmd.Context().Err(); ctx != nil {
			return ctx
		}
		did.Changed(found, err)
		end()
		return out.write(cmd.OutOrStdout(), write, did.Document(&box, now, programVersion()))
	})
	cmd.Flags().StringVar(&since, "since", "today", "not before this `TIME`")
	cmd.Flags().StringVar(&until, "until", "", "not after this `TIME`; left out: now")
	completeFlag(cmd, "since", "today", "24h")
	completeFlag(cmd, "until", "today", "24h")
	out.flags(cmd, "html")
	return cmd
}
