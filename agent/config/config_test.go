package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

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
audit_max_total: 20GiB
audit_max_age:  90d
audit_full:     drop
audit_anchor:   /srv/nc/elsewhere/checkpoints
bpffs:          /srv/nc/bpf
cgroup2:        /srv/nc/cgroup
cgroup_parent:  second
steer_group:    ops
watch_group:    ""
resolver:       "[2001:db8::53]:53"
hosts_file:     /srv/nc/hosts
metrics:        "[2001:db8::1]:9464"
metrics_token:  /srv/nc/token
metrics_cert:   /srv/nc/cert.pem
metrics_key:    /srv/nc/key.pem
hooks:
    - exec: [/usr/local/bin/tell, "42"]
      user: nobody
      states: [held]
      sandboxes: [my-assistant]
    - webhook: https://chat.example.org/hook
      secret_file: /etc/nemoclaw/hook.secret
      rate: 6
forward:
    - name: siem
      syslog: tls://logs.example.org
      ca: /etc/nemoclaw/siem-ca.pem
      cert: /etc/nemoclaw/siem.pem
      key: /etc/nemoclaw/siem.key
      format: ocsf
      planes: [network, dns]
      verdicts: [deny]
    - name: loki
      loki: https://loki.example.org/loki/api/v1/push
      token: {file: /etc/nemoclaw/loki.token}
      user: "17"
      tenant: ops
    - name: splunk
      splunk: https://splunk.example.org:8088
      token: {credential: hec}
      index: audit
traces:
    endpoint: https://collector.example.org:4318
    ca: /etc/nemoclaw/collector-ca.pem
    token: {file: /etc/nemoclaw/collector.token}
    ratio: 0.1
`
	c, err := Load(write(t, text))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(text, c.String()); diff != "" {
		t.Error(diff)
	}
	again, err := Load(write(t, c.String()))
	if err != nil || !reflect.DeepEqual(again, c) {
		t.Errorf("what is shown reads as something else: %v\n%s", err, again)
	}
}

func TestAnEmptyFileIsTheDefault(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "# nothing\n"} {
		c, err := Load(write(t, text))
		want := Default()
		want.Socket = "/run/nemoclaw/agent.sock"
		if err != nil || !reflect.DeepEqual(c, want) || c.Socket != api.DefaultSocket {
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
		"state_dir: /a\nstate: /b\n":                `:2: unknown key "state" (did you mean "state_dir"?); the keys are socket, `,
		"metics: 9464\n":                            `:1: unknown key "metics" (did you mean "metrics"?); the keys are socket, `,
		"audit-max-size: 1\n":                       `unknown key "audit-max-size" (did you mean "audit_max_size"?)`,
		"hook: []\n":                                `unknown key "hook" (did you mean "hooks"?)`,
		"forwrad: []\n":                             `unknown key "forwrad" (did you mean "forward"?)`,
		"telemetry: true\n":                         `:1: unknown key "telemetry"; the keys are socket, `,
		"state_dir: var\n":                          `:1: state_dir "var": want an absolute path`,
		"state_dir: /var/lib/\n":                    `:1: state_dir "/var/lib/": /var/lib is the system's; name a directory of its own, such as /var/lib/nemoclaw`,
		"run_dir:\n":                                `:1: run_dir has no value`,
		"run_dir: [/a]\n":                           `:1: run_dir: want one value`,
		"- run_dir\n":                               ":1: want `key: value` lines",
		"run_dir: /a\naudit: /b\nrun_dir: /c\n":     `:3: run_dir was given in line 1 already`,
		"run_dir: /a/b\naudit: /a\n":                `: run_dir /a/b is, or is in, audit /a; give each a directory of its own`,
		"socket: /var/lib/nemoclaw/agent.sock\n":    `: socket /var/lib/nemoclaw/agent.sock is in the state or audit directory`,
		"watch_group: nemoclaw\n":                   `: steer_group and watch_group are both "nemoclaw"`,
		"cgroup_parent: a/b\n":                      `:1: cgroup_parent "a/b": want a name without slashes`,
		"resolver: nowhere\n":                       `:1: resolver "nowhere": want an address`,
		"audit_max_size: 64MB\n":                    `:1: audit_max_size "64MB": want a size`,
		"audit_max_size: 100\n":                     `:1: audit_max_size "100": less than 64KiB`,
		"audit_keep: -1\n":                          `:1: audit_keep "-1": want a number`,
		"metrics: nowhere\n":                        `:1: metrics "nowhere": want a port`,
		"metrics: 0\n":                              `:1: metrics "0": want a port`,
		"metrics: \":9464\"\n":                      `:1: metrics ":9464": want a port`,
		"metrics: 0.0.0.0:9464\n":                   `: metrics 0.0.0.0:9464 is not on loopback, and others could read it: give metrics_token`,
		"metrics: 192.0.2.1:1\nmetrics_token: /t\n": `metrics 192.0.2.1:1 is not on loopback`,
		"metrics: '[::]:1'\nmetrics_cert: /c\nmetrics_key: /k\n":                      `metrics [::]:1 is not on loopback`,
		"metrics: 1\nmetrics_key: /k\n":                                               `metrics_cert and metrics_key belong together`,
		"metrics_token: /t\n":                                                         `for an endpoint that there is not`,
		"hooks: yes\n":                                                                ":1: hooks: want a list",
		"hooks: []\nhooks: []\n":                                                      ":2: hooks was given in line 1 already",
		"hooks: [x]\n":                                                                ":1: hooks: want `key: value` lines",
		"hooks:\n- states: [held]\n":                                                  ":2: hooks: want exec or webhook",
		"hooks: [{exec: [/a], webhook: x}]\n":                                         "want exec or webhook, one of them",
		"hooks: [{exec: /a}]\n":                                                       `exec: want a list of words: [a, b]`,
		"hooks: [{exec: [a]}]\n":                                                      `exec: "a": want the absolute path`,
		"hooks: [{exec: []}]\n":                                                       "want exec or webhook",
		"hooks: [{exec: [/a], secret_file: /b}]\n":                                    "secret_file: it signs",
		"hooks: [{exec: [/a], states: [asked]}]\n":                                    `states: "asked": want held, refused or both`,
		"hooks: [{exec: [/a], rate: 601}]\n":                                          "rate: 601: want 1 to 600",
		"hooks: [{exec: [/a], rate: often}]\n":                                        "rate: want a whole number",
		"hooks: [{webhook: [x]}]\n":                                                   "webhook: want one value",
		"forward: [{name: a, loki: 'https://x', verdicts: deny}]\n":                   "verdicts: want a list",
		"hooks: [{exec: [{a: b}]}]\n":                                                 "exec: want a list of words",
		"hooks: [{exec: [/a], rate: 0}]\n":                                            "a hook that is told nothing",
		"hooks: [{exec: [/a], sandboxes: [No]}]\n":                                    "the sandbox name",
		"hooks: [{exec: [/a], user: }]\n":                                             "user has no value",
		"hooks: [{exec: [/a], usr: x}]\n":                                             `unknown key "usr" (did you mean "user"?); the keys are exec, user`,
		"hooks: [{webhook: ftp://x}]\n":                                               "want https",
		"hooks: [{webhook: 'http://192.0.2.1/'}]\n":                                   "webhook: http://192.0.2.1: want https",
		"hooks: [{webhook: 'http://[::1]/'}]\n":                                       `secret_file "": want an absolute path of a file with the key`,
		"hooks: [{webhook: 'https:x'}]\n":                                             "want a URL",
		"hooks: [{webhook: 'https://x/', user: a}]\n":                                 "user: it is for exec",
		"forward: {name: a}\n":                                                        ":1: forward: want a list: `- {name: siem, syslog: tls://",
		"forward:\n- syslog: tls://x\n":                                               `:2: forward: name: "": want a name of lower-case letters`,
		"forward: [{name: ../a, syslog: 'tls://x'}]\n":                                `name: "../a": want a name`,
		"forward: [{name: a, to: x}]\n":                                               `unknown key "to" (did you mean "token"?); the keys are name, syslog, otlp,`,
		"forward: [{name: a}]\n":                                                      "want one of syslog, otlp, loki, elastic and splunk",
		"forward: [{name: a, syslog: 'tls://x', loki: 'https://x'}]\n":                "want one of syslog, otlp",
		"forward: [{name: a, syslog: 'tls://x'}, {name: a, loki: 'https://x'}]\n":     "there are two called a",
		"forward: [{name: a, syslog: 'udp://x:514'}]\n":                               "syslog: udp: datagrams are lost",
		"forward: [{name: a, syslog: 'tcp://192.0.2.1:514'}]\n":                       "want tls, which nobody on the way can read",
		"forward: [{name: a, syslog: 'tcp://localhost:514'}]\n":                       "want tls, which nobody on the way can read",
		"forward: [{name: a, syslog: 'tls://x/y'}]\n":                                 "want an address such as tls://logs",
		"forward: [{name: a, syslog: 'tls://:1'}]\n":                                  "want an address such as tls://logs",
		"forward: [{name: a, otlp: 'http://192.0.2.1:4318'}]\n":                       "want https, which nobody on the way",
		"forward: [{name: a, otlp: 'https://u:secret@x'}]\n":                          "a secret doesn't belong here",
		"forward: [{name: a, elastic: 'ftp://x'}]\n":                                  "elastic: ftp://x: want https",
		"forward: [{name: a, splunk: 'https://x'}]\n":                                 "it takes nothing without a token",
		"forward: [{name: a, loki: 'https://x', token: /t}]\n":                        "token: want `key: value` lines, such as {file: /etc/nemoclaw/secret}",
		"forward: [{name: a, loki: 'https://x', token: {path: /t}}]\n":                `token: unknown key "path"; the keys are file, credential`,
		"forward: [{name: a, loki: 'https://x', token: {file: t}}]\n":                 `token: file: "t": want an absolute path`,
		"forward: [{name: a, loki: 'https://x', token: {credential: ../t}}]\n":        `token: credential: "../t"`,
		"forward: [{name: a, loki: 'https://x', token: {file: /t, credential: t}}]\n": "want file or credential, one of them",
		"forward: [{name: a, syslog: 'tls://x', token: {file: /t}}]\n":                "syslog knows none",
		"forward: [{name: a, loki: 'https://x', user: a}]\n":                          "its password is token",
		"forward: [{name: a, loki: 'https://x', token: {file: /t}, user: 'a:b'}]\n":   "without a colon",
		"forward: [{name: a, loki: 'https://x', cert: /c}]\n":                         "cert and key belong together",
		"forward: [{name: a, loki: 'http://127.0.0.1', ca: /c}]\n":                    "are for TLS",
		"forward: [{name: a, loki: 'https://x', index: a}]\n":                         "index: it is for elastic and splunk",
		"forward: [{name: a, elastic: 'https://x', index: A}]\n":                      `index: "A": want lower-case`,
		"forward: [{name: a, elastic: 'https://x', format: cef}]\n":                   "elastic has no fields of",
		"forward: [{name: a, elastic: 'https://x', format: xml}]\n":                   `format: "xml": want json, ocsf or cef`,
		"forward: [{name: a, elastic: 'https://x', tenant: a}]\n":                     "tenant: it is Loki's",
		"forward: [{name: a, elastic: 'https://x', planes: [net]}]\n":                 `planes: there is no plane "net"`,
		"forward: [{name: a, elastic: 'https://x', verdicts: [no]}]\n":                `verdicts: "no": want allow`,
		"forward: [{name: a, elastic: 'https://x', ca: }]\n":                          "ca has no value",
		"traces: []\n":                                                        ":1: traces: want `key: value` lines; the keys are endpoint, ",
		"traces: {}\ntraces: {}\n":                                            ":2: traces was given in line 1 already",
		"a: 1\n":                                                              "hooks, forward, traces",
		"traces: {ratio: 0.1}\n":                                              "endpoint: want the address of a collector",
		"traces: {endpoint: 'collector:4318'}\n":                              "endpoint: want the address of a collector",
		"traces: {endpoint: 'http://collector:4318'}\n":                       "endpoint: http://collector:4318: want https",
		"traces: {endpoint: 'https://me:hunter2@x'}\n":                        "a secret doesn't belong here",
		"traces: {endpoint: 'https://x', ratio: 0}\n":                         "ratio: 0: want a part of 1",
		"traces: {endpoint: 'https://x', ratio: 1.1}\n":                       "ratio: 1.1: want a part of 1",
		"traces: {endpoint: 'https://x', ratio: .nan}\n":                      "ratio: NaN: want a part of 1",
		"traces: {endpoint: 'https://x', ratio: half}\n":                      "cannot unmarshal",
		"traces: {endpoint: 'https://x', ratio: }\n":                          "ratio has no value",
		"traces: {endpoint: 'https://x', rate: 1}\n":                          `unknown key "rate"`,
		"traces: {endpoint: 'https://x', ca: a}\n":                            `ca: "a": want an absolute path`,
		"traces: {endpoint: 'https://x', key: /a}\n":                          "cert and key belong together",
		"traces: {endpoint: 'http://127.0.0.1:1', ca: /a}\n":                  "ca, cert and key are for TLS",
		"traces: {endpoint: 'https://x', token: {file: /a, credential: b}}\n": "want file or credential",
		"traces: {endpoint: 'https://x', token: {fil: /a}}\n":                 `token: unknown key "fil"`,
		"traces: {endpoint: 'https://x', user: me}\n":                         "user: its password is token",
		"run_dir: /a\n---\nrun_dir: /b\n":                                     `: more than one document`,
		"run_dir: \"\n":                                                       `found unexpected end of stream`,
		"audit_keep: 1\n" + strings.Repeat("#", maxFile):                      `has more than`,
	} {
		name := write(t, text)
		if _, err := Load(name); err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q:\n %v\nwant\n %s", text, err, want)
		}
	}
}

// TestMetricsAreOnLoopback unless it is said otherwise, with what others must know.
func TestMetricsAreOnLoopback(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"metrics: 9464\n": "127.0.0.1:9464", "metrics: '[::1]:9464'\n": "[::1]:9464", "metrics: 127.9.9.9:1\n": "127.9.9.9:1",
		"metrics: 0.0.0.0:1\nmetrics_token: /t\nmetrics_cert: /c\nmetrics_key: /k\n": "0.0.0.0:1",
	} {
		if c, err := Load(write(t, text)); err != nil || c.Metrics.String() != want {
			t.Errorf("%q: %s, %v", text, c.Metrics, err)
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
	f.Add([]byte("traces: {endpoint: 'https://x', ratio: 1e-3, token: {file: /t}}\n"))
	f.Add([]byte("forward: [{name: a, loki: 'https://x', token: {credential: c}, planes: [dns]}]\n"))
	f.Add([]byte("hooks: [{exec: [/a, ' b: '], states: [held]}, {webhook: 'https://x/\\xff', secret_file: /y, rate: 3}]\n"))
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
		if c, err := Load(write(t, strings.Join(lines, ""))); err != nil || !reflect.DeepEqual(c, want) {
			t.Errorf("%v\n%s", err, c)
		}
	}
}

func TestAges(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{"0": 0, "90d": 90 * day, "36h": 36 * time.Hour, "36500d": 36500 * day} {
		if got, err := parseAge(text); err != nil || got != want || formatAge(got) == "" {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "90", "-1d", "1w", "d", "1.5d", "36501d", "9999999999h", "90 d"} {
		if got, err := parseAge(text); err == nil {
			t.Errorf("%q is read as %v", text, got)
		}
	}
	if _, err := Load(write(t, "audit_max_total: 1MiB\n")); err == nil || !strings.Contains(err.Error(), "less than one file of audit_max_size 64MiB") {
		t.Errorf("a total of less than a file: %v", err)
	}
}
