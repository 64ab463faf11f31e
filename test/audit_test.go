//go:build e2e

package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/nemoclaw/nemoclaw/test/harness"
)

// auditFile returns the one log of a run.
func auditFile(t *testing.T, r *harness.Result) string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(r.AuditDir(), func(path string, d os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".jsonl") {
			found = append(found, path)
		}
		return err
	})
	if err != nil || len(found) != 1 {
		t.Fatalf("audit logs of the run: %v, %v", found, err)
	}
	return found[0]
}

func verify(t *testing.T, file string) (string, bool) {
	t.Helper()
	out, err := exec.Command(harness.W.Bin, "audit", "verify", file).CombinedOutput()
	return string(out), err == nil
}

func TestAuditVerify(t *testing.T) {
	t.Parallel()
	var attempts []string
	for i := range 8 {
		attempts = append(attempts, "tcp 198.51.100.1 "+string(rune('1'+i)))
	}
	r, _ := harness.W.Probe(t, harness.Box{}, attempts...)
	file := auditFile(t, r)
	if out, ok := verify(t, file); !ok {
		t.Fatalf("the log as written does not verify: %s", out)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(strings.TrimSuffix(string(b), "\n")+"\n", "\n")
	lines = lines[:len(lines)-1]
	if len(lines) < 8 {
		t.Fatalf("%d lines for 8 refusals:\n%s", len(lines), b)
	}
	edit := func(f func(l []string) []string) string {
		return strings.Join(f(append([]string(nil), lines...)), "")
	}
	tests := map[string]struct{ log, names string }{
		"a changed line": {edit(func(l []string) []string { l[4] = strings.Replace(l[4], `"deny"`, `"allow"`, 1); return l }), ":5"},
		"a changed byte": {edit(func(l []string) []string { l[2] = strings.Replace(l[2], "probe", "prope", 1); return l }), ":3"},
		"a lost line":    {edit(func(l []string) []string { return append(l[:3], l[4:]...) }), ":4"},
		"a swapped pair": {edit(func(l []string) []string { l[5], l[6] = l[6], l[5]; return l }), ":6"},
		"a line twice":   {edit(func(l []string) []string { return append(l[:3], append([]string{l[2]}, l[3:]...)...) }), ":4"},
		"a lost start":   {edit(func(l []string) []string { return l[1:] }), ":1"},
		"a torn end":     {strings.Join(lines, "")[:len(b)-20], ":" + strconv.Itoa(len(lines))},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "audit.jsonl")
			if err := os.WriteFile(path, []byte(tt.log), 0o600); err != nil {
				t.Fatal(err)
			}
			out, ok := verify(t, path)
			if ok || !strings.Contains(out, path+tt.names) {
				t.Errorf("want an error that names %s%s, got: %s", path, tt.names, out)
			}
		})
	}
}

// TestRecordsAreEscaped: what comes from inside can't forge a line, nor a terminal's escape sequence.
func TestRecordsAreEscaped(t *testing.T) {
	t.Parallel()
	policy := harness.Files + "process:\n  allow:\n    - {command: python3}\n"
	script := `import socket, sys
try: socket.create_connection(("198.51.100.1", 1))
except OSError as e: print(e.errno)`
	r := harness.W.Run(t, harness.Box{Policy: policy}, "python3", "-c", script, "x\n{\"seq\":99,\"verdict\":\"allow\"}\x1b[2J\x1b]0;title\x07")
	if e := once(t, r, "network", "198.51.100.1:1"); !strings.Contains(e.Subject.Args, "seq") {
		t.Errorf("the record's command line is %q", e.Subject.Args)
	}
	if strings.ContainsAny(r.Err, "\x1b\x07") {
		t.Errorf("the summary carries escape sequences: %q", r.Err)
	}
	b, err := os.ReadFile(auditFile(t, r))
	if err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(string(b), "\x1b\x07") || strings.Contains(string(b), "\n{\"seq\":99") {
		t.Errorf("the audit log carries raw bytes from inside:\n%q", b)
	}
	if out, ok := verify(t, auditFile(t, r)); !ok {
		t.Error(out)
	}
}

// TestSummary: at the end of a run the refusals are listed, each with the line that would allow it.
func TestSummary(t *testing.T) {
	t.Parallel()
	r, _ := harness.W.Probe(t, harness.Box{}, "tcp-to summary.test 443", "tcp-to summary.test 443", "tcp 198.51.100.1 22")
	for _, want := range []string{"summary.test", "domain: summary.test", "ports: [443]", "198.51.100.1", "cidr: 198.51.100.1/32"} {
		if !strings.Contains(r.Err, want) {
			t.Errorf("the summary lacks %q:\n%s", want, r.Err)
		}
	}
}

// TestEventsToADescriptor: --json-events fd:N writes the same records to a descriptor of the caller's.
func TestEventsToADescriptor(t *testing.T) {
	t.Parallel()
	s := harness.W.Prepare(t, harness.Box{Flags: []string{"--json-events", "fd:3"}}, "/workspace/probe", "tcp 198.51.100.1 25")
	f, err := os.Create(filepath.Join(s.Dir, "by-fd"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s.Cmd.ExtraFiles = []*os.File{f}
	if err := s.Cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, s.Stderr.String())
	}
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), `"198.51.100.1:25"`) {
		t.Errorf("the descriptor got %q", b)
	}
}

// TestAuditRedactedAndErased is a run whose policy takes cards and a name out of its records: they are in no file of it, and the summary
// tells the person the name. Then an argument is erased.
func TestAuditRedactedAndErased(t *testing.T) {
	t.Parallel()
	const card = "4111 1111 1111 1111"
	r := harness.W.Run(t, harness.Box{Policy: harness.Files + `process:
  allow: [{command: sh}, {command: curl}]
audit: {redact: [financial, falcon]}
inference:
  custom: [{name: falcon, words: [falcon]}]
`}, "sh", "-c", "true pay with "+card+"; true mail to jane.doe@example.com; curl -sS -m 5 http://falcon.test/")
	if !strings.Contains(r.Err, "falcon.test") {
		t.Errorf("the summary does not name what was refused:\n%s", r.Err)
	}
	var all []byte
	for _, dir := range []string{r.AuditDir(), filepath.Dir(r.PolicyFile())} {
		files, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if b, err := os.ReadFile(f); err == nil && f != r.PolicyFile() {
				all = append(all, b...)
			}
		}
	}
	for text, want := range map[string]bool{card: false, "falcon.test": false, "[financial:card]": true, "[falcon:falcon].test": true, "jane.doe@example.com": true} {
		if strings.Contains(string(all), text) != want {
			t.Errorf("%q is in the run's files: %v", text, !want)
		}
	}
	file := auditFile(t, r)
	if out, ok := verify(t, file); !ok {
		t.Fatal(out)
	}
	erase := func(keys string) (string, error) {
		out, err := exec.Command(harness.W.Bin, "audit", "erase", "--match", "jane.doe@", "--reason", "asked for", "--yes", "--key-dir", keys, file).CombinedOutput()
		return string(out), err
	}
	other := harness.W.Run(t, harness.Box{Policy: harness.Exec}, "/workspace/probe", "sleep 0s").KeyDir()
	if out, err := erase(other); err == nil || !strings.Contains(out, "signed with another key") || !strings.Contains(out, "--key-dir") {
		t.Errorf("with the key of another log: %v: %s", err, out)
	}
	if out, err := erase(r.KeyDir()); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if out, err := exec.Command(harness.W.Bin, "audit", "verify", "--own", "--key-dir", r.KeyDir(), file).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	if out, ok := verify(t, file); !ok || !strings.Contains(out, "were erased") {
		t.Error(out)
	}
	if out, err := exec.Command(harness.W.Bin, "audit", "search", "--text", "jane", file).Output(); err != nil || len(out) > 0 {
		t.Errorf("%v: %s", err, out)
	}
}
