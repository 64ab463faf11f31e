package server

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/text"
	"github.com/nemoclaw/nemoclaw/api"
)

// maxPending is how many bytes wait for a reader before the Backend does.
const maxPending = 256 << 10

// events sends records until there are no more, or the caller goes away.
func (q *request) events() (any, error) {
	e, err := parseEvents(q.query)
	if err != nil {
		return nil, err
	}
	return nil, q.lines(e.Follow, func(ctx context.Context, out *output) error { return q.server.backend.Events(ctx, e, out.add) })
}

// lines sends what send writes, a line each, until there is no more or the caller goes away.
func (q *request) lines(follow bool, send func(ctx context.Context, out *output) error) error {
	done, err := q.stream()
	if err != nil {
		return err
	}
	defer done()
	ctx, cancel := q.ending()
	defer cancel()

	q.w.Header().Set("Content-Type", linesType)
	q.w.Header().Set("Trailer", api.ErrorTrailer)
	out := newOutput(ctx, q, cancel)
	if follow {
		out.begin() // the caller knows from now on that it misses nothing
	}
	out.run(follow)
	gone := false
	err = func() error {
		defer out.end() // whatever happens: nobody else may write meanwhile
		err := send(ctx, out)
		gone = ctx.Err() != nil
		return err
	}()
	return q.ended(err, gone || out.err != nil)
}

// ended ends a stream. What is not whole must not look so: broken says that the reader, or the server, goes away.
func (q *request) ended(err error, broken bool) error {
	switch {
	case broken && q.began:
		panic(http.ErrAbortHandler)
	case broken:
		return &api.Error{Code: api.Busy, Message: "the daemon stops: try again"}
	case err != nil && q.began:
		q.server.log.Warn("a stream failed", "request", q.URL.Path, "error", err)
		q.w.Header().Set(api.ErrorTrailer, trailer(wireError(err)))
		return nil
	case err != nil:
		return err
	case !q.began: // an empty stream
		q.began = true
		q.w.WriteHeader(http.StatusOK)
	}
	return nil
}

// maxTrailer is what fits into a reader's buffer.
const maxTrailer = 3000

// trailer is an error as a trailer of the answer has it.
func trailer(e *api.Error) string {
	for limit := maxTrailer; ; limit /= 2 {
		b, err := json.Marshal(api.Error{Code: e.Code, Message: text.Short(e.Message, limit)})
		if err == nil && len(b) <= maxTrailer {
			return string(b)
		}
	}
}

// output writes lines as they come: while one write is under way the next lines gather, so a burst needs few writes
// and a single line leaves at once.
type output struct {
	q      *request
	ctx    context.Context
	cancel func()
	stop   func() bool
	wake   chan struct{} // there is something to write
	ending chan struct{} // there won't be more
	gone   chan struct{} // the writer has ended

	mu      sync.Mutex
	room    sync.Cond // pending was taken, or the reader is gone
	pending []byte
	spare   []byte // of the writer
	err     error  // of the writer, once gone is closed
}

func newOutput(ctx context.Context, q *request, cancel func()) *output {
	o := &output{q: q, ctx: ctx, cancel: cancel, wake: make(chan struct{}, 1), ending: make(chan struct{}), gone: make(chan struct{})}
	o.room.L = &o.mu
	// Who waits for a reader that doesn't read is woken by the end too.
	o.stop = context.AfterFunc(ctx, func() {
		_ = q.ctl.SetWriteDeadline(time.Unix(1, 0))
		o.mu.Lock()
		defer o.mu.Unlock()
		o.room.Broadcast()
	})
	return o
}

// add takes a line.
func (o *output) add(_ uint64, line []byte) error {
	o.mu.Lock()
	for len(o.pending) > maxPending && o.ctx.Err() == nil {
		o.room.Wait()
	}
	if err := o.ctx.Err(); err != nil {
		o.mu.Unlock()
		return err
	}
	o.pending = append(append(o.pending, line...), '\n')
	o.mu.Unlock()
	select {
	case o.wake <- struct{}{}:
	default:
	}
	return nil
}

// begin sends the answer's head.
func (o *output) begin() {
	o.q.began = true
	o.q.w.WriteHeader(http.StatusOK)
	o.err = o.flush()
}

// run starts the writer. With alive it gives a sign of life when nothing happens.
func (o *output) run(alive bool) {
	go func() {
		defer close(o.gone)
		defer func() {
			if o.err != nil {
				o.cancel() // the Backend need not go on
			}
		}()
		tick := time.NewTicker(o.q.server.limits.heartbeat)
		defer tick.Stop()
		quiet := true
		for o.err == nil {
			select {
			case <-o.wake:
				quiet = false
				o.err = o.write()
			case <-tick.C:
				if alive && quiet {
					o.err = o.send([]byte{'\n'})
				}
				quiet = true
			case <-o.ctx.Done():
				o.err = o.ctx.Err()
			case <-o.ending:
				o.err = o.write()
				return
			}
		}
	}()
}

// end writes what is left and ends the writer.
func (o *output) end() {
	close(o.ending)
	<-o.gone
	o.stop()
}

// write sends what has gathered.
func (o *output) write() error {
	o.mu.Lock()
	batch := o.pending
	o.pending = o.spare[:0]
	o.room.Broadcast()
	o.mu.Unlock()
	o.spare = batch
	if len(batch) == 0 {
		return nil
	}
	return o.send(batch)
}

func (o *output) send(b []byte) error {
	o.q.began = true
	_ = o.q.ctl.SetWriteDeadline(time.Now().Add(o.q.server.limits.stalled))
	if err := o.ctx.Err(); err != nil { // its deadline may have been overwritten just now
		return err
	}
	if _, err := o.q.w.Write(b); err != nil {
		return err
	}
	return o.flush()
}

func (o *output) flush() error { return o.q.ctl.Flush() }
