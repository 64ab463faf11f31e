package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

func newLivePreset(name string) *cobra.Command {
	return group("preset", "Add and remove presets of its policy", "  nemoclaw "+name+" preset add pypi",
		newPresetList(name), newPresetChange(name, true), newPresetChange(name, false))
}

type listedPreset struct {
	Name  string `json:"name"`
	About string `json:"about"`
	Used  bool   `json:"used"`
}

func newPresetList(name string) *cobra.Command {
	return showing(&cobra.Command{
		Use:     "list",
		Short:   "List the presets, and say which it has",
		Long:    "list shows every preset; those that the policy extends are marked with *.\n\nExit status: 0 listed, 1 not, 2 wrong usage.",
		Example: "  nemoclaw " + name + " preset list",
	}, func(cmd *cobra.Command, d *api.Client, _ []string) (list []listedPreset, err error) {
		has, err := presetsOf(cmd.Context(), d, name)
		if err != nil {
			return nil, err
		}
		for _, p := range policy.Presets() {
			list = append(list, listedPreset{p, policy.PresetAbout(p), slices.Contains(has, p)})
		}
		return list, nil
	}, func(cmd *cobra.Command, list []listedPreset) error {
		for _, p := range list {
			mark := " "
			if p.Used {
				mark = "*"
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s %-12s %s\n", mark, p.Name, p.About)
		}
		return nil
	})
}

// presetsOf are those that a sandbox's policy extends.
func presetsOf(ctx context.Context, d *api.Client, name string) ([]string, error) {
	p, err := d.Policy(ctx, name, 0)
	if err != nil {
		return nil, err
	}
	parsed, err := policy.Parse(p.Name, []byte(p.Text))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range parsed.Extends {
		names = append(names, string(e.V))
	}
	return names, nil
}

// newPresetChange is `preset add` or `preset remove`.
func newPresetChange(name string, add bool) *cobra.Command {
	var change api.PolicyChange
	use, short := "remove PRESET", "Take a preset's rules away"
	if add {
		use, short = "add PRESET", "Add a preset's rules"
	}
	word, _, _ := strings.Cut(use, " ")
	cmd := talking(&cobra.Command{
		Use:     use,
		Short:   short,
		Long:    short + ": nemoclaw policy presets PRESET shows them.\n\n" + changeStatus,
		Example: "  nemoclaw " + name + " preset " + word + " pypi",
		Args:    usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return completed(cmd, func(ctx context.Context, d *api.Client) ([]string, error) {
				has, err := presetsOf(ctx, d, name)
				if !add {
					return has, err
				}
				return slices.DeleteFunc(policy.Presets(), func(p string) bool { return slices.Contains(has, p) }), nil
			})
		},
	}, func(cmd *cobra.Command, d *api.Client, args []string) error {
		if _, err := policy.PresetSource(args[0]); err != nil {
			return usage(err)
		}
		if add {
			change.Preset = args[0]
		} else {
			change.Unpreset = args[0]
		}
		return changePolicy(cmd, d, name, change)
	})
	changeFlags(cmd, &change)
	return cmd
}
