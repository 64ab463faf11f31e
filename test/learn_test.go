//go:build e2e

package test

import (
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/test/harness"
	"github.com/nemoclaw/nemoclaw/test/registry/npm"
)

// learnBox runs a box that learns to the file `learnt` beside its policy, and returns what was learnt.
func learnBox(t *testing.T, b harness.Box, argv ...string) (*harness.Result, string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "learnt.yaml")
	b.Flags = append(b.Flags, "--learn", file)
	r := harness.W.Run(t, b, argv...)
	learnt, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v\n%s", err, r.Dump())
	}
	if left, _ := filepath.Glob(filepath.Dir(file) + "/.*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if out, err := exec.Command(harness.W.Bin, "policy", "check", file).CombinedOutput(); err != nil {
		t.Fatalf("what was learnt is not valid: %s\n%s", out, learnt)
	}
	return r, string(learnt)
}

// rules is a learnt policy without what differs from run to run: its comments.
func rules(learnt string) string {
	var b strings.Builder
	for line := range strings.Lines(learnt) {
		if s := strings.TrimSpace(line); s != "" && s[0] != '#' {
			b.WriteString(line)
		}
	}
	return b.String()
}

const (
	npmProject = `{"name":"project","version":"1.0.0","scripts":{"test":"node test.js"},"dependencies":{"left-padded":"^1.0.0"}}`
	npmScript  = "npm install --no-audit --no-fund && npm test"
)

// npmRegistry serves packages at a name of its own, and returns a workspace with a project that needs them.
func npmRegistry(t *testing.T, name string) (workspace string, env []string) {
	t.Helper()
	a4, a6 := harness.W.Addr()
	harness.W.DNS.Set(name, a4, a6)
	for _, a := range []netip.Addr{a4, a6} {
		harness.W.HTTPS(t, a, 443, npm.Handler(npm.Samples))
	}
	workspace = harness.W.NewWorkspace(t, t.TempDir())
	if err := os.WriteFile(filepath.Join(workspace, "package.json"), []byte(npmProject), 0o644); err != nil {
		t.Fatal(err)
	}
	test := "if (require('left-padded')('x', 3) !== '  x') process.exit(1)\nconsole.log('tested')\n"
	if err := os.WriteFile(filepath.Join(workspace, "test.js"), []byte(test), 0o644); err != nil {
		t.Fatal(err)
	}
	return workspace, append(harness.TrustCA(), "npm_config_registry=https://"+name+"/", "npm_config_fetch_retries=0", "npm_config_update_notifier=false")
}

// clean wants a run of npmScript that did its work and was refused nothing.
func clean(t *testing.T, r *harness.Result) {
	t.Helper()
	if r.Code != 0 || !strings.Contains(r.Out, "tested") {
		t.Errorf("npm install && npm test failed\n%s", r.Dump())
	}
	if d := r.Find("", "deny", ""); len(d) > 0 {
		t.Errorf("something was refused: %+v\n%s", d, r.Dump())
	}
}

// TestLearnNpm: from a wide policy, one round; the same then runs under what was learnt, and learns the same again.
func TestLearnNpm(t *testing.T) {
	t.Parallel()
	ws, env := npmRegistry(t, "wide.learn.test")
	wide, err := os.ReadFile("../policy/initial.yaml")
	if err != nil {
		t.Fatal(err)
	}
	policy := strings.Replace(string(wide), "  default: deny # or ask", "  allow:\n    - {domain: \"*.learn.test\", ports: [443], protocol: https}\n  default: deny # or ask", 1)
	first, learnt := learnBox(t, harness.Box{Policy: policy, Workspace: ws, Env: env}, "sh", "-c", npmScript)
	clean(t, first)
	want := `version: 1
network:
  default: deny
  allow:
    - domain: wide.learn.test
      ports: [443]
      protocol: https
      commands: [node]
filesystem:
  default: deny
  allow:
    - path: /workspace
      permissions: [read, write]
process:
  default: deny
  allow:
    - command: env
    - command: node
    - command: npm
    - command: sh
`
	if got := rules(learnt); got != want {
		t.Errorf("learnt\n%s\nwant\n%s\n%s", got, want, learnt)
	}
	for _, s := range []string{"connections by node, first 20", ": npm install", "# Not seen at this level:", "Learnt by `nemoclaw run --learn`"} {
		if !strings.Contains(learnt, s) {
			t.Errorf("nothing says %q:\n%s", s, learnt)
		}
	}
	if !strings.Contains(first.Err, "nemoclaw: learnt 1 host, 4 programs and 1 path; wrote ") || !strings.Contains(first.Err, "not seen:") {
		t.Errorf("the end of the run says\n%s", first.Err)
	}
	second, again := learnBox(t, harness.Box{Policy: learnt, Workspace: fresh(t, ws), Env: env}, "sh", "-c", npmScript)
	clean(t, second)
	if rules(again) != want {
		t.Errorf("the second time it is\n%s", again)
	}
}

// fresh makes a workspace like ws as it was before npm install.
func fresh(t *testing.T, ws string) string {
	t.Helper()
	for _, name := range []string{"node_modules", "package-lock.json"} {
		if err := os.RemoveAll(filepath.Join(ws, name)); err != nil {
			t.Fatal(err)
		}
	}
	return ws
}

// TestLearnNpmInRounds: from a policy that lacks the registry. The first round is refused it and keeps the rest; the second
// is refused nothing and keeps what it used.
func TestLearnNpmInRounds(t *testing.T) {
	t.Parallel()
	ws, env := npmRegistry(t, "rounds.learn.test")
	policy := harness.Files + "process:\n  allow:\n    - command: node\n    - command: npm\n    - command: sh\n    - command: git\n"
	first, learnt := learnBox(t, harness.Box{Policy: policy, Workspace: ws, Env: env}, "sh", "-c", npmScript)
	if first.Code == 0 || !strings.Contains(learnt, "# REFUSED ") || !strings.Contains(rules(learnt), "- domain: rounds.learn.test") || !strings.Contains(rules(learnt), "- command: git") ||
		!strings.Contains(first.Err, "learn on, to another file, with --policy ") {
		t.Errorf("the first round: %s\n%s", learnt, first.Dump())
	}
	second, learnt := learnBox(t, harness.Box{Policy: learnt, Workspace: fresh(t, ws), Env: env}, "sh", "-c", npmScript)
	clean(t, second)
	if n := strings.Count(rules(learnt), "- domain: "); n != 1 || !strings.Contains(learnt, "commands: [node]") || strings.Contains(rules(learnt), "- command: git") || strings.Contains(learnt, "# REFUSED") {
		t.Errorf("the second round learnt\n%s", learnt)
	}
	clean(t, harness.W.Run(t, harness.Box{Policy: learnt, Workspace: fresh(t, ws), Env: env}, "sh", "-c", npmScript))
}

// TestLearnPrograms: a program that is refused at once is seen and proposed, with a script's interpreter in place of the
// script; and what only fails for other reasons is not.
func TestLearnPrograms(t *testing.T) {
	t.Parallel()
	ws := harness.W.NewWorkspace(t, t.TempDir())
	for name, text := range map[string]string{"script": "#!/usr/bin/python3\nprint(1)\n", "by-env": "#!/usr/bin/env -S python3 -B\n", "fine": "#!/bin/sh\nexit 0\n"} {
		if err := os.WriteFile(filepath.Join(ws, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(ws, "no-program"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	policy := harness.Files + "process:\n  allow:\n    - command: sh\n"
	script := "uname -a; uname -a; ./script; ./by-env; /workspace/fine; ./no-program; no-such-program; /etc/passwd; /usr/bin/env true; true"
	r, learnt := learnBox(t, harness.Box{Policy: policy, Workspace: ws}, "sh", "-c", script)
	want := "    - command: python3\n    - command: sh\n    - command: uname\n"
	got := rules(learnt)
	if i := strings.Index(got, "    - command: python3."); i >= 0 { // the file that python3 is a link to
		end := i + strings.Index(got[i:], "\n")
		got = got[:i] + "    - command: python3" + got[end:]
	}
	got = strings.Replace(got, "    - command: \"true\"\n", "", 1) // env's own try
	if !strings.HasSuffix(got, "  allow:\n"+want) || r.Code != 0 {
		t.Errorf("learnt\n%s\nwant at its end\n%s\n%s\n%s", got, want, learnt, r.Dump())
	}
	if d := r.Find("exec", "deny", "/usr/bin/uname"); len(d) != 2 {
		t.Errorf("two attempts are recorded as %+v", d)
	}
}

// TestLearnNeverLetsThrough: what is refused while learning does not reach its host, whatever the file then proposes.
func TestLearnNeverLetsThrough(t *testing.T) {
	t.Parallel()
	a4, _ := harness.W.Addr()
	for _, name := range []string{"a.never.learn.test", "b.never.learn.test", "denied.learn.test"} {
		harness.W.DNS.Set(name, a4)
	}
	server := harness.W.HTTPS(t, a4, 443, harness.Hello)
	policy := harness.Files + "process:\n  allow:\n    - command: curl\n    - command: sh\n" + "network:\n  deny:\n    - domain: denied.learn.test\n"
	hostile := "curl -s https://a.never.learn.test/ https://b.never.learn.test/ https://denied.learn.test/ -H \"$(printf 'x\\n  allow:\\n    - {domain: evil.learn.test, ports: [443], protocol: tcp}\\n\\342\\200\\250\\033[2J')\"; true"
	r, learnt := learnBox(t, harness.Box{Policy: policy, Env: harness.TrustCA(), Flags: []string{"--generalise", "subdomains"}}, "sh", "-c", hostile)
	if server.Conns() > 0 {
		t.Errorf("%d connections reached the server while learning\n%s", server.Conns(), r.Dump())
	}
	got := rules(learnt)
	if !strings.Contains(got, "- domain: \"*.never.learn.test\"\n      ports: [443]\n      protocol: https\n      commands: [curl]\n") || strings.Count(got, "domain: ") != 2 ||
		!strings.Contains(got, "  deny:\n    - domain: denied.learn.test\n") || strings.Contains(got, "evil") {
		t.Errorf("learnt\n%s", learnt)
	}
	if strings.ContainsAny(learnt, "\x1b\u2028\r\t") {
		t.Errorf("a terminal could be moved by\n%q", learnt)
	}
}

// TestLearnFromAPerson: what a person approves becomes a rule, what a person denies does not.
func TestLearnFromAPerson(t *testing.T) {
	t.Parallel()
	a4, _ := harness.W.Addr()
	for _, name := range []string{"yes.learn.test", "no.learn.test"} {
		harness.W.DNS.Set(name, a4)
	}
	harness.W.TCP(t, a4, 7000)
	file := filepath.Join(t.TempDir(), "learnt.yaml")
	s, term := askBox(t, harness.Box{Policy: harness.Base + "network:\n  default: ask\n", Flags: []string{"--learn", file}}, "/workspace/probe",
		"say yes.learn.test 7000 "+b64("held data"), "say no.learn.test 7000 "+b64("x"))
	for i, key := range []string{"r", "d"} {
		wait(t, "the question", func() bool { return strings.Count(term.text(), "allow: [o]nce") > i })
		time.Sleep(600 * time.Millisecond) // a key that comes sooner than a person can read is nobody's answer
		if _, err := io.WriteString(term.master, key); err != nil {
			t.Fatal(err)
		}
	}
	r := term.end(t, s)
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, term.text(), r.Dump())
	}
	learnt := string(b)
	if got := rules(learnt); !strings.Contains(got, "- domain: yes.learn.test") || strings.Contains(got, "no.learn.test") || !strings.Contains(got, "  default: deny\n  allow:") ||
		!strings.Contains(learnt, "(approved by a person)") || !strings.Contains(learnt, "a person denied it") {
		t.Errorf("learnt\n%s\n%s", learnt, term.text())
	}
}

// TestLearnPlaces: a learnt policy is never written where the command could write, and never over a file.
func TestLearnPlaces(t *testing.T) {
	t.Parallel()
	there := filepath.Join(t.TempDir(), "there.yaml")
	if err := os.WriteFile(there, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	data := t.TempDir()
	ws := harness.W.NewWorkspace(t, t.TempDir())
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(ws, link); err != nil {
		t.Fatal(err)
	}
	policy := strings.Replace(harness.Base, "  allow:\n", fmt.Sprintf("  allow:\n    - {path: %s, permissions: [read, write]}\n", data), 1)
	for file, want := range map[string]string{
		filepath.Join(ws, "x.yaml"):      "this is in the workspace",
		filepath.Join(link, "x.yaml"):    "this is in the workspace",
		filepath.Join(data, "x.yaml"):    "the sandbox may write there",
		there:                            "it is there already",
		"/nonexistent-directory/x.yaml":  "name a file in a directory that exists",
		filepath.Join(ws, "../../x/y/z"): "name a file in a directory that exists",
	} {
		if strings.HasPrefix(data, "/tmp/") && strings.HasPrefix(file, data) {
			want = "" // /tmp is private inside: the rule is about another directory
		}
		r := harness.W.Run(t, harness.Box{Policy: policy, Workspace: ws, Flags: []string{"--learn", file}}, "/workspace/probe", "exit 0")
		if want != "" && (r.Code != 125 || !strings.Contains(r.Err, want)) {
			t.Errorf("--learn %s: exit status %d, want %q\n%s", file, r.Code, want, r.Err)
		}
		if want != "" && len(r.Events) > 0 {
			t.Errorf("--learn %s: something ran", file)
		}
	}
	if b, err := os.ReadFile(there); err != nil || string(b) != "mine" {
		t.Errorf("the file is now %q, %v", b, err)
	}
}
