package harness

import (
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Agents are the official clients of the model APIs, as npm has them: the SDKs, and the agents of Anthropic and OpenAI.
type Agents struct {
	dir           string
	claude, codex string // their programs, which the scripts of their packages start
}

//go:embed agents.mjs
var agentsScript []byte

// NewAgents installs them; nil and why where no npm registry answers.
func NewAgents(t T) (*Agents, string) {
	t.Helper()
	dir, why := Packages(t, "openai@7.57.0", "@anthropic-ai/sdk@1.12.0", "ollama@0.6.4", "@anthropic-ai/claude-code@2.1.330", "@openai/codex@0.169.0")
	if dir == "" {
		return nil, why
	}
	one := func(pattern string) string {
		found, err := filepath.Glob(filepath.Join(dir, "node_modules", pattern))
		if err != nil || len(found) != 1 {
			t.Fatalf("%d files are %s", len(found), pattern)
		}
		return found[0]
	}
	return &Agents{dir: dir, claude: one("@anthropic-ai/claude-code-linux-*/claude"), codex: one("@openai/codex-linux-*/vendor/*/bin/codex")}, ""
}

// Policy is one for them with a section inference.
func (a *Agents) Policy(inference string) string {
	p := strings.Replace(Files, "  allow:\n", "  allow:\n    - {path: "+a.dir+", permissions: [read]}\n", 1) + "process:\n  allow:\n"
	for _, c := range []string{"sh", "bash", "node", "curl", "cat", "id", a.claude, a.codex, a.codex + "-code-mode-host"} {
		p += "    - command: " + c + "\n"
	}
	return p + "inference:\n" + inference
}

// Furnish puts what they need into a workspace, and a file to read, with a line in it.
func (a *Agents) Furnish(t T, workspace, line string) {
	t.Helper()
	for name, text := range map[string][]byte{"agents.mjs": agentsScript, "notes.txt": []byte(line + "\n")} {
		if err := os.WriteFile(filepath.Join(workspace, name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(a.dir, "node_modules"), filepath.Join(workspace, "node_modules")); err != nil {
		t.Fatal(err)
	}
}

// readByScript is how Codex's newer models run commands: in a program of JavaScript's.
const readByScript = `text(await tools.exec_command({cmd: "cat notes.txt"}))`

// AgentCalls are what a ModelServer calls to have each of them read the file.
var AgentCalls = map[string]string{
	"read_file":       `{"path": "notes.txt"}`,
	"read":            `{"path": "notes.txt"}`, // OpenClaw
	"Bash":            `{"command": "cat notes.txt", "description": "Reads the notes"}`,
	"exec_command":    `{"cmd": "cat notes.txt"}`,
	"exec":            quoted(readByScript),
	"functions__exec": `{"input": ` + quoted(readByScript) + `}`,
}

// AgentNames are what each line that the script prints begins with.
var AgentNames = []string{"curl", "openai chat", "openai responses", "openai completions", "anthropic", "ollama", "claude", "codex", "codex built-in"}

// agentScript asks each of them what is in the file, and prints a line of the answers of each.
const agentScript = `
export HOME=/workspace ANTHROPIC_BASE_URL=https://inference.local ANTHROPIC_AUTH_TOKEN=none OPENAI_BASE_URL=https://inference.local/v1 OPENAI_API_KEY=none OLLAMA_HOST=https://inference.local
ask='What is in notes.txt?'
echo curl: $(curl -sSN -d '{"model":"m","stream":true,"messages":[{"role":"user","content":"hello"}]}' https://inference.local/v1/chat/completions)
node agents.mjs
echo claude: $(node node_modules/@anthropic-ai/claude-code/cli-wrapper.cjs -p "$ask" --dangerously-skip-permissions </dev/null)
codex() { node node_modules/@openai/codex/bin/codex.js exec --skip-git-repo-check --dangerously-bypass-approvals-and-sandbox "$@" </dev/null; }
echo codex: $(codex -c model_provider=nemoclaw -c 'model_providers.nemoclaw={name="NemoClaw",base_url="https://inference.local/v1",wire_api="responses"}' "$ask")
echo codex built-in: $(codex -m gpt-5.5 -c openai_base_url=https://inference.local/v1 "$ask")
`

// Argv runs the script.
func (a *Agents) Argv() []string { return []string{"sh", "-c", agentScript} }

// Answered checks that each has read the line and told it.
func (a *Agents) Answered(out, line string) error {
	got := map[string]string{}
	for l := range strings.Lines(out) {
		name, rest, _ := strings.Cut(l, ": ")
		got[name] = rest
	}
	for _, name := range AgentNames {
		want := []string{line}
		switch name {
		case "curl", "openai completions": // they have no tools
			want = []string{"Hello"}
		case "openai chat", "openai responses", "anthropic", "ollama":
			want = append(want, fmt.Sprintf(" in %d pieces", len(pieces(beforeCall))+len(pieces(afterCall+line+"\n")))) // as the model said it
		}
		for _, w := range want {
			if !strings.Contains(got[name], w) {
				return fmt.Errorf("%s: %q, want %q", name, got[name], w)
			}
		}
	}
	return nil
}
