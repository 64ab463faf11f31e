package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/nemoclaw/nemoclaw/agent/text"
	"github.com/nemoclaw/nemoclaw/api"
)

func newSnapshot(name string) *cobra.Command {
	return group("snapshot", "Keep and bring back its workspace and policy", "  nemoclaw "+name+" snapshot create before-upgrade",
		newSnapshotCreate(name), newSnapshotList(name), newSnapshotRestore(name), newSnapshotDelete(name))
}

func newSnapshotCreate(name string) *cobra.Command {
	return showing(&cobra.Command{
		Use:               "create [LABEL]",
		Short:             "Keep the workspace and the policy as they are now",
		Long:              "create keeps a copy of the workspace and the policy, under an id that it prints.\n\nExit status: 0 kept, 1 not, 2 wrong usage.",
		Example:           "  nemoclaw " + name + " snapshot create before-upgrade\n  nemoclaw " + name + " snapshot create -o json | jq -r .id",
		Args:              usageArgs(cobra.MaximumNArgs(1)),
		ValidArgsFunction: cobra.NoFileCompletions,
	}, func(cmd *cobra.Command, d *api.Client, args []string) (api.Snapshot, error) {
		defer waiting(cmd, "keeping the workspace of %s", name)()
		return d.Snapshot(cmd.Context(), name, strings.Join(args, ""))
	}, func(cmd *cobra.Command, s api.Snapshot) error {
		fmt.Fprintf(cmd.OutOrStdout(), "%s: %s, policy revision %d\n", text.Escape(s.ID), size(s.Size), s.Revision)
		return nil
	})
}

func newSnapshotList(name string) *cobra.Command {
	return showing(&cobra.Command{
		Use:     "list",
		Short:   "List what is kept",
		Long:    "list shows the snapshots of a sandbox.\n\nExit status: 0 listed, 1 not, 2 wrong usage.",
		Example: "  nemoclaw " + name + " snapshot list",
	}, func(cmd *cobra.Command, d *api.Client, _ []string) ([]api.Snapshot, error) {
		return d.Snapshots(cmd.Context(), name)
	}, func(cmd *cobra.Command, list []api.Snapshot) error {
		if len(list) == 0 {
			fmt.Fprintf(cmd.ErrOrStderr(), "nemoclaw: nothing is kept of %s\n", name)
			return nil
		}
		t := newTable(cmd.OutOrStdout(), "ID", "LABEL", "MADE", "BY", "POLICY", "SIZE")
		for _, s := range list {
			t.row(s.ID, s.Name, s.Created.Local().Format(time.DateTime), s.Who, s.Revision, size(s.Size))
		}
		return t.flush()
	})
}

func newSnapshotRestore(name string) *cobra.Command {
	return talking(&cobra.Command{
		Use:   "restore ID|LABEL",
		Short: "Bring back the workspace and the policy of a snapshot",
		Long: `restore makes the workspace and the policy what they were when the snapshot was made. What is there now is lost, unless it is
kept before: nemoclaw NAME snapshot create. A LABEL will do that one snapshot has.

Exit status: 0 it is back, 1 not, 2 wrong usage.`,
		Example:           "  nemoclaw " + name + " snapshot restore before-upgrade",
		Args:              usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: completeSnapshots(name),
	}, func(cmd *cobra.Command, d *api.Client, args []string) error {
		id, err := snapshotID(cmd.Context(), d, name, args[0])
		if err != nil {
			return err
		}
		end := waiting(cmd, "bringing back %s", id)
		s, err := d.Restore(cmd.Context(), name, id)
		end()
		if err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s: %s, policy revision %s\n", name, state(s), revision(s.Policy))
		warn(cmd, s.Warnings)
		return nil
	})
}

func newSnapshotDelete(name string) *cobra.Command {
	return talking(&cobra.Command{
		Use:               "delete ID|LABEL...",
		Short:             "Remove snapshots",
		Long:              "delete removes snapshots. A LABEL will do that one snapshot has.\n\nExit status: 0 they are gone, 1 one is not, 2 wrong usage.",
		Example:           "  nemoclaw " + name + " snapshot delete ID",
		Args:              usageArgs(cobra.MinimumNArgs(1)),
		ValidArgsFunction: completeSnapshots(name),
	}, func(cmd *cobra.Command, d *api.Client, args []string) error {
		return each(args, func(word string) error {
			id, err := snapshotID(cmd.Context(), d, name, word)
			if err != nil {
				return err
			}
			if err := d.DeleteSnapshot(cmd.Context(), name, id); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: deleted\n", text.Escape(id))
			return nil
		})
	})
}

// snapshotID is the id of the snapshot that a word names: itself, or that of the only one with this label.
func snapshotID(ctx context.Context, d *api.Client, name, word string) (string, error) {
	list, err := d.Snapshots(ctx, name)
	if err != nil {
		return "", err
	}
	var ids []string
	for _, s := range list {
		if s.ID == word {
			return word, nil
		}
		if s.Name == word && word != "" {
			ids = append(ids, s.ID)
		}
	}
	switch len(ids) {
	case 0:
		return "", fmt.Errorf("%s has no snapshot with the id or label %q; nemoclaw %s snapshot list shows those that there are", name, word, name)
	case 1:
		return ids[0], nil
	}
	return "", fmt.Errorf("%d snapshots of %s have the label %q: give the id of one: %s", len(ids), name, word, strings.Join(ids, ", "))
}

func completeSnapshots(name string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if cmd.Name() == "restore" && len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return completed(cmd, func(ctx context.Context, d *api.Client) (words []string, err error) {
			list, err := d.Snapshots(ctx, name)
			for _, s := range list {
				words = append(words, s.ID+"\t"+text.Short(s.Name, 40))
			}
			return words, err
		})
	}
}
