package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/nemoclaw/nemoclaw/agent/config"
	"github.com/nemoclaw/nemoclaw/agent/doctor"
	"github.com/nemoclaw/nemoclaw/agent/provider"
	"github.com/nemoclaw/nemoclaw/agent/text"
	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

// What onboard takes when nobody chooses, and which presets it explains.
const defaultName = "my-assistant"

var (
	defaultPresets = []string{"pypi", "npm"}
	shownPresets   = []string{"pypi", "npm", "telegram", "discord"}
)

// onboarding is the wizard, and what was chosen.
type onboarding struct {
	cmd    *cobra.Command
	d      *api.Client
	person *person // nil: nobody is asked
	step   int

	name, model, keyFile string
	presets              []string
	skipKey, yes         bool

	key    string
	config map[string]string
	left   error // what could not be undone
}

func newOnboard() *cobra.Command {
	o := &onboarding{config: map[string]string{}}
	cmd := talking(&cobra.Command{
		Use:   "onboard",
		Short: "Make and start a first sandbox, step by step",
		Long: `onboard looks whether this host is ready, asks for the sandbox's name, the inference key, the model and the presets of its
policy, and makes and starts the sandbox. What a flag says is not asked. With --yes nothing is asked: what no flag says is
the recommended choice, without a key. Interrupted, it leaves nothing behind.

The key is kept by the daemon, where only root can read it, and is never inside the sandbox. It is tried with the model's
provider: one that the provider refuses is not taken; one that could not be tried, or none, is shown as unverified by status.

Exit status: 0 the sandbox runs, 1 it was not made, 2 wrong usage.`,
		Example: `  nemoclaw onboard
  nemoclaw onboard --yes
  nemoclaw onboard --yes --name builder --key-file /root/nvidia.key --model nvidia/nemotron-3-super-120b --preset pypi,github`,
		Args:              usageArgs(cobra.NoArgs),
		ValidArgsFunction: cobra.NoFileCompletions,
	}, func(cmd *cobra.Command, d *api.Client, _ []string) error {
		ctx, stop := interruptible(cmd.Context())
		defer stop()
		cmd.SetContext(ctx)
		o.cmd, o.d = cmd, d
		err := o.run(ctx)
		if err != nil && ctx.Err() != nil {
			return errors.Join(errors.New("onboard: interrupted"), o.left)
		}
		return errors.Join(err, o.left)
	})
	f := cmd.Flags()
	f.StringVar(&o.name, "name", "", "`NAME` of the sandbox (default: "+defaultName+")")
	f.StringVar(&o.keyFile, "key-file", "", "read the inference key from `FILE` (\"-\": standard input)")
	f.BoolVar(&o.skipKey, "skip-key", false, "no inference key now; nemoclaw NAME config set key - gives one later")
	f.StringVar(&o.model, "model", "", "`PROVIDER/MODEL` (default: "+provider.Recommended+")")
	f.StringSliceVar(&o.presets, "preset", nil, "`PRESET` of the policy (several with commas; none: \"\"; default: "+strings.Join(defaultPresets, ",")+")")
	f.BoolVar(&o.yes, "yes", false, "ask nothing")
	must(cmd.MarkFlagFilename("key-file"))
	must(cmd.RegisterFlagCompletionFunc("model", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return modelWords(), cobra.ShellCompDirectiveNoFileComp
	}))
	must(cmd.RegisterFlagCompletionFunc("preset", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return policy.Presets(), cobra.ShellCompDirectiveNoFileComp
	}))
	return cmd
}

func (o *onboarding) run(ctx context.Context) error {
	if err := o.checkFlags(); err != nil {
		return usage(fmt.Errorf("onboard: %w", err))
	}
	if !o.yes {
		p, err := findPerson()
		if errors.Is(err, errNobody) {
			return usage(fmt.Errorf("onboard: %w; give --yes, and --name, --key-file, --model and --preset for what should not be as recommended", err))
		}
		if err != nil {
			return err
		}
		defer p.close()
		o.person = p
	}
	for _, step := range []func(context.Context) error{o.preflight, o.chooseName, o.readKey, o.chooseModel, o.choosePresets, o.create} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (o *onboarding) checkFlags() error {
	if o.name != "" {
		if err := policy.ValidName(o.name); err != nil {
			return err
		}
	}
	if o.keyFile != "" && o.skipKey {
		return errors.New("--key-file and --skip-key: give one of them")
	}
	if o.model != "" {
		if _, err := provider.NeedsKey(o.model); err != nil {
			return err
		}
	}
	return knownPresets(o.presets)
}

func knownPresets(names []string) error {
	for _, p := range names {
		if _, err := policy.PresetSource(p); err != nil {
			return err
		}
	}
	return nil
}

// head begins a step.
func (o *onboarding) head(title string) {
	o.step++
	fmt.Fprintf(o.cmd.OutOrStdout(), "[%d/6] %s\n", o.step, title)
}

// say adds to a step.
func (o *onboarding) say(format string, args ...any) {
	fmt.Fprintf(o.cmd.OutOrStdout(), "      "+format+"\n", args...)
}

// again shows what is wrong with an answer, before the question is asked again.
func (o *onboarding) again(err error) { o.say("%s", text.Escape(err.Error())) }

// preflight looks whether the daemon is there and may be steered, and whether the host is as it should be.
func (o *onboarding) preflight(ctx context.Context) error {
	o.head("Preflight")
	info, err := o.d.Info(ctx)
	if errors.Is(err, api.ErrNotRunning) {
		return fmt.Errorf("onboard: %w; nemoclaw doctor says whether this host can run it", err)
	}
	if err != nil {
		return fmt.Errorf("onboard: %w", err)
	}
	if info.Role != "steer" {
		return errors.New("onboard: you may only watch; making a sandbox is for root and the daemon's steer group")
	}
	o.say("nemoclaw-agent %s answers, Linux %s", text.Escape(info.Version), text.Escape(info.Kernel))
	level := "enforcement level " + info.Level
	if info.Reason != "" {
		level += ": " + info.Reason
	}
	o.say("%s", text.Escape(level))
	if os.Geteuid() != 0 {
		return nil // the rest takes root to look at; the daemon, which is root, runs
	}
	return o.examine(ctx, info)
}

// examine has doctor look at the host, with the daemon's own paths.
func (o *onboarding) examine(ctx context.Context, info api.Info) error {
	c := config.Default()
	c.Socket, c.StateDir, c.RunDir, c.AuditDir = o.cmd.Flag("socket").Value.String(), info.StateDir, info.RunDir, filepath.Dir(info.AuditLog)
	r := doctor.Run(ctx, doctor.Options{Config: c, Version: programVersion(), Done: func(f doctor.Finding) {
		if f.State == doctor.Failed && ctx.Err() == nil { // what is interrupted has not failed
			o.say("%s: %s", f.Check, text.Escape(f.Found))
			o.say("  %s", text.Escape(f.Remedy))
		}
	}})
	if n := r.Count(doctor.Failed); n > 0 {
		return fmt.Errorf("onboard: this host is not ready: %d of %d checks failed; nemoclaw doctor --fix does what is safe", n, len(r.Findings))
	}
	warnings := ""
	if n := r.Count(doctor.Warning); n > 0 {
		warnings = fmt.Sprintf(", %d with a warning (nemoclaw doctor shows them)", n)
	}
	o.say("%d checks of this host%s", len(r.Findings), warnings)
	return nil
}

func (o *onboarding) chooseName(ctx context.Context) error {
	o.head("Name of the sandbox")
	asked := o.name == "" && o.person != nil
	for {
		if asked {
			name, err := o.person.ask(ctx, "      Name", defaultName)
			if err != nil {
				return err
			}
			o.name = name
		} else if o.name == "" {
			o.name = defaultName
		}
		err := policy.ValidName(o.name)
		if err == nil {
			_, err = o.d.Get(ctx, o.name)
			if is(err, api.NotFound) {
				o.say("%s", o.name)
				return nil
			}
			if err == nil {
				err = fmt.Errorf("there is a sandbox %s already (nemoclaw %[1]s status); choose another name", o.name)
			}
		}
		if !asked || ctx.Err() != nil {
			return fmt.Errorf("onboard: %w", err)
		}
		o.again(err)
	}
}

func (o *onboarding) readKey(ctx context.Context) (err error) {
	o.head("Inference key")
	switch {
	case o.keyFile != "":
		if o.key, err = readKeyFile(o.keyFile, o.cmd.InOrStdin()); err != nil {
			return fmt.Errorf("onboard: %w", err)
		}
		o.say("read from %s", text.Escape(o.keyFile))
	case o.person != nil && !o.skipKey && !o.needsNone():
		o.say("NVIDIA's are made at build.nvidia.com. It is kept where only root can read it, and never enters the sandbox.")
		o.key, err = o.person.askSecret(ctx, "      Key (not shown; Enter: none now)")
	default:
		o.say("none")
	}
	return err
}

// needsNone reports whether the model is known already to need no key.
func (o *onboarding) needsNone() bool {
	needs, err := provider.NeedsKey(o.model)
	return err == nil && !needs
}

func (o *onboarding) chooseModel(ctx context.Context) error {
	o.head("Model")
	if o.model == "" && o.person != nil {
		for i, m := range provider.Models() {
			o.say("%d  %-30s %s", i+1, m.ID, m.About)
		}
		for o.model == "" {
			answer, err := o.person.ask(ctx, "      A number, or PROVIDER/MODEL", "1")
			if err != nil {
				return err
			}
			if n, err := strconv.Atoi(answer); err == nil && n >= 1 && n <= len(provider.Models()) {
				answer = provider.Models()[n-1].ID
			}
			if _, err := provider.NeedsKey(answer); err != nil {
				o.again(err)
				continue
			}
			o.model = answer
		}
	}
	if o.model == "" {
		o.model = provider.Recommended
	}
	o.say("%s", text.Escape(o.model))
	o.config[api.ConfigModel] = o.model
	return o.tryKey(ctx)
}

// tryKey tries the key with the model's provider, and asks for another while it is refused.
func (o *onboarding) tryKey(ctx context.Context) error {
	if o.needsNone() {
		o.say("no key is needed")
		return nil
	}
	for {
		if o.key == "" {
			o.say("no key: status will say unverified; later: nemoclaw %s config set key -", o.name)
			return nil
		}
		o.say("trying the key ...")
		err := tryKey(o.cmd, api.Inference{Model: o.model}, o.key, o.config)
		switch {
		case err == nil:
			o.config[api.ConfigKey] = o.key
			if o.config[api.ConfigKeyVerified] != "" {
				o.say("the key works")
			}
			return nil
		case !errors.Is(err, provider.ErrRefused) || o.person == nil:
			return fmt.Errorf("onboard: %w", err)
		}
		o.again(err)
		if o.key, err = o.person.askSecret(ctx, "      Another key (Enter: none now)"); err != nil {
			return err
		}
	}
}

func (o *onboarding) choosePresets(ctx context.Context) error {
	o.head("Presets of the policy")
	if o.person != nil && !o.cmd.Flags().Changed("preset") {
		for _, p := range shownPresets {
			o.say("%-10s %s", p, policy.PresetAbout(p))
		}
		others := slices.DeleteFunc(policy.Presets(), func(p string) bool { return slices.Contains(shownPresets, p) })
		o.say("others: %s", strings.Join(others, " "))
		for {
			answer, err := o.person.ask(ctx, "      Presets, or none", strings.Join(defaultPresets, " "))
			if err != nil {
				return err
			}
			o.presets = strings.FieldsFunc(answer, func(r rune) bool { return r == ' ' || r == ',' })
			if answer == "none" {
				o.presets = nil
			}
			if err = knownPresets(o.presets); err == nil {
				break
			}
			o.again(err)
		}
	} else if !o.cmd.Flags().Changed("preset") {
		o.presets = defaultPresets
	}
	if len(o.presets) == 0 {
		o.say("none")
	} else {
		o.say("%s", strings.Join(o.presets, " "))
	}
	return nil
}

func (o *onboarding) create(ctx context.Context) error {
	o.head("Make and start " + o.name)
	began := time.Now()
	end := waiting(o.cmd, "making %s", o.name)
	s, err := o.d.Create(ctx, api.Create{
		Name: o.name, Policy: firstPolicy(o.presets), PolicyName: o.name + ".yaml", Config: o.config, Start: true,
	})
	end()
	if err == nil && s.State != api.Running {
		err = fmt.Errorf("it did not start: %s", s.Reason)
	}
	if err != nil {
		o.left = o.undo(err)
		return fmt.Errorf("onboard: %w", err)
	}
	o.say("%s: %s after %s", s.Name, state(s), time.Since(began).Round(time.Millisecond))
	warn(o.cmd, s.Warnings)
	fmt.Fprintf(o.cmd.OutOrStdout(), `
Next:
  nemoclaw %[1]s status
  nemoclaw %[1]s connect                  a shell inside
  nemoclaw %[1]s models                   what answers inside, at https://inference.local
  nemoclaw %[1]s logs --follow            what is decided about it
  nemoclaw %[1]s policy add --domain api.openai.com --port 443
`, s.Name)
	return nil
}

// undoTime is how long onboard waits for the daemon to remove what it had begun.
const undoTime = 20 * time.Second

// undo removes a sandbox whose making was interrupted or failed. It was not there before.
func (o *onboarding) undo(cause error) error {
	if is(cause, api.Conflict) || is(cause, api.Invalid) || is(cause, api.Forbidden) {
		return nil // it was refused: whatever has that name is somebody else's
	}
	ctx, cancel := context.WithTimeout(context.Background(), undoTime)
	defer cancel()
	for {
		err := o.d.Destroy(ctx, o.name)
		switch {
		case err == nil || is(err, api.NotFound):
			return nil
		case !is(err, api.Conflict): // it is being made still
			return fmt.Errorf("what was made could not be removed: %w; nemoclaw destroy %s", err, o.name)
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("what was made could not be removed in time: nemoclaw destroy %s", o.name)
		}
	}
}

// modelSection lets the model answer that onboard has asked for.
const modelSection = `
# Model calls: https://inference.local answers inside with the model that was chosen (nemoclaw NAME models). A key never comes inside.
# A prompt with something sensitive goes to a model on this host, and nowhere where there is none: local: {model: "ollama/llama3.3:70b"}
inference: {}
`

// firstPolicy is the policy that nemoclaw init writes, with these presets, and with a model.
func firstPolicy(presets []string) string {
	var b strings.Builder
	for line := range strings.Lines(string(policy.Initial())) {
		if strings.HasPrefix(line, "extends: ") {
			if line = ""; len(presets) > 0 {
				line = "extends: [" + strings.Join(presets, ", ") + "]\n"
			}
		}
		b.WriteString(line)
	}
	b.WriteString(modelSection)
	return b.String()
}
