package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/audit"
	"github.com/nemoclaw/nemoclaw/policy"
)

// written makes a log of 20 records, in which two have Jane's address, one of them with a control character.
func written(t *testing.T, dir, chain string, o audit.Options) {
	t.Helper()
	log, err := audit.OpenChain(dir, chain, "", o)
	if err != nil {
		t.Fatal(err)
	}
	for seq := uint64(1); seq <= 20; seq++ {
		d := policy.Decision{Seq: seq, Time: time.Now(), Sandbox: "box", Plane: policy.PlaneNetwork, Action: "connect", Object: fmt.Sprintf("host-%d.example:443", seq), Verdict: policy.Deny}
		switch seq {
		case 7:
			d.Subject.Args = "curl -d Jane@Example.com"
		case 19:
			d.Object = "jane@example.com\x1b[2J"
		}
		if err := errors.Join(log.Append(&d), log.Flush()); err != nil {
			t.Fatal(err)
		}
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
}

func erases(t *testing.T, status int, args ...string) (stdout, stderr string) {
	t.Helper()
	got, stdout, stderr := call(t, append([]string{"audit", "erase"}, args...)...)
	if got != status {
		t.Fatalf("%v: status %d, want %d: %s%s", args, got, status, stdout, stderr)
	}
	return stdout, stderr
}

func TestAuditErase(t *testing.T) {
	keys, dir := t.TempDir(), t.TempDir()
	key, err := audit.OpenSigner(keys)
	if err != nil {
		t.Fatal(err)
	}
	written(t, dir, "agent", audit.Options{Signer: key, Rotate: 2000})
	log := filepath.Join(dir, "agent.jsonl")
	all := []string{"--key-dir", keys, dir}
	before := len(read(t, log))

	out, _ := erases(t, 0, append(all, "--match", "jane@example.com", "--dry-run")...)
	for _, want := range []string{"the texts of 2 records can be erased: 7,19", "agent.000002.jsonl.zst: 1", "curl -d Jane@Example.com", "agent.jsonl: 1", "host-7.example:443", `jane@example.com\x1b[2J`} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in %s", want, out)
		}
	}
	if strings.Contains(out, "\x1b") || len(read(t, log)) != before {
		t.Errorf("a dry run: %q", out)
	}

	// Nobody agreed; the key isn't there; another writes the log.
	if _, errs := erases(t, 2, append(all, "--match", "jane@", "--reason", "request 7")...); !strings.Contains(errs, "--yes") {
		t.Error(errs)
	}
	if _, errs := erases(t, 1, dir, "--key-dir", t.TempDir(), "--match", "jane@", "--reason", "request 7", "--yes"); !strings.Contains(errs, "nothing was erased") {
		t.Error(errs)
	}
	w, err := audit.OpenChain(dir, "agent", "", audit.Options{Signer: key})
	if err != nil {
		t.Fatal(err)
	}
	_, errs := erases(t, 1, append(all, "--match", "jane@", "--reason", "request 7", "--yes", "--socket", filepath.Join(dir, "none"))...)
	if err := w.Close(); err != nil || !strings.Contains(errs, "in use by") || !strings.Contains(errs, "nothing was erased") {
		t.Error(errs, err)
	}

	out, _ = erases(t, 0, append(all, "--match", "jane@example.com", "--reason", "request 7", "--yes")...)
	if !strings.Contains(out, "the texts of 2 records are erased") {
		t.Error(out)
	}
	out, _ = erases(t, 0, append(all, "--seq", "7,8,21", "--reason", "request 7", "--yes", "-o", "json")...)
	var results []struct {
		Erased         bool
		Records        string
		Count          uint64
		Already, Keeps uint64
	}
	if err := json.Unmarshal([]byte(out), &results); err != nil || len(results) != 1 || !results[0].Erased || results[0].Records != "8" || results[0].Already != 1 || results[0].Keeps != 1 {
		t.Errorf("%v: %s", err, out)
	}
	if out, _ := erases(t, 0, append(all, "--match", "jane@example.com", "--reason", "request 7", "--yes")...); !strings.Contains(out, "there is nothing to erase") {
		t.Error(out)
	}

	status, out, errs := call(t, "audit", "verify", "--own", "--key-dir", keys, log)
	if status != 0 || !strings.Contains(out, "the texts of 3 were erased") || !strings.Contains(out, "signed, all of it") {
		t.Errorf("status %d, %s%s", status, out, errs)
	}
	if status, out, _ := call(t, "audit", "search", "--text", "[erased]", dir); status != 0 || strings.Count(out, "\n") != 3 {
		t.Errorf("status %d, %s", status, out)
	}
	if status, out, _ := call(t, "audit", "verify", filepath.Join(dir, "agent.000002.jsonl.zst")); status != 0 || !strings.Contains(out, "no record in this file says so") {
		t.Errorf("status %d, %s", status, out)
	}
	if _, out, _ := call(t, "audit", "export", dir); strings.Contains(strings.ToLower(out), "jane") {
		t.Errorf("it is still there: %s", out)
	}
}

func TestAuditEraseUsage(t *testing.T) {
	dir := t.TempDir()
	written(t, dir, "run", audit.Options{})
	written(t, dir, "run-2", audit.Options{})
	for want, args := range map[string][]string{
		"one of --match and --seq": {"--reason", "x", dir},
		"one of --match":           {"--match", "x", "--seq", "1", "--reason", "x", dir},
		"say --reason":             {"--match", "x", dir},
		"has the text in it":       {"--match", "Jane", "--reason", "for jane", dir},
		"shows no plan":            {"--match", "x", "--reason", "r", "-o", "json", dir},
		"want numbers":             {"--seq", "a", "--reason", "x", dir},
		"are those of one log":     {"--seq", "1", "--reason", "x", dir},
		"want a duration":          {"--match", "jane", "--since", "x", "--reason", "x", dir},
		"name a log by its":        {"--match", "jane", "--reason", "x", filepath.Join(dir, "run.jsonl.head")},
	} {
		if _, errs := erases(t, 2, args...); !strings.Contains(errs, want) {
			t.Errorf("%v: %s", args, errs)
		}
	}
	if _, errs := erases(t, 1, "--seq", "21", "--reason", "x", filepath.Join(dir, "run.jsonl")); !strings.Contains(errs, "there is no record 21") {
		t.Error(errs)
	}
	// Both logs of runs, which nobody writes and no key signs.
	if out, _ := erases(t, 0, "--match", "jane", "--sandbox", "box", "--since", "1h", "--reason", "x", "--yes", dir); strings.Count(out, "the texts of 2 records are erased") != 2 {
		t.Error(out)
	}
	if status, out, _ := call(t, "audit", "verify", dir); status != 0 || strings.Count(out, "the texts of 2 were erased") != 2 {
		t.Error(out)
	}
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
