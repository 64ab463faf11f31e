package learn

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nemoclaw/nemoclaw/policy"
)

// session runs records through a Session of a sandbox whose policy never changed, and returns its proposals.
func session(t testing.TB, src string, o SessionOptions, records ...*policy.Decision) *Proposals {
	t.Helper()
	was := policyOf(t, src)
	return sessionOf(t, src, o, func(string, time.Time) (*policy.Compiled, error) { return was, nil }, records...)
}

func sessionOf(t testing.TB, src string, o SessionOptions, revision func(string, time.Time) (*policy.Compiled, error), records ...*policy.Decision) *Proposals {
	t.Helper()
	o.File, o.Text, o.Revision = "p.yaml", []byte(src), revision
	s, err := NewSession(o)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range records {
		s.Answer(d)
	}
	for _, d := range records {
		if err := s.Add(d); err != nil {
			t.Fatal(err)
		}
	}
	p, err := s.Proposals()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func records(lines ...string) (list []*policy.Decision) {
	for i, s := range lines {
		d := record(s)
		d.Time = start.Add(time.Duration(i) * time.Second)
		if d.Plane == policy.PlaneSystem {
			d.Reason, d.Asked, d.Subject.Args = "ann (uid 1000) said so", d.Subject.Args, ""
		}
		list = append(list, d)
	}
	return list
}

// did applies all proposals, and returns what that did and the policy.
func did(t testing.TB, src string, p *Proposals) (list []string, text string) {
	t.Helper()
	now := []byte(src)
	for _, x := range p.List {
		e, err := x.Apply("p.yaml", now)
		if err != nil {
			t.Fatalf("%+v: %v", x, err)
		}
		now, list = e.Text, append(list, e.Did...)
	}
	return list, string(now)
}

const asking = `network:
  default: ask
  allow:
    - {domain: api.example.com, ports: [443], protocol: https}
  ask:
    - {domain: gist.example.com, ports: [443, 8443], protocol: tls}
    - {domain: "**.ask.example.com", ports: [443], protocol: https}
  deny:
    - {domain: bad.example.com}
filesystem:
  default: ask
  allow:
    - {path: /workspace, permissions: [read, write]}
  ask:
    - {path: /srv/asked, permissions: [read, write]}
process:
  default: ask
  allow:
    - command: node
    - {command: git, helpers: [ssh]}
  ask:
    - command: python3
`

func TestSession(t *testing.T) {
	for name, tt := range map[string]struct {
		o       SessionOptions
		records []*policy.Decision
		want    []string // what is done
		left    []string // parts of what is not proposed
	}{
		"the default asked": {
			records: records("network connect new.example.net:443 /usr/bin/node default allow node app.js"),
			want:    []string{"added network.allow: {domain: new.example.net, ports: [443], protocol: https, commands: [node]}"},
		},
		"a rule allowed": {records: records("network connect api.example.com:443 /usr/bin/node p.yaml:4 allow node")},
		"a rule asked": {
			records: records("network connect gist.example.com:8443 /usr/bin/node p.yaml:6 allow node"),
			want: []string{
				"removed 8443 from the ports of network.ask: {domain: gist.example.com, ports: [443, 8443], protocol: tls}",
				"added network.allow: {domain: gist.example.com, ports: [8443], protocol: tls, commands: [node]}",
			},
		},
		"a wider rule asks": {
			records: records("network connect a.ask.example.com:443 /usr/bin/node p.yaml:7 allow node"),
			left:    []string{"ask beats it"},
		},
		"two programs": {
			records: records("network connect x.example.net:443 /usr/bin/node default allow node", "exec exec /usr/bin/git /usr/bin/git p.yaml:20 allow git",
				"exec exec /usr/bin/ssh /usr/bin/ssh p.yaml:20 allow ssh", "network connect x.example.net:443 /usr/bin/git default allow git", "network connect x.example.net:22 /usr/bin/ssh default allow ssh"),
			want: []string{
				"added network.allow: {domain: x.example.net, ports: [22], protocol: tcp, commands: [/usr/bin/ssh]}",
				"added network.allow: {domain: x.example.net, ports: [443], protocol: https, commands: [git, node]}",
			},
		},
		"a program by another name": {
			records: records("exec exec /usr/bin/python3.12 /usr/bin/python3.12 p.yaml:22 allow python3", "network connect x.example.net:443 /usr/bin/python3.12 default allow python3"),
			want: []string{
				"added network.allow: {domain: x.example.net, ports: [443], protocol: https, commands: [python3]}",
				"removed process.ask: {command: python3}", "added process.allow: {command: python3}",
			},
		},
		"a program that was approved": {
			records: records("exec exec /usr/bin/curl /usr/bin/curl default allow curl", "network connect x.example.net:443 /usr/bin/curl default allow curl", "exec exec /usr/bin/env /usr/bin/env default allow env"),
			want: []string{
				"added network.allow: {domain: x.example.net, ports: [443], protocol: https, commands: [curl]}",
				"added process.allow: {command: curl}",
			},
		},
		"a program that no rule can name": {
			records: records("network connect x.example.net:443 /workspace/tool default allow tool", "network connect x.example.net:443 - default allow"),
			left:    []string{"a rule can name no program that process does not list", "which program it was is not known"},
		},
		"files": {
			records: records("file open /srv/a /usr/bin/node default allow node", "file write /srv/a /usr/bin/node default allow node", "file open /srv/asked /usr/bin/node p.yaml:15 allow node",
				"file open /workspace/x /usr/bin/node p.yaml:13 allow node"),
			want: []string{
				"added filesystem.allow: {path: /srv/a, permissions: [read, write]}",
				"removed read from the permissions of filesystem.ask: {path: /srv/asked, permissions: [read, write]}",
				"added filesystem.allow: {path: /srv/asked, permissions: [read]}",
			},
		},
		"secrets": {
			o:       SessionOptions{Dirs: true},
			records: records("file open /srv/a/.env /usr/bin/node default allow node", "file open /srv/a/b /usr/bin/node default allow node", "file open /srv/a/c /usr/bin/node default allow node", "file open /root/.ssh/id_rsa /usr/bin/node default allow node"),
			want:    []string{"added filesystem.allow: {path: /srv/a/b, permissions: [read]}", "added filesystem.allow: {path: /srv/a/c, permissions: [read]}"},
			left:    []string{"open /srv/a/.env by /usr/bin/node: a secret", "open /root/.ssh/id_rsa by /usr/bin/node: a secret"},
		},
		"directories": {
			o:       SessionOptions{Dirs: true},
			records: records("file open /srv/d/b /usr/bin/node default allow node", "file open /srv/d/c /usr/bin/node default allow node", "file write /srv/d/w /usr/bin/node default allow node"),
			want:    []string{"added filesystem.allow: {path: /srv/d, permissions: [read]}", "added filesystem.allow: {path: /srv/d/w, permissions: [read, write]}"},
		},
		"subdomains": {
			o:       SessionOptions{Subdomains: true},
			records: records("network connect a.x.example.net:443 /usr/bin/node default allow node", "network connect b.x.example.net:443 /usr/bin/node default allow node"),
			want:    []string{`added network.allow: {domain: "*.x.example.net", ports: [443], protocol: https, commands: [node]}`},
		},
		"a name that was denied keeps a wildcard away": {
			o: SessionOptions{Subdomains: true},
			records: records("network connect a.x.example.net:443 /usr/bin/node default allow node", "network connect b.x.example.net:443 /usr/bin/node default allow node",
				"system answer c.x.example.net:443 /usr/bin/node default deny network connect"),
			want: []string{
				"added network.allow: {domain: a.x.example.net, ports: [443], protocol: https, commands: [node]}",
				"added network.allow: {domain: b.x.example.net, ports: [443], protocol: https, commands: [node]}",
			},
		},
		"approved, not used yet": {
			records: records("system answer x.example.net:443 /usr/bin/node default allow network connect"),
			want:    []string{"added network.allow: {domain: x.example.net, ports: [443], protocol: https, commands: [node]}"},
		},
		"approved, and denied later": {
			records: records("system answer x.example.net:443 /usr/bin/node default allow network connect", "network connect x.example.net:443 /usr/bin/node default allow node", "system answer x.example.net:443 /usr/bin/node default deny network connect"),
			left:    []string{"denied it or took that back later"},
		},
		"approved, and taken back": {
			records: records("network connect x.example.net:443 /usr/bin/node default allow node", "system revoke x.example.net:443 /usr/bin/node default deny network connect"),
			left:    []string{"denied it or took that back later"},
		},
		"denied, and approved later": {
			records: records("system answer x.example.net:443 /usr/bin/node default deny network connect", "system answer x.example.net:443 /usr/bin/node default allow network connect", "network connect x.example.net:443 /usr/bin/node default allow node"),
			want:    []string{"added network.allow: {domain: x.example.net, ports: [443], protocol: https, commands: [node]}"},
		},
		"a file that the kernel lets through from then on": {
			records: records("file open /srv/tool /usr/bin/node default deny node", "file write /srv/tool /usr/bin/node default deny node", "system answer /srv/tool /usr/bin/node default allow file open"),
			want:    []string{"added filesystem.allow: {path: /srv/tool, permissions: [read]}"},
		},
		"a program that was approved once, and its file denied": {
			records: records("system answer /usr/bin/jq /usr/bin/node default allow exec exec", "system answer /usr/bin/jq /usr/bin/node default deny file write"),
			want:    []string{"added process.allow: {command: jq}"},
		},
		"a name and a device": {
			records: records("system answer x.example.net /usr/bin/node default allow dns resolve", "system answer c:1:9 /usr/bin/node default allow device open"),
			left:    []string{"no rule is proposed for such a thing"},
		},
		"refused": {
			records: records("network connect no.example.net:443 /usr/bin/node default deny node", "file open /srv/x /usr/bin/node default deny node", "exec exec /usr/bin/id - default deny id"),
		},
		"refused, and included": {
			o: SessionOptions{Refused: true},
			records: records("network connect no.example.net:443 /usr/bin/node default deny node", "file open /srv/x /usr/bin/node default deny node", "exec exec /usr/bin/id - default deny id",
				"network connect gist.example.com:443 /usr/bin/node p.yaml:6 deny node", "network connect bad.example.com:443 /usr/bin/node p.yaml:9 deny node", "network connect 169.254.169.254:80 /usr/bin/node default deny node"),
			want: []string{
				"removed 443 from the ports of network.ask: {domain: gist.example.com, ports: [443, 8443], protocol: tls}",
				"added network.allow: {domain: gist.example.com, ports: [443], protocol: tls, commands: [node]}",
				"added network.allow: {domain: no.example.net, ports: [443], protocol: https, commands: [node]}",
				"added filesystem.allow: {path: /srv/x, permissions: [read]}", "added process.allow: {command: id}",
			},
			left: []string{"metadata service"},
		},
		"denied by a person, and refused included": {
			o:       SessionOptions{Refused: true},
			records: records("system answer no.example.net:443 /usr/bin/node default deny network connect", "network connect no.example.net:443 /usr/bin/node default deny node"),
			left:    []string{"a person denied it"},
		},
		"other code may run as it": {
			records: tainted(records("network connect x.example.net:443 /usr/bin/node default allow node")),
			left:    []string{"not for one that other code may run as (NODE_OPTIONS)"},
		},
		"hostile objects": {
			o: SessionOptions{Refused: true},
			records: objects(records("file open - /usr/bin/node default allow node", "network connect - /usr/bin/node default allow node", "file open - /usr/bin/node default deny node"),
				"/srv/a\n  deny: []\x1b]0;x\a", "x.example.net\r\n:443", `/srv/\xff`),
			left: []string{`/srv/a\n  deny: []\x1b]0;x\x07`, `x.example.net\x0d\n:443`, `/srv/\\xff`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := session(t, asking, tt.o, tt.records...)
			got, text := did(t, asking, p)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("%s\n%+v", diff, p.Left)
			}
			policyOf(t, text)
			if len(p.Left) != len(tt.left) {
				t.Errorf("%d are left, want %d: %+v", len(p.Left), len(tt.left), p.Left)
			}
			for i, want := range tt.left[:min(len(tt.left), len(p.Left))] {
				if s := p.Left[i].What + ": " + p.Left[i].Why; !strings.Contains(s, want) {
					t.Errorf("%q does not hold %q", s, want)
				}
			}
		})
	}
}

func tainted(list []*policy.Decision) []*policy.Decision {
	for _, d := range list {
		d.Subject.Taint = "NODE_OPTIONS"
	}
	return list
}

func objects(list []*policy.Decision, objects ...string) []*policy.Decision {
	for i, d := range list {
		d.Object = objects[i]
	}
	return list
}

// TestSessionEvidence: how often, when, by which program, and who approved it.
func TestSessionEvidence(t *testing.T) {
	p := session(t, asking, SessionOptions{}, records(
		"system answer x.example.net:443 /usr/bin/node default allow network connect", "network connect x.example.net:443 /usr/bin/node default allow node app.js",
		"network connect x.example.net:443 /usr/bin/node default allow node app.js", "system answer x.example.net:443 /usr/bin/node default allow network connect")...)
	want := []string{
		"2 connections to x.example.net:443 by node, 2026-01-02 03:04:06 to 2026-01-02 03:04:07: node app.js",
		"approved 2 times, the last time 2026-01-02 03:04:08: ann (uid 1000) said so",
	}
	if len(p.List) != 1 || cmp.Diff(want, p.List[0].Evidence) != "" {
		t.Errorf("%+v", p.List)
	}
}

// TestSessionRevisions: a rule's place is one of the policy that the record is of.
func TestSessionRevisions(t *testing.T) {
	// On line 4 was a rule that asked; a rule that allows stands there now, and the other way round.
	const older = "network:\n  allow: []\n  ask:\n    - {domain: one.example.com, ports: [443], protocol: https}\nprocess: {allow: [{command: node}]}\n"
	const newer = "network:\n  ask: []\n  allow:\n    - {domain: one.example.com, ports: [80], protocol: http}\nprocess: {allow: [{command: node}]}\n"
	older1, newer1 := policyOf(t, older), policyOf(t, newer)
	find := func(hash string, _ time.Time) (*policy.Compiled, error) {
		return map[string]*policy.Compiled{older1.Revision: older1, newer1.Revision: newer1}[hash], nil
	}
	of := func(c *policy.Compiled, list ...*policy.Decision) []*policy.Decision {
		for _, d := range list {
			d.Revision = c.Revision
		}
		return list
	}
	asked := of(older1, records("network connect one.example.com:443 /usr/bin/node p.yaml:4 allow node")...)
	allowed := of(newer1, records("network connect one.example.com:80 /usr/bin/node p.yaml:4 allow node")...)
	forgotten := records("network connect two.example.com:443 /usr/bin/node p.yaml:4 allow node")
	forgotten[0].Revision = "forgotten"
	p := sessionOf(t, newer, SessionOptions{}, find, append(append(asked, allowed...), forgotten...)...)
	got, _ := did(t, newer, p)
	if diff := cmp.Diff([]string{"added network.allow: {domain: one.example.com, ports: [443], protocol: https, commands: [node]}"}, got); diff != "" {
		t.Error(diff)
	}
	if _, err := NewSession(SessionOptions{File: "p.yaml", Text: []byte("nonsense")}); err == nil {
		t.Error("a session of no policy")
	}
}

// TestSessionTakenAway: an approval that became a rule which somebody took away is none any more; one that came after that is.
func TestSessionTakenAway(t *testing.T) {
	const without, with = "process: {allow: [{command: node}]}\n", "network: {allow: [{domain: x.example.net, ports: [443], protocol: https}]}\n"
	var since time.Time
	o := SessionOptions{Since: func(at time.Time) ([]*policy.Compiled, error) {
		since = at
		return []*policy.Compiled{policyOf(t, without), policyOf(t, with+without)}, nil
	}}
	list := records("network connect x.example.net:443 /usr/bin/node default allow node", "system answer x.example.net:443 /usr/bin/node default allow network connect")
	if p := session(t, without, o, list...); len(p.List) != 0 || len(p.Left) != 1 || !strings.Contains(p.Left[0].Why, "taken away later") || !since.Equal(list[1].Time) {
		t.Errorf("%+v, %+v, since %s", p.List, p.Left, since)
	}
	o.Since = func(time.Time) ([]*policy.Compiled, error) { return []*policy.Compiled{policyOf(t, without)}, nil }
	if p := session(t, without, o, list...); len(p.List) != 1 {
		t.Errorf("%+v", p.Left)
	}
}

// TestSessionFlood: ten thousand names that were refused stand before nothing that was approved, and take no room from it.
func TestSessionFlood(t *testing.T) {
	var list []*policy.Decision
	for i := range 10_000 {
		list = append(list, record(fmt.Sprintf("network connect n%d.example.net:443 /usr/bin/node default deny node", i)))
	}
	list = append(list, records("system answer good.example.net:443 /usr/bin/node default allow network connect", "network connect good.example.net:443 /usr/bin/node default allow node")...)
	list = append(list, &policy.Decision{Time: start, Plane: policy.PlaneNetwork, Action: "connect", Object: "(various)", Rule: "builtin", Verdict: policy.Deny, Count: 1000})
	p := session(t, "process: {allow: [{command: node}]}\n", SessionOptions{Refused: true}, list...)
	if len(p.List) != 1+maxProposals || p.List[0].Add.Domain != "good.example.net" || p.List[0].Refused || !p.List[1].Refused || p.Missed != 10_000-maxProposals {
		t.Errorf("%d proposals, the first %+v; %d missed", len(p.List), p.List[0], p.Missed)
	}
	p = session(t, "process: {allow: [{command: node}]}\n", SessionOptions{}, list...)
	if len(p.List) != 1 || p.Missed != 0 {
		t.Errorf("%d proposals, %d missed", len(p.List), p.Missed)
	}
}

const wide = `extends: [pypi, npm]
network:
  allow:
    - {domain: used.example.com, ports: [443, 8443], protocol: https}
    - {domain: unused.example.com, ports: [443], protocol: https}
    - {domain: brief.example.com, ports: [443], protocol: https, expires: 1h}
    - {cidr: 10.0.0.0/8, ports: [443], protocol: tcp}
    - {cidr: 192.0.2.0/24, ports: [99], protocol: tcp}
  ask:
    - {domain: ask.example.com, ports: [443], protocol: https}
process:
  allow:
    - command: jq
    - command: prettier
    - {command: git, helpers: [ssh]}
    - command: unused
`

func TestPrune(t *testing.T) {
	c := policyOf(t, wide)
	at := func(name string) string {
		for _, x := range c.Exec.Allow {
			if x.Name == name {
				return c.Rule(x.ID).Pos
			}
		}
		t.Fatal(name)
		return ""
	}
	use := records("network connect used.example.com:443 /usr/bin/jq p.yaml:4 allow jq", "exec exec /usr/bin/jq /usr/bin/jq "+at("jq")+" allow jq",
		"exec exec /usr/bin/node /usr/bin/node "+at("node")+" allow /usr/bin/node /usr/local/bin/prettier x.js", "exec exec /usr/bin/ssh /usr/bin/ssh "+at("git")+" allow ssh")
	p := session(t, wide, SessionOptions{Prune: true}, use...)
	got, text := did(t, wide, p)
	want := []string{
		"removed the preset pypi",
		"removed 8443 from the ports of network.allow: {domain: used.example.com, ports: [443, 8443], protocol: https}",
		"removed network.allow: {domain: unused.example.com, ports: [443], protocol: https}",
		"removed network.allow: {cidr: 192.0.2.0/24, ports: [99], protocol: tcp}",
		"removed process.allow: {command: unused}",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s\n%+v", diff, p.Left)
	}
	// What was of use is allowed still.
	verdicts(t, policyOf(t, text), "+connect used.example.com:443", "+connect 10.1.2.3:443", "+exec jq", "+exec node", "+exec prettier", "+exec ssh", "-exec unused", "-connect unused.example.com:443")

	for what, more := range map[string][]*policy.Decision{
		"nothing was executed": nil,
		"so many different":    append(use, &policy.Decision{Plane: policy.PlaneNetwork, Action: "connect", Object: "(various)", Rule: "builtin", Verdict: policy.Allow, Count: 9}),
	} {
		p := session(t, wide, SessionOptions{Prune: true}, more...)
		if len(p.List) != 0 || len(p.Left) != 1 || !strings.Contains(p.Left[0].Why, what) {
			t.Errorf("%s: %+v, %+v", what, p.List, p.Left)
		}
	}
	if p := session(t, wide, SessionOptions{}, use...); len(p.List) != 0 {
		t.Errorf("pruned without being told: %+v", p.List)
	}
}
