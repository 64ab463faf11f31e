package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/nemoclaw/nemoclaw/agent/text"
	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

func newCreate() *cobra.Command {
	var policyFile string
	var env, publish []string
	var noStart bool
	c := api.Create{Start: true}
	cmd := talking(&cobra.Command{
		Use:   "create NAME",
		Short: "Make a sandbox that lasts, and start it",
		Long: `create makes a sandbox and starts it. It runs until it is stopped, and again after a reboot. Without --policy it gets the
policy that nemoclaw init writes; the daemon keeps its own copy, which nemoclaw NAME policy changes. Without --workspace it
gets a workspace of its own, which goes when it is destroyed.

Exit status: 0 made and started, 1 not, 2 wrong usage.`,
		Example: `  nemoclaw create my-assistant
  nemoclaw create builder --policy build.yaml --workspace ~/project --env CI=1
  nemoclaw create web --publish 8080:3000 --no-start`,
		Args:              usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: cobra.NoFileCompletions,
	}, func(cmd *cobra.Command, d *api.Client, args []string) (err error) {
		c.Name, c.Start = args[0], !noStart
		if err := policy.ValidName(c.Name); err != nil {
			return usage(err)
		}
		if c.Env, err = environment(env, os.LookupEnv); err != nil {
			return usage(err)
		}
		for _, p := range publish {
			at, err := parsePublished(p)
			if err != nil {
				return usage(err)
			}
			c.Publish = append(c.Publish, at)
		}
		if policyFile != "" {
			src, err := os.ReadFile(policyFile)
			if err != nil {
				return fmt.Errorf("read the policy: %w", err)
			}
			c.Policy, c.PolicyName = string(src), filepath.Base(policyFile)
		}
		if c.Workspace != "" {
			if c.Workspace, err = filepath.Abs(c.Workspace); err != nil {
				return err
			}
		}
		if c.Image, err = image(c.Image); err != nil {
			return err
		}
		end := waiting(cmd, "making %s", c.Name)
		s, err := d.Create(cmd.Context(), c)
		end()
		if err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", s.Name, state(s))
		warn(cmd, s.Warnings)
		return nil
	})
	f := cmd.Flags()
	f.StringVarP(&policyFile, "policy", "p", "", "policy `FILE` (default: the one that nemoclaw init writes)")
	f.StringVarP(&c.Workspace, "workspace", "w", "", "`DIR` of the host to show as /workspace, read-write (default: one of the sandbox's own)")
	f.StringVar(&c.Image, "image", "", "where the sandbox's files come from: an OCI layout or tarball, or a `REFERENCE` of a registry (default: the host's, read-only)")
	f.StringArrayVarP(&env, "env", "e", nil, "`NAME=VALUE` for the environment of all its commands; NAME alone passes yours on (can be given several times)")
	f.StringArrayVar(&publish, "publish", nil, "`[ADDRESS:]PORT:INSIDE` reaches the server on port INSIDE from a port of the host, on 127.0.0.1 unless said otherwise (can be given several times)")
	f.BoolVar(&noStart, "no-start", false, "don't start it")
	must(cmd.MarkFlagFilename("policy", "yaml", "yml"))
	must(cmd.MarkFlagDirname("workspace"))
	return cmd
}

// image makes the path of an image on this host absolute, for the daemon, which is elsewhere. What is no file here is
// left as it is: a registry's reference.
func image(ref string) (string, error) {
	if ref == "" {
		return "", nil
	}
	if _, err := os.Stat(ref); err != nil {
		return ref, nil
	}
	return filepath.Abs(ref)
}

// newStart starts sandboxes: the one of that name, or those that the command line names when name is "".
func newStart(name string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "start [NAME...]",
		Short: "Start sandboxes: those named, or all that should run",
		Long: `start starts sandboxes. Without names it starts those that should run and don't: what was started, or made, and not
stopped since.

Exit status: 0 they run, 1 one does not, 2 wrong usage.`,
		Example:           "  nemoclaw start\n  nemoclaw start my-assistant",
		ValidArgsFunction: completeSandboxes,
	}
	if name != "" {
		one(cmd, "start", "Start it", name)
	}
	return talking(cmd, func(cmd *cobra.Command, d *api.Client, args []string) error {
		names, err := chosen(cmd, d, name, args, len(args) == 0, func(s api.Sandbox) bool { return s.Wanted == api.Running && s.State != api.Running })
		if err != nil {
			return err
		}
		if len(names) == 0 {
			fmt.Fprintln(cmd.ErrOrStderr(), "nemoclaw: nothing to start: everything that should run does")
		}
		return each(names, func(name string) error {
			end := waiting(cmd, "starting %s", name)
			s, err := d.Start(cmd.Context(), name)
			end()
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", s.Name, state(s))
			warn(cmd, s.Warnings)
			return nil
		})
	})
}

// newStop stops sandboxes: the one of that name, or those that the command line names when name is "".
func newStop(name string) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "stop NAME...",
		Short: "Stop sandboxes: everything in them ends, their files stay",
		Long: `stop ends everything that runs in sandboxes. Their workspaces, policies and settings stay, and a reboot does not start
them again.

Exit status: 0 they are stopped, 1 one is not, 2 wrong usage.`,
		Example:           "  nemoclaw stop my-assistant\n  nemoclaw stop --all",
		ValidArgsFunction: completeSandboxes,
		Args: func(_ *cobra.Command, args []string) error {
			if all == (len(args) > 0) {
				return usage(errors.New("name the sandboxes to stop, or give --all, not both"))
			}
			return nil
		},
	}
	if name != "" {
		one(cmd, "stop", "Stop it: everything in it ends, its files stay", name)
	} else {
		cmd.Flags().BoolVar(&all, "all", false, "stop all that run")
	}
	return talking(cmd, func(cmd *cobra.Command, d *api.Client, args []string) error {
		names, err := chosen(cmd, d, name, args, all, func(s api.Sandbox) bool { return s.Wanted != api.Stopped || s.State != api.Stopped })
		if err != nil {
			return err
		}
		return each(names, func(name string) error {
			end := waiting(cmd, "stopping %s", name)
			s, err := d.Stop(cmd.Context(), name)
			end()
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", s.Name, state(s))
			return nil
		})
	})
}

// newDestroy destroys the sandbox of that name, or the one that the command line names when name is "".
func newDestroy(name string) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:        "destroy NAME",
		SuggestFor: []string{"rm"},
		Short:      "End a sandbox and remove what is its own",
		Long: `destroy ends everything that runs in a sandbox and removes it with its policy, its snapshots and its workspace. A workspace
that was given with --workspace stays, and so does the audit log. On a terminal it asks for the sandbox's name first.

Exit status: 0 it is gone, 1 it is not, 2 wrong usage.`,
		Example:           "  nemoclaw destroy my-assistant\n  nemoclaw destroy --yes my-assistant",
		Args:              usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: completeSandbox,
	}
	if name != "" {
		one(cmd, "destroy", "End it and remove what is its own", name)
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "don't ask")
	return talking(cmd, func(cmd *cobra.Command, d *api.Client, args []string) error {
		name := name
		if name == "" {
			name = args[0]
		}
		s, err := d.Get(cmd.Context(), name)
		if err != nil {
			return err
		}
		if !yes {
			if err := confirmDestroy(cmd.Context(), s); err != nil {
				return err
			}
		}
		end := waiting(cmd, "destroying %s", name)
		err = d.Destroy(cmd.Context(), name)
		end()
		if err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s: destroyed\n", name)
		return nil
	})
}

func confirmDestroy(ctx context.Context, s api.Sandbox) error {
	p, err := findPerson()
	if errors.Is(err, errNobody) {
		return usage(fmt.Errorf("destroy: %w for the sandbox's name; give --yes to destroy it without", err))
	}
	if err != nil {
		return err
	}
	defer p.close()
	ctx, stop := interruptible(ctx)
	defer stop()
	p.say("This ends everything in %s and removes its policy and its snapshots.\nIts workspace, %s, goes too if it is the sandbox's own.\n", s.Name, text.Escape(s.Workspace))
	answer, err := p.ask(ctx, "Type its name to destroy it", "")
	switch {
	case err != nil:
		return fmt.Errorf("destroy: %w; nothing was done", err)
	case answer != s.Name:
		return fmt.Errorf("destroy: %q is not its name; nothing was done", answer)
	}
	return nil
}

func newList() *cobra.Command {
	return showing(&cobra.Command{
		Use:        "list",
		SuggestFor: []string{"ls", "ps"},
		Short:      "List the sandboxes",
		Long:       "list shows every sandbox that the daemon has, and what it does.\n\nExit status: 0 listed, 1 not, 2 wrong usage.",
		Example:    "  nemoclaw list\n  nemoclaw list -o json",
	}, func(cmd *cobra.Command, d *api.Client, _ []string) ([]api.Sandbox, error) {
		return d.List(cmd.Context())
	}, func(cmd *cobra.Command, list []api.Sandbox) error {
		if len(list) == 0 {
			fmt.Fprintln(cmd.ErrOrStderr(), "nemoclaw: there are no sandboxes; nemoclaw onboard or nemoclaw create makes one")
			return nil
		}
		t := newTable(cmd.OutOrStdout(), "NAME", "STATE", "POLICY", "REFUSED", "APPROVALS", "SINCE")
		for _, s := range list {
			since := "-"
			if s.Started != nil {
				since = ago(time.Since(*s.Started))
			}
			t.row(s.Name, state(s), revision(s.Policy), s.Refused, s.Requests, since)
		}
		return t.flush()
	})
}

// one makes a command that takes names one for the sandbox that the command line addresses.
func one(cmd *cobra.Command, word, short, name string) {
	cmd.Use, cmd.Short, cmd.Args, cmd.ValidArgsFunction = word, short, usageArgs(cobra.NoArgs), cobra.NoFileCompletions
	cmd.Example = "  nemoclaw " + name + " " + word
}

// chosen are the sandboxes that a command is about: the addressed one, those named, or all for which want is true.
func chosen(cmd *cobra.Command, d *api.Client, name string, args []string, all bool, want func(api.Sandbox) bool) ([]string, error) {
	switch {
	case name != "":
		return []string{name}, nil
	case !all:
		return args, nil
	}
	list, err := d.List(cmd.Context())
	var names []string
	for _, s := range list {
		if want(s) {
			names = append(names, s.Name)
		}
	}
	return names, err
}

// each does something with every sandbox, also after one that fails.
func each(names []string, do func(name string) error) error {
	var failed []error
	for _, name := range names {
		if err := do(name); err != nil {
			if len(names) > 1 {
				err = fmt.Errorf("%s: %w", name, err)
			}
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}
