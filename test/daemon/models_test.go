//go:build e2e

package daemon

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/test/harness"
)

// TestInferenceModels has a sandbox's models fail and come back, be chosen by name, and use a budget up, which a daemon that is
// killed does not give back.
func TestInferenceModels(t *testing.T) {
	t.Parallel()
	local, cloud, eu := newModels(t), newModels(t), newModels(t)
	var down atomic.Bool
	serve := cloud.Config.Handler
	cloud.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case down.Load():
			w.WriteHeader(http.StatusServiceUnavailable)
		case r.Method == http.MethodGet:
			fmt.Fprint(w, `{"object":"list","data":[]}`)
		default:
			serve.ServeHTTP(w, r)
		}
	})
	d := harness.W.StartDaemon(t)
	c, ctx := dial(t, d)
	text := harness.Files + "process:\n  allow: [{command: sh}, {command: curl}]\n" +
		"inference:\n  local: {model: ollama/one, url: \"" + local.URL + "\"}\n  cloud: {model: corp/big, api: openai, url: \"" + cloud.URL + "\", region: us, price: {input: 1000, output: 2000}}\n" +
		"  models:\n    - {name: eu, model: euro/large, api: openai, url: \"" + eu.URL + "\", region: eu, classes: {financial: cloud}, price: {input: 0, output: 0}}\n" +
		"  fallbacks: [eu]\n  residency: [us, eu]\n"
	create(t, d, "box", text)
	ask := func(model, content string) string {
		return d.Do(t, "box", "exec", "--", "curl", "-sS", "-d", `{"model":"`+model+`","max_tokens":100,"messages":[{"role":"user","content":"`+content+`"}]}`, "https://inference.local/v1/chat/completions")
	}
	const card = "my card is 4111 1111 1111 1111, expires 04/29"
	for _, x := range []struct {
		model, content string
		m              *models
	}{{"x", "hello", cloud}, {"eu", "hello", eu}, {"eu", card, eu}, {"local", "hello", local}, {"x", card, local}, {"cloud", card, local}} {
		out := ask(x.model, x.content)
		if got := x.m.asked(); !strings.Contains(got, x.content) || cloud.asked()+eu.asked()+local.asked() != "" {
			t.Errorf("%s asked %q: %s", x.model, x.content, out)
		}
	}
	health := func() (of map[string]string) {
		of = map[string]string{}
		m, err := c.Models(ctx, "box")
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range m.Models {
			of[x.Name] = x.Health + " " + x.Reason
		}
		return of
	}
	down.Store(true)
	ask("x", "are you there")
	if got := eu.asked(); !strings.Contains(got, "are you there") || health()["cloud"] != "down it answers 503 Service Unavailable" {
		t.Errorf("instead of what is down: %q, %v\n%s", got, health(), logOf(t, c, "box"))
	}
	ask("x", card)
	if got := local.asked(); !strings.Contains(got, "4111") || eu.asked() != "" {
		t.Errorf("what must stay here: %q", got)
	}
	down.Store(false)
	for until := time.Now().Add(time.Minute); health()["cloud"] != "up "; { // it is probed while somebody asks
		if time.Now().After(until) {
			t.Fatalf("it stays down: %v", health())
		}
		ask("x", "and now")
		time.Sleep(200 * time.Millisecond)
	}
	ask("x", "back again")
	if got := cloud.asked(); !strings.Contains(got, "back again") {
		t.Errorf("what is up again got %q", got)
	}
	list := d.Do(t, "box", "models")
	for _, want := range []string{"*cloud", "corp/big", "euro/large", "ollama/one", "local", "up", "$"} {
		if !strings.Contains(list, want) {
			t.Errorf("models says\n%s", list)
		}
	}

	if _, err := c.ChangePolicy(ctx, "box", api.PolicyChange{Text: text + "  budgets: {cost: 0.01}\n"}); err != nil {
		t.Fatal(err)
	}
	if out := ask("x", "too much"); !strings.Contains(out, "today's budget of cost") || cloud.asked() != "" {
		t.Errorf("a budget that is used up: %s", out)
	}
	if out := ask("eu", "for nothing"); strings.Contains(out, "budget") {
		t.Errorf("what costs nothing: %s", out)
	}
	file := filepath.Join(d.StateDir(), "sandboxes", "box", "spent.json")
	before := written(ctx, t, c, file)
	d.Kill()
	d.Start(t)
	m, err := c.Models(ctx, "box")
	if err != nil || m.Today != before.Today || m.Cost == nil || m.Cost.Left >= 0.2 || m.Today.Cost == 0 {
		t.Errorf("the next daemon has %+v, before it was %+v: %v", m, before, err)
	}
	if out := ask("x", "too much"); !strings.Contains(out, "today's budget of cost") || cloud.asked() != "" {
		t.Errorf("after kill -9: %s", out)
	}
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the file: %v, %v", st, err)
	}
	if !strings.Contains(logOf(t, c, "box"), "today's budget of cost") {
		t.Error("the refusal is not recorded")
	}
}

// written waits until a sandbox's file has what its models took.
func written(ctx context.Context, t *testing.T, c *api.Client, file string) api.Models {
	t.Helper()
	m, err := c.Models(ctx, "box")
	if err != nil {
		t.Fatal(err)
	}
	var tokens, n int64
	for deadline := time.Now().Add(time.Minute); tokens != m.Today.Input+m.Today.Output; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the file has %d tokens, and %+v were taken", tokens, m.Today)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		tokens = 0
		for _, key := range []string{`"input_tokens":`, `"output_tokens":`} {
			for _, rest := range strings.Split(string(text), key)[1:] {
				if _, err := fmt.Sscanf(rest, "%d", &n); err != nil {
					t.Fatal(err)
				}
				tokens += n
			}
		}
	}
	return m
}
