package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nemoclaw/nemoclaw/agent"
	"github.com/nemoclaw/nemoclaw/agent/config"
)

func newRun() *cobra.Command {
	o := agent.Options{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	var resolver string
	var env, generalise []string
	cmd := &cobra.Command{
		Use:   "run [flags] [--] COMMAND [ARG...]",
		Short: "Run a command in a sandbox, under a policy",
		Long: `run starts COMMAND in a new sandbox that can do only what the policy allows, waits for it, and removes the sandbox with
everything that still runs in it. It needs root; the command itself runs as an unprivileged user. Inside, the workspace is
/workspace; HOME and /tmp are private and gone at the end.

Where the policy says ask, the connection is held and a question shown on the terminal; without a terminal it is refused.
At the end run says on standard error what was refused, with the rule that would allow it.

With --learn it also writes the least policy that covers what the command needed: the rules that were used, what a person
approved, and, marked as such, what was refused. Learning lets nothing through that the policy denies, so several rounds may
be needed, each with --policy naming the file of the last (docs/learn.md).

Exit status: the command's own; 128 and the signal's number when a signal ended it; 127 when it was not found inside, 126
when it could not be executed; 125 when the sandbox could not be made or had to be stopped; 2 wrong usage.`,
		Example: `  nemoclaw run -- python3 agent.py
  nemoclaw run --policy policy.yaml --workspace ~/project -- sh -c 'npm install && npm test'
  nemoclaw run --json-events /var/tmp/events.jsonl -- ./agent
  nemoclaw run --learn least.yaml --policy policy.yaml -- sh -c 'npm install && npm test'`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usage(errors.New("no command was given"))
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			o.Command = args
			o.Signals = takeSignals
			var err error
			if o.Env, err = environment(env, os.LookupEnv); err != nil {
				return usage(err)
			}
			for _, g := range generalise {
				if g != agent.GeneraliseDirs && g != agent.GeneraliseSubdomains {
					return usage(fmt.Errorf("--generalise %q: want %s, %s or both", g, agent.GeneraliseDirs, agent.GeneraliseSubdomains))
				}
			}
			if o.Generalise = generalise; generalise != nil && o.Learn == "" {
				return usage(errors.New("--generalise: it says how wide the rules of --learn become; give --learn FILE as well"))
			}
			if resolver != "" {
				a, err := parseResolver(resolver)
				if err != nil {
					return usage(err)
				}
				o.Resolver = a
			}
			status, err := agent.Run(o)
			if status == 0 && err == nil {
				return nil
			}
			return &statusError{status: status, err: err}
		},
	}
	f := cmd.Flags()
	f.SetInterspersed(false) // what follows the command's name is the command's
	f.StringVarP(&o.PolicyFile, "policy", "p", "", "policy `FILE` (default: the built-in one, which nemoclaw init writes out; no file is looked for)")
	f.StringVarP(&o.Workspace, "workspace", "w", "", "`DIR` to show as /workspace, read-write (default: the current directory)")
	f.StringVar(&o.Image, "image", "", "let the files of an image be the system inside, instead of the host's: an absolute `PATH` of an OCI layout or a tarball, or a registry's reference (docs/images.md)")
	f.StringVar(&o.Images, "images", filepath.Join(config.DefaultState, "images"), "`DIR` of the unpacked images")
	f.StringVar(&o.Name, "name", "", "`NAME` of the sandbox (default: the policy's, with a suffix)")
	f.StringArrayVarP(&env, "env", "e", nil, "`NAME=VALUE` for the command's environment, which is made from nothing; NAME alone passes yours on (can be given several times)")
	f.StringVar(&o.JSONEvents, "json-events", "", "write every decision as a JSON line to `FILE`, or to an open descriptor as fd:N")
	f.StringVar(&o.Learn, "learn", "", "write the least policy that covers what was needed to a new `FILE`")
	f.StringSliceVar(&generalise, "generalise", nil, "make rules of --learn wider: `WHAT` is dirs (two refused files make their directory a rule), subdomains (two names make a wildcard) or both")
	f.BoolVar(&o.NoPrompt, "no-prompt", false, "refuse what the policy would ask about, even if there is a terminal")
	f.BoolVarP(&o.Quiet, "quiet", "q", false, "no summary and no warnings at the end")
	f.StringVar(&o.AuditDir, "audit", config.DefaultAudit, "`DIR` of the audit logs")
	keyDir(cmd, &o.KeyDir)
	f.StringVar(&o.RunDir, "run-dir", config.DefaultRun, "`DIR` for what lives as long as a sandbox")
	f.StringVar(&o.BPFFS, "bpffs", config.DefaultBPFFS, "`DIR` of the BPF file system; it is mounted there if nothing is")
	f.StringVar(&o.CgroupParent, "cgroup-parent", config.DefaultParent, "`NAME` of the cgroup that holds all sandboxes")
	f.StringVar(&resolver, "resolver", "", "`ADDR[:PORT]` of the DNS server to ask for allowed names (default: /etc/resolv.conf)")
	f.StringVar(&o.HostsFile, "hosts-file", "", "`FILE` of host names to look in first (default: /etc/hosts)")
	for _, name := range []string{"workspace", "images", "audit", "run-dir", "bpffs"} {
		must(cmd.MarkFlagDirname(name))
	}
	must(cmd.MarkFlagFilename("policy", "yaml", "yml"))
	must(cmd.MarkFlagFilename("learn", "yaml", "yml"))
	completeFlag(cmd, "generalise", agent.GeneraliseDirs, agent.GeneraliseSubdomains)
	return cmd
}

// environment completes what --env was given: a name alone takes the value that it has here.
func environment(given []string, lookup func(string) (string, bool)) ([]string, error) {
	var out []string
	for _, e := range given {
		name, _, whole := strings.Cut(e, "=")
		if name == "" {
			return nil, fmt.Errorf("--env %q: want NAME=VALUE or NAME", e)
		}
		if !whole {
			value, ok := lookup(name)
			if !ok {
				return nil, fmt.Errorf("--env %s: it is not set here, so it can't be passed on; give NAME=VALUE", name)
			}
			e = name + "=" + value
		}
		out = append(out, e)
	}
	return out, nil
}

// parseResolver reads an address with or without a port; the port is 53 when it is left out.
func parseResolver(s string) (netip.AddrPort, error) {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap, nil
	}
	if a, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return netip.AddrPortFrom(a, 53), nil
	}
	return netip.AddrPort{}, fmt.Errorf("--resolver %q: want an address with or without a port, such as 192.0.2.53 or [2001:db8::53]:5353", s)
}
