package offer

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

const file1 = "policy.yaml"

func compiled(t testing.TB, text string) *policy.Compiled {
	t.Helper()
	p, err := policy.Parse(file1, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	c, err := policy.Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// added is what a policy means with the rule of an offer. It fails where the rule could not act.
func added(t testing.TB, text string, o Offer) *policy.Compiled {
	t.Helper()
	src := []byte(text)
	if o.Instead != nil {
		e, err := policy.RemoveRule(file1, src, *o.Instead)
		if err != nil {
			t.Fatalf("%+v can't be removed: %v", *o.Instead, err)
		}
		src = e.Text
	}
	e, err := policy.AddRule(file1, src, *o.Allow)
	if err != nil {
		t.Fatalf("%+v can't be added: %v", *o.Allow, err)
	}
	return e.Policy
}

const base = `
network:
  allow:
    - domain: api.example.org
      ports: [443]
      protocol: https
  ask:
    - domain: "*.asked.example.com"
      ports: [443]
      protocol: tls
    - domain: one.example.com
      ports: [443]
      protocol: tls
      commands: [curl]
filesystem:
  allow:
    - path: /srv/data/in
      permissions: [read, execute]
  ask:
    - path: /srv/asked
      permissions: [read]
    - path: /srv/data/one
      permissions: [read]
process:
  allow:
    - command: curl
    - command: git
  ask:
    - command: make
`

func connect(object, exe string) policy.Decision {
	return policy.Decision{Plane: policy.PlaneNetwork, Action: "connect", Object: object, Rule: "default", Subject: policy.Subject{PID: 7, Exe: exe}}
}

func ids(list []Offer) string {
	var s []string
	for _, o := range list {
		s = append(s, o.ID)
	}
	return strings.Join(s, " ")
}

func TestOf(t *testing.T) {
	c := compiled(t, base)
	tainted := connect("www.example.net:443", "/usr/bin/curl")
	tainted.Subject.Taint = "LD_PRELOAD"
	asked := connect("x.asked.example.com:443", "/usr/bin/curl")
	asked.Rule = "policy.yaml:8"
	one := connect("one.example.com:443", "/usr/bin/curl")
	one.Rule = "policy.yaml:11"
	local := func(plane policy.Plane, action, object string) policy.Decision {
		return policy.Decision{Plane: plane, Action: action, Object: object, Rule: "default", Subject: policy.Subject{Exe: "/usr/bin/cat"}}
	}
	for _, tt := range []struct {
		name  string
		d     policy.Decision
		ids   string
		yaml  []string // one of each offer
		denys []string
	}{
		{"a name", connect("www.example.net:443", "/usr/bin/curl"), "this host subdomains", []string{
			"network:\n  allow:\n    - domain: www.example.net\n      ports: [443]\n      protocol: https\n      commands: [/usr/bin/curl]\n",
			"network:\n  allow:\n    - domain: www.example.net\n      ports: [443]\n      protocol: https\n",
			"network:\n  allow:\n    - domain: \"*.example.net\"\n      ports: [443]\n      protocol: https\n      commands: [/usr/bin/curl]\n",
		}, []string{
			"network:\n  deny:\n    - domain: www.example.net\n      ports: [443]\n      commands: [/usr/bin/curl]\n",
			"network:\n  deny:\n    - domain: www.example.net\n      ports: [443]\n",
			"network:\n  deny:\n    - domain: \"*.example.net\"\n      ports: [443]\n      commands: [/usr/bin/curl]\n",
		}},
		{"nobody knows who", connect("www.example.net:80", ""), "this host subdomains", []string{
			"", "network:\n  allow:\n    - domain: www.example.net\n      ports: [80]\n      protocol: http\n",
			"network:\n  allow:\n    - domain: \"*.example.net\"\n      ports: [80]\n      protocol: http\n",
		}, nil},
		{"other code may run as it", tainted, "this host subdomains", []string{
			"", "network:\n  allow:\n    - domain: www.example.net\n      ports: [443]\n      protocol: https\n",
			"network:\n  allow:\n    - domain: \"*.example.net\"\n      ports: [443]\n      protocol: https\n",
		}, nil},
		{"an address", connect("[2001:db8::1]:22", "/usr/bin/curl"), "this host", []string{
			"network:\n  allow:\n    - cidr: \"2001:db8::1/128\"\n      ports: [22]\n      protocol: tcp\n      commands: [/usr/bin/curl]\n",
			"network:\n  allow:\n    - cidr: \"2001:db8::1/128\"\n      ports: [22]\n      protocol: tcp\n",
		}, nil},
		{"metadata", connect("169.254.169.254:80", "/usr/bin/curl"), "this", []string{""}, nil},
		{"a rule asks", asked, "this", []string{""}, []string{
			"network:\n  deny:\n    - domain: x.asked.example.com\n      ports: [443]\n      commands: [/usr/bin/curl]\n",
		}},
		{"a rule asks about it alone", one, "this host", []string{
			"", "network:\n  allow:\n    - domain: one.example.com\n      ports: [443]\n      protocol: tls\n      commands: [curl]\n",
		}, nil},
		{"a file that a rule asks about alone", policy.Decision{Plane: policy.PlaneFile, Action: "open", Object: "/srv/data/one", Rule: "policy.yaml:22"}, "this", []string{
			"filesystem:\n  allow:\n    - path: /srv/data/one\n      permissions: [read]\n",
		}, nil},
		{"a program that a rule asks about alone", policy.Decision{Plane: policy.PlaneExec, Action: "exec", Object: "/usr/bin/make", Rule: "policy.yaml:29"}, "this", []string{
			"process:\n  allow:\n    - command: make\n",
		}, nil},
		{"no parent of its own", connect("example.net:443", "/usr/bin/curl"), "this host", nil, nil},
		{"a public suffix", connect("www.co.uk:443", "/usr/bin/curl"), "this host", nil, nil},
		{"a provider's suffix", connect("me.github.io:443", "/usr/bin/curl"), "this host", nil, nil},
		{"a host of many", connect("s3.amazonaws.com:443", "/usr/bin/curl"), "this host", nil, nil},
		{"a look-up", policy.Decision{Plane: policy.PlaneDNS, Action: "resolve", Object: "www.example.net", Rule: "default"}, "this host subdomains", nil, nil},
		{"a service", policy.Decision{Plane: policy.PlaneDNS, Action: "resolve", Object: "_http._tcp.example.net", Rule: "default"}, "", nil, nil},
		{"bind", policy.Decision{Plane: policy.PlaneNetwork, Action: "bind", Object: "10.0.0.1:80", Rule: "default"}, "", nil, nil},
		{"builtin", policy.Decision{Plane: policy.PlaneNetwork, Action: "connect", Object: "10.0.0.1:80", Rule: "builtin"}, "", nil, nil},
		{"a device", policy.Decision{Plane: policy.PlaneDevice, Action: "open", Object: "c 1:1", Rule: "default"}, "", nil, nil},
		{"a file", local(policy.PlaneFile, "open", "/srv/data/in/x"), "this directory", []string{
			"filesystem:\n  allow:\n    - path: /srv/data/in/x\n      permissions: [read, execute]\n",
			"filesystem:\n  allow:\n    - path: /srv/data/in\n      permissions: [read, execute]\n",
		}, []string{
			"filesystem:\n  deny:\n    - path: /srv/data/in/x\n      permissions: [read]\n",
		}},
		{"a write", local(policy.PlaneFile, "write", "/srv/data/out/x"), "this", []string{
			"filesystem:\n  allow:\n    - path: /srv/data/out/x\n      permissions: [read, write]\n",
		}, []string{
			"filesystem:\n  deny:\n    - path: /srv/data/out/x\n      permissions: [write]\n",
		}},
		{"a directory", local(policy.PlaneFile, "readdir", "/srv/data/other"), "this directory", []string{
			"", "filesystem:\n  allow:\n    - path: /srv/data/other\n      permissions: [read]\n",
		}, nil},
		{"a secret", local(policy.PlaneFile, "open", "/home/me/.aws/credentials"), "this", []string{""}, nil},
		{"beside secrets", local(policy.PlaneFile, "open", "/etc/ssh/ssh_config"), "this", nil, nil},
		{"in a home", local(policy.PlaneFile, "open", "/home/me/notes.txt"), "this", nil, nil},
		{"a home", local(policy.PlaneFile, "open", "/home/me"), "this", []string{""}, nil},
		{"a file that a rule asks about", local(policy.PlaneFile, "open", "/srv/asked/x"), "this", []string{""}, nil},
		{"a program", local(policy.PlaneExec, "exec", "/usr/bin/jq"), "this", []string{
			"process:\n  allow:\n    - command: jq\n",
		}, []string{
			"process:\n  deny:\n    - command: /usr/bin/jq\n",
		}},
		{"a program that a rule asks about", local(policy.PlaneExec, "exec", "/usr/bin/make"), "this", []string{""}, nil},
		{"a program of the sandbox's", local(policy.PlaneExec, "exec", "/tmp/x"), "this", []string{""}, nil},
	} {
		list := Of(tt.d, c)
		if ids(list) != tt.ids {
			t.Errorf("%s: %q is offered, want %q", tt.name, ids(list), tt.ids)
			continue
		}
		for i, want := range tt.yaml {
			if list[i].YAML != want {
				t.Errorf("%s: %s adds\n%swant\n%s", tt.name, list[i].ID, list[i].YAML, want)
			}
		}
		for i, want := range tt.denys {
			if list[i].Offer.Deny != want {
				t.Errorf("%s: %s adds to deny\n%swant\n%s", tt.name, list[i].ID, list[i].Offer.Deny, want)
			}
		}
		check(t, base, c, tt.d, list)
	}
}

// neighbours are what an answer to d alone must leave as it was, and what one about more covers.
func neighbours(t testing.TB, d policy.Decision) (self policy.Query, beside, above policy.Query, ok bool) {
	t.Helper()
	switch d.Plane {
	case policy.PlaneInference: // no rule comes of it
		return self, beside, above, false
	case policy.PlaneNetwork, policy.PlaneDNS:
		p, is := placeOf(d)
		if !is {
			return self, beside, above, false
		}
		self = p.query(d.Subject.Exe)
		beside, above = self, self
		if p.name != "" {
			_, parent, _ := strings.Cut(p.name, ".")
			beside.Name, above.Name = "zz-beside."+parent, "zz-beside.zz-"+parent
			return self, beside, above, len(above.Name) < 250 && len(parent) < 50
		}
		beside.Addr, above.Addr = p.addr.Next(), p.addr.Next()
		return self, beside, above, beside.Addr.IsValid()
	case policy.PlaneExec:
		self = policy.Query{Action: policy.QueryExec, Path: d.Object}
		beside, above = self, self
		beside.Path, above.Path = d.Object+"-zz", d.Object+"-zz"
	default:
		self = policy.Query{Action: policy.QueryRead, Path: d.Object}
		if wanted(d.Action)&policy.Write != 0 {
			self.Action = policy.QueryWrite
		}
		at := d.Object
		if aDirectory(d.Action) {
			at += "/x"
		}
		i := strings.LastIndexByte(at, '/')
		beside, above = self, self
		beside.Path, above.Path = at[:i]+"/zz-beside", at[:i]+"-zz/beside"
	}
	return self, beside, above, true
}

// check proves of offers that their text can be shown, and that their rules, in the policy, allow what was attempted, and no more
// than they say.
func check(t testing.TB, text string, c *policy.Compiled, d policy.Decision, list []Offer) {
	t.Helper()
	for i, o := range list {
		if (i == 0) != (o.ID == This) {
			t.Errorf("%+v: offer %d is %q", d, i, o.ID)
		}
		if always := slices.Contains(o.Scopes, api.ScopeAlways); always != (o.Allow != nil || o.Deny != nil) || len(o.Scopes) == 0 {
			t.Errorf("%+v: %s has the scopes %v, and the rules %v and %v", d, o.ID, o.Scopes, o.Allow, o.Deny)
		}
		for _, s := range []string{o.Text, o.YAML, o.Offer.Deny} {
			if !utf8.ValidString(s) {
				t.Errorf("%+v: %s says %q", d, o.ID, s)
			}
		}
		for _, y := range []string{o.YAML, o.Offer.Deny} {
			if _, err := policy.Parse("offer", []byte(y)); y != "" && err != nil {
				t.Errorf("%+v: %s would add %q: %v", d, o.ID, y, err)
			}
		}
		if (o.YAML == "") != (o.Allow == nil) || (o.Offer.Deny == "") != (o.Deny == nil) {
			t.Errorf("%+v: %s: text and rule differ", d, o.ID)
		}
		self, beside, above, ok := neighbours(t, d)
		if !ok || o.Allow == nil {
			continue
		}
		now := added(t, text, o)
		if o.ID == Directory && aDirectory(d.Action) {
			self = beside
		}
		if a := now.Explain(self); a.Verdict != policy.Allow {
			t.Errorf("%+v: with the rule of %s it is still: %s", d, o.ID, a)
		}
		was, is := c.Explain(beside), now.Explain(beside)
		if wide := o.ID == Directory || o.ID == Subdomains; wide && is.Verdict != policy.Allow || !wide && is.Verdict != was.Verdict {
			t.Errorf("%+v: with the rule of %s what is beside it was %s and is %s", d, o.ID, was, is)
		}
		if was, is := c.Explain(above), now.Explain(above); is.Verdict != was.Verdict {
			t.Errorf("%+v: with the rule of %s what is far off was %s and is %s", d, o.ID, was, is)
		}
		stranger := self
		if stranger.Command != "" && len(o.Allow.Commands) > 0 {
			stranger.Command = "/usr/bin/zz-other"
			if was, is := c.Explain(stranger), now.Explain(stranger); is.Verdict != was.Verdict {
				t.Errorf("%+v: with the rule of %s another program was %s and is %s", d, o.ID, was, is)
			}
		}
	}
}
