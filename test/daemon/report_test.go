//go:build e2e

package daemon

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/gpu"
	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
	"github.com/nemoclaw/nemoclaw/test/fakenvml"
	"github.com/nemoclaw/nemoclaw/test/harness"
)

// TestAuditReport makes the report of what a sandbox really did: what a rule allowed, what a person did, what was denied, with a hostile
// name among it. A copy of the log in which one word was changed gives a report that says so, and a status.
func TestAuditReport(t *testing.T) {
	t.Parallel()
	d := harness.W.StartDaemon(t)
	key, log := filepath.Join(d.StateDir(), "audit"), filepath.Join(d.AuditDir(), "agent.jsonl")
	// It has only just started for the first time, and its log is signed all the same.
	d.Do(t, "audit", "verify", "--own", "--key-dir", key, log)
	d.Do(t, "audit", "report", "--framework", "soc2", "--key-dir", key, log)
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
		"What was let through because of an answer", "uid 0", "| `corp/big` | `cloud` | allow | 1 |", "It had no GPU in this time.",
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

// TestReportGPUs: what a sandbox had of its GPUs is in the log when it ends, over a daemon that was killed, and in the report, also while it
// runs; what the driver does not tell is said to be not known.
func TestReportGPUs(t *testing.T) {
	t.Parallel()
	d, host := gpuDaemon(t)
	create(t, d, "box", shell+"devices: {gpus: [0, "+fakenvml.Part+"]}\n")
	c, _ := dial(t, d)
	if log := d.Do(t, "box", "logs", "--plane", "system"); !strings.Contains(log, "system gpu "+fakenvml.First+": given for this run: GPU 0 \"NVIDIA H200\"") {
		t.Errorf("the start has no record of the GPU:\n%s", log)
	}
	use := func() {
		pid := get(t, c, "box").PID
		host.Say(t, fakenvml.Devices[0], fmt.Sprintf("process pid=%d used=1073741824 sm=60", pid), fakenvml.Devices[2], fakenvml.Devices[3], fmt.Sprintf("process pid=%d used=268435456 gi=7 ci=0", pid))
	}
	metered := func() bool {
		g := get(t, c, "box").GPUs
		return len(g) == 2 && g[0].Time != nil && g[0].Time.Busy > 0 && g[1].Time != nil && g[1].Time.Memory != nil && *g[1].Time.Memory == 1<<28
	}
	use()
	until(t, "the daemon has looked at what it takes", metered)
	md := strings.ReplaceAll(d.Do(t, "box", "report", "--format", "md"), `\`, "")
	for _, want := range []string{"GPU hours busy: **0.", "| 0 | `NVIDIA H200` | `" + fakenvml.First + "` | 0.", " 1024.0 MiB | 1024.0 MiB | 60 % |", "| 2 | `NVIDIA H200 MIG 1g.18gb` | `" + fakenvml.Part + "` |", " 256.0 MiB | 256.0 MiB | not known |", "the driver did not say how busy it was"} {
		if !strings.Contains(md, want) {
			t.Errorf("the report does not say %q:\n%s", want, md)
		}
	}

	d.Kill() // what was not written down is lost, and nothing else
	d.Start(t)
	use()
	until(t, "the next daemon has looked at what it takes", metered)
	d.Do(t, "stop", "box")
	t.Log(d.Do(t, "box", "logs", "--plane", "system"))
	records := 0
	for line := range strings.Lines(d.Do(t, "box", "logs", "--plane", "system", "-o", "json")) {
		var r policy.Decision
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		if r.Action != gpu.Action || r.Object != fakenvml.First {
			continue
		}
		if _, used, err := gpu.ReadUsed(r.Reason); err == nil {
			records++
			if used.Busy == 0 || used.Busy > used.Measured || used.Measured > used.Given || used.Memory == nil || *used.Memory != 1<<30 {
				t.Errorf("%q", r.Reason)
			}
		}
	}
	if records == 0 {
		t.Error("the stop has no record of what the GPU was used for")
	}
	if md = d.Do(t, "box", "report", "--format", "md"); !strings.Contains(md, "1024.0 MiB | - | - |") {
		t.Errorf("the report of one that was stopped:\n%s", md)
	}
	if md = d.Do(t, "box", "report", "--format", "md", "--since", "2026-01-01", "--until", "2026-01-02"); !strings.Contains(md, "It had no GPU in this time.") || !strings.Contains(md, "There is no record of this time") {
		t.Errorf("of another time:\n%s", md)
	}
	if status, _, said := d.Call(t, "box", "report", "--since", "2026-01-02", "--until", "2026-01-01"); status != 2 || !strings.Contains(said, "--until 2026-01-01 is not after --since 2026-01-02") {
		t.Errorf("of no time: %d %s", status, said)
	}
}

// TestReportChanges: the files that a sandbox made and changed are in its report, by the names that it has for them, with hostile ones among
// them, and nothing that its links point to; of one that was stopped there is the workspace.
func TestReportChanges(t *testing.T) {
	t.Parallel()
	d := harness.W.StartDaemon(t)
	create(t, d, "box", shell+"    - {command: mkdir}\n    - {command: ln}\n    - {command: mkfifo}\n")
	c, ctx := dial(t, d)
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "SECRET"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d.Do(t, "box", "exec", "--", "sh", "-c", `set -e; cd /workspace; mkdir sub; echo hello > sub/made; echo x > 'a
b<img src=x>'; ln -s `+outside+` out; ln -s / root; ln -s /proc/self/root magic; mkfifo fifo; echo in-home > ~/note; echo t > /tmp/t`)
	found, err := c.Changes(ctx, "box", time.Time{}, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"/workspace/sub/made": "file", "/workspace/a\nb<img src=x>": "file", "/workspace/out": "link", "/workspace/root": "link", "/workspace/magic": "link", "/workspace/fifo": "fifo", policy.Home + "/note": "file", "/tmp/t": "file"}
	for _, f := range found.Files {
		if k := want[f.Path]; k == f.Kind && f.What == api.Added {
			delete(want, f.Path)
		}
		if strings.Contains(f.Path, "SECRET") || strings.HasPrefix(f.Path, "/workspace/root/") {
			t.Errorf("it looks outside: %q", f.Path)
		}
	}
	if len(want) > 0 || found.Cut != "" || found.Unread != 0 {
		t.Errorf("not found: %q, in %+v", want, found)
	}
	md := strings.ReplaceAll(d.Do(t, "box", "report", "--format", "md"), `\`, "")
	t.Log(md)
	for _, w := range []string{"| added | file | `/workspace/sub/made` | 6 B |", "| `/workspace/anb<img src=x>` |", "| added | file | `" + policy.Home + "/note` |", "files added or changed"} {
		if !strings.Contains(md, w) {
			t.Errorf("the report does not say %q", w)
		}
	}
	d.Do(t, "stop", "box")
	if found, err = c.Changes(ctx, "box", time.Time{}, time.Time{}); err != nil || !slices.Equal(found.Places, []string{"/workspace"}) || len(found.Missed) != len(policy.PrivateDirs) || found.Added < 6 {
		t.Errorf("of one that was stopped: %+v, %v", found, err)
	}
	if found, err = c.Changes(ctx, "box", time.Now().Add(time.Hour), time.Time{}); err != nil || len(found.Files) != 0 {
		t.Errorf("of what is to come: %+v, %v", found, err)
	}
	if _, err = c.Changes(ctx, "nobox", time.Time{}, time.Time{}); err == nil {
		t.Error("of a sandbox that there is not")
	}
}
