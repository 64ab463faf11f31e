//go:build e2e

package test

import (
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/test/harness"
)

// gone waits until nothing of a run is left but what shared allows, and names what stays.
func gone(t *testing.T, s *harness.Session, keep func(string) bool) {
	t.Helper()
	var left []string
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		left = nil
		for _, l := range harness.W.Leftovers(s) {
			if !keep(l) {
				left = append(left, l)
			}
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("left behind by %s:\n  %s", s.Name, strings.Join(left, "\n  "))
		}
	}
}

func nothing(string) bool { return false }

func TestNormalExitLeavesNothing(t *testing.T) {
	t.Parallel()
	a4, _ := harness.W.Addr()
	harness.W.DNS.Set("exit.test", a4)
	harness.W.TCP(t, a4, 7000)
	policy := network(`{domain: exit.test, ports: [7000], protocol: tcp}`)
	for _, attempts := range [][]string{
		{"tcp-to exit.test 7000", "tcp-to refused.exit.test 1"},
		{"exit 3"},
		{"forks 5", "signal 9"},
	} {
		r := harness.W.Run(t, harness.Box{Policy: policy}, append([]string{"/workspace/probe"}, attempts...)...)
		gone(t, r.Session, nothing)
		if _, err := os.Stat(r.AuditDir()); err != nil {
			t.Errorf("the audit log went too: %v", err)
		}
	}
}

// TestKilledAtAnyPoint: when the owner is killed everything it started is gone, and the next start clears the rest away.
func TestKilledAtAnyPoint(t *testing.T) {
	t.Parallel()
	const rounds = 40
	full := harness.W.Run(t, harness.Box{}, "/workspace/probe", "sleep 10ms")
	span := full.Took * 3 / 2
	var killed []*harness.Session
	for i := range rounds {
		// From the first instruction to well inside the command's life, evenly and with a jitter.
		after := span*time.Duration(i)/rounds + time.Duration(rand.Int64N(int64(span)/rounds+1))
		s := harness.W.Start(t, harness.Box{}, "/workspace/probe", "forks 3", "sleep 1m")
		time.Sleep(after)
		if err := s.Cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = s.Cmd.Wait() // killed, as asked
		gone(t, s, func(left string) bool { return !strings.HasPrefix(left, "process ") })
		killed = append(killed, s)
	}
	// The next start with the same run directory sweeps what its predecessor left.
	for _, s := range killed {
		r := harness.W.Run(t, harness.Box{Flags: []string{"--run-dir", s.RunDir()}}, "/workspace/probe", "exit 0")
		if r.Code != 0 {
			t.Fatalf("the start after a kill failed\n%s", r.Dump())
		}
		gone(t, s, nothing)
	}
}

// running waits until something of a sandbox runs; one that ended instead says why.
func running(t *testing.T, s *harness.Session) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); len(harness.W.Processes(s.Name)) <= 1; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			_ = s.Cmd.Process.Signal(syscall.SIGTERM)
			t.Fatalf("the sandbox does not run\n%s", s.Wait(t, 10*time.Second).Dump())
		}
	}
}

// TestSweepSparesTheLiving: a start clears away only what is dead.
func TestSweepSparesTheLiving(t *testing.T) {
	t.Parallel()
	living := harness.W.Start(t, harness.Box{}, "/workspace/probe", "sleep 5s", "exit 5")
	running(t, living)
	r := harness.W.Run(t, harness.Box{Flags: []string{"--run-dir", living.RunDir()}}, "/workspace/probe", "exit 0")
	if r.Code != 0 {
		t.Errorf("a second sandbox did not start\n%s", r.Dump())
	}
	if r := living.Wait(t, 30*time.Second); r.Code != 5 {
		t.Errorf("the first sandbox did not end by itself\n%s", r.Dump())
	}
}

func TestNameInUse(t *testing.T) {
	t.Parallel()
	living := harness.W.Start(t, harness.Box{}, "/workspace/probe", "sleep 5s", "exit 5")
	running(t, living)
	r := harness.W.Run(t, harness.Box{Flags: []string{"--run-dir", living.RunDir(), "--name", living.Name}}, "/workspace/probe", "exit 0")
	if r.Code == 0 || !strings.Contains(r.Err, living.Name) {
		t.Errorf("two sandboxes of one name\n%s", r.Dump())
	}
	if r := living.Wait(t, 30*time.Second); r.Code != 5 {
		t.Errorf("the first sandbox did not end by itself\n%s", r.Dump())
	}
}

// TestOrphans: children that outlive the command end with it.
func TestOrphans(t *testing.T) {
	t.Parallel()
	policy := harness.Files + "process:\n  allow:\n    - {command: python3}\n"
	script := "import os, time\nfor i in range(5):\n  if os.fork() == 0:\n    os.setsid()\n    time.sleep(60)\n    os._exit(0)\n"
	r := harness.W.Run(t, harness.Box{Policy: policy, Timeout: 20 * time.Second}, "python3", "-c", script)
	if r.Code != 0 {
		t.Errorf("the command failed\n%s", r.Dump())
	}
	gone(t, r.Session, nothing)
}
