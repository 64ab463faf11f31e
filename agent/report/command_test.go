package report

import (
	"os"
	"os/exec"
	"testing"
)

// TestCommandsAreOneCommand: a command of a report that names a file is for a person to copy into a shell of root's. Whoever named the
// file starts nothing with it, as the report's words are and as they stand in Markdown.
func TestCommandsAreOneCommand(t *testing.T) {
	t.Parallel()
	for _, name := range append([]string{
		"x'$(touch pwned)'.jsonl", "x'`touch pwned`'", "x';touch pwned;'", "x'\n touch pwned #", "x\\';touch pwned;\\'", "x'\"'$(touch pwned)'\"'", "x'|touch pwned|'", "$(touch pwned)", "\\'$(touch pwned)",
	}, evil...) {
		words := command("true", name)[0].Words
		span := codeSpan(words)
		for _, line := range []string{words, span[1 : len(span)-1]} {
			dir := t.TempDir()
			sh := exec.Command("sh", "-c", line)
			sh.Dir = dir
			out, err := sh.CombinedOutput()
			if err != nil {
				t.Errorf("%q: sh says of %s: %v: %s", name, line, err, out)
			}
			if files, _ := os.ReadDir(dir); len(files) > 0 {
				t.Errorf("%q: %s does more than one thing", name, line)
			}
		}
	}
}
