//go:build e2e

package test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/nemoclaw/nemoclaw/test/harness"
)

const okReply = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

func httpPolicy(name string) string {
	return network(fmt.Sprintf("{domain: %s, ports: [80], protocol: http}", name))
}

func TestHostOfEachRequest(t *testing.T) {
	t.Parallel()
	a4, _ := harness.W.Addr()
	harness.W.DNS.Set("host.test", a4)
	server := harness.W.HTTP(t, a4, 80, harness.Hello)
	get := func(host string) string { return b64("GET /" + host + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n") }
	r, out := harness.W.Probe(t, harness.Box{Policy: httpPolicy("host.test")},
		"say host.test 80 "+get("host.test"),
		"say host.test 80 "+get("host.test:80"),
		"say host.test 80 "+get("HOST.test"),
		"chat host.test 80 "+get("host.test")+" "+get("host.test"),
		"say host.test 80 "+get("evil.test"),
		"chat host.test 80 "+get("host.test")+" "+get("evil.test"),
		"say host.test 80 "+b64("GET / HTTP/1.1\r\nHost: host.test\r\n\r\nGET /evil HTTP/1.1\r\nHost: evil.test\r\n\r\n"),
		"say host.test 80 "+b64("GET http://evil.test/evil HTTP/1.1\r\nHost: host.test\r\n\r\n"),
		"say host.test 80 "+get("host.test:81"),
	)
	for i, o := range out[:4] {
		if !strings.Contains(strings.ToLower(o.Out), "hello from host.test") {
			t.Errorf("attempt %d, an allowed host: %q %q", i, o.Errno, o.Out)
		}
	}
	for _, req := range server.Requests() {
		if strings.Contains(req.Path, "evil") || strings.Contains(req.Host, "evil") || strings.Contains(req.Host, "81") {
			t.Errorf("the server was asked %+v", req)
		}
	}
	if n := len(r.Find("network", "deny", "")); n < 5 {
		t.Errorf("%d refusals recorded, want 5\n%s", n, r.Dump())
	}
}

// TestSmuggling: where Host decides, a request that two parsers could read in two ways does not go through.
func TestSmuggling(t *testing.T) {
	t.Parallel()
	const smuggled = "GET /smuggled HTTP/1.1\r\nHost: evil.test\r\n\r\n"
	chunked := "0\r\n\r\n" + smuggled
	head := "POST / HTTP/1.1\r\nHost: smuggle.test\r\n"
	payloads := map[string]string{
		"length and chunked":         head + fmt.Sprintf("Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n%s", len(chunked), chunked),
		"chunked and length":         head + fmt.Sprintf("Transfer-Encoding: chunked\r\nContent-Length: %d\r\n\r\n%s", len(chunked), chunked),
		"two lengths":                head + fmt.Sprintf("Content-Length: 0\r\nContent-Length: %d\r\n\r\n%s", len(smuggled), smuggled),
		"a list of lengths":          head + fmt.Sprintf("Content-Length: 0, %d\r\n\r\n%s", len(smuggled), smuggled),
		"a length with a sign":       head + fmt.Sprintf("Content-Length: +%d\r\n\r\n%s", len(smuggled), smuggled),
		"a length in hex":            head + "Content-Length: 0x0\r\n\r\n" + smuggled,
		"an unknown coding":          head + "Transfer-Encoding: xchunked\r\n\r\n" + chunked,
		"two codings":                head + "Transfer-Encoding: chunked, identity\r\n\r\n" + chunked,
		"chunked twice":              head + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n" + chunked,
		"a space before the colon":   head + "Content-Length : " + fmt.Sprint(len(smuggled)) + "\r\n\r\n" + smuggled,
		"a folded header":            head + "X: y\r\n Content-Length: 0\r\n\r\n" + smuggled,
		"a folded coding":            head + "Transfer-Encoding:\r\n chunked\r\n\r\n" + chunked,
		"bare line feeds":            "POST / HTTP/1.1\nHost: smuggle.test\n\n" + smuggled,
		"a bare carriage return":     head + "X: a\rContent-Length: 0\r\n\r\n" + smuggled,
		"a NUL in a value":           head + "X: a\x00b\r\n\r\n" + smuggled,
		"two hosts":                  "GET / HTTP/1.1\r\nHost: smuggle.test\r\nHost: evil.test\r\n\r\n",
		"no host":                    "GET /smuggled HTTP/1.1\r\n\r\n",
		"a host with user info":      "GET /smuggled HTTP/1.1\r\nHost: smuggle.test@evil.test\r\n\r\n",
		"a host list":                "GET /smuggled HTTP/1.1\r\nHost: smuggle.test, evil.test\r\n\r\n",
		"version 0.9":                "GET /smuggled\r\n\r\n",
		"version 1.0 without host":   "GET /smuggled HTTP/1.0\r\n\r\n",
		"HTTP/2 by prior knowledge":  "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"CONNECT":                    "CONNECT evil.test:80 HTTP/1.1\r\nHost: smuggle.test\r\n\r\n" + smuggled,
		"a bad chunk size":           head + "Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n" + smuggled,
		"a chunk size too long":      head + "Transfer-Encoding: chunked\r\n\r\n00000000000000000000000\r\n\r\n" + smuggled,
		"a chunk without its end":    head + "Transfer-Encoding: chunked\r\n\r\n1\r\nAA0\r\n\r\n" + smuggled,
		"a chunk ended by line feed": head + "Transfer-Encoding: chunked\r\n\r\n0\n\n" + smuggled,
		"a smuggled trailer":         head + "Transfer-Encoding: chunked\r\n\r\n0\r\nHost: evil.test\r\n\r\n",
		"a header without a name":    head + ": x\r\n\r\n" + smuggled,
		"a line without a colon":     head + "smuggled\r\n\r\n" + smuggled,
		"leading spaces":             "  GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n",
	}
	a4, _ := harness.W.Addr()
	harness.W.DNS.Set("smuggle.test", a4)
	server := harness.W.Canned(t, a4, 80, okReply)
	var attempts, names []string
	for name, p := range payloads {
		names = append(names, name)
		attempts = append(attempts, "say smuggle.test 80 "+b64(p))
	}
	r, out := harness.W.Probe(t, harness.Box{Policy: httpPolicy("smuggle.test")}, attempts...)
	got := server.Bytes()
	for _, bad := range []string{"evil", "smuggled", "PRI *", "CONNECT"} {
		if strings.Contains(got, bad) {
			t.Errorf("%q reached the server:\n%q", bad, got)
		}
	}
	for i, o := range out {
		if strings.Count(o.Out, "\r\n\r\nok") > 1 {
			t.Errorf("%s: two answers: %q", names[i], o.Out)
		}
	}
	if n := len(r.Find("network", "deny", "")); n == 0 {
		t.Errorf("nothing was recorded\n%s", r.Dump())
	}
}

// TestBodiesPass: what is well formed goes through as it came.
func TestBodiesPass(t *testing.T) {
	t.Parallel()
	a4, _ := harness.W.Addr()
	harness.W.DNS.Set("body.test", a4)
	server := harness.W.HTTP(t, a4, 80, harness.Hello)
	head := "POST /%d HTTP/1.1\r\nHost: body.test\r\n"
	_, out := harness.W.Probe(t, harness.Box{Policy: httpPolicy("body.test")},
		"say body.test 80 "+b64(fmt.Sprintf(head, 0)+"Content-Length: 5\r\n\r\nhello"),
		"say body.test 80 "+b64(fmt.Sprintf(head, 1)+"Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"),
		"chat body.test 80 "+b64(fmt.Sprintf(head, 2)+"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")+" "+b64("hello"),
		"say body.test 80 "+b64(fmt.Sprintf(head, 3)+"Content-Length: 5\r\n\r\nhello"+fmt.Sprintf(head, 4)+"Content-Length: 5\r\n\r\nhello"),
	)
	for _, o := range out {
		if !strings.Contains(o.Out, "hello from body.test") {
			t.Errorf("%q gave %q %q", o.Op, o.Errno, o.Out)
		}
	}
	requests := server.Requests()
	if len(requests) != 5 {
		t.Errorf("%d requests reached the server, want 5", len(requests))
	}
	for _, req := range requests {
		if req.Body != "hello" {
			t.Errorf("%s had the body %q", req.Path, req.Body)
		}
	}
}

func TestExplicitProxy(t *testing.T) {
	t.Parallel()
	a4, _ := harness.W.Addr()
	harness.W.DNS.Set("via.test", a4)
	tlsServer := harness.W.HTTPS(t, a4, 443, harness.Hello)
	plain := harness.W.HTTP(t, a4, 80, harness.Hello)
	policy := network(`{domain: via.test, ports: [443], protocol: https}`, `{domain: via.test, ports: [80], protocol: http}`)
	connect := func(host string) string { return "CONNECT " + host + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n" }
	const proxy = "proxy.nemoclaw.internal 3128 "
	r, out := harness.W.Probe(t, harness.Box{Policy: policy},
		"say "+proxy+b64("GET http://via.test/ok HTTP/1.1\r\nHost: via.test\r\nConnection: close\r\n\r\n"),
		"chat "+proxy+b64(connect("via.test:443")),
		"say "+proxy+b64(connect("evil.via.test:443")),
		"say "+proxy+b64(connect("via.test:8443")),
		"say "+proxy+b64(connect(a4.String()+":443")),
		"say "+proxy+b64(connect("127.0.0.1:3128")),
		"say "+proxy+b64(connect("proxy.nemoclaw.internal:3128")),
		// A second CONNECT inside the first tunnel, and one after a refusal.
		"chat "+proxy+b64(connect("via.test:443"))+" "+b64(connect("evil.via.test:443")),
		"chat "+proxy+b64(connect("via.test:80"))+" "+b64(connect("evil.via.test:80")),
		"chat "+proxy+b64(connect("evil.via.test:443"))+" "+b64(connect("evil.via.test:443")),
		"say "+proxy+b64("GET http://evil.via.test/evil HTTP/1.1\r\nHost: via.test\r\n\r\n"),
		"say "+proxy+b64("GET http://via.test/evil HTTP/1.1\r\nHost: evil.via.test\r\n\r\n"),
		"say "+proxy+b64("GET /evil HTTP/1.1\r\nHost: via.test\r\n\r\n"),
	)
	if !strings.Contains(out[0].Out, "hello from via.test") {
		t.Errorf("an absolute URI: %q %q", out[0].Errno, out[0].Out)
	}
	if !strings.HasPrefix(out[1].Out, "HTTP/1.1 200") {
		t.Errorf("CONNECT: %q %q", out[1].Errno, out[1].Out)
	}
	for _, o := range out[2:7] {
		if !strings.HasPrefix(o.Out, "HTTP/1.1 403") {
			t.Errorf("%q gave %q %q, want 403", o.Op, o.Errno, o.Out)
		}
	}
	for _, o := range out[7:] {
		if strings.Count(o.Out, " 200 ") > 1 || strings.Contains(o.Out, "hello") {
			t.Errorf("%q gave %q", o.Op, o.Out)
		}
	}
	noEntry(t, tlsServer, "CONNECT without a TLS handshake")
	for _, req := range plain.Requests() {
		if req.Path != "/ok" {
			t.Errorf("the plain server was asked %+v", req)
		}
	}
	if n := harness.W.DNS.Asked("evil.via.test"); n > 0 {
		t.Errorf("the refused name was asked upstream %d times\n%s", n, r.Dump())
	}
	quiet(t)
}
