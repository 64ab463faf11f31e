package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nemoclaw/nemoclaw/agent/text"
	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

func newExplain() *cobra.Command {
	var q questions
	cmd := &cobra.Command{
		Use:   "explain FILE",
		Short: "Answer what a policy says to an access, and which rule decides",
		Long: `explain answers allow, ask or deny with the rule that decides and why, without a sandbox. It looks at the policy
alone: symbolic links are not followed, names are not resolved. Each question can be asked several times.

Exit status: 0 answered, 1 the policy is not valid or an answer is not what --expect says, 2 wrong usage.`,
		Example: `  nemoclaw policy explain nemoclaw.yaml --read /etc/shadow --connect api.openai.com:443 --exec git
  nemoclaw policy explain nemoclaw.yaml --connect github.com:443 --by /usr/bin/git
  nemoclaw policy explain nemoclaw.yaml --write /etc/passwd --expect deny     (in a test)`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			var c *policy.Compiled
			return q.answer(cmd.OutOrStdout(), func() (err error) {
				c, err = policy.Load(args[0])
				return err
			}, func(q policy.Query) (api.Answer, error) {
				a := c.Explain(q)
				return api.Answer{
					Action: q.Action.String(), Object: q.Object(), Command: q.Command,
					Verdict: a.Verdict.String(), Rule: a.Rule.Pos, RuleText: a.Rule.Text, Reason: a.Reason, Suggest: a.Suggest,
				}, nil
			})
		},
	}
	q.flags(cmd)
	return cmd
}

// questions are what explain is asked, by its flags.
type questions struct {
	read, write, exec, connect, gpu []string
	by, expect, format              string
	add                             func(action, object string) string // see showAnswer
}

func (q *questions) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVar(&q.read, "read", nil, "may this `PATH` be read?")
	f.StringArrayVar(&q.write, "write", nil, "may this `PATH` be written?")
	f.StringArrayVar(&q.exec, "exec", nil, "may this `COMMAND`, a name or an absolute path, be executed?")
	f.StringArrayVar(&q.connect, "connect", nil, "may this `HOST:PORT` be connected to?")
	f.StringArrayVar(&q.gpu, "gpu", nil, "may this `GPU`, named as in devices.gpus, be used?")
	f.StringVar(&q.by, "by", "", "the `COMMAND` that connects, for rules with commands")
	f.StringVar(&q.expect, "expect", "", "fail unless every answer is this `VERDICT`: allow, ask or deny")
	completeFlag(cmd, "expect", "allow", "ask", "deny")
	outputFlag(cmd, &q.format)
}

// queries checks what was asked, before anything else is.
func (q *questions) queries() ([]policy.Query, error) {
	var qs []policy.Query
	for _, ask := range []struct {
		action  policy.Action
		objects []string
	}{{policy.QueryRead, q.read}, {policy.QueryWrite, q.write}, {policy.QueryExec, q.exec}, {policy.QueryConnect, q.connect}, {policy.QueryGPU, q.gpu}} {
		for _, o := range ask.objects {
			one, err := policy.NewQuery(ask.action, o, q.by)
			if err != nil {
				return nil, usage(err)
			}
			qs = append(qs, one)
		}
	}
	if qs == nil {
		return nil, usage(errors.New("nothing was asked: give --read, --write, --exec, --connect or --gpu"))
	}
	switch q.expect {
	case "", "allow", "ask", "deny":
	default:
		return nil, usage(fmt.Errorf("--expect %q: want allow, ask or deny", q.expect))
	}
	return qs, nil
}

// answer shows the answers to what was asked. open is called once before them.
func (q *questions) answer(out io.Writer, open func() error, explain func(policy.Query) (api.Answer, error)) error {
	json, err := asJSON(q.format)
	if err != nil {
		return err
	}
	qs, err := q.queries()
	if err != nil {
		return err
	}
	if err := open(); err != nil {
		return err
	}
	answers := make([]api.Answer, len(qs))
	unexpected := 0
	for i, one := range qs {
		if answers[i], err = explain(one); err != nil {
			return err
		}
		if q.expect != "" && answers[i].Verdict != q.expect {
			unexpected++
		}
	}
	if json {
		if err := printJSON(out, answers); err != nil {
			return err
		}
	} else {
		for _, a := range answers {
			showAnswer(out, a, q.add)
		}
	}
	if unexpected > 0 {
		return fmt.Errorf("%d of %d answers are not %s", unexpected, len(qs), q.expect)
	}
	return nil
}

// showAnswer shows one answer. add turns what was asked into the command that would allow it; nil: there is only YAML.
func showAnswer(out io.Writer, a api.Answer, add func(action, object string) string) {
	fmt.Fprintf(out, "%s%*s %s %s\n", paint(out, a.Verdict), 5-len(a.Verdict), "", a.Action, text.Escape(a.Object))
	rule := a.Rule
	if a.RuleText != "" {
		rule += ": " + a.RuleText
	}
	fmt.Fprintf(out, "      rule    %s\n      reason  %s\n", text.Escape(rule), text.Escape(a.Reason))
	for _, g := range a.Grants {
		fmt.Fprintf(out, "      grant   %s: %s %s, %s, until %s, by %s\n", text.Escape(g.ID), paint(out, g.Verdict), strings.TrimSpace(string(granted(g))), text.Escape(string(g.Scope)), lasts(g), text.Escape(g.Who))
	}
	if a.Suggest != "" {
		command := ""
		if add != nil {
			command = add(a.Action, a.Object)
		}
		showRemedy(out, command, a.Suggest)
	}
}

// showRemedy shows the command that would allow something, or else the YAML to add.
func showRemedy(out io.Writer, command, yaml string) {
	if command != "" {
		fmt.Fprintf(out, "      to allow it: %s\n", command)
		return
	}
	fmt.Fprintf(out, "      to allow it, add:\n%s\n", strings.TrimRight(indent(text.Lines(yaml), "        "), "\n"))
}
