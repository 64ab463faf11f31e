package server

import (
	"bufio"
	"bytes"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/api/wire"
)

// FuzzEventsQuery reads selections of records. What is taken means the same when the client writes it.
func FuzzEventsQuery(f *testing.F) {
	for _, s := range []string{"", "since=3&follow=true", "plane=network&plane=dns&verdict=deny", "from=2026-11-22T17:00:00Z&to=2026-11-22T17:00:00.5%2B01:00",
		"last=100000", "since=18446744073709551615", "sandbox=box", "follow=maybe", "since=-1", "a=b", "plane=%00", "from=0000-01-01T00:00:00Z"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		q, err := url.ParseQuery(raw)
		if err != nil || checkQuery(q, eventParams) != nil {
			return
		}
		e, err := parseEvents(q)
		if err != nil {
			if wireError(err).Code != api.Invalid {
				t.Errorf("%q: %v", raw, err)
			}
			return
		}
		again, err := parseEvents(e.Query())
		same := again.From.Equal(e.From) && again.To.Equal(e.To)
		again.From, again.To = e.From, e.To
		if len(e.Planes) == 0 { // "plane=" is no plane, and is not there
			again.Planes = e.Planes
		}
		if len(e.Verdict) == 0 {
			again.Verdict = e.Verdict
		}
		if err != nil || !same || !reflect.DeepEqual(e, again) {
			t.Errorf("%q is %+v; written and read again it is %+v, %v", raw, e, again, err)
		}
	})
}

// FuzzFrame reads the lines of an exec. What is taken is one of three things, and stays the same when it is written.
func FuzzFrame(f *testing.F) {
	for _, s := range []string{`{"signal":15}`, `{"exit":0}`, `{"gone":"the sandbox ended"}`, `{}`, `{"signal":1,"exit":0}`, `{"signal":-1}`, `{"exit":null}`, "null", `{"signal":1}{}`, "\x00", `{"Signal":9}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		first, err := wire.ParseFrame(line)
		if err != nil {
			return
		}
		again, err := wire.ReadFrame(bufio.NewReaderSize(bytes.NewReader(first.Line()), len(first.Line())+16))
		if err != nil || !reflect.DeepEqual(first, again) {
			t.Errorf("%q is %+v; written and read again it is %+v, %v", line, first, again, err)
		}
	})
}

// FuzzRequest sends whatever a request can be to the routes, as root. The answer is JSON, or it is none of an error's.
func FuzzRequest(f *testing.F) {
	for _, s := range samples() {
		f.Add([]byte(s))
	}
	for _, s := range []string{"GET /v1/openapi.json HTTP/1.1\r\nHost: n\r\n\r\n", "DELETE /v1/sandboxes/box/published?host=a HTTP/1.0\r\n\r\n", "POST /v1/sandboxes/box/snapshots/..%2f/restore HTTP/1.1\r\nHost: n\r\n\r\n",
		bodied("POST", "/v1/sandboxes", `{"name":"a","publish":[{"host":"","port":65536}]}`), "HEAD /v1/info HTTP/1.1\r\nHost: n\r\n\r\n", "CONNECT n:1 HTTP/1.1\r\nHost: n\r\n\r\n"} {
		f.Add([]byte(s))
	}
	s, err := New(Config{Backend: newBackend("box")})
	if err != nil {
		f.Fatal(err)
	}
	var log safeBuffer
	s.log = logTo(&log)
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(raw)))
		if err != nil || strings.HasSuffix(r.URL.Path, "/exec") || r.URL.Query().Has("follow") {
			return // commands would really run, and following has no end
		}
		w := httptest.NewRecorder()
		p := &peer{Conn: wire.NewConn(nil, true), role: steer}
		s.serve(w, r.WithContext(withPeer(r.Context(), p)))
		body := w.Body.String()
		if w.Code >= 300 && (!strings.HasPrefix(body, `{"code":"`) || w.Header().Get("Content-Type") != "application/json") {
			t.Errorf("%q: %d %q", raw, w.Code, body)
		}
		if strings.Contains(log.String(), "panic") {
			t.Fatalf("%q: %s", raw, log.String())
		}
	})
}
