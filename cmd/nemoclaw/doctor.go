package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nemoclaw/nemoclaw/agent/config"
	"github.com/nemoclaw/nemoclaw/agent/doctor"
	"github.com/nemoclaw/nemoclaw/agent/term"
	"github.com/nemoclaw/nemoclaw/agent/text"
)

func newDoctor() *cobra.Command {
	var format, file string
	var fix, gpus bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Say whether this host can run sandboxes, and what to do where it can't",
		Long: `doctor looks at what sandboxes need: the kernel (it proves that BPF LSM programs fire by one that refuses something),
Landlock, cgroups, namespaces, limits, disks, resolvers, the daemon (without --config at ` + socketVariable + `, where that is set).
It runs a sandbox and removes it again. What is not as it should be comes with why it matters and what to do about it.

With --gpu it looks at NVIDIA's GPUs instead: the driver, what it knows, the health of each, device nodes, libraries, and
whether CUDA computes on every one, in a helper that runs as nobody. That there is no GPU is fine; a GPU without a driver is
a warning.

With --fix it does what is safe: mounts cgroup2 and the BPF file system, makes directories, raises limits (and keeps them in
` + doctor.SysctlFile + `). It says what it did.

Exit status: 0 all is well, warnings included; 1 something failed; 2 wrong usage.`,
		Example: `  sudo nemoclaw doctor
  sudo nemoclaw doctor --fix
  sudo nemoclaw doctor --gpu
  sudo nemoclaw doctor -o json | jq '.findings[] | select(.state != "ok")'`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			json, err := asJSON(format)
			if err != nil {
				return err
			}
			cfg, err := daemonConfig(file)
			if err != nil {
				return err
			}
			o := doctor.Options{Config: cfg, Version: programVersion(), Fix: fix, GPU: gpus}
			out, errs := cmd.OutOrStdout(), cmd.ErrOrStderr()
			if f, isFile := errs.(*os.File); isFile && term.Is(f) {
				o.Slow = func(check string) { fmt.Fprintf(errs, "looking at %s ...\n", check) }
			}
			if !json {
				o.Done = func(f doctor.Finding) { printFinding(out, f) }
			}
			r := doctor.Run(cmd.Context(), o)
			if json {
				err = printJSON(out, r)
			} else {
				fmt.Fprintf(out, "\nlevel %s: %s\n%d ok, %d warnings, %d failed\n", r.Level, r.LevelReason, r.Count(doctor.OK), r.Count(doctor.Warning), r.Count(doctor.Failed))
			}
			if err == nil && r.Count(doctor.Failed) > 0 {
				err = &statusError{status: statusFailed}
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&fix, "fix", false, "do what is safe about what is found, and say what was done")
	cmd.Flags().BoolVar(&gpus, "gpu", false, "look at GPUs, and compute on each")
	configFlag(cmd, &file)
	outputFlag(cmd, &format)
	return cmd
}

// configFlag adds --config to a command that has to know where the daemon keeps things.
func configFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVar(file, "config", "", "the daemon's configuration `FILE` (default: "+config.DefaultFile+", if it is there)")
	must(cmd.MarkFlagFilename("config", "yaml", "yml"))
}

// daemonConfig reads the configuration of the daemon that is asked about: without one that was named, its socket is where
// the other commands look for it.
func daemonConfig(file string) (config.Config, error) {
	c, err := config.Load(file)
	if s := os.Getenv(socketVariable); file == "" && s != "" {
		c.Socket = s
	}
	return c, err
}

func printFinding(w io.Writer, f doctor.Finding) {
	word := string(f.State)
	fmt.Fprintf(w, "%s%s %-11s %s\n", paint(w, word), strings.Repeat(" ", len("warning")-len(word)), f.Check, text.Escape(f.Found))
	for _, line := range []struct{ name, text string }{{"why", f.Why}, {"do", f.Remedy}, {"done", f.Fixed}} {
		if line.text != "" {
			fmt.Fprintf(w, "%20s%-4s %s\n", "", line.name, text.Escape(line.text))
		}
	}
}
