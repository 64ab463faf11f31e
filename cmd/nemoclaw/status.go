package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/nemoclaw/nemoclaw/agent/provider"
	"github.com/nemoclaw/nemoclaw/agent/text"
	"github.com/nemoclaw/nemoclaw/api"
)

// sandboxStatus is what status shows.
type sandboxStatus struct {
	api.Sandbox
	Usage *api.Usage `json:"usage,omitempty"` // while it runs
}

func newStatus(name string) *cobra.Command {
	return showing(&cobra.Command{
		Use:   "status",
		Short: "Say what it does, what it takes and what needs attention",
		Long: `status shows a sandbox's state, its level of enforcement, which revision of its policy is in force, what it takes, and what
waits for a person.

Exit status: 0 shown, 1 there is no such sandbox, 2 wrong usage.`,
		Example: "  nemoclaw " + name + " status\n  nemoclaw " + name + " status -o json",
	}, func(cmd *cobra.Command, d *api.Client, _ []string) (shown sandboxStatus, err error) {
		shown.Sandbox, err = d.Get(cmd.Context(), name)
		if near := nearest(cmd.Root(), name); near != "" && (is(err, api.NotFound) || errors.Is(err, api.ErrNotRunning)) {
			return shown, fmt.Errorf("%w; and %s is no command of nemoclaw%s", err, name, near)
		}
		if err != nil || shown.State != api.Running {
			return shown, err
		}
		u, err := d.Usage(cmd.Context(), name)
		switch {
		case err == nil:
			shown.Usage = &u
		case is(err, api.Conflict): // it has ended meanwhile
			err = nil
		}
		return shown, err
	}, func(cmd *cobra.Command, s sandboxStatus) error {
		showStatus(cmd.OutOrStdout(), s.Sandbox, s.Usage)
		return nil
	})
}

func showStatus(out io.Writer, s api.Sandbox, u *api.Usage) {
	head := state(s)
	if s.Level != "" {
		head += ", enforcement level " + s.Level
	}
	if s.Started != nil {
		head += ", for " + ago(time.Since(*s.Started))
	}
	fmt.Fprintf(out, "%s: %s\n", s.Name, text.Escape(head))
	row := func(label, format string, args ...any) {
		fmt.Fprintf(out, "  %-10s %s\n", label, text.Escape(fmt.Sprintf(format, args...)))
	}
	if s.Reason != "" {
		row("reason", "%s", s.Reason)
	}
	row("policy", "%s, revision %s%s", s.Policy.Name, revision(s.Policy), restartPending(s))
	row("workspace", "%s", s.Workspace)
	if s.Image != "" {
		row("image", "%s", s.Image)
	}
	row("inference", "%s", inference(s))
	for _, p := range s.Publish {
		row("published", "%s reaches port %d inside", p.Host, p.Port)
	}
	for _, g := range s.GPUs {
		row("gpu", "%d: %s (%s), %s of its memory, %s busy with it", g.Index, g.Name, g.UUID, sizeOrNot(g.Memory), percent(g.Busy))
	}
	if u != nil {
		row("takes", "%s", takes(*u))
	}
	if s.Refused > 0 {
		row("refused", "%d since it was started: nemoclaw %s logs --verdict deny", s.Refused, s.Name)
	}
	if s.Requests > 0 {
		row("approvals", "%d to answer: nemoclaw approvals list --sandbox %s", s.Requests, s.Name)
	}
	for _, w := range s.Warnings {
		row("warning", "%s", w)
	}
}

// state is what a sandbox does, and what it should do where that is something else.
func state(s api.Sandbox) string {
	if s.State == api.Stopped && s.Wanted == api.Running {
		return "stopped, should run (nemoclaw " + s.Name + " start)"
	}
	return string(s.State)
}

// revision is which of a sandbox's policies is in force, and which is to be.
func revision(p api.PolicyState) string {
	if p.Running != 0 && p.Running != p.Revision {
		return fmt.Sprintf("%d (in force: %d)", p.Revision, p.Running)
	}
	return fmt.Sprint(p.Revision)
}

func restartPending(s api.Sandbox) string {
	if s.Policy.Running != 0 && s.Policy.Running != s.Policy.Revision {
		return fmt.Sprintf("; the rest needs a restart: nemoclaw %s stop, nemoclaw %[1]s start", s.Name)
	}
	return ""
}

// inference is which model answers, whether with a key, and why none does.
func inference(s api.Sandbox) string {
	if s.Inference.Off == "" {
		return model(s)
	}
	if s.Inference.Model == "" {
		return "none: " + s.Inference.Off
	}
	return model(s) + "; it has no effect: " + s.Inference.Off
}

func model(s api.Sandbox) string {
	of := s.Inference
	if of.Model == "" && of.Key == "none" && of.KeyFor == "" {
		return "no model chosen: those of the policy answer, if it names some (nemoclaw " + s.Name + " models)"
	}
	name := of.Model
	if name == "" {
		name = "no model chosen"
	}
	switch of.Key {
	case "verified":
		return name + ", key verified"
	case "unverified":
		return name + ", key unverified: it was not tried with the provider"
	case "policy":
		return name + ", with the policy's key"
	}
	if needs, err := provider.NeedsKey(of.Model); err == nil && !needs {
		return name + ", which needs no key"
	}
	if of.KeyFor != "" {
		return name + ", no key: the one that there is is for " + of.KeyFor + ", and nobody else gets it (nemoclaw " + s.Name + " config set key -)"
	}
	if !strings.Contains(name, "/") {
		return name + ", a model of the policy"
	}
	return name + ", key unverified: there is none (nemoclaw " + s.Name + " config set key -)"
}

func takes(u api.Usage) string {
	s := fmt.Sprintf("%s of memory, %s of CPU time, %s, %s", size(u.Memory), u.CPU.Round(time.Millisecond), count(u.Processes, "process", "processes"), count(u.Conns, "connection", "connections"))
	if u.Disk > 0 {
		s += ", " + size(u.Disk) + " in the workspace"
	}
	if u.GPU != nil {
		s += fmt.Sprintf(", %s of GPU memory, %s of a GPU", sizeOrNot(u.GPU.Memory), percent(u.GPU.Busy))
	}
	return s
}

func newUsage(name string) *cobra.Command {
	return showing(&cobra.Command{
		Use:     "usage",
		Short:   "Say what it takes of the host now",
		Long:    "usage shows the memory, CPU time, processes, connections, disk space and share of its GPUs that a sandbox takes now.\n\nExit status: 0 shown, 1 not, 2 wrong usage.",
		Example: "  nemoclaw " + name + " usage -o json",
	}, func(cmd *cobra.Command, d *api.Client, _ []string) (api.Usage, error) {
		return d.Usage(cmd.Context(), name)
	}, func(cmd *cobra.Command, u api.Usage) error {
		fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", name, takes(u))
		return nil
	})
}

// warn shows warnings on standard error.
func warn(cmd *cobra.Command, warnings []string) {
	for _, w := range warnings {
		fmt.Fprintf(cmd.ErrOrStderr(), "nemoclaw: warning: %s\n", text.Escape(w))
	}
}
