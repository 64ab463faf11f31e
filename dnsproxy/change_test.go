package dnsproxy

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/policy"
)

// changed puts another policy into force, and checks that it ends a connection that had been allowed.
func (w *world) changed(c net.Conn, yaml string) {
	w.t.Helper()
	w.forget()
	if _, err := w.s.SetPolicy(compile(w.t, yaml)); err != nil {
		w.t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(2 * time.Second))
	if n, err := io.Copy(io.Discard, c); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		w.t.Errorf("the connection outlived what had allowed it by %d bytes: %v", n, err)
	}
}

// A name's rule stays, and what allowed or did not deny the address behind it changes.
func TestSetPolicyJudgesAddressesAgain(t *testing.T) {
	for _, next := range []string{
		"network:\n  allow:\n    - {domain: local.example, ports: [%d], protocol: tcp}\n",
		"network:\n  allow:\n    - {domain: local.example, ports: [%d], protocol: tcp}\n    - {cidr: 127.0.0.0/8, ports: [%[1]d], protocol: tcp}\n  deny:\n    - cidr: 127.0.0.1/32\n",
	} {
		w, port := rawWorld(t, tcpServer(t, echo))
		c := w.mustName("local.example", port)
		_, _ = io.WriteString(c, "x")
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		w.changed(c, fmt.Sprintf(next, port))
		w.wantOne(policy.Deny, fmt.Sprintf("local.example:%d", port), "127.0.0.1")
	}
}

// A client that sends a request that is refused while an answer comes in does not keep the answer coming.
func TestSetPolicyEndsAnswersBeforeARefusal(t *testing.T) {
	real := tcpServer(t, func(c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
		for {
			if _, err := io.WriteString(c, "data"); err != nil {
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
	})
	w := newWorld(t, "network:\n  allow:\n    - {domain: good.example, ports: [80], protocol: http}\n")
	w.site("good.example", "203.0.113.10", 80, real)
	c := w.mustName("good.example", 80)
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: good.example\r\n\r\nGET / HTTP/1.1\r\nHost: evil.example\r\n\r\n")
	if _, err := io.ReadFull(c, make([]byte, 200)); err != nil {
		t.Fatal(err)
	}
	w.changed(c, "network:\n  deny:\n    - domain: good.example\n")
	w.wantOne(policy.Deny, "good.example:80", "policy changed")
}

// What is asked of the explicit proxy after a change is judged by the new policy from the first step on: no name that is
// not allowed any more is looked up.
func TestSetPolicyWhileTheProxyWaits(t *testing.T) {
	w := tlsWorld(t)
	c, err := net.Dial("tcp", w.proxy)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, "CONNECT good.example:443 HTTP/1.1\r\n")
	time.Sleep(50 * time.Millisecond)
	if _, err := w.s.SetPolicy(compile(t, "network: {}\n")); err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(c, "Host: good.example:443\r\n\r\n")
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	got, _ := io.ReadAll(c)
	if !strings.HasPrefix(string(got), "HTTP/1.1 403") {
		t.Errorf("%q", got)
	}
	if asked := w.dns.asked(); len(asked) > 0 {
		t.Errorf("asked of the host's resolvers: %v", asked)
	}
}
