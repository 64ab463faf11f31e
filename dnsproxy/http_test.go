package dnsproxy

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/policy"
)

const httpPolicy = `
network:
  allow:
    - domain: web.example
      ports: [80]
      protocol: http
    - domain: "*.wild.example"
      ports: [80]
      protocol: http
    - domain: tls.example
      ports: [80, 443]
      protocol: https
    - domain: raw.example
      ports: [80]
      protocol: tcp
`

// httpWorld serves web.example. What the server got is counted by Host and path.
func httpWorld(t testing.TB, h http.Handler, opts ...worldOption) *world {
	w := newWorld(t, httpPolicy, opts...)
	if h == nil {
		h = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			fmt.Fprintf(rw, "%s %s %s", r.Method, r.URL.Path, body)
		})
	}
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	for i, n := range []string{"web.example", "a.wild.example", "tls.example", "raw.example"} {
		w.site(n, fmt.Sprintf("203.0.113.%d", 10+i), 80, srv.Listener.Addr().String())
	}
	return w
}

func (w *world) httpClient(name string) *http.Client {
	tr := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return w.toName(name, 80) }}
	w.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 10 * time.Second}
}

func TestHTTPKeepAlive(t *testing.T) {
	w := httpWorld(t, nil)
	c := w.httpClient("web.example")
	big := strings.Repeat("x", 300_000)
	for i, tc := range []struct {
		method string
		body   io.Reader
		want   string
	}{
		{"GET", nil, "GET /p "},
		{"POST", strings.NewReader(big), "POST /p " + big},
		{"POST", io.MultiReader(strings.NewReader(big), strings.NewReader("end")), "POST /p " + big + "end"}, // chunked
		{"HEAD", nil, ""},
		{"GET", nil, "GET /p "},
		{"PUT", strings.NewReader(""), "PUT /p "},
		{"GET", nil, "GET /p "},
	} {
		req, _ := http.NewRequest(tc.method, "http://web.example/p", tc.body)
		resp, err := c.Do(req)
		if err != nil {
			t.Fatalf("%d: %v", i, err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || string(got) != tc.want {
			t.Fatalf("%d: %d bytes, want %d: %v", i, len(got), len(tc.want), err)
		}
	}
	w.wantOne(policy.Allow, "web.example:80", "")
}

// raw sends bytes on one connection to web.example and returns all that comes back.
func (w *world) raw(name, req string) string {
	w.t.Helper()
	c := w.mustName(name, 80)
	if _, err := io.WriteString(c, req); err != nil {
		w.t.Fatal(err)
	}
	got, _ := io.ReadAll(c)
	return string(got)
}

// TestNotWrittenDown: what is to be on the disk first and can't be is refused, and nothing of it leaves.
func TestNotWrittenDown(t *testing.T) {
	seen := make(chan string, 10)
	w := httpWorld(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen <- r.URL.Path }), func(w *world, c *Config) {
		c.Permit = func(d policy.Decision) error {
			c.Record(d)
			return errors.New("make room")
		}
	})
	resp, err := w.httpClient("web.example").Get("http://web.example/p")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusForbidden || !strings.Contains(string(body), "could not be written down before: make room") {
		t.Errorf("%s: %s, %v", resp.Status, body, err)
	}
	select {
	case path := <-seen:
		t.Errorf("%s went through", path)
	default:
	}
}

// Requests that must not pass: for another host, or framed so that two parsers could disagree. The first request on the
// connection and a later one are refused alike, with one record for each.
func TestHTTPRefusals(t *testing.T) {
	seen := make(chan string, 100)
	w := httpWorld(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		seen <- r.Host + r.URL.Path
		_, _ = io.WriteString(rw, "ok")
	}))
	const h = "Host: web.example\r\n"
	for _, tc := range []struct {
		name, req string
		status    int
		reason    string
	}{
		{"another Host", "GET /evil HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403, "Host is"},
		{"Host with another port", "GET /evil HTTP/1.1\r\nHost: web.example:81\r\n\r\n", 403, "Host is"},
		{"Host with a trailing dot", "GET /evil HTTP/1.1\r\nHost: web.example.\r\n\r\n", 403, "Host is"},
		{"Host with userinfo", "GET /evil HTTP/1.1\r\nHost: web.example@evil.example\r\n\r\n", 403, "Host is"},
		{"no Host", "GET /evil HTTP/1.1\r\n\r\n", 400, "0 Host"},
		{"no Host in 1.0", "GET /evil HTTP/1.0\r\n\r\n", 400, "0 Host"},
		{"two Hosts", "GET /evil HTTP/1.1\r\n" + h + "Host: evil.example\r\n\r\n", 400, "2 Host"},
		{"two equal Hosts", "GET /evil HTTP/1.1\r\n" + h + h + "\r\n", 400, "2 Host"},
		{"Host by underscore", "GET /evil HTTP/1.1\r\n" + h + "host: x\r\n\r\n", 400, "2 Host"},
		{"absolute URI elsewhere", "GET http://evil.example/evil HTTP/1.1\r\n" + h + "\r\n", 403, "URI is for"},
		{"https URI", "GET https://web.example/evil HTTP/1.1\r\n" + h + "\r\n", 400, "neither"},
		{"CONNECT", "CONNECT web.example:80 HTTP/1.1\r\n" + h + "\r\n", 403, "CONNECT inside"},
		{"CL and TE", "POST /evil HTTP/1.1\r\n" + h + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "both"},
		{"TE and CL", "POST /evil HTTP/1.1\r\n" + h + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400, "both"},
		{"two CLs", "POST /evil HTTP/1.1\r\n" + h + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400, "Content-Length"},
		{"CL list", "POST /evil HTTP/1.1\r\n" + h + "Content-Length: 5, 5\r\n\r\nhello", 400, "Content-Length"},
		{"CL sign", "POST /evil HTTP/1.1\r\n" + h + "Content-Length: +5\r\n\r\nhello", 400, "Content-Length"},
		{"CL hex", "POST /evil HTTP/1.1\r\n" + h + "Content-Length: 0x5\r\n\r\nhello", 400, "Content-Length"},
		{"CL huge", "POST /evil HTTP/1.1\r\n" + h + "Content-Length: 9999999999999999999\r\n\r\nhello", 400, "Content-Length"},
		{"CL_underscore", "POST /evil HTTP/1.1\r\n" + h + "Content-Length: 5\r\nContent_Length: 0\r\n\r\nhello", 400, "Content-Length"},
		{"TE identity", "POST /evil HTTP/1.1\r\n" + h + "Transfer-Encoding: identity\r\n\r\n", 501, "Transfer-Encoding"},
		{"TE list", "POST /evil HTTP/1.1\r\n" + h + "Transfer-Encoding: gzip, chunked\r\n\r\n", 501, "Transfer-Encoding"},
		{"TE twice", "POST /evil HTTP/1.1\r\n" + h + "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n", 501, "Transfer-Encoding"},
		{"TE quoted", "POST /evil HTTP/1.1\r\n" + h + "Transfer-Encoding: \"chunked\"\r\n\r\n", 501, "Transfer-Encoding"},
		{"TE with a tab inside", "POST /evil HTTP/1.1\r\n" + h + "Transfer-Encoding:\x0bchunked\r\n\r\n", 400, "control byte"},
		{"TE with a space before the colon", "POST /evil HTTP/1.1\r\n" + h + "Transfer-Encoding : chunked\r\n\r\n", 400, "header name"},
		{"TE by underscore", "POST /evil HTTP/1.1\r\n" + h + "Content-Length: 5\r\nTransfer_Encoding: chunked\r\n\r\nhello", 400, "both"},
		{"TE in 1.0", "POST /evil HTTP/1.0\r\n" + h + "Transfer-Encoding: chunked\r\n\r\n", 400, "HTTP/1.0"},
		{"folded header", "GET /evil HTTP/1.1\r\n" + h + "X: a\r\n b\r\n\r\n", 400, "folded"},
		{"first line folded", "GET /evil HTTP/1.1\r\n " + h + "\r\n", 400, "folded"},
		{"bare LF", "GET /evil HTTP/1.1\nHost: web.example\n\n", 400, "CRLF"},
		{"bare LF in a header", "GET /evil HTTP/1.1\r\nX: a\nHost: web.example\r\n\r\n", 400, "CRLF"},
		{"bare CR", "GET /evil HTTP/1.1\r\nX: a\rHost: evil.example\r\n" + h + "\r\n", 400, "control byte"},
		{"NUL", "GET /evil HTTP/1.1\r\nX: a\x00\r\n" + h + "\r\n", 400, "control byte"},
		{"space in the target", "GET /evil x HTTP/1.1\r\n" + h + "\r\n", 400, "request line"},
		{"two spaces", "GET  /evil HTTP/1.1\r\n" + h + "\r\n", 400, "request line"},
		{"HTTP/0.9", "GET /evil\r\n\r\n", 400, "request line"},
		{"HTTP/2.0", "GET /evil HTTP/2.0\r\n" + h + "\r\n", 505, "version"},
		{"HTTP/1.10", "GET /evil HTTP/1.10\r\n" + h + "\r\n", 505, "version"},
		{"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "HTTP/2"},
		{"h2c upgrade", "GET /evil HTTP/1.1\r\n" + h + "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n", 501, "upgrade"},
		{"other upgrade", "GET /evil HTTP/1.1\r\n" + h + "Upgrade: TLS/1.0\r\nConnection: Upgrade\r\n\r\n", 501, "upgrade"},
		{"Connection: Host", "GET /evil HTTP/1.1\r\n" + h + "Connection: close, Host\r\n\r\n", 400, "Connection names"},
		{"Connection: Content-Length", "POST /evil HTTP/1.1\r\n" + h + "Content-Length: 1\r\nConnection: content-length\r\n\r\nx", 400, "Connection names"},
		{"expectation", "GET /evil HTTP/1.1\r\n" + h + "Expect: magic\r\n\r\n", 417, "expectation"},
		{"TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "not an HTTP request"},
		{"leading CRLF", "\r\nGET /evil HTTP/1.1\r\n" + h + "\r\n", 400, "request line"},
		{"too many headers", "GET /evil HTTP/1.1\r\n" + h + strings.Repeat("X: y\r\n", maxHeaders) + "\r\n", 431, "lines"},
		{"too long a head", "GET /evil HTTP/1.1\r\n" + h + "X: " + strings.Repeat("y", maxHead) + "\r\n\r\n", 431, "64 KiB"},
	} {
		for _, later := range []bool{false, true} {
			name := tc.name
			req := tc.req
			if later {
				name += ", second request"
				req = "GET /first HTTP/1.1\r\n" + h + "\r\n" + req
			}
			t.Run(name, func(t *testing.T) {
				w.forget()
				got := w.raw("web.example", req)
				r := bufio.NewReader(strings.NewReader(got))
				if later {
					resp, err := http.ReadResponse(r, nil)
					if err != nil {
						t.Fatalf("first response: %v in %q", err, got)
					}
					_, _ = io.Copy(io.Discard, resp.Body)
					if p := <-seen; p != "web.example/first" {
						t.Fatalf("the server saw %s", p)
					}
				}
				resp, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Fatalf("refusal: %v in %q", err, got)
				}
				var body struct {
					Error, Tried, Rule, Reason string
					Next                       []string
				}
				if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
					t.Fatal(err)
				}
				if resp.StatusCode != tc.status || !strings.Contains(body.Reason, tc.reason) || len(body.Next) == 0 {
					t.Errorf("%d %+v, want %d %q", resp.StatusCode, body, tc.status, tc.reason)
				}
				select {
				case p := <-seen:
					t.Errorf("the server saw %s", p)
				default:
				}
				var denied []policy.Decision
				for _, d := range w.decisions() {
					if d.Verdict == policy.Deny {
						denied = append(denied, d)
					}
				}
				if len(denied) != 1 || denied[0].Action != "request" || denied[0].Object != "web.example:80" {
					t.Errorf("denials: %+v", denied)
				}
			})
		}
	}
}

// A body that goes wrong ends the connection: what follows it is never taken for a request, and the server never sees one.
func TestHTTPChunkAttacks(t *testing.T) {
	seen := make(chan string, 10)
	w := httpWorld(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadAll(r.Body); err == nil {
			seen <- r.URL.Path
		}
	}))
	head := "POST /chunked HTTP/1.1\r\nHost: web.example\r\nTransfer-Encoding: chunked\r\n\r\n"
	smuggled := "GET /smuggled HTTP/1.1\r\nHost: evil.example\r\n\r\n"
	for name, body := range map[string]string{
		"extension":         "5;a=b\r\nhello\r\n0\r\n\r\n",
		"extension with LF": "5;\nhello\r\n0\r\n\r\n" + smuggled,
		"bare LF":           "5\nhello\n0\n\n" + smuggled,
		"bare CR":           "5\rhello\r0\r\r" + smuggled,
		"0x":                "0x5\r\nhello\r\n0\r\n\r\n",
		"sign":              "+5\r\nhello\r\n0\r\n\r\n",
		"space":             "5 \r\nhello\r\n0\r\n\r\n",
		"leading space":     " 5\r\nhello\r\n0\r\n\r\n",
		"empty size":        "\r\nhello\r\n0\r\n\r\n",
		"overflow":          "10000000000000005\r\nhello\r\n0\r\n\r\n",
		"too long a chunk":  "5\r\nhelloXX0\r\n\r\n" + smuggled,
		"too short a chunk": "5\r\nhel\r\n0\r\n\r\n" + smuggled,
		"folded trailer":    "0\r\nA: b\r\n c\r\n\r\n" + smuggled,
		"trailer Host":      "0\r\nHost: evil.example\r\n\r\n",
		"trailer CL":        "0\r\nContent-Length: 5\r\n\r\n",
		"trailer LF":        "0\r\nA: b\n\r\n" + smuggled,
		"long trailers":     "0\r\n" + strings.Repeat("A: "+strings.Repeat("b", 1000)+"\r\n", 20) + "\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			w.forget()
			got := w.raw("web.example", head+body)
			if strings.Contains(got, "HTTP/1.1 200") {
				t.Errorf("accepted: %q", got)
			}
			if got != "" && !strings.HasPrefix(got, "HTTP/1.1 400") {
				t.Errorf("answer = %q", got)
			}
			time.Sleep(10 * time.Millisecond)
			select {
			case p := <-seen:
				t.Errorf("the server took a whole request: %s", p)
			default:
			}
		})
	}
	got := w.raw("web.example", head+"5\r\nhello\r\nA\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\nGET /next HTTP/1.1\r\nHost: web.example\r\nConnection: close\r\n\r\n")
	if strings.Count(got, "HTTP/1.1 200") != 2 {
		t.Errorf("a good chunked request with trailers, and one after it: %q", got)
	}
}

// A head that comes in drops is cut off, the first of a connection and a later one.
func TestHTTPSlowHead(t *testing.T) {
	w := httpWorld(t, nil, func(_ *world, c *Config) { c.HeaderTimeout = 500 * time.Millisecond })
	for _, before := range []string{"", "GET /first HTTP/1.1\r\nHost: web.example\r\n\r\n"} {
		c := w.mustName("web.example", 80)
		_, _ = io.WriteString(c, before+"GET /slow HTTP/1.1\r\n")
		go func() {
			for range 100 {
				if _, err := io.WriteString(c, "X"); err != nil {
					return
				}
				time.Sleep(50 * time.Millisecond)
			}
		}()
		start := time.Now()
		got, _ := io.ReadAll(c)
		if took := time.Since(start); took > 4*time.Second || strings.Contains(string(got), "/slow") {
			t.Errorf("held for %v: %q", took, got)
		}
	}
}

func TestHTTPPipelining(t *testing.T) {
	w := httpWorld(t, nil)
	var req strings.Builder
	const n = 200 // more than maxPipelined
	for i := range n {
		last := ""
		if i == n-1 {
			last = "Connection: close\r\n"
		}
		fmt.Fprintf(&req, "GET /%d HTTP/1.1\r\nHost: web.example\r\n%s\r\n", i, last)
	}
	got := w.raw("web.example", req.String())
	r := bufio.NewReader(strings.NewReader(got))
	for i := range n {
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatalf("response %d: %v", i, err)
		}
		body, _ := io.ReadAll(resp.Body)
		if want := fmt.Sprintf("GET /%d ", i); string(body) != want {
			t.Fatalf("response %d is %q", i, body)
		}
	}
}

// upstreamSays serves web.example with fixed bytes, once the request's head is in.
func upstreamSays(t *testing.T, f func(c net.Conn, r *bufio.Reader)) *world {
	w := newWorld(t, httpPolicy)
	w.site("web.example", "203.0.113.10", 80, tcpServer(t, func(c net.Conn) {
		r := bufio.NewReader(c)
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			if line == "\r\n" {
				break
			}
		}
		f(c, r)
	}))
	return w
}

func TestHTTPResponseFraming(t *testing.T) {
	const get = "GET / HTTP/1.1\r\nHost: web.example\r\n\r\n"
	for _, tc := range []struct{ name, says, want string }{
		{"until close", "HTTP/1.1 200 OK\r\n\r\nbody to the end", "HTTP/1.1 200 OK\r\n\r\nbody to the end"},
		{"204", "HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 204 No Content\r\n\r\n"},
		{"304 with a length", "HTTP/1.1 304 Not Modified\r\nContent-Length: 50\r\n\r\n", "HTTP/1.1 304 Not Modified\r\nContent-Length: 50\r\n\r\n"},
		{"interim", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"},
		{"chunk extension", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nok\r\n0\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nok\r\n0\r\n\r\n"},
		{"both framings", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 502"},
		{"not HTTP", "SSH-2.0-OpenSSH_9.2\r\n", "HTTP/1.1 502"},
		{"101 unasked", "HTTP/1.1 101 Switching Protocols\r\n\r\nbytes", "HTTP/1.1 502"},
		{"bare LF", "HTTP/1.1 200 OK\nContent-Length: 2\n\nok\r\n\r\n", "HTTP/1.1 502"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := upstreamSays(t, func(c net.Conn, _ *bufio.Reader) { _, _ = io.WriteString(c, tc.says) })
			got := w.raw("web.example", get)
			if got != tc.want && !(strings.HasPrefix(tc.want, "HTTP/1.1 502") && strings.HasPrefix(got, tc.want)) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
	t.Run("a second response nobody asked for", func(t *testing.T) {
		w := upstreamSays(t, func(c net.Conn, r *bufio.Reader) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			time.Sleep(50 * time.Millisecond)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
			_, _ = r.ReadByte()
		})
		if got := w.raw("web.example", get); strings.Contains(got, "poison") {
			t.Errorf("got %q", got)
		}
	})
}

func TestHTTPExpectContinue(t *testing.T) {
	w := httpWorld(t, nil)
	c := w.httpClient("web.example")
	c.Transport.(*http.Transport).ExpectContinueTimeout = 5 * time.Second
	req, _ := http.NewRequest(http.MethodPost, "http://web.example/e", strings.NewReader("body"))
	req.Header.Set("Expect", "100-continue")
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if string(body) != "POST /e body" {
		t.Errorf("body = %q", body)
	}
	t.Run("refused by the server", func(t *testing.T) {
		// The server answers before the body; what the client then sends could be body or a new request, so nothing passes.
		extra := make(chan string, 1)
		w := upstreamSays(t, func(c net.Conn, r *bufio.Reader) {
			_, _ = io.WriteString(c, "HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n")
			c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
			b, _ := io.ReadAll(r)
			extra <- string(b)
		})
		c := w.mustName("web.example", 80)
		_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: web.example\r\nExpect: 100-continue\r\nContent-Length: 60\r\n\r\n")
		if _, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, "GET /smuggled HTTP/1.1\r\nHost: evil.example\r\n\r\n")
		if got := <-extra; got != "" {
			t.Errorf("the server got %q", got)
		}
	})
}

func TestHTTPWebSocket(t *testing.T) {
	w := upstreamSays(t, func(c net.Conn, r *bufio.Reader) {
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
		_, _ = io.Copy(c, r)
	})
	c := w.mustName("web.example", 80)
	// The bytes behind the head wait until the upstream has agreed.
	_, _ = io.WriteString(c, "GET /ws HTTP/1.1\r\nHost: web.example\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\r\n\x81\x05early")
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(resp, err)
	}
	_, _ = io.WriteString(c, "CONNECT evil.example:1 HTTP/1.1\r\n")
	want := "\x81\x05earlyCONNECT evil.example:1 HTTP/1.1\r\n"
	got := make([]byte, len(want))
	if _, err := io.ReadFull(r, got); err != nil || string(got) != want {
		t.Fatalf("%q %v", got, err)
	}
}

// --- the explicit proxy ---

func (w *world) proxyClient() *http.Client {
	tr := &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: w.proxy})}
	w.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 10 * time.Second}
}

func TestProxyURI(t *testing.T) {
	w := httpWorld(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(rw, "%s %s %s %s %q", r.Method, r.Host, r.RequestURI, body, r.Header["Proxy-Connection"])
	}))
	c := w.proxyClient()
	for range 3 {
		for _, host := range []string{"web.example", "a.wild.example", "raw.example"} {
			resp, err := c.Post("http://"+host+"/x?y=z", "", strings.NewReader("data"))
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if want := "POST " + host + " /x?y=z data []"; string(body) != want {
				t.Fatalf("%q, want %q", body, want)
			}
		}
	}
	w.forget()
	resp, err := c.Get("http://evil.example/secret")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden || !strings.Contains(string(body), "domain: evil.example") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	d := w.wantOne(policy.Deny, "evil.example:80", "no rule")
	if d.Rule != "default" || d.Suggest == "" {
		t.Errorf("%+v", d)
	}
	if a := w.dns.asked()["evil.example"]; a != 0 {
		t.Errorf("%d queries for a name that is not allowed", a)
	}
}

// rawProxy sends bytes to the explicit proxy and returns all that comes back.
func (w *world) rawProxy(req string) string {
	w.t.Helper()
	c, err := net.Dial("tcp", w.proxy)
	if err != nil {
		w.t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, req); err != nil {
		w.t.Fatal(err)
	}
	got, _ := io.ReadAll(c)
	return string(got)
}

func TestProxyRefusals(t *testing.T) {
	w := httpWorld(t, nil)
	connect := func(to string) string { return "CONNECT " + to + " HTTP/1.1\r\nHost: " + to + "\r\n\r\n" }
	for _, tc := range []struct{ name, req, status string }{
		{"unlisted name", connect("evil.example:443"), "403"},
		{"wrong port", connect("tls.example:22"), "403"},
		{"no port", connect("tls.example"), "400"},
		{"port 0", connect("tls.example:0"), "400"},
		{"huge port", connect("tls.example:99999"), "400"},
		{"signed port", connect("tls.example:+443"), "400"},
		{"userinfo", connect("tls.example:443@evil.example:443"), "400"},
		{"literal", connect("203.0.113.10:80"), "403"},
		{"loopback", connect("127.0.0.1:80"), "403"},
		{"decimal address", connect("2130706433:80"), "400"},
		{"hexadecimal address", connect("0x7f000001:80"), "400"},
		{"octal address", connect("0177.0.0.1:80"), "400"},
		{"long octal", connect("017700000001:80"), "400"},
		{"short address", connect("127.1:80"), "400"},
		{"mixed address", connect("0x7f.1:80"), "400"},
		{"leading zero", connect("127.0.0.01:80"), "400"},
		{"IPv6 loopback", connect("[::1]:80"), "403"},
		{"mapped", connect("[::ffff:127.0.0.1]:80"), "403"},
		{"zone", connect("[fe80::1%25eth0]:80"), "400"},
		{"zone, plain", connect("[fe80::1%eth0]:80"), "400"},
		{"unknown synthetic", connect("198.19.0.77:80"), "400"},
		{"trailing dot", connect("web.example.:80"), "400"},
		{"Host disagrees", "CONNECT web.example:80 HTTP/1.1\r\nHost: evil.example:80\r\n\r\n", "400"},
		{"path", "GET / HTTP/1.1\r\nHost: web.example\r\n\r\n", "400"},
		{"https URI", "GET https://web.example/ HTTP/1.1\r\nHost: web.example\r\n\r\n", "400"},
		{"ftp URI", "GET ftp://web.example/ HTTP/1.1\r\nHost: web.example\r\n\r\n", "400"},
		{"URI userinfo", "GET http://a:b@web.example/ HTTP/1.1\r\nHost: web.example\r\n\r\n", "400"},
		{"URI Host disagrees", "GET http://web.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n", "400"},
		{"http to an https rule", "GET http://tls.example/ HTTP/1.1\r\nHost: tls.example\r\n\r\n", "403"},
		{"body with CONNECT", "CONNECT web.example:80 HTTP/1.1\r\nHost: web.example:80\r\nContent-Length: 4\r\n\r\nbody", "400"},
		{"second CONNECT inside", connect("web.example:80") + connect("evil.example:80"), "200"},
		{"evil Host inside", connect("web.example:80") + "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", "200"},
		{"h2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "505"},
		{"SOCKS5", "\x05\x01\x00", "400"},
		{"SOCKS4", "\x04\x01\x00\x50\x7f\x00\x00\x01\x00", "400"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w.forget()
			got := w.rawProxy(tc.req)
			if !strings.HasPrefix(got, "HTTP/1.1 "+tc.status) {
				t.Errorf("got %q", got)
			}
			if tc.status == "200" && strings.Count(got, "HTTP/1.1 403") != 1 {
				t.Errorf("got %q", got)
			}
			if ds := w.decisions(); len(ds) != 1 || ds[0].Verdict != policy.Deny {
				t.Errorf("decisions: %+v", ds)
			}
			if n := w.dials(); len(n) != 0 {
				t.Errorf("dialled %v", n)
			}
		})
	}
}

func TestProxyConnectByRule(t *testing.T) {
	w := httpWorld(t, nil)
	// The inner bytes of an http rule are HTTP requests, of a tcp rule anything.
	got := w.rawProxy("CONNECT web.example:80 HTTP/1.1\r\nHost: web.example:80\r\n\r\nGET /in HTTP/1.1\r\nHost: web.example\r\nConnection: close\r\n\r\n")
	if !strings.HasPrefix(got, "HTTP/1.1 200 Connection established\r\n\r\nHTTP/1.1 200 OK") || !strings.HasSuffix(got, "GET /in ") {
		t.Errorf("got %q", got)
	}
	w.wantOne(policy.Allow, "web.example:80", "")
	got = w.rawProxy("CONNECT raw.example:80 HTTP/1.0\r\nHost: raw.example:80\r\nProxy-Connection: keep-alive\r\n\r\nGET /in HTTP/1.0\r\nHost: anything\r\n\r\n")
	if !strings.HasSuffix(got, "GET /in ") {
		t.Errorf("got %q", got)
	}
	got = w.rawProxy("CONNECT gone.wild.example:80 HTTP/1.1\r\nHost: gone.wild.example:80\r\n\r\n")
	if !strings.HasPrefix(got, "HTTP/1.1 502") || !strings.Contains(got, "has no address") {
		t.Errorf("got %q", got)
	}
}

// A name that comes by CONNECT is told to the host's resolvers too, so it meets the limits of one that is asked by DNS.
func TestProxyConnectMeetsTheWildcardRate(t *testing.T) {
	w := httpWorld(t, nil, func(_ *world, c *Config) { c.WildcardBurst, c.WildcardRate = 10, 0.001 })
	limited := 0
	for i := range 30 {
		name := fmt.Sprintf("data-%d.wild.example:80", i)
		got := w.rawProxy("CONNECT " + name + " HTTP/1.1\r\nHost: " + name + "\r\n\r\n")
		if strings.HasPrefix(got, "HTTP/1.1 403") && strings.Contains(got, "too many new names") {
			limited++
		}
	}
	if asked := len(w.dns.asked()); limited != 20 || asked > 10 {
		t.Errorf("%d of 30 were refused, %d names asked upstream; want 20 and 10", limited, asked)
	}
}
