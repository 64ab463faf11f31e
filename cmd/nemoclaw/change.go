package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nemoclaw/nemoclaw/agent/text"
	"github.com/nemoclaw/nemoclaw/api"
)

const changeStatus = `Exit status: 0 the change is in force (with --dry-run: could be made), or there was none; 1 it is not; 2 wrong usage.`

// changeFlags adds what every change of a policy takes.
func changeFlags(cmd *cobra.Command, c *api.PolicyChange) {
	cmd.Flags().BoolVar(&c.Restart, "restart", false, "restart the sandbox if the change can't be live")
	cmd.Flags().BoolVar(&c.DryRun, "dry-run", false, "show what would change, and change nothing")
}

func changePolicy(cmd *cobra.Command, d *api.Client, name string, c api.PolicyChange) error {
	r, err := d.ChangePolicy(cmd.Context(), name, c)
	if err != nil {
		return err
	}
	showDiff(cmd.OutOrStdout(), r.Diff)
	warn(cmd, r.Warnings)
	fmt.Fprintf(cmd.ErrOrStderr(), "nemoclaw: %s\n", text.Lines(changed(name, r, c)))
	return nil
}

// changed says what a change did, or would do.
func changed(name string, r api.PolicyResult, c api.PolicyChange) string {
	if r.Diff == "" && c.Add != nil && c.Add.Expires != "" {
		return fmt.Sprintf("the policy of %s has this rule already: nothing changed, and its time runs from when it was first added; "+
			"to let it begin anew, remove the rule (policy remove) and add it again", name)
	}
	if r.Diff == "" {
		return fmt.Sprintf("the policy of %s says so already: nothing changed", name)
	}
	restart := ""
	for _, why := range r.Restart {
		restart += "\n  " + why
	}
	switch {
	case c.DryRun && restart != "":
		return "this would need --restart:" + restart
	case c.DryRun:
		return "this could be in force at once; nothing was changed (--dry-run)"
	case c.Restart && restart != "":
		return fmt.Sprintf("revision %d of %s is in force; the sandbox was restarted:%s", r.Policy.Revision, name, restart)
	case r.Live && r.Closed > 0:
		return fmt.Sprintf("revision %d of %s is in force; %s that it does not allow ended", r.Policy.Revision, name, count(r.Closed, "connection", "connections"))
	case r.Live:
		return fmt.Sprintf("revision %d of %s is in force", r.Policy.Revision, name)
	}
	return fmt.Sprintf("revision %d of %s will be in force when it is started", r.Policy.Revision, name)
}

// showDiff shows a unified diff, in colours on a terminal.
func showDiff(out io.Writer, diff string) { writeDiff(out, diff, colours(out)) }

func writeDiff(out io.Writer, diff string, coloured bool) {
	for line := range strings.Lines(diff) {
		line = text.Lines(strings.TrimRight(line, "\n"))
		code := ""
		switch {
		case !coloured || strings.HasPrefix(line, "+++") || strings.HasPrefix(line, "---"):
		case strings.HasPrefix(line, "+"):
			code = "32"
		case strings.HasPrefix(line, "-"):
			code = "31"
		}
		if code != "" {
			line = "\x1b[" + code + "m" + line + "\x1b[0m"
		}
		fmt.Fprintln(out, line)
	}
}
