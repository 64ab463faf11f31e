package agent

import (
	"flag"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nemoclaw/nemoclaw/agent/hub"
	"github.com/nemoclaw/nemoclaw/policy"
)

var update = flag.Bool("update", false, "write the golden files anew")

func itoa(f *os.File) string { return strconv.Itoa(int(f.Fd())) }

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; run the test with -update and look at what it wrote", err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s: %s", path, diff)
	}
}

func refused(times uint64, plane policy.Plane, action, object, exe, rule string) hub.Refusal {
	return hub.Refusal{Times: times, Decision: policy.Decision{Plane: plane, Action: action, Object: object, Subject: policy.Subject{Exe: exe}, Rule: rule}}
}

func TestSummary(t *testing.T) {
	full := summary{
		policy: "agent.yaml", revision: "0123456789abcdef", log: "/var/log/nemoclaw/audit/run.jsonl",
		refused: []hub.Refusal{
			refused(12, policy.PlaneNetwork, "connect", "example.com:443", "/usr/bin/curl", "default"),
			refused(1, policy.PlaneNetwork, "connect", "example.com:443", "/usr/bin/wget", "default"),
			refused(1, policy.PlaneNetwork, "connect", "gist.github.com:443", "/usr/bin/git", "agent.yaml:14"),
			refused(3, policy.PlaneExec, "exec", "/usr/bin/ncat", "", "default"),
			refused(1, policy.PlaneFile, "open", "/home/eve/.ssh/id_rsa", "/usr/bin/cat", "default"),
			refused(1, policy.PlaneExec, "exec", "/workspace/\x1b[2J\u202e", "/bin/\x9bsh", "default"),
		},
		unseen:   []string{"paths that no rule covers: they do not exist inside"},
		warnings: []string{"agent.yaml:3: the rule never acts"},
	}
	full.refused[2].Reason = "a deny rule decided"
	golden(t, "summary", full.String())

	many := summary{policy: "p", revision: "r", log: "l", more: 5, lost: 7}
	for i := range maxShown + 3 {
		many.refused = append(many.refused, refused(1, policy.PlaneNetwork, "bind", strconv.Itoa(i), "", "builtin"))
	}
	golden(t, "summary-many", many.String())

	for _, quiet := range []summary{
		{policy: "p", unseen: full.unseen},
		{policy: "p", unseen: full.unseen, terminal: true},
		{policy: "p", unseen: full.unseen, failed: true},
	} {
		if got := quiet.String(); got != "" {
			t.Errorf("%+v has something to say: %s", quiet, got)
		}
	}
	golden(t, "summary-failed", (&summary{unseen: full.unseen, failed: true, terminal: true}).String())
}

func TestUnseenRefusals(t *testing.T) {
	c := policy.Compiled{Files: policy.Files{Baseline: true, Rules: []policy.FileRule{
		{Path: "/root/.ssh", Denied: policy.Read | policy.Write}, {Path: "/etc", Denied: policy.Write}, {Path: "/workspace", Access: policy.Read},
	}}}
	want := []string{
		"anything below paths that are hidden by a deny rule: /root/.ssh",
		"writes below paths that a deny rule makes read-only: /etc",
		"writes to the system (/usr, /etc, ...), which is mounted read-only",
		"paths that no rule covers: they do not exist inside",
	}
	if diff := cmp.Diff(want, unseenRefusals(&c, policy.LevelStatic, true, false)); diff != "" {
		t.Error(diff)
	}
	for programs, want := range map[bool]bool{false: true, true: false} {
		got := unseenRefusals(&policy.Compiled{}, policy.LevelStatic, false, programs)
		if len(got) != 2 || strings.HasPrefix(got[1], "programs") != want {
			t.Errorf("without the kernel's reports, refused programs seen %v: %q", programs, got)
		}
	}
}
