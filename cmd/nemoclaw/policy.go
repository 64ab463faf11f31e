package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/nemoclaw/nemoclaw/agent/text"
	"github.com/nemoclaw/nemoclaw/policy"
)

func newPolicy() *cobra.Command {
	return group("policy", "Check, explain and learn about policies",
		"  nemoclaw policy check nemoclaw.yaml\n  nemoclaw policy explain nemoclaw.yaml --connect api.openai.com:443",
		newCheck(), newExplain(), newSchema(), newPresets(), newImport())
}

// wrong is one error of a policy, for -o json.
type wrong struct {
	File    string `json:"file"`
	Line    int    `json:"line,omitempty"`
	Column  int    `json:"column,omitempty"`
	Key     string `json:"key,omitempty"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

func allWrong(file string, err error) []wrong {
	var all policy.Errors
	var one *policy.Error
	switch {
	case err == nil:
		return []wrong{}
	case errors.As(err, &all):
	case errors.As(err, &one):
		all = policy.Errors{one}
	default:
		return []wrong{{File: file, Message: err.Error()}}
	}
	list := make([]wrong, len(all))
	for i, e := range all {
		list[i] = wrong{e.File, e.Line, e.Col, e.Key, e.Msg, e.Hint}
	}
	return list
}

func newCheck() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "check FILE...",
		Short: "Say whether policies are valid, and what is wrong with those that are not",
		Long: `check reads policies as run would, and names every error with file, line and column. Rules that are valid but can
never act are warned about. Nothing is run and nothing of this machine is looked at.

Exit status: 0 all are valid, 1 one is not, 2 wrong usage.`,
		Example: `  nemoclaw policy check nemoclaw.yaml
  nemoclaw policy check -o json policies/*.yaml`,
		Args: usageArgs(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			json, err := asJSON(format)
			if err != nil {
				return err
			}
			return check(cmd, args, json)
		},
	}
	outputFlag(cmd, &format)
	return cmd
}

func check(cmd *cobra.Command, files []string, json bool) error {
	type result struct {
		File     string   `json:"file"`
		Valid    bool     `json:"valid"`
		Revision string   `json:"revision,omitempty"`
		Rules    int      `json:"rules,omitempty"` // without the default
		Errors   []wrong  `json:"errors"`
		Warnings []string `json:"warnings"`
	}
	results := make([]result, len(files))
	var bad error
	out, errs := cmd.OutOrStdout(), cmd.ErrOrStderr()
	for i, file := range files {
		c, err := policy.Load(file)
		r := result{File: file, Valid: err == nil, Errors: allWrong(file, err), Warnings: []string{}}
		if err != nil {
			bad = &statusError{status: statusFailed}
		} else {
			r.Revision, r.Rules, r.Warnings = c.Revision, len(c.Rules)-1, append(r.Warnings, c.Warnings()...)
		}
		results[i] = r
		switch {
		case json:
		case err != nil:
			fmt.Fprintln(errs, text.Lines(err.Error()))
		default:
			fmt.Fprintf(out, "%s: %s (revision %s, %s)\n", text.Escape(file), paint(out, "ok"), r.Revision, count(r.Rules, "rule", "rules"))
			for _, w := range r.Warnings {
				fmt.Fprintf(errs, "%s\n", text.Escape(file+": warning: "+w))
			}
		}
	}
	if json {
		if err := printJSON(out, results); err != nil {
			return err
		}
	}
	return bad
}

func newSchema() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the language as a JSON Schema, for editors",
		Long: `schema prints a JSON Schema (draft 2020-12) of the policy language. An editor with a YAML language server completes and
checks policies with it.

Exit status: 0 printed, 2 wrong usage.`,
		Example: `  nemoclaw policy schema > nemoclaw.schema.json
  # yaml-language-server: $schema=nemoclaw.schema.json     (first line of a policy)`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := cmd.OutOrStdout().Write(policy.Schema())
			return err
		},
	}
}

func newPresets() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "presets [NAME]",
		Short: "List the presets that `extends` takes, or print one",
		Long:  "presets lists the presets, or prints the YAML of one.\n\nExit status: 0 listed or printed, 1 there is none of that name, 2 wrong usage.",
		Example: `  nemoclaw policy presets
  nemoclaw policy presets npm`,
		Args: usageArgs(cobra.MaximumNArgs(1)),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return policy.Presets(), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			json, err := asJSON(format)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if len(args) == 1 && json {
				return usage(errors.New("-o json: a preset is printed as it is, in YAML; only the list can be JSON"))
			}
			if len(args) == 1 {
				src, err := policy.PresetSource(args[0])
				if err != nil {
					return err
				}
				_, err = out.Write(src)
				return err
			}
			type preset struct {
				Name  string `json:"name"`
				About string `json:"about"`
			}
			var list []preset
			for _, p := range policy.Presets() {
				list = append(list, preset{p, policy.PresetAbout(p)})
			}
			if json {
				return printJSON(out, list)
			}
			for _, p := range list {
				fmt.Fprintf(out, "%-12s %s\n", p.Name, p.About)
			}
			return nil
		},
	}
	outputFlag(cmd, &format)
	return cmd
}
