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

// TestAnswersEndWithTheMachine: what was answered until the sandbox stops ends when the machine goes down too.
func TestAnswersEndWithTheMachine(t *testing.T) {
	t.Parallel()
	d := harness.W.StartDaemon(t)
	c, ctx := dial(t, d)
	a, server := name(t, "a.down.test")
	probeBox(t, d, "box", "hold: 1s\n"+harness.Base+"network:\n  ask:\n    - "+rule(a)+"\n")
	done := reaching(t, d, "box", a)
	answer(t, c, request(t, c, a+":7000"), api.NewAnswer{Verdict: "allow", Scope: api.ScopeSession, Confirm: true})
	if !<-done {
		t.Fatal("what was allowed was not connected")
	}
	d.Reboot(t)
	d.Start(t)
	until(t, "it runs", func() bool { return get(t, c, "box").State == api.Running })
	if grants, err := c.Grants(ctx, "box"); err != nil || len(grants) != 0 {
		t.Errorf("%+v, %v", grants, err)
	}
	conns := server.Conns()
	if reaches(t, d, "box", a) || server.Conns() != conns {
		t.Error("an answer of the last life holds in the next")
	}
	d.Verify(t)
}

// TestUnknownProgram: a rule for a command is not for what only has the command's path: a program that a rule for files lets run,
// which anybody inside could have put there.
func TestUnknownProgram(t *testing.T) {
	t.Parallel()
	d := harness.W.StartDaemon(t)
	c, ctx := dial(t, d)
	a, server := name(t, "a.unknown.test")
	probeBox(t, d, "box", "hold: 5s\nfilesystem:\n  allow:\n    - {path: /workspace, permissions: [read, write, execute]}\nnetwork:\n  default: ask\n")
	done := reaching(t, d, "box", a)
	if r := request(t, c, a+":7000"); r.Program != "/workspace/probe" || r.State != api.Held {
		t.Fatalf("%+v", r)
	}
	d.Do(t, "box", "policy", "add", "--domain", a, "--port", "7000", "--protocol", "tcp", "--command", "/workspace/probe")
	if list, err := c.Requests(ctx, "box"); err != nil || len(list) != 1 || list[0].State != api.Held {
		t.Errorf("%+v, %v", list, err)
	}
	if <-done || server.Conns() != 0 {
		t.Error("it was connected, and nobody allowed it")
	}
	d.Verify(t)
}
