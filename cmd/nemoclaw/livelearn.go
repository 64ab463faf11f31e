package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/nemoclaw/nemoclaw/agent"
	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
	"github.com/nemoclaw/nemoclaw/policy/learn"
)

// learning is what `policy learn` was told.
type learning struct {
	since               string
	generalise, include []string
	prune, yes          bool
	change              api.PolicyChange
}

func newPolicyLearn(name string) *cobra.Command {
	var l learning
	var format string
	cmd := talking(&cobra.Command{
		Use:   "learn",
		Short: "Propose rules for what people approved, from the records",
		Long: `learn reads the audit log since the sandbox was last started, and proposes the rules that its policy lacks: for what a
person approved once, for the session or for a while, and no rule allows. Each rule is as narrow as what was approved: that
host, port and program, that file, that program. What was refused, or a person denied, is not proposed; --include refused
proposes what was refused and nobody denied. Rules that were of no use stay, unless --prune is given: a session
rarely does all that a sandbox is for.

On a terminal each change is shown as a diff with the reasons for it, and asked about: y makes it, n doesn't, a makes it and
all that follow, q none of them. What was accepted becomes one revision of the policy. Without a terminal the diff is printed,
and --yes makes all of it.

A time is a duration before now (90s, 1h30m, 7d), today, 2006-01-02, "2006-01-02 15:04" (local) or 2006-01-02T15:04:05Z.

` + changeStatus,
		Example: strings.ReplaceAll(`  nemoclaw NAME policy learn
  nemoclaw NAME policy learn --since 8h --generalise subdomains
  nemoclaw NAME policy learn --include refused --prune --dry-run
  nemoclaw NAME policy learn --yes`, "NAME", name),
		Args:              usageArgs(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
	}, func(cmd *cobra.Command, d *api.Client, _ []string) error {
		json, err := asJSON(format)
		if err != nil {
			return err
		}
		if json && (l.yes || l.change.DryRun || l.change.Restart) {
			return usage(errors.New("-o json: the proposals are printed, and nothing is changed; leave out --yes, --dry-run and --restart"))
		}
		return l.run(cmd, d, name, json)
	})
	f := cmd.Flags()
	f.StringVar(&l.since, "since", "", "not before this `TIME` (default: when it was last started)")
	f.StringSliceVar(&l.generalise, "generalise", nil, "make the rules wider: `WHAT` is dirs (two files make their directory a rule), subdomains (two names make a wildcard) or both")
	f.StringSliceVar(&l.include, "include", nil, "propose this `WHAT`, too: refused")
	f.BoolVar(&l.prune, "prune", false, "propose to take away rules that were of no use")
	f.BoolVarP(&l.yes, "yes", "y", false, "make all the changes, without questions")
	changeFlags(cmd, &l.change)
	completeFlag(cmd, "since")
	completeFlag(cmd, "generalise", agent.GeneraliseDirs, agent.GeneraliseSubdomains)
	completeFlag(cmd, "include", includeRefused)
	outputFlag(cmd, &format)
	return cmd
}

const includeRefused = "refused"

func (l *learning) check() error {
	for _, w := range l.generalise {
		if w != agent.GeneraliseDirs && w != agent.GeneraliseSubdomains {
			return usage(fmt.Errorf("--generalise %q: want %s or %s", w, agent.GeneraliseDirs, agent.GeneraliseSubdomains))
		}
	}
	for _, w := range l.include {
		if w != includeRefused {
			return usage(fmt.Errorf("--include %q: want %s", w, includeRefused))
		}
	}
	return nil
}

func (l *learning) run(cmd *cobra.Command, d *api.Client, name string, json bool) error {
	if err := l.check(); err != nil {
		return err
	}
	ctx := cmd.Context()
	from, err := l.from(ctx, d, name)
	if err != nil {
		return err
	}
	was, err := d.Policy(ctx, name, 0)
	if err != nil {
		return err
	}
	found, err := l.proposals(ctx, d, name, was, from)
	if err != nil {
		return err
	}
	list, err := weigh(was, found.List)
	if err != nil {
		return err
	}
	if json {
		return printJSON(cmd.OutOrStdout(), proposed(was, from, found, list))
	}
	l.change.Expect = was.Revision
	notProposed(cmd.ErrOrStderr(), found)
	if len(list) == 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "nemoclaw: nothing to propose: the policy of %s allows what was approved since %s\n", name, from.Local().Format(time.DateTime))
		return nil
	}
	p, err := findPerson()
	switch {
	case l.yes || l.change.DryRun || errors.Is(err, errNobody):
		return l.all(cmd, d, name, was, list)
	case err != nil:
		return err
	}
	defer p.close()
	text, err := choose(ctx, p, was, list)
	if err != nil {
		return fmt.Errorf("nothing was changed: %w", err)
	}
	return l.apply(cmd, d, name, was, text)
}

// from is the time of the first record that counts. Records of a sandbox of the same name that was destroyed are another's.
func (l *learning) from(ctx context.Context, d *api.Client, name string) (time.Time, error) {
	from, err := parseTime("since", l.since, time.Now())
	if err != nil {
		return from, err
	}
	s, err := d.Get(ctx, name)
	if err != nil {
		return from, err
	}
	switch {
	case !from.IsZero():
	case s.Started != nil:
		from = *s.Started
	default:
		system := api.Events{Sandbox: name, From: s.Created, Planes: []string{string(policy.PlaneSystem)}}
		err = d.Events(ctx, system, func(_ []byte, r policy.Decision) error {
			if r.Action == "start" {
				from = r.Time
			}
			return nil
		})
	}
	if from.Before(s.Created) {
		from = s.Created
	}
	return from, err
}

// proposals reads the records: first those of the system, which have the answers, then all others.
func (l *learning) proposals(ctx context.Context, d *api.Client, name string, was api.PolicyText, from time.Time) (*learn.Proposals, error) {
	list, err := d.Revisions(ctx, name)
	if err != nil {
		return nil, err
	}
	known := revisions{list: list, get: func(n int) (api.PolicyText, error) { return d.Policy(ctx, name, n) }}
	s, err := learn.NewSession(learn.SessionOptions{
		File: was.Name, Text: []byte(was.Text), Revision: known.find, Since: known.since, Prune: l.prune, Refused: len(l.include) > 0,
		Dirs: slices.Contains(l.generalise, agent.GeneraliseDirs), Subdomains: slices.Contains(l.generalise, agent.GeneraliseSubdomains),
	})
	if err != nil {
		return nil, err
	}
	records := api.Events{Sandbox: name, From: from, Planes: []string{string(policy.PlaneSystem)}}
	err = d.Events(ctx, records, func(_ []byte, r policy.Decision) error {
		s.Answer(&r)
		return nil
	})
	if err != nil {
		return nil, err
	}
	records.Planes = []string{string(policy.PlaneNetwork), string(policy.PlaneExec), string(policy.PlaneFile)}
	if err := d.Events(ctx, records, func(_ []byte, r policy.Decision) error { return s.Add(&r) }); err != nil {
		return nil, err
	}
	return s.Proposals()
}

// revisions finds the policies that records are of.
type revisions struct {
	list     []api.PolicyText // without their texts, the newest first
	get      func(number int) (api.PolicyText, error)
	compiled map[int]*policy.Compiled // nil: it can't be compiled any more
}

// find returns the policy of a hash that was there at a time. Several can have the same hash, and their rules on other lines.
func (r *revisions) find(hash string, at time.Time) (*policy.Compiled, error) {
	i := slices.IndexFunc(r.list, func(p api.PolicyText) bool { return p.Hash == hash && !p.When.After(at) })
	if i < 0 {
		return nil, nil
	}
	c, err := r.compile(r.list[i].Revision)
	if c != nil && c.Revision != hash { // a preset says something else by now
		c = nil
	}
	return c, err
}

// since returns the policies that were there from a time on.
func (r *revisions) since(at time.Time) (list []*policy.Compiled, err error) {
	for _, p := range r.list {
		c, err := r.compile(p.Revision)
		if err != nil {
			return nil, err
		}
		if c != nil {
			list = append(list, c)
		}
		if !p.When.After(at) {
			break
		}
	}
	return list, nil
}

// compile returns a revision's policy; nil where it can't be compiled any more.
func (r *revisions) compile(n int) (*policy.Compiled, error) {
	if c, known := r.compiled[n]; known {
		return c, nil
	}
	p, err := r.get(n)
	if err != nil {
		return nil, err
	}
	var c *policy.Compiled
	if parsed, err := policy.Parse(p.Name, []byte(p.Text)); err == nil {
		if now, err := policy.Compile(parsed); err == nil {
			c = now
		}
	}
	if r.compiled == nil {
		r.compiled = map[int]*policy.Compiled{}
	}
	r.compiled[n] = c
	return c, nil
}

// notProposed tells what has no proposal, and why.
func notProposed(out io.Writer, found *learn.Proposals) {
	for _, x := range found.Left {
		fmt.Fprintf(out, "nemoclaw: not proposed: %s\n", leftOut(x))
	}
	if found.More > 0 {
		fmt.Fprintf(out, "nemoclaw: and %d more that are not proposed\n", found.More)
	}
	if found.Missed > 0 {
		fmt.Fprintf(out, "nemoclaw: %d attempts were too many to be looked at: rules may be missing; `logs` shows them all\n", found.Missed)
	}
}

func leftOut(x learn.Left) string {
	s := x.What
	if x.Count > 1 {
		s = fmt.Sprintf("%d times %s", x.Count, s)
	}
	return s + ": " + x.Why
}
