package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/nemoclaw/nemoclaw/agent/audit"
	"github.com/nemoclaw/nemoclaw/agent/audit/export"
	"github.com/nemoclaw/nemoclaw/agent/config"
	"github.com/nemoclaw/nemoclaw/agent/text"
	"github.com/nemoclaw/nemoclaw/api"
)

const (
	shownToErase = 5       // records of each log that are shown before they are erased
	eraseAtOnce  = 500_000 // bytes of their numbers in one request
)

// erasure is what the flags of erase say.
type erasure struct {
	match, records, reason string
	sel                    selection
	dryRun, yes, json      bool
	keyDir                 string
}

func newAuditErase() *cobra.Command {
	var format string
	e := &erasure{}
	cmd := &cobra.Command{
		Use:   "erase [FILE|DIR...]",
		Short: "Take texts out of audit logs, so that the rest can still be verified",
		Long: `erase takes the texts out of records, for good: object, program, arguments, reason, and what was said in model and tool calls.
That something was decided, when, about which sandbox and by which rule stays, and so does every hash: the log can be verified as
before. A record of the log says which ones were erased, by whom and why; it is signed before any text goes.

--match finds a text in what can be erased, whatever its case; --seq names records of one log by their numbers, as "audit search -o
json" shows them. erase shows what it would take out, and asks; where there is no terminal, say --yes. In a log that the daemon
writes the daemon does it, for root; another log must not be in use.

What is erased is in none of the log's files any more. The disk's own blocks, backups, receivers of records (docs/forwarding.md) and
whoever followed the log have what they have got. Records of version 1, which have no "salt", can't be erased.

Without FILE or DIR the logs are those in ` + config.DefaultAudit + `. ` + howToTime + `

Exit status: 0 erased, or there was nothing to erase; 1 not, or not all of it; 2 wrong usage.`,
		Example: `  sudo nemoclaw audit erase --match jane.doe@example.com --reason "request 2026-117" --dry-run
  sudo nemoclaw audit erase --seq 812,900-904 --reason "a password was typed" /var/log/nemoclaw/audit/agent.jsonl`,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if e.json, err = asJSON(format); err != nil {
				return err
			}
			return e.run(cmd, args)
		},
	}
	f := cmd.Flags()
	f.StringVar(&e.match, "match", "", "records with this `TEXT` in what can be erased")
	f.StringVar(&e.records, "seq", "", "these `RECORDS` of one log: 7-9,12")
	f.StringVar(&e.sel.sandbox, "sandbox", "", "only of the sandbox of this `NAME`")
	f.StringVar(&e.sel.since, "since", "", "not before this `TIME`")
	f.StringVar(&e.sel.until, "until", "", "not after this `TIME`")
	f.StringVar(&e.reason, "reason", "", "`WHY`: written into the log, so without what is erased")
	f.BoolVar(&e.dryRun, "dry-run", false, "show what would be erased")
	f.BoolVarP(&e.yes, "yes", "y", false, "don't ask")
	keyDir(cmd, &e.keyDir)
	outputFlag(cmd, &format)
	socketFlag(cmd)
	return cmd
}

// plan is what there is to erase in one log.
type plan struct {
	audit.Survey
	lines [][]byte // the first of them
}

// selected reads the flags.
func (e *erasure) selected() (sel audit.Selection, err error) {
	switch {
	case (e.match == "") == (e.records == ""):
		return sel, usage(errors.New("say whose texts are to be erased: one of --match and --seq"))
	case e.reason == "" && !e.dryRun:
		return sel, usage(errors.New("say --reason: it is written down in place of what is erased"))
	case e.json && !e.yes && !e.dryRun:
		return sel, usage(errors.New("-o json shows no plan to agree to: say --dry-run, or --yes"))
	case e.match != "" && strings.Contains(strings.ToLower(e.reason), strings.ToLower(e.match)):
		return sel, usage(errors.New("the --reason has the text in it that is to be erased, and stays in the log"))
	}
	if sel.Filter, err = e.sel.filter(); err != nil {
		return sel, err
	}
	sel.Match = e.match
	if e.records != "" {
		if sel.Records, err = audit.ParseRanges(e.records); err != nil {
			return sel, usage(err)
		}
	}
	return sel, nil
}

func (e *erasure) run(cmd *cobra.Command, args []string) error {
	sel, err := e.selected()
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
	files = slices.Compact(files)
	if e.records != "" && len(files) > 1 {
		return usage(fmt.Errorf("--seq: numbers are those of one log, and here are %d: name one of %s", len(files), strings.Join(files, ", ")))
	}
	var plans []*plan
	var all uint64
	for _, file := range files {
		p, err := look(cmd, file, sel)
		if err != nil {
			return err
		}
		plans = append(plans, p)
		all += p.Records.Count()
	}
	out := cmd.OutOrStdout()
	if !e.json {
		for _, p := range plans {
			if err := p.show(out, len(plans) > 1); err != nil {
				return err
			}
		}
	}
	if all > 0 && !e.dryRun {
		if !e.yes {
			if err := confirmErase(cmd, all); err != nil {
				return err
			}
		}
		for _, p := range plans {
			if err := e.erase(cmd, p); err != nil {
				return err
			}
			if n := p.Records.Count(); n > 0 && !e.json {
				fmt.Fprintf(out, "%s: the texts of %s are erased\n", text.Escape(p.Path), count(int(n), "record", "records"))
			}
		}
	}
	if e.json {
		return printJSON(out, e.results(plans))
	}
	return nil
}

// results are what -o json shows.
func (e *erasure) results(plans []*plan) any {
	type result struct {
		File    string             `json:"file"`
		Erased  bool               `json:"erased"`  // false: it is only said what would be
		Records string             `json:"records"` // their numbers
		Count   uint64             `json:"count"`
		Files   []audit.SurveyFile `json:"files"` // they were found in
		Already uint64             `json:"already"`
		Old     uint64             `json:"old"`
		Keeps   uint64             `json:"keeps"`
		Named   uint64             `json:"named"`
	}
	list := []result{}
	for _, p := range plans {
		list = append(list, result{p.Path, !e.dryRun && p.Records != nil, p.Records.String(), p.Records.Count(), p.Files, p.Already, p.Old, p.Keeps, p.Named})
	}
	return list
}

// look finds what there is to erase in a log.
func look(cmd *cobra.Command, file string, sel audit.Selection) (*plan, error) {
	name, ok := strings.CutSuffix(filepath.Base(file), ".jsonl")
	if !ok {
		return nil, usage(fmt.Errorf("%s: name a log by its FILE.jsonl, or a directory of logs", file))
	}
	p := &plan{}
	tell := newTeller(cmd.ErrOrStderr())
	sel.Tell = func(seq, last uint64) {
		tell.say(func() string { return fmt.Sprintf("%s: record %d of %d", text.Escape(file), seq, last) })
	}
	var err error
	p.Survey, err = audit.Find(cmd.Context(), filepath.Dir(file), name, sel, func(line []byte) {
		if len(p.lines) < shownToErase {
			p.lines = append(p.lines, slices.Clone(line))
		}
	})
	return p, err
}

// show says what would be erased.
func (p *plan) show(out io.Writer, several bool) error {
	n := p.Records.Count()
	if n == 0 && several && p.Already+p.Old+p.Keeps+p.Named == 0 {
		return nil
	}
	switch name := text.Escape(p.Path); n {
	case 0:
		fmt.Fprintf(out, "%s: there is nothing to erase\n", name)
	default:
		fmt.Fprintf(out, "%s: the texts of %s can be erased: %s\n", name, count(int(n), "record", "records"), text.Short(p.Records.String(), 200))
	}
	for _, f := range p.Files {
		fmt.Fprintf(out, "  %s: %d\n", text.Escape(filepath.Base(f.Name)), f.Records)
	}
	for _, line := range p.lines {
		d, err := export.Parse(line)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "  %d: ", d.Seq)
		if err := showRecord(out, d); err != nil {
			return err
		}
		if d.Subject.Args != "" {
			fmt.Fprintf(out, "     arguments: %s\n", text.Short(d.Subject.Args, 200))
		}
	}
	if more := n - uint64(len(p.lines)); more > 0 {
		fmt.Fprintf(out, "  and %d more\n", more)
	}
	for _, left := range []struct {
		n   uint64
		why string
	}{
		{p.Already, "erased before"},
		{p.Old, "of version 1 of the log, which can't be erased: they go with their file (audit_max_age), or with the log"},
		{p.Keeps, "not erased: they say themselves what was erased"},
		{p.Named, "with the text in what stays of a record (a sandbox's name, a rule, a model)"},
	} {
		if left.n > 0 {
			fmt.Fprintf(out, "  %s: %s\n", count(int(left.n), "record", "records"), left.why)
		}
	}
	return nil
}

func confirmErase(cmd *cobra.Command, n uint64) error {
	p, err := findPerson()
	if errors.Is(err, errNobody) {
		return usage(fmt.Errorf("erase: %w; say --yes to erase without", err))
	}
	if err != nil {
		return err
	}
	defer p.close()
	ctx, stop := interruptible(cmd.Context())
	defer stop()
	answer, err := p.ask(ctx, fmt.Sprintf("Type yes to erase the texts of %s, for good", count(int(n), "record", "records")), "")
	switch {
	case err != nil:
		return fmt.Errorf("erase: %w; nothing was erased", err)
	case answer != "yes":
		return fmt.Errorf("erase: %q is not yes; nothing was erased", answer)
	}
	return nil
}

// erase does it in one log: the daemon does, where it is the one that writes that log.
func (e *erasure) erase(cmd *cobra.Command, p *plan) error {
	if p.Records == nil {
		return nil
	}
	d := daemon(cmd)
	if info, err := d.Info(cmd.Context()); err == nil && sameFile(info.AuditLog, p.Path) {
		return e.ask(cmd, d, p)
	}
	var o audit.Options
	if _, err := os.Lstat(p.Path + ".sig"); err == nil {
		if o.Signer, err = audit.ReadSigner(e.keyDir); err != nil {
			return fmt.Errorf("%s is signed, and so has to be the record of what is erased: %w; nothing was erased", p.Path, err)
		}
		switch own, err := o.Signer.Signs(p.Path); {
		case err != nil:
			return err
		case !own:
			return fmt.Errorf("%s is signed with another key than that of %s, and so has to be the record of what is erased: say --key-dir DIR; nothing was erased", p.Path, e.keyDir)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	w, err := audit.OpenChain(filepath.Dir(p.Path), strings.TrimSuffix(filepath.Base(p.Path), ".jsonl"), "", o)
	if errors.Is(err, audit.ErrInUse) {
		return fmt.Errorf("%w; nothing was erased: do it again when nobody writes there", err)
	} else if err != nil {
		return err
	}
	tell := newTeller(cmd.ErrOrStderr())
	s, err := w.Erase(cmd.Context(), audit.Erasure{Records: p.Records, Reason: e.reason, By: account()}, w.Recorder(), func(done, of int) {
		tell.say(func() string { return fmt.Sprintf("%s: file %d of %d", text.Escape(p.Path), done, of) })
	})
	p.Records = s.Records
	return errors.Join(err, w.Close())
}

// ask has the daemon erase, in parts that a request has room for.
func (e *erasure) ask(cmd *cobra.Command, d *api.Client, p *plan) error {
	var done audit.Ranges
	for _, part := range p.Records.Split(eraseAtOnce) {
		r, err := d.EraseAudit(cmd.Context(), api.Erase{Records: part.String(), Reason: e.reason})
		if err != nil {
			return err
		}
		if r.Records == "" {
			continue
		}
		list, err := audit.ParseRanges(r.Records)
		if err != nil {
			return fmt.Errorf("the daemon's answer: %w", err)
		}
		done = append(done, list...)
	}
	p.Records = done
	return nil
}

// account is whose process this is.
func account() string {
	u, err := user.Current()
	if err != nil {
		return strconv.Itoa(os.Getuid())
	}
	return u.Username
}

func sameFile(a, b string) bool {
	x, err1 := os.Stat(a)
	y, err2 := os.Stat(b)
	return err1 == nil && err2 == nil && os.SameFile(x, y)
}

// teller says how far something has come, once it takes more than a second.
type teller struct {
	out  io.Writer
	next time.Time
	n    int
}

func newTeller(out io.Writer) *teller { return &teller{out: out, next: time.Now().Add(time.Second)} }

func (t *teller) say(what func() string) {
	if t.n++; t.n%256 != 0 && t.n > 16 {
		return
	}
	if now := time.Now(); now.After(t.next) {
		t.next = now.Add(time.Second)
		fmt.Fprintf(t.out, "nemoclaw: %s\n", what())
	}
}
