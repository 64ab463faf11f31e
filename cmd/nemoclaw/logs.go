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

A time is a duration before now (90s, 1h30m), or 2006-01-02, "2006-01-02 15:04" (local) or 2006-01-02T15:04:05Z.

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
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly, "2006-01-02 15:04", time.DateTime} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, usage(fmt.Errorf(`--%s %q: want a duration such as 1h30m, or a time such as 2026-01-31, "2026-01-31 15:04" or 2026-01-31T15:04:05Z`, flag, s))
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
	verdict := d.Verdict.String()
	_, err := fmt.Fprintf(out, "%s %s%*s %s: %s\n", d.Time.Local().Format("2006-01-02 15:04:05.000"), paint(out, verdict), 5-len(verdict), "", what, why)
	return err
}
