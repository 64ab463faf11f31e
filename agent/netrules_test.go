package agent

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nemoclaw/nemoclaw/loader"
	"github.com/nemoclaw/nemoclaw/policy"
)

// kernel is what a ruleset would hold, as text.
type kernel []string

func (k *kernel) PutAddrs(addrs []loader.AddrRules) error {
	for _, a := range addrs {
		for _, p := range a.Ports {
			*k = append(*k, a.Addr.String()+" "+entry(p))
		}
	}
	return nil
}

func (k *kernel) PutPrefix(p netip.Prefix, ports []loader.PortRule) error {
	for _, port := range ports {
		*k = append(*k, p.String()+" "+entry(port))
	}
	return nil
}

func (k *kernel) PutCommandSet(set uint32, members []loader.Member) error {
	for _, m := range members {
		*k = append(*k, fmt.Sprintf("set %d: %d %s %d", set, m.File.Ino, m.Verdict, m.Rule))
	}
	return nil
}

func entry(p loader.PortRule) string {
	s := fmt.Sprintf(":%d %s %d", p.Port, p.Verdict, p.Rule)
	if p.Set != 0 {
		s += fmt.Sprintf(" set %d", p.Set)
	}
	if !p.Expires.IsZero() {
		s += " until " + p.Expires.UTC().Format("15:04")
	}
	return s
}

var (
	curl = loader.FileID{Inode: 1, Ino: 10}
	git  = loader.FileID{Inode: 2, Ino: 20}
	node = loader.FileID{Inode: 3, Ino: 30}
	noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
)

func someRules(t *testing.T, network string) (*netRules, *kernel, *policy.Compiled) {
	t.Helper()
	p, err := policy.Parse("p", []byte("network:\n"+network))
	if err != nil {
		t.Fatal(err)
	}
	c, err := policy.Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	k := &kernel{}
	progs := newPrograms([]program{{"curl", "/usr/bin/curl", curl, 0}, {"git", "/usr/bin/git", git, 0}, {"/usr/local/bin/node", "/opt/node/bin/node", node, 0}})
	return &netRules{
		policy: c, programs: progs, start: noon, live: k, policies: &policies{base: c},
		sets: map[string]uint32{}, pairs: map[string][2]netip.Addr{}, names: map[netip.Addr]string{},
	}, k, c
}

func TestKernelRules(t *testing.T) {
	for name, c := range map[string]struct {
		network string
		ask     string // the name that is learnt
		at      time.Duration
		want    []string // for the first address, rule ids as "#line" of the policy
	}{
		"a name that nothing is about": {"  default: deny\n", "x.test", 0, nil},
		"allow": {"  allow:\n    - {domain: x.test, ports: [443, 80], protocol: tcp}\n", "x.test", 0,
			[]string{":443 allow #3", ":80 allow #3"}},
		"deny beats allow": {"  allow:\n    - {domain: x.test, ports: [443], protocol: tcp}\n  deny:\n    - {domain: x.test}\n", "x.test", 0,
			[]string{":0 deny #5", ":443 deny #5"}},
		"a wildcard and a name": {"  ask:\n    - {domain: \"*.x.test\", ports: [443, 22], protocol: tcp}\n  allow:\n    - {domain: a.x.test, ports: [443], protocol: tcp}\n", "a.x.test", 0,
			[]string{":22 ask #3", ":443 ask #3"}},
		"a command": {"  allow:\n    - {domain: x.test, ports: [443], protocol: tcp, commands: [git]}\n", "x.test", 0,
			[]string{"set 1: 20 allow #3", ":443 deny #0 set 1"}},
		"a command by its other name": {"  allow:\n    - {domain: x.test, ports: [443], protocol: tcp, commands: [node]}\n", "x.test", 0,
			[]string{"set 1: 30 allow #3", ":443 deny #0 set 1"}},
		"a command among all": {"  allow:\n    - {domain: x.test, ports: [443], protocol: tcp}\n  deny:\n    - {domain: x.test, commands: [/usr/bin/curl]}\n", "x.test", 0,
			[]string{"set 1: 10 deny #5", ":443 allow #3 set 1"}},
		"a deny by command covers no unnamed port": {"  deny:\n    - {domain: x.test, commands: [curl]}\n", "x.test", 0, nil},
		"one set for two ports": {"  allow:\n    - {domain: x.test, ports: [443, 444], protocol: tcp, commands: [git]}\n", "x.test", 0,
			[]string{"set 1: 20 allow #3", ":443 deny #0 set 1", ":444 deny #0 set 1"}},
		"expires": {"  allow:\n    - {domain: x.test, ports: [443], protocol: tcp, expires: 1h}\n", "x.test", 0,
			[]string{":443 allow #3 until 13:00"}},
		"expired": {"  allow:\n    - {domain: x.test, ports: [443], protocol: tcp, expires: 1h}\n    - {domain: \"*.test\", ports: [443], protocol: tcp}\n", "x.test", time.Hour,
			nil},
		"an expired deny": {"  allow:\n    - {domain: x.test, ports: [443], protocol: tcp}\n  deny:\n    - {domain: x.test, expires: 30m}\n", "x.test", time.Hour,
			[]string{":443 allow #3"}},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "expired" {
				c.network = strings.Replace(c.network, "*.test", "**.x.test", 1)
			}
			n, k, compiled := someRules(t, c.network)
			a4, a6 := netip.MustParseAddr("198.18.1.0"), netip.MustParseAddr("fd6e:656d:6f63::1:0")
			if err := n.putName(c.ask, [2]netip.Addr{a4, a6}, noon.Add(c.at)); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, line := range *k {
				if strings.HasPrefix(line, a6.String()) {
					continue
				}
				got = append(got, lineOf(compiled, strings.TrimPrefix(line, a4.String()+" ")))
			}
			slices.Sort(got)
			slices.Sort(c.want)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// lineOf replaces the number behind the verdict, a rule's id, by the line of the rule in the policy.
func lineOf(c *policy.Compiled, s string) string {
	f := strings.Fields(s)
	for i, w := range f {
		if w == "allow" || w == "ask" || w == "deny" {
			var id int
			if _, err := fmt.Sscan(f[i+1], &id); err == nil {
				_, line, found := strings.Cut(c.Rules[id].Pos, ":")
				if !found {
					line = "0"
				}
				f[i+1] = "#" + line
			}
		}
	}
	return strings.Join(f, " ")
}

// TestKernelPrefixes shows that a longer prefix carries the rules of the shorter ones around it, and not the reverse.
func TestKernelPrefixes(t *testing.T) {
	n, k, c := someRules(t, `  allow:
    - {cidr: 10.0.0.0/8, ports: [5432], protocol: tcp}
    - {cidr: 10.0.0.0/24, ports: [80], protocol: tcp}
  deny:
    - {cidr: 10.0.0.7/32}
`)
	if err := n.putPrefixes(noon); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, l := range *k {
		got = append(got, lineOf(c, l))
	}
	slices.Sort(got)
	want := []string{
		"10.0.0.0/24 :5432 allow #3", "10.0.0.0/24 :80 allow #4", "10.0.0.0/8 :5432 allow #3",
		"10.0.0.7/32 :0 deny #6", "10.0.0.7/32 :5432 deny #6", "10.0.0.7/32 :80 deny #6",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestSameCommand(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"git", "git", true}, {"git", "/usr/bin/git", true}, {"/usr/bin/git", "git", true}, {"/bin/sh", "sh", true},
		{"git", "/opt/git", false}, {"/usr/bin/git", "/bin/git", false}, {"git", "gitk", false}, {"", "/usr/bin/", false},
	} {
		if got := sameCommand(c.a, c.b); got != c.want {
			t.Errorf("sameCommand(%q, %q) = %v", c.a, c.b, got)
		}
	}
}

func TestRecorder(t *testing.T) {
	rules, _, c := someRules(t, "  allow:\n    - {domain: x.test, ports: [443], protocol: tcp}\n")
	synthetic, other := netip.MustParseAddr("198.18.1.0"), netip.MustParseAddr("fd6e:656d:6f63::1:0")
	if err := rules.learn("x.test", synthetic, other); err != nil {
		t.Fatal(err)
	}
	progs := newPrograms([]program{{"curl", "/usr/bin/curl", curl, 0}})
	var got []policy.Decision
	r := recorder{
		policies: policies{base: c}, record: func(d policy.Decision) { got = append(got, d) },
		identify: func(int) (loader.FileID, error) { return loader.FileID{}, nil },
	}
	r.programs.Store(progs)
	r.names.Store(rules)
	for _, e := range []loader.Event{
		{Hook: loader.HookConnect, Addr: synthetic, Port: 80, PID: 5, Exe: curl, Args: "curl x"},
		{Hook: loader.HookConnect, Addr: other, Port: 80, PID: 5, Exe: curl},     // the other half
		{Hook: loader.HookConnect, Addr: synthetic, Port: 80, PID: 5, Exe: curl}, // another attempt
		{Hook: loader.HookConnect, Addr: synthetic, Port: 80, PID: 5, Exe: curl}, // and another, on the same address
		{Hook: loader.HookConnect, Addr: other, Port: 81, PID: 5, Exe: curl},
		{Hook: loader.HookConnect, Addr: synthetic, Port: 81, PID: 6, Exe: curl},
		{Hook: loader.HookConnect, Addr: other, Port: 81, PID: 6, Exe: curl, Time: time.Unix(1e9, 0)}, // much later
		{Hook: loader.HookConnect, Addr: netip.MustParseAddr("2001:db8::1"), Port: 80, Rule: 1},
		{Hook: loader.HookBind, Addr: netip.MustParseAddr("198.18.1.0"), Port: 1, Rule: loader.RuleBuiltin, Reason: loader.ReasonAddress},
		{Hook: loader.HookExec, Path: "curl", Exe: curl, Verdict: policy.Allow, Rule: 1},
		{Hook: loader.HookExec, Path: "/tmp/x\x1b", PID: 1 << 30, Exe: git},
		{Hook: loader.HookDevice, Device: loader.Device{Type: loader.CharDevice, Major: 10, Minor: 200, Access: loader.DeviceRead}},
	} {
		r.event(e)
	}
	var rows []string
	for _, d := range got {
		rows = append(rows, fmt.Sprintf("%s %s %q %s %s exe=%s", d.Plane, d.Action, d.Object, d.Verdict, d.Rule, d.Subject.Exe))
		if d.Revision != c.Revision {
			t.Errorf("%+v has no revision", d)
		}
	}
	want := []string{
		`network connect "x.test:80" deny default exe=/usr/bin/curl`,
		`network connect "x.test:80" deny default exe=/usr/bin/curl`,
		`network connect "x.test:80" deny default exe=/usr/bin/curl`,
		`network connect "x.test:81" deny default exe=/usr/bin/curl`,
		`network connect "x.test:81" deny default exe=/usr/bin/curl`,
		`network connect "x.test:81" deny default exe=/usr/bin/curl`,
		`network connect "[2001:db8::1]:80" deny p:3 exe=`,
		`network bind "198.18.1.0:1" deny builtin exe=`,
		`exec exec "/usr/bin/curl" allow p:3 exe=/usr/bin/curl`,
		`exec exec "/tmp/x\x1b" deny default exe=`,
		`device open "c 10:200 r" deny default exe=`,
	}
	if diff := cmp.Diff(want, rows); diff != "" {
		t.Error(diff)
	}
}
