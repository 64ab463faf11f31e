package policy

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// seedText is examples/seed.yaml: what a person starts from.
func seedText(t testing.TB) []byte {
	t.Helper()
	src, err := os.ReadFile("../examples/seed.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return src
}

var openAI = RuleSpec{Domain: "api.openai.com", Ports: []uint16{443}}

func TestAddRuleToTheSeed(t *testing.T) {
	src := seedText(t)
	out, err := AddRule("seed.yaml", src, openAI)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Replace(string(src), `    - domain: "api.nvidia.com"
      ports: [443]
      protocol: https
`, `    - domain: "api.nvidia.com"
      ports: [443]
      protocol: https
    - domain: api.openai.com
      ports: [443]
      protocol: https
`, 1)
	if diff := cmp.Diff(want, string(out.Text)); diff != "" {
		t.Fatal(diff)
	}
	again, err := AddRule("seed.yaml", out.Text, openAI)
	if err != nil || !bytes.Equal(again.Text, out.Text) || !strings.Contains(again.Did[0], "nothing to do: seed.yaml:") {
		t.Errorf("twice: %q, %v", again.Did, err)
	}
	back, err := RemoveRule("seed.yaml", out.Text, RuleSpec{Domain: "API.openai.com."})
	if diff := cmp.Diff(string(src), string(back.Text)); err != nil || diff != "" {
		t.Errorf("removed again: %v %s", err, diff)
	}
}

// The layouts that people write, with a rule added and removed again. An empty `want` is that the layout is refused.
func TestEditLayouts(t *testing.T) {
	for name, c := range map[string]struct{ src, want string }{
		"no section":              {"process:\n  allow:\n    - command: git\n", "process:\n  allow:\n    - command: git\n\nnetwork:\n  allow:\n    - domain: api.openai.com\n      ports: [443]\n      protocol: https\n"},
		"no final newline":        {"version: 1", "version: 1\n\nnetwork:\n  allow:\n    - domain: api.openai.com\n      ports: [443]\n      protocol: https"},
		"no list":                 {"network:\n  default: deny # for now\n  # more\nhold: 1m\n", "network:\n  default: deny # for now\n  allow:\n    - domain: api.openai.com\n      ports: [443]\n      protocol: https\n  # more\nhold: 1m\n"},
		"CRLF":                    {"network:\r\n  allow:\r\n    - domain: a.org\r\n      ports: [1]\r\n      protocol: tcp\r\n", "network:\r\n  allow:\r\n    - domain: a.org\r\n      ports: [1]\r\n      protocol: tcp\r\n    - domain: api.openai.com\r\n      ports: [443]\r\n      protocol: https\r\n"},
		"lists in their margin":   {"network:\n  allow:\n  - domain: a.org\n    ports:\n    - 1\n    protocol: tcp\n  deny:\n  - domain: b.org\n", "network:\n  allow:\n  - domain: a.org\n    ports:\n    - 1\n    protocol: tcp\n  - domain: api.openai.com\n    ports: [443]\n    protocol: https\n  deny:\n  - domain: b.org\n"},
		"wide dashes":             {"network:\n    allow:\n        -   {domain: a.org, ports: [1], protocol: tcp} # one\n", "network:\n    allow:\n        -   {domain: a.org, ports: [1], protocol: tcp} # one\n        -   {domain: api.openai.com, ports: [443], protocol: https}\n"},
		"all in flow":             {"{network: {allow: [{domain: \"a.org\", ports: [1], protocol: tcp}]}} # all\n", "{network: {allow: [{domain: \"a.org\", ports: [1], protocol: tcp}, {domain: api.openai.com, ports: [443], protocol: https}]}} # all\n"},
		"flow without it":         {"{hold: 1m}", "{hold: 1m, network: {allow: [{domain: api.openai.com, ports: [443], protocol: https}]}}"},
		"empty list":              {"network: {allow: [ ]}\nhold: 1m\n", "network: {allow: [{domain: api.openai.com, ports: [443], protocol: https} ]}\nhold: 1m\n"},
		"flow over lines":         {"network:\n  allow: [\n    {domain: a.org, ports: [1], # it's one, {really}\n     protocol: tcp}, # the end\n  ]\n", "network:\n  allow: [\n    {domain: a.org, ports: [1], # it's one, {really}\n     protocol: tcp}, {domain: api.openai.com, ports: [443], protocol: https}, # the end\n  ]\n"},
		"brackets on their lines": {"network:\n  allow:\n    - {\n        domain: a.org,\n        ports: [\n          1\n        ], protocol: tcp\n      }\n    # the last\n", "network:\n  allow:\n    - {\n        domain: a.org,\n        ports: [\n          1\n        ], protocol: tcp\n      }\n    - {domain: api.openai.com, ports: [443], protocol: https}\n    # the last\n"},
		"quoted over lines":       {"filesystem:\n  allow:\n    - permissions: [read]\n      path: \"/a\n        # no comment\"\nnetwork:\n  deny:\n    - domain: 'b.org'\t# a\ttab\n", "filesystem:\n  allow:\n    - permissions: [read]\n      path: \"/a\n        # no comment\"\nnetwork:\n  deny:\n    - domain: 'b.org'\t# a\ttab\n  allow:\n    - domain: api.openai.com\n      ports: [443]\n      protocol: https\n"},
		"comments at the end":     {"process:\n  allow:\n    - command: git\n  # limits: {pids: 9}\n", "process:\n  allow:\n    - command: git\n  # limits: {pids: 9}\n\nnetwork:\n  allow:\n    - domain: api.openai.com\n      ports: [443]\n      protocol: https\n"},
		"comments of a rule":      {"network:\n  allow:\n    - domain: a.org\n      ports: [1]\n      protocol: tcp\n      # commands: [git]\n    # next\n", "network:\n  allow:\n    - domain: a.org\n      ports: [1]\n      protocol: tcp\n      # commands: [git]\n    - domain: api.openai.com\n      ports: [443]\n      protocol: https\n    # next\n"},
		"document marks":          {"---\nhold: 1m\n...\n", "---\nhold: 1m\n\nnetwork:\n  allow:\n    - domain: api.openai.com\n      ports: [443]\n      protocol: https\n...\n"},
		"byte order mark":         {"\ufeffhold: 1m\n", "\ufeffhold: 1m\n\nnetwork:\n  allow:\n    - domain: api.openai.com\n      ports: [443]\n      protocol: https\n"},
		"comments beyond ASCII":   {"network: {allow: [{domain: é.org, ports: [1], protocol: tcp}]} # ü\n", "network: {allow: [{domain: é.org, ports: [1], protocol: tcp}, {domain: api.openai.com, ports: [443], protocol: https}]} # ü\n"},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := AddRule("p.yaml", []byte(c.src), openAI)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, string(out.Text)); diff != "" {
				t.Fatal(diff)
			}
			back, err := RemoveRule("p.yaml", out.Text, openAI)
			if err != nil {
				t.Fatal(err)
			}
			before, after := compile(t, c.src), compile(t, string(back.Text))
			if before.Revision != after.Revision {
				t.Errorf("removed again it is\n%s", back.Text)
			}
		})
	}
}

func TestEditRefuses(t *testing.T) {
	const src = `extends: [npm]
network:
  allow:
    - {domain: a.org, ports: [80, 443], protocol: tcp}
    - {domain: "**.c.org", ports: [443], protocol: https}
  ask:
    - {domain: "**.d.org", ports: [443], protocol: https}
  deny:
    - domain: "*.b.org"
    - {cidr: 10.0.0.0/8, ports: [22]}
filesystem:
  deny:
    - {path: /data, permissions: [write]}
process:
  deny:
    - command: sudo
`
	add := func(s RuleSpec) error { _, err := AddRule("p.yaml", []byte(src), s); return err }
	remove := func(s RuleSpec) error { _, err := RemoveRule("p.yaml", []byte(src), s); return err }
	https := []uint16{443}
	for _, c := range []struct {
		err  error
		want string
	}{
		{add(RuleSpec{Domain: "x.b.org", Ports: https}), "p.yaml:9 (deny: {domain: \"*.b.org\"}), so the new rule would never act"},
		{add(RuleSpec{Domain: "*.b.org", Ports: https, Verdict: "ask"}), "is refused by p.yaml:9"},
		{add(RuleSpec{Domain: "git.d.org", Ports: https}), "is asked about because of p.yaml:7"},
		{add(RuleSpec{CIDR: "10.1.0.0/16", Ports: []uint16{22}}), "is refused by p.yaml:10"},
		{add(RuleSpec{Path: "/data/x", Permissions: []string{"read", "write"}}), "/data/x (write) is refused by p.yaml:13"},
		{add(RuleSpec{Command: "sudo"}), "is refused by p.yaml:16"},
		{add(RuleSpec{Domain: "a.org", Ports: https, Protocol: "https"}), "a.org:443 is https here and tcp at p.yaml:4"},
		{add(RuleSpec{Domain: "x.org"}), "the rule: name its ports, such as 443 (--port 443)"},
		{add(RuleSpec{Domain: "x.org", Ports: []uint16{80, 443}}), "port 80 is usually http and port 443 https"},
		{add(RuleSpec{Domain: "https://x.org/", Ports: https}), "the rule: domain: \"https://x.org/\" is a URL (write the name alone: x.org)"},
		{add(RuleSpec{Domain: "x.org\n  deny: []", Ports: https}), "holds a character"},
		{add(RuleSpec{Domain: "x.org", Path: "/x"}), "name one of"},
		{add(RuleSpec{}), "name one of"},
		{add(RuleSpec{Path: "/x"}), "permissions: the key is missing"},
		{add(RuleSpec{Path: "/x", Ports: https}), "belong to a domain or a cidr"},
		{add(RuleSpec{Command: "git", Verdict: "maybe"}), "unknown verdict maybe"},
		{add(RuleSpec{Domain: "x.org", Ports: https, Expires: "soon"}), "expires: unknown duration soon"},
		{remove(RuleSpec{Domain: "*.npmjs.org"}), "the preset npm has it (preset:npm:5:"},
		{remove(RuleSpec{Command: "node"}), "the preset npm has it"},
		{remove(RuleSpec{Domain: "x.c.org", Ports: https}), "x.c.org:443 is allowed by p.yaml:5"},
		{remove(RuleSpec{Domain: "x.org"}), "p.yaml: x.org: no rule is for exactly that"},
		{remove(RuleSpec{Domain: "a.org", Ports: []uint16{8080}}), "no rule is for exactly that"},
		{remove(RuleSpec{Domain: "*.b.org", Ports: https}), "p.yaml:9 is for every port"},
		{remove(RuleSpec{Domain: "a.org", Verdict: "deny"}), "no rule is for exactly that"},
	} {
		if c.err == nil || !strings.Contains(c.err.Error(), c.want) {
			t.Errorf("%v\n\twant %s", c.err, c.want)
		}
	}
	for _, bad := range []string{"", "# nothing\n", "network: [\n", "a: &x 1\nb: *x\n", "hold: 1m\n---\nhold: 2m\n"} {
		if _, err := AddRule("p.yaml", []byte(bad), openAI); err == nil {
			t.Errorf("%q was edited", bad)
		}
	}
	if _, err := RemoveRule("p.yaml", []byte("network:\n  allow:\n    - {domain: a.org, ports: [1], protocol: tcp}\n"), RuleSpec{Domain: "a.org"}); err == nil || !strings.Contains(err.Error(), "a policy can't be empty") {
		t.Errorf("the only rule: %v", err)
	}
}

func TestRemoveParts(t *testing.T) {
	const src = `network:
  allow:
    # the api
    - domain: a.org
      ports: [80, 443] # both
      protocol: tcp
    - {domain: a.org, ports: [443], protocol: tcp, commands: [git]}
    - domain: "*.a.org"
      ports:
        - 80
        - 443
      protocol: tcp
  ask:
    - {domain: a.org, ports: [443], protocol: https}
  deny:
    - domain: b.org
filesystem:
  allow:
    - {path: /data, permissions: [read, write]}
`
	for _, c := range []struct {
		spec RuleSpec
		want []string // lines that go, and after "+" that come
	}{
		{RuleSpec{Domain: "a.org", Ports: []uint16{443}}, []string{
			"      ports: [80, 443] # both", "+      ports: [80] # both",
			"    - {domain: a.org, ports: [443], protocol: tcp, commands: [git]}",
			"  ask:", "    - {domain: a.org, ports: [443], protocol: https}"}},
		{RuleSpec{Domain: "a.org", Verdict: "ask"}, []string{"  ask:", "    - {domain: a.org, ports: [443], protocol: https}"}},
		{RuleSpec{Domain: "a.org", Commands: []string{"git"}}, []string{"    - {domain: a.org, ports: [443], protocol: tcp, commands: [git]}"}},
		{RuleSpec{Domain: "*.a.org", Ports: []uint16{80}}, []string{"        - 80"}},
		{RuleSpec{Path: "/data", Permissions: []string{"write"}}, []string{
			"    - {path: /data, permissions: [read, write]}", "+    - {path: /data, permissions: [read]}"}},
		{RuleSpec{Path: "/data"}, []string{"filesystem:", "  allow:", "    - {path: /data, permissions: [read, write]}"}},
	} {
		out, err := RemoveRule("p.yaml", []byte(src), c.spec)
		if err != nil {
			t.Errorf("%+v: %v", c.spec, err)
			continue
		}
		var got []string
		for line := range strings.Lines(TextDiff("", "", []byte(src), out.Text)) {
			if s, ok := strings.CutPrefix(line, "-"); ok && !strings.HasPrefix(line, "---") {
				got = append(got, strings.TrimSuffix(s, "\n"))
			} else if line[0] == '+' && !strings.HasPrefix(line, "+++") {
				got = append(got, strings.TrimSuffix(line, "\n"))
			}
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%+v: %s\n%s", c.spec, diff, out.Text)
		}
	}
}

func TestEditPresets(t *testing.T) {
	for _, c := range []struct{ src, preset, want string }{
		{"# mine\nnetwork:\n  default: ask\n", "pypi", "extends: [pypi]\n\n# mine\nnetwork:\n  default: ask\n"},
		{"# A file.\n\n# mine\nnetwork:\n  default: ask\n", "pypi", "# A file.\n\nextends: [pypi]\n\n# mine\nnetwork:\n  default: ask\n"},
		{"version: 1 # first\nname: box\nnetwork:\n  default: ask\n", "pypi", "version: 1 # first\nname: box\nextends: [pypi]\nnetwork:\n  default: ask\n"},
		{"extends: [npm] # js\n", "pypi", "extends: [npm, pypi] # js\n"},
		{"extends:\n  - npm # js\n  # end\n", "pypi", "extends:\n  - npm # js\n  - pypi\n  # end\n"},
		{"{hold: 1m}\n", "pypi", "{hold: 1m, extends: [pypi]}\n"},
	} {
		out, err := AddPreset("p.yaml", []byte(c.src), c.preset)
		if diff := cmp.Diff(c.want, string(out.Text)); err != nil || diff != "" {
			t.Errorf("%q: %v %s", c.src, err, diff)
			continue
		}
		if again, err := AddPreset("p.yaml", out.Text, c.preset); err != nil || !bytes.Equal(again.Text, out.Text) {
			t.Errorf("%q twice: %v\n%s", c.src, err, again.Text)
		}
		back, err := RemovePreset("p.yaml", out.Text, c.preset)
		if err != nil || compile(t, string(back.Text)).Revision != compile(t, c.src).Revision {
			t.Errorf("%q removed again: %v\n%s", c.src, err, back.Text)
		}
	}
	if _, err := AddPreset("p.yaml", []byte("hold: 1m\n"), "pypy"); err == nil || !strings.Contains(err.Error(), `did you mean "pypi"?`) {
		t.Errorf("an unknown one: %v", err)
	}
	if _, err := RemovePreset("p.yaml", []byte("extends: [npm]\n"), "pypi"); err == nil || !strings.Contains(err.Error(), "it extends npm") {
		t.Errorf("one that is not there: %v", err)
	}
	if _, err := RemovePreset("p.yaml", []byte("extends: [npm]\n"), "npm"); err == nil || !strings.Contains(err.Error(), "can't be empty") {
		t.Errorf("the only thing in the file: %v", err)
	}
}

// randomPolicy writes a policy of random rules in a random layout, with comments in between.
func randomPolicy(r *rand.Rand) string {
	var b strings.Builder
	comment := func(margin string) {
		if r.IntN(4) == 0 {
			b.WriteString(margin + "# - {domain: not.a.rule}\n")
		}
	}
	b.WriteString("version: 1\n")
	comment("")
	b.WriteString("network:\n")
	for _, v := range []Verdict{Allow, Ask, Deny} {
		if r.IntN(3) == 0 {
			continue
		}
		comment("  ")
		b.WriteString("  " + v.String() + ":\n")
		for range 1 + r.IntN(4) {
			rule := refNet{verdict: v, target: randomTarget(r), ports: pick(r, []uint16{80}, []uint16{443}, []uint16{80, 443})}
			line := rule.yaml()
			if r.IntN(2) == 0 { // block style
				line = strings.NewReplacer("{", "", "}", "", ", p", "\n      p").Replace(line)
			}
			comment("    ")
			b.WriteString(line)
		}
	}
	b.WriteString("  default: deny\n")
	comment("")
	b.WriteString("process:\n  allow: [{command: sh}]\n")
	s := b.String()
	if r.IntN(3) == 0 {
		s = strings.ReplaceAll(s, "\n", "\r\n")
	}
	if r.IntN(3) == 0 {
		s = strings.TrimRight(s, "\r\n")
	}
	return s
}

// TestEditMeans compares what an edited text means with the meaning that is wanted, made without any text.
func TestEditMeans(t *testing.T) {
	added, removed := 0, 0
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 5))
		src := randomPolicy(r)
		spec := RuleSpec{Ports: pick(r, []uint16{80}, []uint16{443}, []uint16{22, 443}), Protocol: "tcp", Verdict: pick(r, "allow", "ask", "deny")}
		if target := randomTarget(r); strings.Contains(target, "/") {
			spec.CIDR = target
		} else {
			spec.Domain = target
		}
		p, err := Parse("p.yaml", []byte(src))
		if err != nil {
			t.Fatalf("%v\n%s", err, src)
		}
		if out, err := AddRule("p.yaml", []byte(src), spec); err == nil {
			one, err := spec.compiled()
			if err != nil {
				t.Fatal(err)
			}
			_, had := compile(t, src).has(one)
			section, verb, text, err := spec.yaml()
			if err != nil {
				t.Fatal(err)
			}
			rule, err := Parse("p.yaml", []byte(section+":\n  "+verb+": ["+text+"]\n"))
			if err != nil {
				t.Fatal(err)
			}
			if !had {
				p.Network.Allow = append(p.Network.Allow, rule.Network.Allow...)
				p.Network.Ask = append(p.Network.Ask, rule.Network.Ask...)
				p.Network.Deny = append(p.Network.Deny, rule.Network.Deny...)
				added++
			}
			want, err := Compile(p)
			if err != nil {
				t.Fatal(err)
			}
			if got := compile(t, string(out.Text)); got.Revision != want.Revision {
				t.Fatalf("%+v added to\n%s\nis\n%s", spec, src, out.Text)
			}
			onlyAdds(t, src, string(out.Text))
		}
		// Remove a rule that is there.
		n := p.Network
		spec = RuleSpec{}
		switch {
		case len(n.Deny) > 0:
			spec.Domain = string(n.Deny[r.IntN(len(n.Deny))].Domain.V)
		case len(n.Ask) > 0:
			spec.Domain = string(n.Ask[r.IntN(len(n.Ask))].Domain.V)
		}
		if spec.Domain == "" {
			continue
		}
		out, err := RemoveRule("p.yaml", []byte(src), spec)
		if err != nil {
			continue // it was the added one
		}
		removed++
		gone := func(d Value[Domain]) bool { return string(d.V) == spec.Domain }
		p, _ = Parse("p.yaml", []byte(src))
		n = p.Network
		n.Allow = slices.DeleteFunc(n.Allow, func(r NetAllow) bool { return gone(r.Domain) })
		n.Ask = slices.DeleteFunc(n.Ask, func(r NetAllow) bool { return gone(r.Domain) })
		n.Deny = slices.DeleteFunc(n.Deny, func(r NetDeny) bool { return gone(r.Domain) })
		want, err := Compile(p)
		if err != nil {
			t.Fatal(err)
		}
		if got := compile(t, string(out.Text)); got.Revision != want.Revision {
			t.Fatalf("%+v removed from\n%s\nis\n%s", spec, src, out.Text)
		}
		onlyAdds(t, string(out.Text), src)
	}
	if added < 100 || removed < 50 {
		t.Errorf("%d added, %d removed: the test shows little", added, removed)
	}
}

// onlyAdds checks that all lines of a are in b, in order.
func onlyAdds(t *testing.T, a, b string) {
	t.Helper()
	rest := strings.Split(b, "\n")
	for line := range strings.SplitSeq(a, "\n") {
		i := slices.IndexFunc(rest, func(s string) bool { return strings.TrimSuffix(s, "\r") == strings.TrimSuffix(line, "\r") })
		if i < 0 {
			t.Fatalf("the line %q changed:\n%s\nto\n%s", line, a, b)
		}
		rest = rest[i+1:]
	}
}

// FuzzEdit: whatever the policy and the rule, an edit gives a policy that says the rule, or an error.
func FuzzEdit(f *testing.F) {
	f.Add(seedText(f), "api.openai.com", uint16(443))
	f.Add(Initial(), "x.org", uint16(80))
	f.Add([]byte("{network: {allow: [{domain: 'a.org', ports: [1], protocol: tcp}]}, hold: 1m}"), "b.org", uint16(1))
	f.Add([]byte("network:\n  allow:\n  - {domain: a.org,\n ports: [1], protocol: tcp\n }\n"), "a.org", uint16(2))
	f.Add([]byte("network:\n  allow: [{domain: \"a\\\n  .org\", ports: [1], protocol: tcp}, ]"), "a.org", uint16(2))
	f.Fuzz(func(t *testing.T, src []byte, domain string, port uint16) {
		spec := RuleSpec{Domain: domain, Ports: []uint16{port}}
		out, err := AddRule("p.yaml", src, spec)
		if err != nil {
			return
		}
		c := compile(t, string(out.Text))
		one, err := spec.compiled()
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := c.has(one); !ok {
			t.Fatalf("%+v is not in\n%s", spec, out.Text)
		}
		back, err := RemoveRule("p.yaml", out.Text, spec)
		if err != nil {
			return // a preset's, or the only one
		}
		if strings.Contains(fmt.Sprint(back.Did), "nothing") || bytes.Equal(back.Text, out.Text) {
			t.Fatalf("%q from\n%s", back.Did, out.Text)
		}
		compile(t, string(back.Text))
	})
}
