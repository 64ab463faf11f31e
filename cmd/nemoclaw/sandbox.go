package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nemoclaw/nemoclaw/policy"
)

// sandboxNamed returns the name of the sandbox that a command line addresses, "" when its first word is none that a
// sandbox could have. policy.ValidName refuses sandboxes that are called like a command, so no word can be both.
func sandboxNamed(args []string) string {
	for len(args) > 1 && (strings.HasPrefix(args[0], "__complete") || args[0] == "help") {
		if args = args[1:]; len(args) == 1 && args[0] == "" {
			return ""
		}
	}
	if len(args) == 0 || policy.ValidName(args[0]) != nil {
		return ""
	}
	return args[0]
}

// sandboxWords are commands that only a sandbox has: what they are missing, when they come first, is its name.
var sandboxWords = []string{
	"config", "connect", "download", "exec", "logs", "models", "preset", "publish", "report", "snapshot", "status", "unpublish", "upload", "usage",
}

// newSandbox is what can be done with the sandbox of that name.
func newSandbox(name string) *cobra.Command {
	cmd := newStatus(name)
	status := newStatus(name)
	cmd.Use = name
	cmd.Short = "What can be done with the sandbox " + name
	cmd.Long = "nemoclaw " + name + ` alone says what the sandbox does, as status.

Exit status: 0 done, 1 not, 2 wrong usage; exec and connect: see there.`
	cmd.Example = strings.ReplaceAll(`  nemoclaw NAME status
  nemoclaw NAME connect
  nemoclaw NAME exec -- python3 agent.py
  nemoclaw NAME policy add --domain api.openai.com --port 443
  nemoclaw NAME logs --follow --verdict deny`, "NAME", name)
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		if near := elsewhere(cmd, name); near != nil && policy.ValidName(args[0]) == nil {
			return usageOf(cmd.Root(), fmt.Errorf("unknown command %q for %q (did you mean \"nemoclaw %s %s\"?)", name, cmd.Root().CommandPath(), args[0], strings.Join(near, " or ")))
		}
		// A misspelt command of nemoclaw looks like a sandbox's name.
		if near := nearest(cmd.Root(), name); near != "" {
			return usageOf(cmd.Root(), fmt.Errorf("unknown command %q for %q%s", name, cmd.Root().CommandPath(), near))
		}
		// What is about all sandboxes is no command of one.
		if of, _, err := cmd.Root().Find(args[:1]); err == nil && of.Parent() == cmd.Root() && of.Name() != name {
			return usage(fmt.Errorf("unknown command %q for %q (did you mean %q?)", args[0], cmd.CommandPath(), of.CommandPath()))
		}
		return unknownCommand(cmd, args)
	}
	cmd.AddCommand(status,
		newConnect(name), newExec(name), newLogs(name), newUsage(name), newModels(name), newReport(name),
		newStart(name), newStop(name), newDestroy(name),
		newLivePolicy(name), newLivePreset(name), newConfig(name), newSnapshot(name),
		newUpload(name), newDownload(name), newPublish(name), newUnpublish(name))
	return cmd
}
