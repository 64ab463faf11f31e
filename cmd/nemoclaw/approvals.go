package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/nemoclaw/nemoclaw/agent/text"
	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

func newApprovals() *cobra.Command {
	cmd := group("approvals", "Answer what sandboxes ask: list, show, approve, reject, watch",
		"  nemoclaw approvals list\n  nemoclaw approvals approve 7f3a\n  nemoclaw approvals reject --all --sandbox my-assistant",
		newApprovalsList(), newApprovalsWatch(), newApprovalsShow(), newApprove(), newReject())
	cmd.SuggestFor = []string{"proposals", "requests"}
	cmd.Long = `approvals shows what sandboxes attempted and a person may decide, and answers it: what a policy asks about, which waits for
the answer until a deadline, and what a policy's default refused, where the answer is for the next attempt. What a deny rule
refuses is not here: nemoclaw NAME logs --verdict deny.

An answer that holds for a while is a grant: nemoclaw NAME policy list shows it, policy revoke takes it back.`
	return cmd
}

// requestList is what list and watch are told.
type requestList struct {
	sandbox, format string
	follow          bool
}

func newApprovalsList() *cobra.Command {
	var l requestList
	cmd := talking(&cobra.Command{
		Use:        "list",
		SuggestFor: []string{"ls"},
		Short:      "List what waits for an answer",
		Long: `list shows every request that a person may answer: first what is held, with the time until it is denied, then what was
refused, the latest first. Equal attempts are one request. A request with a dangerous risk is marked with "!!".

With --follow it goes on with what comes, also over a restart of the daemon: a line when a request is new, and one when its
state changes. With -o json each line is a JSON object, a RequestChange of the daemon's interface: at first {"reset":true},
then a "request" for each that there is and {"complete":true}, then one for each that is new or changed, whose "state" says
what it is now: held, refused, approved, rejected or withdrawn. "unlisted" counts, by sandbox, the attempts that were denied
and are in no request, because there are too many.

Exit status: 0 listed, 1 not, 2 wrong usage.`,
		Example: `  nemoclaw approvals list
  nemoclaw approvals list --sandbox my-assistant -o json
  nemoclaw approvals list --follow -o json | jq --unbuffered -r '.request | select(.state == "held") | .id'`,
		Args:              usageArgs(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
	}, func(cmd *cobra.Command, d *api.Client, _ []string) error { return l.run(cmd, d) })
	l.flags(cmd)
	cmd.Flags().BoolVarP(&l.follow, "follow", "f", false, "go on with what comes, until interrupted")
	return cmd
}

func newApprovalsWatch() *cobra.Command {
	l := requestList{follow: true}
	cmd := talking(&cobra.Command{
		Use:   "watch",
		Short: "Show requests as they come: list --follow",
		Long: `watch is list --follow.

Exit status: 1 it can't go on, 2 wrong usage; without an error it goes on until it is interrupted.`,
		Example:           "  nemoclaw approvals watch --sandbox my-assistant",
		Args:              usageArgs(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
	}, func(cmd *cobra.Command, d *api.Client, _ []string) error { return l.run(cmd, d) })
	l.flags(cmd)
	return cmd
}

func (l *requestList) flags(cmd *cobra.Command) {
	sandboxFlag(cmd, &l.sandbox)
	outputFlag(cmd, &l.format)
}

// sandboxFlag adds --sandbox, which narrows a command to one.
func sandboxFlag(cmd *cobra.Command, name *string) {
	cmd.Flags().StringVar(name, "sandbox", "", "only what the sandbox of this `NAME` asks")
	must(cmd.RegisterFlagCompletionFunc("sandbox", func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return sandboxes(cmd, nil)
	}))
}

func (l *requestList) run(cmd *cobra.Command, d *api.Client) error {
	json, err := asJSON(l.format)
	if err != nil {
		return err
	}
	if l.sandbox != "" { // a sandbox that there is none of asks nothing either
		if _, err := d.Get(cmd.Context(), l.sandbox); err != nil {
			return err
		}
	}
	out, errs := cmd.OutOrStdout(), cmd.ErrOrStderr()
	switch {
	case l.follow && json:
		return d.FollowRequests(cmd.Context(), l.sandbox, func(c api.RequestChange) error { return printLine(out, c) })
	case l.follow:
		return d.FollowRequests(cmd.Context(), l.sandbox, (&following{out: out, errs: errs}).change)
	}
	list, err := d.Requests(cmd.Context(), l.sandbox)
	if err != nil {
		return err
	}
	if json {
		return printJSON(out, list)
	}
	if len(list) == 0 {
		fmt.Fprintln(errs, "nemoclaw: nothing waits for an answer")
		return nil
	}
	now := time.Now()
	t := newTable(out, "ID", "SANDBOX", "STATE", "TIMES", "LAST", "REQUEST")
	for _, r := range list {
		t.row(r.ID, r.Sandbox, stateOf(r, now), r.Count, ago(now.Sub(r.Last))+" ago", attempt(r))
	}
	return t.flush()
}

// printLine writes a value as one line of JSON.
func printLine(out io.Writer, v any) error { return encode(out, v, "") }

// stateOf is a request's state, and how long it has.
func stateOf(r api.Request, now time.Time) string {
	if r.State == api.Held && r.Until != nil {
		return "held, " + ago(r.Until.Sub(now)) + " left"
	}
	return string(r.State)
}

// How many characters of an object are shown: where a line is all that there is, and where all of it is to be seen.
const (
	maxObject = 100
	maxShown  = 4 * 4096 // of a path of PATH_MAX bytes, each spelt out
)

// attempt says on one line what was attempted, and marks what is dangerous.
func attempt(r api.Request) escaped {
	s := text.Escape(r.Plane+" "+r.Action+" ") + objectText(r.Plane, object(r), maxObject)
	if r.Program != "" && r.Program != r.Object { // what is executed is who it is
		s += " by " + text.Short(r.Program, 80)
	}
	if r.Dangerous {
		s = "!! " + s
	}
	return escaped(s)
}

// object is what was attempted, in its true bytes.
func object(r api.Request) string {
	if r.RawObject != nil {
		return string(r.RawObject)
	}
	return r.Object
}

// objectText shows an object in at most so many characters; a host's name as what it is and as what it is read as.
func objectText(plane, object string, limit int) string {
	if policy.Plane(plane) == policy.PlaneNetwork || policy.Plane(plane) == policy.PlaneDNS {
		if host, port, err := net.SplitHostPort(object); err == nil && strings.Trim(port, "0123456789") == "" {
			if _, err := netip.ParseAddr(host); err != nil {
				return text.Host(host) + ":" + port
			}
		}
	}
	return text.Short(object, limit)
}

// following shows what becomes of requests: a line for each new state.
type following struct {
	out, errs    io.Writer
	seen, before map[string]api.RequestState // by id; before: what was known when everything is told again
}

func (f *following) change(c api.RequestChange) error {
	if c.Reset || f.seen == nil {
		f.before, f.seen = f.seen, map[string]api.RequestState{}
	}
	if c.Complete {
		f.before = nil
	}
	for name, n := range c.Unlisted {
		fmt.Fprintf(f.errs, "nemoclaw: %s: %d attempts were denied and are in no request, because there are too many\n", text.Escape(name), n)
	}
	r := c.Request
	if r == nil {
		return nil
	}
	known, ok := f.seen[r.ID]
	if !ok {
		known = f.before[r.ID]
	}
	if f.seen[r.ID] = r.State; r.State != api.Held && r.State != api.Refused {
		delete(f.seen, r.ID) // it is never told again
	}
	if r.State == known {
		return nil
	}
	now := time.Now()
	state := stateOf(*r, now)
	if r.Answer != nil {
		state += " (" + r.Answer.Who + ")"
	}
	_, err := fmt.Fprintf(f.out, "%s %s %s %s: %s\n", now.Format(time.TimeOnly), text.Escape(r.ID), text.Escape(r.Sandbox), text.Escape(state), attempt(*r))
	return err
}

func newApprovalsShow() *cobra.Command {
	return showing(&cobra.Command{
		Use:   "show ID",
		Short: "Show all of a request, and what an answer can be about",
		Long: `show shows everything that is known of a request: what was attempted, by which program, the rule, the risks, and what can be
answered, each with the rule that --scope always would add. The ID may be shortened as long as it is one request's alone.

Exit status: 0 shown, 1 there is no such request, 2 wrong usage.`,
		Example:           "  nemoclaw approvals show 7f3a",
		Args:              ids(cobra.ExactArgs(1)),
		ValidArgsFunction: completeRequests(1),
	}, func(cmd *cobra.Command, d *api.Client, args []string) (api.Request, error) {
		return d.Request(cmd.Context(), args[0])
	}, func(cmd *cobra.Command, r api.Request) error {
		showRequest(cmd.OutOrStdout(), r, time.Now())
		return nil
	})
}

func showRequest(out io.Writer, r api.Request, now time.Time) {
	row := func(label, format string, args ...any) {
		fmt.Fprintf(out, "  %-10s %s\n", label, text.Escape(fmt.Sprintf(format, args...)))
	}
	fmt.Fprintf(out, "%s: %s\n", text.Escape(r.ID), text.Escape(stateOf(r, now)))
	row("sandbox", "%s", r.Sandbox)
	fmt.Fprintf(out, "  %-10s %s %s\n", "attempted", text.Escape(r.Plane+" "+r.Action), objectText(r.Plane, object(r), maxShown))
	if r.Program != "" {
		row("by", "%s [%d]", r.Program, r.PID)
	}
	args := r.Args
	if r.RawArgs != nil {
		args = string(r.RawArgs)
	}
	if args != "" {
		row("command", "%s", args)
	}
	for _, a := range r.Ancestors {
		row("started by", "%s [%d]", a.Args, a.PID)
	}
	if r.Taint != "" {
		row("taint", "%s", r.Taint)
	}
	row("rule", "%s", r.Rule)
	times := fmt.Sprintf("%d, first %s ago, last %s ago", r.Count, ago(now.Sub(r.First)), ago(now.Sub(r.Last)))
	if r.Held > 0 {
		times += fmt.Sprintf("; %d wait now", r.Held)
	}
	row("times", "%s", times)
	showRisks(out, r)
	if a := r.Answer; a != nil {
		row("answer", "%s, %s, by %s at %s", a.Verdict, a.Scope, a.Who, a.When.Local().Format(time.DateTime))
		return
	}
	for _, o := range r.Offers {
		scopes := make([]string, len(o.Scopes))
		for i, s := range o.Scopes {
			scopes[i] = string(s)
		}
		row("offer", "%s: %s (%s)", o.ID, o.Text, strings.Join(scopes, ", "))
		if o.YAML != "" {
			fmt.Fprintf(out, "%s\n", strings.TrimRight(indent(text.Lines(o.YAML), "               "), "\n"))
		}
	}
}

// showRisks shows what who answers should know.
func showRisks(out io.Writer, r api.Request) {
	for _, k := range r.Risks {
		label := "risk"
		if k.Dangerous {
			label = "!! risk"
		}
		fmt.Fprintf(out, "  %-10s %s\n", label, text.Escape(k.Text+" ("+k.Code+")"))
	}
}

// completeRequests completes up to limit ids of requests that can be answered.
func completeRequests(limit int) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) >= limit {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return completed(cmd, func(ctx context.Context, d *api.Client) (words []string, err error) {
			list, err := d.Requests(ctx, "")
			for _, r := range list {
				if !slices.Contains(args, r.ID) {
					words = append(words, r.ID+"\t"+text.Escape(r.Sandbox)+": "+string(attempt(r)))
				}
			}
			return words, err
		})
	}
}
