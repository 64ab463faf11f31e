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
	"strings"
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

// maxDays is a century: no log is older.
const maxDays = 100 * 366

// ParseTime reads a time as a person writes it: a duration before now, days among them, the beginning of today, or a date with or
// without a time of the day.
func ParseTime(s string, now time.Time) (time.Time, error) {
	if s == "today" {
		y, m, d := now.Local().Date()
		return time.Date(y, m, d, 0, 0, 0, 0, time.Local), nil
	}
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	if days, found := strings.CutSuffix(s, "d"); found { // which time.ParseDuration does not know, and audit_max_age does
		if n, err := strconv.ParseUint(days, 10, 32); err == nil && n <= maxDays {
			return now.Add(-time.Duration(n) * 24 * time.Hour), nil
		}
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly, "2006-01-02 15:04", "2006-01-02T15:04", time.DateTime} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf(`%q: want a duration such as 1h30m or 7d, today, or a time such as 2026-01-31, "2026-01-31 15:04" or 2026-01-31T15:04:05Z`, s)
}

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
		return s.once(ctx)
	}
	history := s.want.Last > 0
	if history {
		if err := s.history(ctx); err != nil {
			return err
		}
	}
	return s.client.follow(ctx, history, s.path, s.deliver)
}

// follow calls deliver with each line of a stream, and connects again when the daemon goes away. It ends with ctx, with deliver's
// error, or with what can't be mended by trying again. connected says that the daemon has answered before: one that never did is not
// waited for.
func (c *Client) follow(ctx context.Context, connected bool, path func() string, deliver func(line []byte) error) error {
	for wait := firstWait; ; wait = min(2*wait, longWait) {
		answered, err := c.lines(ctx, path(), deliver)
		if answered {
			wait, connected = firstWait, true
		}
		var stop stopError
		switch {
		case err == nil: // no more can come: the time asked for is over
			return nil
		case errors.As(err, &stop):
			return stop.error
		case ctx.Err() != nil:
			return ctx.Err()
		case !connected || !interrupted(err):
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
	client *Client
	want   Events
	f      func([]byte, policy.Decision) error
}

func (s *stream) path() string { return "events?" + s.want.Query().Encode() }

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
	before := s.want.Since
	s.want.Follow = false
	err = s.once(ctx)
	s.want.Follow, s.want.Last = true, 0
	var stop stopError
	if s.want.Since > before && !errors.As(err, &stop) && interrupted(err) {
		return nil // the rest of them comes after the one that was the last
	}
	s.want.Since = max(s.want.Since, info.Seq)
	return err
}

// once delivers what one connection brings.
func (s *stream) once(ctx context.Context) error {
	_, err := s.client.lines(ctx, s.path(), s.deliver)
	return err
}

// lines calls deliver with what one connection brings. answered says whether the daemon took the request. An error of deliver is a
// stopError.
func (c *Client) lines(ctx context.Context, path string, deliver func([]byte) error) (answered bool, err error) {
	resp, err := c.send(ctx, http.MethodGet, path, "", nil)
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
			return true, fmt.Errorf("reading from the daemon: %w", err)
		}
		if len(line) == 0 {
			continue // a heartbeat
		}
		if err := deliver(line); err != nil {
			return true, stopError{err}
		}
	}
}

func (s *stream) deliver(line []byte) error {
	var d policy.Decision
	if err := json.Unmarshal(line, &d); err != nil {
		return fmt.Errorf("the daemon sent an event that can't be read: %w: %.200q", err, line)
	}
	if d.Seq <= s.want.Since {
		return nil // it was delivered before the connection broke
	}
	s.want.Since = d.Seq
	return s.f(line, d)
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
	var refused *Error
	if errors.As(err, &refused) {
		return refused.Code == Busy
	}
	for _, is := range []error{ErrNotRunning, io.EOF, io.ErrUnexpectedEOF, syscall.EPIPE, syscall.ECONNRESET} {
		if errors.Is(err, is) {
			return true
		}
	}
	return false
}
