package harness

import (
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// GitServer makes a bare repository, repo.git, with one commit and returns a handler that serves it as git's own HTTP backend does.
func GitServer(t T) http.Handler {
	t.Helper()
	root := t.TempDir()
	work := filepath.Join(root, "work")
	for _, args := range [][]string{
		{"init", "-q", "-b", "main", work},
		{"-C", work, "commit", "-q", "--allow-empty", "-m", "The first commit"},
		{"clone", "-q", "--bare", work, filepath.Join(root, "repo.git")},
		{"-C", filepath.Join(root, "repo.git"), "config", "http.receivepack", "true"},
	} {
		if len(args) > 2 && args[2] == "commit" {
			if err := os.WriteFile(filepath.Join(work, "README"), []byte("A repository of the test's own.\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			git(t, "-C", work, "add", "README")
		}
		git(t, args...)
	}
	out, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		t.Fatal(err)
	}
	return &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(out)), "git-http-backend"),
		Env:  []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "REMOTE_USER=test"},
	}
}

func git(t T, args ...string) {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null",
		"GIT_AUTHOR_NAME=test", "GIT_AUTHOR_EMAIL=test@nemoclaw.test", "GIT_COMMITTER_NAME=test", "GIT_COMMITTER_EMAIL=test@nemoclaw.test")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}
