package policy

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Every example becomes the policy beside it, which says what the original does: "+" allowed, "-" denied, as
// action, object and who connects.
func TestImportExamples(t *testing.T) {
	for name, verdicts := range map[string][]string{
		"agent": {
			"+connect api.anthropic.com:443 /usr/local/bin/claude", "+connect api.anthropic.com:443 /workspace/bin/agent", "-connect api.anthropic.com:443 /usr/bin/curl",
			"-connect api.anthropic.com:443", "-connect api.anthropic.com:80 /usr/local/bin/claude", "-connect anthropic.com:443 /usr/local/bin/claude",
			"+connect events.example.com:443 /usr/local/bin/claude", "+connect a.forge.example.com:443 /usr/bin/git", "-connect a.b.forge.example.com:443 /usr/bin/git",
			"-connect forge.example.com:443 /usr/bin/git", "+connect a.b.raw.example.com:80 git", "+connect 10.1.2.3:5432 psql", "-connect 10.1.2.4:5432 psql",
			"+connect db.example.com:5432 /usr/bin/psql", "-connect db.example.com:5432 /usr/local/bin/claude", "-connect other.example.net:443 /usr/bin/git",
			"+read /usr/lib/x", "+read /etc/hosts", "-read /etc/shadow", "-write /etc/hosts", "-read /home/x", "+write /workspace/x", "+write /workspace/cache/x", "+write /tmp/x", "+write /dev/null",
			"+read /proc/self/status", "-write /opt/tools/x", "-read /var/log/x", "+exec /usr/bin/anything", "+exec /workspace/x", "+exec /opt/tools/x", "-exec /srv/x",
		},
		"minimal": {"-connect example.com:443", "+write /workspace/x", "+exec /workspace/x", "+read /usr/x", "-exec /usr/bin/id", "-write /sandbox/x"},
		"bare":    {"+read /opt/tool/x", "+exec /opt/tool/x", "-write /opt/tool/x", "-read /usr/x", "-read /etc/hosts", "-read /workspace/x"},
		"preset":  {"+connect chat.example.com:443 node", "+connect wss.chat.example.com:443 /usr/bin/node", "-connect chat.example.com:443 curl", "-connect x.chat.example.com:443 node", "+exec node", "-exec curl", "-write /workspace/x"},
	} {
		file := filepath.Join("testdata", "import", name+".yaml")
		out, err := ImportFile(file)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		golden := strings.TrimSuffix(file, ".yaml") + ".golden"
		if *update {
			if err := os.WriteFile(golden, out, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(out)); diff != "" {
			t.Errorf("%s: %s", golden, diff)
		}
		if again, err := ImportFile(file); err != nil || string(again) != string(out) {
			t.Errorf("%s: not the same twice (%v)", name, err)
		}
		c := compile(t, string(out))
		for _, v := range verdicts {
			f := append(strings.Fields(v[1:]), "")
			action := map[string]Action{"read": QueryRead, "write": QueryWrite, "exec": QueryExec, "connect": QueryConnect}[f[0]]
			q, err := NewQuery(action, f[1], f[2])
			if err != nil {
				t.Fatal(err)
			}
			if a := c.Explain(q); (a.Verdict == Allow) != (v[0] == '+') {
				t.Errorf("%s: want %s, got %s", name, v, a)
			}
		}
	}
}

// What has no equal is refused, all of it at once, each with its place and key.
func TestImportRefusesWhatHasNoEqual(t *testing.T) {
	out, err := ImportFile(filepath.Join("testdata", "import", "refused.yaml"))
	if out != nil {
		t.Errorf("a policy beside errors: %s", out)
	}
	var all Errors
	if !errors.As(err, &all) {
		t.Fatal(err)
	}
	var got []string
	for _, e := range all {
		got = append(got, e.Key)
	}
	want := []string{
		"filesystem_policy.read_only[0]", "filesystem_policy.read_only[1]", "filesystem_policy.read_only[2]", "filesystem_policy.read_write[0]",
		"landlock.compatibility", "process.run_as_user", "process.run_as_group",
		"network_policies.api.endpoints[0].enforcement", "network_policies.api.endpoints[0].access", "network_policies.api.endpoints[1].rules",
		"network_policies.api.endpoints[2].host", "network_policies.api.endpoints[3].allowed_ips", "network_policies.api.endpoints[4].host",
		"network_policies.api.endpoints[5].host", "network_policies.api.binaries[0].path", "network_policies.no_binaries.binaries", "network_middlewares",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	checkErrors(t, err)

	const entry = "network_policies:\n  a:\n    endpoints: [{host: a.example.com, port: 443%s}]\n    binaries: [{path: /usr/bin/x}]\n"
	for _, tt := range []struct{ src, want string }{
		{"version: 2\n", ":1:10: version: 2 is out of range (only 1 is known)"},
		{"network_policies: {}\n", "version: the key is missing"},
		{"version: 1\npreset: {name: x}\n", ":1:10: version: a preset has no version"},
		{"preset: {name: x}\nprocess: {run_as_user: sandbox}\n", "preset: a preset has network_policies only"},
		{"version: 1\nnetwork_policy: {}\n", `:2:1: network_policy: unknown key (did you mean "network_policies"?)`},
		{"version: 1\nnetwork_policies: [a]\n", ":2:19: network_policies: expected a mapping from names to entries, found a list"},
		{"version: 1\nnetwork_policies: {a: 1}\n", ":2:23: network_policies.a: expected a mapping, found the number 1"},
		{"version: 1\nnetwork_policies: {a: {}, a: {}}\n", "network_policies.a: the key is there twice"},
		{"version: 1\nnetwork_policies: {? [x] : {}}\n", "a key must be a word, found a list"},
		{"version: 1\nfilesystem_policy: {read_only: /usr}\n", "expected a list, found the text"},
		{"version: 1\nfilesystem_policy: {include_workdir: yes}\n", "expected true or false"},
		{"version: 1\nfilesystem_policy: {read_only: [usr]}\n", "expected an absolute path"},
		{"version: 1\nfilesystem_policy: {read_only: [/usr/../root]}\n", "not in its plain form"},
		{"version: 1\nfilesystem_policy: {read_only: [/proc]}\n", "/proc alone is without an equal"},
		{"version: 1\nfilesystem_policy: {read_only: [/root]}\n", "here it would be the host's"},
		{"version: 1\nfilesystem_policy: {read_only: [/home/me/.ssh]}\n", "here it would be the host's"},
		{"version: 1\nfilesystem_policy: {read_only: [/run]}\n", "here it would be the host's"},
		{"version: 1\nfilesystem_policy: {read_write: [/etc/shadow]}\n", "here /etc/shadow is the host's: password hashes"},
		{"version: 1\na: &a [x]\nb: [*a, *a]\n", "an anchor (&a) is not allowed"},
		{entry + "", "version: the key is missing"},
		{"version: 1\n" + strings.Replace(entry, "%s", ", path: /x", 1), "endpoints[0].path: without an equal"},
		{"version: 1\n" + strings.Replace(entry, "%s", ", deny_rules: [{method: GET}]", 1), "endpoints[0].deny_rules: without an equal"},
		{"version: 1\n" + strings.Replace(entry, "%s", ", mcp: {}", 1), "endpoints[0].mcp: without an equal"},
		{"version: 1\n" + strings.Replace(entry, "%s", ", protocol: graphql", 1), "graphql is without an equal"},
		{"version: 1\n" + strings.Replace(entry, "%s", ", protocol: rest", 1), "rest without access or rules allows no request"},
		{"version: 1\n" + strings.Replace(entry, "%s", ", access: full, rules: [{allow: {method: '*', path: '/**'}}]", 1), "access or rules, not both"},
		{"version: 1\n" + strings.Replace(entry, "%s", ", rules: [{allow: {method: '*', path: '/v1/**'}}]", 1), `a limit to methods and paths is without an equal in this language: "* /v1/**"`},
		{"version: 1\n" + strings.Replace(entry, "%s", ", rules: [{deny: {}}]", 1), "rules[0].deny: unknown key"},
		{"version: 1\n" + strings.Replace(entry, "%s", ", ports: [80]", 1), "port or ports, not both"},
		{"version: 1\n" + strings.Replace(entry, ", port: 443%s", "", 1), "endpoints[0].port: the key is missing"},
		{"version: 1\n" + strings.Replace(entry, ", port: 443%s", ", port: 70000", 1), "70000 is out of range"},
		{"version: 1\n" + strings.Replace(entry, "host: a.example.com, port: 443%s", "port: 443", 1), "endpoints[0].host: the key is missing"},
		{"version: 1\n" + strings.Replace(entry, "a.example.com, port: 443%s", "inference.local, port: 443", 1), "nothing answers to this name here"},
		{"version: 1\n" + strings.Replace(entry, "a.example.com, port: 443%s", "169.254.169.254, port: 80", 1), "without an equal"},
		{"version: 1\n" + strings.Replace(entry, "a.example.com, port: 443%s", "'fd00:ec2::254', port: 80", 1), "a cloud's metadata service"},
		{"version: 1\n" + strings.Replace(entry, "a.example.com, port: 443%s", "LOCALHOST, port: 80", 1), "nothing answers to this name here"},
		{"version: 1\n" + strings.Replace(entry, "%s", "}, {host: a.example.com, port: 443, tls: skip", 1), "a.example.com:443 is tcp here and https at line 4"},
		{"version: 1\n" + strings.Replace(strings.Replace(entry, "%s", "", 1), "/usr/bin/x", "node", 1), "expected an absolute path, found node"},
	} {
		out, err := Import("f.yaml", []byte(tt.src))
		if err == nil || out != nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q gives %v, want %q", tt.src, err, tt.want)
			continue
		}
		checkErrors(t, err)
	}
}

// What a foreign file is called, and what it calls things, can't become a rule.
func TestImportHostileNames(t *testing.T) {
	const evil = "x\\n    - domain: evil.example.com\\u2028\\u0085\\x1b[2J"
	src := "version: 1\nnetwork_policies:\n  \"" + evil + "\":\n    name: \"" + evil + "\"\n    endpoints: [{host: a.example.com, port: 443}]\n    binaries: [{path: /usr/bin/x}]\n"
	out, err := Import("a\n- domain: evil.example.com\u2028.yaml", []byte(src))
	if err != nil {
		t.Fatal(err)
	}
	c := compile(t, string(out))
	if len(c.Network.Rules) != 1 || c.Network.Rules[0].Name != "a.example.com" {
		t.Errorf("%+v of\n%s", c.Network.Rules, out)
	}
}

func TestComment(t *testing.T) {
	for s, want := range map[string]string{
		"plain: #1":                       "plain: #1",
		"a\nb\r\tc\x00":                   `a\nb\x0d\x09c\x00`,
		"\u0085\u2028\u2029\u202e":        `\u0085\u2028\u2029\u202e`,
		"\x1b[31m\\n":                     `\x1b[31m\\n`,
		"\xff\xfe":                        `\xff\xfe`,
		"b\u00fccher":                     "b\u00fccher",
		strings.Repeat("x", 24):           strings.Repeat("x", 24),
		strings.Repeat("x", 25):           strings.Repeat("x", 21) + "...",
		strings.Repeat("x", 20) + "\x00y": strings.Repeat("x", 20) + "...",
	} {
		if got := Comment(s, 24); got != want {
			t.Errorf("%q gives %q, want %q", s, got, want)
		}
	}
}

// Whatever the bytes: no panic, and a valid policy or errors, never both.
func FuzzImport(f *testing.F) {
	examples, err := filepath.Glob("testdata/import/*.yaml")
	if err != nil || len(examples) == 0 {
		f.Fatal("no examples", err)
	}
	for _, e := range examples {
		src, err := os.ReadFile(e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(src)
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		out, err := Import("f.yaml", src)
		if err != nil {
			if out != nil {
				t.Fatal("a policy beside an error")
			}
			checkErrors(t, err)
			return
		}
		p, err := Parse("out.yaml", out)
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		c, err := Compile(p)
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		for i := range c.Network.Rules {
			if len(c.Network.Rules[i].Commands) == 0 {
				t.Fatalf("a rule for everybody:\n%s", out)
			}
		}
	})
}
