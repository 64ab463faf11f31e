//go:build e2e

package daemon

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
	"github.com/nemoclaw/nemoclaw/test/harness"
)

// upstream is a server outside that waits, once it has a request, until the test has looked at the disk.
type upstream struct {
	came, answer chan struct{}
}

func newUpstream() *upstream { return &upstream{make(chan struct{}), make(chan struct{})} }

func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	select {
	case u.came <- struct{}{}:
	case <-r.Context().Done():
		return
	}
	select {
	case <-u.answer:
	case <-r.Context().Done():
		return
	}
	_, _ = w.Write([]byte(`{"id":"c1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}]}`))
}

// decisions reads the live file of a log.
func decisions(t *testing.T, dir string) (list []policy.Decision) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "agent.jsonl"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		var d policy.Decision
		if err := json.Unmarshal(line, &d); err != nil {
			if bytes.HasSuffix(line, []byte("\n")) {
				t.Fatal(err)
			}
			break // torn
		}
		list = append(list, d)
	}
	return list
}

// has reports whether there is a decision to let something through.
func has(list []policy.Decision, plane policy.Plane, action, object string) bool {
	for _, d := range list {
		if d.Plane == plane && d.Action == action && d.Verdict == policy.Allow && strings.Contains(d.Object, object) {
			return true
		}
	}
	return false
}

const strict = harness.Files + "audit: {strict: true}\nprocess:\n  allow: [{command: sh}, {command: curl}]\n"

// TestStrict cuts the power at the moment at which a server outside has what the proxy, the router or a person let through: its record is
// on the disk. A daemon that is killed at that moment finds it too.
func TestStrict(t *testing.T) {
	t.Parallel()
	disk := harness.NewDisk(t, 32)
	d := harness.W.StartDaemon(t, "--audit", filepath.Join(disk.Dir, "audit"))
	c, ctx := dial(t, d)
	u := newUpstream()
	model := httptest.NewServer(u)
	defer model.Close()
	a, _ := harness.W.Addr()
	for _, n := range []string{"allowed.strict.test", "asked.strict.test"} {
		harness.W.DNS.Set(n, a)
	}
	harness.W.HTTP(t, a, 80, u)
	harness.W.HTTP(t, a, 7000, u)
	create(t, d, "box", strict+`network:
  allow: [{domain: allowed.strict.test, ports: [80], protocol: http}, {domain: allowed.strict.test, ports: [7000], protocol: tcp}]
  ask: [{domain: asked.strict.test, ports: [80], protocol: http}]
inference: {local: {model: ollama/one, url: "`+model.URL+`"}}
`)
	// The way in which it is looked: what nobody forced to the disk is not there.
	if err := os.WriteFile(filepath.Join(disk.Dir, "unforced"), []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(disk.PowerCut(t), "unforced")); err == nil && len(text) > 0 {
		t.Fatal("a power cut loses nothing, so this shows nothing")
	}
	chat := []string{"-d", `{"model":"x","messages":[{"role":"user","content":"hi"}]}`, "https://inference.local/v1/chat/completions"}
	for _, s := range []struct {
		name, action, object string
		plane                policy.Plane
		args                 []string
		ask, kill            bool
	}{
		{name: "http", plane: policy.PlaneNetwork, action: "connect", object: "allowed.strict.test:80", args: []string{"http://allowed.strict.test/"}},
		{name: "tcp", plane: policy.PlaneNetwork, action: "connect", object: "allowed.strict.test:7000", args: []string{"http://allowed.strict.test:7000/"}},
		{name: "model", plane: policy.PlaneInference, action: "send", object: "ollama/one", args: chat},
		{name: "person", plane: policy.PlaneSystem, action: "answer", object: "asked.strict.test:80", args: []string{"http://asked.strict.test/"}, ask: true},
		{name: "killed", plane: policy.PlaneInference, action: "send", object: "ollama/one", args: chat, kill: true},
	} {
		before := len(decisions(t, filepath.Join(disk.Dir, "audit")))
		p, err := c.Exec(ctx, "box", api.Exec{Args: append([]string{"curl", "-sS", "-m", "60"}, s.args...)}, [3]*os.File{})
		if err != nil {
			t.Fatal(err)
		}
		if s.ask {
			answer(t, c, request(t, c, s.object), api.NewAnswer{Verdict: "allow"})
		}
		<-u.came
		if s.kill {
			d.Kill()
		}
		there := decisions(t, filepath.Join(disk.PowerCut(t), "audit"))
		if len(there) <= before || !has(there[before:], s.plane, s.action, s.object) {
			t.Errorf("%s: the server has it, and the disk has no record of it: %+v", s.name, there[min(before, len(there)):])
		}
		if s.kill {
			p.Close()
			close(u.answer)
			break
		}
		u.answer <- struct{}{}
		if status, err := p.Wait(); status != 0 || err != nil {
			t.Errorf("%s: exit %d, %v", s.name, status, err)
		}
		p.Close()
	}
	d.Start(t)
	d.Do(t, "audit", "verify", filepath.Join(disk.Dir, "audit"))
}

// TestFullDisk: where the host says drop, a full disk ends no sandbox and keeps no daemon from starting; what is strict lets nothing through
// meanwhile, and says so. Once there is room, the log says how many records are not there, though the daemon was killed.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	disk := small(t)
	audit := filepath.Join(disk, "audit")
	d := harness.W.StartDaemon(t, "--audit", audit, "--audit-full", "drop")
	model := newModels(t)
	a, _ := harness.W.Addr()
	harness.W.DNS.Set("allowed.full.test", a)
	server := harness.W.HTTP(t, a, 80, harness.Hello)
	rest := "network: {allow: [{domain: allowed.full.test, ports: [80], protocol: http}]}\ninference: {local: {model: ollama/one, url: \"" + model.URL + "\"}}\n"
	create(t, d, "careful", strict+rest)
	create(t, d, "other", strings.Replace(strict, "strict: true", "strict: false", 1)+rest)
	get := func(box string) string {
		_, out, said := d.Call(t, box, "exec", "--", "curl", "-sS", "http://allowed.full.test/")
		return out + said
	}
	if out := get("careful"); !strings.Contains(out, "hello") {
		t.Fatal(out)
	}
	room := harness.Fill(t, disk)
	for range 1000 { // the last page has room for some
		if !strings.Contains(get("careful"), "hello") {
			break
		}
	}
	n := len(server.Requests())
	check := func() {
		t.Helper()
		if out := get("careful"); !strings.Contains(out, "could not be written down") || !strings.Contains(out, "make room") {
			t.Errorf("a connection: %s", out)
		}
		_, out, said := d.Call(t, "careful", "exec", "--", "curl", "-sS", "-d", `{"model":"x","messages":[{"role":"user","content":"hi"}]}`, "https://inference.local/v1/chat/completions")
		if out += said; !strings.Contains(out, "could not be written down") || !strings.Contains(out, "make room") {
			t.Errorf("a request to a model: %s", out)
		}
		if now := len(server.Requests()); now > n || model.asked() != "" {
			t.Errorf("what could not be written down went out")
		}
		if out := get("other"); !strings.Contains(out, "hello") {
			t.Errorf("one that is not strict: %s", out)
		}
		n = len(server.Requests())
	}
	check()
	d.Kill()
	d.Start(t) // without room
	check()
	room()
	until(t, "what is strict goes on", func() bool { return strings.Contains(get("careful"), "hello") })
	var lost, lines, last uint64
	for _, r := range decisions(t, audit) {
		lines, last = lines+1, r.Seq
		if r.Action == "lost" {
			lost += r.Count
			lines--
		}
	}
	if lost == 0 || lines+lost != last {
		t.Errorf("%d records are there and %d are counted as lost, of %d", lines, lost, last)
	}
	if out := d.Do(t, "audit", "verify", audit); !strings.Contains(out, "lost") {
		t.Errorf("verify says nothing of what was lost: %s", out)
	}
}
