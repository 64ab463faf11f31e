package inference

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/inference/dialect"
	"github.com/nemoclaw/nemoclaw/policy"
)

// exchange is one request on its way to a backend, and back.
type exchange struct {
	request *dialect.Request
	caller  dialect.Dialect
	beta    string    // the caller's anthropic-beta, judged
	texts   []*string // of the request
	were    []string  // what they were when it came
	release func()    // its room

	// Of the backend that is asked:
	backend *policy.Backend
	server  *upstream // what is known of it
	speaks  dialect.Dialect
	hidden  placeholders
	key     string
	began   time.Time
	may     taken // what it may take at most
	sent    bool  // it has the request
	denied  bool  // it has answered that it does not serve it
	seen    int64 // bytes of the answer's text
	pieces  int64 // in which they came; one is a token or more
}

// begun lets go of what was asked, since the caller has the beginning of an answer to it: prompts are large, and streams are long.
func (x *exchange) begun() {
	x.request, x.texts, x.were = x.request.Receipt(), nil, nil
	x.release()
}

// prompt is a body that is sent, and gone once it is. The client may close it while its transport still reads.
type prompt struct {
	mu   sync.Mutex
	left []byte
}

func (p *prompt) Read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.left) == 0 {
		p.left = nil
		return 0, io.EOF
	}
	n := copy(b, p.left)
	p.left = p.left[n:]
	return n, nil
}

func (p *prompt) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left = nil
	return nil
}

// to has the request as it came, for a backend.
func (x *exchange) to(b *policy.Backend, server *upstream) {
	x.backend, x.server, x.speaks, x.hidden = b, server, speaking(b, x.caller), nil
	x.sent, x.denied, x.seen, x.pieces = false, false, 0, 0
	for i, was := range x.were {
		*x.texts[i] = was
	}
}

// newClient follows no redirection: a key goes to its own backend. Of the host's proxies those for the internet are used.
func newClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			DialContext:         (&net.Dialer{Timeout: 15 * time.Second}).DialContext,
			TLSHandshakeTimeout: 15 * time.Second, ResponseHeaderTimeout: 10 * time.Minute, // a large model thinks long before its first word
			MaxIdleConnsPerHost: 16, IdleConnTimeout: 90 * time.Second, ForceAttemptHTTP2: true, DisableCompression: true,
			MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// speaking is the dialect to use with a backend: the caller's own where the backend has it.
func speaking(b *policy.Backend, caller dialect.Dialect) dialect.Dialect {
	switch b.API {
	case "anthropic":
		return dialect.Anthropic
	case "gemini":
		return dialect.Gemini
	case "ollama":
		if caller == dialect.OllamaGenerate {
			return caller
		}
		return dialect.OllamaChat
	}
	switch {
	case caller == dialect.OpenAIResponses && b.Provider == "openai",
		caller == dialect.OpenAICompletions && (b.Provider == "vllm" || b.Provider == "llamacpp"):
		return caller
	}
	return dialect.OpenAIChat
}

// features reports whether a header is what anthropic-beta may be: a few names of features.
func features(header string) bool {
	names := strings.Split(header, ",")
	for _, name := range names {
		name = strings.TrimPrefix(name, " ")
		if name == "" || len(name) > 64 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return false
		}
	}
	return len(names) <= 16
}

// send sends the request to its backend, with nothing of the caller's but what was judged.
func (r *Router) send(ctx context.Context, x *exchange) (*http.Response, error) {
	b := x.backend
	x.request.Model = b.Model
	if b.Provider == "nvidia" {
		x.request.Model = b.String() // its models have their maker's name
	}
	path, body, err := x.request.Write(x.speaks)
	if err != nil {
		return nil, refuse("the request can't be said to %s: %v; it was not sent anywhere", b, err)
	}
	var sent atomic.Bool // the transport says so from elsewhere
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteRequest: func(i httptrace.WroteRequestInfo) {
		if i.Err == nil {
			sent.Store(true)
		}
	}})
	req, err := http.NewRequestWithContext(traced, http.MethodPost, at(b, path), &prompt{left: body})
	if err != nil {
		return nil, refuse("the address of %s in the policy is none", b)
	}
	req.ContentLength = int64(len(body))
	// Where a connection turns out to be closed before any of it was sent.
	req.GetBody = func() (io.ReadCloser, error) { return &prompt{left: body}, nil }
	defer func() { body = nil }()
	req.Header.Set("Content-Type", "application/json")
	authorize(req, b, x.key)
	if x.speaks == dialect.Anthropic && x.caller == dialect.Anthropic && features(x.beta) {
		req.Header.Set("Anthropic-Beta", x.beta)
	}
	resp, err := r.client.Do(req)
	x.sent = sent.Load() || err == nil
	if err != nil {
		return nil, x.unreachable(ctx, err)
	}
	return resp, nil
}

// at is where a backend takes a path.
func at(b *policy.Backend, path string) string {
	base := b.URL
	if strings.HasPrefix(path, "/v1/") {
		base = strings.TrimSuffix(base, "/v1") // as many write it
	}
	return base + path
}

// authorize gives a request to a backend what each has.
func authorize(req *http.Request, b *policy.Backend, key string) {
	req.Header.Set("User-Agent", "nemoclaw")
	if b.API == "anthropic" {
		req.Header.Set("Anthropic-Version", "2023-06-01")
	}
	switch {
	case key == "":
	case b.API == "anthropic":
		req.Header.Set("X-Api-Key", key)
	case b.API == "gemini":
		req.Header.Set("X-Goog-Api-Key", key)
	default:
		req.Header.Set("Authorization", "Bearer "+key)
	}
}

// unreachable says that a backend does not answer.
func (x *exchange) unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return &refusal{message: "the caller went away", class: "given up"}
	}
	down := notReached(err)
	e := &refusal{class: "the server does not answer", message: x.backend.String() + " does not answer (" + down + ")", again: true, down: down}
	if !x.backend.Local {
		e.status = http.StatusBadGateway
	}
	return e
}

// notReached is what kept a request from being answered: without the address, which the sandbox need not know, and in no words of a
// server's. What net/http says of an answer that is none repeats it, and it may be the key, or the prompt.
func notReached(err error) string {
	var (
		errno   syscall.Errno
		timeout net.Error
		dns     *net.DNSError
		cert    *tls.CertificateVerificationError
		record  tls.RecordHeaderError
		alert   tls.AlertError
	)
	switch {
	case errors.As(err, &dns):
		return "its name is not found"
	case errors.As(err, &errno):
		return errno.Error()
	case errors.As(err, &timeout) && timeout.Timeout():
		return "it took too long"
	case errors.As(err, &cert):
		return "its certificate is not trusted"
	case errors.As(err, &record), errors.As(err, &alert):
		return "it speaks no TLS that is spoken here"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "it closed the connection"
	}
	return "what it answers is not understood"
}

const maxSaid = 2000 // of a backend's error that the caller is told

// withoutKey is what a backend says of an error, without the key that it may repeat.
func withoutKey(said, key string) string {
	if key == "" {
		return said
	}
	return strings.ReplaceAll(said, key, "(the key)")
}

// refused is a backend's error as the caller is told.
func (x *exchange) refused(resp *http.Response) error {
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10)) // as far as it came
	said := withoutKey(dialect.ErrorMessage(body), x.key)    // whole: a piece of it would stay at a cut
	if len(said) > maxSaid {
		said = strings.ToValidUTF8(said[:maxSaid], "") + "..."
	}
	said = x.hidden.restore(said, false)
	e := &refusal{class: "the server answered " + status(resp), message: x.backend.String() + " answered " + status(resp) + ": " + said}
	switch {
	case resp.StatusCode == http.StatusUnauthorized, resp.StatusCode == http.StatusForbidden:
		e.message = x.backend.Provider + " does not take the sandbox's key; the person who runs the sandbox can give another: nemoclaw NAME config set key -"
	case resp.StatusCode == http.StatusTooManyRequests, resp.StatusCode >= 500:
		e.status, e.again = resp.StatusCode, true // to be tried again later
	case resp.StatusCode < 400:
		e.message = x.backend.String() + " redirects elsewhere, which is not followed: a key goes to its own provider only"
	}
	return e
}
