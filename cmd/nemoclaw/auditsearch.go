package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/nemoclaw/nemoclaw/agent/audit"
	"github.com/nemoclaw/nemoclaw/agent/audit/export"
	"github.com/nemoclaw/nemoclaw/agent/config"
	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

const howToSelect = `The logs are read as they are on the disk, whether the daemon runs or not; without FILE or DIR they are those in
` + config.DefaultAudit + `. FILE.jsonl stands for its closed and compressed files too. --text finds letters in the line of the log,
where they stand so: a quote mark or a backslash is escaped there.

` + howToTime

const howToSelectLogs = `The logs are read as they are on the disk, whether the daemon runs or not; without FILE or DIR they are those in
` + config.DefaultAudit + `. FILE.jsonl stands for its closed and compressed files too.

` + howToTime

const howToTime = `A time is a duration before now (90s, 1h30m, 7d), today, 2006-01-02, "2006-01-02 15:04" (local) or 2006-01-02T15:04:05Z.`

func newAuditSearch() *cobra.Command {
	var format string
	s := selection{}
	cmd := &cobra.Command{
		Use:   "search [FILE|DIR...]",
		Short: "Find records in audit logs",
		Long: `search shows the records that are looked for: when, the verdict, what was attempted, by which program, and the rule that
decided. With -o json it shows the lines of the log as they are.

` + howToSelect + `

Exit status: 0 searched, 1 a log can't be read, 2 wrong usage.`,
		Example: `  sudo nemoclaw audit search --verdict deny --since 24h
  sudo nemoclaw audit search --sandbox my-assistant --text example.com -n 20`,
		RunE: func(cmd *cobra.Command, args []string) error {
			asIs, err := asJSON(format)
			if err != nil {
				return err
			}
			out := bufio.NewWriterSize(cmd.OutOrStdout(), 64<<10)
			err = s.each(cmd.Context(), args, func(line []byte) error {
				if asIs {
					_, err := fmt.Fprintf(out, "%s\n", line)
					return err
				}
				d, err := export.Parse(line)
				if err != nil {
					return err
				}
				return showRecord(out, d)
			})
			return errors.Join(err, out.Flush())
		},
	}
	s.flags(cmd)
	outputFlag(cmd, &format)
	return cmd
}

func newAuditExport() *cobra.Command {
	var format string
	s := selection{}
	cmd := &cobra.Command{
		Use:   "export [FILE|DIR...]",
		Short: "Write records of audit logs in the format of another program",
		Long: `export writes the records that are looked for: jsonl, the lines as they are; csv, for a spreadsheet, where what it would take for
a formula begins with a quote mark; cef, ArcSight's Common Event Format; ocsf, events of the Open Cybersecurity Schema Framework 1.8.

` + howToSelect + `

Exit status: 0 written, 1 a log can't be read, 2 wrong usage.`,
		Example: `  sudo nemoclaw audit export --format csv --since 2026-11-01 > november.csv
  sudo nemoclaw audit export --format ocsf --sandbox my-assistant`,
		RunE: func(cmd *cobra.Command, args []string) error {
			f, ok := export.Formats[format]
			if !ok {
				return usage(fmt.Errorf("--format %q: want jsonl, csv, cef or ocsf", format))
			}
			out := bufio.NewWriterSize(cmd.OutOrStdout(), 64<<10)
			if _, err := out.WriteString(export.Header(format)); err != nil {
				return err
			}
			var buf []byte
			err := s.each(cmd.Context(), args, func(line []byte) error {
				d, err := export.Parse(line)
				if err != nil {
					return err
				}
				if buf, err = f(buf[:0], line, &d); err != nil {
					return err
				}
				_, err = out.Write(buf)
				return err
			})
			return errors.Join(err, out.Flush())
		},
	}
	s.flags(cmd)
	cmd.Flags().StringVar(&format, "format", "jsonl", "`FORMAT`: jsonl, csv, cef or ocsf")
	completeFlag(cmd, "format", "jsonl", "csv", "cef", "ocsf")
	return cmd
}

// selection is what the flags of search and export select.
type selection struct {
	since, until, text, sandbox string
	planes, verdicts            []string
	last                        int
}

func (s *selection) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&s.since, "since", "", "not before this `TIME`")
	f.StringVar(&s.until, "until", "", "not after this `TIME`")
	f.StringVar(&s.sandbox, "sandbox", "", "only of the sandbox of this `NAME`")
	f.StringSliceVar(&s.planes, "plane", nil, "only this `PLANE` ("+strings.Join(planes(), ", ")+"; several with commas)")
	f.StringSliceVar(&s.verdicts, "verdict", nil, "only this `VERDICT` (allow, ask or deny; several with commas)")
	f.StringVar(&s.text, "text", "", "only lines with this `TEXT`")
	f.IntVarP(&s.last, "lines", "n", 0, "only the last `N` of each log (default: all)")
	completeFlag(cmd, "plane", planes()...)
	completeFlag(cmd, "verdict", "allow", "ask", "deny")
}

// filter reads the flags.
func (s *selection) filter() (flt audit.Filter, err error) {
	now := time.Now()
	if flt.From, err = parseTime("since", s.since, now); err != nil {
		return flt, err
	}
	if flt.To, err = parseTime("until", s.until, now); err != nil {
		return flt, err
	}
	if err := checkWords(api.Events{Planes: s.planes, Verdict: s.verdicts}); err != nil {
		return flt, usage(err)
	}
	if s.last < 0 {
		return flt, usage(errors.New("-n: want a number of lines"))
	}
	flt.Sandbox, flt.Text, flt.Last = s.sandbox, s.text, s.last
	for _, p := range s.planes {
		flt.Planes = append(flt.Planes, policy.Plane(p))
	}
	for _, word := range s.verdicts {
		var v policy.Verdict
		if err := v.UnmarshalText([]byte(word)); err != nil {
			return flt, usage(err)
		}
		flt.Verdicts = append(flt.Verdicts, v)
	}
	return flt, nil
}

// each calls fn with the lines that are selected, log after log.
func (s *selection) each(ctx context.Context, args []string, fn func(line []byte) error) error {
	flt, err := s.filter()
	if err != nil {
		return err
	}
	if len(args) == 0 {
		args = []string{config.DefaultAudit}
	}
	files, err := logs(args)
	if err != nil {
		return err
	}
	slices.Sort(files)
	for _, file := range slices.Compact(files) {
		name, ok := strings.CutSuffix(filepath.Base(file), ".jsonl")
		if !ok {
			if _, err := os.Stat(file); err != nil {
				return fmt.Errorf("audit log: %w", err)
			}
			return usage(fmt.Errorf("%s: name a log by its FILE.jsonl, or a directory of logs", file))
		}
		if err := audit.Query(ctx, filepath.Dir(file), name, flt, func(_ uint64, line []byte) error { return fn(line) }); err != nil {
			return err
		}
	}
	return nil
}
