package dnsproxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/nemoclaw/nemoclaw/policy"
)

// TestLocal reaches a name that the process answers itself in every way in, and shows that nobody is asked for the name.
func TestLocal(t *testing.T) {
	w := newWorld(t, "inference:\n  local: {model: \"ollama/x\"}\n", func(_ *world, c *Config) {
		c.MaxConns = 2
		c.Local = &Local{Name: policy.InferenceName, Serve: func(c net.Conn, from Handed) {
			defer c.Close()
			r, err := http.ReadRequest(bufio.NewReader(c))
			if err != nil {
				return
			}
			body, _ := io.ReadAll(r.Body)
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n%s %d %s %s %s", from.Subject.Exe, from.Port, r.Method, r.URL.Path, body)
		}}
	})
	const request = "POST /v1/x HTTP/1.1\r\nHost: inference.local\r\nContent-Length: 5\r\n\r\nhello"
	proxied := func(first string) net.Conn {
		c, err := net.Dial("tcp", w.proxy)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(c, first)
		return c
	}
	for range 3 { // more than may be open at once: what is over is given back
		for name, c := range map[string]net.Conn{
			"80":      func() net.Conn { c := w.mustName(policy.InferenceName, 80); fmt.Fprint(c, request); return c }(),
			"CONNECT": proxied("CONNECT inference.local:80 HTTP/1.1\r\nHost: inference.local:80\r\n\r\n" + request),
		} {
			got, err := io.ReadAll(c)
			if err != nil || !strings.Contains(string(got), "/usr/bin/node 80 POST /v1/x hello") {
				t.Errorf("%s: %q, %v", name, got, err)
			}
			c.Close()
		}
	}
	c := proxied("POST http://inference.local/v1/x HTTP/1.1\r\nHost: inference.local\r\nContent-Length: 5\r\n\r\nhello")
	defer c.Close()
	if got, err := io.ReadAll(c); err != nil || !strings.Contains(string(got), "80 POST /v1/x hello") {
		t.Errorf("an absolute URI: %q, %v", got, err)
	}
	if n := w.dns.asked()["inference.local."]; n != 0 || len(w.dials()) != 0 {
		t.Errorf("the name was asked for %d times, and %v dialled", n, w.dials())
	}
	if r := w.ask(policy.InferenceName, dns.TypeAAAA); len(r.Answer) != 1 {
		t.Errorf("the name's IPv6 address: %v", r)
	}
	w.forget()
	other := w.mustName(policy.InferenceName, 8080)
	fmt.Fprint(other, "GET / HTTP/1.1\r\nHost: inference.local:8080\r\n\r\n")
	_, _ = io.ReadAll(other)
	w.wantOne(policy.Deny, "inference.local:8080", "no rule allows it")
}
