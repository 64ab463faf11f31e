package dnsproxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/policy"
)

// rawWorld carries bytes to local.example, which is on the host's own loopback by a rule that names it. The proxy dials
// with its own sockets.
func rawWorld(t testing.TB, real string, opts ...worldOption) (*world, uint16) {
	t.Helper()
	port := netip.MustParseAddrPort(real).Port()
	yaml := fmt.Sprintf(`
network:
  allow:
    - domain: local.example
      ports: [%d]
      protocol: tcp
    - cidr: 127.0.0.0/8
      ports: [%d]
      protocol: tcp
    - domain: short.example
      ports: [%d]
      protocol: tcp
      expires: 1s
    - domain: cmd.example
      ports: [%d]
      protocol: tcp
      commands: [python3]
  ask:
    - domain: asked.example
      ports: [%d]
      protocol: tcp
`, port, port, port, port, port)
	w := newWorld(t, yaml, append([]worldOption{func(_ *world, c *Config) { c.Dial = nil }}, opts...)...)
	for _, n := range []string{"local.example", "asked.example", "short.example", "cmd.example"} {
		w.dns.add(n, netip.MustParseAddr("127.0.0.1"))
	}
	return w, port
}

func echo(c net.Conn) { _, _ = io.Copy(c, c) }

// Bytes arrive whole in both directions at once, whatever the sizes, and both half-closes are passed on.
func TestRelayBothWays(t *testing.T) {
	w, port := rawWorld(t, tcpServer(t, func(c net.Conn) {
		echo(c)
		_ = c.(*net.TCPConn).CloseWrite()
	}))
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			c, err := w.toName("local.example", port)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			r := rand.New(rand.NewSource(int64(i)))
			sent, got := sha256.New(), sha256.New()
			go func() {
				for total := 0; total < 8<<20; {
					b := make([]byte, 1+r.Intn(200_000))
					r.Read(b)
					sent.Write(b)
					if _, err := c.Write(b); err != nil {
						t.Error(err)
					}
					total += len(b)
				}
				_ = c.(*net.TCPConn).CloseWrite()
			}()
			n, err := io.Copy(got, c)
			if err != nil || n < 8<<20 || !bytes.Equal(sent.Sum(nil), got.Sum(nil)) {
				t.Errorf("%d bytes came back: %v", n, err)
			}
		}()
	}
	wg.Wait()
}

func TestRelayHalfClose(t *testing.T) {
	w, port := rawWorld(t, tcpServer(t, func(c net.Conn) {
		b, _ := io.ReadAll(c) // until the client's end
		fmt.Fprintf(c, "got %d bytes", len(b))
	}))
	c := w.mustName("local.example", port)
	_, _ = io.WriteString(c, "hello")
	_ = c.(*net.TCPConn).CloseWrite()
	got, err := io.ReadAll(c)
	if err != nil || string(got) != "got 5 bytes" {
		t.Fatalf("%q %v", got, err)
	}
	for range 100 {
		if w.s.conns.Load() == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d connections left", w.s.conns.Load())
}

func TestRelayServerSpeaksFirst(t *testing.T) {
	w, port := rawWorld(t, tcpServer(t, func(c net.Conn) { _, _ = io.WriteString(c, "220 ready\r\n"); echo(c) }))
	c := w.mustName("local.example", port)
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil || line != "220 ready\r\n" {
		t.Fatal(line, err)
	}
}

func TestRelayResetIsPassedOn(t *testing.T) {
	w, port := rawWorld(t, tcpServer(t, func(c net.Conn) {
		_, _ = io.ReadFull(c, make([]byte, 1))
		_ = c.(*net.TCPConn).SetLinger(0)
	}))
	c := w.mustName("local.example", port)
	_, _ = io.WriteString(c, "x")
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Fatalf("error = %v, want a reset", err)
	}
}

// A side that does not read stops the other; what the proxy holds meanwhile is bounded.
func TestRelayBackPressure(t *testing.T) {
	release := make(chan struct{})
	w, port := rawWorld(t, tcpServer(t, func(c net.Conn) {
		<-release
		_, _ = io.Copy(io.Discard, c)
		_, _ = io.WriteString(c, "done")
	}))
	c := w.mustName("local.example", port)
	c.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
	n := 0
	block := make([]byte, 1<<20)
	var err error
	for err == nil && n < 1<<30 {
		var k int
		k, err = c.Write(block)
		n += k
	}
	if err == nil || n > 64<<20 {
		t.Fatalf("%d bytes were taken from the client while nobody read them", n)
	}
	close(release)
	c.SetDeadline(time.Now().Add(5 * time.Second))
	_ = c.(*net.TCPConn).CloseWrite()
	if got, err := io.ReadAll(c); string(got) != "done" {
		t.Fatalf("%q %v", got, err)
	}
}

func TestRelayIdle(t *testing.T) {
	w, port := rawWorld(t, tcpServer(t, echo), func(_ *world, c *Config) { c.IdleTimeout = time.Second })
	c := w.mustName("local.example", port)
	start := time.Now()
	if _, err := c.Read(make([]byte, 1)); err == nil || time.Since(start) > 4*time.Second {
		t.Fatalf("%v after %v", err, time.Since(start))
	}
}

func TestConnectionCap(t *testing.T) {
	shared := &Limit{Max: 3}
	w, port := rawWorld(t, tcpServer(t, echo), func(_ *world, c *Config) { c.MaxConns, c.Shared = 5, shared })
	open := 0
	var conns []net.Conn
	for range 6 {
		c, err := w.toName("local.example", port)
		if err != nil {
			continue
		}
		conns = append(conns, c)
		c.SetDeadline(time.Now().Add(2 * time.Second))
		_, _ = io.WriteString(c, "x")
		if _, err := io.ReadFull(c, make([]byte, 1)); err == nil {
			open++
		}
	}
	if open != 3 {
		t.Errorf("%d connections open at once, want 3", open)
	}
	for _, c := range conns {
		c.Close()
	}
	deny := 0
	for range 300 {
		for _, d := range w.decisions() {
			if d.Verdict == policy.Deny && d.Count == 3 {
				deny++
			}
		}
		if deny > 0 && shared.used.Load() == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("decisions %+v, %d connections still counted", w.decisions(), shared.used.Load())
}

func TestNothingListens(t *testing.T) {
	l, _ := net.Listen("tcp", "127.0.0.1:0")
	addr := l.Addr().String()
	l.Close()
	w, port := rawWorld(t, addr)
	c, err := w.toName("local.example", port)
	if err == nil {
		_, err = io.ReadAll(c)
		c.Close()
	}
	if !errors.Is(err, unix.ECONNRESET) {
		t.Error(err)
	}
	w.wantOne(policy.Allow, fmt.Sprintf("local.example:%d", port), "")
}

// Of several addresses the first that answers is used: a refused one costs nothing, a silent one the stagger.
func TestHappyEyeballs(t *testing.T) {
	w, port := rawWorld(t, tcpServer(t, echo))
	try := func(e cachedName) time.Duration {
		t.Helper()
		e.until = never
		w.s.names.put("local.example", e)
		c := w.mustName("local.example", port)
		start := time.Now()
		_, _ = io.WriteString(c, "x")
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		return time.Since(start)
	}
	four := netip.MustParseAddr("127.0.0.1")
	w.ask("local.example", dns.TypeA)
	if took := try(cachedName{Addresses: Addresses{IPv6: []netip.Addr{netip.MustParseAddr("2001:db8::1")}, IPv4: []netip.Addr{netip.MustParseAddr("127.0.0.2"), four}}}); took > 2*time.Second {
		t.Errorf("took %v", took)
	}
	got := fmt.Sprint(interleave([]netip.Addr{netip.MustParseAddr("::a"), netip.MustParseAddr("::b")}, []netip.Addr{four}))
	if got != "[::a 127.0.0.1 ::b]" {
		t.Errorf("order %s", got)
	}
}

func TestAsk(t *testing.T) {
	type question struct {
		d   policy.Decision
		ctx context.Context
	}
	asked := make(chan question, 1)
	answer := make(chan policy.Verdict, 1)
	w, port := rawWorld(t, tcpServer(t, echo), func(_ *world, c *Config) {
		c.Ask = func(ctx context.Context, d policy.Decision) policy.Verdict {
			asked <- question{d, ctx}
			select {
			case v := <-answer:
				return v
			case <-ctx.Done():
				return policy.Deny
			}
		}
	})
	object := fmt.Sprintf("asked.example:%d", port)
	t.Run("allowed", func(t *testing.T) {
		w.forget()
		c := w.mustName("asked.example", port)
		_, _ = io.WriteString(c, "held bytes")
		q := <-asked
		if q.d.Object != object || q.d.Verdict != policy.Ask || q.d.Subject.PID != 42 {
			t.Errorf("asked %+v", q.d)
		}
		c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, context.DeadlineExceeded) && !strings.Contains(err.Error(), "timeout") {
			t.Fatalf("%d bytes while held, %v", n, err)
		}
		answer <- policy.Allow
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		got := make([]byte, 10)
		if _, err := io.ReadFull(c, got); err != nil || string(got) != "held bytes" {
			t.Fatalf("%q %v", got, err)
		}
		w.wantOne(policy.Allow, object, "approved")
	})
	t.Run("denied", func(t *testing.T) {
		w.forget()
		c := w.mustName("asked.example", port)
		<-asked
		answer <- policy.Deny
		if got, err := io.ReadAll(c); len(got) > 0 || err == nil {
			t.Errorf("%q %v", got, err)
		}
		w.wantOne(policy.Deny, object, "it was asked about, and was denied")
	})
	t.Run("the client leaves", func(t *testing.T) {
		c := w.mustName("asked.example", port)
		q := <-asked
		_ = c.(*net.TCPConn).SetLinger(0)
		c.Close()
		select {
		case <-q.ctx.Done():
		case <-time.After(5 * time.Second):
			t.Error("still being asked about")
		}
	})
}

func TestAskWithNobodyThere(t *testing.T) {
	w, port := rawWorld(t, tcpServer(t, echo))
	if c, err := w.toName("asked.example", port); err == nil {
		_, _ = io.Copy(io.Discard, c)
		c.Close()
	}
	w.wantOne(policy.Deny, fmt.Sprintf("asked.example:%d", port), "nobody is there")
}

func TestGranted(t *testing.T) {
	w, port := rawWorld(t, tcpServer(t, echo), func(_ *world, c *Config) {
		c.Granted = func(d policy.Decision) bool { return strings.HasPrefix(d.Object, "asked.example:") }
	})
	c := w.mustName("asked.example", port)
	_, _ = io.WriteString(c, "x")
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	w.wantOne(policy.Allow, fmt.Sprintf("asked.example:%d", port), "granted")
}

func TestCommands(t *testing.T) {
	w, port := rawWorld(t, tcpServer(t, echo))
	if c, err := w.toName("cmd.example", port); err == nil {
		_, _ = io.Copy(io.Discard, c)
		c.Close()
	}
	w.wantOne(policy.Deny, fmt.Sprintf("cmd.example:%d", port), "no rule")
	w.forget()
	w.command = "python3"
	c := w.mustName("cmd.example", port)
	_, _ = io.WriteString(c, "x")
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	w.wantOne(policy.Allow, fmt.Sprintf("cmd.example:%d", port), "")
	w.forget()
	w.taint = "PYTHONPATH"
	if c, err := w.toName("cmd.example", port); err == nil {
		_, _ = io.Copy(io.Discard, c)
		c.Close()
	}
	if d := w.wantOne(policy.Deny, fmt.Sprintf("cmd.example:%d", port), "PYTHONPATH was set when it was started, so that other code may run as it; start it without"); d.Rule == "default" {
		t.Errorf("the record does not name the rule that is withheld: %+v", d)
	}
}

// A connection ends when its rule expires and when a new policy does not allow it.
func TestExpiryAndSetPolicy(t *testing.T) {
	w, port := rawWorld(t, tcpServer(t, echo))
	short, kept := w.mustName("short.example", port), w.mustName("local.example", port)
	for _, c := range []net.Conn{short, kept} {
		_, _ = io.WriteString(c, "x")
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := short.Read(make([]byte, 1)); err == nil {
		t.Error("the connection outlived its rule")
	}
	if r := w.ask("short.example", dns.TypeAAAA); ede(r) != edeBlocked {
		// The cached answer may live for up to a minute; ask for a type that was not asked before.
		t.Errorf("an expired rule still lists its name: %v", r)
	}
	_, _ = io.WriteString(kept, "y")
	if _, err := io.ReadFull(kept, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	w.forget()
	next := compile(t, "network:\n  allow:\n    - domain: new.example\n      ports: [443]\n      protocol: https\n")
	if closed, err := w.s.SetPolicy(next); err != nil || closed != 1 {
		t.Fatal(closed, err)
	}
	if _, err := kept.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("error = %v", err)
	}
	d := w.wantOne(policy.Deny, fmt.Sprintf("local.example:%d", port), "policy changed")
	if d.Revision != next.Revision {
		t.Errorf("revision %s", d.Revision)
	}
	found := false
	for _, n := range w.s.Names() {
		found = found || n.Name == "new.example"
	}
	if !found {
		t.Error("the new policy's name has no address")
	}
}

// Through the host's own proxy connections go by name, with nothing asked of DNS.
func TestHostProxy(t *testing.T) {
	var mu sync.Mutex
	var lines []string
	real := tcpServer(t, echo)
	hostProxy := tcpServer(t, func(c net.Conn) {
		r := bufio.NewReader(c)
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		mu.Lock()
		lines = append(lines, req.Method+" "+req.Host+" "+req.Header.Get("Proxy-Authorization"))
		mu.Unlock()
		if strings.HasPrefix(req.Host, "cmd.") {
			_, _ = io.WriteString(c, "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
			return
		}
		up, err := net.Dial("tcp", real)
		if err != nil {
			return
		}
		defer up.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
		go func() { _, _ = io.Copy(up, r) }()
		_, _ = io.Copy(c, up)
	})
	env := map[string]string{"https_proxy": "http://user:pass@" + hostProxy, "NO_PROXY": "direct.example"}
	w, port := rawWorld(t, real, func(w *world, c *Config) {
		c.HostProxy = HostProxyFromEnvironment(func(k string) string { return env[k] })
		w.command = "python3"
	})
	c := w.mustName("local.example", port)
	_, _ = io.WriteString(c, "through")
	got := make([]byte, 7)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "through" {
		t.Fatalf("%q %v", got, err)
	}
	mu.Lock()
	want := fmt.Sprintf("CONNECT local.example:%d Basic dXNlcjpwYXNz", port)
	if len(lines) != 1 || lines[0] != want {
		t.Errorf("the proxy saw %q, want %q", lines, want)
	}
	mu.Unlock()
	if a := w.dns.asked(); len(a) != 0 {
		t.Errorf("DNS was asked: %v", a)
	}
	refused := w.mustName("cmd.example", port)
	if got, _ := io.ReadAll(refused); len(got) != 0 {
		t.Errorf("%q", got)
	}
	if u := w.s.cfg.HostProxy("direct.example", 443); u != nil {
		t.Errorf("NO_PROXY is not heeded: %v", u)
	}
	if HostProxyFromEnvironment(func(string) string { return "" }) != nil {
		t.Error("a proxy without one being set")
	}
}

func TestCloseEndsConnections(t *testing.T) {
	w, port := rawWorld(t, tcpServer(t, echo))
	c := w.mustName("local.example", port)
	_, _ = io.WriteString(c, "x")
	_, _ = io.ReadFull(c, make([]byte, 1))
	if err := w.s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the connection is still open")
	}
	l, _ := net.Listen("tcp", "127.0.0.1:0")
	if err := w.s.ServeTCP(l); !errors.Is(err, errClosed) {
		t.Errorf("serving after close: %v", err)
	}
}

func TestNewSaysWhatIsMissing(t *testing.T) {
	_, err := New(Config{})
	for _, want := range []string{"Policy", "Identify", "Record"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
}

// A connection whose head is still coming in when the policy changes is judged by the new one.
func TestSetPolicyWhileTheHeadIsRead(t *testing.T) {
	w := tlsWorld(t)
	c := w.mustName("good.example", 443)
	hello := helloFor("good.example")
	if _, err := c.Write(hello[:10]); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond)
	if _, err := w.s.SetPolicy(compile(t, "network:\n  deny:\n    - domain: good.example\n")); err != nil {
		t.Fatal(err)
	}
	_, werr := c.Write(hello[10:])
	if got, err := io.ReadAll(c); len(got) != 0 || err == nil && werr == nil {
		t.Errorf("%x %v %v", got, err, werr) // the reset shows once, in whichever call comes first
	}
	w.wantOne(policy.Deny, "good.example:443", "no rule allows this connection any longer")
	if n := w.dials(); len(n) != 0 {
		t.Errorf("dialled %v", n)
	}
}
