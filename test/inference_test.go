//go:build e2e

package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/nemoclaw/nemoclaw/test/harness"
)

// model is a model server that answers with its name, as its API does, and keeps what it was asked.
type model struct {
	*httptest.Server
	mu  sync.Mutex
	got []string
}

func newModel(t *testing.T, api, says string) *model {
	m := &model{}
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		m.mu.Lock()
		m.got = append(m.got, r.Header.Get("Authorization")+r.Header.Get("X-Api-Key")+" "+string(body))
		m.mu.Unlock()
		var q struct{ Stream bool }
		_ = json.Unmarshal(body, &q)
		switch {
		case api == "ollama" && q.Stream:
			for _, word := range []string{says, " local"} {
				fmt.Fprintf(w, `{"model":"m","created_at":"2026-01-01T00:00:00Z","message":{"role":"assistant","content":%q},"done":false}`+"\n", word)
			}
			fmt.Fprintln(w, `{"model":"m","created_at":"2026-01-01T00:00:00Z","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","prompt_eval_count":3,"eval_count":4}`)
		case api == "ollama":
			fmt.Fprintf(w, `{"model":"m","created_at":"2026-01-01T00:00:00Z","message":{"role":"assistant","content":%q},"done":true,"done_reason":"stop","prompt_eval_count":3,"eval_count":4}`, says)
		case strings.Contains(string(body), "use a tool"):
			const call = `{"id":"c1","type":"function","function":{"name":"tool_call","arguments":"{\"id\":\"openclaw:core:exec\",\"args\":{\"command\":\"date\\u001b\"}}"}}`
			fmt.Fprintf(w, `{"id":"c1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":null,"tool_calls":[%s]},"finish_reason":"tool_calls"}],"usage":{"prompt_tokens":30,"completion_tokens":4,"total_tokens":34}}`, call)
		default:
			fmt.Fprintf(w, `{"id":"c1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":%q},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}`, says)
		}
	}))
	t.Cleanup(m.Close)
	return m
}

func (m *model) asked() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return strings.Join(m.got, "\n")
}

// TestInference has curl, python and node ask for models in every way in and every dialect, and a file with a secret stay here.
func TestInference(t *testing.T) {
	t.Parallel()
	local, cloud := newModel(t, "ollama", "from here"), newModel(t, "openai", "from the cloud")
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte("sk-outside-only\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	b := harness.Box{Policy: harness.Files + "process:\n  allow: [{command: sh}, {command: curl}, {command: cat}, {command: env}, {command: python3}, {command: node}]\n" +
		"inference:\n  local: {model: ollama/here, url: \"" + local.URL + "\"}\n  cloud: {model: corp/big, api: openai, url: \"" + cloud.URL + "\", key: {file: \"" + key + "\"}}\n"}
	const script = `set -e
openai='{"model":"x","messages":[{"role":"user","content":"hello"}]}'
secret='{"model":"x","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"my card is 4111 1111 1111 1111, expires 04/29"}]}'
post() { curl -sS -H 'Content-Type: application/json' -H 'Authorization: Bearer sk-from-inside' "$@"; echo; }
echo 1 $(post -d "$openai" https://inference.local/v1/chat/completions)
echo 2 $(post -d '{"model":"x","stream":false,"messages":[{"role":"user","content":"hello"}]}' http://inference.local/api/chat)
echo 3 $(post -d "$openai" -x http://proxy.nemoclaw.internal:3128 https://inference.local/v1/chat/completions)
echo 4 $(post -d "$openai" -x http://proxy.nemoclaw.internal:3128 http://inference.local/v1/chat/completions)
echo 5 $(post -d "$openai" -p -x http://proxy.nemoclaw.internal:3128 http://inference.local/v1/chat/completions)
echo 6 $(post -d "$secret" https://inference.local/v1/messages)
echo 7 $(python3 -c 'import urllib.request as u; print(u.urlopen("https://inference.local/v1/models").read().decode())')
echo 8 $(node -e 'fetch("https://inference.local/api/tags").then(r => r.text()).then(console.log)')
echo 9 $(post -d "$openai" https://inference.local/v1/files)
echo 10 $(curl -sS https://inference.local:8443/ 2>&1)
echo 11 $(env; cat /etc/nemoclaw-ca.pem)
`
	r := harness.W.Run(t, b, "sh", "-c", script)
	lines := map[string]string{}
	for line := range strings.Lines(r.Out) {
		n, rest, _ := strings.Cut(line, " ")
		lines[n] = rest
	}
	for n, want := range map[string]string{
		"1": "from the cloud", "2": "from the cloud", "3": "from the cloud", "4": "from the cloud", "5": "from the cloud",
		"6": `"text":"from here"`, "7": "corp/big", "8": "ollama/here", "9": "answers the APIs", "11": "BEGIN CERTIFICATE",
	} {
		if !strings.Contains(lines[n], want) {
			t.Errorf("request %s: %q, want %q", n, lines[n], want)
		}
	}
	if strings.Contains(r.Out+r.Err, "sk-outside-only") {
		t.Error("the key is inside, or on the terminal")
	}
	if got := cloud.asked(); strings.Contains(got, "4111") || strings.Contains(got, "from-inside") || strings.Count(got, "Bearer sk-outside-only") != 5 {
		t.Errorf("the cloud got %s", got)
	}
	if got := local.asked(); !strings.Contains(got, "4111") || strings.Contains(got, "sk-") {
		t.Errorf("the local model got %s", got)
	}
	var found bool
	for _, e := range r.Find("inference", "allow", "") {
		found = found || e.Object == "ollama/here" && strings.HasPrefix(e.Reason, "local: financial 1")
		if strings.Contains(e.Reason+e.Subject.Args, "4111") || strings.Contains(e.Reason, "sk-") {
			t.Errorf("a record says too much: %+v", e)
		}
	}
	if !found || t.Failed() {
		t.Errorf("stdout: %s\nstderr: %s\n%s", r.Out, r.Err, r.Dump())
	}
}

// TestInferenceRecords has a model ask for a tool, and its caller return what it gave, over and over.
func TestInferenceRecords(t *testing.T) {
	t.Parallel()
	local, cloud := newModel(t, "ollama", "from here"), newModel(t, "openai", "from the cloud")
	b := harness.Box{Policy: harness.Files + "process:\n  allow: [{command: sh}, {command: curl}]\n" +
		"inference:\n  log: matches\n  local: {model: ollama/here, url: \"" + local.URL + "\"}\n  cloud: {model: corp/big, api: openai, url: \"" + cloud.URL + "\"}\n"}
	const script = `set -e
post() { curl -sS -d "$1" http://inference.local/v1/chat/completions; echo; }
call='{"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"tool_call","arguments":"{\"id\":\"openclaw:core:exec\",\"args\":{\"command\":\"date\"}}"}}]}'
given='{"role":"tool","tool_call_id":"c1","content":"it is monday"}'
post '{"model":"gpt-x","messages":[{"role":"user","content":"please use a tool"}]}'
for n in 1 2 3; do post '{"model":"gpt-x","messages":[{"role":"user","content":"please"},'"$call,$given"']}'; done
post '{"model":"gpt-x","messages":[{"role":"user","content":"my card is 4111 1111 1111 1111, expires 04/29"}]}'
`
	r := harness.W.Run(t, b, "sh", "-c", script)
	var got []string
	for _, e := range r.Events {
		if e.Plane != "inference" {
			continue
		}
		i := e.Inference
		got = append(got, fmt.Sprint(e.Action, " ", e.Object, " ", i["route"], i["classes"], i["matches"], " ", i["tokens_in"], " ", i["tool"]))
	}
	want := []string{
		"request corp/big cloud<nil> <nil> 30 <nil>",
		"tool-call exec <nil> <nil> <nil> <nil> map[params:{\"command\":\"date\\u001b\"} params_bytes:24 through:[tool_call openclaw:core]]",
		"request corp/big cloud<nil> <nil> 3 <nil>",
		"tool-result exec <nil> <nil> <nil> <nil> map[params:{\"command\":\"date\"} params_bytes:18 result:it is monday result_bytes:12 through:[tool_call openclaw:core]]",
		"request corp/big cloud<nil> <nil> 3 <nil>",
		"request corp/big cloud<nil> <nil> 3 <nil>",
		"request ollama/here localmap[financial:1] [map[class:financial kind:card text:4111 1111 1111 1111]] 3 <nil>",
	}
	if !slices.Equal(got, want) {
		t.Errorf("the records are\n%s\n%s%s", strings.Join(got, "\n"), r.Out, r.Err)
	}
	if out, err := exec.Command(harness.W.Bin, "audit", "verify", r.AuditDir()).CombinedOutput(); err != nil {
		t.Errorf("the log: %s", out)
	}
}

// TestInferenceFlood has a caller return ten thousand results at once, with bytes that no terminal should see, and again.
func TestInferenceFlood(t *testing.T) {
	t.Parallel()
	cloud := newModel(t, "openai", "from the cloud")
	b := harness.Box{Policy: harness.Files + "process:\n  allow: [{command: python3}]\ninference:\n  cloud: {model: corp/big, api: openai, url: \"" + cloud.URL + "\"}\n"}
	const script = `
import json, urllib.request as u
m = [{"role": "user", "content": "hi"}]
for i in range(10000):
    f = {"name": "e\x1b[2J\u202e" + str(i), "arguments": json.dumps({"a\x00": "\x1b]0;x\x07" * 50})}
    m += [{"role": "assistant", "content": None, "tool_calls": [{"id": str(i), "type": "function", "function": f}]},
          {"role": "tool", "tool_call_id": str(i), "content": "gave \x9b" + str(i)}]
    if i % 5: m[-2]["tool_calls"][0]["function"]["arguments"] = "{}"
for n in range(3):
    u.urlopen(u.Request("http://inference.local/v1/chat/completions", json.dumps({"model": "x\x1b[2J", "messages": m}).encode(), {"Content-Type": "application/json"})).read()
`
	r := harness.W.Run(t, b, "python3", "-c", script)
	requests, records, results := 0, 0, uint64(0)
	for _, e := range r.Events {
		switch e.Action {
		case "request":
			requests++
		case "tool-result":
			records++
			results += max(e.Count, 1)
		}
	}
	if requests != 3 || records > 65 || results != 10000 {
		t.Errorf("%d requests, %d records of %d results: %.500s", requests, records, results, r.Err)
	}
	log, err := os.ReadFile(filepath.Join(r.AuditDir(), "run.jsonl"))
	if err != nil || len(log) > 1<<20 || bytes.ContainsFunc(log, func(c rune) bool { return c < 0x20 && c != '\n' || c == 0x9b || c == 0x202e }) {
		t.Errorf("a log of %d bytes, %v", len(log), err)
	}
	if out, err := exec.Command(harness.W.Bin, "audit", "verify", r.AuditDir()).CombinedOutput(); err != nil {
		t.Errorf("the log: %s", out)
	}
}

// TestInferenceTrust has programs that look at no variable trust the router, and tries to take its certificate away.
func TestInferenceTrust(t *testing.T) {
	t.Parallel()
	local := newModel(t, "ollama", "from here")
	var programs []string
	for _, p := range []string{"sh", "curl", "wget", "python3", "openssl", "cat", "env", "rm", "mv", "ln", "cp", "touch", "mount"} {
		programs = append(programs, "{command: "+p+"}")
	}
	b := harness.Box{Policy: harness.Files + "process:\n  allow: [" + strings.Join(programs, ", ") + "]\ninference:\n  local: {model: ollama/here, url: \"" + local.URL + "\"}\n"}
	const script = `url=https://inference.local/v1/models bundle=/etc/ssl/certs/ca-certificates.crt
echo curl $(env -i curl -sS $url)
echo wget $(env -i wget -qO- $url)
echo python $(env -i python3 -c "import urllib.request as u; print(u.urlopen('$url').read().decode())")
echo openssl $(env -i openssl s_client -connect inference.local:443 -verify_return_error </dev/null | cat)
echo without $(env -i curl -sS --cacert /workspace/ca.pem --capath /tmp $url 2>&1)
rm -f $bundle; mv $bundle /tmp/x; mv /etc/ssl /etc/x; ln -sf /tmp/x $bundle; cp /workspace/ca.pem $bundle; touch /etc/ssl/certs/new.pem; echo x >>$bundle; mount -t tmpfs x /etc/ssl
echo again $(env -i curl -sS $url)
echo last $(cat $bundle)
`
	host, err := os.ReadFile("/etc/ssl/certs/ca-certificates.crt")
	if err != nil {
		t.Fatal(err)
	}
	r := harness.W.Run(t, b, "sh", "-c", script)
	lines := map[string]string{}
	for line := range strings.Lines(r.Out) {
		n, rest, _ := strings.Cut(line, " ")
		lines[n] = rest
	}
	for n, want := range map[string]string{"curl": "ollama/here", "wget": "ollama/here", "python": "ollama/here", "openssl": "Verification: OK", "without": "certificate", "again": "ollama/here"} {
		if !strings.Contains(lines[n], want) {
			t.Errorf("%s: %q, want %q", n, lines[n], want)
		}
	}
	if n := strings.Count(lines["last"], "BEGIN CERTIFICATE") - strings.Count(string(host), "BEGIN CERTIFICATE"); n != 1 {
		t.Errorf("the bundle inside has %d certificates more than the host's", n)
	}
	if now, err := os.ReadFile("/etc/ssl/certs/ca-certificates.crt"); err != nil || string(now) != string(host) {
		t.Errorf("the host's bundle was changed: %v", err)
	}
	if t.Failed() {
		t.Errorf("stdout: %.2000s\nstderr: %s", r.Out, r.Err)
	}
}

// TestNoInference shows what a policy without the section gives, and what it is told.
func TestNoInference(t *testing.T) {
	t.Parallel()
	b := harness.Box{Policy: harness.Files + "process:\n  allow: [{command: sh}, {command: curl}]\n"}
	r := harness.W.Run(t, b, "curl", "-sS", "https://inference.local/v1/models")
	if r.Code == 0 || !strings.Contains(r.Err, "inference:") || !strings.Contains(r.Err, "ollama/") {
		t.Errorf("%d: %s%s", r.Code, r.Out, r.Err)
	}
}
