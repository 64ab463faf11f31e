//go:build e2e

package daemon

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/test/harness"
)

// TestAuditReport makes the report of what a sandbox really did: what a rule allowed, what a person did, what was denied, with a hostile
// name among it. A copy of the log in which one word was changed gives a report that says so, and a status.
func TestAuditReport(t *testing.T) {
	t.Parallel()
	d := harness.W.StartDaemon(t)
	c, ctx := dial(t, d)
	a, _ := harness.W.Addr()
	for _, n := range []string{"allowed.report.test", "asked.report.test"} {
		harness.W.DNS.Set(n, a)
	}
	harness.W.HTTP(t, a, 80, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("hi")) }))
	create(t, d, "box", harness.Files+`process:
  allow: [{command: sh}, {command: curl}]
network:
  allow: [{domain: allowed.report.test, ports: [80], protocol: http}]
  ask: [{domain: asked.report.test, ports: [80], protocol: http}]
`)
	curl := func(url string) []string { return []string{"curl", "-sS", "-m", "60", url} }
	d.Do(t, append([]string{"box", "exec", "--"}, curl("http://allowed.report.test/")...)...)
	p, err := c.Exec(ctx, "box", api.Exec{Args: curl("http://asked.report.test/")}, [3]*os.File{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	answer(t, c, request(t, c, "asked.report.test:80"), api.NewAnswer{Verdict: "allow"})
	if status, err := p.Wait(); status != 0 || err != nil {
		t.Fatalf("exit %d, %v", status, err)
	}
	d.Call(t, append([]string{"box", "exec", "--"}, curl("http://denied.report.test/")...)...)
	d.Call(t, "box", "exec", "--", "sh", "-c", "/workspace/'<img src=x>|`x`'")
	key, log := filepath.Join(d.StateDir(), "audit"), filepath.Join(d.AuditDir(), "agent.jsonl")

	d.End(syscall.SIGTERM) // the last checkpoint is at the end
	for _, f := range []string{"hipaa", "gdpr", "soc2"} {
		md := d.Do(t, "audit", "report", "--framework", f, "--key-dir", key, "--sandbox", "box", log)
		for _, want := range []string{"each of its records here is signed for with this host's key", "`allowed.report.test:80`", "`asked.report.test:80`", "denied.report.test", "uid 0", "What was let through because of an answer"} {
			if !strings.Contains(md, want) {
				t.Errorf("%s does not say %q:\n%s", f, want, md)
			}
		}
		if strings.Contains(md, "an answer to another attempt") {
			t.Errorf("%s does not know who allowed what:\n%s", f, md)
		}
		if f == "soc2" {
			t.Log(md)
		}
	}
	page := filepath.Join(d.Dir, "report.html")
	d.Do(t, "audit", "report", "--framework", "soc2", "--key-dir", key, "--format", "html", "--output", page, log)
	text, err := os.ReadFile(page)
	if err != nil || !bytes.Contains(text, []byte("default-src 'none'")) || bytes.Contains(text, []byte("<img")) || bytes.Contains(text, []byte("<script")) {
		t.Errorf("the page, %v:\n%s", err, text)
	}
	if status, _, said := d.Call(t, "audit", "report", "--framework", "soc2", "--output", page, log); status != 1 || !strings.Contains(said, "exists") {
		t.Errorf("over a file that is there: %d %s", status, said)
	}
	if status, _, _ := d.Call(t, "audit", "report", log); status != 2 {
		t.Errorf("without a framework: %d", status)
	}

	forged := filepath.Join(d.Dir, "forged.jsonl")
	if text, err = os.ReadFile(log); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(forged, bytes.ReplaceAll(text, []byte("denied.report.test"), []byte("nobody.report.test")), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, md, said := d.Call(t, "audit", "report", "--framework", "soc2", forged); status != 1 || !strings.Contains(md, "**FAILED.**") || !strings.Contains(said, "not whole") {
		t.Errorf("a log that was changed: %d %s\n%s", status, said, md)
	}
}

// TestReport makes the report of what a sandbox did today, from the daemon, while it runs: what was reached, refused and answered, what was
// started from outside, what a model took, in both forms.
func TestReport(t *testing.T) {
	t.Parallel()
	d := harness.W.StartDaemon(t)
	c, ctx := dial(t, d)
	a, _ := harness.W.Addr()
	for _, n := range []string{"allowed.today.test", "asked.today.test"} {
		harness.W.DNS.Set(n, a)
	}
	harness.W.HTTP(t, a, 80, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("hi")) }))
	cloud := newModels(t)
	create(t, d, "box", harness.Files+"inference:\n  cloud: {model: corp/big, api: openai, url: \""+cloud.URL+"\", price: {input: 1000, output: 2000}}\n"+`process:
  allow: [{command: sh}, {command: curl}]
network:
  allow: [{domain: allowed.today.test, ports: [80], protocol: http}]
  ask: [{domain: asked.today.test, ports: [80], protocol: http}]
`)
	curl := func(url string) []string { return []string{"curl", "-sS", "-m", "60", url} }
	d.Do(t, append([]string{"box", "exec", "--"}, curl("http://allowed.today.test/")...)...)
	p, err := c.Exec(ctx, "box", api.Exec{Args: curl("http://asked.today.test/")}, [3]*os.File{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	answer(t, c, request(t, c, "asked.today.test:80"), api.NewAnswer{Verdict: "allow"})
	if status, err := p.Wait(); status != 0 || err != nil {
		t.Fatalf("exit %d, %v", status, err)
	}
	d.Call(t, append([]string{"box", "exec", "--"}, curl("http://denied.today.test/")...)...)
	d.Call(t, "box", "exec", "--", "sh", "-c", "curl 'http://<img src=x>/'; /workspace/'<img src=x>|`x`'")
	d.Do(t, "box", "exec", "--", "curl", "-sS", "-d", `{"model":"x","max_tokens":100,"messages":[{"role":"user","content":"hello"}]}`, "https://inference.local/v1/chat/completions")

	md := d.Do(t, "box", "report", "--format", "md")
	t.Log(md)
	for _, want := range []string{
		"# What box did\n", "It is running now", "`start`", "`allowed.today.test:80`", "`asked.today.test:80`", "denied.today.test", "`curl -sS -m 60 http://allowed.today.test/`", "started by",
		"What was let through because of an answer", "uid 0", "| `corp/big` | `cloud` | allow | 1 |", "It has no GPU now.", "No record tells of the time on a GPU",
	} {
		if !strings.Contains(strings.ReplaceAll(md, `\`, ""), want) {
			t.Errorf("the report does not say %q", want)
		}
	}
	page := filepath.Join(d.Dir, "today.html")
	d.Do(t, "box", "report", "--since", "24h", "--output", page)
	text, err := os.ReadFile(page)
	if err != nil || !bytes.Contains(text, []byte("default-src 'none'")) || !bytes.Contains(text, []byte(`<svg class="chart" role="img"`)) || bytes.Contains(text, []byte("<img")) || bytes.Contains(text, []byte("<script")) {
		t.Errorf("the page, %v:\n%s", err, text)
	}
	if info, err := os.Stat(page); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the page's mode: %v, %v", info, err)
	}
	if status, out, said := d.Call(t, "box", "report", "--output", page); status != 1 || out != "" || !strings.Contains(said, "exists") {
		t.Errorf("over a file that is there: %d %s", status, said)
	}
	if status, _, said := d.Call(t, "none", "report"); status != 1 || !strings.Contains(said, "none") {
		t.Errorf("of no sandbox: %d %s", status, said)
	}
	if status, _, _ := d.Call(t, "box", "report", "--format", "pdf"); status != 2 {
		t.Errorf("in no form: %d", status)
	}
	// What was before is not in it.
	if md := d.Do(t, "box", "report", "--since", "0s", "--format", "md"); !strings.Contains(md, "There is no record of this time") || strings.Contains(md, "today.test") {
		t.Errorf("since now:\n%s", md)
	}
}
