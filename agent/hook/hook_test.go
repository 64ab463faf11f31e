package hook

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/nemoclaw/nemoclaw/agent/config"
	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/test/tempfile"
)

// exampleKey is the key of Standard Webhooks' own example, and so known to nobody alone.
const exampleKey = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// notes are what hooks have recorded.
type notes struct {
	mu   sync.Mutex
	list []string
}

func (n *notes) add(action, object, reason string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.list = append(n.list, action+" "+object+": "+reason)
}

func (n *notes) all() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return strings.Join(n.list, "\n")
}

// start runs one hook until the test ends, and returns what tells it of requests. The first telling is over.
func start(t *testing.T, c config.Hook, n *notes) (tell func(...api.RequestChange)) {
	t.Helper()
	hooks, err := Open([]config.Hook{c}, "/run/test.sock", n.add)
	if err != nil {
		t.Fatal(err)
	}
	hooks[0].first = time.Millisecond
	return run(t, hooks)
}

func run(t *testing.T, hooks Hooks) (tell func(...api.RequestChange)) {
	t.Helper()
	changes := make(chan api.RequestChange)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() {
		ended <- hooks.Run(ctx, func(ctx context.Context, f func(api.RequestChange) error) error {
			for {
				select {
				case c := <-changes:
					if err := f(c); err != nil {
						return err
					}
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	tell = func(list ...api.RequestChange) {
		for _, c := range list {
			changes <- c
		}
	}
	tell(api.RequestChange{Reset: true}, api.RequestChange{Complete: true})
	return tell
}

func held(id string) api.RequestChange { return is(id, "box", api.Held) }

func is(id, sandbox string, s api.RequestState) api.RequestChange {
	return api.RequestChange{Request: &api.Request{ID: id, Sandbox: sandbox, State: s, Plane: "network", Action: "connect", Object: "\xff\x1b" + id, RawObject: []byte("\xff\x1b" + id), Last: time.Now()}}
}

// delivery is what a server was sent.
type delivery struct {
	header http.Header
	body   []byte
}

func (d delivery) content(t *testing.T) (c content) {
	t.Helper()
	if err := json.Unmarshal(d.body, &c); err != nil {
		t.Errorf("%v: %q", err, d.body)
	}
	return c
}

// server is one on loopback that answers the n-th message as reply says (from 0).
func server(t *testing.T, reply func(n int, w http.ResponseWriter)) (url string, got chan delivery) {
	t.Helper()
	got = make(chan delivery, 1000)
	var mu sync.Mutex
	n := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		reply(n, w)
		n++
		mu.Unlock()
		got <- delivery{r.Header, body}
	}))
	t.Cleanup(s.Close)
	return s.URL, got
}

func next[T any](t *testing.T, from <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-from:
	case <-time.After(20 * time.Second):
		t.Fatal("nothing came")
	}
	return v
}

// until waits for something that becomes true.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it never came about: %s", what)
		}
	}
}

// verify checks a message as its receiver would, with another implementation of HMAC than ours: openssl's.
func verify(t *testing.T, d delivery, key string) {
	t.Helper()
	id, at := d.header.Get("webhook-id"), d.header.Get("webhook-timestamp")
	hexKey, err := exec.Command("sh", "-c", `printf %s "$1" | base64 -d | od -An -v -tx1 | tr -d ' \n'`, "sh", strings.TrimPrefix(key, keyPrefix)).Output()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", `openssl dgst -sha256 -mac HMAC -macopt "hexkey:$1" -binary | base64`, "sh", string(hexKey))
	cmd.Stdin = strings.NewReader(id + "." + at + "." + string(d.body))
	want, err := cmd.Output()
	if err != nil {
		t.Fatalf("openssl (scripts/setup installs it): %v", err)
	}
	signatures := strings.Fields(d.header.Get("webhook-signature"))
	for _, s := range signatures {
		if s == "v1,"+strings.TrimSpace(string(want)) {
			return
		}
	}
	t.Errorf("%q: none of the signatures is v1,%s", signatures, want)
}

func TestWebhook(t *testing.T) {
	t.Parallel()
	url, got := server(t, func(int, http.ResponseWriter) {})
	var n notes
	const second = "whsec_" + "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	tell := start(t, config.Hook{Webhook: url + "/path", SecretFile: tempfile.Write(t, 0o600, exampleKey+"\n"+second+"\n")}, &n)
	tell(held("one"))
	d := next(t, got)
	verify(t, d, exampleKey)
	verify(t, d, second)
	c := d.content(t)
	if c.Type != "approval.held" || c.Data.ID != "one" || string(c.Data.RawObject) != "\xff\x1bone" || c.Dropped != 0 || !json.Valid(d.body) || bytes.ContainsAny(d.body, "\x1b") || !utf8.Valid(d.body) {
		t.Errorf("it was sent %s", d.body)
	}
	if d.header.Get("Content-Type") != "application/json" || !strings.HasPrefix(d.header.Get("webhook-id"), "msg_") {
		t.Errorf("with %v", d.header)
	}
	if at := d.header.Get("webhook-timestamp"); at != fmt.Sprint(time.Now().Unix()) && at != fmt.Sprint(time.Now().Unix()-1) {
		t.Errorf("of the time %s", at)
	}
	tell(is("two", "box", api.Refused))
	if c := next(t, got).content(t); c.Type != "approval.refused" || c.Data.ID != "two" {
		t.Errorf("%+v", c)
	}
	if n.all() != "" {
		t.Errorf("it recorded %s", n.all())
	}
}

// TestRetries: the same message again, with another time and signature, until the server takes it.
func TestRetries(t *testing.T) {
	t.Parallel()
	url, got := server(t, func(n int, w http.ResponseWriter) {
		if codes := []int{500, 503, 429, 502}; n < len(codes) {
			w.WriteHeader(codes[n])
		}
	})
	var n notes
	tell := start(t, config.Hook{Webhook: url, SecretFile: tempfile.Write(t, 0o400, exampleKey)}, &n)
	tell(held("one"))
	var ids = map[string]bool{}
	for range 5 {
		d := next(t, got)
		verify(t, d, exampleKey)
		ids[d.header.Get("webhook-id")] = true
	}
	if len(ids) != 1 {
		t.Errorf("one message had the ids %v", ids)
	}
	tell(held("two"))
	if d := next(t, got); ids[d.header.Get("webhook-id")] || d.content(t).Data.ID != "two" {
		t.Errorf("another message is %s", d.body)
	}
	if n.all() != "" {
		t.Errorf("it recorded %s", n.all())
	}
}

// TestNobodyListens: what can't be delivered is recorded once, without anything secret, and counted in the next message.
func TestNobodyListens(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close() // nobody else gets the port before we do
	var n notes
	tell := start(t, config.Hook{Webhook: "http://" + addr + "/T0/hunter2?token=hunter2", SecretFile: tempfile.Write(t, 0o600, exampleKey)}, &n)
	tell(held("one"))
	until(t, "it is recorded", func() bool { return strings.Contains(n.all(), "connection refused") })
	for _, bad := range []string{"hunter2", strings.TrimPrefix(exampleKey, keyPrefix)} {
		if strings.Contains(n.all(), bad) {
			t.Errorf("a secret is in %s", n.all())
		}
	}
	if l, err = net.Listen("tcp", addr); err != nil {
		t.Fatal(err)
	}
	got := make(chan delivery, 10)
	s := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body) // a part of it will not do
		got <- delivery{r.Header, body}
	})}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close() })
	tell(held("two"))
	if d := next(t, got).content(t); d.Dropped != 1 {
		t.Errorf("the next message is %+v", d)
	}
	until(t, "that it works again is recorded", func() bool { return strings.Contains(n.all(), "messages are delivered again; ") })
	if strings.Count(n.all(), "\n") != 1 {
		t.Errorf("it recorded\n%s", n.all())
	}
}

// TestNoRetry: what the server does not want it is not sent twice, and not elsewhere.
func TestNoRetry(t *testing.T) {
	t.Parallel()
	for _, code := range []int{400, 401, 404, 410, 301, 307} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			t.Parallel()
			elsewhere, strays := server(t, func(int, http.ResponseWriter) {})
			url, got := server(t, func(n int, w http.ResponseWriter) {
				w.Header().Set("Location", elsewhere)
				if n == 0 {
					w.WriteHeader(code)
				}
			})
			var n notes
			tell := start(t, config.Hook{Webhook: url, SecretFile: tempfile.Write(t, 0o600, exampleKey)}, &n)
			tell(held("one"))
			next(t, got)
			until(t, "it is recorded", func() bool { return strings.Contains(n.all(), fmt.Sprintf("the server answered %d ", code)) })
			tell(held("two"))
			if d := next(t, got).content(t); d.Data.ID != "two" || d.Dropped != 1 {
				t.Errorf("then it was sent %+v", d)
			}
			if len(strays) != 0 {
				t.Error("it went where the answer said")
			}
		})
	}
}

// TestTLSIsVerified: a server that can't prove to be the one named is told nothing.
func TestTLSIsVerified(t *testing.T) {
	t.Parallel()
	told := make(chan bool, 100)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { told <- true }))
	s.Config.ErrorLog, s.TLS = log.New(io.Discard, "", 0), &tls.Config{MinVersion: tls.VersionTLS12}
	s.StartTLS()
	t.Cleanup(s.Close)
	var n notes
	tell := start(t, config.Hook{Webhook: s.URL, SecretFile: tempfile.Write(t, 0o600, exampleKey)}, &n)
	tell(held("one"))
	until(t, "it is recorded", func() bool { return strings.Contains(n.all(), "certificate") })
	if len(told) > 0 {
		t.Error("it was told")
	}
}

// TestAnsweredMeanwhile: nobody is told of what needs no answer any more.
func TestAnsweredMeanwhile(t *testing.T) {
	t.Parallel()
	sent, answered := make(chan bool, 1), make(chan bool)
	url, got := server(t, func(n int, w http.ResponseWriter) {
		if n == 0 {
			sent <- true
			<-answered
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	var n notes
	tell := start(t, config.Hook{Webhook: url, SecretFile: tempfile.Write(t, 0o600, exampleKey)}, &n)
	tell(held("one"))
	next(t, sent)
	tell(is("one", "box", api.Approved))
	close(answered)
	next(t, got)
	tell(held("two"))
	if d := next(t, got).content(t); d.Data.ID != "two" {
		t.Errorf("it was told of %+v", d)
	}
}

func TestOpenSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	for want, c := range map[string]config.Hook{
		"hook webhook x.test: secret_file: open /nowhere: no such file": {Webhook: "https://x.test/hunter2", SecretFile: "/nowhere"},
		"openssl rand -base64 32":                                    {Webhook: "https://x.test/", SecretFile: "/nowhere"},
		"can be read or changed by others (mode 0640): chmod 600":    {Webhook: "https://x.test/", SecretFile: tempfile.Write(t, 0o640, exampleKey)},
		"is not a regular file":                                      {Webhook: "https://x.test/", SecretFile: t.TempDir()},
		"there is no key in it":                                      {Webhook: "https://x.test/", SecretFile: tempfile.Write(t, 0o600, "\n")},
		"line 2 is no key: want whsec_ and 24 to 64 bytes in base64": {Webhook: "https://x.test/", SecretFile: tempfile.Write(t, 0o600, "\nhunter2\n")},
		"is too long": {Webhook: "https://x.test/", SecretFile: tempfile.Write(t, 0o600, strings.Repeat("\n", 70000))},
		"hook exec /nowhere: stat /nowhere: no such file": {Exec: []string{"/nowhere"}},
		"it is no program": {Exec: []string{tempfile.Write(t, 0o600, "")}},
		"it can be written by others than its owner (mode 0777): chmod go-w ": {Exec: []string{tempfile.Write(t, 0o777, "")}},
		`user "no-such-user": there is no such account`:                       {Exec: []string{"/bin/sh"}, User: "no-such-user"},
	} {
		_, err := Open([]config.Hook{c}, "", nil)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%v\nwant %s", err, want)
		}
	}
}

// TestSign: the example that Standard Webhooks' own libraries are tested with.
func TestSign(t *testing.T) {
	t.Parallel()
	keys, err := parseKeys([]byte(exampleKey))
	if err != nil {
		t.Fatal(err)
	}
	body := `{"type": "example.created", "timestamp":"2023-09-28T19:20:22+00:00", "data":{"str":"string","bool":true,"int":42}}`
	if got, want := sign(keys[0], "msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1696200454, 0), []byte(body)), "v1,GgjvufBlIj71MBIVQotYGb+xEC3LNXCsIZp0HsDC8qs="; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func FuzzParseKeys(f *testing.F) {
	f.Add([]byte(exampleKey + "\n\n" + exampleKey))
	f.Add([]byte("whsec_\r\n"))
	f.Fuzz(func(t *testing.T, src []byte) {
		keys, err := parseKeys(src)
		if (err == nil) != (len(keys) > 0) {
			t.Errorf("%d keys, %v", len(keys), err)
		}
		for _, k := range keys {
			if len(k) < minKey || len(k) > maxKey {
				t.Errorf("a key of %d bytes", len(k))
			}
		}
	})
}
