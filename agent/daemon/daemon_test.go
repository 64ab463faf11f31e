package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

// TestKeyFor: a key goes to the provider of the model that is set, or else of the policy's cloud model.
func TestKeyFor(t *testing.T) {
	p, err := policy.Parse("p.yaml", []byte("inference:\n  cloud: {model: openai/gpt-4o}\n  models: [{name: fast, model: anthropic/claude}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := policy.Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	for model, want := range map[string]string{"": "openai", "cloud": "openai", "fast": "anthropic", "google/gemini": "google"} {
		if got := providerOf(model, c.Inference); got != want {
			t.Errorf("%q: %s, want %s", model, got, want)
		}
	}
	if got := providerOf("", nil); got != "nvidia" {
		t.Errorf("without a policy for models: %s", got)
	}
}

// TestShownKey: a key is said to be there only for the model whose provider gets it.
func TestShownKey(t *testing.T) {
	t.Parallel()
	p, err := policy.Parse("p.yaml", []byte("inference:\n  cloud: {model: openai/gpt-4o}\n"+
		"  models: [{name: fast, model: anthropic/claude}, {name: near, model: google/x, url: \"https://gemini.example.org\"}, {name: own, model: corp/big, api: openai, url: \"https://llm.example.org\", key: {file: /root/key}}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := policy.Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		model, keyFor string // ""; "": no key
		verified      string
		old           bool // a spec that does not say yet whom the key is for
		want          api.Inference
	}{
		{"openai/x", "", "", false, api.Inference{Key: "none"}},
		{"openai/x", "openai", "true", false, api.Inference{Key: "verified", KeyFor: "openai"}},
		{"openai/x", "openai", "", false, api.Inference{Key: "unverified", KeyFor: "openai"}},
		{"openai/x", "openai", "true", true, api.Inference{Key: "verified", KeyFor: "openai"}},
		{"anthropic/x", "openai", "true", false, api.Inference{Key: "none", KeyFor: "openai"}},
		{"ollama/x", "openai", "true", false, api.Inference{Key: "none", KeyFor: "openai"}},
		{"fast", "anthropic", "", false, api.Inference{Key: "unverified", KeyFor: "anthropic"}},
		{"fast", "openai", "", false, api.Inference{Key: "none", KeyFor: "openai"}},
		{"", "openai", "", false, api.Inference{Key: "unverified", KeyFor: "openai"}}, // the policy's for the cloud answers
		{"google/y", "google", "", false, api.Inference{Key: "unverified", KeyFor: "google", Elsewhere: true}},
		{"vllm/x", "", "", false, api.Inference{Key: "none"}},
		{"own", "", "", false, api.Inference{Key: "policy", Elsewhere: true}},
		{"corp/big", "", "", false, api.Inference{Key: "policy", Elsewhere: true}},
		{"corp/small", "openai", "true", false, api.Inference{Key: "policy", KeyFor: "openai", Elsewhere: true}}, // of the same provider
	} {
		b := &box{dir: t.TempDir(), spec: spec{KeyFor: x.keyFor, Config: map[string]string{}}}
		if x.model != "" {
			b.spec.Config[api.ConfigModel] = x.model
		}
		if x.verified != "" {
			b.spec.Config[api.ConfigKeyVerified] = x.verified
		}
		if x.keyFor != "" {
			if err := os.WriteFile(filepath.Join(b.dir, keyFile), []byte("sk-secret"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if x.old {
			b.spec.KeyFor = ""
		}
		x.want.Model, x.want.Off = x.model, "why"
		shown, got := b.shownConfig(c.Inference, "why")
		if diff := cmp.Diff(x.want, got); diff != "" {
			t.Errorf("%q with a key for %q: %s", x.model, x.keyFor, diff)
		}
		if _, told := shown[api.ConfigKeyVerified]; told {
			t.Errorf("%q: shown: %v", x.model, shown)
		}
	}
}

// TestCheckModel: a model can be set whose provider is known, or that the policy says how to ask.
func TestCheckModel(t *testing.T) {
	t.Parallel()
	p, err := policy.Parse("p.yaml", []byte("inference:\n  models: [{name: own, model: corp/big, api: openai, url: \"https://llm.example.org\"}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := policy.Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	for model, want := range map[string]string{
		"": "", "vllm/qwen3": "", "llamacpp/x": "", "ollama/llama3.3:70b": "", "own": "", "corp/big": "", "corp/small": "",
		"nobody/gpt": "want PROVIDER/MODEL of anthropic", "slow": "want PROVIDER/MODEL, such as", "/x": "want", "vllm/": "want",
	} {
		err := checkConfig(map[string]string{api.ConfigModel: model}, c.Inference)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, want %q", model, err, want)
		}
	}
	if err := checkConfig(map[string]string{api.ConfigModel: "corp/big"}, nil); err == nil {
		t.Error("a provider that nobody knows, and no policy says how to ask")
	}
}

// TestFindNearest: a misspelt name leads to the sandbox that was meant, and another one to none.
func TestFindNearest(t *testing.T) {
	d := &Daemon{boxes: map[string]*box{"my-assistant": {}, "builder": {}}}
	for name, want := range map[string]string{
		"my-asistant": `"my-asistant" (did you mean "my-assistant"?);`, "build": `"build" (did you mean "builder"?);`, "web": `"web"; `,
	} {
		if _, err := d.find(name); err == nil || !strings.Contains(err.Error(), "there is no sandbox named "+want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if b, err := d.find("builder"); err != nil || b == nil {
		t.Error(err)
	}
}
