package sink

import (
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/config"
	"github.com/nemoclaw/nemoclaw/test/tempfile"
)

// TestWhoGetsAToken: the server of the configuration, once its certificate has verified, and nobody whom it names.
func TestWhoGetsAToken(t *testing.T) {
	t.Parallel()
	var posts, elsewhere atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	defer other.Close()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		posts.Add(1)
		body, err := io.ReadAll(r.Body)
		if err != nil || string(body) != "hello" || r.URL.Path != "/here" || r.Header.Get("X-Kind") != "test" {
			t.Errorf("%s %q %v: %v", r.URL.Path, body, r.Header, err)
		}
		w.Header().Set("Location", other.URL)
		w.WriteHeader(http.StatusPermanentRedirect)
		_, _ = io.WriteString(w, "you are "+r.Header.Get("Authorization")) // who sent it may be gone
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	ca := tempfile.Write(t, 0o600, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})))
	token := config.Token{File: tempfile.Write(t, 0o600, "s3cret\n")}
	for name, c := range map[string]struct {
		url    string
		server config.Server
		said   string // "": it is not trusted
	}{
		"an authority that it is from":    {s.URL, config.Server{CA: ca, Token: token}, "answered 308 Permanent Redirect: you are Bearer (the token)"},
		"a user's password":               {s.URL, config.Server{CA: ca, Token: token, User: "me"}, "you are Basic"},
		"no authority that it is from":    {s.URL, config.Server{Token: token}, ""},
		"the certificate of another name": {strings.Replace(s.URL, "127.0.0.1", "localhost", 1), config.Server{CA: ca, Token: token}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			client, err := Open(Options{URL: c.url, Path: "/here", Server: c.server, Scheme: "Bearer", Header: http.Header{"X-Kind": {"test"}}})
			if err != nil {
				t.Fatal(err)
			}
			before := posts.Load()
			a, err := client.Post(t.Context(), []byte("hello"))
			if c.said == "" {
				if err == nil || posts.Load() != before || strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), "/here") {
					t.Errorf("%v", err)
				}
				return
			}
			if err != nil || !strings.Contains(a.Reason(), c.said) || strings.Contains(a.Reason(), "s3cret") {
				t.Errorf("%v: %v", a, err)
			}
		})
	}
	if elsewhere.Load() != 0 {
		t.Error("it went where an answer had it go")
	}
}

// TestFilesThatAreNotThere: what can't be read is said when a client is made, and again when it is gone later.
func TestFilesThatAreNotThere(t *testing.T) {
	t.Parallel()
	for want, c := range map[string]config.Server{
		"ca: ":                             {CA: "/nowhere/ca.pem"},
		"has no certificate in it":         {CA: tempfile.Write(t, 0o600, "hello")},
		"key: ":                            {Cert: "/nowhere/cert.pem", Key: "/nowhere/key.pem"},
		"token: ":                          {Token: config.Token{File: "/nowhere/token"}},
		"can be read or changed by others": {Token: config.Token{File: tempfile.Write(t, 0o644, "s3cret")}},
		"systemd gave this process no":     {Token: config.Token{Credential: "token"}},
	} {
		if _, err := Open(Options{URL: "https://127.0.0.1:1", Server: c}); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%v, want %q", err, want)
		}
	}
	file := tempfile.Write(t, 0o600, "s3cret")
	c, err := Open(Options{URL: "http://127.0.0.1:1", Server: config.Server{Token: config.Token{File: file}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Post(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "token: ") {
		t.Errorf("%v", err)
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for v, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "-7": 0, "9999999": time.Hour, "x": 0, "Thu, 01 Jan 2026 00:00:30 GMT": 30 * time.Second, "Thu, 01 Jan 2025 00:00:30 GMT": 0,
		"Fri, 01 Jan 2027 00:00:00 GMT": time.Hour,
	} {
		if got := (&Answer{Header: http.Header{"Retry-After": {v}}}).RetryAfter(now); got != want {
			t.Errorf("%q: %s", v, got)
		}
	}
}
