package policy

import (
	"strings"
	"testing"
	"time"
)

const explained = `network:
  default: deny
  allow:
    - {domain: api.example.net, ports: [443], protocol: https}
    - {domain: "*.example.org", ports: [443], protocol: https}
    - {domain: db.example.net, ports: [5432], protocol: tcp, commands: [psql], expires: 1h}
    - {cidr: 10.1.0.0/16, ports: [80], protocol: tcp}
    - {domain: plain.example.net, ports: [80], protocol: http}
  ask:
    - {domain: ask.example.net, ports: [443], protocol: https}
  deny:
    - domain: bad.example.org
  unix: [/run/db.sock]
filesystem:
  allow:
    - {path: /workspace, permissions: [read, write]}
    - {path: /srv/tools, permissions: [read, execute]}
    - {path: /etc, permissions: [read]}
    - {path: /etc/letsencrypt/live, permissions: [read]}
  deny:
    - {path: /workspace/.git, permissions: [write]}
    - {path: /usr/share/doc, permissions: [read]}
    - {path: /srv/tools/old, permissions: [execute]}
process:
  allow:
    - {command: git, helpers: ["/usr/lib/git-core/*", less]}
    - {command: /opt/tool/bin/tool}
    - {command: python3}
  deny:
    - {command: sudo}
`

func TestExplain(t *testing.T) {
	c := compile(t, explained)
	for _, tt := range []struct {
		action          Action
		object, command string
		want            string
		suggest         string
	}{
		{QueryConnect, "api.example.net:443", "", "allow  connect api.example.net:443  rule: p.yaml:4  (https: the TLS handshake must name api.example.net)", ""},
		{QueryConnect, "API.Example.net.:443", "", "allow  connect api.example.net:443  rule: p.yaml:4  (https: the TLS handshake must name api.example.net)", ""},
		{QueryConnect, "plain.example.net:80", "", "allow  connect plain.example.net:80  rule: p.yaml:8  (http: the Host of each request must be plain.example.net)", ""},
		{QueryConnect, "api.example.net:80", "", "deny   connect api.example.net:80  rule: default  (no rule allows port 80; api.example.net is allowed on 443 at p.yaml:4)",
			"network:\n  allow:\n    - domain: api.example.net\n      ports: [80]\n      protocol: http\n"},
		{QueryConnect, "other.net:443", "", "deny   connect other.net:443  rule: default  (no rule is about other.net)",
			"network:\n  allow:\n    - domain: other.net\n      ports: [443]\n      protocol: https\n"},
		{QueryConnect, "a.b.example.org:443", "", "deny   connect a.b.example.org:443  rule: default  (*.example.org at p.yaml:5 covers exactly one label more; **.example.org would cover this name)",
			"network:\n  allow:\n    - domain: a.b.example.org\n      ports: [443]\n      protocol: https\n"},
		{QueryConnect, "example.org:443", "", "deny   connect example.org:443  rule: default  (*.example.org at p.yaml:5 covers names below example.org, not example.org itself)",
			"network:\n  allow:\n    - domain: example.org\n      ports: [443]\n      protocol: https\n"},
		{QueryConnect, "bad.example.org:443", "", "deny   connect bad.example.org:443  rule: p.yaml:12  (a deny rule, which beats every allow: only a change of that rule helps)", ""},
		{QueryConnect, "ask.example.net:443", "", "ask    connect ask.example.net:443  rule: p.yaml:10  (held until a person answers, denied after 1m)", ""},
		{QueryConnect, "db.example.net:5432", "psql", "allow  connect db.example.net:5432  rule: p.yaml:6  (tcp: bytes pass as they come; for psql only; for 1h after the start)", ""},
		{QueryConnect, "db.example.net:5432", "/usr/bin/psql", "allow  connect db.example.net:5432  rule: p.yaml:6  (tcp: bytes pass as they come; for psql only; for 1h after the start)", ""},
		{QueryConnect, "db.example.net:5432", "/tmp/psql", "deny   connect db.example.net:5432  rule: default  (the rule at p.yaml:6 is for psql only; /tmp/psql is none of them)",
			"network:\n  allow:\n    - domain: db.example.net\n      ports: [5432]\n      protocol: tcp\n"},
		{QueryConnect, "db.example.net:5432", "", "deny   connect db.example.net:5432  rule: default  (the rule at p.yaml:6 is for psql only; name the program that connects with --by)",
			"network:\n  allow:\n    - domain: db.example.net\n      ports: [5432]\n      protocol: tcp\n"},
		{QueryConnect, "10.1.2.3:80", "", "allow  connect 10.1.2.3:80  rule: p.yaml:7  (tcp: bytes pass as they come)", ""},
		{QueryConnect, "[::ffff:10.1.2.3]:80", "", "allow  connect 10.1.2.3:80  rule: p.yaml:7  (tcp: bytes pass as they come)", ""},
		{QueryConnect, "[2001:db8::1]:80", "", "deny   connect [2001:db8::1]:80  rule: default  (no cidr rule covers this address, and names don't count for an address)",
			"network:\n  allow:\n    - cidr: \"2001:db8::1/128\"\n      ports: [80]\n      protocol: tcp\n"},
		{QueryConnect, "/run/db.sock", "", "allow  connect /run/db.sock  rule: p.yaml:13  (a socket of the host, connectable at the same path)", ""},
		{QueryConnect, "/run/other.sock", "", "deny   connect /run/other.sock  rule: default  (no entry of network.unix names this socket of the host; sockets made inside are not judged)",
			"network:\n  unix: [/run/other.sock]\n"},

		{QueryRead, "/workspace/a.txt", "", "allow  read /workspace/a.txt  rule: p.yaml:16  (allowed at and below /workspace)", ""},
		{QueryWrite, "/workspace/.git/config", "", "deny   write /workspace/.git/config  rule: p.yaml:21  (a deny rule, which beats every allow: only a change of that rule helps)", ""},
		{QueryRead, "/workspace/.git/config", "", "allow  read /workspace/.git/config  rule: p.yaml:16  (allowed at and below /workspace)", ""},
		{QueryWrite, "/srv/tools/x", "", "deny   write /srv/tools/x  rule: default  (/srv/tools at p.yaml:17 allows read, execute only)",
			"filesystem:\n  allow:\n    - path: /srv/tools/x\n      permissions: [read, write]\n"},
		{QueryRead, "/srv/x", "", "deny   read /srv/x  rule: default  (no rule covers this path)",
			"filesystem:\n  allow:\n    - path: /srv/x\n      permissions: [read]\n"},
		{QueryRead, "/usr/bin/../lib/x", "", "allow  read /usr/lib/x  rule: builtin  (the system can be read)", ""},
		{QueryWrite, "/usr/lib/x", "", "deny   write /usr/lib/x  rule: default  (the baseline can be read only, and no rule allows to write here)",
			"filesystem:\n  allow:\n    - path: /usr/lib/x\n      permissions: [read, write]\n"},
		{QueryRead, "/usr/share/doc/x", "", "deny   read /usr/share/doc/x  rule: p.yaml:22  (a deny rule, which beats every allow: only a change of that rule helps)", ""},
		{QueryRead, "/usrlocal", "", "deny   read /usrlocal  rule: default  (no rule covers this path)",
			"filesystem:\n  allow:\n    - path: /usrlocal\n      permissions: [read]\n"},
		{QueryRead, "/etc/hosts", "", "allow  read /etc/hosts  rule: p.yaml:18  (allowed at and below /etc)", ""},
		{QueryRead, "/etc/shadow", "", "deny   read /etc/shadow  rule: builtin  (left out: password hashes; only a rule for /etc/shadow itself shows it)", ""},
		{QueryRead, "/etc/ssh/ssh_host_rsa_key", "", "deny   read /etc/ssh/ssh_host_rsa_key  rule: builtin  (left out: private keys of the host; only a rule for /etc/ssh/ssh_host_rsa_key itself shows it)", ""},
		{QueryRead, "/etc/ssl/private/x.key", "", "deny   read /etc/ssl/private/x.key  rule: builtin  (left out: private keys of certificates; only a rule for /etc/ssl/private itself shows it)", ""},
		{QueryRead, "/etc/letsencrypt/live/x.pem", "", "allow  read /etc/letsencrypt/live/x.pem  rule: p.yaml:19  (allowed at and below /etc/letsencrypt/live)", ""},
		{QueryRead, "/home/eve/.ssh/id_rsa", "", "deny   read /home/eve/.ssh/id_rsa  rule: default  (no rule covers this path; no rule is suggested for what may be a secret: keys, passwords or the history of a person)", ""},
		{QueryWrite, "/home/agent/.cache/x", "", "allow  write /home/agent/.cache/x  rule: builtin  (private to the sandbox and gone with it)", ""},
		{QueryWrite, "/dev/null", "", "allow  write /dev/null  rule: builtin  (a device that every sandbox has)", ""},
		{QueryRead, "/dev/sda", "", "deny   read /dev/sda  rule: default  (no rule covers this path)",
			"filesystem:\n  allow:\n    - path: /dev/sda\n      permissions: [read]\n"},

		{QueryExec, "git", "", "allow  exec git  rule: p.yaml:26  (the program found as git on the host, whatever name it is started by)", ""},
		{QueryExec, "/usr/bin/git", "", "allow  exec /usr/bin/git  rule: p.yaml:26  (the program found as git on the host, whatever name it is started by)", ""},
		{QueryExec, "/tmp/git", "", "deny   exec /tmp/git  rule: default  (no rule allows this program)", ""},
		{QueryExec, "tool", "", "deny   exec tool  rule: default  (no rule allows this program)", "process:\n  allow:\n    - command: tool\n"},
		{QueryExec, "/usr/lib/git-core/git-remote-https", "", "allow  exec /usr/lib/git-core/git-remote-https  rule: p.yaml:26  (a helper of git; at level static anything inside may start it)", ""},
		{QueryExec, "/usr/lib/git-core/x/y", "", "deny   exec /usr/lib/git-core/x/y  rule: default  (no rule allows this program)", "process:\n  allow:\n    - command: /usr/lib/git-core/x/y\n"},
		{QueryExec, "less", "", "allow  exec less  rule: p.yaml:26  (a helper of git; at level static anything inside may start it)", ""},
		{QueryExec, "/usr/bin/sudo", "", "deny   exec /usr/bin/sudo  rule: p.yaml:30  (a deny rule, which beats every allow: only a change of that rule helps)", ""},
		{QueryExec, "/srv/tools/x", "", "allow  exec /srv/tools/x  rule: p.yaml:17  (programs at and below /srv/tools may be executed)", ""},
		{QueryExec, "/srv/tools/old/x", "", "deny   exec /srv/tools/old/x  rule: p.yaml:23  (a deny rule, which beats every allow: only a change of that rule helps)", ""},
		{QueryExec, "env", "", "allow  exec env  rule: builtin  (the launcher in the first line of scripts; it can start only what is allowed)", ""},
		{QueryExec, "/usr/bin/curl", "", "deny   exec /usr/bin/curl  rule: default  (no rule allows this program)", "process:\n  allow:\n    - command: curl\n"},
	} {
		q, err := NewQuery(tt.action, tt.object, tt.command)
		if err != nil {
			t.Errorf("%s %s: %v", tt.action, tt.object, err)
			continue
		}
		a := c.Explain(q)
		if got := a.String(); got != tt.want {
			t.Errorf("got  %s\nwant %s", got, tt.want)
		}
		if a.Suggest != tt.suggest {
			t.Errorf("%s %s: suggests\n%swant\n%s", tt.action, tt.object, a.Suggest, tt.suggest)
		}
	}
}

// TestExplainAt: a rule whose time is over is none, and the answer says so.
func TestExplainAt(t *testing.T) {
	c := compile(t, "version: 1\nnetwork:\n  allow:\n    - {domain: a.org, ports: [443], protocol: https, expires: 1h}\n")
	q, err := NewQuery(QueryConnect, "a.org:443", "")
	if err != nil {
		t.Fatal(err)
	}
	for age, want := range map[time.Duration]string{
		0:                "allow  connect a.org:443  rule: p.yaml:4  (https: the TLS handshake must name a.org; for 1h after the start)",
		40 * time.Minute: "allow  connect a.org:443  rule: p.yaml:4  (https: the TLS handshake must name a.org; for 20m more)",
		time.Hour:        "deny   connect a.org:443  rule: default  (the rule at p.yaml:4 has expired)",
	} {
		if got := c.ExplainAt(q, age).String(); got != want {
			t.Errorf("after %s\ngot  %s\nwant %s", age, got, want)
		}
	}
}

// TestExplainAsked: deny beats ask beats allow, and in each verb the longest path wins.
func TestExplainAsked(t *testing.T) {
	c := compile(t, `hold: 30s
filesystem:
  default: ask
  allow:
    - {path: /workspace, permissions: [read]}
    - {path: /workspace/open, permissions: [read, write]}
  ask:
    - {path: /workspace/open/secret, permissions: [read]}
    - {path: /srv/data, permissions: [read]}
    - {path: /opt/tools, permissions: [execute]}
  deny:
    - {path: /workspace/open/secret/key, permissions: [read, write]}
process:
  allow: [{command: git}, {command: curl}]
  ask: [{command: curl}]
  deny: [{command: sudo}]
`)
	held := "held until a person answers, denied after 30s; needs level full"
	for _, tt := range []struct {
		action       Action
		object, want string
	}{
		{QueryRead, "/workspace/a", "allow  read /workspace/a  rule: p.yaml:5  (allowed at and below /workspace)"},
		{QueryWrite, "/workspace/a", "ask    write /workspace/a  rule: default  (" + held + ")"},
		{QueryWrite, "/workspace/open/a", "allow  write /workspace/open/a  rule: p.yaml:6  (allowed at and below /workspace/open)"},
		{QueryRead, "/workspace/open/secret/x", "ask    read /workspace/open/secret/x  rule: p.yaml:8  (" + held + ")"},
		{QueryWrite, "/workspace/open/secret/x", "allow  write /workspace/open/secret/x  rule: p.yaml:6  (allowed at and below /workspace/open)"},
		{QueryRead, "/workspace/open/secret/key", "deny   read /workspace/open/secret/key  rule: p.yaml:12  (" + beatsAllow + ")"},
		{QueryRead, "/srv/data/x", "ask    read /srv/data/x  rule: p.yaml:9  (" + held + ")"},
		{QueryWrite, "/srv/data/x", "ask    write /srv/data/x  rule: default  (" + held + ")"},
		{QueryRead, "/root/x", "deny   read /root/x  rule: default  (no rule covers this path)"}, // not in the view: nobody can be asked
		{QueryWrite, "/usr/bin/x", "deny   write /usr/bin/x  rule: default  (the baseline can be read only, and no rule allows to write here)"},
		{QueryExec, "git", "allow  exec git  rule: p.yaml:14  (the program found as git on the host, whatever name it is started by)"},
		{QueryExec, "curl", "ask    exec curl  rule: p.yaml:15  (" + held + ")"},
		{QueryExec, "sudo", "deny   exec sudo  rule: p.yaml:16  (" + beatsAllow + ")"},
		{QueryExec, "/opt/tools/x", "ask    exec /opt/tools/x  rule: p.yaml:10  (" + held + ")"},
		{QueryExec, "make", "deny   exec make  rule: default  (no rule allows this program)"},
	} {
		q, err := NewQuery(tt.action, tt.object, "")
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Explain(q).String(); got != tt.want {
			t.Errorf("got  %s\nwant %s", got, tt.want)
		}
	}
	if id, asks := c.AsksAboutFiles(); !asks || c.Rule(id).Pos != "p.yaml:15" {
		t.Errorf("what asks is %v, %v", c.Rule(id), asks)
	}
	if c := compile(t, "process: {default: ask}\n"); c.Explain(Query{Action: QueryExec, Path: "make"}).Verdict != Ask || len(c.Warnings()) > 0 {
		t.Errorf("a program that no rule names is not asked about: %q", c.Warnings())
	}
	if _, asks := compile(t, explained).AsksAboutFiles(); asks {
		t.Error("a policy asks about files without saying so")
	}
}

func TestExplainAskByDefault(t *testing.T) {
	c := compile(t, "hold: 1h30m\nnetwork: {default: ask}\nfilesystem: {baseline: none}\n")
	q, err := NewQuery(QueryConnect, "example.org:443", "")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := c.Explain(q).String(), "ask    connect example.org:443  rule: default  (no rule is about example.org; held until a person answers, denied after 1h30m)"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for _, p := range []string{"/usr/lib/x", "/dev/null"} {
		if a := c.Explain(Query{Action: QueryRead, Path: p}); a.Verdict != Deny {
			t.Errorf("without a baseline: %v", a)
		}
	}
	if a := c.Explain(Query{Action: QueryExec, Path: "env"}); a.Verdict != Deny {
		t.Errorf("where nothing may run: %v", a)
	}
}

func TestNewQueryRefuses(t *testing.T) {
	for _, tt := range []struct {
		action Action
		object string
		want   string
	}{
		{QueryRead, "", `policy: expected an absolute path as it is inside the sandbox, found ""`},
		{QueryWrite, "a/b", `policy: expected an absolute path as it is inside the sandbox, found "a/b"`},
		{QueryExec, "", `policy: expected a command's name or absolute path, found ""`},
		{QueryExec, "bin/git", `policy: expected a command's name or absolute path, found "bin/git"`},
		{QueryConnect, "api.example.net", `policy: expected host:port, found "api.example.net"; for example api.example.org:443 or [2001:db8::1]:443`},
		{QueryConnect, "https://api.example.net/", `policy: expected host:port, found "https://api.example.net/"; for example api.example.org:443 or [2001:db8::1]:443`},
		{QueryConnect, "https://api.example.net:443", `policy: expected host:port, found "https://api.example.net:443"; for example api.example.org:443 or [2001:db8::1]:443`},
		{QueryConnect, "api.example.net:https", `policy: the port of "api.example.net:https" is not a number from 1 to 65535`},
		{QueryConnect, "api.example.net:0", `policy: the port of "api.example.net:0" is not a number from 1 to 65535`},
		{QueryConnect, "*.org:443", `policy: the name "*.org" holds the character '*'`},
		{QueryConnect, "127.1:443", `policy: 127.1 is an address, or would be taken for one`},
	} {
		if _, err := NewQuery(tt.action, tt.object, ""); err == nil || err.Error() != tt.want {
			t.Errorf("%s %q: %v, want %s", tt.action, tt.object, err, tt.want)
		}
	}
}

func TestSuggest(t *testing.T) {
	for _, d := range []Decision{
		{Plane: PlaneNetwork, Action: "connect", Object: "api.example.org:443"},
		{Plane: PlaneNetwork, Action: "connect", Object: "10.1.2.3:5432"},
		{Plane: PlaneNetwork, Action: "connect", Object: "[::ffff:10.1.2.3]:5432"},
		{Plane: PlaneNetwork, Action: "connect", Object: "[2001:db8::1%eth0]:80"},
		{Plane: PlaneNetwork, Action: "connect", Object: "/run/my db.sock"},
		{Plane: PlaneDNS, Action: "resolve", Object: "Example.org."},
		{Plane: PlaneExec, Action: "exec", Object: "/usr/bin/true"},
		{Plane: PlaneExec, Action: "exec", Object: "/workspace/my tool"},
		{Plane: PlaneFile, Action: "open", Object: "/srv/a \"b\"\\c"},
		{Plane: PlaneFile, Action: "rename", Object: "/srv/no"},
		{Plane: PlaneFile, Action: "exec", Object: "/srv/tool"},
	} {
		s := Suggest(d)
		if s == "" {
			t.Errorf("%+v: no suggestion", d)
			continue
		}
		c := compile(t, s) // what is suggested is a policy, and it says what was asked for
		switch d.Plane {
		case PlaneExec:
			if c.Explain(Query{Action: QueryExec, Path: d.Object}).Verdict != Allow {
				t.Errorf("%+v is not allowed by\n%s", d, s)
			}
		case PlaneFile:
			if access, _, _ := c.Files.Access(d.Object); access&Read == 0 {
				t.Errorf("%+v is not allowed by\n%s", d, s)
			}
		case PlaneNetwork:
			if d.Object[0] == '/' {
				if len(c.Network.Unix) != 1 || c.Network.Unix[0].Path != d.Object {
					t.Errorf("%+v is not allowed by\n%s", d, s)
				}
				continue
			}
			q, err := NewQuery(QueryConnect, d.Object, "")
			if err != nil || c.Explain(q).Verdict != Allow {
				t.Errorf("%+v is not allowed by\n%s%v", d, s, err)
			}
		}
		d.Verdict = Allow
		if Suggest(d) != "" {
			t.Errorf("a suggestion for what is allowed: %+v", d)
		}
	}
}

func TestSuggestNothing(t *testing.T) {
	for _, d := range []Decision{
		{Plane: PlaneNetwork, Action: "connect", Object: "a.example.org:443", Rule: "p.yaml:3"},
		{Plane: PlaneNetwork, Action: "connect", Object: "a.example.org:443", Rule: "builtin"},
		{Plane: PlaneNetwork, Action: "bind", Object: "10.0.0.1:80"},
		{Plane: PlaneNetwork, Action: "sendto", Object: "10.0.0.1:80"},
		{Plane: PlaneNetwork, Action: "connect", Object: "a.example.org:0"},
		{Plane: PlaneNetwork, Action: "connect", Object: "a\n.example.org:443"},
		{Plane: PlaneNetwork, Action: "connect", Object: "/run/../x"},
		{Plane: PlaneNetwork, Action: "connect", Object: ""},
		{Plane: PlaneDNS, Action: "resolve", Object: "\x1b[2J.example.org"},
		{Plane: PlaneDNS, Action: "resolve", Object: "_http._tcp.deb.example.org"}, // a service, not a host
		{Plane: PlaneExec, Action: "exec", Object: ""},
		{Plane: PlaneExec, Action: "exec", Object: "bin/git"},
		{Plane: PlaneExec, Action: "exec", Object: "/lib64/ld-linux-x86-64.so.2"},
		{Plane: PlaneExec, Action: "exec", Object: "/proc/131/fd/3"},
		{Plane: PlaneExec, Action: "exec", Object: "/tmp/curl"},
		{Plane: PlaneNetwork, Action: "connect", Object: "169.254.169.254:80"},
		{Plane: PlaneNetwork, Action: "connect", Object: "[fd00:ec2::254]:80"},
		{Plane: PlaneNetwork, Action: "connect", Object: "100.100.100.200:80"},
		{Plane: PlaneExec, Action: "exec", Object: "/tmp/\xff"},
		{Plane: PlaneExec, Action: "exec", Object: "/tmp/a\nnetwork: {default: ask}"},
		{Plane: PlaneFile, Action: "open", Object: "a"},
		{Plane: PlaneFile, Action: "open", Object: "/a/../b"},
		{Plane: PlaneFile, Action: "open", Object: "/a*"},
		{Plane: PlaneFile, Action: "open", Object: "/" + strings.Repeat("a/", 3000) + "b"},
		{Plane: PlaneFile, Action: "open", Object: "/a\u202eb"},
		{Plane: PlaneSystem, Action: "start", Object: "/bin/sh"},
		{Plane: PlaneDevice, Action: "open", Object: "/dev/sda"},
	} {
		if s := Suggest(d); s != "" {
			t.Errorf("%+v: suggests\n%s", d, s)
		}
	}
}

// TestSuggestAlways checks that what a person approves is spoken, and by whom, as the rule that asked says.
func TestSuggestAlways(t *testing.T) {
	c := compile(t, `network:
  ask:
    - {domain: "**.example.org", ports: [8000], protocol: http, commands: [node, /opt/x]}
    - {domain: "*.example.net", ports: [8000], protocol: tls}
process: {allow: [{command: node}]}
`)
	for _, tt := range []struct{ object, rule, want string }{
		{"api.example.org:8000", "p.yaml:3", "network:\n  allow:\n    - domain: api.example.org\n      ports: [8000]\n      protocol: http\n      commands: [node, /opt/x]\n"},
		{"api.example.net:8000", "p.yaml:4", "network:\n  allow:\n    - domain: api.example.net\n      ports: [8000]\n      protocol: tls\n"},
		{"api.example.com:443", "default", "network:\n  allow:\n    - domain: api.example.com\n      ports: [443]\n      protocol: https\n"},
	} {
		d := Decision{Plane: PlaneNetwork, Action: "connect", Object: tt.object, Verdict: Ask, Rule: tt.rule}
		if got := c.SuggestAlways(d); got != tt.want {
			t.Errorf("%s: suggests\n%swant\n%s", tt.object, got, tt.want)
		}
	}
}

func TestReveals(t *testing.T) {
	for p, secret := range map[string]bool{
		"/etc/shadow": true, "/etc/ssl/private/x": true, "/home/eve/.ssh/known_hosts": true, "/srv/app/.env": true, "/srv/app/.env.local": true, "/run/docker.sock": true, "/srv/tls/a.pem": true,
		"/root/.config/gcloud/x": true, "/root/.config/app": false, "/srv/app/main.py": false, "/": false, "/srv/.envrc": false,
	} {
		if got := Reveals(p); (got != "") != secret {
			t.Errorf("%s: %q", p, got)
		}
	}
}

func TestSecretsAreWellFormed(t *testing.T) {
	for i, s := range BaselineSecrets {
		dir, _, _ := strings.Cut(s.Path, "*")
		if !strings.HasPrefix(s.Path, "/etc/") || cleanPath(s.Path) != nil || strings.HasSuffix(dir, "/") || s.Reason == "" {
			t.Errorf("%+v", s)
		}
		if i > 0 && BaselineSecrets[i-1].Path >= s.Path {
			t.Errorf("%s is not in order", s.Path)
		}
	}
	for _, p := range []string{"/etc/shadow", "/etc/shadow-", "/etc/gshadow-", "/etc/sudoers.d/x", "/etc/ssh/ssh_host_ed25519_key", "/etc/wireguard/wg0.conf", "/etc/nemoclaw/policy.yaml"} {
		if _, _, found := SecretAt(p); !found {
			t.Errorf("%s is not a secret", p)
		}
	}
	for _, p := range []string{"/etc", "/etc/passwd", "/etc/ssh/ssh_config", "/etc/ssl/certs/ca.pem", "/etc/machine-id", "/usr/share/x", "/"} {
		if _, at, found := SecretAt(p); found {
			t.Errorf("%s is a secret at %s", p, at)
		}
	}
}
