package harness

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// Request is what an HTTP server of the world was asked.
type Request struct {
	Method, Host, Path, SNI, Body string
}

// Server is one listener of the world that remembers who came.
type Server struct {
	Addr netip.AddrPort

	mu       sync.Mutex
	conns    int
	requests []Request
	bytes    []byte
}

// Conns counts the connections accepted so far.
func (s *Server) Conns() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conns
}

// Requests returns what was asked so far.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Request(nil), s.requests...)
}

// Bytes returns what a raw server has read so far.
func (s *Server) Bytes() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return string(s.bytes)
}

func (s *Server) note(r *http.Request) {
	const most = 1 << 20
	body, _ := io.ReadAll(io.LimitReader(r.Body, most)) // what came is what is kept
	r.Body = io.NopCloser(io.MultiReader(bytes.NewReader(body), r.Body))
	req := Request{Method: r.Method, Host: r.Host, Path: r.URL.Path, Body: string(body)}
	if r.TLS != nil {
		req.SNI = r.TLS.ServerName
	}
	s.mu.Lock()
	s.requests = append(s.requests, req)
	s.mu.Unlock()
}

// counted is a listener whose accepted connections are counted.
type counted struct {
	net.Listener
	s *Server
}

func (c counted) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err == nil {
		c.s.mu.Lock()
		c.s.conns++
		c.s.mu.Unlock()
	}
	return conn, err
}

func (w *World) listen(t T, a netip.Addr, port uint16) (net.Listener, *Server) {
	t.Helper()
	s := &Server{Addr: netip.AddrPortFrom(a, port)}
	l, err := net.Listen("tcp", s.Addr.String())
	if err != nil {
		t.Fatal(err)
	}
	return counted{l, s}, s
}

// Hello is the handler of servers that need none of their own.
var Hello http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "hello from %s", r.Host)
})

// HTTP serves h in plain text.
func (w *World) HTTP(t T, a netip.Addr, port uint16, h http.Handler) *Server {
	t.Helper()
	l, s := w.listen(t, a, port)
	serve(t, l, s, h, nil)
	return s
}

// HTTPS serves h over TLS, with a certificate for whatever name is asked for. ech may be empty.
func (w *World) HTTPS(t T, a netip.Addr, port uint16, h http.Handler, ech ...tls.EncryptedClientHelloKey) *Server {
	t.Helper()
	l, s := w.listen(t, a, port)
	conf := w.CA.Config("fallback.test")
	conf.EncryptedClientHelloKeys = ech
	serve(t, l, s, h, conf)
	return s
}

func serve(t T, l net.Listener, s *Server, h http.Handler, conf *tls.Config) {
	srv := &http.Server{
		ReadHeaderTimeout: 10 * time.Second,
		TLSConfig:         conf,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s.note(r)
			h.ServeHTTP(w, r)
		}),
	}
	if conf != nil {
		l = tls.NewListener(l, conf)
	}
	go func() { _ = srv.Serve(l) }() // until Close
	t.Cleanup(func() { _ = srv.Close() })
}

// TCP keeps every byte it gets and echoes it.
func (w *World) TCP(t T, a netip.Addr, port uint16) *Server {
	t.Helper()
	l, s := w.listen(t, a, port)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, io.TeeReader(c, keeper{s}))
			}()
		}
	}()
	return s
}

// Canned answers each connection's first bytes with reply, whatever they are, and keeps what it reads: what a server that
// doesn't care for HTTP's rules does.
func (w *World) Canned(t T, a netip.Addr, port uint16, reply string) *Server {
	t.Helper()
	l, s := w.listen(t, a, port)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(10 * time.Second))
				buf := make([]byte, 64<<10)
				for {
					n, err := c.Read(buf)
					_, _ = keeper{s}.Write(buf[:n])
					if err != nil {
						return
					}
					if _, err := io.WriteString(c, reply); err != nil {
						return
					}
				}
			}()
		}
	}()
	return s
}

type keeper struct{ s *Server }

func (k keeper) Write(b []byte) (int, error) {
	k.s.mu.Lock()
	defer k.s.mu.Unlock()
	k.s.bytes = append(k.s.bytes, b...)
	return len(b), nil
}

// Unix listens on a unix socket of the host and says greeting to who connects.
func Unix(t T, path, greeting string) {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(context.Background(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(c, greeting)
			c.Close()
		}
	}()
}
