package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"github.com/nemoclaw/nemoclaw/agent/audit"
	"github.com/nemoclaw/nemoclaw/agent/hub"
	"github.com/nemoclaw/nemoclaw/policy"
)

var update = flag.Bool("update", false, "write the golden files anew")

// home is where the tests start: some change the directory.
var home, _ = os.Getwd()

// call runs one command line as main does.
func call(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	files := map[string]*os.File{}
	for _, name := range []string{"out", "err"} {
		f, err := os.Create(filepath.Join(t.TempDir(), name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files[name] = f
	}
	status = execute(args, files["out"], files["err"])
	read := func(f *os.File) string {
		b, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	return status, read(files["out"]), read(files["err"])
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join(home, "testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; run the test with -update and look at what it wrote", err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s: %s", path, diff)
	}
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestHelp keeps every help text in a file, so that a change of one is seen.
func TestHelp(t *testing.T) {
	for name, args := range map[string][]string{
		"help":                {"--help"},
		"help-run":            {"run", "--help"},
		"help-init":           {"init", "--help"},
		"help-policy":         {"policy", "--help"},
		"help-policy-check":   {"policy", "check", "--help"},
		"help-policy-explain": {"policy", "explain", "--help"},
		"help-policy-schema":  {"policy", "schema", "--help"},
		"help-policy-presets": {"policy", "presets", "--help"},
		"help-policy-import":  {"policy", "import", "--help"},
		"help-approvals":      {"approvals", "--help"},
		"help-approvals-list": {"approvals", "list", "--help"},
		"help-approvals-show": {"approvals", "show", "--help"},
		"help-approve":        {"approvals", "approve", "--help"},
		"help-reject":         {"approvals", "reject", "--help"},
		"help-policy-learn":   {"box", "policy", "learn", "--help"},
		"help-report":         {"box", "report", "--help"},
		"help-models":         {"box", "models", "--help"},
		"help-audit":          {"audit", "--help"},
		"help-audit-verify":   {"audit", "verify", "--help"},
		"help-audit-key":      {"audit", "key", "--help"},
		"help-audit-search":   {"audit", "search", "--help"},
		"help-audit-export":   {"audit", "export", "--help"},
		"help-audit-erase":    {"audit", "erase", "--help"},
		"help-audit-report":   {"audit", "report", "--help"},
		"help-doctor":         {"doctor", "--help"},
		"help-debug":          {"debug", "--help"},
		"help-gpus":           {"gpus", "--help"},
		"help-term":           {"term", "--help"},
		"help-uninstall":      {"uninstall", "--help"},
		"help-version":        {"version", "--help"},
	} {
		status, out, err := call(t, args...)
		if status != 0 || err != "" {
			t.Errorf("%v: status %d, %s", args, status, err)
		}
		golden(t, name, out)
	}
	if _, plain, _ := call(t); !strings.Contains(plain, "Other commands:") {
		t.Errorf("without arguments: %s", plain)
	}
}

func TestUsageErrors(t *testing.T) {
	policyFile, err := filepath.Abs("testdata/good.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"no_such"}, `unknown command "no_such" for "nemoclaw"`},
		{[]string{"runn", "x"}, `unknown command "runn" for "nemoclaw" (did you mean "run"?)`},
		{[]string{"--no-such"}, "unknown flag: --no-such"},
		{[]string{"run"}, "no command was given"},
		{[]string{"run", "--no-such", "--", "x"}, "unknown flag: --no-such"},
		{[]string{"run", "--env", "=x", "x"}, `--env "=x": want NAME=VALUE`},
		{[]string{"run", "--env", "NEMOCLAW_NOT_SET", "x"}, "--env NEMOCLAW_NOT_SET: it is not set here"},
		{[]string{"run", "--resolver", "nowhere", "x"}, `--resolver "nowhere": want an address`},
		{[]string{"run", "--generalise", "dirs", "x"}, "give --learn FILE as well"},
		{[]string{"run", "--learn", "x.yaml", "--generalise", "dirs,hosts", "x"}, `--generalise "hosts": want dirs, subdomains or both`},
		{[]string{"init", "a", "b"}, "2 arguments were given, want: nemoclaw init [FILE]"},
		{[]string{"policy", "no-such"}, `unknown command "no-such" for "nemoclaw policy"`},
		{[]string{"policy", "chek", "x"}, `unknown command "chek" for "nemoclaw policy" (did you mean "check"?)`},
		{[]string{"policy", "check"}, "no argument was given, want: nemoclaw policy check FILE..."},
		{[]string{"policy", "check", "-o", "xml", policyFile}, `-o "xml": want text or json`},
		{[]string{"policy", "explain", policyFile}, "nothing was asked"},
		{[]string{"policy", "explain", policyFile, "--connect", "api.example.org"}, "expected host:port"},
		{[]string{"policy", "explain", policyFile, "--read", "/x", "--expect", "maybe"}, "want allow, ask or deny"},
		{[]string{"policy", "import"}, "no argument was given, want: nemoclaw policy import FILE"},
		{[]string{"policy", "presets", "-o", "json", "npm"}, "a preset is printed as it is"},
		{[]string{"version", "x"}, "1 argument was given, want: nemoclaw version"},
		{[]string{"audit", "verify"}, "no argument was given"},
		{[]string{"approvals", "approve", ""}, "argument 1 is empty, want: nemoclaw approvals approve ID..."},
		{[]string{"approvals", "reject", "7f3a", ""}, "argument 2 is empty"},
		{[]string{"box", "policy", "revoke", ""}, "argument 1 is empty, want: nemoclaw box policy revoke GRANT..."},
		{[]string{"audit", "verify", "--head", "12", "x"}, "want SEQ:HASH"},
	} {
		status, out, err := call(t, c.args...)
		if status != statusUsage || out != "" || !strings.Contains(err, c.want) || !strings.HasPrefix(err, "nemoclaw: ") || !strings.Contains(err, "--help'") {
			t.Errorf("%v: status %d, out %q, err %q; want %q", c.args, status, out, err, c.want)
		}
	}
}

func TestInit(t *testing.T) {
	t.Chdir(t.TempDir())
	if status, _, err := call(t, "init"); status != 0 || !strings.Contains(err, "wrote nemoclaw.yaml") {
		t.Fatalf("status %d, %s", status, err)
	}
	b, err := os.ReadFile("nemoclaw.yaml")
	if err != nil || !bytes.Equal(b, policy.Initial()) {
		t.Errorf("it wrote %q, %v", b, err)
	}
	if status, _, err := call(t, "policy", "check", "nemoclaw.yaml"); status != 0 {
		t.Errorf("what it wrote is refused: %s", err)
	}
	write(t, "nemoclaw.yaml", "mine")
	if status, _, err := call(t, "init"); status != statusFailed || !strings.Contains(err, "nemoclaw.yaml is there already") {
		t.Errorf("over a file: status %d, %s", status, err)
	}
	if b, err := os.ReadFile("nemoclaw.yaml"); err != nil || string(b) != "mine" {
		t.Errorf("the file was touched: %q, %v", b, err)
	}
	if status, _, err := call(t, "init", "--force"); status != 0 {
		t.Errorf("--force: %s", err)
	}
	if status, out, _ := call(t, "init", "-"); status != 0 || out != string(policy.Initial()) {
		t.Errorf("to standard output: status %d, %q", status, out)
	}
	if status, _, err := call(t, "init", "no/such/dir.yaml"); status != statusFailed || !strings.Contains(err, "no such file") {
		t.Errorf("into nothing: status %d, %s", status, err)
	}
}

func TestPolicyCheck(t *testing.T) {
	t.Chdir("testdata")
	status, out, errs := call(t, "policy", "check", "good.yaml")
	if status != 0 || !strings.HasPrefix(out, "good.yaml: ok (revision ") || errs != "" {
		t.Errorf("good.yaml: status %d, %q, %q", status, out, errs)
	}
	status, out, errs = call(t, "policy", "check", "good.yaml", "bad.yaml", "missing.yaml")
	if status != statusFailed || strings.Count(out, "\n") != 1 {
		t.Errorf("status %d, %q", status, out)
	}
	for _, want := range []string{"bad.yaml:2:3: ", "bad.yaml:5:", "missing.yaml"} {
		if !strings.Contains(errs, want) {
			t.Errorf("%q is not in %q", want, errs)
		}
	}
	status, out, errs = call(t, "policy", "check", "-o", "json", "good.yaml", "bad.yaml", "missing.yaml")
	var got []struct {
		File     string
		Valid    bool
		Revision string
		Errors   []wrong
		Warnings []string
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil || status != statusFailed || errs != "" {
		t.Fatalf("json: status %d, %v, %q, %q", status, err, out, errs)
	}
	if len(got) != 3 || !got[0].Valid || got[0].Revision == "" || got[1].Valid || len(got[1].Errors) < 2 || got[1].Errors[0].Line != 2 || len(got[2].Errors) != 1 {
		t.Errorf("json: %+v", got)
	}
}

func TestPolicyExplain(t *testing.T) {
	t.Chdir("testdata")
	status, out, errs := call(t, "policy", "explain", "good.yaml", "--read", "/root/.ssh/id", "--write", "/workspace/x", "--exec", "git", "--connect", "example.com:443", "--connect", "other.test:22")
	if status != 0 || errs != "" {
		t.Fatalf("status %d, %s", status, errs)
	}
	golden(t, "explain", out)
	status, out, errs = call(t, "policy", "explain", "good.yaml", "-o", "json", "--connect", "example.com:443", "--expect", "deny")
	var got []struct{ Verdict, Rule, Object string }
	if err := json.Unmarshal([]byte(out), &got); err != nil || status != statusFailed || len(got) != 1 || got[0].Verdict != "allow" || !strings.Contains(errs, "1 of 1 answers are not deny") {
		t.Errorf("status %d, %v, %q, %q", status, err, out, errs)
	}
	if status, _, errs := call(t, "policy", "explain", "bad.yaml", "--read", "/"); status != statusFailed || !strings.Contains(errs, "bad.yaml:2:3") {
		t.Errorf("a bad policy: status %d, %q", status, errs)
	}
}

func TestImport(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	write(t, "os.yaml", "version: 1\nnetwork_policies:\n  a: {endpoints: [{host: a.example.com, port: 443}], binaries: [{path: /usr/bin/curl}]}\n")
	if status, out, err := call(t, "policy", "import", "os.yaml"); status != 0 || err != "" || !strings.Contains(out, "- domain: a.example.com") {
		t.Errorf("status %d, %q, %q", status, out, err)
	}
	if status, out, err := call(t, "policy", "import", "os.yaml", "-o", "new.yaml"); status != 0 || out != "" || !strings.Contains(err, "wrote new.yaml") {
		t.Errorf("status %d, %q, %q", status, out, err)
	}
	if status, _, err := call(t, "policy", "check", "new.yaml"); status != 0 {
		t.Errorf("what was imported is not valid: %s", err)
	}
	if status, _, err := call(t, "policy", "import", "os.yaml", "-o", "new.yaml"); status != statusFailed || !strings.Contains(err, "new.yaml is there already") {
		t.Errorf("a file was replaced: status %d, %q", status, err)
	}
	write(t, "bad.yaml", "version: 1\nnetwork_policies:\n  a: {endpoints: [{host: a.example.com, port: 443, access: read-only}], binaries: [{path: /usr/bin/*}]}\n")
	if status, out, err := call(t, "policy", "import", "new.yaml"); status != statusFailed || out != "" || !strings.Contains(err, "new.yaml is a policy of this language already") || strings.Contains(err, "unknown key") {
		t.Errorf("one that is none to import: %d %q %q", status, out, err)
	}
	status, out, err := call(t, "policy", "import", "bad.yaml", "-o", "bad-new.yaml")
	if status != statusFailed || out != "" || !strings.Contains(err, "bad.yaml:3:60: network_policies.a.endpoints[0].access: read-only is") || strings.Count(err, "\n") != 2 {
		t.Errorf("status %d, %q, %q", status, out, err)
	}
	if _, err := os.Stat("bad-new.yaml"); err == nil {
		t.Error("a policy was written beside errors")
	}
}

func TestSchemaAndPresets(t *testing.T) {
	if status, out, _ := call(t, "policy", "schema"); status != 0 || !json.Valid([]byte(out)) {
		t.Errorf("schema: status %d, %.80q", status, out)
	}
	status, out, _ := call(t, "policy", "presets")
	if status != 0 || !strings.Contains(out, "\nnpm          install packages") {
		t.Errorf("presets: status %d, %q", status, out)
	}
	var list []struct{ Name, About string }
	if _, out, _ := call(t, "policy", "presets", "-o", "json"); json.Unmarshal([]byte(out), &list) != nil || len(list) < 4 {
		t.Errorf("presets as JSON: %q", out)
	}
	if status, out, _ := call(t, "policy", "presets", "npm"); status != 0 || !strings.Contains(out, "npmjs.org") {
		t.Errorf("the preset npm: status %d, %q", status, out)
	}
	if status, _, errs := call(t, "policy", "presets", "no-such"); status != statusFailed || !strings.Contains(errs, "no-such") {
		t.Errorf("no such preset: status %d, %q", status, errs)
	}
}

func TestAuditVerify(t *testing.T) {
	dir := t.TempDir()
	log, err := audit.Open(dir, "box", audit.Options{})
	if err != nil {
		t.Fatal(err)
	}
	h := hub.New(log)
	box := h.Sandbox("box")
	for range 5 {
		box.Record(policy.Decision{Plane: policy.PlaneSystem, Action: "x", Object: "good"})
	}
	h.Close()
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	file := log.Path()
	status, out, errs := call(t, "audit", "verify", file)
	if status != 0 || errs != "" || !strings.HasPrefix(out, file+": ok (records 1 to 5, head 5:") {
		t.Fatalf("status %d, %q, %q", status, out, errs)
	}
	head := log.Head().String()
	if status, out, _ := call(t, "audit", "verify", "--head", head, file); status != 0 {
		t.Errorf("with its own head: %q", out)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	bad := filepath.Join(t.TempDir(), "bad.jsonl")
	write(t, bad, strings.Replace(string(b), "good", "evil", 3)[:len(b)])
	if status, out, _ := call(t, "audit", "verify", bad, file); status != statusFailed || !strings.HasPrefix(out, bad+":1: record 1 changed: ") || !strings.Contains(out, file+": ok") {
		t.Errorf("status %d, %q", status, out)
	}
	cut := filepath.Join(t.TempDir(), "cut.jsonl")
	write(t, cut, strings.Join(strings.SplitAfter(string(b), "\n")[:3], ""))
	if status, out, _ := call(t, "audit", "verify", "--head", head, cut); status != statusFailed || !strings.HasPrefix(out, cut+":4: record 4 lost: ") {
		t.Errorf("status %d, %q", status, out)
	}
	if status, _, errs := call(t, "audit", "verify", filepath.Join(dir, "missing")); status != statusFailed || !strings.Contains(errs, "no such file") {
		t.Errorf("status %d, %q", status, errs)
	}
	status, out, _ = call(t, "audit", "verify", "-o", "json", file, bad, "missing")
	var got []struct {
		OK    bool
		Lines int
		Head  string
		Error string
		Fault *audit.Fault
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil || status != statusFailed || len(got) != 3 {
		t.Fatalf("status %d, %v, %s", status, err, out)
	}
	if !got[0].OK || got[0].Head != head || got[1].OK || got[1].Fault.Kind != audit.Changed || got[2].Error == "" {
		t.Errorf("%+v", got)
	}
}

func TestVersion(t *testing.T) {
	if status, out, _ := call(t, "version"); status != 0 || !strings.HasPrefix(out, "nemoclaw ") {
		t.Errorf("status %d, %q", status, out)
	}
	var v struct{ Version, Go string }
	if _, out, _ := call(t, "version", "-o", "json"); json.Unmarshal([]byte(out), &v) != nil || v.Version == "" || v.Go == "" {
		t.Errorf("%q", out)
	}
}

func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if status, out, errs := call(t, "completion", shell); status != 0 || !strings.Contains(out, "nemoclaw") {
			t.Errorf("%s: status %d, %s", shell, status, errs)
		}
	}
}

// TestCompletes asks as the shells' scripts do.
func TestCompletes(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"policy", "presets", ""}, strings.Join(policy.Presets(), "\n") + "\n:4\n"},
		{[]string{"policy", "presets", "npm", ""}, ":4\n"},
		{[]string{"policy", "explain", "--expect", "a"}, "allow\nask\ndeny\n:4\n"},
		{[]string{"run", "--generalise", ""}, "dirs\nsubdomains\n:4\n"},
		{[]string{"box", "policy", "learn", "--generalise", ""}, "dirs\nsubdomains\n:4\n"},
		{[]string{"box", "policy", "learn", "--include", ""}, "refused\n:4\n"},
		{[]string{"run", "--policy", ""}, "yaml\nyml\n:8\n"},
	} {
		if status, out, _ := call(t, append([]string{"__complete"}, c.args...)...); status != 0 || out != c.want {
			t.Errorf("%q: status %d, %q, want %q", c.args, status, out, c.want)
		}
	}
}

// TestEscapes: what is shown of the command line can't reach the terminal as it is.
func TestEscapes(t *testing.T) {
	const odd = "no\x1b[31mfile"
	for _, args := range [][]string{{"policy", "check", odd}, {"policy", "explain", odd, "--read", "/x"}, {"policy", "import", odd}, {"init", odd + "/x"}, {"audit", "verify", odd}} {
		if status, out, errs := call(t, args...); status == 0 || strings.Contains(out+errs, "\x1b") || !strings.Contains(errs, `no\x1b[31mfile`) {
			t.Errorf("%q: status %d, %q, %q", args, status, out, errs)
		}
	}
}

func TestEnvironment(t *testing.T) {
	here := func(name string) (string, bool) { return "value of " + name, name == "TOKEN" }
	got, err := environment([]string{"A=1", "B=", "C=x=y", "TOKEN"}, here)
	if diff := cmp.Diff([]string{"A=1", "B=", "C=x=y", "TOKEN=value of TOKEN"}, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
}

func TestParseResolver(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.1": "192.0.2.1:53", "192.0.2.1:5353": "192.0.2.1:5353", "2001:db8::1": "[2001:db8::1]:53",
		"[2001:db8::1]": "[2001:db8::1]:53", "[2001:db8::1]:5353": "[2001:db8::1]:5353",
	} {
		if got, err := parseResolver(in); err != nil || got.String() != want {
			t.Errorf("%s: %v, %v; want %s", in, got, err, want)
		}
	}
}

// TestAuditVerifySigned: what the key vouches for is said, and a log that was written anew without it is found.
func TestAuditVerifySigned(t *testing.T) {
	dir, keys := t.TempDir(), t.TempDir()
	signer, err := audit.OpenSigner(keys)
	if err != nil {
		t.Fatal(err)
	}
	log, err := audit.OpenChain(dir, "agent", "", audit.Options{Signer: signer})
	if err != nil {
		t.Fatal(err)
	}
	for seq := range uint64(40) {
		if err := log.Append(&policy.Decision{Seq: seq + 1}); err != nil {
			t.Fatal(err)
		}
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	file := log.Path()
	status, key, _ := call(t, "audit", "key", "--key-dir", keys)
	key = strings.TrimSpace(key)
	if status != 0 || key != audit.FormatKey(signer.Public()) {
		t.Fatalf("the key: status %d, %q", status, key)
	}
	for what, c := range map[string]struct {
		args   []string
		status int
		want   string
	}{
		"key":             {[]string{"--key", key, file}, 0, "; signed, all of it, at 20"},
		"own":             {[]string{"--own", "--key-dir", keys, file}, 0, "; signed, all of it, at 20"},
		"anchor":          {[]string{"--key", key, "--anchor", file + ".sig", file}, 0, "; signed, all of it, at 20"},
		"another key":     {[]string{"--key", "ed25519:" + strings.Repeat("A", 43) + "=", file}, statusFailed, "is not signed with the key"},
		"no key":          {[]string{"--key", key[:20], file}, statusUsage, "44 characters of base64"},
		"anchor, no key":  {[]string{"--anchor", file + ".sig", file}, statusUsage, "give the --key too"},
		"own, and no key": {[]string{"--own", "--key-dir", dir, file}, statusFailed, "no such file or directory; the key of a daemon with another state_dir: --key-dir DIR"},
		"no such anchor":  {[]string{"--key", key, "--anchor", dir + "/none", file}, statusFailed, "no such file"},
		"not an anchor":   {[]string{"--key", key, "--anchor", file, file}, statusFailed, ":1: it is not a checkpoint"},
	} {
		status, out, errs := call(t, append([]string{"audit", "verify"}, c.args...)...)
		if status != c.status || !strings.Contains(out+errs, c.want) {
			t.Errorf("%s: status %d, %q, %q", what, status, out, errs)
		}
	}
	if err := os.Remove(file + ".sig"); err != nil {
		t.Fatal(err)
	}
	if status, out, _ := call(t, "audit", "verify", "--key", key, file); status != statusFailed || !strings.Contains(out, ":1: record 1 unsigned: the log has no checkpoint") {
		t.Errorf("without its checkpoints: status %d, %q", status, out)
	}
}

// TestAuditSearch: search and export read closed and compressed files, and what they select is the same.
func TestAuditSearch(t *testing.T) {
	dir := t.TempDir()
	log, err := audit.OpenChain(dir, "agent", "", audit.Options{Rotate: 4000})
	if err != nil {
		t.Fatal(err)
	}
	for seq := range uint64(60) {
		d := policy.Decision{Seq: seq + 1, Time: time.Now(), Sandbox: []string{"one", "two"}[seq%2], Plane: policy.PlaneNetwork, Action: "connect",
			Object: fmt.Sprintf("host-%d.example:443", seq+1), Verdict: policy.Verdict(seq % 3)}
		if err := errors.Join(log.Append(&d), log.Flush()); err != nil {
			t.Fatal(err)
		}
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want int
	}{
		{nil, 60},
		{[]string{"--sandbox", "one"}, 30},
		{[]string{"--sandbox", "one", "--verdict", "deny"}, 10},
		{[]string{"--verdict", "allow,ask", "-n", "5"}, 5},
		{[]string{"--plane", "exec"}, 0},
		{[]string{"--text", "host-7."}, 1},
		{[]string{"--since", "1h"}, 60},
		{[]string{"--until", "1h"}, 0},
		{[]string{"--sandbox", "three"}, 0},
	} {
		for _, how := range [][]string{{"search"}, {"search", "-o", "json"}, {"export"}, {"export", "--format", "csv"}, {"export", "--format", "cef"}, {"export", "--format", "ocsf"}} {
			status, out, errs := call(t, append(append(append([]string{"audit"}, how...), c.args...), dir)...)
			lines := strings.Count(out, "\n")
			if how[len(how)-1] == "csv" {
				lines--
			}
			if status != 0 || errs != "" || lines != c.want {
				t.Errorf("%v %v: status %d, %d lines, want %d; %s", how, c.args, status, lines, c.want, errs)
			}
		}
	}
	for want, args := range map[string][]string{
		"want jsonl, csv, cef or ocsf": {"export", "--format", "xml", dir}, "want one of": {"search", "--plane", "x", dir}, "want allow, ask or deny": {"search", "--verdict", "x", dir},
		"there is no log in it": {"search", t.TempDir()}, "audit log: stat /no/such: no such file": {"search", "/no/such"}, "name a log by its FILE.jsonl": {"search", dir + "/agent.000001.jsonl.zst"},
	} {
		if status, out, errs := call(t, append([]string{"audit"}, args...)...); status == 0 || !strings.Contains(errs, want) {
			t.Errorf("%v: status %d, %q, %q", args, status, out, errs)
		}
	}
}

// TestAuditVerifyDirectory has a chain of several files, the oldest of which were let go, and one beside it.
func TestAuditVerifyDirectory(t *testing.T) {
	dir := t.TempDir()
	if status, _, errs := call(t, "audit", "verify", dir); status != statusFailed || !strings.Contains(errs, "there is no log in it") {
		t.Errorf("an empty directory: status %d, %q", status, errs)
	}
	for _, name := range []string{"agent", "run"} {
		log, err := audit.OpenChain(dir, name, "", audit.Options{Rotate: 2000, Keep: 2})
		if err != nil {
			t.Fatal(err)
		}
		for seq := range uint64(40) {
			if err := errors.Join(log.Append(&policy.Decision{Seq: seq + 1}), log.Flush()); err != nil {
				t.Fatal(err)
			}
		}
		if err := log.Close(); err != nil {
			t.Fatal(err)
		}
	}
	agent := filepath.Join(dir, "agent.jsonl")
	status, out, errs := call(t, "audit", "verify", dir)
	lines := strings.Split(out, "\n")
	if status != 0 || errs != "" || len(lines) != 3 || !strings.HasPrefix(lines[0], agent+": ok (records ") ||
		!strings.HasSuffix(lines[0], "; older ones are not in these files)") || !strings.Contains(lines[1], " to 40, head 40:") {
		t.Fatalf("status %d, %q, %q", status, out, errs)
	}
	closed, err := filepath.Glob(filepath.Join(dir, "agent.0*.jsonl.zst"))
	if err != nil || len(closed) != 2 {
		t.Fatalf("closed files %v, %v", closed, err)
	}
	if status, out, _ := call(t, "audit", "verify", closed[1]); status != 0 {
		t.Errorf("a closed file alone: %q", out)
	}
	b, err := os.ReadFile(closed[1])
	if err != nil {
		t.Fatal(err)
	}
	dec, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	if b, err = dec.DecodeAll(b, nil); err != nil {
		t.Fatal(err)
	}
	closed[1] = strings.TrimSuffix(closed[1], ".zst") // one that is there as it was written counts
	if err := os.WriteFile(closed[1], bytes.Replace(b, []byte(`"deny"`), []byte(`"allow"`), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, out, _ := call(t, "audit", "verify", agent); status != statusFailed || !strings.HasPrefix(out, closed[1]+":1: record ") {
		t.Errorf("with a changed closed file: status %d, %q", status, out)
	}
}
