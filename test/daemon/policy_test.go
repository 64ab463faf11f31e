//go:build e2e

package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
	"github.com/nemoclaw/nemoclaw/test/harness"
)

// name makes a name of the world with an echo server behind it on port 7000.
func name(t *testing.T, of string) (string, *harness.Server) {
	t.Helper()
	a4, _ := harness.W.Addr()
	harness.W.DNS.Set(of, a4)
	return of, harness.W.TCP(t, a4, 7000)
}

func rule(name string) string { return "{domain: " + name + ", ports: [7000], protocol: tcp}" }

// conversation is a connection from inside that goes on.
type conversation struct{ file string }

func talk(t *testing.T, c *api.Client, box, workspace, name string) conversation {
	t.Helper()
	args := []string{"/workspace/probe", "talk " + name + " 7000 /workspace/talk-" + name}
	if _, err := c.Exec(t.Context(), box, api.Exec{Args: args, Detach: true}, [3]*os.File{}); err != nil {
		t.Fatal(err)
	}
	talk := conversation{filepath.Join(workspace, "talk-"+name)}
	until(t, "a conversation with "+name, func() bool { return talk.answers() != 0 })
	if talk.answers() < 0 {
		t.Fatalf("no conversation with %s: %s\n%s", name, talk.says(), logOf(t, c, box))
	}
	return talk
}

func (c conversation) says() string {
	text, _ := os.ReadFile(c.file) // "" until it is there
	return string(text)
}

// logOf is what was decided about a sandbox lately.
func logOf(t *testing.T, c *api.Client, box string) string {
	t.Helper()
	var b strings.Builder
	_ = c.Events(t.Context(), api.Events{Sandbox: box, Last: 20}, func(line []byte, _ policy.Decision) error {
		b.Write(append(line, '\n'))
		return nil
	})
	return b.String()
}

// answers is how many there were; -1: it has ended.
func (c conversation) answers() int {
	if strings.HasPrefix(c.says(), "ended") {
		return -1
	}
	n, _ := strconv.Atoi(c.says())
	return n
}

// goesOn waits for another answer.
func (c conversation) goesOn(t *testing.T) {
	t.Helper()
	n := c.answers()
	until(t, c.file+" goes on", func() bool { now := c.answers(); return now > n || now < 0 })
	if c.answers() < 0 {
		t.Errorf("%s %s", c.file, c.says())
	}
}

// reaches says whether a new connection to a name is answered.
func reaches(t *testing.T, d *harness.Daemon, box, name string) bool {
	t.Helper()
	return probe(t, d, box, "reach "+name+" 7000 eA==")[0].Errno == ""
}

// TestPolicyIsLive changes a policy under connections that are open.
func TestPolicyIsLive(t *testing.T) {
	t.Parallel()
	d := harness.W.StartDaemon(t)
	c, ctx := dial(t, d)
	keep, _ := name(t, "keep.live.test")
	drop, dropServer := name(t, "drop.live.test")
	later, _ := name(t, "later.live.test")
	ws := probeBox(t, d, "live", rules(rule(keep), rule(drop)))
	pid := get(t, c, "live").PID
	kept, dropped := talk(t, c, "live", ws, keep), talk(t, c, "live", ws, drop)

	if status, _, said := d.Call(t, "live", "policy", "remove", "--domain", drop); status != 0 || !strings.Contains(said, "1 connection that it does not allow ended") {
		t.Errorf("%d: %q", status, said)
	}
	until(t, "the connection that is not allowed any more ends", func() bool { return dropped.answers() < 0 })
	before := dropServer.Conns()
	if reaches(t, d, "live", drop) || dropServer.Conns() != before {
		t.Errorf("%s is still reached", drop)
	}
	kept.goesOn(t)
	if reaches(t, d, "live", later) {
		t.Errorf("%s is reached too early", later)
	}
	d.Do(t, "live", "policy", "add", "--domain", later, "--port", "7000", "--protocol", "tcp")
	if !reaches(t, d, "live", later) {
		t.Errorf("%s is not reached\n%s", later, d.Do(t, "live", "policy", "list"))
	}
	laterTalk := talk(t, c, "live", ws, later)

	// Back to the first: what came since goes, what went is back.
	d.Do(t, "live", "policy", "rollback", "1")
	until(t, "the connection that is not allowed any more ends", func() bool { return laterTalk.answers() < 0 })
	if !reaches(t, d, "live", drop) || reaches(t, d, "live", later) {
		t.Error("the first policy is not in force")
	}
	kept.goesOn(t)
	if s := get(t, c, "live"); s.PID != pid || s.Policy.Revision != 4 || s.Policy.Running != 4 {
		t.Errorf("%+v, want revision 4 in the same sandbox", s)
	}

	// So it is for the next daemon, and the connections of before are closed with the one that carried them.
	d.Kill()
	d.Start(t)
	if !reaches(t, d, "live", keep) || !reaches(t, d, "live", drop) || reaches(t, d, "live", later) {
		t.Error("another policy is in force after a restart")
	}

	list, err := c.Revisions(ctx, "live")
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"back to revision 1", "later.live.test", "drop.live.test", "the first policy"} {
		r := list[i]
		if r.Revision != 4-i || r.Who != "root" || !strings.Contains(r.What, want) || r.When.IsZero() || i > 0 && r.When.After(list[i-1].When) {
			t.Errorf("revision %d: %s at %s by %q: want %q", r.Revision, r.What, r.When, r.Who, want)
		}
	}
	first, err := c.Policy(ctx, "live", 1)
	last, err2 := c.Policy(ctx, "live", 4)
	if err != nil || err2 != nil || first.Text != last.Text {
		t.Errorf("%v, %v\n%s\n%s", err, err2, first.Text, last.Text)
	}
}

// TestExpiringRuleIsAdded: what a rule's `expires` says counts from when the rule came, not from the sandbox's creation, and goes on
// while nobody is there.
func TestExpiringRuleIsAdded(t *testing.T) {
	t.Parallel()
	d := harness.W.StartDaemon(t)
	c, ctx := dial(t, d)
	short, _ := name(t, "short.expires.test")
	long, _ := name(t, "long.expires.test")
	probeBox(t, d, "expires", harness.Base)
	created := time.Now()
	const lasts = 4 * time.Second
	time.Sleep(lasts) // the sandbox is older than the rule will ever be
	add := func(name, expires string) {
		t.Helper()
		if _, err := c.ChangePolicy(ctx, "expires", api.PolicyChange{Add: &api.PolicyRule{Domain: name, Ports: []uint16{7000}, Protocol: "tcp", Expires: expires}}); err != nil {
			t.Fatal(err)
		}
	}
	added := time.Now()
	add(short, lasts.String())
	if !reaches(t, d, "expires", short) && time.Since(added) < lasts {
		t.Errorf("the rule does not hold %s after it was added, %s after the sandbox's creation", time.Since(added), time.Since(created))
	}
	add(long, "1h") // a change of something else does not make the first one younger
	until(t, "the rule expires", func() bool { return !reaches(t, d, "expires", short) })
	if time.Since(added) < lasts {
		t.Errorf("the rule ended after %s", time.Since(added))
	}
	d.Kill()
	d.Start(t)
	if reaches(t, d, "expires", short) || !reaches(t, d, "expires", long) {
		t.Error("a restart of the daemon changed what has expired")
	}
	d.Do(t, "expires", "stop")
	d.Do(t, "expires", "start")
	if reaches(t, d, "expires", short) || !reaches(t, d, "expires", long) {
		t.Error("a restart of the sandbox changed what has expired")
	}
	list := d.Do(t, "expires", "policy", "list")
	for name, verdict := range map[string]string{short: "expired", long: "allow"} {
		if !slices.ContainsFunc(strings.Split(list, "\n"), func(line string) bool {
			return strings.HasPrefix(line, verdict+" ") && strings.Contains(line, name)
		}) {
			t.Errorf("the list does not say %s of %s:\n%s", verdict, name, list)
		}
	}
}

// TestExpiredRuleIsAddedAgain: what has expired is said to be there still, and holds anew when it is removed and added.
func TestExpiredRuleIsAddedAgain(t *testing.T) {
	t.Parallel()
	d := harness.W.StartDaemon(t)
	again, _ := name(t, "again.expires.test")
	probeBox(t, d, "again", harness.Base)
	add := []string{"again", "policy", "add", "--domain", again, "--port", "7000", "--protocol", "tcp", "--expires"}
	const lasts = 3 * time.Second
	d.Do(t, append(add, lasts.String())...)
	until(t, "the rule expires", func() bool { return !reaches(t, d, "again", again) })
	if status, out, said := d.Call(t, append(add, lasts.String())...); status != 0 || out != "" || !strings.Contains(said, "nothing changed, and its time runs from when it was first added") {
		t.Errorf("%d: %q, %q", status, out, said)
	}
	if reaches(t, d, "again", again) {
		t.Error("what had expired holds, and was said not to")
	}
	d.Do(t, append(add, "1h")...) // another rule
	if !reaches(t, d, "again", again) {
		t.Errorf("beside the expired rule a longer one does not hold:\n%s", d.Do(t, "again", "policy", "list"))
	}
	d.Do(t, "again", "policy", "remove", "--domain", again)
	if reaches(t, d, "again", again) {
		t.Error("what was removed holds")
	}
	added := time.Now()
	d.Do(t, append(add, lasts.String())...)
	if !reaches(t, d, "again", again) && time.Since(added) < lasts {
		t.Errorf("a rule that was removed and added again does not hold:\n%s", d.Do(t, "again", "policy", "list"))
	}
}

// TestChangeThatNeedsARestart: what can't be live says so and changes nothing, unless a restart is asked for.
func TestChangeThatNeedsARestart(t *testing.T) {
	t.Parallel()
	d := harness.W.StartDaemon(t)
	c, ctx := dial(t, d)
	before := create(t, d, "box", shell)
	status, _, said := d.Call(t, "box", "policy", "add", "--exec", "id")
	if status != 1 || !strings.Contains(said, "--restart") || !strings.Contains(said, "Nothing was changed") || !strings.Contains(said, "id") {
		t.Errorf("%d: %s", status, said)
	}
	_, err := c.ChangePolicy(ctx, "box", api.PolicyChange{Add: &api.PolicyRule{Path: "/srv", Permissions: []string{"read"}}})
	refused(t, err, api.NeedsRestart, "/srv")
	if now := get(t, c, "box"); now.PID != before.PID || now.Policy != before.Policy {
		t.Errorf("%+v, was %+v", now, before)
	}
	if status, _, _ := d.Call(t, "box", "exec", "--", "id"); status != 126 {
		t.Errorf("id, which is not allowed: exit %d", status)
	}
	d.Do(t, "box", "policy", "add", "--exec", "id", "--restart")
	if out := d.Do(t, "box", "exec", "--", "id", "-u"); out != "1000\n" {
		t.Errorf("%q", out)
	}
	now := get(t, c, "box")
	if now.PID == before.PID || now.Policy.Revision != 2 || now.Policy.Running != 2 {
		t.Errorf("%+v, was %+v", now, before)
	}
	// One that can't be put into force is taken back, and the sandbox runs under the one of before.
	status, _, said = d.Call(t, "box", "policy", "add", "--deny", "--path", "/workspace/nothing", "--permissions", "read,write", "--restart")
	if status != 1 || !strings.Contains(said, "revision 3 can't be put into force, and revision 2 stays") || !strings.Contains(said, "/workspace/nothing does not exist") {
		t.Errorf("%d: %s", status, said)
	}
	if s := get(t, c, "box"); s.State != api.Running || s.Policy.Revision != 4 || s.Policy.Running != 4 || s.Policy.Hash != now.Policy.Hash {
		t.Errorf("%+v, want the policy of %+v", s, now)
	}
	if out := d.Do(t, "box", "exec", "--", "id", "-u"); out != "1000\n" {
		t.Errorf("%q", out)
	}
}

// TestChangesAtOnce: of several who change the revision that they saw, one does; the others learn that it is another now.
func TestChangesAtOnce(t *testing.T) {
	t.Parallel()
	d := harness.W.StartDaemon(t)
	c, ctx := dial(t, d)
	create(t, d, "box", shell)
	const people, rounds = 8, 5
	for round := range rounds {
		var won atomic.Int32
		var wg sync.WaitGroup
		for i := range people {
			wg.Go(func() {
				_, err := c.ChangePolicy(ctx, "box", api.PolicyChange{
					Add: &api.PolicyRule{Domain: fmt.Sprintf("p%d-%d.test", i, round), Ports: []uint16{443}}, Expect: round + 1,
				})
				if err == nil {
					won.Add(1)
					return
				}
				refused(t, err, api.Conflict, "revision", "somebody changed it meanwhile")
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Errorf("%d changed revision %d", won.Load(), round+1)
		}
	}
	// Without it all are made, one after the other.
	var wg sync.WaitGroup
	for i := range people {
		wg.Go(func() {
			if _, err := c.ChangePolicy(ctx, "box", api.PolicyChange{Add: &api.PolicyRule{Domain: fmt.Sprintf("all%d.test", i), Ports: []uint16{443}}}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	p, err := c.Policy(ctx, "box", 0)
	if err != nil || p.Revision != 1+rounds+people || p.Running != p.Revision {
		t.Fatalf("%+v, %v", p.PolicyState, err)
	}
	for i := range people {
		if !strings.Contains(p.Text, fmt.Sprintf("all%d.test", i)) {
			t.Errorf("all%d.test is not in\n%s", i, p.Text)
		}
	}
	list, err := c.Revisions(ctx, "box")
	if err != nil || !slices.IsSortedFunc(list, func(a, b api.PolicyText) int { return b.Revision - a.Revision }) || len(list) != p.Revision {
		t.Errorf("%d revisions, %v", len(list), err)
	}
}

// TestRequestsStayUntilAnswered: a change of the policy takes away the requests that it answers, and no other.
func TestRequestsStayUntilAnswered(t *testing.T) {
	t.Parallel()
	d := harness.W.StartDaemon(t)
	c, ctx := dial(t, d)
	one, _ := name(t, "one.requests.test")
	two, _ := name(t, "two.requests.test")
	three, _ := name(t, "three.requests.test")
	probeBox(t, d, "box", "hold: 1s\n"+harness.Base+"network:\n  ask:\n    - "+rule(three)+"\n")
	for _, name := range []string{one, two, three} {
		if reaches(t, d, "box", name) {
			t.Errorf("%s is allowed", name)
		}
	}
	pending := func(after string, want ...string) {
		t.Helper()
		list, err := c.Requests(ctx, "box")
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{one, two, three} {
			there := slices.ContainsFunc(list, func(p api.Request) bool {
				return p.Plane == string(policy.PlaneNetwork) && strings.HasPrefix(p.Object, name+":")
			})
			if there != slices.Contains(want, name) {
				t.Errorf("%s: the request of %s is there: %t\n%+v", after, name, there, list)
			}
		}
	}
	until(t, "the refusals are requests", func() bool { return get(t, c, "box").Requests >= 3 })
	pending("at first", one, two, three)
	d.Do(t, "box", "policy", "add", "--domain", "other.requests.test", "--port", "7000", "--protocol", "tcp")
	pending("after a rule about something else", one, two, three)
	d.Do(t, "box", "policy", "add", "--domain", one, "--port", "7000", "--protocol", "tcp")
	pending("after one was allowed", two, three)
	d.Do(t, "box", "policy", "add", "--domain", two, "--deny")
	pending("after two was denied", three)
}
