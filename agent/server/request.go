package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"regexp"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

// A request is one call, checked as far as its route says.
type request struct {
	*http.Request
	server *Server
	peer   *peer
	w      http.ResponseWriter
	ctl    *http.ResponseController
	query  url.Values
	name   string // of the sandbox, where the path has one
	began  bool   // the answer's head is sent, or the connection is another's now
}

func invalid(format string, a ...any) error {
	return &api.Error{Code: api.Invalid, Message: fmt.Sprintf(format, a...)}
}

// answer checks a request against its route, and runs it.
func (s *Server) answer(r *route, w http.ResponseWriter, hr *http.Request) {
	q := &request{Request: hr, server: s, peer: peerOf(hr), w: w, ctl: http.NewResponseController(w)}
	defer q.caught()
	if hr.Body != http.NoBody {
		// net/http reads what a handler has left of a body, and would wait for it.
		_ = q.ctl.SetReadDeadline(time.Now().Add(s.limits.body))
	}
	answer, err := q.run(r)
	switch {
	case err != nil:
		q.fail(err)
	case q.began:
	case answer == nil:
		q.began = true
		w.WriteHeader(http.StatusNoContent)
	default:
		q.json(answer)
	}
}

func (q *request) run(r *route) (any, error) {
	if r.root && q.peer.caller.UID != 0 {
		return nil, &api.Error{Code: api.Forbidden, Message: fmt.Sprintf("user %s may not %s: only root may, since it can't be undone; use sudo", q.peer.caller.name(), r.words)}
	}
	if q.peer.role < r.role {
		return nil, &api.Error{Code: api.Forbidden, Message: fmt.Sprintf("user %s may watch, and not %s: %s", q.peer.caller.name(), r.words, q.server.whoMay())}
	}
	if err := q.readPath(r); err != nil {
		return nil, err
	}
	if err := q.readQuery(r); err != nil {
		return nil, err
	}
	if r.body == nil && r.takes == "" {
		if n, err := io.ReadFull(q.Body, make([]byte, 1)); n > 0 || err != io.EOF {
			return nil, invalid("%s %s takes no body", r.method, r.path)
		}
	}
	return r.do(q)
}

// caught turns a panic of a handler into an answer and a line in the log. There should never be one.
func (q *request) caught() {
	v := recover()
	if v == nil {
		return
	}
	if v == http.ErrAbortHandler { //nolint:errorlint // net/http compares it this way too
		panic(v)
	}
	q.server.log.Error("a request failed inside the daemon: please report this", "request", q.Method+" "+q.URL.Path, "panic", v, "stack", string(debug.Stack()))
	if q.began {
		panic(http.ErrAbortHandler) // the answer must not look whole
	}
	q.fail(&api.Error{Code: api.Internal, Message: "the daemon failed on this request, and goes on; its log (journalctl -u nemoclaw-agent) says more"})
}

// who is the caller, with a name.
func (q *request) who() Caller {
	c := q.peer.caller
	c.Name = c.name()
	return c
}

// json sends an answer.
func (q *request) json(v any) {
	b, err := json.Marshal(v)
	if err != nil {
		q.fail(fmt.Errorf("writing the answer: %w", err))
		return
	}
	q.began = true
	q.server.send(q.w, http.StatusOK, b)
}

// fail sends an error.
func (q *request) fail(err error) {
	q.began = true
	e := wireError(err)
	if e.Code == api.Internal {
		q.server.log.Warn("a request failed", "request", q.Method+" "+q.URL.Path, "error", err)
	}
	if q.Body != http.NoBody {
		q.w.Header().Set("Connection", "close") // else net/http would read the rest of the body
	}
	q.w.Header().Del("Trailer")
	q.server.sendError(q.w, e)
}

// wireError is err as callers get it.
func wireError(err error) *api.Error {
	var e *api.Error
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &e):
		return e
	case errors.As(err, &large):
		return &api.Error{Code: api.TooLarge, Message: fmt.Sprintf("the request's body has more than %d bytes", large.Limit)}
	}
	return &api.Error{Code: api.Internal, Message: err.Error()}
}

func (s *Server) sendError(w http.ResponseWriter, err error) {
	e := wireError(err)
	b, failed := json.Marshal(e)
	if failed != nil {
		panic(failed) // two strings can always be written
	}
	s.send(w, e.Code.Status(), b)
}

// send sends a whole answer. What a caller doesn't take in time is not kept for it.
func (s *Server) send(w http.ResponseWriter, status int, b []byte) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(s.limits.stalled))
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(b)+1))
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n')) // an error here is the caller's going away
}

// unknown answers what no route is for.
func (s *Server) unknown(w http.ResponseWriter, r *http.Request) {
	if r.Body != http.NoBody {
		w.Header().Set("Connection", "close")
	}
	s.sendError(w, &api.Error{Code: api.NotFound, Message: fmt.Sprintf("%.20s %.200q is no request that this daemon knows; GET /v1/openapi.json lists them", r.Method, r.URL.Path)})
}

// plain says whether a path is the one way to write it.
func plain(p string) bool { return p != "" && p[0] == '/' && path.Clean(p) == p }

// idForm is what the id of a snapshot looks like: it can't lead anywhere as a file's name.
var idForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$`)

// readPath checks the path's variable parts.
func (q *request) readPath(r *route) error {
	if strings.Contains(r.path, "{name}") {
		q.name = q.PathValue("name")
		if err := policy.ValidName(q.name); err != nil {
			return invalid("%v", err)
		}
	}
	if strings.Contains(r.path, "{id}") && !idForm.MatchString(q.PathValue("id")) {
		return invalid("%.130q is no id", q.PathValue("id"))
	}
	return nil
}

// readQuery checks that the query has nothing but what the route knows.
func (q *request) readQuery(r *route) error {
	var err error
	if q.query, err = url.ParseQuery(q.URL.RawQuery); err != nil {
		return invalid("the query can't be read: %v", err)
	}
	return checkQuery(q.query, r.query)
}

func checkQuery(query url.Values, known []param) error {
	for name, values := range query {
		p, ok := find(known, name)
		if !ok {
			return invalid("the query's parameter %.80q is not known", name)
		}
		if len(values) > 1 && !p.many || len(values) > 16 {
			return invalid("the query's parameter %s is there %d times", name, len(values))
		}
		for _, v := range values {
			if len(v) > 4096 || !utf8.ValidString(v) || strings.ContainsRune(v, 0) {
				return invalid("the query's parameter %s must be UTF-8, without NUL bytes, and at most 4096 bytes", name)
			}
		}
	}
	for _, p := range known {
		if p.needed && query.Get(p.name) == "" {
			return invalid("the query's parameter %s is needed: %s", p.name, p.words)
		}
	}
	return nil
}

func find(params []param, name string) (param, bool) {
	for _, p := range params {
		if p.name == name {
			return p, true
		}
	}
	return param{}, false
}

// decode reads the JSON body.
func decode[T any](q *request) (v T, err error) {
	// A body without a length counts as the longest there can be. Together they are bounded, since many callers could
	// each send a long one slowly.
	size := q.ContentLength
	if size < 0 || size > maxBody {
		size = maxBody
	}
	if q.server.bodies.Add(size) > q.server.limits.bodies {
		q.server.bodies.Add(-size)
		return v, &api.Error{Code: api.Busy, Message: "too many large requests at once: try again"}
	}
	defer q.server.bodies.Add(-size)
	b, err := io.ReadAll(http.MaxBytesReader(q.w, q.Body, maxBody))
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return v, invalid("the request's body did not come within %s", q.server.limits.body)
	case errors.As(err, new(*http.MaxBytesError)):
		return v, err
	case err != nil:
		return v, invalid("reading the request's body: %v", err)
	}
	// From now on the connection is only watched for the caller's going away.
	_ = q.ctl.SetReadDeadline(time.Time{})
	err = strict(b, &v)
	return v, err
}

// strict reads JSON that has nothing but what v has.
func strict(b []byte, v any) error {
	if len(bytes.TrimSpace(b)) == 0 {
		return invalid("the request needs a JSON body; GET /v1/openapi.json says which")
	}
	if !utf8.Valid(b) {
		return invalid("the request's body is not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return invalid("the request's body: %s", strings.TrimPrefix(err.Error(), "json: "))
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return invalid("the request's body goes on after its JSON value")
	}
	return nil
}

// stream counts a stream of the caller's. done is called when it ends.
func (q *request) stream() (done func(), err error) {
	uid := q.peer.caller.UID
	if !q.server.limits.streams.take(uid, 0) {
		return nil, &api.Error{Code: api.Busy, Message: "too many event streams, uploads and downloads at once: end some"}
	}
	return func() { q.server.limits.streams.give(uid) }, nil
}

// ending is a context that also ends with the server.
func (q *request) ending() (context.Context, func()) {
	ctx, cancel := context.WithCancel(q.Context())
	stop := context.AfterFunc(q.server.life, cancel)
	return ctx, func() { stop(); cancel() }
}
