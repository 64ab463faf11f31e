package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/nemoclaw/nemoclaw/api"
)

func newModels(name string) *cobra.Command {
	return showing(&cobra.Command{
		Use:   "models",
		Short: "List the models that answer it, how they are and what they took",
		Long: `models lists the models of a sandbox's policy, and the one of config set model: by which name a caller inside chooses each
(the one with a * before it answers all other names), whether it may see everything (local) or what the policy lets out
(cloud), whether it answered last, and what it took today (UTC). How long its answers take to the end and to their first
token is told of half of them and of 99 of 100, since the sandbox or the daemon was started, to the next step of 42 %. Below
is what is left of the day's budgets; what is held back for requests that are answered now is not left.

Exit status: 0 listed, 1 not, or it does not run, 2 wrong usage.`,
		Example: "  nemoclaw " + name + " models\n  nemoclaw " + name + " models -o json",
	}, func(cmd *cobra.Command, d *api.Client, _ []string) (api.Models, error) {
		return d.Models(cmd.Context(), name)
	}, showModels)
}

func showModels(cmd *cobra.Command, m api.Models) error {
	out := cmd.OutOrStdout()
	if len(m.Models) == 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "nemoclaw: no model answers: the policy's section inference names none; nemoclaw %s config set model PROVIDER/MODEL chooses one\n", cmd.Parent().Name())
	} else if err := showEach(out, m.Models); err != nil {
		return err
	}
	fmt.Fprintf(out, "\ntoday: %d tokens in, %d out, %s\n", m.Today.Input, m.Today.Output, dollars(m.Today.Cost))
	anew := m.Anew.Format("15:04 UTC")
	if b := m.Tokens; b != nil {
		fmt.Fprintf(out, "budget: %.0f tokens a day, %.0f left until %s\n", b.Most, b.Left, anew)
	}
	if b := m.Cost; b != nil {
		fmt.Fprintf(out, "budget: %s a day, %s left until %s\n", dollars(b.Most), dollars(b.Left), anew)
	}
	if m.Refused > 0 {
		fmt.Fprintf(out, "refused before a model was asked: %d (nemoclaw %s logs --plane inference --verdict deny)\n", m.Refused, cmd.Parent().Name())
	}
	return nil
}

func showEach(out io.Writer, models []api.Model) error {
	t := newTable(out, "NAME", "MODEL", "ROUTE", "REGION", "HEALTH", "TODAY", "IN", "OUT", "COST", "TO THE END", "FIRST TOKEN")
	for _, x := range models {
		name := x.Name
		if x.Chosen {
			name = "*" + name
		}
		t.row(orDash(name), x.Model, x.Route, orDash(x.Region), health(x), x.Today.Requests, x.Today.Input, x.Today.Output, dollars(x.Today.Cost), took(x.Latency), took(x.First))
	}
	return t.flush()
}

// health says how a model is, and what keeps it from answering.
func health(m api.Model) string {
	if m.Since == nil {
		return m.Health
	}
	return fmt.Sprintf("%s for %s: %s", m.Health, ago(time.Since(*m.Since)), m.Reason)
}

func dollars(x float64) string { return fmt.Sprintf("$%.4f", x) }

func took(q api.Quantiles) string {
	if q.P50 == 0 {
		return "-"
	}
	return fmt.Sprintf("%d, %d ms", q.P50.Milliseconds(), q.P99.Milliseconds())
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
