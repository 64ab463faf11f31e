//go:build e2e

package daemon

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/test/harness"
)

// models is a server that speaks as OpenAI's and Ollama's do, and keeps what it was asked last.
type models struct {
	*httptest.Server
	mu   sync.Mutex
	last string
}

func newModels(t *testing.T) *models {
	m := &models{}
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		m.mu.Lock()
		m.last = r.URL.Path + " " + r.Header.Get("Authorization") + " " + string(body)
		m.mu.Unlock()
		if r.URL.Path == "/api/chat" {
			fmt.Fprint(w, `{"model":"m","created_at":"2026-01-01T00:00:00Z","message":{"role":"assistant","content":"hi"},"done":true,"done_reason":"stop"}`)
			return
		}
		fmt.Fprint(w, `{"id":"c1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}]}`)
	}))
	t.Cleanup(m.Close)
	return m
}

func (m *models) asked() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	last := m.last
	m.last = ""
	return last
}

// TestModelWithoutASection: a model that is set where no section of the policy lets one answer is said to have no effect, until there
// is one; and a key is said to be there for its own provider only.
func TestModelWithoutASection(t *testing.T) {
	t.Parallel()
	d := harness.W.StartDaemon(t)
	c, ctx := dial(t, d)
	text := harness.Files + "process:\n  allow: [{command: sh}]\n"
	create(t, d, "box", text)
	says := func(of string, want, never string) {
		t.Helper()
		if !strings.Contains(of, want) || never != "" && strings.Contains(of, never) {
			t.Errorf("want %q, not %q:\n%s", want, never, of)
		}
	}
	_, _, said := d.Call(t, "box", "config")
	says(said, "nothing is set for box; there are model and key", "")
	says(d.Do(t, "box", "status"), "none: its policy has no section inference", "")
	_, out, said := d.Call(t, "box", "config", "set", "model", "ollama/one")
	says(out, "it has no effect: its policy has no section inference", "")
	says(said, "warning: no model answers inside: its policy has no section inference; add the line `inference: {}`", "")
	says(d.Do(t, "box", "config"), "model=ollama/one\n", "")
	says(d.Do(t, "box", "config", "-o", "json"), `"model": "ollama/one"`, "")
	if _, err := c.SetConfig(ctx, "box", map[string]string{api.ConfigModel: "openai/one", api.ConfigKey: "sk-1", api.ConfigKeyVerified: "true"}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.ChangePolicy(ctx, "box", api.PolicyChange{Text: text + "inference: {}\n", Restart: true}); err != nil {
		t.Fatal(err)
	}
	says(d.Do(t, "box", "status"), "openai/one, key verified\n", "no effect")
	says(d.Do(t, "box", "config", "set", "model", "anthropic/two"), "anthropic/two, no key: the one that there is is for openai", "warning")
	says(d.Do(t, "box", "config", "get", "key"), "for openai\n", "sk-1")
	d.Do(t, "box", "config", "set", "model", "openai/three")
	says(d.Do(t, "box", "config"), "key=verified\nmodel=openai/three\n", "sk-1")
}

// TestInference changes model, key and policy of a sandbox that runs, kills its daemon, and shows that none of it is seen inside.
func TestInference(t *testing.T) {
	t.Parallel()
	local, cloud := newModels(t), newModels(t)
	d := harness.W.StartDaemon(t)
	c, ctx := dial(t, d)
	text := harness.Files + "process:\n  allow: [{command: sh}, {command: curl}, {command: env}, {command: cat}]\n" +
		"inference:\n  local: {model: ollama/one, url: \"" + local.URL + "\"}\n  cloud: {model: openai/gpt-4o, url: \"" + cloud.URL + "\"}\n" +
		"  models:\n    - {name: fast, model: ollama/small, url: \"" + local.URL + "\", route: local}\n"
	create(t, d, "box", text)
	ask := func(content string) string {
		return d.Do(t, "box", "exec", "--", "curl", "-sS", "-H", "Authorization: Bearer from-inside",
			"-d", `{"model":"x","messages":[{"role":"user","content":"`+content+`"}]}`, "https://inference.local/v1/chat/completions")
	}
	set := func(key, value string) {
		t.Helper()
		if _, err := c.SetConfig(ctx, "box", map[string]string{key: value}); err != nil {
			t.Fatal(err)
		}
	}
	want := func(m *models, parts ...string) {
		t.Helper()
		got := m.asked()
		for _, p := range parts {
			if !strings.Contains(got, p) {
				t.Errorf("the model server got %q, want %q\n%s", got, p, logOf(t, c, "box"))
			}
		}
	}
	if out := ask("hello"); !strings.Contains(out, "there is no key for openai") {
		t.Errorf("without a key: %s", out)
	}
	set(api.ConfigModel, "openai/gpt-4o-mini")
	set(api.ConfigKey, "sk-of-the-box")
	ask("hello")
	want(cloud, `"model":"gpt-4o-mini"`, "Bearer sk-of-the-box")
	d.Do(t, "box", "config", "set", "model", "ollama/two")
	ask("hello")
	want(local, "/api/chat  {", `"model":"two"`)
	d.Do(t, "box", "config", "set", "model", "fast")
	ask("hello")
	want(local, `"model":"small"`)
	if _, err := c.SetConfig(ctx, "box", map[string]string{api.ConfigModel: "slow"}); err == nil || !strings.Contains(err.Error(), "local, cloud, fast") {
		t.Errorf("a name that the policy has not: %v", err)
	}
	set(api.ConfigModel, "openai/gpt-4o")
	ask("my card is 4111 1111 1111 1111, expires 04/29")
	want(local, `"model":"one"`, "4111")

	d.Kill()
	d.Start(t)
	ask("hello") // it trusts the same authority as before
	want(cloud, `"model":"gpt-4o"`, "Bearer sk-of-the-box")

	result, err := c.ChangePolicy(ctx, "box", api.PolicyChange{Text: text + "  classes: {financial: deny}\n"})
	if err != nil {
		t.Fatalf("another route: %+v, %v", result, err)
	}
	if history := d.Do(t, "box", "policy", "history"); !strings.Contains(history, "inference: ") || !strings.Contains(history, "financial") {
		t.Errorf("the history does not say what the change was:\n%s", history)
	}
	if out := ask("my card is 4111 1111 1111 1111, expires 04/29"); !strings.Contains(out, "the policy denies this request (financial 1; box.yaml:") {
		t.Errorf("a denied class: %s", out)
	}
	if got := local.asked() + cloud.asked(); got != "" {
		t.Errorf("what is denied was sent: %s", got)
	}
	if _, err := c.ChangePolicy(ctx, "box", api.PolicyChange{Text: text + "  classes: {pii: ask}\n"}); err != nil {
		t.Fatal(err)
	}
	for verdict, sent := range map[string]string{"deny": "", "allow": "jane.doe@example.com"} {
		done := make(chan string, 1)
		go func() { done <- ask("write to jane.doe@example.com") }()
		answer(t, c, request(t, c, "openai/gpt-4o (pii)"), api.NewAnswer{Verdict: verdict, Confirm: true})
		if out := <-done; (sent == "") != strings.Contains(out, "nobody allowed it") {
			t.Errorf("a person says %s: %s", verdict, out)
		}
		want(cloud, sent)
	}
	if _, err := c.ChangePolicy(ctx, "box", api.PolicyChange{Text: text[:strings.Index(text, "inference:")]}); err == nil || !strings.Contains(err.Error(), "restart") {
		t.Errorf("the section is taken out of what runs: %v", err)
	}
	inside := d.Do(t, "box", "exec", "--", "sh", "-c", "env; cat /etc/nemoclaw-ca.pem")
	if strings.Contains(inside, "sk-of-the-box") || strings.Contains(inside, "PRIVATE KEY") || !strings.Contains(inside, "NODE_EXTRA_CA_CERTS=/etc/") {
		t.Error("the key of the provider or of the authority is inside, or no variable says whom to trust")
	}
	if strings.Contains(logOf(t, c, "box")+d.Log(), "sk-of-the-box") {
		t.Error("the key is in a log")
	}
	if out := d.Do(t, "box", "exec", "--", "env", "-i", "curl", "-sS", "https://inference.local/v1/models"); !strings.Contains(out, "gpt-4o") {
		t.Errorf("with an empty environment: %s", out)
	}
	st, err := os.Stat(filepath.Join(d.StateDir(), "sandboxes", "box", "ca.pem"))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the authority's file: %v, %v", st, err)
	}
}

// leaf is a certificate for a name, made with the authority of a sandbox, as whoever stole its key could.
func leaf(t *testing.T, d *harness.Daemon, box, name string) []byte {
	t.Helper()
	file := filepath.Join(d.StateDir(), "sandboxes", box, "ca.pem")
	pair, err := tls.LoadX509KeyPair(file, file)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(7), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{name}}
	der, err := x509.CreateCertificate(rand.Reader, template, pair.Leaf, pair.PrivateKey.(*ecdsa.PrivateKey).Public(), pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// TestInferenceAuthorities has a sandbox look at certificates of another's authority, and of its own for other names.
func TestInferenceAuthorities(t *testing.T) {
	t.Parallel()
	d := harness.W.StartDaemon(t)
	text := harness.Files + "process:\n  allow: [{command: sh}, {command: env}, {command: openssl}]\ninference:\n  local: {model: ollama/one, url: \"http://127.0.0.1:9\"}\n"
	create(t, d, "box", text)
	create(t, d, "other", text)
	for _, c := range []struct {
		by, name string
		good     bool
	}{{"box", "inference.local", true}, {"box", "example.org", false}, {"other", "inference.local", false}, {"other", "example.org", false}} {
		const verify = `printf %s "$1" >/tmp/leaf; env -i openssl verify -CAfile /etc/ssl/certs/ca-certificates.crt /tmp/leaf && env -i openssl verify /tmp/leaf; echo status $?`
		out := d.Do(t, "box", "exec", "--", "sh", "-c", verify, "sh", string(leaf(t, d, c.by, c.name)))
		if strings.Contains(out, "status 0") != c.good {
			t.Errorf("a certificate for %s by the authority of %s: %s", c.name, c.by, out)
		}
	}
}
