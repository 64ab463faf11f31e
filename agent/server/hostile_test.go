package server

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/api"
)

// attackers is how many connections attack at once, attacks how many requests they send together.
const (
	attackers = 8
	attacks   = 10_000
)

// patience is how long the server waits for a request.
const patience = 300 * time.Millisecond

// memoryBound is what the whole process may hold meanwhile, the attackers' own requests included.
const memoryBound = 256 << 20

// attack is one connection's worth of hostility. It says whether an answer must come.
type attack func(rng *rand.Rand, c *net.UnixConn) (answer bool)

// TestHostile sends 10,000 malformed or hostile requests from several connections at once. Afterwards nothing is left of them: no
// goroutine, no descriptor, no memory; nothing has panicked, and a good request is answered. It must not run beside others: it counts.
func TestHostile(t *testing.T) {
	var log safeBuffer
	b := newBackend("box")
	b.record(100)
	r := serve(t, b, func(s *Server) {
		s.log = logTo(&log)
		s.http.ErrorLog = slog.NewLogLogger(s.log.Handler(), slog.LevelDebug)
		s.http.ReadHeaderTimeout, s.limits.body, s.limits.stalled = patience, patience, time.Second
	})
	if _, err := r.client.Info(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.client.Close()
	settle := func() (goroutines, files int) {
		runtime.GC()
		return runtime.NumGoroutine(), descriptors(t)
	}
	within(t, "an idle server", func() bool { return len(holders(&r.limits.conns)) == 0 })
	goroutines, files := settle()

	ctx, cancel := context.WithCancel(t.Context())
	peak := make(chan uint64)
	go func() { peak <- watchMemory(ctx) }()
	var wg sync.WaitGroup
	for worker := range attackers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(20261122, uint64(worker)))
			for i := range attacks / attackers {
				strike(t, r.socket, hostile[(i+worker)%len(hostile)], rng)
			}
		})
	}
	wg.Wait()
	cancel()
	if most := <-peak; most > memoryBound {
		t.Errorf("the process held %d MiB; %d are the bound", most>>20, memoryBound>>20)
	}
	if _, err := r.client.Info(t.Context()); err != nil {
		t.Errorf("after the attacks a good request gets: %v", err)
	}
	r.client.Close()
	for what, q := range map[string]*quota{"connections": &r.limits.conns, "streams": &r.limits.streams, "commands": &r.limits.execs} {
		within(t, "the end of all "+what, func() bool { return len(holders(q)) == 0 })
	}
	within(t, "the end of all goroutines and descriptors", func() bool {
		g, f := settle()
		return g <= goroutines && f <= files
	})
	if held := r.bodies.Load(); held != 0 {
		t.Errorf("%d bytes of bodies are still counted", held)
	}
	if text := log.String(); strings.Contains(text, "panic") {
		t.Errorf("something panicked:\n%.3000s", text[strings.Index(text, "panic"):])
	}
}

// holders is who holds what of a quota.
func holders(q *quota) map[uint32]int {
	q.mu.Lock()
	defer q.mu.Unlock()
	held := map[uint32]int{}
	for uid, n := range q.held {
		held[uid] = n
	}
	return held
}

// watchMemory returns the most that the heap was.
func watchMemory(ctx context.Context) (most uint64) {
	for ctx.Err() == nil {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		most = max(most, m.HeapInuse)
		time.Sleep(10 * time.Millisecond)
	}
	return most
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func logTo(b *safeBuffer) *slog.Logger {
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func strike(t *testing.T, socket string, a attack, rng *rand.Rand) {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Error(err)
		return
	}
	c := conn.(*net.UnixConn)
	defer c.Close()
	began := time.Now()
	_ = c.SetDeadline(began.Add(20 * time.Second))
	if !a(rng, c) {
		return
	}
	head := make([]byte, 12)
	if n, err := c.Read(head); n == 0 {
		if time.Since(began) < patience { // else this machine was too busy to send it in time
			t.Errorf("no answer came: %v", err)
		}
	} else if !strings.HasPrefix(string(head[:n]), "HTTP/1.1 ") {
		t.Errorf("the answer begins with %q", head[:n])
	}
}

// put sends text; that the server has heard enough of it is no failure.
func put(c *net.UnixConn, text string) bool {
	_, _ = c.Write([]byte(text))
	return true
}

func bodied(method, path, body string, headers ...string) string {
	return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: n\r\n%sContent-Length: %d\r\n\r\n%s", method, path, strings.Join(append(headers, ""), "\r\n"), len(body), body)
}

const upgrade = "Connection: upgrade\r\nUpgrade: nemoclaw-exec/1"

// samples are good requests, to be spoilt.
func samples() []string {
	return []string{
		"GET /v1/info HTTP/1.1\r\nHost: n\r\n\r\n",
		"GET /v1/events?since=3&plane=network&verdict=deny&last=5 HTTP/1.1\r\nHost: n\r\n\r\n",
		"GET /v1/sandboxes/box/policy/explain?action=connect&object=a.example%3A443 HTTP/1.1\r\nHost: n\r\n\r\n",
		bodied("PATCH", "/v1/sandboxes/box/config", `{"a":"b"}`),
		bodied("POST", "/v1/sandboxes/box/policy/changes", `{"add":{"domain":"a.example","ports":[443]},"expect":3}`),
		bodied("POST", "/v1/sandboxes/box/exec", `{"args":["true"],"files":[]}`, upgrade),
		"PUT /v1/sandboxes/box/files?path=/a HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
	}
}

func noise(rng *rand.Rand, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return string(b)
}

var hostile = []attack{
	func(rng *rand.Rand, c *net.UnixConn) bool { put(c, noise(rng, 1+rng.IntN(4000))); return false },
	func(rng *rand.Rand, c *net.UnixConn) bool { // a good request with some bytes changed, and perhaps cut
		all := samples()
		b := []byte(all[rng.IntN(len(all))])
		for range 1 + rng.IntN(4) {
			b[rng.IntN(len(b))] = byte(rng.Uint32())
		}
		put(c, string(b[:1+rng.IntN(len(b))]))
		return false
	},
	func(_ *rand.Rand, c *net.UnixConn) bool {
		return put(c, "GET /v1/info HTTP/1.1\r\nHost: n\r\nX: "+strings.Repeat("x", 100_000)+"\r\n\r\n")
	},
	func(_ *rand.Rand, c *net.UnixConn) bool {
		return put(c, "GET /v1/info HTTP/1.1\r\nHost: n\r\n"+strings.Repeat("X: y\r\n", 20_000)+"\r\n")
	},
	func(_ *rand.Rand, c *net.UnixConn) bool {
		return put(c, "GET /"+strings.Repeat("a/", 50_000)+" HTTP/1.1\r\nHost: n\r\n\r\n")
	},
	func(rng *rand.Rand, c *net.UnixConn) bool { // a body without an end; net/http lingers half a second, so few wait for it
		put(c, "POST /v1/sandboxes HTTP/1.1\r\nHost: n\r\nTransfer-Encoding: chunked\r\n\r\n")
		chunk := "10000\r\n" + strings.Repeat("{", 1<<16) + "\r\n"
		wait := rng.IntN(50) == 0
		for i := range 40 {
			if _, err := c.Write([]byte(chunk)); err != nil || i == 2 && !wait {
				break
			}
		}
		return wait
	},
	func(rng *rand.Rand, c *net.UnixConn) bool { // a body that stops, or never comes; some wait for what happens
		put(c, "POST /v1/sandboxes HTTP/1.1\r\nHost: n\r\nContent-Length: 1000000\r\n\r\n{"+strings.Repeat(" ", rng.IntN(100)))
		return rng.IntN(50) == 0
	},
	func(rng *rand.Rand, c *net.UnixConn) bool { // a head that comes slowly
		for range 1 + rng.IntN(3) {
			put(c, "GET /v1/info HTTP/1.1\r\nX")
			time.Sleep(time.Duration(rng.IntN(3)) * time.Millisecond)
		}
		if rng.IntN(50) == 0 { // and one that never does: the server ends it
			_, _ = c.Read(make([]byte, 1000))
		}
		return false
	},
	func(rng *rand.Rand, c *net.UnixConn) bool { // JSON that is not what it should be
		values := []string{`null`, `[]`, `1e999`, `"\ud800"`, `{"name":{}}`, `{"name":"a","name":"b","start":"yes"}`, `{"":""}`, `[[[[`, `{"name":` + strings.Repeat("[", 30_000),
			`{"text":"` + strings.Repeat("\\u0000", 1000) + `"}`, "\x00", `{"add":` + strings.Repeat(`{"add":`, 9000), `{"env":[` + strings.Repeat(`"",`, 100_000) + `""]}`}
		paths := []string{"/v1/sandboxes", "/v1/sandboxes/box/policy/changes", "/v1/sandboxes/box/published", "/v1/sandboxes/box/snapshots"}
		return put(c, bodied("POST", paths[rng.IntN(len(paths))], values[rng.IntN(len(values))]))
	},
	func(rng *rand.Rand, c *net.UnixConn) bool { // names that lead elsewhere
		names := []string{"..", "../..", "%2e%2e", "..%2f..%2fetc", "box%00", "box/../../x", "%ff%fe", "BOX", "-", "box%0d%0aX:y", strings.Repeat("a", 5000), "%", "box%2", "box;x=y", "~", "*"}
		tails := []string{"", "/start", "/files?path=/../../etc/shadow", "/files?path=a%00b", "/snapshots/..", "/snapshots/%2e%2e%2f/restore", "/policy?revision=99999999999999999999", "/../../info"}
		methods := []string{"GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "CONNECT", "PRI"}
		return put(c, methods[rng.IntN(len(methods))]+" /v1/sandboxes/"+names[rng.IntN(len(names))]+tails[rng.IntN(len(tails))]+" HTTP/1.1\r\nHost: n\r\n\r\n")
	},
	func(rng *rand.Rand, c *net.UnixConn) bool { // descriptors that nobody asked for
		fds := make([]int, 1+rng.IntN(250))
		f, err := os.Open("/dev/null")
		if err != nil {
			return false
		}
		defer f.Close()
		for i := range fds {
			fds[i] = int(f.Fd())
		}
		all := samples()
		_, _, _ = c.WriteMsgUnix([]byte(all[rng.IntN(len(all))]), unix.UnixRights(fds...), nil)
		return rng.IntN(2) == 0
	},
	func(rng *rand.Rand, c *net.UnixConn) bool { // an upgrade where there is none, or to something else
		paths := []string{"/v1/info", "/v1/events", "/v1/sandboxes/box", "/v1/sandboxes/box/exec"}
		headers := []string{upgrade, "Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__", "Connection: close, upgrade\r\nUpgrade: websocket", "Upgrade: nemoclaw-exec/1"}
		return put(c, "GET "+paths[rng.IntN(len(paths))]+" HTTP/1.1\r\nHost: n\r\n"+headers[rng.IntN(len(headers))]+"\r\n\r\n"+noise(rng, rng.IntN(100)))
	},
	func(rng *rand.Rand, c *net.UnixConn) bool { // a command, and then noise instead of signals, or nothing
		tails := []string{"", noise(rng, 50), strings.Repeat("{\"signal\":1}\n", 20), strings.Repeat("a", 10_000), "{\"signal\":9}\n"}
		bodies := []string{`{"args":["true"]}`, `{"args":["sleep","5"]}`, `{"args":["/none"]}`, `{"args":["true"],"detach":true}`, `{"args":["true"],"files":[true]}`}
		put(c, bodied("POST", "/v1/sandboxes/box/exec", bodies[rng.IntN(len(bodies))], upgrade)+tails[rng.IntN(len(tails))])
		return rng.IntN(2) == 0
	},
	func(rng *rand.Rand, c *net.UnixConn) bool { // many at once, nobody reads
		all := samples()
		return put(c, strings.Repeat(all[rng.IntN(5)], 50))
	},
	func(rng *rand.Rand, c *net.UnixConn) bool { // half closed, at the end or before
		all := samples()
		text := all[rng.IntN(len(all))]
		cut := rng.IntN(2) == 0
		if cut {
			text = text[:rng.IntN(len(text))]
		}
		put(c, text)
		_ = c.CloseWrite()
		return false
	},
	func(rng *rand.Rand, c *net.UnixConn) bool { // a follower that goes away
		return put(c, "GET /v1/events?follow=true HTTP/1.1\r\nHost: n\r\n\r\n"+noise(rng, rng.IntN(3)))
	},
	func(rng *rand.Rand, c *net.UnixConn) bool { // two lengths, a negative one, one that overflows
		lengths := []string{"Content-Length: 3\r\nContent-Length: 4", "Content-Length: -1", "Content-Length: 99999999999999999999", "Content-Length: 3\r\nTransfer-Encoding: chunked",
			"Transfer-Encoding: gzip, chunked", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "Content-Length: 9223372036854775807"}
		return put(c, "POST /v1/sandboxes HTTP/1.1\r\nHost: n\r\n"+lengths[rng.IntN(len(lengths))]+"\r\n\r\nffffffffffffffffffff\r\nabc") && false
	},
	func(rng *rand.Rand, c *net.UnixConn) bool { // an archive that is none
		return put(c, bodied("PUT", "/v1/sandboxes/box/files?path=/a", noise(rng, 1+rng.IntN(100_000))))
	},
}

// TestBounds holds on to what a caller can hold on to: beyond the bounds it is told so, and what it has still works.
func TestBounds(t *testing.T) {
	t.Parallel()
	b := newBackend("box")
	r := serve(t, b, func(s *Server) {
		s.limits.conns.each, s.limits.streams.each, s.limits.execs.each, s.limits.bodies = 10, 2, 2, 2*maxBody
	})
	busy := func(what string, err error) {
		t.Helper()
		if wireError(err).Code != api.Busy {
			t.Errorf("%s: %v", what, err)
		}
	}
	dial := func() net.Conn {
		c, err := net.Dial("unix", r.socket)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	var held []net.Conn
	for range 2 {
		c := dial()
		put(c.(*net.UnixConn), "GET /v1/events?follow=true HTTP/1.1\r\nHost: n\r\n\r\n")
		held = append(held, c)
	}
	within(t, "two followers", func() bool { return holders(&r.limits.streams)[uint32(os.Getuid())] == 2 })
	busy("a third follower", r.client.Events(t.Context(), api.Events{Follow: true}, nil))
	busy("an upload beside them", r.client.Upload(t.Context(), "box", "/a", strings.NewReader("")))

	for range 2 {
		p := run(t, r, api.Exec{Args: []string{"sleep", "60"}})
		defer p.Close()
	}
	busy("a third command", third(r.client.Exec(t.Context(), "box", shell(":"), [3]*os.File{})))

	for range 2 {
		c := dial()
		put(c.(*net.UnixConn), "POST /v1/sandboxes HTTP/1.1\r\nHost: n\r\nContent-Length: 1000000\r\n\r\n{")
		held = append(held, c)
	}
	within(t, "two large bodies", func() bool { return r.bodies.Load() == 2_000_000 })
	_, err := r.client.ChangePolicy(t.Context(), "box", api.PolicyChange{Text: strings.Repeat("a", 500_000)})
	busy("a third large body", err)

	for len(holders(&r.limits.conns)) == 0 || holders(&r.limits.conns)[uint32(os.Getuid())] < 10 {
		held = append(held, dial())
		time.Sleep(time.Millisecond)
	}
	r.client.Close()
	within(t, "an answer that there are too many connections", func() bool {
		held = append(held, dial())
		fresh := api.Dial(r.socket)
		defer fresh.Close()
		_, err := fresh.Info(t.Context())
		return wireError(err).Code == api.Busy
	})
	for range overdrawn + 10 { // beyond what is told so, connections are closed
		held = append(held, dial())
	}
	if _, err := api.Dial(r.socket).Info(t.Context()); err == nil {
		t.Error("a connection beyond all bounds was answered")
	}
	for _, c := range held {
		c.Close()
	}
	within(t, "an answer once they are gone", func() bool { _, err := r.client.Info(t.Context()); return err == nil })
}

// TestPanic sees what becomes of a handler that panics, which none does.
func TestPanic(t *testing.T) {
	t.Parallel()
	var log safeBuffer
	b := newBackend("box")
	b.panics = true
	r := serve(t, b, func(s *Server) { s.log = logTo(&log) })
	_, err := r.client.Info(t.Context())
	if e := wireError(err); e.Code != api.Internal || !strings.Contains(e.Message, "journalctl") {
		t.Errorf("the caller got %v", err)
	}
	if text := log.String(); !strings.Contains(text, "the backend fails") || !strings.Contains(text, "backend_test.go") {
		t.Errorf("the log says %s", text)
	}
	if _, err := r.client.List(t.Context()); err != nil {
		t.Errorf("after it: %v", err)
	}
}
