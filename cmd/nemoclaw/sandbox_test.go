package main

import (
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/nemoclaw/nemoclaw/policy"
)

func TestSandboxNamed(t *testing.T) {
	for line, want := range map[string]string{
		"": "", "list": "", "run x": "", "--help": "", "-o json": "", "My_Box status": "", "policy check x": "",
		"my-assistant": "my-assistant", "my-assistant status": "my-assistant", "web policy list": "web", "runn": "runn",
		"help web": "web", "help run": "", "help": "",
		"__complete web policy": "web", "__completeNoDesc web st": "web", "__complete policy pre": "", "__complete": "",
	} {
		if got := sandboxNamed(strings.Fields(line)); got != want {
			t.Errorf("%q addresses %q, want %q", line, got, want)
		}
	}
	if got := sandboxNamed([]string{"__complete", ""}); got != "" {
		t.Errorf("completion of nothing addresses %q", got)
	}
}

// TestNamesOfCommands: no command can be a sandbox's name, and what only a sandbox has is known as such.
func TestNamesOfCommands(t *testing.T) {
	root := newRoot("box")
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd("x")
	var own []string
	for _, c := range root.Commands() {
		if c.Name() == "box" {
			for _, s := range c.Commands() {
				if found, _, err := newRoot("").Find([]string{s.Name()}); err != nil || found.Name() != s.Name() {
					own = append(own, s.Name())
				}
				if policy.ValidName(s.Name()) == nil {
					t.Errorf("a sandbox may be called %s, which is a command of sandboxes", s.Name())
				}
			}
			continue
		}
		if policy.ValidName(c.Name()) == nil {
			t.Errorf("a sandbox may be called %s, which is a command", c.Name())
		}
	}
	if slices.Sort(own); !slices.Equal(own, sandboxWords) {
		t.Errorf("only a sandbox has %q; sandboxWords says %q", own, sandboxWords)
	}
}

// TestHelpEverywhere: every command shows an example, and those that do something say how they end.
func TestHelpEverywhere(t *testing.T) {
	var check func(c *cobra.Command)
	check = func(c *cobra.Command) {
		if c.Example == "" {
			t.Errorf("%s: no example", c.CommandPath())
		}
		if !c.HasSubCommands() && !strings.Contains(c.Long, "Exit status: ") {
			t.Errorf("%s: it doesn't say how it ends", c.CommandPath())
		}
		for _, sub := range c.Commands() {
			if sub.Name() != "help" && sub.Name() != "completion" {
				check(sub)
			}
		}
	}
	check(newRoot("box"))
}

// TestWithoutDaemon: what goes wrong before the daemon is asked, and what is said when it does not run.
func TestWithoutDaemon(t *testing.T) {
	t.Setenv(socketVariable, t.TempDir()+"/none.sock")
	for _, c := range []struct {
		line   string
		status int
		want   string
	}{
		{"connect box", statusUsage, "connect is for one sandbox; give its name before: nemoclaw box connect"},
		{"status", statusUsage, "status is for one sandbox; give its name before: nemoclaw NAME status"},
		{"logs --follow", statusUsage, "logs is for one sandbox"},
		{"No-Such", statusUsage, `unknown command "No-Such" for "nemoclaw"`},
		{"runn x", statusUsage, `unknown command "runn" for "nemoclaw" (did you mean "run"?)`},
		{"runn", statusFailed, `and runn is no command of nemoclaw (did you mean "run"?)`},
		{"box config", statusFailed, "the NemoClaw daemon does not run"},
		{"box config set modle x", statusUsage, `there is no setting "modle" (did you mean "model"?); there are model and key`},
		{"box config gett", statusUsage, `unknown command "gett" for "nemoclaw box config" (did you mean "get"?)`},
		{"lsit x", statusUsage, "unknown command \"lsit\" for \"nemoclaw\" (did you mean \"list\"?)\nTry 'nemoclaw --help'.\n"},
		{"lsit", statusFailed, `and lsit is no command of nemoclaw (did you mean "list"?)`},
		{"lsit --all", statusUsage, "unknown flag: --all; and lsit is no command of nemoclaw (did you mean \"list\"?)\nTry 'nemoclaw --help'.\n"},
		{"list --outptu json", statusUsage, `unknown flag: --outptu (did you mean "--output"?)`},
		{"list --json", statusUsage, `unknown flag: --json (did you mean "-o json"?)`},
		{"box logs --verdit deny", statusUsage, "unknown flag: --verdit (did you mean \"--verdict\"?)\nTry 'nemoclaw box logs --help'.\n"},
		{"box cofnig get", statusUsage, `unknown command "cofnig" for "nemoclaw box" (did you mean "config"?)`},
		{"box snapshot crate", statusUsage, `unknown command "crate" for "nemoclaw box snapshot" (did you mean "create"?)`},
		{"rm box", statusUsage, `unknown command "rm" for "nemoclaw" (did you mean "destroy"?)`},
		{"shell box", statusUsage, `(did you mean "nemoclaw box connect"?)`},
		{"box rm", statusUsage, `unknown command "rm" for "nemoclaw box" (did you mean "destroy"?)`},
		{"ls", statusUsage, `unknown command "ls" for "nemoclaw" (did you mean "list"?)`},
		{"ps -o json", statusUsage, `unknown command "ps" for "nemoclaw" (did you mean "list"?)`},
		{"ssh box", statusUsage, `unknown command "ssh" for "nemoclaw" (did you mean "nemoclaw box connect"?)`},
		{"box shell", statusUsage, `unknown command "shell" for "nemoclaw box" (did you mean "connect"?)`},
		{"box cp a b", statusUsage, `unknown command "cp" for "nemoclaw box" (did you mean "download or upload"?)`},
		{"box stats", statusUsage, `unknown command "stats" for "nemoclaw box" (did you mean "status"?)`},
		{"box status", statusFailed, "the NemoClaw daemon does not run"},
		{"box", statusFailed, "start it: systemctl start nemoclaw-agent"},
		{"box status --socket /nowhere", statusFailed, "there is no socket /nowhere"},
		{"list", statusFailed, "the NemoClaw daemon does not run"},
		{"list -o xml", statusUsage, `-o "xml": want text or json`},
		{"create", statusUsage, "no argument was given, want: nemoclaw create NAME"},
		{"create My_Box", statusUsage, `the sandbox name "My_Box" must be lower-case letters`},
		{"create list", statusUsage, "is a command of nemoclaw"},
		{"create x --env =x", statusUsage, `--env "=x": want NAME=VALUE`},
		{"create x --publish 80", statusUsage, `--publish "80": want [ADDRESS:]PORT:INSIDE`},
		{"create x --publish host:80:80", statusUsage, "host is no address of the host"},
		{"create x --policy /no/such", statusFailed, "read the policy: open /no/such"},
		{"stop", statusUsage, "name the sandboxes to stop, or give --all"},
		{"stop --all x", statusUsage, "not both"},
		{"box exec", statusUsage, "no command was given"},
		{"box exec x", 125, "the NemoClaw daemon does not run"},
		{"box connect", 125, "must be a terminal"},
		{"box logs --since yesterday", statusUsage, `--since "yesterday": want a duration`},
		{"box logs --since -1h", statusUsage, `--since "-1h"`},
		{"box logs --until 1h --follow", statusUsage, "--until and --follow"},
		{"box logs --verdict denied", statusUsage, `--verdict "denied": want allow, ask or deny`},
		{"box logs --plane network,disk", statusUsage, `--plane "disk": want one of `},
		{"box policy add", statusUsage, "name one thing that the rule is about"},
		{"box policy add --domain x.org --path /x", statusUsage, "name one thing"},
		{"box policy add --domain x.org --port 70000", statusUsage, "want a number from 1 to 65535"},
		{"box policy add --domain x.org --port https", statusUsage, `port "https": want a number from 1 to 65535`},
		{"box policy add --domain x.org --port 80,,81", statusUsage, `port "": want a number`},
		{"box policy add --domain x.org --ask --deny", statusUsage, "a rule does one of them"},
		{"box policy add --path /x --port 1", statusUsage, "narrow a rule of the network"},
		{"box policy add --exec x --permissions read", statusUsage, "--permissions: give --path"},
		{"box policy rollback x", statusUsage, "want a number"},
		{"box approvals list", statusUsage, `unknown command "approvals" for "nemoclaw box" (did you mean "nemoclaw approvals"?)`},
		{"box policy revoke", statusUsage, "no argument was given, want: nemoclaw box policy revoke GRANT..."},
		{"proposals", statusUsage, `unknown command "proposals" for "nemoclaw" (did you mean "approvals"?)`},
		{"approvals list", statusFailed, "the NemoClaw daemon does not run"},
		{"approvals list --follow", statusFailed, "the NemoClaw daemon does not run"},
		{"approvals watch x", statusUsage, "1 argument was given"},
		{"approvals show", statusUsage, "no argument was given, want: nemoclaw approvals show ID"},
		{"approvals approve", statusUsage, "no argument was given, want: nemoclaw approvals approve ID..."},
		{"approvals approve x", statusFailed, "the NemoClaw daemon does not run"},
		{"approvals approve x --scope forever", statusUsage, `--scope "forever": want once, session, for or always`},
		{"approvals approve x --scope for", statusUsage, "say how long, with --for"},
		{"approvals approve x --scope always --for 1h", statusUsage, "an answer holds for one of them"},
		{"approvals approve x --for soon", statusUsage, `--for "soon": want a duration`},
		{"approvals reject x --for -1h", statusUsage, `--for "-1h": want a duration`},
		{"approvals reject", statusUsage, "name the requests to reject, or give --all"},
		{"approvals reject x --all", statusUsage, "not both"},
		{"approvals reject x --sandbox box", statusUsage, "--sandbox: it narrows --all"},
		{"box policy rollback 0", statusUsage, "want a number"},
		{"box policy explain", statusUsage, "nothing was asked"},
		{"box policy explain --connect x", statusUsage, "expected host:port"},
		{"box preset add no-such", statusUsage, "there is no preset"},
		{"box publish x 80", statusUsage, `port "x"`},
		{"box publish 80 x", statusUsage, `port "x"`},
		{"box upload /no/such .", statusFailed, "upload: stat /no/such"},
		{"onboard", statusUsage, "there is no terminal to ask on; give --yes"},
		{"onboard --yes --name list", statusUsage, "is a command of nemoclaw"},
		{"onboard --yes --preset nothing", statusUsage, "there is no preset"},
		{"onboard --yes --model x", statusUsage, "want PROVIDER/MODEL"},
		{"onboard --yes --skip-key --key-file x", statusUsage, "give one of them"},
		{"onboard --yes", statusFailed, "onboard: the NemoClaw daemon does not run"},
	} {
		status, _, errs := call(t, strings.Fields(c.line)...)
		if status != c.status || !strings.HasPrefix(errs, "nemoclaw: ") || !strings.Contains(errs, c.want) {
			t.Errorf("%s: status %d, %q; want %d, %q", c.line, status, errs, c.status, c.want)
		}
	}
}

func TestParseTime(t *testing.T) {
	now := time.Date(2026, 5, 4, 12, 0, 0, 0, time.Local)
	for in, want := range map[string]time.Time{
		"": {}, "90s": now.Add(-90 * time.Second), "1h30m": now.Add(-90 * time.Minute), "7d": now.Add(-7 * 24 * time.Hour), "0d": now,
		"2026-05-03": time.Date(2026, 5, 3, 0, 0, 0, 0, time.Local), "2026-05-03 10:30": time.Date(2026, 5, 3, 10, 30, 0, 0, time.Local),
		"2026-05-03T10:30:00Z": time.Date(2026, 5, 3, 10, 30, 0, 0, time.UTC),
	} {
		if got, err := parseTime("since", in, now); err != nil || !got.Equal(want) {
			t.Errorf("%q: %v, %v; want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"d", "-1d", "1.5d", "36601d", "99999999999d", "7D", "1w", "yesterday"} {
		if got, err := parseTime("since", in, now); err == nil {
			t.Errorf("%q: %v", in, got)
		}
	}
}

func TestParsePublished(t *testing.T) {
	for in, want := range map[string]string{"8080:3000": "127.0.0.1:8080 3000", "192.0.2.1:80:3000": "192.0.2.1:80 3000", "[::1]:80:3000": "[::1]:80 3000"} {
		p, err := parsePublished(in)
		if got := p.Host + " " + strconv.Itoa(int(p.Port)); err != nil || got != want {
			t.Errorf("%q: %s, %v; want %s", in, got, err, want)
		}
	}
}

// TestFirstPolicy: what onboard makes is valid, and has the presets that were chosen and no others.
func TestFirstPolicy(t *testing.T) {
	for _, presets := range [][]string{nil, {"pypi"}, policy.Presets()} {
		p, err := policy.Parse("x.yaml", []byte(firstPolicy(presets)))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range p.Extends {
			got = append(got, string(e.V))
		}
		if !slices.Equal(got, presets) {
			t.Errorf("with %q it extends %q", presets, got)
		}
		c, err := policy.Compile(p)
		if err != nil {
			t.Fatal(err)
		}
		if c.Inference == nil {
			t.Error("no model answers inside, and onboard has asked for one and its key")
		}
	}
}

func TestWords(t *testing.T) {
	for d, want := range map[time.Duration]string{-time.Second: "0 s", 59 * time.Second: "59 s", 90 * time.Second: "1 min", 25*time.Hour + 5*time.Minute: "25 h 5 min", 72 * time.Hour: "3 days"} {
		if got := ago(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1536: "1.5 KiB", 5 << 30: "5.0 GiB"} {
		if got := size(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

func TestAddCommand(t *testing.T) {
	for _, c := range []struct{ action, object, want string }{
		{"connect", "example.com:443", "nemoclaw box policy add --domain example.com --port 443"},
		{"connect", "192.0.2.1:22", "nemoclaw box policy add --cidr 192.0.2.1/32 --port 22"},
		{"connect", "[2001:db8::1]:443", "nemoclaw box policy add --cidr 2001:db8::1/128 --port 443"},
		{"connect", "/run/x.sock", ""},
		{"exec", "jq", "nemoclaw box policy add --exec jq --restart"},
		{"read", "/srv/data", "nemoclaw box policy add --path /srv/data --permissions read --restart"},
		{"write", "/srv/data", "nemoclaw box policy add --path /srv/data --permissions read,write --restart"},
		{"read", "/srv/$(reboot)", ""}, {"read", "/srv/a b", ""}, {"exec", "--x", ""}, {"read", "/srv/\u00e9", ""},
	} {
		if got := addCommand("box", c.action, c.object); got != c.want {
			t.Errorf("%s %s: %q, want %q", c.action, c.object, got, c.want)
		}
	}
}

// TestPrintJSON: who reads a list need not know of null.
func TestPrintJSON(t *testing.T) {
	for want, v := range map[string]any{"[]\n": []string(nil), "{}\n": map[string]string(nil), "\"<\"\n": "<"} {
		var got strings.Builder
		if err := printJSON(&got, v); err != nil || got.String() != want {
			t.Errorf("%#v: %q, %v", v, got.String(), err)
		}
	}
}

// TestDaemonConfig: doctor and debug ask the daemon that the other commands ask, unless another configuration is named.
func TestDaemonConfig(t *testing.T) {
	t.Setenv(socketVariable, "/run/mine.sock")
	if c, err := daemonConfig(""); err != nil || c.Socket != "/run/mine.sock" {
		t.Errorf("%q, %v", c.Socket, err)
	}
	file := filepath.Join(t.TempDir(), "agent.yaml")
	write(t, file, "run_dir: /run/second\n")
	if c, err := daemonConfig(file); err != nil || c.Socket != "/run/second/agent.sock" {
		t.Errorf("with a configuration: %q, %v", c.Socket, err)
	}
}
