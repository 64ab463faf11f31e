//go:build e2e

package daemon

import (
	"context"
	"errors"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/test/harness"
)

// TestCommandsThatNeverBegin: what runs inside stops each new command before it executes anything. Callers that go away leave
// nothing, and the daemon ends when it is told to.
func TestCommandsThatNeverBegin(t *testing.T) {
	t.Parallel()
	d := harness.W.StartDaemon(t)
	create(t, d, "stops", shell)
	c, ctx := dial(t, d)
	if _, err := c.Exec(ctx, "stops", api.Exec{Args: []string{"sh", "-c", "while :; do kill -STOP -1; done"}, Detach: true}, [3]*os.File{}); err != nil {
		t.Fatal(err)
	}
	hung := false
	for until := time.Now().Add(patience); !hung && time.Now().Before(until); {
		short, cancel := context.WithTimeout(ctx, time.Second)
		p, err := c.Exec(short, "stops", api.Exec{Args: []string{"true"}}, [3]*os.File{})
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			hung = true
		case err != nil:
			t.Fatal(err)
		default:
			p.Close()
		}
		cancel()
	}
	if !hung {
		t.Fatal("no command was stopped before it began: the test shows nothing")
	}
	for until := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		s, err := c.Get(ctx, "stops")
		if err != nil {
			t.Fatal(err)
		}
		if s.Commands == 1 {
			break
		}
		if time.Now().After(until) {
			t.Fatalf("%d commands are left of callers that went away", s.Commands-1)
		}
	}
	go func() { _, _ = c.Exec(ctx, "stops", api.Exec{Args: []string{"sleep", "1000"}}, [3]*os.File{}) }()
	time.Sleep(200 * time.Millisecond)
	if err := syscall.Kill(d.PID(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	d.Wait(t)
	d.Start(t)
}
