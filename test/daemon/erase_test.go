//go:build e2e

package daemon

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/nemoclaw/nemoclaw/test/harness"
)

// kept is all that a daemon's log has on the disk, decompressed too.
func kept(t *testing.T, d *harness.Daemon) []byte {
	t.Helper()
	dec, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	files, err := filepath.Glob(filepath.Join(d.AuditDir(), "*"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	var all []byte
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // it was replaced meanwhile
		}
		all = append(all, b...)
		if strings.HasSuffix(f, ".zst") {
			if b, err = dec.DecodeAll(b, nil); err != nil {
				t.Fatalf("%s: %v", f, err)
			}
			all = append(all, b...)
		}
	}
	return all
}

// whole verifies a daemon's log with the host's key.
func whole(t *testing.T, d *harness.Daemon) string {
	t.Helper()
	return d.Do(t, "audit", "verify", "--own", "--key-dir", filepath.Join(d.StateDir(), "audit"), filepath.Join(d.AuditDir(), "agent.jsonl"))
}

// TestRedactedAndErased: what a policy says is taken out is in no file and at no receiver, and the rule for it still decides; what was
// written down is erased while the daemon writes, is read and forwarded, and the log is whole before and after.
func TestRedactedAndErased(t *testing.T) {
	t.Parallel()
	a, _ := harness.W.Addr()
	harness.W.DNS.Set("falcon.redact.test", a)
	harness.W.HTTP(t, a, 80, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("hi")) }))
	e := newElastic(t)
	d := harness.W.PrepareDaemon(t)
	forwardTo(t, d, "{name: search, elastic: \""+e.URL+"\"}")
	d.Start(t)
	const card, jane = "4111 1111 1111 1111", "jane.doe@example.com"
	create(t, d, "careful", harness.Files+`process:
  allow: [{command: sh}, {command: curl}]
network:
  allow: [{domain: falcon.redact.test, ports: [80], protocol: http}]
audit: {redact: [financial, falcon]}
inference:
  custom: [{name: falcon, words: [falcon]}]
`)
	create(t, d, "box", shell)

	d.Do(t, "careful", "exec", "--", "sh", "-c", "true pay with "+card)
	if got := d.Do(t, "careful", "exec", "--", "curl", "-sS", "-m", "60", "http://falcon.redact.test/"); got != "hi" {
		t.Errorf("what a rule allows whose name is redacted: %q", got)
	}
	d.Do(t, "box", "exec", "--", "sh", "-c", "true mail to "+jane)
	d.Do(t, "box", "exec", "--", "sh", "-c", "true mail to somebody else")
	same(t, d, e.has)
	d.Verify(t)
	log := kept(t, d)
	for text, want := range map[string]bool{card: false, "[financial:card]": true, "[falcon:falcon].redact.test": true, "falcon.redact": false, jane: true} {
		if bytes.Contains(log, []byte(text)) != want {
			t.Errorf("%q is in the log: %v", text, !want)
		}
	}

	plan := d.Do(t, "audit", "erase", "--match", jane, "--dry-run", d.AuditDir())
	out := d.Do(t, "audit", "erase", "--match", "Jane.Doe@example.com", "--reason", "request 2026-117", "--yes", d.AuditDir())
	t.Log(plan + out)
	if !strings.Contains(plan, jane) || !strings.Contains(out, "are erased") {
		t.Errorf("%s%s", plan, out)
	}
	if log = kept(t, d); bytes.Contains(log, []byte(jane)) || !bytes.Contains(log, []byte("somebody else")) {
		t.Errorf("%s is there: %v; what was not named is gone: %v", jane, bytes.Contains(log, []byte(jane)), !bytes.Contains(log, []byte("somebody else")))
	}
	t.Log(whole(t, d))
	d.Do(t, "box", "exec", "--", "sh", "-c", "true once more")
	same(t, d, e.has)
	if out := d.Do(t, "audit", "search", "--plane", "system", "--text", "request 2026-117", d.AuditDir()); !strings.Contains(out, "system erase") || !strings.Contains(out, "request 2026-117, by root") {
		t.Errorf("it is not written down: %s", out)
	}
	d.Kill()
	d.Start(t)
	t.Log(whole(t, d))
	d.Verify(t)
}

// has are the records that came, by number.
func (e *elastic) has() map[string]string {
	e.mu.Lock()
	defer e.mu.Unlock()
	got := map[string]string{}
	for k, v := range e.docs {
		got[k] = v
	}
	return got
}

// TestEraseKilled: the daemon, and the command where there is no daemon, are killed while they erase. The log is whole after each, and
// the same command ends what was begun.
func TestEraseKilled(t *testing.T) {
	t.Parallel()
	d := harness.W.StartDaemon(t)
	create(t, d, "box", shell)
	for i := range 8 {
		name := fmt.Sprintf("person-%d@example.com", i)
		for range 6 {
			d.Call(t, "box", "exec", "--", "sh", "-c", "true mail to "+name)
			attempt(t, d, "box")
		}
		args := []string{"audit", "erase", "--match", name, "--reason", "asked for", "--yes", "--key-dir", filepath.Join(d.StateDir(), "audit"), d.AuditDir()}
		if i%2 == 0 {
			cmd := d.Command(args...)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Duration(rand.IntN(80)) * time.Millisecond)
			d.Kill()
			_ = cmd.Wait()
			d.Start(t)
		} else {
			d.Kill()
			cmd := d.Command(args...)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Duration(rand.IntN(80)) * time.Millisecond)
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			whole(t, d)
			d.Do(t, args...)
			d.Start(t)
		}
		whole(t, d)
		d.Do(t, args...)
		if bytes.Contains(kept(t, d), []byte(name)) {
			t.Errorf("%s is still there", name)
		}
	}
	var r []struct {
		OK     bool
		Erased int
	}
	out := d.Do(t, "audit", "verify", "--own", "--key-dir", filepath.Join(d.StateDir(), "audit"), "-o", "json", d.AuditDir())
	if err := json.Unmarshal([]byte(out), &r); err != nil || len(r) != 1 || !r[0].OK || r[0].Erased < 48 {
		t.Errorf("%v: %s", err, out)
	}
	d.Verify(t)
}
