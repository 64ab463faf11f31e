package server

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

// collect returns the sequence numbers of what a selection gives.
func collect(t *testing.T, c *api.Client, e api.Events) []uint64 {
	t.Helper()
	var seqs []uint64
	if err := c.Events(t.Context(), e, func(_ []byte, d policy.Decision) error {
		seqs = append(seqs, d.Seq)
		return nil
	}); err != nil {
		t.Error(err)
	}
	return seqs
}

func TestEvents(t *testing.T) {
	t.Parallel()
	b := newBackend("box")
	b.record(20000) // more than waits in one piece
	r := serve(t, b, nil)
	if seqs := collect(t, r.client, api.Events{}); len(seqs) != 20000 || seqs[0] != 1 || seqs[19999] != 20000 {
		t.Errorf("%d records came", len(seqs))
	}
	if seqs := collect(t, r.client, api.Events{Since: 19990}); len(seqs) != 10 || seqs[0] != 19991 {
		t.Errorf("since 19990: %v", seqs)
	}
	if seqs := collect(t, r.client, api.Events{Last: 3}); len(seqs) != 3 || seqs[0] != 19998 {
		t.Errorf("the last three: %v", seqs)
	}
	mine := errors.New("enough")
	if err := r.client.Events(t.Context(), api.Events{}, func(line []byte, d policy.Decision) error {
		if d.Verdict != policy.Deny || d.Object != "host-1:443" || !strings.HasPrefix(string(line), `{"seq":1,`) {
			t.Errorf("%+v from %s", d, line)
		}
		return mine
	}); err != mine { //nolint:errorlint // it must come back as it is
		t.Errorf("the function's own error came back as %v", err)
	}
}

// TestFollow restarts the server under a follower, again and again: nothing comes twice, and nothing is lost.
func TestFollow(t *testing.T) {
	t.Parallel()
	for _, e := range []api.Events{{Follow: true}, {Follow: true, Last: 5}, {Follow: true, Since: 8}} {
		t.Run(fmt.Sprintf("%+v", e), func(t *testing.T) {
			t.Parallel()
			b := newBackend("box")
			b.record(10)
			socket := t.TempDir() + "/s"
			first := max(e.Since, uint64(max(0, 10-e.Last))*uint64(min(1, e.Last))) + 1
			ctx, cancel := context.WithCancel(t.Context())
			var last atomic.Uint64
			last.Store(first - 1)
			ended := make(chan error, 1)
			stop := start(t, b, socket)
			go func() {
				ended <- api.Dial(socket).Events(ctx, e, func(_ []byte, d policy.Decision) error {
					if d.Seq != last.Load()+1 {
						t.Errorf("record %d came after %d", d.Seq, last.Load())
					}
					last.Store(d.Seq)
					return nil
				})
			}()
			for round := range 8 {
				total := uint64(10 + 100*round)
				within(t, "the records so far", func() bool { return last.Load() == total })
				if round%2 == 0 {
					b.record(50) // while the server is there, perhaps on their way when it goes
					stop()
				} else {
					stop()
					b.record(50)
				}
				b.record(50)
				stop = start(t, b, socket)
			}
			within(t, "all records", func() bool { return last.Load() == 810 })
			cancel()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Errorf("ended with %v", err)
			}
			stop()
		})
	}
}

// TestFollowGone: the daemon goes away between what was and what comes.
func TestFollowGone(t *testing.T) {
	t.Parallel()
	b := newBackend("box")
	b.record(10)
	socket := t.TempDir() + "/s"
	stop := start(t, b, socket)
	again := make(chan func(), 1)
	enough := errors.New("enough")
	err := api.Dial(socket).Events(t.Context(), api.Events{Follow: true, Last: 5}, func(_ []byte, d policy.Decision) error {
		switch d.Seq {
		case 10:
			stop()
			go func() {
				time.Sleep(300 * time.Millisecond) // the client finds nobody at first
				b.record(1)
				again <- start(t, b, socket)
			}()
		case 11:
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Fatalf("it ended with %v", err)
	}
	(<-again)()
}

// start starts a server, and returns what ends it.
func start(t *testing.T, b *backend, socket string) (stop func()) {
	t.Helper()
	s, err := New(Config{Backend: b, SteerGroup: fmt.Sprint(steerGID())})
	if err != nil {
		t.Fatal(err)
	}
	l, err := s.Listen(socket, nil)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	return func() {
		t.Helper()
		if err := errors.Join(s.Shutdown(t.Context()), <-served); err != nil {
			t.Error(err)
		}
	}
}

// TestBrokenStreams sees that what is not whole does not look so.
func TestBrokenStreams(t *testing.T) {
	t.Parallel()
	b := newBackend("box")
	b.record(3)
	b.files["/a"] = make([]byte, 1<<20)
	b.broken = fmt.Errorf("the disk failed: %s", strings.Repeat("\x7f\u00e9<", 2000))
	r := serve(t, b, nil)
	var e *api.Error
	count := 0
	err := r.client.Events(t.Context(), api.Events{Follow: true}, func([]byte, policy.Decision) error { count++; return nil })
	if count != 3 || !errors.As(err, &e) || !strings.Contains(e.Message, "the disk failed") {
		t.Errorf("%d records, then %v", count, err)
	}
	var down strings.Builder
	err = r.client.Download(t.Context(), "box", "/a", &down)
	if down.Len() < 1<<20 || !errors.As(err, &e) || !strings.Contains(e.Message, "the disk failed") {
		t.Errorf("%d bytes, then %v", down.Len(), err)
	}
	b.mu.Lock()
	b.records = nil
	b.mu.Unlock()
	err = r.client.Events(t.Context(), api.Events{}, func([]byte, policy.Decision) error { return nil })
	if !errors.As(err, &e) || e.Code != api.Internal {
		t.Errorf("a stream that failed before it began: %v", err)
	}
}

// TestHeartbeat sees that a follower that reads nothing is dropped, and that the backend is not held up for ever.
func TestHeartbeat(t *testing.T) {
	t.Parallel()
	b := newBackend("box")
	b.record(200_000) // more than sockets hold
	r := serve(t, b, func(s *Server) {
		s.limits.heartbeat, s.limits.stalled = 10*time.Millisecond, 100*time.Millisecond
	})
	held := func() int {
		q := &r.limits.streams
		q.mu.Lock()
		defer q.mu.Unlock()
		return len(q.held)
	}
	var last uint64
	err := r.client.Events(t.Context(), api.Events{Follow: true}, func(_ []byte, d policy.Decision) error {
		if d.Seq == 1 {
			within(t, "the end of a stream that nobody reads", func() bool { return held() == 0 })
		}
		if d.Seq != last+1 {
			t.Errorf("record %d came after %d", d.Seq, last)
		}
		if last = d.Seq; last == 200_000 {
			return context.Canceled
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v after %d", err, last)
	}
	within(t, "the end of the stream", func() bool { return held() == 0 })
}
