package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	router "github.com/nemoclaw/nemoclaw/agent/inference"
)

func TestRouteExplain(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	p := file("p.yaml", "inference:\n  cloud: {model: openai/gpt-4o}\n  classes: {pii: redact}\n  custom: [{name: project-x, words: [Bluebird], verdict: deny}]\n"+
		"  models:\n    - {name: eu, model: anthropic/claude, classes: {pii: cloud}}\n    - {name: fast, model: ollama/small}\n")
	plain := file("plain.txt", "hello")
	mail := file("mail.txt", "hello\nwrite to jane.doe@example.com")
	for _, c := range []struct {
		args   []string
		status int
		want   []string
	}{
		{[]string{plain}, 0, []string{"cloud: nothing sensitive\n"}},
		{[]string{mail}, 0, []string{"local: pii 1\n"}},
		{[]string{"-p", p, mail}, 0, []string{"redact (openai/gpt-4o): pii 1\n", "  2:10  pii: e-mail, redact\n      write to jane.doe@example.com\n               ^^^^^^^^^^^^^^^^^^^^\n",
			"named eu (anthropic/claude): cloud\n", "named fast (ollama/small): local\n"}},
		{[]string{"-p", p, file("own.txt", "what is bluebird?")}, 0, []string{"deny: project-x 1\n", "named eu (anthropic/claude): deny\n", "named fast (ollama/small): deny\n"}},
		{[]string{"-p", file("none.yaml", "version: 1\n"), mail}, 1, []string{"has no section inference"}},
		{[]string{file("bytes", "\xff\xfe")}, 1, []string{"no text"}},
		{[]string{filepath.Join(dir, "missing")}, 1, []string{"no such file", "or - to read it"}},
		{nil, 2, nil},
	} {
		status, out, err := call(t, append([]string{"route", "explain"}, c.args...)...)
		if status != c.status {
			t.Errorf("%v: %d %s%s", c.args, status, out, err)
		}
		for _, w := range c.want {
			if !strings.Contains(out+err, w) {
				t.Errorf("%v: %q, want %q", c.args, out+err, w)
			}
		}
	}
	_, out, _ := call(t, "route", "explain", "-p", p, "-o", "json", mail)
	var e router.Explanation
	if err := json.Unmarshal([]byte(out), &e); err != nil || e.Verdict != "redact" || len(e.Findings) != 1 || e.Findings[0].Line != 2 {
		t.Errorf("%s: %v", out, err)
	}
}
