package dnsproxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/policy"
)

// serverMessage is a record with a ServerHello of a random.
func serverMessage(random []byte) []byte {
	body := append(append([]byte{3, 3}, random...), 0, 0x13, 1, 0, 0, 0)
	msg := append([]byte{msgServerHello, 0, 0, byte(len(body))}, body...)
	return append([]byte{recordHandshake, 3, 3, 0, byte(len(msg))}, msg...)
}

var (
	retryMessage = serverMessage(retryRandom)
	plainMessage = serverMessage(bytes.Repeat([]byte{7}, 32))
	cipherSpec   = []byte{recordChangeCipherSpec, 3, 3, 0, 1, 1}
	earlyData    = []byte{recordApplicationData, 3, 3, 0, 3, 'a', 'b', 'c'}
	warning      = []byte{recordAlert, 3, 3, 0, 2, 1, alertUnrecognize}
	secret       = []byte{recordApplicationData, 3, 3, 0, 4, 'd', 'a', 't', 'a'}
)

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// A server that wants another key share, as real ones do: the handshake goes on to its end.
func TestHelloRetryWithARealServer(t *testing.T) {
	w := newWorld(t, tlsPolicy)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(rw, r.Host) }))
	srv.TLS = serverTLS(t, "good.example")
	srv.TLS.MinVersion, srv.TLS.CurvePreferences = tls.VersionTLS13, []tls.CurveID{tls.CurveP521}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	w.site("good.example", "203.0.113.10", 443, srv.Listener.Addr().String())
	var state tls.ConnectionState
	tr := &http.Transport{
		DialContext:     func(context.Context, string, string) (net.Conn, error) { return w.toName("good.example", 443) },
		TLSClientConfig: &tls.Config{RootCAs: roots(), VerifyConnection: func(s tls.ConnectionState) error { state = s; return nil }},
	}
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr}).Get("https://good.example/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "good.example" {
		t.Errorf("body %q, %v", body, err)
	}
	if !state.HelloRetryRequest {
		t.Error("the server sent no HelloRetryRequest, so nothing was tested")
	}
	w.wantOne(policy.Allow, "good.example:443", "")
}

// What a client may and may not send after a HelloRetryRequest, and before the server has said anything.
func TestSecondClientHello(t *testing.T) {
	good, evil := helloFor("good.example"), helloFor("evil.example")
	withECH := makeHello(append(ext(0, sniList("good.example")), ext(extECH, []byte{0, 0})...))
	for _, tc := range []struct {
		name   string
		early  []byte // sent with the first ClientHello
		answer []byte // the server's
		then   []byte // sent after it
		reason string // of the refusal; "": everything arrives
		last   []byte // what the server gets last in spite of a refusal
	}{
		{name: "the same name", answer: retryMessage, then: join(cipherSpec, good, secret)},
		{name: "early data before it", early: join(earlyData, cipherSpec), answer: retryMessage, then: join(good, secret)},
		{name: "no retry", answer: plainMessage, then: join(evil, secret)}, // encrypted or ignored: not a ClientHello that a server takes
		{name: "an alert", answer: tlsAlert(40), then: secret},
		{name: "not TLS", answer: []byte("220 hello\r\n"), then: secret},
		{name: "half a record's head before the answer", early: earlyData[:3], answer: plainMessage, then: join(earlyData[3:], secret)},
		{name: "a warning first", answer: join(warning, retryMessage), then: join(good, secret)},
		{name: "another name, a warning first", answer: join(warning, retryMessage), then: evil, reason: "names another server"},
		{name: "split", answer: retryMessage, then: splitRecords(good, 7)},
		{name: "another name", answer: retryMessage, then: evil, reason: "names another server"},
		{name: "another name after a change of cipher", answer: retryMessage, then: join(cipherSpec, evil), reason: "names another server", last: cipherSpec},
		{name: "another name, split", answer: retryMessage, then: splitRecords(evil, 5), reason: "names another server"},
		{name: "another name at once", early: evil, answer: retryMessage, reason: "names another server"},
		{name: "another name at once, after early data", early: join(earlyData, evil), answer: retryMessage, reason: "names another server", last: earlyData},
		{name: "no name", answer: retryMessage, then: makeHello(nil), reason: "names another server"},
		{name: "an encrypted part", answer: retryMessage, then: withECH, reason: "ECH"},
		{name: "no ClientHello", answer: retryMessage, then: []byte{recordHandshake, 3, 3, 0, 4, 20, 0, 0, 0}, reason: "not a TLS ClientHello"},
		{name: "no TLS", answer: retryMessage, then: []byte("GET / HTTP/1.1\r\n\r\n"), reason: "not TLS"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, tlsPolicy)
			got := make(chan []byte, 1)
			answered := make(chan []byte, 1)
			w.site("good.example", "203.0.113.10", 443, tcpServer(t, func(c net.Conn) {
				first := make([]byte, len(good))
				if _, err := io.ReadFull(c, first); err != nil || !bytes.Equal(first, good) {
					t.Errorf("the server got %x first, %v", first, err)
				}
				// What may not come before the answer would have come by now.
				_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
				early, _ := io.ReadAll(c)
				answered <- early
				_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
				for i := range tc.answer { // a byte at a time
					_, _ = c.Write(tc.answer[i : i+1])
				}
				rest, _ := io.ReadAll(c)
				got <- append(early, rest...)
			}))
			c := w.mustName("good.example", 443)
			if _, err := c.Write(join(good, tc.early)); err != nil {
				t.Fatal(err)
			}
			early := <-answered
			if bytes.Contains(early, []byte("evil")) {
				t.Errorf("before it had answered, the server got %x", early)
			}
			_, cut := io.ReadFull(c, make([]byte, len(tc.answer)))
			if cut != nil && tc.reason == "" {
				t.Errorf("the answer did not arrive: %v", cut)
			}
			if len(tc.then) > 0 { // even an empty write would take the error that the cut left
				_, _ = c.Write(tc.then)
			}
			want := join(tc.early, tc.then)
			if tc.reason != "" {
				want = tc.last
				if _, err := io.ReadAll(c); err == nil && cut == nil {
					t.Error("the connection was not cut")
				}
			} else if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if b := <-got; !bytes.Equal(b, want) {
				t.Errorf("after the first ClientHello the server got %x, want %x", b, want)
			}
			var denied []policy.Decision
			for _, d := range w.decisions() {
				if d.Verdict == policy.Deny {
					denied = append(denied, d)
				}
			}
			if tc.reason == "" && len(denied) > 0 || tc.reason != "" && (len(denied) != 1 || !strings.Contains(denied[0].Reason, tc.reason)) {
				t.Errorf("denied: %+v, want %q", denied, tc.reason)
			}
		})
	}
}

// However both directions are cut into pieces, no other name passes, and what passes is a prefix of what was sent.
func FuzzHelloRetry(f *testing.F) {
	first := helloFor("good.example")
	f.Add(retryMessage, helloFor("good.example"), byte(1))
	f.Add(retryMessage, join(cipherSpec, helloFor("evil.example")), byte(3))
	f.Add(plainMessage, secret, byte(0))
	f.Add(join(retryMessage, plainMessage), splitRecords(helloFor("evil.example"), 9), byte(255))
	f.Fuzz(func(t *testing.T, server, client []byte, cut byte) {
		h, err := parseClientHello(first)
		if err != nil {
			t.Fatal(err)
		}
		// Whole, the server first.
		whole := newHelloRetry(h)
		whole.fromServer(server)
		n, wholeErr := whole.fromClient(join(first, client))
		if n > len(first)+len(client) || n < len(first) {
			t.Fatalf("%d of %d bytes pass", n, len(first)+len(client))
		}
		if whole.retry && n > len(first) {
			if h2, err := parseClientHello(client); err == nil && h2.name != h.name && n >= len(first)+h2.size {
				t.Fatalf("a second ClientHello for %q passes", h2.name)
			}
		}
		// In pieces: what passes in the end is the same.
		step := 1 + int(cut)
		pieces := newHelloRetry(h)
		for b := server; len(b) > 0; b = b[min(step, len(b)):] {
			pieces.fromServer(b[:min(step, len(b))])
		}
		all := join(first, client)
		passed, held := 0, []byte(nil)
		var pieceErr error
		for len(all) > 0 && (pieceErr == nil || errors.Is(pieceErr, errHelloShort)) {
			k := min(step, len(all))
			held = append(held, all[:k]...)
			all = all[k:]
			var n int
			n, pieceErr = pieces.fromClient(held)
			passed += n
			held = held[n:]
		}
		if pieces.decided != whole.decided || pieces.retry != whole.retry {
			t.Fatalf("in pieces the server said %v %v, whole %v %v", pieces.decided, pieces.retry, whole.decided, whole.retry)
		}
		if final := wholeErr != nil && !errors.Is(wholeErr, errHelloShort); final && passed != n {
			t.Fatalf("%d bytes pass in pieces (%v), %d at once (%v)", passed, pieceErr, n, wholeErr)
		}
	})
}
