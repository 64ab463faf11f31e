//go:build e2e

package test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/test/harness"
)

// own verifies logs with the key and the heads of a directory, as root of the host does with --own.
func own(t *testing.T, keys string, logs ...string) (string, bool) {
	t.Helper()
	out, err := exec.Command(harness.W.Bin, append([]string{"audit", "verify", "--own", "--key-dir", keys}, logs...)...).CombinedOutput()
	return string(out), err == nil
}

// public is the public half of a directory's key.
func public(t *testing.T, keys string) string {
	t.Helper()
	out, err := exec.Command(harness.W.Bin, "audit", "key", "--key-dir", keys).CombinedOutput()
	if err != nil {
		t.Fatalf("audit key: %v: %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

// TestRunIsSigned: the log of a run is signed to its last record, with a key that only root can read, and whoever may write the log can
// neither write it anew, nor cut it short, nor take the signatures away.
func TestRunIsSigned(t *testing.T) {
	t.Parallel()
	r, _ := harness.W.Probe(t, harness.Box{}, "tcp 198.51.100.1 1", "tcp 198.51.100.1 2")
	log := auditFile(t, r)
	if out, ok := own(t, r.KeyDir(), log); !ok || !strings.Contains(out, "signed, all of it") {
		t.Fatalf("the log as written: %s", out)
	}
	key := public(t, r.KeyDir())
	if out, err := exec.Command(harness.W.Bin, "audit", "verify", "--key", key, log).CombinedOutput(); err != nil || !strings.Contains(string(out), "signed, all of it") {
		t.Errorf("with the public key alone: %v: %s", err, out)
	}
	for _, name := range []string{r.KeyDir(), filepath.Join(r.KeyDir(), "key.pem")} {
		if st, err := os.Stat(name); err != nil || st.Mode().Perm()&0o077 != 0 {
			t.Errorf("others than root may look into %s: %v, %v", name, st.Mode(), err)
		}
	}
	if out, err := exec.Command(harness.W.Bin, "audit", "report", "--framework", "soc2", "--key-dir", r.KeyDir(), log).CombinedOutput(); err != nil || !strings.Contains(string(out), "this host's key") {
		t.Errorf("the report: %v: %s", err, out)
	}
	other, _ := harness.W.Probe(t, harness.Box{}, "tcp 198.51.100.2 1")
	for name, forge := range map[string]struct {
		do   func(dir string)
		want string
	}{
		"written anew, with signatures of another key": {func(dir string) { copied(t, other.AuditDir(), dir) }, "is not signed with the key"},
		"without its signatures":                       {func(dir string) { remove(t, dir, "run.jsonl.sig") }, "unsigned"},
		"gone, but for its signatures":                 {func(dir string) { remove(t, dir, "run.jsonl") }, "run.jsonl"},
		"an earlier state of it": {func(dir string) {
			for _, name := range []string{"run.jsonl", "run.jsonl.sig"} { // its first record, and the checkpoint of it
				b, err := os.ReadFile(filepath.Join(dir, name))
				if err != nil {
					t.Fatal(err)
				}
				first, _, _ := strings.Cut(string(b), "\n")
				if err := os.WriteFile(filepath.Join(dir, name), []byte(first+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			remove(t, dir, "run.jsonl.head")
		}, "records"},
	} {
		t.Run(name, func(t *testing.T) {
			// The log stays where it is: the head that is kept with the key is that of the log at this place.
			saved := filepath.Join(t.TempDir(), "audit")
			copied(t, r.AuditDir(), saved)
			defer copied(t, saved, r.AuditDir())
			forge.do(r.AuditDir())
			if out, ok := own(t, r.KeyDir(), log); ok || !strings.Contains(out, forge.want) {
				t.Errorf("%s; want %q", out, forge.want)
			}
		})
	}
	if out, ok := own(t, r.KeyDir(), log); !ok {
		t.Errorf("the log in its place again: %s", out)
	}
}

// copied makes a directory what another one is.
func copied(t *testing.T, from, to string) {
	t.Helper()
	if err := os.RemoveAll(to); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, dir, name string) {
	t.Helper()
	if err := os.Remove(filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

// TestRunsAtOnceAreSigned: runs that begin at the same time with no key yet agree on one, and each signs its own log.
func TestRunsAtOnceAreSigned(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	logs, keys := filepath.Join(dir, "audit"), filepath.Join(dir, "key")
	var runs []*harness.Session
	for range 3 {
		runs = append(runs, harness.W.Start(t, harness.Box{Flags: []string{"--audit", logs, "--key-dir", keys}}, "/workspace/probe", "sleep 2s"))
	}
	for _, s := range runs {
		if r := s.Wait(t, 0); r.Code != 0 {
			t.Errorf("a run of several\n%s", r.Dump())
		}
	}
	out, ok := own(t, keys, logs)
	if !ok || strings.Count(out, "signed, all of it") != strings.Count(out, "\n") || !strings.Contains(out, "run.jsonl: ok") {
		t.Errorf("the logs of three runs: %s", out)
	}
}

// TestKilledRunIsSigned kills runs where no time was for a last checkpoint: what is there verifies, and the next run goes on with it.
func TestKilledRunIsSigned(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	logs, keys := filepath.Join(dir, "audit"), filepath.Join(dir, "key")
	flags := []string{"--audit", logs, "--key-dir", keys, "--run-dir", filepath.Join(dir, "run")} // each run sweeps what the killed one left
	for range 4 {
		s := harness.W.Start(t, harness.Box{Flags: flags}, "/workspace/probe", "tcp 198.51.100.1 1", "sleep 1m")
		running(t, s)
		log := filepath.Join(logs, "run.jsonl")
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			if b, err := os.ReadFile(log); err == nil && len(b) > 0 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("nothing is written down")
			}
		}
		if err := s.Cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = s.Cmd.Wait() // killed, as asked
		if out, ok := own(t, keys, logs); !ok || !strings.Contains(out, "signed") {
			t.Errorf("after a kill: %s", out)
		}
	}
	r := harness.W.Run(t, harness.Box{Flags: flags}, "/workspace/probe", "exit 0")
	if out, ok := own(t, keys, logs); r.Code != 0 || !ok || !strings.Contains(out, "signed, all of it") {
		t.Errorf("after the next run: %s\n%s", out, r.Dump())
	}
}

// TestKeyIsOutOfReach: a sandbox whose policy lets it read the directory that the key is in can't read the key, nor what is kept with it.
func TestKeyIsOutOfReach(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("/srv", "nemoclaw-key-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(filepath.Join(dir, "beside"), []byte("beside it\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	keys := filepath.Join(dir, "key")
	box := harness.Box{
		Policy: "filesystem:\n  allow:\n    - {path: " + dir + ", permissions: [read]}\nprocess:\n  allow:\n    - {command: cat}\n    - {command: find}\n",
		Flags:  []string{"--key-dir", keys},
	}
	if r := harness.W.Run(t, box, "cat", filepath.Join(dir, "beside"), filepath.Join(keys, "key.pem")); r.Code == 0 || !strings.Contains(r.Out, "beside it") || strings.Contains(r.Out, "PRIVATE") {
		t.Errorf("reading it\n%s", r.Dump())
	}
	if r := harness.W.Run(t, box, "find", dir); strings.Contains(r.Out, "key.pem") || strings.Contains(r.Out, ".head") || !strings.Contains(r.Out, "beside") {
		t.Errorf("looking for it\n%s", r.Dump())
	}
	if public(t, keys) == "" {
		t.Error("there is no key")
	}
}
