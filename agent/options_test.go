package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nemoclaw/nemoclaw/policy"
)

func TestWorkspace(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	project := filepath.Join(dir, "project")
	state := filepath.Join(dir, "home", "state")
	for _, d := range []string{project, state} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{"toproject": project, "tousr": "/usr", "tostate": state} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(project)
	for _, c := range []struct{ in, want, refused string }{
		{"", project, ""},
		{project, project, ""},
		{".", project, ""},
		{filepath.Join(dir, "toproject"), project, ""},
		{filepath.Join(dir, "nothing"), "", "there is no such directory; make it, or name another with --workspace"},
		{file, "", "is not a directory"},
		{file + "/x", "", "not a directory"},
		{"/", "", "this is, or holds, /bin of this machine"},
		{"/usr", "", "this is, or holds, /usr/bin of this machine"},
		{"/etc", "", "this is, or holds, /etc of this machine"},
		{"/root", "", "this is a home directory"},
		{"/tmp", "", "this is, or holds, /tmp of this machine"},
		{"/proc/self/fd", "", "this is, or holds, /proc of this machine"},
		{filepath.Join(dir, "tousr"), "", "this is, or holds, /usr/bin"},
		{state, "", "nemoclaw's own audit log"},
		{filepath.Join(dir, "tostate"), "", "nemoclaw's own audit log"},
		{filepath.Join(dir, "home"), "", "nemoclaw's own audit log"},
		{dir, "", "nemoclaw's own audit log"},
	} {
		o := Options{Workspace: c.in, AuditDir: filepath.Join(dir, "tostate", "not", "yet"), KeyDir: "/nonexistent/key", RunDir: "/nonexistent/run", BPFFS: "/sys/fs/bpf"}
		if strings.HasSuffix(c.in, "state") || strings.HasSuffix(c.in, "home") || c.in == dir {
			o.AuditDir = state
		}
		got, err := o.workspace()
		switch {
		case c.refused == "" && (err != nil || got != c.want):
			t.Errorf("workspace %q: %q, %v; want %q", c.in, got, err, c.want)
		case c.refused != "" && (err == nil || !strings.Contains(err.Error(), c.refused)):
			t.Errorf("workspace %q: %q, %v; want refused: %s", c.in, got, err, c.refused)
		}
	}
}

func TestSandboxName(t *testing.T) {
	for _, c := range []struct{ flag, policy, want string }{
		{"box", "p", "box"},
		{"", "my-assistant", "my-assistant-"},
		{"", "", "run-"},
		{"", strings.Repeat("a", 53) + "-bcdefghi", strings.Repeat("a", 53) + "-"},
	} {
		got, err := (&Options{Name: c.flag}).sandboxName(&policy.Compiled{Name: c.policy})
		if err != nil || !strings.HasPrefix(got, c.want) || policy.ValidName(got) != nil {
			t.Errorf("name %q, policy's %q: %q, %v", c.flag, c.policy, got, err)
		}
	}
	if _, err := (&Options{Name: "No/Such"}).sandboxName(&policy.Compiled{}); err == nil {
		t.Error("No/Such was taken for a name")
	}
}

func TestLoadInitialPolicy(t *testing.T) {
	c, name, err := (&Options{}).loadPolicy()
	if err != nil || name != "the initial policy" || c.Revision == "" {
		t.Errorf("%v %q %v", c, name, err)
	}
}

func TestOpenEvents(t *testing.T) {
	workspace, elsewhere := t.TempDir(), t.TempDir()
	victim := filepath.Join(elsewhere, "victim")
	if err := os.WriteFile(victim, []byte("keep"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, filepath.Join(elsewhere, "link")); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{
		"fd:", "fd:x", "fd:-1", "fd:987654", filepath.Join(elsewhere, "no", "dir"),
		filepath.Join(elsewhere, "link"), filepath.Join(workspace, "events"), // what the command could have put there
	} {
		if f, err := (&Options{JSONEvents: bad}).openEvents(workspace); err == nil {
			f.Close()
			t.Errorf("--json-events %s was taken", bad)
		}
	}
	if text, err := os.ReadFile(victim); err != nil || string(text) != "keep" {
		t.Errorf("what a link led to: %q, %v", text, err)
	}
	if f, err := (&Options{JSONEvents: filepath.Join(elsewhere, "events")}).openEvents(workspace); err != nil {
		t.Error(err)
	} else {
		f.Close()
	}
	if f, err := (&Options{}).openEvents(workspace); f != nil || err != nil {
		t.Errorf("without --json-events: %v, %v", f, err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	f, err := (&Options{JSONEvents: "fd:" + itoa(w)}).openEvents(workspace)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if _, err := w.WriteString("still open"); err != nil {
		t.Error(err)
	}
	if _, err := (&Options{JSONEvents: "fd:" + itoa(r)}).openEvents(workspace); err == nil || !strings.Contains(err.Error(), "reading only") {
		t.Errorf("a read-only descriptor: %v", err)
	}
}
