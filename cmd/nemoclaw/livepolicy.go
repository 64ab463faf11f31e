package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/nemoclaw/nemoclaw/agent/text"
	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

func newLivePolicy(name string) *cobra.Command {
	cmd := group("policy", "Show and change its policy while it runs", strings.ReplaceAll(`  nemoclaw NAME policy list
  nemoclaw NAME policy add --domain api.openai.com --port 443
  nemoclaw NAME policy remove --domain api.openai.com
  nemoclaw NAME policy rollback 3`, "NAME", name),
		newPolicyList(name), newPolicyGet(name), newPolicySet(name), newPolicyRule(name, true), newPolicyRule(name, false),
		newPolicyRevoke(name), newPolicyDiff(name), newPolicyHistory(name), newPolicyRollback(name), newPolicyLearn(name), newLiveExplain(name), newLivePreset(name))
	cmd.Long = `policy shows and changes the policy of a sandbox. Every change is a revision, with who made it, when and what; all of it is
in force at once or none. A rule that is taken away closes the connections that it had allowed; files that are open stay open.
At level static files and programs are fixed when a sandbox starts, at level full what its mounts can't let through: such changes
are refused unless --restart allows to restart it.`
	return cmd
}

func newPolicyGet(name string) *cobra.Command {
	return showing(&cobra.Command{
		Use:               "get [REVISION]",
		Short:             "Print the policy as it is written, or one of its revisions",
		Long:              "get prints the YAML of the policy: the latest revision, or the one named.\n\nExit status: 0 printed, 1 not, 2 wrong usage.",
		Example:           "  nemoclaw " + name + " policy get > policy.yaml",
		Args:              usageArgs(cobra.MaximumNArgs(1)),
		ValidArgsFunction: completeRevisions(name, 1),
	}, func(cmd *cobra.Command, d *api.Client, args []string) (p api.PolicyText, err error) {
		n, err := parseRevision(append(args, "0")[0], 0)
		if err != nil {
			return p, err
		}
		return d.Policy(cmd.Context(), name, n)
	}, func(cmd *cobra.Command, p api.PolicyText) error {
		_, err := io.WriteString(cmd.OutOrStdout(), p.Text)
		return err
	})
}

func newPolicySet(name string) *cobra.Command {
	var change api.PolicyChange
	cmd := talking(&cobra.Command{
		Use:   "set FILE",
		Short: "Make a file its policy",
		Long: `set makes the policy in FILE ("-": standard input) the sandbox's. The daemon keeps its own copy.

` + changeStatus,
		Example: `  nemoclaw ` + name + ` policy set policy.yaml
  nemoclaw ` + name + ` policy set --dry-run policy.yaml      what would change`,
		Args: usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return []string{"yaml", "yml"}, cobra.ShellCompDirectiveFilterFileExt
		},
	}, func(cmd *cobra.Command, d *api.Client, args []string) error {
		src, err := readPolicy(args[0], cmd.InOrStdin())
		if err != nil {
			return err
		}
		change.Text = string(src)
		if args[0] != "-" {
			change.PolicyName = filepath.Base(args[0])
		}
		return changePolicy(cmd, d, name, change)
	})
	changeFlags(cmd, &change)
	return cmd
}

func readPolicy(file string, stdin io.Reader) (src []byte, err error) {
	if file == "-" {
		src, err = io.ReadAll(stdin)
	} else {
		src, err = os.ReadFile(file)
	}
	if err != nil {
		return nil, fmt.Errorf("read the policy: %w", err)
	}
	if len(src) == 0 {
		return nil, fmt.Errorf("read the policy: %s is empty", file)
	}
	return src, nil
}

func newPolicyDiff(name string) *cobra.Command {
	return talking(&cobra.Command{
		Use:   "diff [OLD [NEW]]",
		Short: "Show what changed between two revisions",
		Long: `diff shows what was changed from revision OLD to NEW, as a unified diff. NEW is the latest when left out, and OLD the one
before the latest. What a file would change: nemoclaw NAME policy set --dry-run FILE.

Exit status: 0 shown, 1 not, 2 wrong usage.`,
		Example:           "  nemoclaw " + name + " policy diff\n  nemoclaw " + name + " policy diff 3 5",
		Args:              usageArgs(cobra.MaximumNArgs(2)),
		ValidArgsFunction: completeRevisions(name, 2),
	}, func(cmd *cobra.Command, d *api.Client, args []string) error {
		var numbers [2]int // 0: the latest
		for i, a := range args {
			var err error
			if numbers[i], err = parseRevision(a, 1); err != nil {
				return err
			}
		}
		if len(args) == 0 {
			latest, err := d.Policy(cmd.Context(), name, 0)
			if err != nil {
				return err
			}
			if latest.Revision == 1 {
				fmt.Fprintf(cmd.ErrOrStderr(), "nemoclaw: the policy of %s has not been changed yet\n", name)
				return nil
			}
			numbers[0] = latest.Revision - 1
		}
		before, err := d.Policy(cmd.Context(), name, numbers[0])
		if err != nil {
			return err
		}
		after, err := d.Policy(cmd.Context(), name, numbers[1])
		if err != nil {
			return err
		}
		showDiff(cmd.OutOrStdout(), policy.TextDiff(label(before), label(after), []byte(before.Text), []byte(after.Text)))
		return nil
	})
}

func label(p api.PolicyText) string { return fmt.Sprintf("%s (revision %d)", p.Name, p.Revision) }

func newPolicyHistory(name string) *cobra.Command {
	return showing(&cobra.Command{
		Use:     "history",
		Short:   "List its revisions: when, who and what",
		Long:    "history lists the revisions of the policy, newest first. The one in force is marked with *.\n\nExit status: 0 listed, 1 not, 2 wrong usage.",
		Example: "  nemoclaw " + name + " policy history",
	}, func(cmd *cobra.Command, d *api.Client, _ []string) ([]api.PolicyText, error) {
		return d.Revisions(cmd.Context(), name)
	}, func(cmd *cobra.Command, list []api.PolicyText) error {
		t := newTable(cmd.OutOrStdout(), "REVISION", "WHEN", "WHO", "WHAT")
		for _, p := range list {
			mark := " "
			if p.Running == p.Revision {
				mark = "*"
			}
			t.row(mark+strconv.Itoa(p.Revision), p.When.Local().Format(time.DateTime), p.Who, p.What)
		}
		return t.flush()
	})
}

func newPolicyRollback(name string) *cobra.Command {
	var change api.PolicyChange
	cmd := talking(&cobra.Command{
		Use:               "rollback REVISION",
		Short:             "Bring the text of a revision back, as a new one",
		Long:              "rollback makes a new revision with the text of an earlier one; none is lost.\n\n" + changeStatus,
		Example:           "  nemoclaw " + name + " policy rollback 3",
		Args:              usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: completeRevisions(name, 1),
	}, func(cmd *cobra.Command, d *api.Client, args []string) (err error) {
		if change.Rollback, err = parseRevision(args[0], 1); err != nil {
			return err
		}
		return changePolicy(cmd, d, name, change)
	})
	changeFlags(cmd, &change)
	return cmd
}

func parseRevision(s string, least int) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < least {
		return 0, usage(fmt.Errorf("revision %q: want a number, as policy history shows them", s))
	}
	return n, nil
}

// completeRevisions completes up to limit revisions.
func completeRevisions(name string, limit int) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) >= limit {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return completed(cmd, func(ctx context.Context, d *api.Client) (words []string, err error) {
			list, err := d.Revisions(ctx, name)
			for _, p := range list {
				words = append(words, fmt.Sprintf("%d\t%s", p.Revision, text.Short(p.What, 60)))
			}
			return words, err
		})
	}
}

func newLiveExplain(name string) *cobra.Command {
	q := questions{add: func(action, object string) string { return addCommand(name, action, object) }}
	cmd := talking(&cobra.Command{
		Use:   "explain",
		Short: "Answer what its policy says to an access, and which rule decides",
		Long: `explain answers allow, ask or deny with the rule that decides and why, from the policy in force and what was approved since.
Each question can be asked several times.

Exit status: 0 answered, 1 not or an answer is not what --expect says, 2 wrong usage.`,
		Example:           "  nemoclaw " + name + " policy explain --connect api.openai.com:443 --exec git --read /etc/shadow",
		Args:              usageArgs(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
	}, func(cmd *cobra.Command, d *api.Client, _ []string) error {
		return q.answer(cmd.OutOrStdout(), func() error { return nil }, func(one policy.Query) (api.Answer, error) {
			return d.Explain(cmd.Context(), name, one.Action.String(), one.Object(), one.Command)
		})
	})
	q.flags(cmd)
	return cmd
}
