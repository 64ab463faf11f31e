package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/nemoclaw/nemoclaw/agent/text"
	"github.com/nemoclaw/nemoclaw/api"
)

// answering is what approve and reject are told.
type answering struct {
	answer  api.NewAnswer
	scope   string
	yes     bool
	all     bool // reject: everything, of sandbox or of all
	sandbox string
}

const answerHelp = `

The ID may be shortened as long as it is one request's alone.

An answer holds once, which is for what waits now and else for the next attempt, unless --scope says otherwise: session, until
the sandbox stops; for, as long as --for says, which alone will do; always, as a revision of the policy. It is about exactly
what was attempted unless --offer names something wider, such as host: nemoclaw approvals show ID lists what there is.
`

const answerStatus = `Exit status: 0 answered (with --dry-run: could be), 1 one was not, 2 wrong usage.`

func newApprove() *cobra.Command {
	a := answering{answer: api.NewAnswer{Verdict: "allow", By: "nemoclaw approvals"}}
	cmd := a.command(&cobra.Command{
		Use:   "approve ID...",
		Short: "Allow what was attempted",
		Long: `approve allows what was attempted: what waits goes on, and what was refused passes at the next attempt.` + answerHelp + `
What changes the policy is shown as a diff first, and a terminal is asked before it is done; so it is for a request that is
dangerous, which without a terminal needs --yes.

` + answerStatus,
		Example: `  nemoclaw approvals approve 7f3a
  nemoclaw approvals approve 7f3a --for 1h
  nemoclaw approvals approve 7f3a --offer host --scope always`,
		Args: ids(cobra.MinimumNArgs(1)),
	})
	cmd.Flags().BoolVar(&a.yes, "yes", false, "don't ask, and allow what is dangerous")
	return cmd
}

func newReject() *cobra.Command {
	a := answering{answer: api.NewAnswer{Verdict: "deny", By: "nemoclaw approvals"}}
	cmd := a.command(&cobra.Command{
		Use:   "reject ID...",
		Short: "Deny what was attempted",
		Long: `reject denies what was attempted: what waits fails at once.` + answerHelp + `
What changes the policy is shown as a diff first, and a terminal is asked before it is done.

` + answerStatus,
		Example: `  nemoclaw approvals reject 7f3a 81c0
  nemoclaw approvals reject 7f3a --scope always
  nemoclaw approvals reject --all --sandbox my-assistant`,
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case a.all == (len(args) > 0):
				return usage(errors.New("name the requests to reject, or give --all, not both"))
			case a.sandbox != "" && !a.all:
				return usage(errors.New("--sandbox: it narrows --all; an ID is one request's, whatever its sandbox"))
			}
			return ids(cobra.ArbitraryArgs)(cmd, args)
		},
	})
	cmd.Flags().BoolVar(&a.yes, "yes", false, "don't ask")
	cmd.Flags().BoolVar(&a.all, "all", false, "reject all that list shows")
	sandboxFlag(cmd, &a.sandbox)
	return cmd
}

// command adds what approve and reject share.
func (a *answering) command(c *cobra.Command) *cobra.Command {
	c.ValidArgsFunction = completeRequests(1 << 10)
	cmd := talking(c, func(cmd *cobra.Command, d *api.Client, args []string) error {
		if err := a.check(); err != nil {
			return usage(err)
		}
		if a.all {
			return a.everything(cmd, d)
		}
		return each(args, func(id string) error { return a.one(cmd, d, id) })
	})
	f := cmd.Flags()
	f.StringVar(&a.scope, "scope", "", "how long the answer holds: the `SCOPE` once, session, for or always (default: once)")
	f.StringVar(&a.answer.For, "for", "", "it holds for this `DURATION`, such as 1h30m")
	f.StringVar(&a.answer.Offer, "offer", "", "what it is about: this, or a wider `OFFER` of the request (default: this)")
	f.BoolVar(&a.answer.Restart, "restart", false, "restart the sandbox if the change of its policy can't be live")
	f.BoolVar(&a.answer.DryRun, "dry-run", false, "show what the answer would do, and do nothing")
	completeFlag(cmd, "scope", "once", "session", "for", "always")
	completeFlag(cmd, "for", "15m", "1h", "8h")
	must(cmd.RegisterFlagCompletionFunc("offer", completeOffers))
	return cmd
}

// check says what of the flags can't be.
func (a *answering) check() error {
	scopes := []api.Scope{"", api.ScopeOnce, api.ScopeSession, api.ScopeFor, api.ScopeAlways}
	if a.answer.Scope = api.Scope(a.scope); !slices.Contains(scopes, a.answer.Scope) {
		return fmt.Errorf("--scope %q: want once, session, for or always", a.scope)
	}
	if a.answer.For != "" {
		if d, err := time.ParseDuration(a.answer.For); err != nil || d <= 0 {
			return fmt.Errorf("--for %q: want a duration such as 30m or 1h30m", a.answer.For)
		}
		if a.answer.Scope == "" {
			a.answer.Scope = api.ScopeFor
		}
	}
	switch {
	case a.answer.Scope == api.ScopeFor && a.answer.For == "":
		return errors.New("--scope for: say how long, with --for DURATION")
	case a.answer.Scope != api.ScopeFor && a.answer.For != "":
		return fmt.Errorf("--scope %s and --for %s: an answer holds for one of them", a.answer.Scope, a.answer.For)
	}
	return nil
}

// everything answers all there is. What somebody else answers meanwhile needs no answer any more.
func (a *answering) everything(cmd *cobra.Command, d *api.Client) error {
	if a.sandbox != "" {
		if _, err := d.Get(cmd.Context(), a.sandbox); err != nil {
			return err
		}
	}
	list, err := d.Requests(cmd.Context(), a.sandbox)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		fmt.Fprintln(cmd.ErrOrStderr(), "nemoclaw: nothing waits for an answer")
	}
	ids := make([]string, len(list))
	for i, r := range list {
		ids[i] = r.ID
	}
	return each(ids, func(id string) error {
		err := a.one(cmd, d, id)
		if is(err, api.NotFound) || is(err, api.Conflict) {
			if _, gone := d.Request(cmd.Context(), id); gone != nil {
				return nil
			}
		}
		return err
	})
}

// one answers one request: the one that this id names now, and no other.
func (a *answering) one(cmd *cobra.Command, d *api.Client, id string) error {
	r, err := d.Request(cmd.Context(), id)
	if err != nil {
		return err
	}
	answer := a.answer
	answer.Confirm = a.yes || answer.DryRun // who only looks confirms nothing
	seen := false
	if !a.yes && !answer.DryRun {
		if answer.Confirm, seen, err = a.confirm(cmd, d, r); err != nil {
			return err
		}
	}
	done, err := d.Answer(cmd.Context(), r.ID, answer)
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	if done.Policy != nil && !seen {
		showDiff(out, done.Policy.Diff)
	}
	if answer.DryRun {
		fmt.Fprintf(out, "%s: %s would be %s\n", text.Escape(r.ID), attempt(r), held(answer))
	} else {
		fmt.Fprintf(out, "%s: %s\n", text.Escape(r.ID), answered(done))
	}
	if p := done.Policy; p != nil {
		warn(cmd, p.Warnings)
		fmt.Fprintf(cmd.ErrOrStderr(), "nemoclaw: %s\n", text.Lines(changed(r.Sandbox, *p, api.PolicyChange{Restart: answer.Restart, DryRun: answer.DryRun})))
	}
	return nil
}

// confirm asks a person about what is dangerous, and about what changes the policy, of which they have seen the diff then. Without a
// person what is dangerous is not done.
func (a *answering) confirm(cmd *cobra.Command, d *api.Client, r api.Request) (dangerous, seen bool, err error) {
	dangerous = r.Dangerous && a.answer.Verdict == "allow"
	wide := a.answer.Scope == api.ScopeAlways || a.answer.Offer != "" && a.answer.Offer != "this"
	if !dangerous && !wide {
		return false, false, nil
	}
	p, err := findPerson()
	if errors.Is(err, errNobody) && !dangerous {
		return false, false, nil
	}
	if errors.Is(err, errNobody) {
		return false, false, fmt.Errorf("this request is dangerous, and %w; read it (nemoclaw approvals show %s), and give --yes to allow it all the same", err, r.ID)
	}
	if err != nil {
		return false, false, err
	}
	defer p.close()
	would := a.answer
	would.DryRun, would.Confirm = true, true
	plan, err := d.Answer(cmd.Context(), r.ID, would)
	if err != nil {
		return false, false, err
	}
	if plan.Policy == nil && !dangerous {
		return false, false, nil
	}
	out := cmd.OutOrStdout()
	fmt.Fprintf(out, "%s: %s\n", text.Escape(r.ID), attempt(r))
	showRisks(out, r)
	if plan.Policy != nil {
		showDiff(out, plan.Policy.Diff)
		if len(plan.Policy.Restart) > 0 && !a.answer.Restart {
			return false, false, fmt.Errorf("%s: this needs a restart of %s, which --restart allows:\n  %s\nNothing was changed", r.ID, r.Sandbox, strings.Join(plan.Policy.Restart, "\n  "))
		}
	}
	ctx, stop := interruptible(cmd.Context())
	defer stop()
	return dangerous, plan.Policy != nil, confirmYes(ctx, p, "Type yes to "+cmd.Name()+" it, "+held(a.answer))
}

// confirmYes wants the word yes.
func confirmYes(ctx context.Context, p *person, question string) error {
	said, err := p.ask(ctx, question, "")
	switch {
	case err != nil:
		return fmt.Errorf("%w; it was not answered", err)
	case said != "yes":
		return fmt.Errorf("%q is not yes; it was not answered", said)
	}
	return nil
}

// held says how long an answer will hold.
func held(a api.NewAnswer) string {
	word := "allowed"
	if a.Verdict == "deny" {
		word = "denied"
	}
	switch a.Scope {
	case api.ScopeSession:
		return word + " until the sandbox stops"
	case api.ScopeFor:
		return word + " for " + a.For
	case api.ScopeAlways:
		return word + " always"
	}
	return word + " once"
}

// answered says what an answer did.
func answered(r api.AnswerResult) escaped {
	s := string(r.Request.State)
	if a := r.Request.Answer; a != nil {
		switch a.Scope {
		case api.ScopeFor:
			s += " until " + until(a.Until)
		case api.ScopeSession:
			s += " until the sandbox stops"
		default:
			s += " " + string(a.Scope)
		}
		if a.Scope == api.ScopeOnce && r.Grant != nil { // nothing waited
			s += ", for the next attempt"
		}
	}
	what := ""
	if g := r.Grant; g != nil {
		what = fmt.Sprintf("; to take it back: nemoclaw %s policy revoke %s", g.Sandbox, g.ID)
	}
	return escaped(text.Escape(s)+": ") + attempt(r.Request) + escaped(text.Escape(what))
}

// until is when something ends.
func until(t *time.Time) string {
	if t == nil {
		return "the sandbox stops"
	}
	return t.Local().Format(time.DateTime)
}

// completeOffers completes what an answer to the first request can be about.
func completeOffers(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	return completed(cmd, func(ctx context.Context, d *api.Client) (words []string, err error) {
		if len(args) == 0 {
			return []string{"this"}, nil
		}
		r, err := d.Request(ctx, args[0])
		for _, o := range r.Offers {
			words = append(words, o.ID+"\t"+text.Short(o.Text, 80))
		}
		return words, err
	})
}
