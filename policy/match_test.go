package policy

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

// about lists the targets of rules in the order in which they matched.
func about(rules []*NetRule) string {
	var list []string
	for _, r := range rules {
		list = append(list, r.Verdict.String()+" "+r.target())
	}
	return strings.Join(list, ", ")
}

const names = `
network:
  allow:
    - {domain: "**.example.org", ports: [443], protocol: https}
    - {domain: "**.b.example.org", ports: [443], protocol: https}
    - {domain: "*.b.example.org", ports: [443], protocol: https}
    - {domain: a.b.example.org, ports: [443], protocol: https}
    - {domain: localhost, ports: [80], protocol: http}
  deny:
    - domain: "*.example.org"
    - cidr: 10.0.0.0/8
    - cidr: 10.1.2.3/32
    - cidr: "2001:db8::/32"
  ask:
    - {cidr: 10.1.0.0/16, ports: [443], protocol: tcp}
`

func TestMatch(t *testing.T) {
	n := compile(t, names).Network
	for _, tt := range []struct{ name, want string }{
		{"a.b.example.org", "allow a.b.example.org, allow *.b.example.org, allow **.b.example.org, allow **.example.org"},
		{"A.B.Example.ORG.", "allow a.b.example.org, allow *.b.example.org, allow **.b.example.org, allow **.example.org"},
		{"x.b.example.org", "allow *.b.example.org, allow **.b.example.org, allow **.example.org"},
		{"x.y.b.example.org", "allow **.b.example.org, allow **.example.org"},
		{"b.example.org", "deny *.example.org, allow **.example.org"},
		{"_dns.q.example.org", "allow **.example.org"},
		{"example.org", ""},
		{"xexample.org", ""},
		{"localhost", "allow localhost"},
		{"x.localhost", ""},
		{"org", ""},
		{"", ""},
		{".", ""},
		{"..", ""},
		{".example.org", ""},
		{"a..example.org", ""},
		{"a.example.org..", ""},
		{"*.example.org", ""},
		{"**.example.org", ""},
		{"a b.example.org", ""},
		{"a\x00.example.org", ""},
		{"ä.example.org", ""},
		{"-a.example.org", ""},
		{strings.Repeat("a", 64) + ".example.org", ""},
		{strings.Repeat("a.", 130) + "example.org", ""},
	} {
		if got := about(n.Match(tt.name)); got != tt.want {
			t.Errorf("Match(%q) = %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestMatchAddr(t *testing.T) {
	n := compile(t, names).Network
	for _, tt := range []struct{ addr, want string }{
		{"10.1.2.3", "deny 10.1.2.3/32, ask 10.1.0.0/16, deny 10.0.0.0/8"},
		{"::ffff:10.1.2.4", "ask 10.1.0.0/16, deny 10.0.0.0/8"},
		{"10.255.255.255", "deny 10.0.0.0/8"},
		{"11.0.0.0", ""},
		{"2001:db8::1", "deny 2001:db8::/32"},
		{"2001:db9::1", ""},
		{"2001:db8::1%eth0", "deny 2001:db8::/32"},
		{"::10.1.2.3", ""},
	} {
		if got := about(n.MatchAddr(netip.MustParseAddr(tt.addr))); got != tt.want {
			t.Errorf("MatchAddr(%s) = %q, want %q", tt.addr, got, tt.want)
		}
	}
	if got := n.MatchAddr(netip.Addr{}); got != nil {
		t.Errorf("the zero address matched %v", got)
	}
	var none Network
	if none.Match("a.example.org") != nil || none.MatchAddr(netip.MustParseAddr("10.0.0.1")) != nil || none.ExactNames() != nil {
		t.Error("an empty policy has rules")
	}
}

// Two callers that extend what Match returned must not see each other's rules.
func TestMatchSharesNothing(t *testing.T) {
	n := compile(t, names).Network
	want := about(n.Match("x.b.example.org"))
	_ = append(n.Match("x.b.example.org"), &NetRule{Name: "evil"})
	_ = append(n.Match("x.y.b.example.org"), &NetRule{Name: "evil"})
	if got := about(n.Match("x.b.example.org")); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestJudge(t *testing.T) {
	n := compile(t, `
network:
  default: ask
  allow:
    - {domain: a.example.org, ports: [80, 443], protocol: tcp}
    - {domain: a.example.org, ports: [22], protocol: tcp, commands: [git, ssh]}
    - {domain: "*.example.org", ports: [21], protocol: tcp, expires: 1h}
  ask:
    - {domain: "*.example.org", ports: [443], protocol: tcp}
  deny:
    - {domain: "**.example.org", ports: [80]}
    - {domain: bad.example.org}
    - {domain: "*.example.org", ports: [22], commands: [curl]}
`).Network
	git := func(c string) bool { return c == "git" }
	curl := func(c string) bool { return c == "curl" }
	for _, tt := range []struct {
		name string
		port uint16
		is   func(string) bool
		want Verdict
		rule string

		tainted Verdict // of the same caller when it is tainted
	}{
		{"a.example.org", 443, nil, Ask, "*.example.org", Ask}, // ask beats a more specific allow
		{"a.example.org", 80, nil, Deny, "**.example.org", Deny},
		{"a.example.org", 22, git, Allow, "a.example.org", Ask},
		{"a.example.org", 22, nil, Ask, "", Ask},
		{"a.example.org", 22, curl, Deny, "*.example.org", Deny},
		{"a.example.org", 21, nil, Allow, "*.example.org", Allow},
		{"bad.example.org", 9, nil, Deny, "bad.example.org", Deny},
		{"bad.example.org", 80, nil, Deny, "bad.example.org", Deny}, // the most specific of one verb is named
		{"other.net", 443, nil, Ask, "", Ask},
	} {
		v, r := n.Judge(n.Match(tt.name), tt.port, Caller{Is: tt.is})
		name := ""
		if r != nil {
			name = r.Name
		}
		if v != tt.want || name != tt.rule {
			t.Errorf("%s:%d is %v by %q, want %v by %q", tt.name, tt.port, v, name, tt.want, tt.rule)
		}
		if v, _ := n.Judge(n.Match(tt.name), tt.port, Caller{Is: tt.is, Tainted: true}); v != tt.tainted {
			t.Errorf("%s:%d is %v for one that is tainted, want %v", tt.name, tt.port, v, tt.tainted)
		}
	}
	ftp := n.Match("a.example.org")
	if v, _ := n.JudgeAt(ftp, 21, Caller{}, time.Hour-1); v != Allow {
		t.Errorf("before it expires: %v", v)
	}
	if v, r := n.JudgeAt(ftp, 21, Caller{}, time.Hour); v != Ask || r != nil {
		t.Errorf("when it has expired: %v by %v", v, r)
	}
}

func TestLongestLastingRuleIsNamed(t *testing.T) {
	n := compile(t, `
network:
  allow:
    - {domain: a.example.org, ports: [443], protocol: https, expires: 1m}
    - {domain: a.example.org, ports: [443], protocol: https, expires: 1h}
    - {domain: a.example.org, ports: [443], protocol: https}
    - {domain: a.example.org, ports: [443], protocol: https}
`).Network
	var got []RuleID
	for _, r := range n.Match("a.example.org") {
		got = append(got, r.ID)
	}
	if len(got) != 4 || got[0] != 3 || got[1] != 4 || got[2] != 2 || got[3] != 1 {
		t.Errorf("order %v", got)
	}
}

func TestCanonical(t *testing.T) {
	for _, tt := range []struct{ name, want string }{
		{"Example.ORG.", "example.org"},
		{"bücher.example.org", "xn--bcher-kva.example.org"},
		{"BÜCHER.example.org", "xn--bcher-kva.example.org"},
		{"xn--bcher-kva.example.org", "xn--bcher-kva.example.org"},
		{"XN--BCHER-KVA.example.org", "xn--bcher-kva.example.org"},
		{"日本語。example。org", "xn--wgv71a119e.example.org"},
		{"r3---sn-a.example.org", "r3---sn-a.example.org"},
		{"_acme.example.org", "_acme.example.org"},
		{"localhost", "localhost"},
		{"", ""}, {".", ""}, {"a..b", ""}, {"a.b..", ""}, {".a", ""},
		{"1.2.3.4", ""}, {"1.2.3.4.", ""}, {"0x7f.1", ""}, {"0x", ""}, {"a.0x1f", ""}, {"2130706433", ""}, {"１２７.0.0.1", ""},
		{"[::1]", ""}, {"::1", ""}, {"a/b.org", ""}, {"a:80", ""}, {"a\x00b.org", ""}, {"a%00.org", ""}, {"a@b.org", ""},
		{"xn--a.example.org", ""}, {"xn--.example.org", ""},
	} {
		got, ok := Canonical(tt.name)
		if got != tt.want || ok != (tt.want != "") {
			t.Errorf("Canonical(%q) = %q, %v; want %q", tt.name, got, ok, tt.want)
		}
	}
}
