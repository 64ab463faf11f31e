package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"unicode"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

// ruleFlags are the flags that name one rule: of the network, of files or of commands.
type ruleFlags struct {
	rule      api.PolicyRule
	ports     portList
	ask, deny bool
}

// portList is a flag's ports, with commas between them.
type portList []uint16

func (l *portList) String() string {
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(*l), " ", ","), "[]")
}

// Type is what pflag calls the value where the usage has no word for it.
func (l *portList) Type() string { return "ports" }

func (l *portList) Set(s string) error {
	for word := range strings.SplitSeq(s, ",") {
		p, err := parsePort(word)
		if err != nil {
			return err
		}
		*l = append(*l, p)
	}
	return nil
}

func (r *ruleFlags) add(f *pflag.FlagSet) {
	f.StringVar(&r.rule.Domain, "domain", "", "connections to this `NAME` (*.NAME: one label more, **.NAME: one or more)")
	f.StringVar(&r.rule.CIDR, "cidr", "", "connections to these addresses, as a `PREFIX`")
	f.Var(&r.ports, "port", "... on this `PORT` (several with commas)")
	f.StringVar(&r.rule.Protocol, "protocol", "", "... that speak this `PROTOCOL`: https, http, tls or tcp")
	f.StringSliceVar(&r.rule.Commands, "command", nil, "... by this `COMMAND` only (several with commas)")
	f.StringVar(&r.rule.Expires, "expires", "", "... for this `DURATION` from now on, such as 1h")
	f.StringVar(&r.rule.Path, "path", "", "files at and below this `PATH`")
	f.StringSliceVar(&r.rule.Permissions, "permissions", nil, "... with these `PERMISSIONS`: read, write, execute (with commas)")
	f.StringVar(&r.rule.Command, "exec", "", "executing this `COMMAND`, a name or an absolute path")
	f.BoolVar(&r.ask, "ask", false, "a rule that asks a person, instead of allowing")
	f.BoolVar(&r.deny, "deny", false, "a rule that denies, instead of allowing")
}

func (r *ruleFlags) complete(cmd *cobra.Command) {
	completeFlag(cmd, "protocol", "https", "http", "tls", "tcp")
	completeFlag(cmd, "permissions", "read", "write", "execute", "read,write")
	for _, flag := range []string{"domain", "cidr", "port", "command", "expires", "path", "exec"} {
		completeFlag(cmd, flag)
	}
}

// read returns the rule that the flags name.
func (r *ruleFlags) read() (*api.PolicyRule, error) {
	rule := r.rule
	kinds := 0
	for _, s := range []string{rule.Domain, rule.CIDR, rule.Path, rule.Command} {
		if s != "" {
			kinds++
		}
	}
	network := rule.Domain != "" || rule.CIDR != ""
	switch {
	case kinds != 1:
		return nil, errors.New("name one thing that the rule is about: --domain, --cidr, --path or --exec")
	case r.ask && r.deny:
		return nil, errors.New("--ask and --deny: a rule does one of them")
	case !network && (r.ports != nil || rule.Protocol != "" || rule.Commands != nil):
		return nil, errors.New("--port, --protocol and --command narrow a rule of the network: give --domain or --cidr")
	case rule.Path == "" && rule.Permissions != nil:
		return nil, errors.New("--permissions: give --path")
	}
	rule.Ports = r.ports
	if r.ask {
		rule.Verdict = "ask"
	} else if r.deny {
		rule.Verdict = "deny"
	}
	return &rule, nil
}

// newPolicyRule is `policy add` or `policy remove`.
func newPolicyRule(name string, add bool) *cobra.Command {
	var flags ruleFlags
	var change api.PolicyChange
	c := &cobra.Command{
		Use:   "remove",
		Short: "Take rules away, live",
		Long: `remove takes away the rules that are about what the flags name; narrower flags, such as --port, take only those that match.
What no rule allows any more is refused, and connections that only they had allowed are closed.

` + changeStatus,
		Example: strings.ReplaceAll(`  nemoclaw NAME policy remove --domain api.openai.com
  nemoclaw NAME policy remove --path /data --restart`, "NAME", name),
	}
	if add {
		c.Use, c.Short = "add", "Add a rule, live"
		c.Long = `add adds a rule: one that allows, or, with --ask or --deny, one that asks or denies.

` + changeStatus
		c.Example = strings.ReplaceAll(`  nemoclaw NAME policy add --domain api.openai.com --port 443
  nemoclaw NAME policy add --domain '**.github.com' --port 443 --command git --ask
  nemoclaw NAME policy add --cidr 10.1.0.0/16 --port 5432 --protocol tcp
  nemoclaw NAME policy add --path /data --permissions read --restart
  nemoclaw NAME policy add --exec jq --restart`, "NAME", name)
	}
	c.Args, c.ValidArgsFunction = usageArgs(cobra.NoArgs), cobra.NoFileCompletions
	cmd := talking(c, func(cmd *cobra.Command, d *api.Client, _ []string) error {
		rule, err := flags.read()
		if err != nil {
			return usage(fmt.Errorf("policy %s: %w", cmd.Name(), err))
		}
		if add {
			change.Add = rule
		} else {
			change.Remove = rule
		}
		return changePolicy(cmd, d, name, change)
	})
	flags.add(cmd.Flags())
	flags.complete(cmd)
	changeFlags(cmd, &change)
	return cmd
}

// addCommand is the command that adds the rule for what was refused; "" when there is none that can be typed as it is.
func addCommand(name, action, object string) string {
	flags := ""
	if action == policy.QueryConnect.String() {
		host, port, err := net.SplitHostPort(object)
		if err != nil || strings.HasPrefix(object, "/") { // a unix socket
			return ""
		}
		flags = "--domain " + host + " --port " + port
		if a, err := netip.ParseAddr(host); err == nil {
			flags = "--cidr " + netip.PrefixFrom(a, a.BitLen()).String() + " --port " + port
		}
	} else if !typeable(object) {
		return ""
	}
	switch action {
	case policy.QueryExec.String():
		flags = "--exec " + object + " --restart"
	case policy.QueryRead.String():
		flags = "--path " + object + " --permissions read --restart"
	case policy.QueryWrite.String():
		flags = "--path " + object + " --permissions read,write --restart"
	case policy.QueryGPU.String():
		return ""
	}
	return "nemoclaw " + name + " policy add " + flags
}

// typeable reports whether a shell takes s as one word, as it is.
func typeable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool {
		return r > '~' || !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("/.:-_+,@%", r)
	}) && !strings.HasPrefix(s, "-")
}
