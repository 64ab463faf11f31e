package server

import (
	"io"
	"net/http"
	"path"
	"time"

	"github.com/nemoclaw/nemoclaw/api"
)

// upload passes a tar stream on. Its length is the Backend's to bound: what can be bounded is how long a caller stalls.
func (q *request) upload() (any, error) {
	where, done, err := q.transfer()
	if err != nil {
		return nil, err
	}
	defer done()
	body := &patient{q: q}
	if err := q.server.backend.Upload(q.Context(), q.who(), q.name, where, body); err != nil {
		return nil, err
	}
	// What follows the archive's end (tar pads it) is read, so that the connection can be used again.
	_, _ = io.Copy(io.Discard, io.LimitReader(body, maxBody))
	return nil, nil
}

// download passes a tar stream on.
func (q *request) download() (any, error) {
	where, done, err := q.transfer()
	if err != nil {
		return nil, err
	}
	defer done()
	ctx, cancel := q.ending()
	defer cancel()
	q.w.Header().Set("Content-Type", tarType)
	q.w.Header().Set("Trailer", api.ErrorTrailer)
	out := &patient{q: q}
	err = q.server.backend.Download(ctx, q.who(), q.name, where, out)
	return nil, q.ended(err, ctx.Err() != nil || out.err != nil)
}

// transfer checks what uploads and downloads have in common.
func (q *request) transfer() (where string, done func(), err error) {
	where = q.query.Get("path")
	if !path.IsAbs(where) {
		return "", nil, invalid("path=%.200q is not an absolute path", where)
	}
	done, err = q.stream()
	return where, done, err
}

// patient reads and writes a request's streams as long as something moves.
type patient struct {
	q   *request
	err error // of the last Write
}

func (p *patient) Read(b []byte) (int, error) {
	_ = p.q.ctl.SetReadDeadline(time.Now().Add(p.q.server.limits.stalled))
	return p.q.Body.Read(b)
}

func (p *patient) Write(b []byte) (n int, err error) {
	if !p.q.began {
		p.q.began = true
		p.q.w.WriteHeader(http.StatusOK)
	}
	_ = p.q.ctl.SetWriteDeadline(time.Now().Add(p.q.server.limits.stalled))
	n, p.err = p.q.w.Write(b)
	return n, p.err
}
