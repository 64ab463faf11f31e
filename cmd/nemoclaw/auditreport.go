package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/nemoclaw/nemoclaw/agent/audit"
	"github.com/nemoclaw/nemoclaw/agent/config"
	"github.com/nemoclaw/nemoclaw/agent/report"
)

func newAuditReport() *cobra.Command {
	var frame, since, until, key, dir string
	var out document
	s := report.Source{}
	cmd := &cobra.Command{
		Use:   "report --framework FRAMEWORK [FILE|DIR...]",
		Short: "Report who accessed what, when, under which rule and which approval",
		Long: `report writes what the logs are evidence of for an auditor: who accessed what, when, under which rule of which policy and which
approval, for each requirement of a framework with what a log can't show of it. On top it says whether the logs are whole: the
chain is verified first, and the signatures with this host's key where it can be read (root), or with --key. A log that is not
whole gives a report too, which says so, and exit status 1.

The report is Markdown or one HTML page that loads nothing and runs nothing. Its tables show the most frequent, and say how many
more there are and what finds them. It names persons, programs and what they did: keep it as you keep the log.

` + howToSelectLogs + `

Exit status: 0 written, 1 a log is not whole or can't be read, or the report can't be written, 2 wrong usage.`,
		Example: `  sudo nemoclaw audit report --framework soc2 --since 2026-10-01 --format html --output soc2.html
  sudo nemoclaw audit report --framework hipaa --sandbox my-assistant
  nemoclaw audit report --framework gdpr --key ed25519:BZQJC/ZG... agent.jsonl`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !slices.Contains(report.Frameworks(), frame) {
				return usage(fmt.Errorf("--framework %q: want %s", frame, orWords(report.Frameworks())))
			}
			write, err := out.form()
			if err != nil {
				return err
			}
			now := time.Now()
			if s.Filter.From, err = parseTime("since", since, now); err != nil {
				return err
			}
			if s.Filter.To, err = parseTime("until", until, now); err != nil {
				return err
			}
			if key != "" {
				k, err := audit.ParseKey(key)
				if err != nil {
					return usage(err)
				}
				s.Known.Keys = append(s.Known.Keys, k)
			} else if s.Own, err = audit.ReadSigner(dir); err != nil {
				s.NoOwn = "this host's key can't be read: " + err.Error()
			}
			s.Named = args
			if len(args) == 0 {
				args = []string{config.DefaultAudit}
			}
			if s.Logs, err = logs(args); err != nil {
				return err
			}
			slices.Sort(s.Logs)
			s.Logs = slices.Compact(s.Logs)
			end := waiting(cmd, "reading %s", count(len(s.Logs), "log", "logs"))
			d, whole, err := report.Audit(cmd.Context(), frame, &s, now, programVersion())
			end()
			if err != nil {
				return err
			}
			if err := out.write(cmd.OutOrStdout(), write, d); err != nil {
				return err
			}
			if !whole {
				return errors.New("a log is not whole, or could not be verified: the report says which, and what of it is no evidence")
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&frame, "framework", "", "`FRAMEWORK`: "+orWords(report.Frameworks())+" (required)")
	f.StringVar(&since, "since", "", "not before this `TIME`")
	f.StringVar(&until, "until", "", "not after this `TIME`")
	f.StringVar(&s.Filter.Sandbox, "sandbox", "", "only of the sandbox of this `NAME`")
	f.StringVar(&key, "key", "", "public `KEY` of the checkpoints, as \"nemoclaw audit key\" prints it (default: this host's)")
	keyDir(cmd, &dir)
	out.flags(cmd, "md")
	completeFlag(cmd, "framework", report.Frameworks()...)
	return cmd
}

// orWords lists words as a person would: a, b or c.
func orWords(words []string) string {
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// document is what the flags of a command that writes a report say about its form and place.
type document struct{ format, output string }

func (o *document) flags(cmd *cobra.Command, format string) {
	cmd.Flags().StringVar(&o.format, "format", format, "`FORMAT`: md (Markdown) or html")
	cmd.Flags().StringVar(&o.output, "output", "", "to a new `FILE` that only you can read (default: standard output)")
	completeFlag(cmd, "format", "md", "html")
	must(cmd.MarkFlagFilename("output"))
}

func (o *document) form() (func(io.Writer, *report.Document) error, error) {
	write := report.Formats[o.format]
	if write == nil {
		return nil, usage(fmt.Errorf("--format %q: want md or html", o.format))
	}
	return write, nil
}

// write puts a document in its place, whole or not at all.
func (o *document) write(stdout io.Writer, write func(io.Writer, *report.Document) error, d *report.Document) error {
	var b bytes.Buffer
	if err := write(&b, d); err != nil {
		return err
	}
	if o.output == "" {
		_, err := stdout.Write(b.Bytes())
		return err
	}
	f, err := os.OpenFile(o.output, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("--output: %s exists already: name another file, or remove it", o.output)
	}
	if err != nil {
		return fmt.Errorf("--output: %w", err)
	}
	_, err = f.Write(b.Bytes())
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(o.output))
	}
	return nil
}
