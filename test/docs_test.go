//go:build e2e

package test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/nemoclaw/nemoclaw/test/harness"
)

// TestPolicyReferenceIsWhole: every key of the language has its place in docs/policy.md.
func TestPolicyReferenceIsWhole(t *testing.T) {
	t.Parallel()
	out, err := exec.Command(harness.W.Bin, "policy", "schema").Output()
	if err != nil {
		t.Fatal(err)
	}
	var schema any
	if err := json.Unmarshal(out, &schema); err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile("../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]bool{}
	collectKeys(schema, keys)
	if len(keys) < 30 {
		t.Fatalf("the schema has only %d keys", len(keys))
	}
	for key := range keys {
		if !regexp.MustCompile("`[^`\n]*\\b" + regexp.QuoteMeta(key) + "\\b[^`\n]*`").Match(doc) {
			t.Errorf("docs/policy.md says nothing of the key %q", key)
		}
	}
}

// collectKeys gathers the names below every `properties` of a JSON Schema.
func collectKeys(node any, keys map[string]bool) {
	switch n := node.(type) {
	case map[string]any:
		for k, v := range n {
			if properties, ok := v.(map[string]any); ok && k == "properties" {
				for name := range properties {
					keys[name] = true
				}
			}
			collectKeys(v, keys)
		}
	case []any:
		for _, v := range n {
			collectKeys(v, keys)
		}
	}
}

// TestDocumentedFlagsExist: a flag of nemoclaw that the documents show, or the demo uses, is one that it has.
func TestDocumentedFlagsExist(t *testing.T) {
	t.Parallel()
	var help strings.Builder
	collectHelp(t, &help)
	collectHelp(t, &help, "box")
	docs, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	flag := regexp.MustCompile(`--[a-z][a-z-]+`)
	for _, doc := range append(docs, "../README.md", "../scripts/demo") {
		b, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			if !strings.Contains(line, "nemoclaw ") && !strings.HasPrefix(line, "|") {
				continue
			}
			for _, f := range flag.FindAllString(line, -1) {
				if !strings.Contains(help.String(), f) {
					t.Errorf("%s shows %s, which nemoclaw does not have", doc, f)
				}
			}
		}
	}
}

// collectHelp gathers the help of a command and of all below it.
func collectHelp(t *testing.T, into *strings.Builder, command ...string) {
	t.Helper()
	out, err := exec.Command(harness.W.Bin, append(command, "--help")...).Output()
	if err != nil {
		t.Fatal(err)
	}
	into.Write(out)
	listed := false
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		switch {
		case len(fields) == 0:
			listed = false
		case listed && fields[0] != "help" && fields[0] != "completion":
			collectHelp(t, into, append(slices.Clone(command), fields[0])...)
		case slices.Contains([]string{"Available Commands:\n", "Sandboxes that last:\n", "Other commands:\n"}, line):
			listed = true
		}
	}
}
