package dnsproxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
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

// What a person let through and takes back while the name is looked up, or an address dialled, is not connected.
func TestCloseGrantedWhileItDials(t *testing.T) {
	dialling, release := make(chan struct{}), make(chan struct{})
	w := newWorld(t, "network: {}\n", func(w *world, c *Config) {
		c.Granted = func(policy.Decision) bool { return true }
		c.Dial = func(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
			close(dialling)
			<-release
			return w.dial(ctx, to)
		}
	})
	w.site("granted.example", "203.0.113.10", 7000, tcpServer(t, echo))
	c := w.mustName("granted.example", 7000)
	_, _ = io.WriteString(c, "x")
	<-dialling
	closed := w.s.CloseGranted(func(d policy.Decision) bool { return d.Object == "granted.example:7000" })
	close(release)
	_ = c.SetReadDeadline(time.Now().Add(2 * time.Second))
	if n, err := c.Read(make([]byte, 1)); closed != 1 || n != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%d closed, %d bytes came, %v", closed, n, err)
	}
}

// An address that a person let through is what TLS to it goes to, whatever name it asks for, but for one that is denied.
func TestGrantedAddress(t *testing.T) {
	w := tlsWorld(t, func(_ *world, c *Config) {
		c.Granted = func(d policy.Decision) bool { return d.Object == "203.0.113.90:443" }
	})
	w.mu.Lock()
	w.routes[netip.MustParseAddrPort("203.0.113.90:443")] = w.routes[netip.MustParseAddrPort("203.0.113.80:443")]
	w.mu.Unlock()
	handshake := func(to, name string) error {
		c, err := w.to(netip.MustParseAddrPort(to))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		return tls.Client(c, &tls.Config{ServerName: name, InsecureSkipVerify: true}).Handshake()
	}
	for _, name := range []string{"", "other.example"} {
		if err := handshake("203.0.113.90:443", name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, d := range w.decisions() {
		if d.Verdict != policy.Allow || d.Object != "203.0.113.90:443" || d.Reason != "granted by a person" {
			t.Errorf("%+v", d)
		}
	}
	if got := w.dials(); len(got) != 2 || got[0].String() != "203.0.113.90:443" {
		t.Errorf("dialled %v", got)
	}
	if handshake("203.0.113.91:443", "other.example") == nil || handshake("203.0.113.90:443", "bad.example") == nil {
		t.Error("an address that nobody let through was connected, or a name that is denied")
	}
}
