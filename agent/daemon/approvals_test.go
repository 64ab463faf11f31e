package daemon

import (
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

// TestPatience: processes that make it slow to read what they are hold nobody up for more than a tenth of the time.
func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p patience
		slow := func(d time.Duration) func() []api.Ancestor {
			return func() []api.Ancestor {
				time.Sleep(d)
				return []api.Ancestor{{PID: 1}}
			}
		}
		if p.read(slow(time.Millisecond)) == nil {
			t.Error("what can be read was not")
		}
		for _, each := range []time.Duration{time.Hour, 190 * time.Millisecond, 20 * time.Millisecond} {
			waited := time.Duration(0)
			for range 20 * 60 { // a minute of new requests, as many as there may be
				began := time.Now()
				p.read(slow(each))
				waited += time.Since(began)
				time.Sleep(max(0, 50*time.Millisecond-time.Since(began)))
			}
			if waited > 7*time.Second {
				t.Errorf("waited for %s in a minute for reads of %s", waited, each)
			}
			time.Sleep(time.Hour)
		}
		if p.read(slow(time.Millisecond)) == nil {
			t.Error("what can be read again is not")
		}
	})
}

// TestExplain: a policy is asked about whatever a request offers a rule for, and knows a tainted or unknown program by no command.
func TestExplain(t *testing.T) {
	c, err := compile("p", "version: 1\nnetwork:\n  allow:\n    - {domain: a.test, ports: [443], protocol: https}\n    - {domain: b.test, ports: [443], protocol: https, commands: [curl]}\n"+
		"filesystem:\n  allow:\n    - {path: /srv/w, permissions: [write]}\n    - {path: /srv/rw, permissions: [read, write]}\n")
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		plane                          policy.Plane
		action, object, command, taint string
		want                           policy.Verdict
	}{
		{policy.PlaneNetwork, "connect", "a.test:443", "", "", policy.Allow},
		{policy.PlaneNetwork, "request", "a.test:443", "", "", policy.Allow},
		{policy.PlaneDNS, "resolve", "a.test", "", "", policy.Allow},
		{policy.PlaneDNS, "resolve", "c.test", "", "", policy.Deny},
		{policy.PlaneNetwork, "connect", "b.test:443", "/usr/bin/curl", "", policy.Allow},
		{policy.PlaneNetwork, "connect", "b.test:443", "/usr/bin/curl", "LD_PRELOAD", policy.Deny},
		{policy.PlaneNetwork, "connect", "b.test:443", "", "", policy.Deny},
		{policy.PlaneNetwork, "connect", "b.test:443", "/workspace/curl", "", policy.Deny},
		{policy.PlaneFile, "read", "/srv/w/x", "", "", policy.Deny},
		{policy.PlaneFile, "write", "/srv/w/x", "", "", policy.Allow},
		{policy.PlaneFile, "read and write", "/srv/w/x", "", "", policy.Deny},
		{policy.PlaneFile, "read and write", "/srv/rw/x", "", "", policy.Allow},
	} {
		d := policy.Decision{Plane: x.plane, Action: x.action, Object: x.object, Subject: policy.Subject{Exe: x.command, Taint: x.taint}}
		if a, err := explain(c, d, x.command, 0); err != nil || a.Verdict != x.want {
			t.Errorf("%+v: %v, %v", x, a.Verdict, err)
		}
	}
}

// TestAncestorsAreInside: of a process whose number is another's by now, of the host, nothing is told.
func TestAncestorsAreInside(t *testing.T) {
	parent, err := readStat(os.Getppid())
	if err != nil {
		t.Fatal(err)
	}
	if list := readAncestors(os.Getpid(), parent.parent); len(list) != 1 || list[0].PID != os.Getppid() {
		t.Errorf("%+v", list)
	}
	if list := readAncestors(os.Getpid(), 1<<30); list != nil {
		t.Errorf("%+v", list)
	}
}
