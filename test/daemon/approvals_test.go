//go:build e2e

package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/test/harness"
)

// request waits for the one request about an object.
func request(t *testing.T, c *api.Client, object string) (r api.Request) {
	t.Helper()
	until(t, "a request about "+object, func() bool {
		list, err := c.Requests(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		for _, r = range list {
			if r.Object == object {
				return true
			}
		}
		return false
	})
	return r
}

func answer(t *testing.T, c *api.Client, r api.Request, a api.NewAnswer) api.AnswerResult {
	t.Helper()
	res, err := c.Answer(t.Context(), r.ID, a)
	if err != nil {
		t.Fatalf("%+v to %+v: %v", a, r, err)
	}
	return res
}

// reaching tries to reach a name, and says whether it did when that is known.
func reaching(t *testing.T, d *harness.Daemon, box, name string) <-chan bool {
	did := make(chan bool, 1)
	go func() {
		defer close(did) // a probe that fails ends this goroutine, and nobody is to wait for it
		did <- probe(t, d, box, "await "+name+" 7000 eA==")[0].Errno == ""
	}()
	return did
}

// TestHeldConnection: under `default: ask` a connection waits for a person, goes on when it is allowed and fails when it is not; what
// was answered for the session is not asked about again, and is taken back at once.
func TestHeldConnection(t *testing.T) {
	t.Parallel()
	d := harness.W.StartDaemon(t)
	c, _ := dial(t, d)
	a, server := name(t, "a.held.test")
	b, _ := name(t, "b.held.test")
	ws := probeBox(t, d, "box", harness.Base+"network:\n  default: ask\n")

	done := reaching(t, d, "box", a)
	r := request(t, c, a+":7000")
	if r.State != api.Held || r.Held != 1 || r.Until == nil || r.Program != "/workspace/probe" || r.Sandbox != "box" || r.Rule != "default" {
		t.Errorf("%+v", r)
	}
	select {
	case <-done:
		t.Error("it did not wait")
	case <-time.After(100 * time.Millisecond):
	}
	if server.Conns() != 0 {
		t.Error("it was connected before it was allowed")
	}
	answer(t, c, r, api.NewAnswer{Verdict: "allow", Confirm: true})
	if !<-done {
		t.Error("what was allowed was not connected")
	}
	done = reaching(t, d, "box", a)
	answer(t, c, request(t, c, a+":7000"), api.NewAnswer{Verdict: "deny"})
	if <-done {
		t.Error("what was denied was connected")
	}

	done = reaching(t, d, "box", b)
	answer(t, c, request(t, c, b+":7000"), api.NewAnswer{Verdict: "allow", Scope: api.ScopeSession, Confirm: true})
	if !<-done || !reaches(t, d, "box", b) {
		t.Error("what was allowed for the session was not connected")
	}
	open := talk(t, c, "box", ws, b)
	grants, err := c.Grants(t.Context(), "box")
	if err != nil || len(grants) != 1 || grants[0].Object != b+":7000" || grants[0].Scope != api.ScopeSession || !strings.HasPrefix(grants[0].Who, "root (uid 0") {
		t.Fatalf("%+v, %v", grants, err)
	}
	if res, err := c.Revoke(t.Context(), "box", grants[0].ID); err != nil || res.Closed != 1 {
		t.Errorf("%+v, %v", res, err)
	}
	until(t, "the connection is closed", func() bool { return open.answers() < 0 })
	d.Verify(t)
}

// TestRefusedIsOffered: what `default: deny` refused is listed, and let through once, or for a while, when somebody allows it.
func TestRefusedIsOffered(t *testing.T) {
	t.Parallel()
	d := harness.W.StartDaemon(t)
	c, _ := dial(t, d)
	a, _ := name(t, "a.refused.test")
	b, _ := name(t, "b.refused.test")
	probeBox(t, d, "box", harness.Base)
	refused := func(name string) {
		t.Helper()
		if reaches(t, d, "box", name) {
			t.Errorf("%s was reached", name)
		}
	}
	refused(a)
	r := request(t, c, a+":7000")
	if r.State != api.Refused || r.Held != 0 || r.Until != nil {
		t.Errorf("%+v", r)
	}
	answer(t, c, r, api.NewAnswer{Verdict: "allow", Confirm: true})
	if !reaches(t, d, "box", a) {
		t.Error("the next attempt was not let through")
	}
	refused(a)
	answer(t, c, request(t, c, a+":7000"), api.NewAnswer{Verdict: "allow", Scope: api.ScopeFor, For: "3s", Confirm: true})
	for range 2 {
		if !reaches(t, d, "box", a) {
			t.Error("it was allowed for a while")
		}
	}
	until(t, "the time is over", func() bool { return !reaches(t, d, "box", a) })

	// Another program is another request, and what was answered about one is nothing for the other.
	refused(b)
	answer(t, c, request(t, c, b+":7000"), api.NewAnswer{Verdict: "allow", Scope: api.ScopeSession, Confirm: true})
	d.Do(t, "box", "exec", "--", "/workspace/probe", "copy /workspace/probe /workspace/other")
	if !reaches(t, d, "box", b) {
		t.Error("it was allowed for the session")
	}

	d.Do(t, "box", "stop")
	d.Do(t, "start", "box")
	if reaches(t, d, "box", b) {
		t.Error("an answer for the session holds in the next")
	}
}

// TestAlways: an answer that holds always is a revision of the policy, whose text is shown before.
func TestAlways(t *testing.T) {
	t.Parallel()
	d := harness.W.StartDaemon(t)
	c, ctx := dial(t, d)
	a, _ := name(t, "a.always.test")
	b, _ := name(t, "b.always.test")
	probeBox(t, d, "box", harness.Base+"network:\n  default: ask\n")
	done := reaching(t, d, "box", a)
	r := request(t, c, a+":7000")
	yes := api.NewAnswer{Verdict: "allow", Scope: api.ScopeAlways, Offer: "host", Confirm: true}
	dry := yes
	dry.DryRun = true
	if res := answer(t, c, r, dry); !strings.Contains(res.Policy.Diff, "+    - domain: "+a) || res.Request.State != api.Held {
		t.Errorf("%+v", res)
	}
	if p, err := c.Policy(ctx, "box", 0); err != nil || p.Revision != 1 {
		t.Errorf("a dry run made revision %d: %v", p.Revision, err)
	}
	if res := answer(t, c, r, yes); !res.Policy.Live || res.Policy.Policy.Revision != 2 || !strings.HasPrefix(res.Policy.Policy.Who, "root (uid 0") {
		t.Errorf("%+v", res.Policy)
	}
	if !<-done || !reaches(t, d, "box", a) {
		t.Error("what is allowed always was not connected")
	}
	done = reaching(t, d, "box", b)
	r = request(t, c, b+":7000")
	answer(t, c, r, api.NewAnswer{Verdict: "deny", Scope: api.ScopeAlways})
	if <-done || reaches(t, d, "box", b) {
		t.Error("what is denied always was connected")
	}
	if left, err := c.Requests(ctx, "box"); err != nil || len(left) != 0 {
		t.Errorf("%+v, %v", left, err)
	}
	if p, err := c.Policy(ctx, "box", 0); err != nil || p.Revision != 3 || !strings.Contains(p.Text, "deny:") {
		t.Errorf("%+v, %v", p, err)
	}

	// Ask beats allow. A rule that asks about this alone gives way; of one that asks about more there is no such offer.
	probeBox(t, d, "asks", "hold: 30s\n"+harness.Base+"network:\n  ask:\n    - "+rule(a)+"\n    - "+rule("'*.wild.always.test'")+"\n")
	done = reaching(t, d, "asks", a)
	r = request(t, c, a+":7000")
	if res := answer(t, c, r, yes); !strings.Contains(res.Policy.Diff, "-    - {domain: "+a) || !strings.Contains(res.Policy.Diff, "+    - domain: "+a) {
		t.Errorf("%+v", res.Policy)
	}
	if !<-done || !reaches(t, d, "asks", a) {
		t.Error("what is allowed always was not connected")
	}
	wild, _ := name(t, "w.wild.always.test")
	done = reaching(t, d, "asks", wild)
	r = request(t, c, wild+":7000")
	var e *api.Error
	if _, err := c.Answer(ctx, r.ID, yes); !errors.As(err, &e) || e.Code != api.Invalid {
		t.Errorf("%v", err)
	}
	if p, err := c.Policy(ctx, "asks", 0); err != nil || p.Revision != 2 {
		t.Errorf("revision %d: %v", p.Revision, err)
	}
	answer(t, c, r, api.NewAnswer{Verdict: "deny"})
	if <-done {
		t.Error("it was connected")
	}
}

// TestApprovalsOutliveTheDaemon: what was held is denied when the daemon is killed, and listed by the next; what was answered for the
// session still holds, and can still be taken back.
func TestApprovalsOutliveTheDaemon(t *testing.T) {
	t.Parallel()
	d := harness.W.StartDaemon(t)
	c, _ := dial(t, d)
	a, server := name(t, "a.outlive.test")
	b, _ := name(t, "b.outlive.test")
	probeBox(t, d, "box", harness.Base+"network:\n  default: ask\n")
	done := reaching(t, d, "box", a)
	answer(t, c, request(t, c, a+":7000"), api.NewAnswer{Verdict: "allow", Scope: api.ScopeSession, Confirm: true})
	if !<-done {
		t.Error("it was allowed")
	}
	conns := server.Conns()
	if _, err := c.Exec(t.Context(), "box", api.Exec{Args: []string{"/workspace/probe", "await " + b + " 7000 eA=="}, Detach: true}, [3]*os.File{}); err != nil {
		t.Fatal(err)
	}
	r := request(t, c, b+":7000")
	until(t, "the request is on the disk", func() bool {
		text, _ := os.ReadFile(filepath.Join(d.StateDir(), "sandboxes/box/approvals.json"))
		return strings.Contains(string(text), r.ID)
	})
	d.Kill()
	d.Start(t)
	if again := request(t, c, b+":7000"); again.ID != r.ID || again.State != api.Refused || again.Held != 0 {
		t.Errorf("%+v, was %+v", again, r)
	}
	if !reaches(t, d, "box", a) || server.Conns() != conns+1 {
		t.Error("what was allowed for the session is not any more")
	}
	grants, err := c.Grants(t.Context(), "box")
	if err != nil || len(grants) != 1 {
		t.Fatalf("%+v, %v", grants, err)
	}
	if _, err := c.Revoke(t.Context(), "box", grants[0].ID); err != nil {
		t.Error(err)
	}
	done = reaching(t, d, "box", a)
	if request(t, c, a+":7000").State != api.Held {
		t.Error("it is not asked about")
	}
	answer(t, c, request(t, c, a+":7000"), api.NewAnswer{Verdict: "deny"})
	if <-done {
		t.Error("it was connected")
	}
	d.Verify(t)
}
