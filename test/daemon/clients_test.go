//go:build e2e

package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/test/harness"
)

// TestRealClients has the official clients read a file with a card in it: each asks the cloud's model, which wants the file, and
// goes on with the local one, which is the first to see what is in it. They notice nothing, and their keys go nowhere.
func TestRealClients(t *testing.T) {
	t.Parallel()
	agents, why := harness.NewAgents(t)
	if agents == nil {
		t.Logf("the official clients were not tried: %s", why)
		return
	}
	const line = "My card is 4111 1111 1111 1111, expires 04/29."
	local, cloud := harness.NewModelServer(t, harness.AgentCalls), harness.NewModelServer(t, harness.AgentCalls)
	d := harness.W.StartDaemon(t)
	c, ctx := dial(t, d)
	dir := filepath.Join(d.Dir, "of-box")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	ws := harness.W.NewWorkspace(t, dir)
	agents.Furnish(t, ws, line)
	policy := agents.Policy("  local: {model: ollama/llama3.3, url: \"" + local.URL + "\"}\n  cloud: {model: anthropic/claude-opus-5-5, url: \"" + cloud.URL + "\"}\n")
	if _, err := c.Create(ctx, api.Create{Name: "box", Policy: policy, Workspace: ws, Start: true}); err != nil {
		t.Fatalf("%v\n%s", err, d.Log())
	}
	for _, set := range []map[string]string{{api.ConfigModel: "anthropic/claude-opus-5-5"}, {api.ConfigKey: "sk-of-the-box"}} { // a key is its provider's
		if _, err := c.SetConfig(ctx, "box", set); err != nil {
			t.Fatal(err)
		}
	}
	out := d.Do(t, append([]string{"box", "exec", "--"}, agents.Argv()...)...)
	if err := agents.Answered(out, line); err != nil {
		t.Errorf("%v\n%s\n%s", err, out, logOf(t, c, "box"))
	}
	if n := len(cloud.Asked()); n != len(harness.AgentNames) { // and what one has read keeps no other at home
		t.Errorf("%d requests reached the cloud's model, want %d", n, len(harness.AgentNames))
	}
	for _, q := range cloud.Asked() {
		if strings.Contains(q.Body, "4111") || q.Key != "sk-of-the-box" || !strings.HasPrefix(q.Path, "/v1/messages") {
			t.Errorf("the cloud got %s with the key %q: %s", q.Path, q.Key, q.Body)
		}
	}
	told := 0
	for _, q := range local.Asked() {
		if q.Key != "" || q.Path != "/api/chat" {
			t.Errorf("the local model got %s with the key %q", q.Path, q.Key)
		}
		if strings.Contains(q.Body, "4111 1111 1111 1111") {
			told++
		}
	}
	if want := len(harness.AgentNames) - 2; told != want { // curl and completions read nothing
		t.Errorf("%d requests with the file reached the local model, want %d", told, want)
	}
}
