package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nemoclaw/nemoclaw/agent/provider"
	"github.com/nemoclaw/nemoclaw/agent/text"
	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

// newConfig shows the settings when it is given no command, as get does.
func newConfig(name string) *cobra.Command {
	cmd := newConfigGet(name)
	cmd.Use, cmd.Short = "config", "Show and change its settings"
	cmd.Long = "nemoclaw " + name + ` config alone shows the settings of a sandbox, as get does.

Exit status: 0 done, 1 not, 2 wrong usage.`
	cmd.Example = strings.ReplaceAll(`  nemoclaw NAME config
  nemoclaw NAME config set model nvidia/nemotron-3-super-120b
  nemoclaw NAME config set key -`, "NAME", name)
	cmd.Args = usageArgs(cobra.NoArgs)
	cmd.ValidArgsFunction = nil
	cmd.AddCommand(newConfigGet(name), newConfigSet(name))
	return cmd
}

func newConfigGet(name string) *cobra.Command {
	return showing(&cobra.Command{
		Use:   "get [KEY]",
		Short: "Show its settings, or one",
		Long: `get shows the settings of a sandbox, or the value of one. The inference key is never shown: its value here is verified,
unverified, or for PROVIDER where it was given for another provider than the model's.

Exit status: 0 shown, 1 not, or KEY is not set, 2 wrong usage.`,
		Example:           "  nemoclaw " + name + " config get\n  nemoclaw " + name + " config get model",
		Args:              usageArgs(cobra.MaximumNArgs(1)),
		ValidArgsFunction: completeConfig(name),
	}, func(cmd *cobra.Command, d *api.Client, args []string) (any, error) {
		s, err := d.Get(cmd.Context(), name)
		if err != nil {
			return nil, err
		}
		all := shownSettings(s)
		if len(args) == 0 {
			return all, nil
		}
		v, ok := all[args[0]]
		switch {
		case ok:
			return v, nil
		case slices.Contains(settings, args[0]):
			return nil, fmt.Errorf("config get: %s is not set for %s", args[0], name)
		}
		return nil, noSetting(args[0])
	}, func(cmd *cobra.Command, v any) error {
		all, ok := v.(map[string]string)
		if !ok {
			fmt.Fprintln(cmd.OutOrStdout(), text.Escape(fmt.Sprint(v)))
			return nil
		}
		for _, k := range slices.Sorted(maps.Keys(all)) {
			fmt.Fprintf(cmd.OutOrStdout(), "%s=%s\n", text.Escape(k), text.Escape(all[k]))
		}
		if len(all) == 0 {
			fmt.Fprintf(cmd.ErrOrStderr(), "nemoclaw: nothing is set for %s; there are %s: nemoclaw %[1]s config set KEY VALUE\n", name, strings.Join(settings, " and "))
		}
		return nil
	})
}

// settings are all that can be set.
var settings = []string{api.ConfigModel, api.ConfigKey}

func noSetting(key string) error {
	return usage(fmt.Errorf("config: there is no setting %q%s; there are %s", key, policy.DidYouMean(key, settings), strings.Join(settings, " and ")))
}

// shownSettings are those that are set, with a word in the place of the key.
func shownSettings(s api.Sandbox) map[string]string {
	all := map[string]string{}
	maps.Copy(all, s.Config)
	switch {
	case s.Inference.KeyFor == "":
	case s.Inference.Key == "verified" || s.Inference.Key == "unverified":
		all[api.ConfigKey] = s.Inference.Key
	default:
		all[api.ConfigKey] = "for " + s.Inference.KeyFor
	}
	return all
}

func newConfigSet(name string) *cobra.Command {
	cmd := talking(&cobra.Command{
		Use:   "set KEY VALUE",
		Short: "Change one of its settings",
		Long: `set changes a setting: model, which answers the sandbox's model calls, as PROVIDER/MODEL or by its name in the policy;
key, the provider's key. The value "" takes a setting away. The value - is asked for on the terminal, where it is not shown,
or else read from standard input: so no secret is an argument, which others can see.

Exit status: 0 set, 1 not, 2 wrong usage.`,
		Example: strings.ReplaceAll(`  nemoclaw NAME config set model nvidia/nemotron-3-super-120b
  nemoclaw NAME config set model vllm/qwen3
  nemoclaw NAME config set model fast
  nemoclaw NAME config set key -`, "NAME", name),
		Args:              usageArgs(cobra.ExactArgs(2)),
		ValidArgsFunction: completeConfig(name),
	}, func(cmd *cobra.Command, d *api.Client, args []string) error {
		key, value := args[0], args[1]
		if !slices.Contains(settings, key) {
			return noSetting(key)
		}
		if value == "-" {
			var err error
			if value, err = secretValue(cmd.Context(), cmd.InOrStdin(), key); err != nil {
				return err
			}
		}
		if key == api.ConfigKey && value != "" && args[1] != "-" {
			warn(cmd, []string{"a key that is an argument is in the list of processes and in the shell's history; write -, and it is asked for"})
		}
		set := map[string]string{key: value}
		if key == api.ConfigKey && value != "" {
			s, err := d.Get(cmd.Context(), name)
			if err != nil {
				return err
			}
			if err := tryKey(cmd, s.Inference, value, set); err != nil {
				return err
			}
		}
		s, err := d.SetConfig(cmd.Context(), name, set)
		if err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", name, text.Escape(inference(s)))
		if s.Inference.Off != "" {
			warn(cmd, []string{"no model answers inside: " + s.Inference.Off + "; add the line `inference: {}` to what `nemoclaw " + name +
				" policy get` prints, and give it back with `nemoclaw " + name + " policy set FILE --restart`"})
		}
		warn(cmd, s.Warnings)
		return nil
	})
	return cmd
}

// tryKey tries a key with the provider of the model, and says in set whether it works. A key that the provider refuses is an error; one
// that can't be tried, or may be somebody else's than the provider's, is only unverified.
func tryKey(cmd *cobra.Command, of api.Inference, key string, set map[string]string) error {
	model, unverified := of.Model, ""
	switch {
	case model == "":
		unverified = "no model is set, so it is for the provider of the policy's inference.cloud, or else for " + provider.Recommended
	case !strings.Contains(model, "/"):
		unverified = "it is for the provider of the policy's model " + model + ", which is not asked"
	case of.Elsewhere:
		unverified = "the policy has " + model + " asked at an address of its own, and a key for that is shown to nobody else"
	}
	if unverified != "" {
		warn(cmd, []string{"the key is kept, but unverified: " + unverified})
		return nil
	}
	if needs, err := provider.NeedsKey(model); err != nil || !needs {
		return err
	}
	err := provider.Try(cmd.Context(), model, key)
	switch {
	case err == nil:
		set[api.ConfigKeyVerified] = "true"
	case errors.Is(err, provider.ErrRefused) || cmd.Context().Err() != nil:
		return err
	default:
		warn(cmd, []string{"the key is kept, but unverified: " + err.Error()})
	}
	return nil
}

// secretValue asks a person for a value, or reads it from stdin.
func secretValue(ctx context.Context, stdin io.Reader, key string) (string, error) {
	p, err := findPerson()
	if errors.Is(err, errNobody) {
		return readSecret(stdin)
	}
	if err != nil {
		return "", err
	}
	defer p.close()
	ctx, stop := interruptible(ctx)
	defer stop()
	return p.askSecret(ctx, key)
}

// maxSecret is far more than any key has.
const maxSecret = 16 << 10

// readSecret reads a secret, which is one line.
func readSecret(r io.Reader) (string, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxSecret+1))
	if err != nil {
		return "", fmt.Errorf("read the key: %w", err)
	}
	s := strings.TrimSpace(string(b))
	switch {
	case s == "":
		return "", errors.New("read the key: there is none")
	case len(b) > maxSecret || strings.ContainsAny(s, "\r\n"):
		return "", errors.New("read the key: it is more than one line, so it is no key")
	}
	return s, nil
}

// readKeyFile reads a key from a file; "-" is standard input.
func readKeyFile(file string, stdin io.Reader) (string, error) {
	if file == "-" {
		return readSecret(stdin)
	}
	f, err := os.Open(file)
	if err != nil {
		return "", fmt.Errorf("read the key: %w", err)
	}
	defer f.Close()
	return readSecret(f)
}

func completeConfig(name string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		switch {
		case len(args) == 1 && cmd.Name() == "set" && args[0] == api.ConfigModel:
			names, directive := completed(cmd, func(ctx context.Context, d *api.Client) (names []string, err error) {
				m, err := d.Models(ctx, name)
				for _, x := range m.Models {
					if x.Name != "" {
						names = append(names, x.Name+"\t"+x.Model+", of the policy")
					}
				}
				return names, err
			})
			return append(names, modelWords()...), directive
		case len(args) > 0:
			return nil, cobra.ShellCompDirectiveNoFileComp
		case cmd.Name() == "set":
			return settings, cobra.ShellCompDirectiveNoFileComp
		}
		return completed(cmd, func(ctx context.Context, d *api.Client) ([]string, error) {
			s, err := d.Get(ctx, name)
			return slices.Sorted(maps.Keys(shownSettings(s))), err
		})
	}
}

func modelWords() (words []string) {
	for _, m := range provider.Models() {
		words = append(words, m.ID+"\t"+m.About)
	}
	return words
}
