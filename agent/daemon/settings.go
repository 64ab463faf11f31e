package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/nemoclaw/nemoclaw/agent/atomicfile"
	"github.com/nemoclaw/nemoclaw/agent/audit"
	"github.com/nemoclaw/nemoclaw/agent/provider"
	"github.com/nemoclaw/nemoclaw/agent/server"
	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

// keyFile has a sandbox's inference key in it. It is root's alone, in no answer and in no log.
const keyFile = "key"

// maxValue bounds one value of a sandbox's configuration.
const maxValue = 4096

// checkConfig says what can't be set. f is the section of the sandbox's policy; nil: it has none.
func checkConfig(set map[string]string, f *policy.Inference) error {
	for k, v := range set {
		if known := []string{api.ConfigModel, api.ConfigKey}; !slices.Contains(append(known, api.ConfigKeyVerified), k) {
			return &api.Error{Code: api.Invalid, Message: fmt.Sprintf("there is no setting %q%s; there are %s", k, policy.DidYouMean(k, known), strings.Join(known, " and "))}
		}
		bad := len(v) > maxValue || strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r == 0x7f })
		if k == api.ConfigModel && v != "" {
			provider, model, ok := strings.Cut(v, "/")
			bad = bad || ok && (provider == "" || model == "") || !ok && f.Named(v) == nil
		}
		if k == api.ConfigModel && !bad && v != "" && backendOf(v, f) == nil {
			if _, err := policy.BackendOf(v); err != nil { // nobody would know where to ask it
				return &api.Error{Code: api.Invalid, Message: err.Error()}
			}
		}
		if bad {
			want := "one line of at most 4096 bytes"
			if k == api.ConfigModel {
				want = "PROVIDER/MODEL, such as ollama/llama3.3:70b, or a model's name in the sandbox's policy"
				if names := f.Names(); len(names) > 0 {
					want += ": " + strings.Join(names, ", ")
				}
			}
			return &api.Error{Code: api.Invalid, Message: fmt.Sprintf("%s: want %s", k, want)}
		}
	}
	return nil
}

// keepConfig writes a key to its file and puts the rest into the spec.
func keepConfig(dir string, s *spec, set map[string]string, f *policy.Inference) error {
	s.Config = maps.Clone(s.Config)
	if s.Config == nil {
		s.Config = map[string]string{}
	}
	if s.KeyFor == "" { // of before this was kept: another model must not get it
		s.KeyFor = providerOf(s.Config[api.ConfigModel], f)
	}
	for k, v := range set {
		switch {
		case k == api.ConfigKey:
			file := filepath.Join(dir, keyFile)
			err := atomicfile.Write(file, []byte(v))
			if v == "" {
				err = errors.Join(err, os.Remove(file))
			}
			if err != nil {
				return fmt.Errorf("keeping the key: %w", err)
			}
			if _, told := set[api.ConfigKeyVerified]; !told {
				delete(s.Config, api.ConfigKeyVerified)
			}
		case v == "":
			delete(s.Config, k)
		default:
			s.Config[k] = v
		}
	}
	if _, given := set[api.ConfigKey]; given {
		s.KeyFor = providerOf(s.Config[api.ConfigModel], f)
	}
	return nil
}

// providerOf is whom a key is for that is given while a model is set, or none is: then the policy's for the cloud answers.
func providerOf(model string, f *policy.Inference) string {
	if b := f.Named(cmp.Or(model, policy.CloudName)); b != nil {
		return b.Provider
	}
	name, _, _ := strings.Cut(cmp.Or(model, provider.Recommended), "/")
	return name
}

// keyFor is whom the key that is kept is for, if there is one.
func (s *spec) keyFor() string {
	return cmp.Or(s.KeyFor, providerOf(s.Config[api.ConfigModel], nil)) // the key may be older than names of models are
}

// backendOf is how the policy says that a model is asked, as the router looks for it: by its name, as it stands, or by its provider. nil:
// it says nothing of it.
func backendOf(model string, f *policy.Inference) *policy.Backend {
	if b := f.Named(cmp.Or(model, policy.CloudName)); b != nil {
		return b
	}
	all := f.All()
	for _, same := range []func(b *policy.Backend) bool{
		func(b *policy.Backend) bool { return b.String() == model }, func(b *policy.Backend) bool { return b.Provider == providerOf(model, f) },
	} {
		if i := slices.IndexFunc(all, same); i >= 0 {
			return all[i]
		}
	}
	return nil
}

// elsewhere reports whether a backend is asked at another address than its provider's own.
func elsewhere(b *policy.Backend) bool {
	own, err := policy.BackendOf(b.String())
	return err != nil || own.URL != b.URL
}

// shownConfig is what of the configuration may be seen. f is the section of the policy that holds; nil: off says why there is none.
// The caller holds mu.
func (b *box) shownConfig(f *policy.Inference, off string) (map[string]string, api.Inference) {
	shown := maps.Clone(b.spec.Config)
	delete(shown, api.ConfigKeyVerified)
	of := api.Inference{Model: shown[api.ConfigModel], Key: "none", Off: off}
	_, err := os.Lstat(filepath.Join(b.dir, keyFile))
	if err == nil {
		of.KeyFor = b.spec.keyFor()
	}
	by := backendOf(of.Model, f)
	of.Elsewhere = by != nil && elsewhere(by)
	switch {
	case by != nil && by.Key != policy.Key{}:
		of.Key = "policy"
	case err != nil || of.KeyFor != providerOf(of.Model, f):
	case b.spec.Config[api.ConfigKeyVerified] == "true":
		of.Key = "verified"
	default:
		of.Key = "unverified"
	}
	return shown, of
}

// modelRules is the section of the policy that says what answers model calls: of the policy in force, or else of the one that it will be
// started with. nil: none does, and off says why.
func (b *box) modelRules() (f *policy.Inference, off string) {
	c, _, err := b.ruling()
	switch {
	case err != nil:
		return nil, "its policy can't be used: " + err.Error()
	case c.Inference == nil:
		return nil, "its policy has no section inference"
	}
	return c.Inference, ""
}

// SetConfig changes a sandbox's configuration.
func (d *Daemon) SetConfig(_ context.Context, who server.Caller, name string, set map[string]string) (api.Sandbox, error) {
	return d.operate(name, func(b *box) error {
		compiled, _, err := b.compile(0)
		if err != nil {
			return err
		}
		if err := checkConfig(set, compiled.Inference); err != nil {
			return err
		}
		var failed error
		err = b.change(func(s *spec) { failed = keepConfig(b.dir, s, set, compiled.Inference) })
		if err = errors.Join(failed, err); err != nil {
			return err
		}
		keys := slices.Sorted(maps.Keys(set))
		b.note("config", strings.Join(keys, " "), "set by "+who.Name)
		return nil
	})
}

// filter turns a selection of records into the audit log's.
func filter(e api.Events) (audit.Filter, error) {
	f := audit.Filter{Since: e.Since, From: e.From, To: e.To, Sandbox: e.Sandbox, Last: e.Last}
	for _, p := range e.Planes {
		plane, err := policy.ParsePlane(p)
		if err != nil {
			return f, err
		}
		f.Planes = append(f.Planes, plane)
	}
	for _, v := range e.Verdict {
		var verdict policy.Verdict
		if err := verdict.UnmarshalText([]byte(v)); err != nil {
			return f, err
		}
		f.Verdicts = append(f.Verdicts, verdict)
	}
	return f, nil
}
