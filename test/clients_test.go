//go:build e2e

package test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/test/harness"
)

// TestRealClients has the official clients of every API, agents among them, do their work in a sandbox, each with a model server
// that speaks another one: asked for a file, the model calls a tool of the client's, gets what it gave, and says it. Where no npm
// registry answers, the recorded exchanges of agent/inference/dialect are all there is, and TestInference's own clients.
func TestRealClients(t *testing.T) {
	t.Parallel()
	agents, why := harness.NewAgents(t)
	if agents == nil {
		t.Logf("the official clients were not tried: %s", why)
		return
	}
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte("sk-outside-only\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const line = "The answer is in row 7."
	for model, path := range map[string]string{
		"openai/gpt-5.5": "/v1/", "vllm/qwen3": "/v1/", "anthropic/claude-opus-5-5": "/v1/messages",
		"ollama/llama3.3": "/api/chat", "google/gemini-3-pro": "/v1beta/models/gemini-3-pro:streamGenerateContent",
	} {
		t.Run(strings.ReplaceAll(model, "/", " "), func(t *testing.T) {
			m := harness.NewModelServer(t, harness.AgentCalls)
			ws := harness.W.NewWorkspace(t, t.TempDir())
			agents.Furnish(t, ws, line)
			b := harness.Box{Policy: agents.Policy("  cloud: {model: " + model + ", url: \"" + m.URL + "\", key: {file: \"" + key + "\"}}\n"), Workspace: ws, Timeout: 3 * time.Minute}
			r := harness.W.Run(t, b, agents.Argv()...)
			if err := agents.Answered(r.Out, line); err != nil {
				t.Errorf("%v\n%s", err, r.Dump())
			}
			for _, e := range r.Find("inference", "deny", "") {
				if e.Object != "GET /v1/responses" { // a WebSocket; Codex goes on without
					t.Errorf("%s was refused: %s", e.Object, e.Reason)
				}
			}
			asked, beta := 0, false
			for _, q := range m.Asked() {
				if strings.HasPrefix(q.Path, path) {
					asked++
				}
				beta = beta || strings.HasSuffix(q.Path, "?beta=true") && strings.HasPrefix(q.Beta, "claude-code-")
				if q.Key != "sk-outside-only" {
					t.Errorf("%s came with the key %q", q.Path, q.Key)
				}
			}
			if strings.HasPrefix(model, "anthropic/") && !beta {
				t.Error("Claude Code's own features did not reach Anthropic")
			}
			if asked < 2*len(harness.AgentNames)-2 {
				t.Errorf("%d requests came to %s", asked, path)
			}
		})
	}
}

// TestOpenClaw is the same for OpenClaw, and a file with a card in it: the cloud's model asks for the file, the local one sees it.
func TestOpenClaw(t *testing.T) {
	t.Parallel()
	claw, why := harness.NewOpenClaw(t)
	if claw == nil {
		t.Logf("OpenClaw was not tried: %s", why)
		return
	}
	const line = "My card is 4111 1111 1111 1111, expires 04/29."
	local, cloud := harness.NewModelServer(t, harness.AgentCalls), harness.NewModelServer(t, harness.AgentCalls)
	ws := harness.W.NewWorkspace(t, t.TempDir())
	claw.Furnish(t, ws, line)
	policy := claw.Policy("  local: {model: ollama/llama3.3, url: \"" + local.URL + "\"}\n  cloud: {model: vllm/qwen3, url: \"" + cloud.URL + "\"}\n")
	b := harness.Box{Policy: policy, Workspace: ws, Env: []string{"HOME=/workspace"}, Timeout: 5 * time.Minute}
	r := harness.W.Run(t, b, claw.Argv()...)
	if !strings.Contains(r.Out, line) || len(cloud.Asked()) == 0 {
		t.Errorf("%d requests reached the cloud's model\n%s", len(cloud.Asked()), r.Dump())
	}
	for _, q := range cloud.Asked() {
		if strings.Contains(q.Body, "4111") {
			t.Errorf("the cloud got %s", q.Body)
		}
	}
	told := 0
	for _, q := range local.Asked() {
		told += strings.Count(q.Body, "4111 1111 1111 1111")
	}
	if told != 1 {
		t.Errorf("the file reached the local model %d times", told)
	}
}
