package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/nemoclaw/nemoclaw/api"
)

func write(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "agent.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestWhatAFileSaysIsWhatIsShown(t *testing.T) {
	t.Parallel()
	text := `socket:         /srv/nc/run/agent.sock
state_dir:      /srv/nc/state
run_dir:        /srv/nc/run
audit:          /srv/nc/audit
audit_max_size: 1GiB
audit_keep:     30
bpffs:          /srv/nc/bpf
cgroup2:        /srv/nc/cgroup
cgroup_parent:  second
steer_group:    ops
watch_group:    ""
resolver:       "[2001:db8::53]:53"
hosts_file:     /srv/nc/hosts
`
	c, err := Load(write(t, text))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(text, c.String()); diff != "" {
		t.Error(diff)
	}
	again, err := Load(write(t, c.String()))
	if err != nil || again != c {
		t.Errorf("what is shown reads as something else: %v\n%s", err, again)
	}
}

func TestAnEmptyFileIsTheDefault(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "# nothing\n"} {
		c, err := Load(write(t, text))
		want := Default()
		want.Socket = "/run/nemoclaw/agent.sock"
		if err != nil || c != want || c.Socket != api.DefaultSocket {
			t.Errorf("%q: %v\n%s", text, err, c)
		}
	}
}

// TestTheSocketFollowsTheRunDirectory, so that a second daemon needs no more than its directories.
func TestTheSocketFollowsTheRunDirectory(t *testing.T) {
	t.Parallel()
	c, err := Load(write(t, "run_dir: /run/second\n"))
	if err != nil || c.Socket != "/run/second/agent.sock" {
		t.Errorf("%q, %v", c.Socket, err)
	}
}

func TestErrorsNameTheLineAndTheRemedy(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"state_dir: /a\nstate: /b\n":                     `:2: unknown key "state" (nearest: state_dir); the keys are socket, `,
		"state_dir: var\n":                               `:1: state_dir "var": want an absolute path`,
		"state_dir: /var/lib/\n":                         `:1: state_dir "/var/lib/": /var/lib is the system's; name a directory of its own, such as /var/lib/nemoclaw`,
		"run_dir:\n":                                     `:1: run_dir has no value`,
		"run_dir: [/a]\n":                                `:1: run_dir: want one value`,
		"- run_dir\n":                                    ":1: want `key: value` lines",
		"run_dir: /a\naudit: /b\nrun_dir: /c\n":          `:3: run_dir was given in line 1 already`,
		"run_dir: /a/b\naudit: /a\n":                     `: run_dir /a/b is, or is in, audit /a; give each a directory of its own`,
		"socket: /var/lib/nemoclaw/agent.sock\n":         `: socket /var/lib/nemoclaw/agent.sock is in the state or audit directory`,
		"watch_group: nemoclaw\n":                        `: steer_group and watch_group are both "nemoclaw"`,
		"cgroup_parent: a/b\n":                           `:1: cgroup_parent "a/b": want a name without slashes`,
		"resolver: nowhere\n":                            `:1: resolver "nowhere": want an address`,
		"audit_max_size: 64MB\n":                         `:1: audit_max_size "64MB": want a size`,
		"audit_max_size: 100\n":                          `:1: audit_max_size "100": less than 64KiB`,
		"audit_keep: -1\n":                               `:1: audit_keep "-1": want a number`,
		"run_dir: /a\n---\nrun_dir: /b\n":                `: more than one document`,
		"run_dir: \"\n":                                  `found unexpected end of stream`,
		"audit_keep: 1\n" + strings.Repeat("#", maxFile): `has more than`,
	} {
		name := write(t, text)
		if _, err := Load(name); err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q:\n %v\nwant\n %s", text, err, want)
		}
	}
}

func TestOnlyItsOwnerMayWriteTheFile(t *testing.T) {
	t.Parallel()
	name := write(t, "")
	if err := os.Chmod(name, 0o664); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(name); err == nil || !strings.Contains(err.Error(), "chmod go-w") {
		t.Error(err)
	}
}

func TestANamedFileMustBeThere(t *testing.T) {
	t.Parallel()
	if _, err := Load("/nowhere/agent.yaml"); err == nil {
		t.Error("a file that is not there was read")
	}
}

func TestFlagsWinOverTheFile(t *testing.T) {
	t.Parallel()
	name := write(t, "run_dir: /run/file\naudit: /audit\n")
	set := pflag.NewFlagSet("", pflag.ContinueOnError)
	flags := Bind(set)
	if err := set.Parse([]string{"--config", name, "--run-dir", "/run/flag", "--audit-max-size", "0"}); err != nil {
		t.Fatal(err)
	}
	c, err := flags.Load()
	if err != nil || c.RunDir != "/run/flag" || c.AuditDir != "/audit" || c.AuditMaxSize != 0 || c.Socket != "/run/flag/agent.sock" {
		t.Errorf("%v\n%s", err, c)
	}
	if err := set.Parse([]string{"--state-dir", "here"}); err != nil {
		t.Fatal(err)
	}
	if _, err := flags.Load(); err == nil || !strings.Contains(err.Error(), `--state-dir "here": want an absolute path`) {
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("run_dir: /a\naudit_keep: 3\n"))
	f.Add([]byte("a: &x [*x]\n"))
	f.Fuzz(func(t *testing.T, src []byte) {
		c := Default()
		if c.parse("f", src) != nil {
			return
		}
		again := Default()
		if err := again.parse("f", []byte(c.String())); err != nil {
			t.Errorf("%s: %v", c, err)
		}
	})
}

// TestTheFileThatIsInstalled says nothing but the defaults: as it is, and with every comment taken away.
func TestTheFileThatIsInstalled(t *testing.T) {
	t.Parallel()
	src, err := os.ReadFile("../../dist/agent.yaml")
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Socket = DefaultRun + "/" + socketName
	for _, text := range []string{string(src), strings.ReplaceAll(string(src), "\n#", "\n")} {
		for _, s := range settings {
			if !strings.Contains(text, s.key+":") {
				t.Errorf("%s is not in the file", s.key)
			}
		}
		var lines []string
		for line := range strings.Lines(text) {
			if key, _, found := strings.Cut(line, ":"); strings.HasPrefix(line, "#") || found && !strings.Contains(key, " ") {
				lines = append(lines, line)
			}
		}
		if c, err := Load(write(t, strings.Join(lines, ""))); err != nil || c != want {
			t.Errorf("%v\n%s", err, c)
		}
	}
}
