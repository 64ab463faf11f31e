package forward

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/audit"
	"github.com/nemoclaw/nemoclaw/agent/config"
)

// TestTheDaemonEnds while a server breaks its connection: the two never meet in the connection that is gone.
func TestTheDaemonEnds(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.(*net.TCPConn).SetLinger(0)
			conn.Close()
		}
	}()
	for range 500 {
		s, err := newSyslog(config.Forward{Syslog: "tcp://" + l.Addr().String()})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		if s.conn, err = s.dial(ctx); err != nil {
			cancel()
			continue // it was too quick
		}
		ended := make(chan struct{})
		go func() { cancel(); close(ended) }()
		for s.conn != nil && err == nil {
			if err = s.send(ctx, []record{recordOf(t, 1, "json")}); err == nil {
				_ = s.settle(ctx)
			}
		}
		<-ended
	}
}

// TestTalker: a syslog server that talks and never closes does not hold up the daemon's end.
func TestTalker(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	said := make(chan struct{})
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = conn.Write(make([]byte, 2<<20)) // more than is read of it
		<-said
	}()
	defer close(said)
	s, err := newSyslog(config.Forward{Syslog: "tcp://" + l.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.send(ctx, []record{recordOf(t, 1, "json")}); err != nil {
		t.Fatal(err)
	}
	go func() { time.Sleep(50 * time.Millisecond); cancel() }()
	ended := make(chan error, 1)
	go func() { ended <- s.settle(ctx) }()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("it is settled")
		}
	case <-time.After(settleTime * 2 / 3):
		t.Error("the daemon ends, and settle goes on")
	}
}

// TestWordyReceivers: whatever a receiver says, and however often, little of it is kept.
func TestWordyReceivers(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("no ", 1<<20)
	for kind, k := range kinds {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			switch kind {
			case "splunk":
				w.WriteHeader(http.StatusBadRequest)
				_ = json.NewEncoder(w).Encode(map[string]any{"code": 6, "text": long})
			case "elastic":
				fmt.Fprintf(w, `{"errors":true,"items":[{"create":{"status":400,"error":{"type":"t","reason":%q}}}]}`, long)
			case "otlp":
				_, _ = w.Write(partialAnswer(1, long))
			default:
				http.Error(w, long, http.StatusBadRequest)
			}
		}))
		r, err := newReceiver(k.c(s.URL, tokenFile(t, "s3cret")))
		if err != nil {
			t.Fatal(err)
		}
		err = r.send(t.Context(), []record{recordOf(t, 1, "json")})
		s.Close()
		if err == nil || len(err.Error()) > 4*maxSaid {
			t.Errorf("%s: an error of %d bytes", kind, len(fmt.Sprint(err)))
		}
		if p, ok := err.(*partial); ok && len(p.refused[0]) > 4*maxSaid { //nolint:errorlint // what it is itself
			t.Errorf("%s: a reason of %d bytes", kind, len(p.refused[0]))
		}
	}
}

// TestEchoes: a server, or what stands before it, that says what it was sent tells nobody else of the token: not a part that a cut
// leaves, nor how it was sent.
func TestEchoes(t *testing.T) {
	t.Parallel()
	const token = "Tk-0123456789-abcdefghij-0123456789-ABCDEFGHIJ"
	for kind, k := range kinds {
		for _, before := range []int{0, 250, 280, 290, 470, 490} {
			for _, status := range []int{200, 400, 403} {
				s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					said := strings.Repeat("x", before) + r.Header.Get("Authorization")
					body := []byte(said)
					switch {
					case kind == "splunk":
						body, _ = json.Marshal(map[string]any{"code": 6, "text": said})
					case kind == "elastic" && status == 200:
						body = fmt.Appendf(nil, `{"errors":true,"items":[{"create":{"status":400,"error":{"type":"t","reason":%q}}}]}`, said)
					case kind == "otlp" && status == 200:
						body = partialAnswer(1, said)
					}
					w.WriteHeader(status)
					_, _ = w.Write(body)
				}))
				c := k.c(s.URL, tokenFile(t, token))
				r, err := newReceiver(c)
				if err != nil {
					t.Fatal(err)
				}
				err = r.send(t.Context(), []record{recordOf(t, 1, "json")})
				s.Close()
				said := fmt.Sprint(err)
				if p, ok := err.(*partial); ok { //nolint:errorlint // what it is itself
					said += fmt.Sprint(p.refused)
				}
				if strings.Contains(said, "Tk-0") || strings.Contains(said, "bWU6VGst") {
					t.Errorf("%s, %d, %d: %s", kind, status, before, said)
				}
			}
		}
	}
}

// TestBadServers: a server that answers as none should has us send nothing elsewhere, and takes no end of memory and time.
func TestBadServers(t *testing.T) {
	t.Parallel()
	var elsewhere atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	defer other.Close()
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	for range 16 {
		_, _ = z.Write(make([]byte, 1<<20))
	}
	_ = z.Close()
	answers := map[string]http.HandlerFunc{
		"redirects": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
		},
		"is a bomb": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(bomb.Bytes())
		},
		"never ends its head": func(w http.ResponseWriter, _ *http.Request) {
			conn, buf, err := w.(http.Hijacker).Hijack()
			if err != nil {
				return
			}
			defer conn.Close()
			_, _ = buf.WriteString("HTTP/1.1 200 OK\r\n")
			for err == nil {
				_, err = buf.WriteString("X-A: " + strings.Repeat("a", 4000) + "\r\n")
			}
		},
		"never ends saying that it goes on": func(w http.ResponseWriter, _ *http.Request) {
			conn, buf, err := w.(http.Hijacker).Hijack()
			if err != nil {
				return
			}
			defer conn.Close()
			for err == nil {
				_, err = buf.WriteString("HTTP/1.1 103 Early Hints\r\n\r\n")
			}
		},
		"promises much": func(w http.ResponseWriter, _ *http.Request) {
			conn, buf, err := w.(http.Hijacker).Hijack()
			if err != nil {
				return
			}
			_, _ = buf.WriteString("HTTP/1.1 200 OK\r\nContent-Length: 9000000000000000000\r\n\r\n{}")
			_ = buf.Flush()
			conn.Close()
		},
	}
	for name, answer := range answers {
		for kind, k := range kinds {
			s := httptest.NewServer(answer)
			r, err := newReceiver(k.c(s.URL, tokenFile(t, "s3cret-s3cret")))
			if err != nil {
				t.Fatal(err)
			}
			err = r.send(t.Context(), []record{recordOf(t, 1, "json")})
			s.CloseClientConnections()
			s.Close()
			if err == nil && !(kind == "loki" && name == "is a bomb") { // its answer's body is nobody's affair
				t.Errorf("%s: a server that %s has it", kind, name)
			}
			if err != nil && (strings.Contains(err.Error(), "s3cret") || len(err.Error()) > 2*maxSaid) {
				t.Errorf("%s: a server that %s: %v", kind, name, err)
			}
		}
	}
	if elsewhere.Load() > 0 {
		t.Error("a redirect was followed")
	}
}

// TestClockAhead: records of a clock that was ahead, and was set back, are as late as the receiver has been away: an alert rests on it.
func TestClockAhead(t *testing.T) {
	t.Parallel()
	tr := newTrail(t, audit.Options{})
	d := decision(1)
	d.Time = time.Now().AddDate(50, 0, 0)
	if err := tr.Append(d); err != nil {
		t.Fatal(err)
	}
	var n notes
	all := open(t, config.Forward{Loki: "http://" + nowhere(t)}, t.TempDir(), &n)
	defer start(t, all, tr.Writer)()
	until(t, "it is behind", func() bool { return all.States()[0].Behind > 0 })
}
