package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nemoclaw/nemoclaw/api"
)

// TestSaysOfModelAndKey: what status and config say of a model and its key, and that a key's value is in neither.
func TestSaysOfModelAndKey(t *testing.T) {
	t.Parallel()
	const off = "its policy has no section inference"
	for _, c := range []struct {
		of     api.Inference
		status string
		config map[string]string
	}{
		{api.Inference{Key: "none"}, "no model chosen: those of the policy answer, if it names some (nemoclaw box models)", map[string]string{}},
		{api.Inference{Key: "none", Off: off}, "none: its policy has no section inference", map[string]string{}},
		{api.Inference{Model: "ollama/x", Key: "none"}, "ollama/x, which needs no key", map[string]string{"model": "ollama/x"}},
		{api.Inference{Model: "ollama/x", Key: "none", Off: off}, "ollama/x, which needs no key; it has no effect: its policy has no section inference", map[string]string{"model": "ollama/x"}},
		{api.Inference{Model: "fast", Key: "none"}, "fast, a model of the policy", map[string]string{"model": "fast"}},
		{api.Inference{Model: "corp/big", Key: "policy"}, "corp/big, with the policy's key", map[string]string{"model": "corp/big"}},
		{api.Inference{Model: "openai/x", Key: "none"}, "openai/x, key unverified: there is none (nemoclaw box config set key -)", map[string]string{"model": "openai/x"}},
		{api.Inference{Model: "openai/x", Key: "verified", KeyFor: "openai"}, "openai/x, key verified", map[string]string{"model": "openai/x", "key": "verified"}},
		{
			api.Inference{Model: "openai/x", Key: "unverified", KeyFor: "openai"},
			"openai/x, key unverified: it was not tried with the provider", map[string]string{"model": "openai/x", "key": "unverified"},
		},
		{
			api.Inference{Model: "openai/x", Key: "none", KeyFor: "nvidia"},
			"openai/x, no key: the one that there is is for nvidia, and nobody else gets it (nemoclaw box config set key -)",
			map[string]string{"model": "openai/x", "key": "for nvidia"},
		},
		{api.Inference{Model: "ollama/x", Key: "none", KeyFor: "nvidia"}, "ollama/x, which needs no key", map[string]string{"model": "ollama/x", "key": "for nvidia"}},
		{api.Inference{Key: "unverified", KeyFor: "nvidia"}, "no model chosen, key unverified: it was not tried with the provider", map[string]string{"key": "unverified"}},
	} {
		s := api.Sandbox{Name: "box", Inference: c.of}
		if c.of.Model != "" {
			s.Config = map[string]string{api.ConfigModel: c.of.Model}
		}
		if got := inference(s); got != c.status {
			t.Errorf("%+v: status says %q, want %q", c.of, got, c.status)
		}
		if diff := cmp.Diff(c.config, shownSettings(s)); diff != "" {
			t.Errorf("%+v: config: %s", c.of, diff)
		}
	}
}
