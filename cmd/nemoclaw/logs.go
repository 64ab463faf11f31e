package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/nemoclaw/nemoclaw/agent/text"
	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

func newLogs(name string) *cobra.Command {
	var format, since, until string
	q := api.Events{Sandbox: name}
	cmd := talking(&cobra.Command{
		Use:   "logs",
		Short: "Show what was decided about it, and go on with --follow",
		Long: `logs shows the decisions about a sandbox from the audit log: when, the verdict, what was attempted, by which program, and
the rule that decided. Without a limit it shows all of them. With -o json it shows the lines of the audit log as they are.

A time is a duration before now (90s, 1h30m, 7d), today, 2006-01-02, "2006-01-02 15:04" (local) or 2006-01-02T15:04:05Z.

Exit status: 0 shown, 1 not, 2 wrong usage.`,
		Example: `  nemoclaw ` + name + ` logs --follow
  nemoclaw ` + name + ` logs --verdict deny --since 1h
  nemoclaw ` + name + ` logs --plane network,dns -n 20 -o json`,
		Args:              usageArgs(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
	}, func(cmd *cobra.Command, d *api.Client, _ []string) error {
		asIs, err := asJSON(format)
		if err != nil {
			return err
		}
		now := time.Now()
		if q.From, err = parseTime("since", since, now); err != nil {
			return err
		}
		if q.To, err = parseTime("until", until, now); err != nil {
			return err
		}
		if err := checkWords(q); err != nil {
			return usage(err)
		}
		if q.Last < 0 {
			return usage(errors.New("-n: want a number of lines"))
		}
		if !q.To.IsZero() && q.Follow {
			return usage(errors.New("--until and --follow: what comes has no end"))
		}
		if _, err := d.Get(cmd.Context(), name); err != nil { // the log of a sandbox that never was is empty too
			return err
		}
		out := cmd.OutOrStdout()
		return d.Events(cmd.Context(), q, func(line []byte, d policy.Decision) error {
			if asIs {
				_, err := fmt.Fprintf(out, "%s\n", line)
				return err
			}
			return showRecord(out, d)
		})
	})
	f := cmd.Flags()
	f.BoolVarP(&q.Follow, "follow", "f", false, "go on with what comes, until interrupted")
	f.StringSliceVar(&q.Planes, "plane", nil, "only this `PLANE` ("+strings.Join(planes(), ", ")+"; several with commas)")
	f.StringSliceVar(&q.Verdict, "verdict", nil, "only this `VERDICT` (allow, ask or deny; several with commas)")
	f.StringVar(&since, "since", "", "not before this `TIME`")
	f.StringVar(&until, "until", "", "not after this `TIME`")
	f.IntVarP(&q.Last, "lines", "n", 0, "only the last `N` (default: all)")
	completeFlag(cmd, "plane", planes()...)
	completeFlag(cmd, "verdict", "allow", "ask", "deny")
	outputFlag(cmd, &format)
	return cmd
}

func planes() (words []string) {
	for _, p := range policy.Planes() {
		words = append(words, string(p))
	}
	return words
}

// checkWords says which plane or verdict there is none of.
func checkWords(q api.Events) error {
	for _, p := range q.Planes {
		if !slices.Contains(planes(), p) {
			return fmt.Errorf("--plane %q: want one of %s", p, strings.Join(planes(), ", "))
		}
	}
	for _, v := range q.Verdict {
		if new(policy.Verdict).UnmarshalText([]byte(v)) != nil {
			return fmt.Errorf("--verdict %q: want allow, ask or deny", v)
		}
	}
	return nil
}

// parseTime reads a time that a flag was given; "" is the zero time.
func parseTime(flag, s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	t, err := api.ParseTime(s, now)
	if err != nil {
		return t, usage(fmt.Errorf("--%s %w", flag, err))
	}
	return t, nil
}

func showRecord(out io.Writer, d policy.Decision) error {
	what := string(d.Plane) + " " + d.Action + " " + text.Short(d.Object, 200)
	if d.Subject.Exe != "" && d.Subject.Exe != d.Object { // what is executed is who it is
		what += " by " + text.Short(d.Subject.Exe, 80)
	}
	if d.Subject.PID != 0 {
		what += " [" + strconv.Itoa(d.Subject.PID) + "]"
	}
	if d.Count > 1 {
		what += " " + strconv.FormatUint(d.Count, 10) + " times"
	}
	why := text.Escape(d.Rule)
	if d.Reason != "" {
		why = text.Short(d.Reason, 300) + " (" + why + ")"
	}
	if more := modelCall(d.Inference); more != "" {
		why += "; " + more
	}
	verdict := d.Verdict.String()
	_, err := fmt.Fprintf(out, "%s %s%*s %s: %s\n", d.Time.Local().Format("2006-01-02 15:04:05.000"), paint(out, verdict), 5-len(verdict), "", what, why)
	return err
}

// modelCall is the rest of a model call's record in short.
func modelCall(c *policy.ModelCall) string {
	if c == nil {
		return ""
	}
	var parts []string
	add := func(is bool, format string, args ...any) {
		if is {
			parts = append(parts, fmt.Sprintf(format, args...))
		}
	}
	if t := c.Tool; t != nil {
		add(len(t.Through) > 0, "through %s", text.Short(strings.Join(t.Through, ", "), 80))
		add(t.Withheld, "%d bytes in, %d out, not written down", t.ParamsBytes, t.ResultBytes)
		add(t.Params != "", "%s", text.Short(t.Params, 200))
		add(t.Result != "", "gave %s", text.Short(t.Result, 200))
		add(t.Failed, "failed")
		return strings.Join(parts, "; ")
	}
	add(c.Asked != "", "asked for %s", text.Short(c.Asked, 80))
	add(len(c.Instead) > 0, "instead of %s", text.Short(strings.Join(c.Instead, ", "), 200))
	for _, m := range c.Matches {
		add(true, "%s %s", text.Escape(m.Kind), text.Short(m.Text, 60))
	}
	add(c.TokensIn+c.TokensOut > 0, "%d tokens in, %d out", c.TokensIn, c.TokensOut)
	add(true, "%d bytes in, %d out, %d ms", c.BytesIn, c.BytesOut, c.MS)
	return strings.Join(parts, "; ")
}
