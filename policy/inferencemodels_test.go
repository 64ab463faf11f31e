package policy

import (
	"slices"
	"strings"
	"testing"
)

func TestInferenceModels(t *testing.T) {
	const text = `inference:
  local: {model: "ollama/llama3.3:70b"}
  cloud: {model: openai/gpt-4o, classes: {pii: redact}, price: {input: 2.5, output: 10}}
  classes: {credentials: deny}
  models:
    - {name: fast, model: "ollama/llama3.2:3b"}
    - {name: gpu, model: corp/big, api: openai, url: "http://10.0.0.7:8000", route: local}
    - {name: far, model: "ollama/gpt-oss:120b-cloud", route: cloud, price: {input: 0, output: 0.0375}}
    - {name: eu, model: corp/large, api: openai, url: "https://llm.example.org", region: eu, classes: {pii: cloud, credentials: local}, price: {input: 1, output: 1}}
  fallbacks: [eu, fast, local]
  budgets: {tokens: 2000000, cost: 20.5}
`
	c := compile(t, text)
	f := c.Inference
	if got := strings.Join(f.Names(), " "); got != "local cloud fast gpu far eu" || !slices.Equal(f.Fallbacks, []string{"eu", "fast", "local"}) {
		t.Errorf("the names are %s, the fallbacks %v", got, f.Fallbacks)
	}
	for name, want := range map[string]bool{"local": true, "cloud": false, "fast": true, "gpu": true, "far": false, "eu": false} {
		if b := f.Named(name); b.Local != want {
			t.Errorf("%s may see everything: %t", name, b.Local)
		}
	}
	for _, x := range []struct {
		name, class string
		want        Route
	}{{"cloud", "pii", RouteRedact}, {"eu", "pii", RouteCloud}, {"far", "pii", RouteLocal}, {"eu", "credentials", RouteLocal}, {"cloud", "credentials", RouteDeny}} {
		if got := f.RouteTo(f.Named(x.name), x.class); got != x.want {
			t.Errorf("%s to %s goes %s, want %s", x.class, x.name, got, x.want)
		}
	}
	again := compile(t, "inference:\n  "+strings.ReplaceAll(strings.TrimSpace(f.YAML()), "\n", "\n  ")+"\n")
	if again.Revision != c.Revision {
		t.Errorf("written and read it is another:\n%s%v", f.YAML(), Changes(c, again))
	}
	for change, want := range map[string]string{
		"region: eu, ->":                               "inference: model eu: ",
		"[eu, fast, local]->[fast, eu, local]":         "inference: fallbacks: to fast eu local instead of to eu fast local",
		"8000\", route: local}->8001\", route: local}": "inference: model gpu: ",
		"4o, classes: {pii: redact},->4o,":             "inference: cloud: ",
		"cost: 20.5->cost: 21":                         "inference: budgets: {tokens: 2000000, cost: 21} instead of {tokens: 2000000, cost: 20.5}",
		"0.0375->0.075":                                "inference: model far: ",
	} {
		from, to, _ := strings.Cut(change, "->")
		if list := Changes(c, compile(t, strings.Replace(text, from, to, 1))); len(list) != 1 || !strings.HasPrefix(list[0].String(), want) {
			t.Errorf("%s: %v", change, list)
		}
	}
	for name, want := range map[string]float64{"cloud": 12.5, "far": 0.0375, "fast": 0} {
		if usd, known := f.Named(name).Cost(1e6, 1e6); usd != want || !known {
			t.Errorf("%s costs %g (%t), want %g", name, usd, known, want)
		}
	}
	if text := c.Rules[len(c.Rules)-2].Text; !strings.HasPrefix(text, "model: {name: eu") {
		t.Errorf("the rule is %s", text)
	}
}

func TestInferenceModelsRefused(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"models: [{name: local, model: openai/x}]", "is the name of the model that stands under"},
		{"models: [{name: a, model: openai/x}, {name: a, model: openai/y}]", "there is a model a already"},
		{"models: [{name: A, model: openai/x}]", "expected lower-case letters"},
		{"models: [{model: openai/x}]", "the key is missing"},
		{"models: [{name: a, model: corp/x}]", "the provider corp is not known here"},
		{"models: [{name: a, model: corp/x, api: openai, url: \"http://llm.example.org\"}]", "unencrypted"},
		{"models: [{name: a, model: openai/x, region: us}]\n  residency: [eu]", "its region is not one of residency"},
		{"models: [{name: a, model: ollama/x, classes: {pii: cloud}}]", "a local model may see everything"},
		{"models: [{name: fast, model: openai/x}]\n  fallbacks: [fsat]", `there is no model fsat (did you mean "fast"?)`},
		{"models: [{name: a, model: ollama/x, price: {input: 1, output: 1}}]", "a local model costs nothing"},
		{"models: [{name: a, model: openai/x, price: {input: 1}}]", "the key is missing"},
		{"models: [{name: a, model: openai/x}]\n  budgets: {cost: 1}", "nobody knows what this model costs"},
		{"cloud: {model: openai/x}\n  budgets: {cost: 1}", "nobody knows what this model costs"},
		{"default: cloud\n  budgets: {}", "nothing is limited"},
		{"default: cloud\n  budgets: {tokens: 0}", "out of range"},
		{"fallbacks: [local]", "there is no model local (name it under inference.models)"},
		{"models: [{name: a, model: openai/x}]\n  fallbacks: [a, a]", "is in the list already"},
	} {
		p, err := Parse("p.yaml", []byte("inference:\n  "+c.text+"\n"))
		if err == nil {
			_, err = Compile(p)
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.text, err, c.want)
		}
	}
}
