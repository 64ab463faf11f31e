package policy

import (
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// compile is Parse and Compile of what must be right.
func compile(t testing.TB, src string) *Compiled {
	t.Helper()
	p, err := Parse("p.yaml", []byte(src))
	if err != nil {
		t.Fatalf("%v\nin\n%s", err, src)
	}
	c, err := Compile(p)
	if err != nil {
		t.Fatalf("%v\nin\n%s", err, src)
	}
	return c
}

func TestEveryKey(t *testing.T) {
	c := compile(t, `
version: 1
name: my-assistant
extends: [telegram]
hold: 1m30s
enforcement: static
network:
  default: ask
  allow:
    - domain: "Bücher.Example.ORG."
      ports: [8443, 443]
      protocol: tls
      ech: allow
      commands: [node, /opt/tool]
      descendants: false
      expires: 1h
    - cidr: 10.1.0.0/16
      ports: [5432]
      protocol: tcp
  ask:
    - {domain: "**.example.com", ports: [80], protocol: http}
  deny:
    - domain: gist.example.com
    - {cidr: "2001:db8::/32", ports: [25], protocol: tcp, commands: [curl]}
  unix: [/run/postgresql/.s.PGSQL.5432]
filesystem:
  default: deny
  baseline: none
  allow:
    - {path: /workspace, permissions: [read, write, execute]}
  deny:
    - {path: /workspace/.git, permissions: [write]}
process:
  default: deny
  map: any
  allow:
    - {command: git, helpers: ["/usr/lib/git-core/*", ssh]}
    - {command: git, helpers: [less, ssh]}
  deny:
    - command: /usr/bin/sudo
    - command: /usr/bin/sudo
  limits: {memory: 4GiB, pids: 512, cpus: 1.5, files: 4096, disk: 1048576}
`)
	if c.Name != "my-assistant" || c.Hold != 90*time.Second || c.Enforcement != LevelStatic || c.Files.Baseline {
		t.Errorf("settings: %+v", c)
	}
	if want := (Limits{Memory: 4 << 30, PIDs: 512, CPUs: 1.5, Files: 4096, Disk: 1 << 20, ID: c.Limits.ID}); c.Limits != want {
		t.Errorf("limits %+v, want %+v", c.Limits, want)
	}
	if got := c.Rule(c.Limits.ID); got.Pos != "p.yaml:42" || got.Text != "limits: {memory: 4294967296, pids: 512, cpus: 1.5, files: 4096, disk: 1048576}" {
		t.Errorf("limits stand at %+v", got)
	}
	net := c.Network
	if net.Default != Ask {
		t.Errorf("network.default %v", net.Default)
	}
	want := []NetRule{
		{ID: 1, Verdict: Allow, Name: "api.telegram.org", Ports: []uint16{443}, Protocol: HTTPS},
		{ID: 2, Verdict: Allow, Name: "xn--bcher-kva.example.org", Ports: []uint16{443, 8443}, Protocol: TLS, ECH: true, Commands: []string{"node", "/opt/tool"}, Expires: time.Hour},
		{ID: 3, Verdict: Allow, Prefix: netip.MustParsePrefix("10.1.0.0/16"), Ports: []uint16{5432}},
		{ID: 4, Verdict: Ask, Name: "**.example.com", Ports: []uint16{80}, Protocol: HTTP},
		{ID: 5, Verdict: Deny, Name: "gist.example.com"},
		{ID: 6, Verdict: Deny, Prefix: netip.MustParsePrefix("2001:db8::/32"), Ports: []uint16{25}, Commands: []string{"curl"}},
	}
	if !reflect.DeepEqual(net.Rules, want) {
		t.Errorf("network rules\n%+v\nwant\n%+v", net.Rules, want)
	}
	if got := c.Rule(1); got != (RuleRef{"preset:telegram:5", "allow: {domain: api.telegram.org, ports: [443], protocol: https}"}) {
		t.Errorf("rule 1 is %+v", got)
	}
	if got := c.Rule(2); got.Pos != "p.yaml:10" || !strings.HasPrefix(got.Text, `allow: {domain: "Bücher.Example.ORG.", ports: [8443, 443]`) {
		t.Errorf("rule 2 is %+v", got)
	}
	if got := net.Unix; len(got) != 1 || got[0].Path != "/run/postgresql/.s.PGSQL.5432" || c.Rule(got[0].ID).Pos != "p.yaml:25" {
		t.Errorf("unix %+v", got)
	}
	if got := c.Exec.Allow; len(got) != 1 || got[0].Name != "git" || !slices.Equal(got[0].Helpers, []string{"/usr/lib/git-core/*", "/usr/libexec/git-core/*", "ssh", "less"}) {
		t.Errorf("process.allow %+v", got)
	}
	if got := c.Exec.Deny; len(got) != 1 || got[0].Name != "/usr/bin/sudo" {
		t.Errorf("process.deny %+v", got)
	}
	if got := net.ExactNames(); !slices.Equal(got, []string{"api.telegram.org", "xn--bcher-kva.example.org"}) {
		t.Errorf("exact names %v", got)
	}
	if got := fmt.Sprint(net.Prefixes()); got != "[10.1.0.0/16 2001:db8::/32]" {
		t.Errorf("prefixes %v", got)
	}
}

func TestDefaults(t *testing.T) {
	c := compile(t, "version: 1\n")
	if c.Hold != time.Minute || c.Network.Default != Deny || !c.Files.Baseline || c.Enforcement != LevelStatic || len(c.Rules) != 1 {
		t.Errorf("%+v", c)
	}
	if got := c.Rule(0); got.Pos != "default" {
		t.Errorf("rule 0 is %+v", got)
	}
}

func TestSeed(t *testing.T) {
	c, err := Load("../examples/seed.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if w := c.Warnings(); len(w) != 0 {
		t.Errorf("warnings %q", w)
	}
	checks := []struct {
		action Action
		object string
		want   Verdict
		rule   string
	}{
		{QueryConnect, "api.telegram.org:443", Allow, "../examples/seed.yaml:5"},
		{QueryConnect, "sub.npmjs.org:443", Allow, "../examples/seed.yaml:11"},
		{QueryConnect, "pypi.org:80", Deny, "default"},
		{QueryConnect, "example.org:443", Deny, "default"},
		{QueryRead, "/workspace/a", Allow, "../examples/seed.yaml:22"},
		{QueryWrite, "/tmp/a", Allow, "../examples/seed.yaml:24"},
		{QueryWrite, "/etc/hosts", Deny, "../examples/seed.yaml:27"},
		{QueryRead, "/etc/hosts", Allow, "builtin"},
		{QueryRead, "/root/.ssh/id_rsa", Deny, "../examples/seed.yaml:29"},
		{QueryExec, "git", Allow, "../examples/seed.yaml:38"},
		{QueryExec, "curl", Deny, "default"},
	}
	for _, tt := range checks {
		q, err := NewQuery(tt.action, tt.object, "")
		if err != nil {
			t.Fatal(err)
		}
		if a := c.Explain(q); a.Verdict != tt.want || a.Rule.Pos != tt.rule {
			t.Errorf("%v, want %v by %s", a, tt.want, tt.rule)
		}
	}
}

func TestLoadErrors(t *testing.T) {
	if _, err := Load("testdata/none.yaml"); err == nil || !strings.Contains(err.Error(), "testdata/none.yaml") {
		t.Errorf("a missing file: %v", err)
	}
	if _, err := Load("testdata"); err == nil {
		t.Error("a directory was loaded")
	}
	file := t.TempDir() + "/bad.yaml"
	if err := os.WriteFile(file, []byte("netwrok: {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(file); err == nil || err.Error() != file+`:1:1: netwrok: unknown key (did you mean "network"?)` {
		t.Errorf("got %v", err)
	}
}

func TestPresetsAndInitial(t *testing.T) {
	if got := Presets(); !slices.IsSorted(got) || len(got) != 27 {
		t.Errorf("presets %v", got)
	}
	for _, name := range Presets() {
		p, err := parsePreset(name)
		if err != nil {
			t.Fatal(err)
		}
		if p.Extends != nil || p.Name.Set || p.Hold.Set || p.Enforcement.Set || p.Process != nil && p.Process.Limits != nil {
			t.Errorf("preset %s has settings; a preset has rules only", name)
		}
		for _, r := range p.Network.Allow {
			if len(r.Commands) > 0 {
				t.Errorf("preset %s limits %s to commands: people run them from other programs", name, r.Domain.V)
			}
		}
		compile(t, "extends: ["+name+"]\n")
	}
	if _, err := PresetSource("../initial"); err == nil {
		t.Error("a preset was read from outside the presets")
	}
	c := compile(t, string(Initial()))
	if w := c.Warnings(); len(w) != 0 {
		t.Errorf("warnings %q", w)
	}
	for _, name := range []string{"sh", "bash", "git", "node", "npm", "python3", "ls", "true"} {
		if a := c.Explain(Query{Action: QueryExec, Path: name}); a.Verdict != Allow {
			t.Errorf("initial policy: %v", a)
		}
	}
}

func TestRevision(t *testing.T) {
	const base = "network:\n  allow:\n    - {domain: a.example.org, ports: [80, 443], protocol: tcp}\n    - {domain: b.example.org, ports: [80], protocol: tcp}\n"
	want := compile(t, base).Revision
	if len(want) != 16 {
		t.Errorf("revision %q", want)
	}
	same := map[string]string{
		"comments":   "# a comment\n\n" + base,
		"order":      "network:\n  allow:\n    - {ports: [80], domain: b.example.org, protocol: tcp}\n    - {domain: A.Example.org., ports: [443, 80], protocol: tcp}\n",
		"repetition": base + "    - {domain: b.example.org, ports: [80], protocol: tcp}\n",
		"defaults":   "version: 1\nhold: 60s\nenforcement: static\n" + base + "  default: deny\nfilesystem: {baseline: system}\n",
	}
	for name, src := range same {
		if got := compile(t, src).Revision; got != want {
			t.Errorf("%s changed the revision", name)
		}
	}
	seen := map[string]string{want: "base"}
	for _, more := range []string{
		"name: x\n", "hold: 61s\n", "extends: [telegram]\n",
		"filesystem: {baseline: none}\n",
		"filesystem: {allow: [{path: /a, permissions: [read]}]}\n",
		"filesystem: {allow: [{path: /a, permissions: [write]}]}\n",
		"filesystem: {deny: [{path: /a, permissions: [write]}]}\n",
		"process: {allow: [{command: git}]}\n",
		"process: {allow: [{command: git, helpers: [ssh]}]}\n",
		"process: {deny: [{command: git}]}\n",
		"process: {limits: {pids: 5}}\n",
		"process: {limits: {files: 50}}\n",
	} {
		seen = distinct(t, seen, more, compile(t, more+base).Revision)
	}
	for _, more := range []string{
		"  default: ask\n", "  unix: [/run/a]\n",
		"  deny: [{domain: b.example.org}]\n",
		"  deny: [{domain: b.example.org, ports: [80]}]\n",
		"  ask: [{domain: b.example.org, ports: [80], protocol: tcp}]\n",
		"  ask: [{domain: b.example.org, ports: [80], protocol: http}]\n",
		"  ask: [{domain: b.example.org, ports: [80], protocol: http, commands: [curl]}]\n",
		"  ask: [{domain: b.example.org, ports: [80], protocol: http, expires: 1h}]\n",
		"  ask: [{domain: b.example.org, ports: [80], protocol: tls, ech: allow}]\n",
	} {
		seen = distinct(t, seen, more, compile(t, base+more).Revision)
	}
}

func distinct(t *testing.T, seen map[string]string, what, revision string) map[string]string {
	t.Helper()
	if other, dup := seen[revision]; dup {
		t.Errorf("%q and %q have one revision", what, other)
	}
	seen[revision] = what
	return seen
}

func TestValidName(t *testing.T) {
	for _, name := range []string{"a", "my-assistant", "0", "a-", strings.Repeat("x", 63)} {
		if err := ValidName(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"", "-a", "A", "a_b", "a.b", "a/b", "..", "ä", "a\n", strings.Repeat("x", 64), "list", "policy", "run", "start", "stop", "status", "exec", "init", "audit", "onboard", "doctor", "debug", "uninstall", "version", "completion", "help", "connect", "logs", "config", "snapshot", "destroy", "term", "approvals", "metrics", "schema"} {
		if ValidName(name) == nil {
			t.Errorf("%q is accepted", name)
		}
	}
}

func TestWarnings(t *testing.T) {
	c := compile(t, `
network:
  allow:
    - {domain: a.example.org, ports: [443], protocol: https, commands: [nodee]}
    - {domain: b.example.org, ports: [443], protocol: https}
    - {cidr: 10.1.0.0/16, ports: [1], protocol: tcp}
    - {cidr: 10.2.0.0/16, ports: [1], protocol: tcp}
  deny:
    - {domain: "*.example.org", ports: [443], commands: [node]}
    - domain: b.example.org
    - cidr: 10.1.0.0/16
    - cidr: 10.2.1.0/24
filesystem:
  allow:
    - {path: /srv/a, permissions: [read]}
  deny:
    - {path: /srv, permissions: [read]}
process:
  allow: [{command: node}, {command: sudo}]
  deny: [{command: sudo}]
`)
	want := []string{
		"p.yaml:4: the rule is for nodee, which no rule of process allows to run",
		"p.yaml:5: the rule never acts: b.example.org at p.yaml:10 is denied",
		"p.yaml:6: the rule never acts: 10.1.0.0/16 at p.yaml:11 is denied",
		"p.yaml:19: the rule never acts: sudo is denied",
		"p.yaml:15: the rule never acts: all of /srv/a is denied at p.yaml:17",
	}
	if got := c.Warnings(); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if got := compile(t, "version: 1\n").Warnings(); len(got) != 1 || got[0] != "no program may be executed: process.allow is empty" {
		t.Errorf("an empty policy: %q", got)
	}
}
