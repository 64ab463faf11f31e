package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/nemoclaw/nemoclaw/agent/approvals/risk"
	"github.com/nemoclaw/nemoclaw/agent/text"
	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
	"github.com/nemoclaw/nemoclaw/policy/learn"
)

// candidate is a proposal with its risks.
type candidate struct {
	*learn.Proposal
	risks  []string // safe to show
	danger bool     // nobody approved it, and allowing it would be asked twice about: it is never made unseen
}

// weigh says of each proposal what a person should know before accepting it.
func weigh(was api.PolicyText, list []*learn.Proposal) ([]candidate, error) {
	parsed, err := policy.Parse(was.Name, []byte(was.Text))
	if err != nil {
		return nil, err
	}
	c, err := policy.Compile(parsed)
	if err != nil {
		return nil, err
	}
	out := make([]candidate, len(list))
	for i, x := range list {
		out[i].Proposal = x
		for _, d := range x.Attempts {
			for _, r := range risk.Of(risk.Attempt{Decision: d, Policy: c}) {
				out[i].danger = out[i].danger || r.Dangerous && x.Refused
				if !slices.Contains(out[i].risks, r.Text) {
					out[i].risks = append(out[i].risks, r.Text)
				}
			}
		}
	}
	return out, nil
}

// why is all that a person should know, a line each.
func (c candidate) why() (lines []string) {
	for _, s := range c.Evidence {
		lines = append(lines, "# "+s)
	}
	for _, s := range c.risks {
		lines = append(lines, "! "+s)
	}
	return lines
}

// all makes all the changes, or shows what they are.
func (l *learning) all(cmd *cobra.Command, d *api.Client, name string, was api.PolicyText, list []candidate) error {
	now, errs := []byte(was.Text), cmd.ErrOrStderr()
	for _, x := range list {
		e, err := x.Apply(was.Name, now)
		switch {
		case err != nil:
			fmt.Fprintf(errs, "nemoclaw: not made beside the others: %s\n", text.Lines(err.Error()))
			continue
		case x.danger:
			fmt.Fprintf(errs, "nemoclaw: not made without somebody who looks at it: %s\n", text.Lines(strings.Join(append(e.Did, x.why()...), "\n  ")))
			continue
		}
		now = e.Text
		fmt.Fprintf(errs, "nemoclaw: %s\n", text.Lines(strings.Join(append(e.Did, x.why()...), "\n  ")))
	}
	if l.yes || l.change.DryRun {
		return l.apply(cmd, d, name, was, now)
	}
	showDiff(cmd.OutOrStdout(), diffOf(was, now))
	return errors.New("nothing was changed: there is no terminal to ask on; --yes makes all of these changes")
}

func diffOf(was api.PolicyText, now []byte) string {
	return policy.TextDiff(label(was), was.Name+" (learnt)", []byte(was.Text), now)
}

// apply shows what was accepted, and makes it one revision.
func (l *learning) apply(cmd *cobra.Command, d *api.Client, name string, was api.PolicyText, now []byte) error {
	if string(now) == was.Text {
		fmt.Fprintln(cmd.ErrOrStderr(), "nemoclaw: nothing was accepted, and nothing was changed")
		return nil
	}
	showDiff(cmd.OutOrStdout(), diffOf(was, now))
	l.change.Text = string(now)
	r, err := d.ChangePolicy(cmd.Context(), name, l.change)
	if err != nil {
		return err
	}
	warn(cmd, r.Warnings)
	fmt.Fprintf(cmd.ErrOrStderr(), "nemoclaw: %s\n", text.Lines(changed(name, r, l.change)))
	return nil
}

// choose asks about each change, and returns the text with those that were accepted.
func choose(ctx context.Context, p *person, was api.PolicyText, list []candidate) ([]byte, error) {
	now, all := []byte(was.Text), false
	for i, x := range list {
		e, err := x.Apply(was.Name, now)
		if err != nil {
			p.say("(%d/%d) can't be made beside those before: %s\n", i+1, len(list), text.Lines(err.Error()))
			continue
		}
		if all && !x.danger {
			now = e.Text
			continue
		}
		var b strings.Builder
		if i > 0 {
			b.WriteByte('\n')
		}
		writeDiff(&b, hunks(policy.TextDiff("", "", now, e.Text)), colours(os.Stdin))
		for _, line := range x.why() {
			b.WriteString(text.Lines(line) + "\n")
		}
		p.say("%s", b.String())
		answer, err := askOnce(ctx, p, i+1, len(list))
		if err != nil {
			return nil, err
		}
		switch answer {
		case "q":
			return now, nil
		case "n":
			continue
		case "a":
			all = true
		}
		now = e.Text
	}
	return now, nil
}

// askOnce asks about the change that is shown.
func askOnce(ctx context.Context, p *person, number, of int) (string, error) {
	for {
		answer, err := p.ask(ctx, fmt.Sprintf("(%d/%d) Make this change [y,n,a,q,?]", number, of), "")
		if err != nil || slices.Contains([]string{"y", "n", "a", "q"}, answer) {
			return answer, err
		}
		p.say("y: make this change\nn: don't\na: make this change and all that follow, but for what nobody approved and is dangerous\n" +
			"q: neither this one nor any that follows; what was accepted stays\n")
	}
}

// hunks is a diff without its head.
func hunks(diff string) string {
	if i := strings.Index(diff, "@@"); i >= 0 {
		return diff[i:]
	}
	return diff
}

// proposal is one of the proposals, for -o json.
type proposal struct {
	Change   []string        `json:"change"` // in words
	Add      *api.PolicyRule `json:"add,omitempty"`
	Remove   *api.PolicyRule `json:"remove,omitempty"` // with add: the rule whose place it takes, where there is one
	Preset   string          `json:"preset,omitempty"` // to take away
	Refused  bool            `json:"refused"`          // it was refused, and nobody approved it
	Evidence []string        `json:"evidence"`
	Risks    []string        `json:"risks,omitempty"`
	Diff     string          `json:"diff"`
}

type notLearnt struct {
	What  string `json:"what"`
	Count uint64 `json:"count,omitempty"`
	Why   string `json:"why"`
}

type learnt struct {
	Revision  int         `json:"revision"` // that the proposals are for
	Since     time.Time   `json:"since"`
	Proposals []proposal  `json:"proposals"`
	Left      []notLearnt `json:"not_proposed"`
	More      int         `json:"more_not_proposed,omitempty"`
	Missed    uint64      `json:"missed,omitempty"`
}

func proposed(was api.PolicyText, from time.Time, found *learn.Proposals, list []candidate) learnt {
	out := learnt{Revision: was.Revision, Since: from, Proposals: []proposal{}, Left: []notLearnt{}, More: found.More, Missed: found.Missed}
	for _, x := range list {
		e, err := x.Apply(was.Name, []byte(was.Text))
		if err != nil {
			continue // it was tried when it was proposed
		}
		out.Proposals = append(out.Proposals, proposal{
			Change: e.Did, Add: (*api.PolicyRule)(x.Add), Remove: (*api.PolicyRule)(x.Remove), Preset: x.Preset,
			Refused: x.Refused, Evidence: x.Evidence, Risks: x.risks, Diff: hunks(policy.TextDiff("", "", []byte(was.Text), e.Text)),
		})
	}
	for _, x := range found.Left {
		out.Left = append(out.Left, notLearnt(x))
	}
	return out
}
