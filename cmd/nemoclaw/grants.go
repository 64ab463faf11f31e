package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nemoclaw/nemoclaw/agent/text"
	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

// inForce is what decides about a sandbox: its policy's rules, and what persons answered since.
type inForce struct {
	Rules  []listedRule `json:"rules"`
	Grants []api.Grant  `json:"grants"`
}

type listedRule struct {
	Verdict string `json:"verdict"`
	Rule    string `json:"rule"` // as YAML, on one line
	At      string `json:"at"`   // FILE:LINE, preset:NAME:LINE
	Expired bool   `json:"expired,omitempty"`
}

func newPolicyList(name string) *cobra.Command {
	return showing(&cobra.Command{
		Use:   "list",
		Short: "List the rules, each with where it stands, and the grants",
		Long: `list shows every rule of the policy, those of its presets too, in the words of the policy language; one whose
time is over is marked as expired. What no rule covers is refused, or asked about where the policy says so. Below the rules
are the grants: answers to requests that hold for a while. They go before rules that ask and before the default.

Exit status: 0 listed, 1 not, 2 wrong usage.`,
		Example: "  nemoclaw " + name + " policy list",
	}, func(cmd *cobra.Command, d *api.Client, _ []string) (f inForce, err error) {
		p, err := d.Policy(cmd.Context(), name, 0)
		if err != nil {
			return f, err
		}
		if f.Rules, err = listRules(p); err != nil {
			return f, err
		}
		f.Grants, err = d.Grants(cmd.Context(), name)
		return f, err
	}, func(cmd *cobra.Command, f inForce) error {
		out := cmd.OutOrStdout()
		t := newTable(out, "VERDICT", "RULE", "WHERE")
		for _, r := range f.Rules {
			verdict := r.Verdict
			if r.Expired {
				verdict = "expired"
			}
			t.row(verdict, r.Rule, r.At)
		}
		if err := t.flush(); err != nil || len(f.Grants) == 0 {
			return err
		}
		fmt.Fprintln(out)
		return showGrants(out, f.Grants)
	})
}

// listRules reads the rules of a policy, in the order in which they stand.
func listRules(p api.PolicyText) ([]listedRule, error) {
	parsed, err := policy.Parse(p.Name, []byte(p.Text))
	if err != nil {
		return nil, err
	}
	c, err := policy.Compile(parsed)
	if err != nil {
		return nil, err
	}
	rules := []listedRule{}
	for _, r := range c.Rules[1:] {
		verdict, rule, _ := strings.Cut(r.Text, ": ")
		rules = append(rules, listedRule{verdict, rule, r.Pos, slices.Contains(p.Expired, r.Pos+": "+r.Text)})
	}
	return rules, nil
}

func showGrants(out io.Writer, grants []api.Grant) error {
	t := newTable(out, "VERDICT", "GRANT", "WHAT", "UNTIL", "WHO")
	for _, g := range grants {
		t.row(g.Verdict, g.ID, granted(g), lasts(g), g.Who)
	}
	return t.flush()
}

// granted says what a grant is about.
func granted(g api.Grant) escaped {
	s := text.Escape(g.Plane+" "+g.Action+" ") + objectText(g.Plane, g.Object, maxObject)
	if g.Program != "" && g.Program != g.Object {
		s += " by " + text.Short(g.Program, 80)
	}
	if g.Taint != "" {
		s += " with " + text.Short(g.Taint, 60)
	}
	return escaped(s)
}

// lasts says when a grant ends.
func lasts(g api.Grant) string {
	if g.Scope == api.ScopeOnce {
		return "the next attempt"
	}
	return until(g.Until)
}

func newPolicyRevoke(name string) *cobra.Command {
	return talking(&cobra.Command{
		Use:   "revoke GRANT...",
		Short: "Take grants back at once",
		Long: `revoke takes back answers that hold for a while, by the ids that policy list shows. What they had allowed is judged as before
they came, and connections that only they had allowed are closed. What was answered for always is a rule: policy remove.

Exit status: 0 they are gone, 1 one is not, 2 wrong usage.`,
		Example:           "  nemoclaw " + name + " policy list\n  nemoclaw " + name + " policy revoke 2c9d",
		Args:              ids(cobra.MinimumNArgs(1)),
		ValidArgsFunction: completeGrants(name),
	}, func(cmd *cobra.Command, d *api.Client, args []string) error {
		return each(args, func(id string) error {
			r, err := d.Revoke(cmd.Context(), name, id)
			if err != nil {
				return err
			}
			closed := "no connection was closed"
			if r.Closed == 1 {
				closed = "1 connection was closed"
			} else if r.Closed > 1 {
				closed = fmt.Sprintf("%d connections were closed", r.Closed)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: revoked: %s %s; %s\n", text.Escape(r.Grant.ID), text.Escape(r.Grant.Verdict), granted(r.Grant), closed)
			return nil
		})
	})
}

// completeGrants completes the ids of the grants of a sandbox.
func completeGrants(name string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		return completed(cmd, func(ctx context.Context, d *api.Client) (words []string, err error) {
			list, err := d.Grants(ctx, name)
			for _, g := range list {
				if !slices.Contains(args, g.ID) {
					words = append(words, g.ID+"\t"+text.Escape(g.Verdict)+" "+string(granted(g)))
				}
			}
			return words, err
		})
	}
}
