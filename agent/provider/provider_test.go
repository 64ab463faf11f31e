package provider

import (
	"context"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestTry asks a server that stands in for every provider, over TLS, as the real ones are asked.
func TestTry(t *testing.T) {
	var got *http.Request
	var body string
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got, body = r, string(b)
		key := r.Header.Get("Authorization") + r.Header.Get("X-Api-Key") + r.Header.Get("X-Goog-Api-Key")
		switch strings.TrimPrefix(key, "Bearer ") {
		case "good":
		case "moved":
			http.Redirect(w, r, "https://elsewhere.invalid/", http.StatusFound)
		case "busy":
			http.Error(w, "not now, busy", http.StatusTooManyRequests)
		default:
			http.Error(w, "no", http.StatusUnauthorized)
		}
	}))
	defer server.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSL_CERT_FILE", ca) // read once, before the first connection of this program
	for i := range providers {
		if host := &providers[i].host; *host != "" {
			defer func(old string) { *host = old }(*host)
			*host = server.Listener.Addr().String()
		}
	}
	ctx := context.Background()
	for _, c := range []struct{ model, path, in string }{
		{"nvidia/nemotron-3-super-120b", "/v1/chat/completions", `"model":"nvidia/nemotron-3-super-120b"`},
		{"openai/gpt-4o", "/v1/models/gpt-4o", ""},
		{"anthropic/claude-3-opus", "/v1/models/claude-3-opus", ""},
		{"google/gemini-pro", "/v1beta/models/gemini-pro", ""},
	} {
		if err := Try(ctx, c.model, "good"); err != nil {
			t.Errorf("%s: a good key: %v", c.model, err)
		} else if got.URL.Path != c.path || !strings.Contains(body, c.in) {
			t.Errorf("%s: asked %s with %q", c.model, got.URL.Path, body)
		}
		if err := Try(ctx, c.model, "bad"); !errors.Is(err, ErrRefused) || strings.Contains(err.Error(), "bad") {
			t.Errorf("%s: a bad key: %v", c.model, err)
		}
		for _, key := range []string{"moved", "busy"} {
			if err := Try(ctx, c.model, key); err == nil || errors.Is(err, ErrRefused) || strings.Contains(err.Error(), key) {
				t.Errorf("%s, %s: %v", c.model, key, err)
			}
		}
	}
	if err := Try(ctx, Recommended, "two\nlines"); !errors.Is(err, ErrRefused) {
		t.Errorf("a key of two lines: %v", err)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if err := Try(ended, Recommended, "good"); err == nil || errors.Is(err, ErrRefused) {
		t.Errorf("not asked: %v", err)
	}
}

func TestModels(t *testing.T) {
	if Models()[0].ID != Recommended {
		t.Error("the recommended model is not the first")
	}
	for _, m := range Models() {
		if needs, err := NeedsKey(m.ID); err != nil || needs == strings.HasPrefix(m.ID, "ollama/") {
			t.Errorf("%s: needs a key: %t, %v", m.ID, needs, err)
		}
	}
	for _, m := range []string{"", "gpt-4o", "nvidia/", "nobody/x", "/x"} {
		if _, err := NeedsKey(m); err == nil || !strings.Contains(err.Error(), "PROVIDER/MODEL") {
			t.Errorf("%q: %v", m, err)
		}
	}
}
