package inference

import (
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/inference/dialect"
)

// streamError is a failure after the first byte of an answer: its caller was told within the stream, or is gone.
type streamError struct{ err error }

func (e *streamError) Error() string { return e.err.Error() }
func (e *streamError) Unwrap() error { return e.err }

// answer translates an answer that is no stream.
func (r *Router) answer(ctx context.Context, w http.ResponseWriter, rec *record, x *exchange, resp *http.Response) error {
	body, release, err := r.whole(ctx, resp.Body)
	defer release()
	if err != nil || len(body) > maxAnswer {
		return &refusal{status: http.StatusBadGateway, class: "the answer broke off, or is too long", message: x.backend.String() + " broke off its answer, or gave one that is too long", again: err != nil}
	}
	x.seen = int64(len(body))
	values := int64(dialect.Values(body))
	if values > maxFound {
		return &refusal{status: http.StatusBadGateway, class: "the answer has too many values", message: x.backend.String() + " gave an answer with more values than can be read"}
	}
	if err := r.found.Acquire(ctx, values); err != nil {
		return &streamError{errors.New("the caller went away")}
	}
	defer r.found.Release(values)
	var out []byte
	switch x.request.Operation {
	case dialect.Embed:
		x.seen = 0 // no tokens
		out, err = x.embeddings(rec, body)
	case dialect.CountTokens:
		var n int
		n, err = dialect.ReadTokenCount(x.speaks, body)
		out = dialect.WriteTokenCount(n)
	default:
		out, err = x.translate(r, rec, body)
	}
	if err != nil {
		return &refusal{status: http.StatusBadGateway, class: "the answer could not be passed on", message: x.backend.String() + " gave an answer that could not be passed on: " + err.Error()}
	}
	rec.first = time.Since(rec.began)
	w.Header().Set("Content-Type", "application/json")
	n, err := w.Write(out)
	rec.out = int64(n)
	if err != nil {
		return &streamError{errors.New("the caller went away")}
	}
	return nil
}

// whole reads an answer, when there is room for it: a sandbox may have a thousand of them at once.
func (r *Router) whole(ctx context.Context, answer io.Reader) (body []byte, release func(), err error) {
	release = func() {}
	body, err = io.ReadAll(io.LimitReader(answer, maxSmall))
	if err != nil || len(body) < maxSmall {
		return body, release, err
	}
	if err := r.wholes.Acquire(ctx, maxAnswer); err != nil {
		return nil, release, err
	}
	rest, err := io.ReadAll(io.LimitReader(answer, maxAnswer+1-maxSmall))
	return append(body, rest...), func() { r.wholes.Release(maxAnswer) }, err
}

func (x *exchange) translate(r *Router, rec *record, body []byte) ([]byte, error) {
	a, err := dialect.ReadAnswer(x.speaks, body)
	if err != nil {
		return nil, err
	}
	rec.usage = a.Usage
	var said strings.Builder
	for _, p := range a.Parts {
		said.WriteString(p.Text)
		if p.Kind == dialect.ToolCall {
			said.WriteString(p.Arguments)
			rec.calls.begin(p.Name).add(p.Arguments)
		}
	}
	x.seen = int64(said.Len())
	r.remember(rec, said.String())
	if len(x.hidden) > 0 {
		for _, t := range a.Texts() {
			*t = x.hidden.restore(*t, false)
		}
	}
	return a.Write(x.caller, x.request)
}

func (x *exchange) embeddings(rec *record, body []byte) ([]byte, error) {
	e, err := dialect.ReadEmbeddings(x.speaks, body)
	if err != nil {
		return nil, err
	}
	rec.usage = e.Usage
	return e.Write(x.caller, x.request)
}

// remember has the answer to something sensitive stand for its conversation, too: it may be all that is left of it in the next request.
func (r *Router) remember(rec *record, said string) {
	if m, long := markOf(said); long {
		r.memory.add(slices.Collect(maps.Keys(rec.verdict.carried)), m)
	}
}

// stream translates a stream, event by event.
func (r *Router) stream(w http.ResponseWriter, rec *record, x *exchange, resp *http.Response) error {
	out := &counted{w: w, flush: http.NewResponseController(w).Flush}
	var events dialect.Source = dialect.NewDecoder(x.speaks, &passing{resp.Body, out})
	if len(x.hidden) > 0 {
		events = dialect.NewRewriter(events, x.hidden.rewrite)
	}
	kind := "text/event-stream"
	if x.caller == dialect.OllamaChat || x.caller == dialect.OllamaGenerate {
		kind = "application/x-ndjson"
	}
	encoder := dialect.NewEncoder(x.caller, out, x.request.Receipt())
	seen := &watched{calls: &rec.calls, blocks: map[int]*asked{}}
	begun := false
	for {
		e, err := events.Next()
		if errors.Is(err, io.EOF) {
			err = encoder.Close()
			rec.out, rec.usage = out.n, seen.usage
			x.seen, x.pieces = seen.bytes, seen.pieces
			r.remember(rec, seen.said.String())
			if err != nil {
				return &streamError{errors.New("the caller went away")}
			}
			return nil
		}
		if err == nil {
			if out.n == 0 {
				w.Header().Set("Content-Type", kind)
				w.Header().Set("Cache-Control", "no-store")
				rec.first = time.Since(rec.began)
			}
			seen.look(e)
			x.withoutKey(e)
			err = encoder.Write(e)
		}
		if err == nil {
			if out.n > 0 && !begun {
				begun = true
				x.begun()
			}
			continue
		}
		rec.out, rec.usage = out.n, seen.usage
		x.seen, x.pieces = seen.bytes, seen.pieces
		r.remember(rec, seen.said.String())
		if out.n == 0 {
			return &refusal{status: http.StatusBadGateway, class: "the stream could not be translated", message: x.backend.String() + " gave a stream that could not be translated: " + err.Error(), again: true}
		}
		_ = encoder.Fail("NemoClaw: the answer of " + x.backend.String() + " broke off") // a caller that is gone hears nothing
		_ = out.pass()
		return &streamError{err}
	}
}

// withoutKey takes the key out of what a backend says of an error within a stream.
func (x *exchange) withoutKey(e dialect.Event) {
	for i := range e.Deltas {
		if d := &e.Deltas[i]; d.Kind == dialect.Failed {
			d.Message = withoutKey(d.Message, x.key)
			for _, t := range e.Texts() {
				*t = withoutKey(*t, x.key)
			}
		}
	}
}

// rewrite is what puts back what placeholders stand for in one block of a stream.
func (p placeholders) rewrite(kind dialect.PartKind) dialect.Rewrite {
	held := ""
	return func(text string, final bool) string {
		text = p.restore(held+text, kind == dialect.ToolCall)
		held = ""
		if n := p.begun(text); n > 0 && !final {
			text, held = text[:len(text)-n], text[len(text)-n:]
		}
		return text
	}
}

// counted counts what a caller was sent.
type counted struct {
	w     io.Writer
	n     int64
	flush func() error
}

func (c *counted) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}

// pass has the caller get what there is. Before there is anything nothing is promised: it may become an error.
func (c *counted) pass() error {
	if c.n == 0 {
		return nil
	}
	return c.flush()
}

// passing passes on what has come before it waits for more, and not piece by piece where more of it has come already.
type passing struct {
	io.Reader
	to *counted
}

func (p *passing) Read(b []byte) (int, error) {
	if err := p.to.pass(); err != nil {
		return 0, err
	}
	return p.Reader.Read(b)
}

const maxWatched = 1 << 20 // of an answer's text that is kept until it ends

// watched is what is kept of a stream for its record.
type watched struct {
	said   strings.Builder
	bytes  int64 // of all texts
	pieces int64
	usage  dialect.Usage
	calls  *calls
	blocks map[int]*asked
}

func (s *watched) look(e dialect.Event) {
	for _, d := range e.Deltas {
		switch d.Kind {
		case dialect.Opened:
			if d.Part == dialect.ToolCall || d.Part == dialect.CustomCall {
				s.blocks[d.Block] = s.calls.begin(d.Name)
			}
		case dialect.More:
			text := d.Said()
			s.bytes += int64(len(text))
			s.pieces++
			if s.said.Len() <= maxWatched {
				s.said.WriteString(text)
			}
			s.blocks[d.Block].add(text)
		case dialect.Closed:
			delete(s.blocks, d.Block)
		case dialect.Counted:
			s.usage = d.Usage
		}
	}
}
