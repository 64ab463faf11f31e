package dnsproxy

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// memoryConn is a net.Conn that reads from and writes to memory.
type memoryConn struct {
	net.Conn
	in  io.Reader
	out bytes.Buffer
}

func (m *memoryConn) Read(b []byte) (int, error)       { return m.in.Read(b) }
func (m *memoryConn) Write(b []byte) (int, error)      { return m.out.Write(b) }
func (m *memoryConn) Close() error                     { return nil }
func (m *memoryConn) SetDeadline(time.Time) error      { return nil }
func (m *memoryConn) SetWriteDeadline(time.Time) error { return nil }

// What our parser accepts, a real TLS server must read in the same way; and cutting the bytes anywhere changes nothing.
func FuzzClientHello(f *testing.F) {
	f.Add(helloFor("good.example"))
	f.Add(makeHello(nil))
	f.Add(makeHello(append(ext(0, sniList("a.example")), ext(extECH, []byte{0})...)))
	f.Add(makeHello(ext(0, sniList("a.example", "b.example"))))
	f.Add(splitRecords(helloFor("good.example"), 9))
	f.Add([]byte("GET / HTTP/1.1\r\n"))
	f.Add(realHello(f, "registry.example"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parseClientHello(b)
		if err != nil {
			if errors.Is(err, errHelloShort) && len(b) > maxHelloBytes {
				t.Fatalf("%d bytes and still not complete", len(b))
			}
			return
		}
		for n := 0; n < len(b); n += 1 + len(b)/16 {
			if got, err := parseClientHello(b[:n]); err == nil && got != h {
				t.Fatalf("the first %d bytes say %+v, all say %+v", n, got, h)
			}
		}
		var seen *tls.ClientHelloInfo
		srv := tls.Server(&memoryConn{in: bytes.NewReader(b)}, &tls.Config{GetConfigForClient: func(i *tls.ClientHelloInfo) (*tls.Config, error) {
			seen = i
			return nil, errors.New("seen")
		}})
		_ = srv.Handshake()
		if seen != nil && !strings.EqualFold(seen.ServerName, h.name) {
			t.Fatalf("we read %q, crypto/tls %q", h.name, seen.ServerName)
		}
	})
}

// realHello is what crypto/tls sends.
func realHello(t testing.TB, name string) []byte {
	m := &memoryConn{in: strings.NewReader("")}
	_ = tls.Client(m, &tls.Config{ServerName: name}).Handshake()
	if m.out.Len() == 0 {
		t.Fatal("no ClientHello was written")
	}
	return m.out.Bytes()
}

// What our parser accepts, net/http must read with the same host and the same framing.
func FuzzRequestHead(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n",
		"POST /x HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\n",
		"POST /x HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n",
		"GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n",
		"GET /ws HTTP/1.1\r\nHost: a.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
		"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
		"GET / HTTP/1.0\r\nHost:\ta\r\nX:  y \r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		end := headEnd(b, 0)
		if end == 0 {
			_ = earlyHeadError(b)
			return
		}
		h, err := parseRequestHead(b[:end])
		if err != nil {
			return
		}
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(b[:end])))
		if err != nil {
			return // stricter than we are: it would answer 400
		}
		if string(h.method) == "CONNECT" {
			return
		}
		if got := r.Header.Get("Host"); got != "" {
			t.Fatalf("a second Host survived: %q", got)
		}
		if origin := h.target[0] == '/'; origin && r.Host != h.host { // other forms are checked by checkRequest
			t.Fatalf("we read Host %q, net/http %q", h.host, r.Host)
		}
		chunked := len(r.TransferEncoding) > 0
		if chunked != h.chunked || !chunked && r.ContentLength != h.length {
			t.Fatalf("we read length %d chunked %v, net/http %d %v", h.length, h.chunked, r.ContentLength, r.TransferEncoding)
		}
		if u, err := parseURI(string(h.target)); err == nil {
			if _, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(append(rewriteRequest(h, u.path), "\r\n"...)))); err != nil {
				t.Fatalf("the rewritten request %q: %v", rewriteRequest(h, u.path), err)
			}
		}
	})
}

// A chunked body ends where net/http says it ends, and however it is cut.
func FuzzChunks(f *testing.F) {
	for _, s := range []string{"0\r\n\r\n", "5\r\nhello\r\n0\r\n\r\nrest", "A\r\n0123456789\r\n1\r\nx\r\n0\r\nT: v\r\n\r\n", "5;x\r\nhello\r\n0\r\n\r\n", "ffffffffffffffff\r\n", "\r\n", "1\r\nab"} {
		f.Add([]byte(s), true, uint8(3))
		f.Add([]byte(s), false, uint8(1))
	}
	f.Fuzz(func(t *testing.T, b []byte, strict bool, cut uint8) {
		whole := chunkedBody(strict)
		n, err := whole.feed(b)
		if n > len(b) {
			t.Fatalf("%d of %d bytes", n, len(b))
		}
		// Fed in pieces, with what is left over coming again.
		pieces := chunkedBody(strict)
		passed, held := 0, []byte(nil)
		var perr error
		step := int(cut)%7 + 1
		for rest := b; len(rest) > 0 && perr == nil && pieces.state != bodyDone; {
			k := min(step, len(rest))
			held = append(held, rest[:k]...)
			rest = rest[k:]
			var m int
			m, perr = pieces.feed(held)
			passed += m
			held = held[m:]
		}
		if pieces.state != whole.state || (perr == nil) != (err == nil) || perr == nil && passed != n {
			t.Fatalf("whole: %d bytes, state %d, %v; in pieces of %d: %d, %d, %v", n, whole.state, err, step, passed, pieces.state, perr)
		}
		if err != nil || whole.state != bodyDone {
			return
		}
		r := bufio.NewReader(io.MultiReader(strings.NewReader("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"), bytes.NewReader(b)))
		req, rerr := http.ReadRequest(r)
		if rerr != nil {
			t.Fatal(rerr)
		}
		if _, rerr = io.Copy(io.Discard, req.Body); rerr != nil {
			return // stricter than we are
		}
		rest, _ := io.ReadAll(r)
		if len(rest) != len(b)-n {
			t.Fatalf("we end the body %d bytes before the end, net/http %d", len(b)-n, len(rest))
		}
	})
}

// A response stream never makes the parser pass more than there is, whatever was asked.
func FuzzResponses(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 204 No\r\n\r\n"), uint8(2))
	f.Add([]byte("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200 OK\r\n\r\nrest"), uint8(1))
	f.Add([]byte("HTTP/1.1 101 Switching Protocols\r\n\r\nrest"), uint8(1))
	f.Fuzz(func(t *testing.T, b []byte, asked uint8) {
		x := &httpExchange{check: func(*requestHead) error { return nil }}
		for i := range int(asked % maxPipelined) {
			h := &requestHead{method: []byte([]string{"GET", "HEAD", "POST"}[i%3])}
			x.accept(h)
		}
		n, err := x.response(b)
		if n > len(b) || n < 0 || x.cnt < 0 {
			t.Fatalf("%d of %d bytes, %d outstanding, %v", n, len(b), x.cnt, err)
		}
	})
}

// What our DNS parser takes for a question, miekg/dns must read as the same one, and our answers must be messages.
func FuzzQuery(f *testing.F) {
	for _, n := range []string{"a.example.", "WWW.Example.", ".", `x\000y.example.`, strings.Repeat("a.", 126)} {
		q := new(dns.Msg)
		q.SetQuestion(n, dns.TypeA)
		if b, err := q.Pack(); err == nil {
			f.Add(b)
		}
		q.SetEdns0(1232, true)
		if b, err := q.Pack(); err == nil {
			f.Add(b)
		}
	}
	f.Add([]byte{0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 12, 0, 1, 0, 1})
	f.Fuzz(func(t *testing.T, p []byte) {
		var q query
		rcode := q.parse(p)
		if rcode == parseDrop {
			return
		}
		a := &answer{ede: edeBlocked, text: "no"}
		if rcode != parseOK {
			a = errorAnswer(rcode)
		} else {
			a.record(dns.TypeA, 60, []byte{198, 18, 1, 0})
		}
		out := a.pack(nil, &q, q.size)
		m := new(dns.Msg)
		if err := m.Unpack(out); err != nil || !m.Response || len(out) > q.size {
			t.Fatalf("%d bytes: %v", len(out), err)
		}
		if rcode != parseOK {
			return
		}
		ref := new(dns.Msg)
		if err := ref.Unpack(p); err != nil {
			return
		}
		if len(ref.Question) != 1 || ref.Question[0].Qtype != q.qtype || ref.Id != q.id {
			t.Fatalf("%v", ref)
		}
		if !q.weird && !strings.EqualFold(strings.TrimSuffix(ref.Question[0].Name, "."), q.name()) {
			t.Fatalf("we read %q, miekg/dns %q", q.name(), ref.Question[0].Name)
		}
		if q.weird {
			return
		}
		if name := q.name(); name != "" {
			if c, ok := canonicalName(name); !ok || c != name {
				t.Fatalf("%q is not canonical", name)
			}
		}
	})
}

// However an authority is spelt, what comes out is a canonical name or address.
func FuzzAuthority(f *testing.F) {
	for _, s := range []string{"a.example:443", "[::1]:80", "127.0.0.1:80", "0x7f.1:80", "2130706433:1", "a@b:1", "[fe80::1%eth0]:1", "a.:1", "[::ffff:1.2.3.4]:5"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, port := range []uint16{0, 80} {
			a, err := parseAuthority(s, port)
			if err != nil {
				continue
			}
			if a.port == 0 || (a.name == "") != a.addr.IsValid() || a.addr.Zone() != "" || a.addr.Is4In6() {
				t.Fatalf("%q: %+v", s, a)
			}
			again, err := parseAuthority(a.String(), 0)
			if err != nil || again != a {
				t.Fatalf("%q: %+v, and again %+v %v", s, a, again, err)
			}
		}
	})
}
