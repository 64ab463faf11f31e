package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"syscall"
	"time"

	"github.com/nemoclaw/nemoclaw/policy"
)

// How long a follower waits before it looks again for a daemon that went away.
const (
	firstWait = 50 * time.Millisecond
	longWait  = 2 * time.Second
)

// maxRecord bounds a line of the audit log as the client takes it.
const maxRecord = 1 << 20

// Query is the selection as a URL has it.
func (e Events) Query() url.Values {
	q := url.Values{}
	set := func(name, value string, is bool) {
		if is {
			q.Set(name, value)
		}
	}
	set("since", strconv.FormatUint(e.Since, 10), e.Since > 0)
	set("from", e.From.Format(time.RFC3339Nano), !e.From.IsZero())
	set("to", e.To.Format(time.RFC3339Nano), !e.To.IsZero())
	set("sandbox", e.Sandbox, e.Sandbox != "")
	set("last", strconv.Itoa(e.Last), e.Last > 0)
	set("follow", "true", e.Follow)
	for name, values := range map[string][]string{"plane": e.Planes, "verdict": e.Verdict} {
		for _, v := range values {
			q.Add(name, v)
		}
	}
	return q
}

// Events calls f with each record that e selects, in order: its line in the audit log, which f must not keep, and what the
// line says. It returns f's error, or nil when there is no more. With Follow it goes on until ctx ends or f fails, also
// when the daemon is restarted: it connects again, and no record is missed or comes twice.
func (c *Client) Events(ctx context.Context, e Events, f func(line []byte, d policy.Decision) error) error {
	s := stream{client: c, want: e, f: f}
	err := s.run(ctx)
	var stop stopError
	if errors.As(err, &stop) {
		return stop.error
	}
	return err
}

// run is Events.
func (s *stream) run(ctx context.Context) error {
	if !s.want.Follow {
		_, err := s.once(ctx)
		return err
	}
	if s.want.Last > 0 {
		if err := s.history(ctx); err != nil {
			return err
		}
	}
	for wait := firstWait; ; wait = min(2*wait, longWait) {
		answered, err := s.once(ctx)
		if answered {
			wait, s.connected = firstWait, true
		}
		switch {
		case err == nil: // no more can come: the time asked for is over
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case !s.connected || !interrupted(err):
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// stream is a selection of which a part was delivered: want.Since is the last record that was.
type stream struct {
	client    *Client
	want      Events
	f         func([]byte, policy.Decision) error
	connected bool // once at least
}

// stopError is an error of the caller's own function: nothing is tried again after it.
type stopError struct{ error }

func (e stopError) Unwrap() error { return e.error }

// history delivers the last records, and leaves a selection of all that come after them. So "the last ten" is asked
// once: asked again after a break it would be other ten.
func (s *stream) history(ctx context.Context) error {
	info, err := s.client.Info(ctx)
	if err != nil {
		return err
	}
	s.want.Follow = false
	if _, err := s.once(ctx); err != nil {
		return err
	}
	s.want.Follow, s.want.Last = true, 0
	s.want.Since = max(s.want.Since, info.Seq)
	return nil
}

// once delivers what one connection brings. answered says whether the daemon took the request.
func (s *stream) once(ctx context.Context) (answered bool, err error) {
	resp, err := s.client.send(ctx, http.MethodGet, "events?"+s.want.Query().Encode(), "", nil)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	r := bufio.NewReaderSize(resp.Body, 64<<10)
	for {
		line, err := readLine(r)
		if errors.Is(err, io.EOF) {
			return true, streamError(resp)
		}
		if err != nil {
			return true, fmt.Errorf("reading the daemon's events: %w", err)
		}
		if len(line) == 0 {
			continue // a heartbeat
		}
		if err := s.deliver(line); err != nil {
			return true, err
		}
	}
}

func (s *stream) deliver(line []byte) error {
	var d policy.Decision
	if err := json.Unmarshal(line, &d); err != nil {
		return stopError{fmt.Errorf("the daemon sent an event that can't be read: %w: %.200q", err, line)}
	}
	if d.Seq <= s.want.Since {
		return nil // it was delivered before the connection broke
	}
	s.want.Since = d.Seq
	if err := s.f(line, d); err != nil {
		return stopError{err}
	}
	return nil
}

// readLine reads a whole line, without its newline. A part of one is io.ErrUnexpectedEOF.
func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		long := bytes.Clone(line)
		for errors.Is(err, bufio.ErrBufferFull) {
			if len(long) > maxRecord {
				return nil, fmt.Errorf("a line of more than %d bytes", maxRecord)
			}
			line, err = r.ReadSlice('\n')
			long = append(long, line...)
		}
		line = long
	}
	if err != nil {
		if errors.Is(err, io.EOF) && len(line) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return line[:len(line)-1], nil
}

// interrupted tells a daemon that went away, or is not back yet, from one that refuses.
func interrupted(err error) bool {
	var stop stopError
	var refused *Error
	switch {
	case errors.As(err, &stop):
		return false
	case errors.As(err, &refused):
		return refused.Code == Busy
	}
	for _, is := range []error{ErrNotRunning, io.EOF, io.ErrUnexpectedEOF, syscall.EPIPE, syscall.ECONNRESET} {
		if errors.Is(err, is) {
			return true
		}
	}
	return false
}
