package inference

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// ask sends a request as somebody inside does.
func (w *world) ask(method, path, body string, headers ...string) *http.Response {
	req := httptest.NewRequest(method, "http://inference.local"+path, strings.NewReader(body))
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	rec := httptest.NewRecorder()
	w.ServeHTTP(rec, req)
	return rec.Result()
}

// TestTell shows what clients look for before they ask a model: none of it is sent anywhere.
func TestTell(t *testing.T) {
	w := newWorld(t, "", nil)
	for _, c := range []struct {
		method, path, body, header, value, want string
		status                                  int
	}{
		{"GET", "/v1/models", "", "", "", `"id":"corp/big"`, 200},
		{"GET", "/v1/models/gpt-4o", "", "", "", `"id":"gpt-4o","object":"model"`, 200},
		{"GET", "/v1/models/claude-x", "", "Anthropic-Version", "2023-06-01", `"type":"model","id":"claude-x"`, 200},
		{"POST", "/api/show", `{"model":"x"}`, "", "", `"general.basename":"corp/big"`, 200},
		{"GET", "/api/version", "", "", "", `{"version":"0.`, 200},
		{"HEAD", "/", "", "", "", "", 200},
		{"GET", "/", "", "", "", "inference.local is here", 200},
		{"HEAD", "/api/hello", "", "", "", "", 200},
		{"GET", "/v1/responses", "", "Upgrade", "websocket", "speaks no WebSocket", http.StatusUpgradeRequired},
		{"GET", "/v1/responses", "", "", "", "answers the APIs", 400},
	} {
		resp := w.ask(c.method, c.path, c.body, c.header, c.value)
		if got := bodyOf(t, resp); resp.StatusCode != c.status || !strings.Contains(got, c.want) {
			t.Errorf("%s %s: %d %s", c.method, c.path, resp.StatusCode, got)
		}
	}
	if got := append(w.cloud.asked(), w.local.asked()...); len(got) > 0 {
		t.Errorf("sent: %q", got)
	}
}

// TestEstimate counts tokens for a backend that can't, and says so; what is denied is not even counted.
func TestEstimate(t *testing.T) {
	w := newWorld(t, "  classes: {financial: deny}\n", nil)
	ask := func(content string) *http.Response {
		return w.ask("POST", "/v1/messages/count_tokens?beta=true", `{"model":"claude","messages":[{"role":"user","content":"`+content+`"}]}`)
	}
	resp := ask(strings.Repeat("word ", 80))
	if got := bodyOf(t, resp); resp.StatusCode != http.StatusOK || got != `{"input_tokens":100}` || resp.Header.Get("X-Nemoclaw") != "estimate" {
		t.Errorf("%d %v %s", resp.StatusCode, resp.Header, got)
	}
	if resp := ask(card); resp.StatusCode != http.StatusBadRequest {
		t.Errorf("denied: %d", resp.StatusCode)
	}
	if got := append(w.cloud.asked(), w.local.asked()...); len(got) > 0 {
		t.Errorf("sent: %q", got)
	}
}

// TestOffers shows that a tool that the server would run goes nowhere, unless the policy lets it.
func TestOffers(t *testing.T) {
	const body = `{"model":"x","input":"hi","store":false,"tools":[{"type":"function","name":"f","parameters":{}},{"type":"web_search"}]}`
	for section, want := range map[string]string{"": "without the server's own tools", "  unseen: cloud\n": "not seen: server"} {
		w := newWorld(t, section, nil)
		status, said := w.post("/v1/responses", body)
		got := w.cloud.asked()
		if status != 200 || len(got) != 1 || strings.Contains(got[0], "web_search") || !strings.Contains(w.last().Reason, want) {
			t.Errorf("%q: %d %s, the cloud got %q, %s", section, status, said, got, w.last().Reason)
		}
	}
}

func bodyOf(t *testing.T, resp *http.Response) string {
	t.Helper()
	var b strings.Builder
	if _, err := io.Copy(&b, resp.Body); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
