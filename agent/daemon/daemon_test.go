package daemon

import (
	"strings"
	"testing"

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
