package inference

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/nemoclaw/nemoclaw/agent/trace"
	"github.com/nemoclaw/nemoclaw/policy"
)

// backend is a model server that answers with what it was asked, and keeps that.
type backend struct {
	*httptest.Server
	mu   sync.Mutex
	got  []string // bodies
	head []http.Header
	say  func(w http.ResponseWriter, body string) // nil: an answer of its API
}

func newBackend(t *testing.T, api string) *backend {
	b := &backend{}
	b.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		b.mu.Lock()
		b.got, b.head = append(b.got, string(body)), append(b.head, r.Header)
		say := b.say
		b.mu.Unlock()
		if say != nil {
			say(w, string(body))
			return
		}
		var q struct {
			Messages []struct{ Content any }
		}
		if err := json.Unmarshal(body, &q); err != nil {
			t.Errorf("%s got %q: %v", api, body, err)
		}
		last := "nothing"
		if n := len(q.Messages); n > 0 {
			last = fmt.Sprint(q.Messages[n-1].Content)
		}
		said, _ := json.Marshal("you said " + last)
		switch api {
		case "ollama":
			fmt.Fprintf(w, `{"model":"m","created_at":"2026-01-01T00:00:00Z","message":{"role":"assistant","content":%s},"done":true,"done_reason":"stop","prompt_eval_count":3,"eval_count":4}`+"\n", said)
		default:
			fmt.Fprintf(w, `{"id":"c1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":%s},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}`, said)
		}
	}))
	t.Cleanup(b.Close)
	return b
}

func (b *backend) asked() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	got := b.got
	b.got = nil
	return got
}

// world is a router with a local and a cloud model.
type world struct {
	*Router
	t            *testing.T
	local, cloud *backend
	mu           sync.Mutex
	records      []policy.Decision
	model, key   string
}

func compile(t *testing.T, text string) *policy.Compiled {
	t.Helper()
	p, err := policy.Parse("p.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	c, err := policy.Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newWorld(t *testing.T, section string, ask func(context.Context, policy.Decision) policy.Verdict) *world {
	w := &world{t: t, local: newBackend(t, "ollama"), cloud: newBackend(t, "openai"), key: "sk-the-secret-key"}
	text := "inference:\n  local: {model: ollama/here, url: \"" + w.local.URL + "\"}\n  cloud: {model: corp/big, api: openai, url: \"" + w.cloud.URL + "\"}\n" + section
	r, err := New(Config{
		Policy: compile(t, text), Ask: ask,
		Source: Source{Model: func() string { return w.model }, Key: func(b *policy.Backend) (string, error) {
			if b.Provider == "corp" {
				return w.key, nil
			}
			return "", nil
		}},
		Record: func(d policy.Decision) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.records = append(w.records, d)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	w.Router = r
	t.Cleanup(func() { _ = r.Close() })
	return w
}

// post sends a request as somebody inside does.
func (w *world) post(path, body string, headers ...string) (int, string) {
	req := httptest.NewRequest(http.MethodPost, "http://inference.local"+path, strings.NewReader(body))
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	rec := httptest.NewRecorder()
	w.ServeHTTP(rec, req)
	return rec.Code, rec.Body.String()
}

func (w *world) last() policy.Decision {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.records) == 0 {
		return policy.Decision{}
	}
	return w.records[len(w.records)-1]
}

func chat(contents ...string) string {
	var list []map[string]string
	for i, c := range contents {
		list = append(list, map[string]string{"role": [2]string{"user", "assistant"}[i%2], "content": c})
	}
	b, _ := json.Marshal(map[string]any{"model": "gpt-whatever", "messages": list})
	return string(b)
}

const card = "my card is 4111 1111 1111 1111, expires 04/29"

func TestRoutes(t *testing.T) {
	w := newWorld(t, "", nil)
	for _, c := range []struct {
		name, body   string
		local, cloud int
	}{
		{"nothing sensitive", chat("write a haiku about rain"), 0, 1},
		{"a card", chat(card), 1, 0},
		{"the conversation goes on", chat(card, "you said "+card, "and now?"), 1, 0},
		{"with the card left out", chat("hello", "you said "+card, "and now?"), 1, 0},
		{"an image", `{"model":"x","messages":[{"role":"user","content":[{"type":"text","text":"what is it?"},{"type":"image_url","image_url":{"url":"data:image/png;base64,iVBORw0KGgo="}}]}]}`, 1, 0},
		{"base64", chat("decode bXkgY2FyZCBpcyA0MTExIDExMTEgMTExMSAxMTExLCBleHBpcmVzIDA0LzI5"), 1, 0},
	} {
		status, body := w.post("/v1/chat/completions", c.body, "Authorization", "Bearer of-the-caller", "Cookie", "a=b")
		if l, r := len(w.local.asked()), len(w.cloud.asked()); status != 200 || l != c.local || r != c.cloud {
			t.Errorf("%s: %d, local %d, cloud %d: %s", c.name, status, l, r, body)
		}
		if d := w.last(); d.Plane != policy.PlaneInference || strings.Contains(d.Reason, "4111") {
			t.Errorf("%s: the record is %+v", c.name, d)
		}
	}
	for _, h := range w.cloud.head {
		if got := h.Get("Authorization"); got != "Bearer "+w.key || h.Get("Cookie") != "" {
			t.Errorf("the cloud got %q and %q", got, h.Get("Cookie"))
		}
	}
}

// TestFailClosed shows what is sent nowhere at all, or only to the local model.
func TestFailClosed(t *testing.T) {
	w := newWorld(t, "  classes: {credentials: deny}\n", nil)
	aws := "AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG/bPxRfiCYzKq3T9vLmN and AKIAZ7Q4XN2PLM5TWE3R"
	for _, c := range []struct{ name, path, body, header, value, want string }{
		{"denied", "/v1/chat/completions", chat(aws), "", "", "the policy denies"},
		{"gzip", "/v1/chat/completions", chat("hi"), "Content-Encoding", "gzip", "is encoded"},
		{"form", "/v1/chat/completions", chat("hi"), "Content-Type", "multipart/form-data; boundary=x", "can't be judged"},
		{"no JSON", "/v1/chat/completions", "hello", "", "", "could not be read"},
		{"too large", "/v1/chat/completions", chat(strings.Repeat("x", maxBody)), "", "", "larger than"},
		{"unknown path", "/v1/files", "{}", "", "", "answers the APIs"},
	} {
		status, body := w.post(c.path, c.body, c.header, c.value)
		if status != 400 || !strings.Contains(body, c.want) || strings.Contains(body, "wJalr") {
			t.Errorf("%s: %d %s", c.name, status, body)
		}
		if d := w.last(); d.Verdict != policy.Deny {
			t.Errorf("%s: the record is %+v", c.name, d)
		}
	}
	w.local.Close()
	status, body := w.post("/v1/messages", `{"model":"claude","max_tokens":9,"messages":[{"role":"user","content":"`+card+`"}]}`)
	if status != 400 || !strings.Contains(body, `"type":"error"`) || !strings.Contains(body, "does not answer") {
		t.Errorf("the local model is down: %d %s", status, body)
	}
	if got := w.cloud.asked(); len(got) != 0 {
		t.Errorf("the cloud got %q", got)
	}
}

// TestRedact has the cloud see placeholders, and the caller the texts.
func TestRedact(t *testing.T) {
	w := newWorld(t, "  classes: {financial: redact}\n", nil)
	status, body := w.post("/v1/chat/completions", chat(card))
	got := w.cloud.asked()
	if status != 200 || len(got) != 1 || strings.Contains(got[0], "4111") || !strings.Contains(got[0], "[CARD_") {
		t.Fatalf("%d, the cloud got %q, the caller %s", status, got, body)
	}
	if !strings.Contains(body, "4111 1111 1111 1111") {
		t.Errorf("the caller got %s", body)
	}
	first := got[0]
	w.post("/v1/chat/completions", chat(card))
	if again := w.cloud.asked(); again[0] != first {
		t.Errorf("the same text has another placeholder: %q, %q", first, again[0])
	}
	w.cloud.say = func(rw http.ResponseWriter, body string) {
		i := strings.Index(body, "[CARD_")
		name := body[i : i+strings.IndexByte(body[i:], ']')+1]
		rw.Header().Set("Content-Type", "text/event-stream")
		for _, piece := range []string{"it ends: ", name[:3], name[3:9], name[9:] + " and", " [CARD_", "X"} {
			text, _ := json.Marshal(piece)
			fmt.Fprintf(rw, "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":%s},\"finish_reason\":null}]}\n\n", text)
		}
		fmt.Fprint(rw, "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n")
	}
	for path, body := range map[string]string{
		"/v1/chat/completions": strings.Replace(chat(card), "{", `{"stream":true,`, 1),
		"/v1/messages":         `{"model":"claude","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"` + card + `"}]}`,
	} {
		_, stream := w.post(path, body)
		if said := streamed(stream); said != "it ends: 4111 1111 1111 1111 and [CARD_X" {
			t.Errorf("%s: the stream says %q: %s", path, said, stream)
		}
	}
}

// TestRule: a record names the line that decides: the class's, its model's own, or the section's where nothing is said.
func TestRule(t *testing.T) {
	w := newWorld(t, "  classes:\n    financial: deny\n    pii: cloud\n  unseen: deny\n  default: ask\n", func(context.Context, policy.Decision) policy.Verdict { return policy.Allow })
	for body, want := range map[string]string{
		chat(card): "p.yaml:5",
		chat("write to jane.doe@example.com, please"): "p.yaml:8", // the default is the more severe
		chat("hello there"):                           "p.yaml:8",
		chat("why is AKIAZ7Q4XN2PLM5TWE3R refused?"):  "p.yaml:2",
		`{"model":"x","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://example.com/a.png"}}]}]}`: "p.yaml:7",
	} {
		w.post("/v1/chat/completions", body)
		if d := w.records[len(w.records)-1]; d.Rule != want {
			t.Errorf("%s: %s, want %s (%s)", body, d.Rule, want, d.Reason)
		}
	}
}

// TestRedactNotWhole: what can't be redacted without a rest stays on this host, and so does what follows it.
func TestRedactNotWhole(t *testing.T) {
	const pii = `{"model":"claude","max_tokens":9,"messages":[{"role":"user","content":"write to jane.doe@example.com that we are late, please, and say when we come"}]}`
	for name, c := range map[string]struct {
		section, body string
		headers       []string
	}{
		"a placeholder is of a class itself": {"  classes: {pii: redact}\n  custom: [{name: marks, verdict: redact, pattern: \"E_MAIL\"}]\n", pii, nil},
		"it is in a header":                  {"  classes: {pii: redact}\n", `{"model":"claude","max_tokens":9,"messages":[{"role":"user","content":"hello"}]}`, []string{"Anthropic-Beta", "jane.doe@example.com"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, c.section, nil)
			status, body := w.post("/v1/messages", c.body, c.headers...)
			if status != 200 || !strings.Contains(body, `"type":"message"`) {
				t.Errorf("%d %s", status, body)
			}
			if local, cloud := w.local.asked(), w.cloud.asked(); len(local) != 1 || len(cloud) != 0 {
				t.Errorf("the local model got %q, the cloud's %q", local, cloud)
			}
			if d := w.records[len(w.records)-1]; d.Inference.Route != "local" {
				t.Errorf("the record says %+v", d.Inference)
			}
		})
	}
}

// streamed is the text of a stream of OpenAI's or Anthropic's.
func streamed(stream string) (said string) {
	for line := range strings.Lines(stream) {
		var e struct {
			Choices []struct{ Delta struct{ Content string } }
			Delta   struct{ Text string }
		}
		data, ok := strings.CutPrefix(line, "data: ")
		if ok && json.Unmarshal([]byte(data), &e) == nil {
			said += e.Delta.Text
			for _, c := range e.Choices {
				said += c.Delta.Content
			}
		}
	}
	return said
}

func TestAsk(t *testing.T) {
	answer := policy.Deny
	var asked []policy.Decision
	w := newWorld(t, "  classes: {pii: ask}\n", func(_ context.Context, d policy.Decision) policy.Verdict {
		asked = append(asked, d)
		return answer
	})
	body := chat("write to jane.doe@example.com")
	if status, said := w.post("/v1/chat/completions", body); status != 400 || !strings.Contains(said, "nobody allowed it") || len(w.cloud.asked()) != 0 {
		t.Errorf("denied: %d %s", status, said)
	}
	answer = policy.Allow
	if status, said := w.post("/v1/chat/completions", body); status != 200 || len(w.cloud.asked()) != 1 {
		t.Errorf("allowed: %d %s", status, said)
	}
	if len(asked) != 2 || asked[0].Object != "corp/big (pii)" || asked[0].Verdict != policy.Ask {
		t.Errorf("asked %+v", asked)
	}
}

// TestModel changes the model while it runs.
func TestModel(t *testing.T) {
	w := newWorld(t, "", nil)
	w.model = "corp/other"
	w.post("/v1/chat/completions", chat("hi"))
	if got := w.cloud.asked(); len(got) != 1 || !strings.Contains(got[0], `"model":"other"`) {
		t.Errorf("the cloud got %q", got)
	}
	w.model = "ollama/third"
	w.post("/v1/chat/completions", chat("hi"))
	if got := w.local.asked(); len(got) != 1 || !strings.Contains(got[0], `"model":"third"`) {
		t.Errorf("the local server got %q", got)
	}
	w.model = "openai/gpt-4o"
	if status, body := w.post("/v1/chat/completions", chat("hi")); status != 400 || !strings.Contains(body, "there is no key for openai") {
		t.Errorf("without a key: %d %s", status, body)
	}
	req := httptest.NewRequest(http.MethodGet, "http://inference.local/v1/models", nil)
	rec := httptest.NewRecorder()
	w.ServeHTTP(rec, req)
	if !strings.Contains(rec.Body.String(), `"openai/gpt-4o"`) || !strings.Contains(rec.Body.String(), `"ollama/here"`) {
		t.Errorf("the models are %s", rec.Body)
	}
}

// TestErrors has a backend say the key in its errors, and redirect.
func TestErrors(t *testing.T) {
	w := newWorld(t, "", nil)
	for code, want := range map[int]int{401: 400, 404: 400, 429: 429, 503: 503, 302: 400} {
		w.cloud.say = func(rw http.ResponseWriter, _ string) {
			rw.Header().Set("Location", w.local.URL)
			rw.WriteHeader(code)
			fmt.Fprintf(rw, `{"error":{"message":"you sent %s"}}`, w.key)
		}
		status, body := w.post("/v1/chat/completions", chat("hi"))
		if status != want || strings.Contains(body, w.key) || len(w.local.asked()) != 0 {
			t.Errorf("%d: %d %s", code, status, body)
		}
		for _, d := range w.records {
			if strings.Contains(d.Reason, w.key) {
				t.Errorf("a record has the key: %+v", d)
			}
		}
	}
}

// TestServe speaks to the router over connections, with and without TLS.
func TestServe(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ca.pem")
	a, err := OpenAuthority(file)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := OpenAuthority(file); err != nil || !bytes.Equal(again.PEM(), a.PEM()) {
		t.Fatalf("the kept authority is another: %v", err)
	}
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the authority's file: %v, %v", st.Mode(), err)
	}
	local := newBackend(t, "ollama")
	var got policy.Decision
	r, err := New(Config{
		Policy: compile(t, "inference:\n  local: {model: ollama/here, url: \""+local.URL+"\"}\n"), Authority: a,
		Record: func(d policy.Decision) { got = d },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(a.PEM())
	for scheme, port := range map[string]uint16{"http": 80, "https": 443} {
		client := http.Client{Transport: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true,
			DialContext: func(context.Context, string, string) (net.Conn, error) {
				here, there := net.Pipe()
				go r.Serve(there, port, policy.Subject{Exe: "/usr/bin/curl"}, trace.Link{})
				return here, nil
			},
		}}
		resp, err := client.Post(scheme+"://inference.local/api/chat", "application/json", strings.NewReader(`{"model":"x","stream":false,"messages":[{"role":"user","content":"hi"}]}`))
		if err != nil {
			t.Errorf("%s: %v", scheme, err)
			continue
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || !strings.Contains(string(body), "you said hi") || got.Subject.Exe != "/usr/bin/curl" {
			t.Errorf("%s: %s, %v, by %+v", scheme, body, err, got.Subject)
		}
	}
}

func TestKeys(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "key")
	if err := os.WriteFile(file, []byte("sk-1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	if os.Geteuid() == 0 {
		if key, err := readKey(ctx, policy.Key{File: file}); err != nil || key != "sk-1" {
			t.Errorf("a file: %q, %v", key, err)
		}
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := readKey(ctx, policy.Key{File: file}); err == nil || !strings.Contains(err.Error(), "can be read or changed by others (mode 0644)") {
		t.Errorf("a file that others can read: %v", err)
	}
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	if key, err := readKey(ctx, policy.Key{Credential: "key"}); err != nil || key != "sk-1" {
		t.Errorf("a credential: %q, %v", key, err)
	}
	t.Setenv("NVIDIA_API_KEY", "nv-1")
	if key, err := KeyFromEnvironment(&policy.Backend{Provider: "nvidia"}); err != nil || key != "nv-1" {
		t.Errorf("a variable: %q, %v", key, err)
	}
	if _, err := cleanKey([]byte("a b"), "it", nil); err == nil || strings.Contains(err.Error(), "a b") {
		t.Errorf("a key with a blank: %v", err)
	}
}

// TestNotWrittenDown: with strict a request is written down before it is sent, and not sent where that can't be.
func TestNotWrittenDown(t *testing.T) {
	w := newWorld(t, "  default: cloud\naudit: {strict: true}\n", nil)
	body := `{"model":"x","messages":[{"role":"user","content":"hello"}]}`
	var first policy.Decision
	w.c.Permit = func(d policy.Decision) error {
		first = d
		return nil
	}
	if status, text := w.post("/v1/chat/completions", body); status != 200 || first.Action != "send" || first.Inference.Model != "corp/big" || len(w.cloud.asked()) != 1 {
		t.Errorf("status %d, %s; written down before: %+v", status, text, first)
	}
	w.c.Permit = func(policy.Decision) error { return errors.New("make room") }
	if status, text := w.post("/v1/chat/completions", body); status < 400 || !strings.Contains(text, "could not be written down before it would have been sent, so it was not: make room") {
		t.Errorf("status %d, %s", status, text)
	}
	if n := len(w.cloud.asked()) + len(w.local.asked()); n != 0 {
		t.Errorf("%d requests were sent", n)
	}
}
