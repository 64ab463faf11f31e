package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/nemoclaw/nemoclaw/agent/audit"
	"github.com/nemoclaw/nemoclaw/agent/config"
	"github.com/nemoclaw/nemoclaw/agent/text"
)

func newAudit() *cobra.Command {
	return group("audit", "Verify, search, export, erase in and report on audit logs", "  nemoclaw audit verify /var/log/nemoclaw/audit/run.jsonl", newVerify(), newAuditSearch(), newAuditExport(), newAuditErase(), newAuditReport(), newAuditKey())
}

// keyDir adds the flag that says where the key of this host's logs is.
func keyDir(cmd *cobra.Command, dir *string) {
	cmd.Flags().StringVar(dir, "key-dir", config.DefaultAuditKey, "`DIR` of this host's audit key: audit in the daemon's state_dir")
}

func newAuditKey() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "key",
		Short: "Print the public key that this host's audit logs are signed with",
		Long: `key prints the public key that the checkpoints of this host's audit logs are signed with, the daemon's and those of "nemoclaw run".
Keep it on another machine: whoever has it can verify the logs there with "nemoclaw audit verify --key", and can sign nothing. The
private key is root's.

Exit status: 0 printed, 1 there is none or it can't be read, 2 wrong usage.`,
		Example: "  sudo nemoclaw audit key",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := audit.ReadSigner(dir)
			if err != nil {
				return fmt.Errorf("%w; the daemon or the first run makes it, and root can read it; the key of a daemon with another state_dir: --key-dir DIR", err)
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), audit.FormatKey(s.Public()))
			return err
		},
	}
	keyDir(cmd, &dir)
	return cmd
}

// evidence is what the flags of verify tell about a log.
type evidence struct {
	heads, keys, anchors []string
	own                  bool
	dir                  string
}

// read reads what does not depend on the log.
func (e *evidence) read() (known audit.Evidence, s *audit.Signer, err error) {
	for _, text := range e.heads {
		h, err := audit.ParseHead(text)
		if err != nil {
			return known, nil, usage(err)
		}
		known.Heads = append(known.Heads, h)
	}
	for _, text := range e.keys {
		k, err := audit.ParseKey(text)
		if err != nil {
			return known, nil, usage(err)
		}
		known.Keys = append(known.Keys, k)
	}
	if e.own {
		if s, err = audit.ReadSigner(e.dir); err != nil {
			return known, nil, fmt.Errorf("--own: %w; the key of a daemon with another state_dir: --key-dir DIR", err)
		}
		known.Keys = append(known.Keys, s.Public())
	}
	if len(e.anchors) > 0 && known.Keys == nil {
		return known, nil, usage(errors.New("--anchor: give the --key too, which says that they are the log's"))
	}
	for _, file := range e.anchors {
		list, err := audit.ReadCheckpoints(file, known.Keys)
		if err != nil {
			return known, nil, err
		}
		known.Anchors = append(known.Anchors, list...)
	}
	return known, s, nil
}

func newVerify() *cobra.Command {
	var format string
	var e evidence
	cmd := &cobra.Command{
		Use:   "verify FILE|DIR...",
		Short: "Say whether audit logs are whole, or name the first line that is not",
		Long: `verify follows the chain of hashes through a log and names the first line that was changed, lost or put elsewhere.
FILE.jsonl stands for its closed files FILE.000001.jsonl, ... too; each of those can be given alone; DIR is all logs in it.
FILE.head, which is kept beside FILE, shows lines lost at the end too. Who may write both files can forge both: keep
the head that verify prints on another machine, and give it with --head later.

A log has checkpoints beside it, in FILE.sig, which are signed with a key of root's. With --key they must be there and
be right: they vouch for the log from its beginning to the record that verify names. Nobody can forge that without the key. What
came after it, 8,192 records and 5 seconds at most, and a log that ends early, are known by what was kept elsewhere: --head,
--anchor, or on the host itself --own.

Exit status: 0 all are whole, 1 one is not or can't be read, 2 wrong usage.`,
		Example: `  nemoclaw audit verify /var/log/nemoclaw/audit/run.jsonl
  nemoclaw audit verify -o json /var/log/nemoclaw/audit
  nemoclaw audit verify --head 1042:9f86d0... run.jsonl
  sudo nemoclaw audit verify --own /var/log/nemoclaw/audit`,
		Args: usageArgs(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			json, err := asJSON(format)
			if err != nil {
				return err
			}
			known, signer, err := e.read()
			if err != nil {
				return err
			}
			files, err := logs(args)
			if err != nil {
				return err
			}
			return verify(cmd, files, known, signer, json)
		},
	}
	cmd.Flags().StringArrayVar(&e.keys, "key", nil, "public `KEY` of the checkpoints, as \"nemoclaw audit key\" prints it (can be given several times)")
	cmd.Flags().BoolVar(&e.own, "own", false, "with this host's key, and the head that is kept with it")
	cmd.Flags().StringArrayVar(&e.anchors, "anchor", nil, "`FILE` with checkpoints that were kept elsewhere (can be given several times)")
	keyDir(cmd, &e.dir)
	cmd.Flags().StringArrayVar(&e.heads, "head", nil, "a `SEQ:HASH` that verify printed for the log before (can be given several times)")
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

// withOwn adds what the host's own key dir knows of one log.
func withOwn(known audit.Evidence, s *audit.Signer, file string) (audit.Evidence, error) {
	if s == nil {
		return known, nil
	}
	own, err := s.Evidence(file)
	known.Heads = append(slices.Clone(known.Heads), own.Heads...)
	return known, err
}

func verify(cmd *cobra.Command, files []string, known audit.Evidence, signer *audit.Signer, json bool) error {
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
		e, err := withOwn(known, signer, file)
		var r audit.Report
		if err == nil {
			end := waiting(cmd, "verifying %s", file)
			r, err = e.VerifyFile(file)
			end()
		}
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
		default:
			fmt.Fprintf(out, "%s: %s (%s)\n", name, paint(out, "ok"), whole(r, known.Keys != nil))
		}
	}
	if json {
		if err := printJSON(out, results); err != nil {
			return err
		}
	}
	return bad
}

// whole says what of a log that has no fault is there, and who vouches for it.
func whole(r audit.Report, asked bool) string {
	s := fmt.Sprintf("records %d to %d, head %s", r.First, r.Head.Seq, r.Head)
	if r.First > 1 {
		s += "; older ones are not in these files"
	}
	if r.Erased > 0 {
		s += fmt.Sprintf("; the texts of %d were erased", r.Erased)
	}
	if r.Unaccounted > 0 {
		s += fmt.Sprintf(", of %d no record in this file says so: verify the log with its other files", r.Unaccounted)
	}
	if r.Lost > 0 {
		s += fmt.Sprintf("; %d records were lost while the disk was full", r.Lost)
	}
	switch {
	case !asked:
	case r.Signed == nil:
		s += "; signed up to the record before them"
	case r.Signed.Seq == r.Head.Seq:
		s += "; signed, all of it, at " + r.Signed.Time.Format(time.RFC3339)
	default:
		s += fmt.Sprintf("; signed up to record %d, at %s: nobody vouches for the %d after it yet", r.Signed.Seq, r.Signed.Time.Format(time.RFC3339), r.Head.Seq-r.Signed.Seq)
	}
	return s
}
