package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/nemoclaw/nemoclaw/agent/audit"
	"github.com/nemoclaw/nemoclaw/agent/text"
)

func newAudit() *cobra.Command {
	return group("audit", "Verify audit logs", "  nemoclaw audit verify /var/log/nemoclaw/audit/run.jsonl", newVerify())
}

func newVerify() *cobra.Command {
	var format string
	var heads []string
	cmd := &cobra.Command{
		Use:   "verify FILE|DIR...",
		Short: "Say whether audit logs are whole, or name the first line that is not",
		Long: `verify follows the chain of hashes through a log and names the first line that was changed, lost or put elsewhere.
FILE.jsonl stands for its closed files FILE.000001.jsonl, ... too; each of those can be given alone; DIR is all logs in it.
FILE.head, which a run keeps beside FILE, shows lines lost at the end too. Who may write both files can forge both: keep
the head that verify prints on another machine, and give it with --head later.

Exit status: 0 all are whole, 1 one is not or can't be read, 2 wrong usage.`,
		Example: `  nemoclaw audit verify /var/log/nemoclaw/audit/run.jsonl
  nemoclaw audit verify -o json /var/log/nemoclaw/audit
  nemoclaw audit verify --head 1042:9f86d0... run.jsonl`,
		Args: usageArgs(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			json, err := asJSON(format)
			if err != nil {
				return err
			}
			var known []audit.Head
			for _, s := range heads {
				h, err := audit.ParseHead(s)
				if err != nil {
					return usage(err)
				}
				known = append(known, h)
			}
			files, err := logs(args)
			if err != nil {
				return err
			}
			return verify(cmd, files, known, json)
		},
	}
	cmd.Flags().StringArrayVar(&heads, "head", nil, "a `SEQ:HASH` that verify printed for the log before (can be given several times)")
	outputFlag(cmd, &format)
	return cmd
}

// logs puts the logs of a directory in its place.
func logs(args []string) ([]string, error) {
	var files []string
	for _, arg := range args {
		if st, err := os.Stat(arg); err != nil || !st.IsDir() {
			files = append(files, arg)
			continue
		}
		chains, err := audit.Chains(arg)
		if err == nil && chains == nil {
			err = fmt.Errorf("audit directory %s: there is no log in it", arg)
		}
		if err != nil {
			return nil, err
		}
		files = append(files, chains...)
	}
	return files, nil
}

func verify(cmd *cobra.Command, files []string, heads []audit.Head, json bool) error {
	type result struct {
		File string `json:"file"`
		OK   bool   `json:"ok"`
		audit.Report
		Head  string `json:"head,omitempty"` // SEQ:HASH of the last good line
		Error string `json:"error,omitempty"`
	}
	results := make([]result, len(files))
	out, errs := cmd.OutOrStdout(), cmd.ErrOrStderr()
	var bad error
	for i, file := range files {
		r, err := audit.VerifyFile(file, heads...)
		results[i] = result{File: file, OK: err == nil && r.Fault == nil, Report: r}
		if r.Lines > 0 {
			results[i].Head = r.Head.String()
		}
		if !results[i].OK {
			bad = &statusError{status: statusFailed}
		}
		name := text.Escape(file)
		switch {
		case err != nil:
			results[i].Error = err.Error()
			if !json {
				fmt.Fprintf(errs, "nemoclaw: %s\n", text.Escape(err.Error()))
			}
		case json:
		case r.Fault != nil:
			if r.Fault.File != "" {
				name = text.Escape(r.Fault.File)
			}
			fmt.Fprintf(out, "%s:%s\n", name, text.Escape(r.Fault.Error()))
		case r.Lines == 0:
			fmt.Fprintf(out, "%s: %s (empty)\n", name, paint(out, "ok"))
		case r.First > 1:
			fmt.Fprintf(out, "%s: %s (records %d to %d, head %s; older ones are not in these files)\n", name, paint(out, "ok"), r.First, r.Head.Seq, r.Head)
		default:
			fmt.Fprintf(out, "%s: %s (records %d to %d, head %s)\n", name, paint(out, "ok"), r.First, r.Head.Seq, r.Head)
		}
	}
	if json {
		if err := printJSON(out, results); err != nil {
			return err
		}
	}
	return bad
}
