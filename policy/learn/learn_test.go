package learn

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nemoclaw/nemoclaw/policy"
)

var update = flag.Bool("update", false, "write the golden file anew")

const base = `name: box
network:
  default: deny
  allow:
    - {domain: "*.pkg.example.com", ports: [443], protocol: https, expires: 2h}
    - {domain: unused.example.com, ports: [443], protocol: https}
    - {domain: db.example.com, ports: [5432, 5433], protocol: tcp, commands: [psql]}
    - {cidr: 10.1.0.0/16, ports: [5432, 80], protocol: tcp}
  ask:
    - {domain: ask.example.com, ports: [443], protocol: tls, ech: allow}
  deny:
    - {domain: bad.example.com, ports: [443]}
  unix: [/run/db.sock]
filesystem:
  allow:
    - {path: /workspace, permissions: [read, write, execute]}
    - {path: /opt/tools, permissions: [read, execute]}
  deny:
    - {path: /usr/share/doc, permissions: [read]}
process:
  allow:
    - command: node
    - command: npm
    - command: sh
    - {command: git, helpers: [less, ssh]}
    - command: unused
  deny:
    - command: sudo
  map: listed
  limits: {pids: 100, cpus: 0.5}
`

var programs = []Program{
	{Command: "node", Path: "/usr/bin/node"}, {Command: "npm", Path: "/usr/lib/npm/npm-cli.js", Script: true},
	{Command: "sh", Path: "/usr/bin/dash"}, {Command: "git", Path: "/usr/bin/git"},
	{Command: "git", Path: "/usr/bin/less", Helper: true}, {Command: "git", Path: "/usr/lib/git-core/git-remote-http", Helper: true},
	{Command: "unused", Path: "/usr/bin/unused"},
}

// policyOf compiles YAML, with the places of its rules as "p.yaml:LINE".
func policyOf(t testing.TB, src string) *policy.Compiled {
	t.Helper()
	p, err := policy.Parse("p.yaml", []byte(src))
	if err != nil {
		t.Fatal(err)
	}
	c, err := policy.Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// with gives programs their rules: those of the first rule that names the command.
func with(c *policy.Compiled, list []Program) []Program {
	out := slices.Clone(list)
	for i := range out {
		for _, x := range c.Exec.Allow {
			if x.Name == out[i].Command {
				out[i].Rule = x.ID
			}
		}
	}
	return out
}

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// record makes a decision: "plane action object exe rule verdict", the rest being the command line.
func record(words string) *policy.Decision {
	f := strings.SplitN(words, " ", 7)
	d := &policy.Decision{
		Time: start, Plane: policy.Plane(f[0]), Action: f[1], Object: f[2], Rule: f[4],
		Subject: policy.Subject{PID: 7, Exe: strings.TrimPrefix(f[3], "-")}, Verdict: map[string]policy.Verdict{"allow": policy.Allow, "deny": policy.Deny}[f[5]],
	}
	if len(f) > 6 {
		d.Subject.Args = f[6]
	}
	return d
}

// learnt runs records through a recorder.
func learnt(t testing.TB, src string, o Options, records ...string) (*policy.Compiled, *Result) {
	t.Helper()
	c := policyOf(t, src)
	r := New(c)
	for _, s := range records {
		r.Add(record(s))
	}
	return result(t, r, c, o)
}

func result(t testing.TB, r *Recorder, c *policy.Compiled, o Options) (*policy.Compiled, *Result) {
	t.Helper()
	if o.Programs == nil {
		o.Programs = with(c, programs)
	}
	res, err := r.Policy(o)
	if err != nil {
		t.Fatal(err)
	}
	return policyOf(t, string(res.YAML)), res
}

// TestGolden: everything that a run can show, as one file.
func TestGolden(t *testing.T) {
	c := policyOf(t, base)
	r := New(c)
	for _, s := range []string{
		"network connect a.pkg.example.com:443 /usr/bin/node p.yaml:5 allow npm install",
		"network connect a.pkg.example.com:443 /usr/bin/node p.yaml:5 allow npm install",
		"network connect b.pkg.example.com:443 /usr/bin/node p.yaml:5 allow npm install",
		"network connect db.example.com:5432 - p.yaml:7 allow psql",
		"network connect ask.example.com:443 /usr/bin/node p.yaml:10 allow node app.js",
		"network connect new.example.net:8443 /usr/bin/node default deny node app.js",
		"network connect b.pkg.example.com:443 /usr/bin/git default deny git fetch",
		"network connect bad.example.com:443 /usr/bin/node p.yaml:12 deny node app.js",
		"network connect 192.0.2.7:99 /usr/bin/node default deny node app.js",
		"network connect 169.254.169.254:80 /usr/bin/node default deny node app.js",
		"network bind 0.0.0.0:80 /usr/bin/node builtin deny node app.js",
		"dns resolve _srv._tcp.example.com /usr/bin/node default deny node app.js",
		"dns resolve new.example.net /usr/bin/node default deny node app.js",
		"exec exec /usr/bin/dash /usr/bin/dash p.yaml:24 allow sh -c npm install",
		"exec exec /usr/bin/node /usr/bin/node p.yaml:22 allow node /usr/bin/npm install",
		"exec exec /usr/bin/git /usr/bin/git p.yaml:25 allow git fetch",
		"exec exec /usr/lib/git-core/git-remote-http /usr/lib/git-core/git-remote-http p.yaml:25 allow git-remote-http",
		"exec exec /usr/bin/env /usr/bin/env default allow env node",
		"exec exec /workspace/built /workspace/built p.yaml:16 allow ./built",
		"exec exec /usr/bin/id - default deny id -u",
		"file open /srv/data/a /usr/bin/node default deny node app.js",
		"file write /srv/data/b /usr/bin/node default deny node app.js",
		"file open /root/.ssh/id_rsa /usr/bin/node default deny node app.js",
		"file open /usr/share/doc/x /usr/bin/node p.yaml:19 deny node app.js",
		"device open c:1:9 /usr/bin/node builtin deny node app.js",
	} {
		d := record(s)
		if d.Object == "/usr/bin/env" {
			d.Called = "/usr/bin/npm"
		}
		if d.Action == "bind" {
			d.Reason = "a sandbox's sockets are on loopback"
		}
		r.Add(d)
	}
	out, res := result(t, r, c, Options{Title: []string{"Learnt by a test"}, Unseen: []string{"what a test can't see"}, Lost: 3, Finished: true})
	const file = "testdata/learnt.golden"
	if *update {
		if err := os.WriteFile(file, res.YAML, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(res.YAML)); diff != "" {
		t.Error(diff)
	}
	if res.Hosts != 8 || res.Programs != 5 || res.Paths != 4 || res.Refused != 6 || res.Withheld != 1 {
		t.Errorf("%d hosts, %d programs, %d paths, %d refused, %d withheld", res.Hosts, res.Programs, res.Paths, res.Refused, res.Withheld)
	}
	verdicts(t, out,
		"+connect a.pkg.example.com:443 node", "-connect c.pkg.example.com:443 node", "-connect a.pkg.example.com:443 curl", "+connect b.pkg.example.com:443 git",
		"-connect unused.example.com:443 node", "+connect db.example.com:5432 psql", "-connect db.example.com:5433 psql", "+connect ask.example.com:443 node",
		"+connect new.example.net:8443 node", "-connect new.example.net:443 node", "-connect bad.example.com:443 node", "-connect 169.254.169.254:80 node",
		"+connect 10.1.2.3:5432", "-connect 10.1.2.3:80", "+connect /run/db.sock",
		"+read /srv/data/a", "-write /srv/data/a", "+write /srv/data/b", "-read /root/.ssh/id_rsa", "-read /usr/share/doc/x",
		"+exec node", "+exec npm", "+exec id", "-exec unused", "-exec sudo", "-exec less", "+exec /workspace/built", "-exec /opt/tools/x", "+read /opt/tools/x")
}

func verdicts(t *testing.T, c *policy.Compiled, list ...string) {
	t.Helper()
	for _, v := range list {
		f := append(strings.Fields(v[1:]), "")
		action := map[string]policy.Action{"read": policy.QueryRead, "write": policy.QueryWrite, "exec": policy.QueryExec, "connect": policy.QueryConnect}[f[0]]
		q, err := policy.NewQuery(action, f[1], f[2])
		if err != nil {
			t.Fatal(err)
		}
		if a := c.Explain(q); (a.Verdict == policy.Allow) != (v[0] == '+') || a.Verdict == policy.Ask {
			t.Errorf("want %s, got %s", v, a)
		}
	}
}

// TestLearnsTheSameAgain: what was learnt, used in the same way, is learnt again with the same rules.
func TestLearnsTheSameAgain(t *testing.T) {
	const src = "network:\n  allow:\n    - {domain: \"**.example.com\", ports: [443, 80], protocol: https}\nprocess:\n  allow: [{command: node}, {command: sh}]\n"
	first, _ := learnt(t, src, Options{Finished: true}, "network connect a.example.com:443 /usr/bin/node p.yaml:3 allow x", "exec exec /usr/bin/node /usr/bin/node p.yaml:5 allow node")
	again := New(first)
	again.Add(record("network connect a.example.com:443 /usr/bin/node " + first.Rules[1].Pos + " allow x"))
	again.Add(record("exec exec /usr/bin/node /usr/bin/node " + first.Rule(first.Exec.Allow[0].ID).Pos + " allow node"))
	second, _ := result(t, again, first, Options{Finished: true})
	if first.Revision != second.Revision {
		t.Errorf("the second time it is %v", second.Rules)
	}
}

func TestSubdomains(t *testing.T) {
	connect := func(names ...string) (list []string) {
		for _, n := range names {
			list = append(list, "network connect "+n+":443 /usr/bin/node default deny node")
		}
		return list
	}
	for _, tt := range []struct {
		records []string
		want    string // the targets
	}{
		{connect("a.x.example.com", "b.x.example.com", "c.example.com"), "c.example.com *.x.example.com"},
		{connect("a.x.example.com", "a.y.example.com"), "a.x.example.com a.y.example.com"},
		{connect("a.com", "b.com"), "a.com b.com"},
		{connect("a.co.uk", "b.co.uk"), "a.co.uk b.co.uk"},
		{connect("a.github.io", "b.github.io"), "a.github.io b.github.io"},
		{connect("a.local", "b.local"), "a.local b.local"},
		{connect("x", "y"), "x y"},
		{append(connect("a.x.example.com"), "network connect b.x.example.com:443 /usr/bin/git default deny git"), "a.x.example.com b.x.example.com"},
		{append(connect("a.x.example.com"), "network connect b.x.example.com:80 /usr/bin/node default deny node"), "a.x.example.com b.x.example.com"},
		{connect("192.0.2.1", "192.0.2.2"), "192.0.2.1/32 192.0.2.2/32"},
	} {
		c, res := learnt(t, "process:\n  allow: [{command: node}, {command: git}]\n", Options{Finished: true, Subdomains: true}, tt.records...)
		var got []string
		for _, r := range c.Network.Rules {
			if r.Name == "" {
				got = append(got, r.Prefix.String())
			} else {
				got = append(got, r.Name)
			}
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%v becomes %v, want %s\n%s", tt.records, got, tt.want, res.YAML)
		}
	}
	if c, _ := learnt(t, "process: {}\n", Options{Finished: true}, connect("a.x.example.com", "b.x.example.com")...); len(c.Network.Rules) != 2 {
		t.Error("generalised without being told")
	}
}

// TestSubdomainsLeaveNoesAlone: a wildcard does not take in a name that a person denied, nor one that the policy asks about.
func TestSubdomainsLeaveNoesAlone(t *testing.T) {
	const src = "network:\n  allow:\n    - {domain: \"**.example.com\", ports: [443], protocol: https}\n" +
		"  ask:\n    - {domain: gist.x.example.com, ports: [443], protocol: https}\n    - {domain: c.y.example.com, ports: [443], protocol: https}\n" +
		"process:\n  allow: [{command: node}]\n"
	var records []string
	for _, name := range []string{"a.x", "b.x", "a.y", "b.y", "a.z", "b.z"} {
		records = append(records, "network connect "+name+".example.com:443 /usr/bin/node p.yaml:3 allow node")
	}
	records = append(records, "network connect c.y.example.com:443 /usr/bin/node p.yaml:6 allow node",
		"system answer no.z.example.com:443 /usr/bin/node default deny", "network connect no.z.example.com:443 /usr/bin/node default deny node")
	c, _ := learnt(t, src, Options{Finished: true, Subdomains: true}, records...)
	verdicts(t, c, "+connect a.x.example.com:443 node", "-connect gist.x.example.com:443 node", "+connect a.z.example.com:443 node", "-connect no.z.example.com:443 node",
		"+connect c.y.example.com:443 node", "+connect d.y.example.com:443 node")
}

func TestDirs(t *testing.T) {
	open := func(paths ...string) (list []string) {
		for _, p := range paths {
			list = append(list, "file open "+p+" /usr/bin/node default deny node")
		}
		return list
	}
	for _, tt := range []struct{ paths, want string }{
		{"/srv/a/x /srv/a/y /srv/b/z", "/srv/a /srv/b/z"},
		{"/srv/x /srv/y", "/srv/x /srv/y"},                                // a directory of the root's
		{"/home/me/x /home/me/y", "/home/me/x /home/me/y"},                // a home
		{"/etc/ssl/x /etc/ssl/y", "/etc/ssl/x /etc/ssl/y"},                // holds private keys
		{"/root/x /root/y", "/root/x /root/y"},                            // a home
		{"/srv/a/x /srv/a/y /srv/a/.env", "/srv/a/x /srv/a/y"},            // a secret was seen there
		{"/srv/a/.aws/x /srv/a/.aws/y", ""},                               // secrets themselves
		{"/srv/a/x /srv/a/x", "/srv/a/x"},                                 // one file, twice
		{"/srv/a/b/x /srv/a/b/y /srv/a/z", "/srv/a/b /srv/a/z"},           // not upwards
		{"/srv/c/tls.key /srv/c/a.txt /srv/c/b", "/srv/c/a.txt /srv/c/b"}, // a key beside them
	} {
		c, res := learnt(t, "process: {}\n", Options{Finished: true, Dirs: true}, open(strings.Fields(tt.paths)...)...)
		var got []string
		for _, r := range c.Files.Rules {
			got = append(got, r.Path)
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s becomes %v, want %s\n%s", tt.paths, got, tt.want, res.YAML)
		}
	}
}

// TestPersons: what a person approved is a rule, what was denied is none, what nobody answered is needed.
func TestPersons(t *testing.T) {
	const src = "network:\n  default: ask\nprocess:\n  allow: [{command: node}]\n"
	c, res := learnt(t, src, Options{Finished: true},
		"system answer no.example.com:443 /usr/bin/node default deny",
		"network connect no.example.com:443 /usr/bin/node default deny node",
		"system answer yes.example.com:443 /usr/bin/node default allow",
		"network connect yes.example.com:443 /usr/bin/node default allow node",
		"network connect 192.0.2.9:443 /usr/bin/node default allow node",
		"network connect all.example.com:443 /workspace/tool default allow tool",
		"network connect nobody.example.com:443 /usr/bin/node default deny node")
	verdicts(t, c, "-connect no.example.com:443 node", "+connect yes.example.com:443 node", "-connect yes.example.com:443 curl", "+connect nobody.example.com:443 node", "+connect 192.0.2.9:443 node",
		"+connect all.example.com:443 node")
	if strings.Count(string(res.YAML), "# for every program, since what connected has no name in process.allow") != 1 {
		t.Errorf("that a rule is for everybody is not said once:\n%s", res.YAML)
	}
	if c.Network.Default != policy.Deny || res.Refused != 1 || !strings.Contains(string(res.YAML), "a person denied it") || !strings.Contains(string(res.YAML), "(approved by a person)") {
		t.Errorf("%s", res.YAML)
	}
}

// TestTwoWaysToSpeak: two programs that the policy let speak differently to one name keep both rules, as the policy has them.
func TestTwoWaysToSpeak(t *testing.T) {
	const src = "network:\n  allow:\n    - {domain: a.example.com, ports: [443], protocol: tcp, commands: [node]}\n    - {domain: \"*.example.com\", ports: [443], protocol: https}\n" +
		"process:\n  allow: [{command: node}, {command: git}]\n"
	c, res := learnt(t, src, Options{Finished: true},
		"network connect a.example.com:443 /usr/bin/node p.yaml:3 allow node",
		"network connect a.example.com:443 /usr/bin/git p.yaml:4 allow git")
	if len(c.Network.Rules) != 2 || c.Network.Rules[0].Protocol == c.Network.Rules[1].Protocol {
		t.Errorf("%+v\n%s", c.Network.Rules, res.YAML)
	}
}

// TestFailedCommand: of a run that did not get to its end nothing is taken away, so that the next round has it.
func TestFailedCommand(t *testing.T) {
	c, res := learnt(t, base, Options{},
		"network connect a.pkg.example.com:443 /usr/bin/node p.yaml:5 allow npm install",
		"network connect ask.example.com:443 /usr/bin/node p.yaml:10 allow node",
		"network connect new.example.net:443 /usr/bin/node default deny node",
		"exec exec /usr/bin/node /usr/bin/node p.yaml:22 allow node",
		"exec exec /usr/bin/less /usr/bin/less p.yaml:25 allow less")
	verdicts(t, c, "+connect a.pkg.example.com:443 git", "+connect b.pkg.example.com:443 git", "+connect unused.example.com:443", "+connect db.example.com:5433 psql",
		"+connect new.example.net:443 node", "-connect new.example.net:443 git", "-connect bad.example.com:443", "+connect 10.1.2.3:80",
		"+exec unused", "+exec less", "+exec /opt/tools/x", "+exec /workspace/x", "-exec sudo", "-exec id")
	q, err := policy.NewQuery(policy.QueryConnect, "ask.example.com:443", "node")
	if a := c.Explain(q); err != nil || a.Verdict != policy.Ask {
		t.Errorf("%s, %v", a, err)
	}
	if res.Refused != 1 || !strings.Contains(string(res.YAML), "# kept from p.yaml:5\n    # 1 connection by node") {
		t.Errorf("%s", res.YAML)
	}
	// With a person to ask, the next round asks on.
	if c, _ := learnt(t, "network: {default: ask}\nprocess: {}\n", Options{}); c.Network.Default != policy.Ask {
		t.Error("the default is not kept")
	}
}

// TestHostileEvidence: nothing that a program says becomes YAML.
func TestHostileEvidence(t *testing.T) {
	const rule = "\n  allow:\n    - {domain: evil.example.com, ports: [443], protocol: tcp}\n"
	for _, s := range []string{
		rule, "\r" + rule, "\u2028" + rule, "\u2029" + rule, "\u0085" + rule, "\x00" + rule, "\x1b[2J\x1b]0;x\x07" + rule, "\xff\xfe" + rule, "\\n" + rule,
		"# " + rule, "'" + rule, "\"" + rule, "]}" + rule, "\u202e" + rule, "\ufeff" + rule, strings.Repeat("x", 500) + rule, strings.Repeat("\n", 300) + rule,
	} {
		c := policyOf(t, "process: {}\n")
		r := New(c)
		for _, plane := range []policy.Plane{policy.PlaneNetwork, policy.PlaneDNS, policy.PlaneExec, policy.PlaneFile, policy.PlaneDevice} {
			for _, object := range []string{"a.example.com:443", "a" + s + ":443", "/x" + s, s} {
				d := &policy.Decision{Time: start, Plane: plane, Action: "connect", Object: object, Rule: "default", Reason: s, Called: s,
					Subject: policy.Subject{Exe: "/bin/" + s, Args: s}}
				r.Add(d)
			}
		}
		out, res := result(t, r, c, Options{Title: []string{s}, Unseen: []string{s}, Programs: []Program{{Command: "x", Path: "/bin/" + s}}, Dirs: true, Subdomains: true})
		if len(out.Network.Rules) != 1 || out.Network.Rules[0].Name != "a.example.com" {
			t.Errorf("%q gives %+v\n%s", s, out.Network.Rules, res.YAML)
		}
		for _, b := range res.YAML {
			if b < 0x20 && b != '\n' || b == 0x7f {
				t.Fatalf("%q: byte %#x in the file", s, b)
			}
		}
	}
}

// TestFlood: a program that makes records without end costs a bounded file, which says that it is not whole.
func TestFlood(t *testing.T) {
	c := policyOf(t, "process: {}\n")
	r := New(c)
	for i := range 3 * maxFacts {
		r.Add(record(fmt.Sprintf("network connect n%d.example.com:443 - default deny x", i)))
		r.Add(record(fmt.Sprintf("system answer n%d.example.com:443 - default deny", i+3*maxFacts)))
	}
	_, res := result(t, r, c, Options{Finished: true, Subdomains: true})
	if res.Missed != 2*maxFacts || len(r.facts) != maxFacts || len(r.refused) > maxFacts || !strings.Contains(string(res.YAML), "WARNING: ") || len(res.YAML) > 1<<20 {
		t.Errorf("%d missed, %d facts, %d bytes", res.Missed, len(r.facts), len(res.YAML))
	}
}

// TestFloodOfLongRecords: nor can such a program make the file longer than a policy may be, which would leave nothing learnt.
func TestFloodOfLongRecords(t *testing.T) {
	c := policyOf(t, "process: {}\n")
	label, args := "."+strings.Repeat("a", 57), strings.Repeat("\U0001F600", 100)
	for _, object := range []string{"n%d" + strings.Repeat(label, 4) + ":443", "/srv/%d" + strings.Repeat("/\"\U0001F600\"", 500)} {
		r := New(c)
		for i := range maxFacts {
			d := record("network connect x:1 - default deny x")
			d.Object, d.Subject.Exe, d.Subject.Args = fmt.Sprintf(object, i), fmt.Sprintf("/%d/", i)+strings.Repeat("\U0001F600", 60), args
			if d.Object[0] == '/' {
				d.Plane, d.Action = policy.PlaneFile, "open"
			}
			r.Add(d)
		}
		_, res := result(t, r, c, Options{Finished: true})
		if res.Missed == 0 || res.Hosts+res.Paths < 200 {
			t.Errorf("%d missed, %d rules", res.Missed, res.Hosts+res.Paths)
		}
	}
}

// FuzzLearn: whatever the records say, what is learnt is a policy, and allows no more than what was used or refused.
func FuzzLearn(f *testing.F) {
	f.Add("a.example.com:443", "/usr/bin/node", "node x", "p.yaml:5", uint8(0), true)
	f.Add("/srv/a\nb", "", "\u2028", "default", uint8(3), false)
	f.Add("[::1]:443", "x", "y", "p.yaml:10", uint8(4), true)
	f.Add("b.pkg.example.com:443", "/usr/bin/git", "", "p.yaml:5", uint8(0), true)
	planes := []policy.Plane{policy.PlaneNetwork, policy.PlaneDNS, policy.PlaneExec, policy.PlaneFile, policy.PlaneDevice}
	actions := []string{"connect", "resolve", "exec", "open", "request", "write"}
	f.Fuzz(func(t *testing.T, object, exe, args, rule string, kind uint8, allow bool) {
		c := policyOf(t, base)
		r := New(c)
		verdict := policy.Deny
		if allow {
			verdict = policy.Allow
		}
		for _, o := range []string{object, "a." + object, "b." + object, object + "/x", object + "/y"} {
			r.Add(&policy.Decision{Time: start, Plane: planes[int(kind)%len(planes)], Action: actions[int(kind)%len(actions)], Object: o, Rule: rule, Verdict: verdict,
				Called: exe, Reason: args, Subject: policy.Subject{Exe: exe, Args: args}})
		}
		out, res := result(t, r, c, Options{Title: []string{args}, Dirs: kind > 100, Finished: kind%2 == 0})
		for i := range out.Network.Rules {
			n := &out.Network.Rules[i]
			if n.Name == "" || n.Verdict != policy.Allow {
				continue
			}
			if !strings.Contains(strings.ToLower(object), strings.TrimPrefix(strings.TrimPrefix(strings.TrimLeft(n.Name, "*."), "a."), "b.")) && !strings.Contains(n.Name, "xn--") && !strings.Contains(base, n.Name) {
				t.Fatalf("%s out of %q\n%s", n.Name, object, res.YAML)
			}
		}
		for _, secret := range []string{"/root/.ssh/id_rsa", "/etc/shadow"} {
			if a := out.Explain(policy.Query{Action: policy.QueryRead, Path: secret}); a.Verdict == policy.Allow {
				t.Fatalf("%s\n%s", a, res.YAML)
			}
		}
	})
}
