//go:build e2e

package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/test/harness"
)

// site makes a name of the world with an HTTPS server behind it.
func site(t *testing.T, name string, h http.Handler) *harness.Server {
	t.Helper()
	a4, a6 := harness.W.Addr()
	harness.W.DNS.Set(name, a4, a6)
	s := harness.W.HTTPS(t, a4, 443, h)
	harness.W.HTTPS(t, a6, 443, h)
	return s
}

func page(text string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, text) })
}

// learnBox makes and starts a sandbox whose programs trust the world's CA.
func learnBox(t *testing.T, d *harness.Daemon, policy string) {
	t.Helper()
	dir := filepath.Join(d.Dir, "of-box")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	c, ctx := dial(t, d)
	if _, err := c.Create(ctx, api.Create{Name: "box", Policy: policy, Workspace: harness.W.NewWorkspace(t, dir), Env: harness.TrustCA(), Start: true}); err != nil {
		t.Fatalf("%v\n%s", err, d.Log())
	}
}

const worker = harness.Files + `process:
  allow:
    - {command: sh}
    - {command: curl}
    - {command: python3}
    - {command: git}
    - {command: jq}
`

// policyNow is the policy that a sandbox has.
func policyNow(t *testing.T, c *api.Client) api.PolicyText {
	t.Helper()
	p, err := c.Policy(t.Context(), "box", 0)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestLearnRefused: what the default refused is proposed when it is asked for, one change at a time, and what was of no use goes.
func TestLearnRefused(t *testing.T) {
	t.Parallel()
	d := harness.W.StartDaemon(t)
	c, _ := dial(t, d)
	for _, n := range []string{"one", "two", "three"} {
		site(t, n+".refused-learn.test", page("this is "+n))
	}
	learnBox(t, d, worker+"network:\n  allow:\n    - {domain: unused.refused-learn.test, ports: [443], protocol: https}\n")
	reach := func(n string) (int, string) {
		status, out, _ := d.Call(t, "box", "exec", "--", "curl", "-sS", "https://"+n+".refused-learn.test/")
		return status, out
	}
	for _, n := range []string{"one", "two", "three"} {
		if status, out := reach(n); status == 0 {
			t.Fatalf("%s is reached: %s", n, out)
		}
	}
	// What was refused was approved by nobody.
	status, out, said := d.Call(t, "box", "policy", "learn")
	if status != 0 || out != "" || !strings.Contains(said, "nothing to propose") {
		t.Errorf("%d: %s%s", status, out, said)
	}
	var shown struct {
		Revision  int
		Proposals []struct {
			Add, Remove *api.PolicyRule
			Refused     bool
			Evidence    []string
			Diff        string
		}
	}
	if err := json.Unmarshal([]byte(d.Do(t, "box", "policy", "learn", "--include", "refused", "-o", "json")), &shown); err != nil {
		t.Fatal(err)
	}
	if len(shown.Proposals) != 3 || !shown.Proposals[0].Refused || !strings.Contains(strings.Join(shown.Proposals[0].Evidence, " "), "REFUSED once: connect to one.refused-learn.test:443 by curl") ||
		!strings.Contains(shown.Proposals[0].Diff, "\n+    - {domain: one.refused-learn.test, ports: [443], protocol: https, commands: [curl]}") {
		t.Errorf("%+v", shown)
	}
	// Without a terminal nothing is changed unless it is said.
	status, out, said = d.Call(t, "box", "policy", "learn", "--include", "refused")
	if status != 1 || strings.Count(out, "\n+") != 4 || !strings.Contains(said, "--yes") || policyNow(t, c).Revision != 1 {
		t.Errorf("%d: %s%s", status, out, said)
	}
	if out := d.Do(t, "box", "policy", "learn", "--include", "refused", "--dry-run"); strings.Count(out, "\n+") != 4 || policyNow(t, c).Revision != 1 {
		t.Error(out)
	}

	// On a terminal each is asked about.
	screen := harness.NewScreen(t, harness.W.BinFirst(d.Env()))
	screen.Clear(t)
	screen.Line(t, "nemoclaw box policy learn --include refused --prune")
	for _, answer := range []string{"?", "y", "n", "q"} {
		screen.Wait(t, "Make this change [y,n,a,q,?]:")
		screen.Line(t, answer)
	}
	screen.WaitFor(t, "revision 2 of box is in force")
	p := policyNow(t, c)
	if !strings.Contains(p.Text, "one.refused-learn.test") || strings.Contains(p.Text, "two.refused-learn.test") || strings.Contains(p.Text, "three.refused-learn.test") || !strings.Contains(p.Text, "unused.") {
		t.Errorf("%s\n%s", p.Text, screen.Text(t))
	}
	if status, out := reach("one"); status != 0 || out != "this is one" {
		t.Errorf("%d: %s", status, out)
	}
	if status, _ := reach("two"); status == 0 {
		t.Error("what was not accepted is allowed")
	}

	// An end of the terminal changes nothing.
	screen.Clear(t)
	screen.Line(t, "nemoclaw box policy learn --include refused")
	screen.Wait(t, "Make this change [y,n,a,q,?]:")
	screen.Line(t, "y")
	screen.Wait(t, "Make this change [y,n,a,q,?]:")
	screen.Key(t, "C-d")
	screen.WaitFor(t, "nothing was changed")

	// Somebody else's change in between is not undone.
	screen.Clear(t)
	screen.Line(t, "nemoclaw box policy learn --include refused")
	screen.Wait(t, "Make this change [y,n,a,q,?]:")
	d.Do(t, "box", "policy", "add", "--domain", "else.refused-learn.test", "--port", "443")
	screen.Line(t, "a")
	screen.WaitFor(t, "somebody changed it meanwhile")
	if p := policyNow(t, c); p.Revision != 3 || strings.Contains(p.Text, "two.") {
		t.Errorf("revision %d\n%s", p.Revision, p.Text)
	}

	// Programs need a restart at level static, which is said.
	status, out, said = d.Call(t, "box", "policy", "learn", "--prune", "--yes")
	if get(t, c, "box").Level == "static" {
		if status != 1 || !strings.Contains(said, "--restart") || policyNow(t, c).Revision != 3 {
			t.Errorf("%d: %s%s", status, out, said)
		}
	}
	d.Do(t, "box", "policy", "learn", "--prune", "--yes", "--restart")
	if p := policyNow(t, c); strings.Contains(p.Text, "unused.") || strings.Contains(p.Text, "jq") || strings.Contains(p.Text, "python3") || !strings.Contains(p.Text, "curl") || !strings.Contains(p.Text, "one.") {
		t.Error(p.Text)
	}
	if status, out := reach("one"); status != 0 || out != "this is one" {
		t.Errorf("%d: %s", status, out)
	}
	// The records of the last session count while it is stopped, and those of a sandbox that was destroyed never do.
	if status, _ := reach("two"); status == 0 {
		t.Error("what was not accepted is allowed")
	}
	d.Do(t, "box", "stop")
	if out := d.Do(t, "box", "policy", "learn", "--include", "refused", "-o", "json"); !strings.Contains(out, `"domain": "two.refused-learn.test"`) || strings.Contains(out, "three.") {
		t.Error(out)
	}
	d.Do(t, "destroy", "--yes", "box")
	create(t, d, "box", worker)
	if out := d.Do(t, "box", "policy", "learn", "--include", "refused", "--since", "24h", "-o", "json"); strings.Contains(out, "two.") {
		t.Error(out)
	}
	d.Verify(t)
}

// answering has a person answer every request as answers says of its host, until the test ends.
func answering(t *testing.T, d *harness.Daemon, answers map[string]api.NewAnswer) {
	t.Helper()
	c := api.Dial(d.Socket)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- c.FollowRequests(ctx, "", func(change api.RequestChange) error {
			r := change.Request
			if r == nil || r.State != api.Held {
				return nil
			}
			host, _, _ := strings.Cut(r.Object, ":")
			a, known := answers[host]
			if !known {
				return fmt.Errorf("nobody expected to be asked about %s", r.Object)
			}
			if _, err := c.Answer(ctx, r.ID, a); err != nil && !is(err, api.Conflict) { // it is answered already
				return err
			}
			return nil
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		c.Close()
	})
}

func is(err error, code api.Code) bool {
	var e *api.Error
	return errors.As(err, &e) && e.Code == code
}

// TestLearnApproved: real programs work while a person answers; the policy that is learnt lets the same work run when nothing
// is asked any more.
func TestLearnApproved(t *testing.T) {
	t.Parallel()
	d := harness.W.StartDaemon(t)
	c, _ := dial(t, d)
	const once, session, while, asks, no, no2 = "once.approved.test", "session.approved.test", "while.approved.test", "asks.approved.test", "no.approved.test", "no2.approved.test"
	site(t, once, page("this is once"))
	site(t, session, harness.GitServer(t))
	site(t, while, page("this is while"))
	site(t, asks, page("this is asks"))
	site(t, no, page("this is no"))
	site(t, no2, page("this is no2"))
	const network = "network:\n  default: %s\n  ask:\n    - {domain: " + asks + ", ports: [443], protocol: https}\n"
	learnBox(t, d, worker+fmt.Sprintf(network, "ask")+"hold: 20s\n")
	answering(t, d, map[string]api.NewAnswer{
		once:    {Verdict: "allow", Confirm: true, By: "a test"},
		session: {Verdict: "allow", Scope: api.ScopeSession, Confirm: true},
		while:   {Verdict: "allow", Scope: api.ScopeFor, For: "1h", Confirm: true},
		asks:    {Verdict: "allow", Confirm: true},
		no:      {Verdict: "deny"},
		no2:     {Verdict: "deny", Scope: api.ScopeSession},
	})
	curl := func(host string) []string { return []string{"curl", "-sS", "https://" + host + "/"} }
	work := map[string][]string{
		"this is once":    curl(once),
		"this is asks":    curl(asks),
		"this is while":   {"python3", "-c", "import urllib.request as r; print(r.urlopen('https://" + while + "/').read().decode())"},
		"refs/heads/main": {"git", "ls-remote", "https://" + session + "/repo.git"},
	}
	run := func(argv []string) (int, string) {
		status, out, said := d.Call(t, append([]string{"box", "exec", "--"}, argv...)...)
		return status, out + said
	}
	works := func(when string) {
		t.Helper()
		for want, argv := range work {
			if status, out := run(argv); status != 0 || !strings.Contains(out, want) {
				t.Errorf("%s: %q: exit %d: %s\n%s", when, argv, status, out, logOf(t, c, "box"))
			}
		}
		for _, host := range []string{no, no2} {
			if status, out := run(curl(host)); status == 0 {
				t.Errorf("%s: %s is reached: %s", when, host, out)
			}
		}
	}
	works("a person answers")

	// A change in between moves the lines: what was asked about is found in the revision of its time.
	p := policyNow(t, c)
	if _, err := c.ChangePolicy(t.Context(), "box", api.PolicyChange{Text: "# a comment, and another line\n\n" + p.Text}); err != nil {
		t.Fatal(err)
	}
	out := d.Do(t, "box", "policy", "learn", "--dry-run")
	if strings.Contains(out, no) || strings.Contains(out, no2) {
		t.Errorf("what was denied is proposed:\n%s", out)
	}
	var shown struct {
		Proposals []struct{ Evidence []string }
	}
	if err := json.Unmarshal([]byte(d.Do(t, "box", "policy", "learn", "-o", "json")), &shown); err != nil {
		t.Fatal(err)
	}
	all := fmt.Sprint(shown)
	for _, want := range []string{"1 connection to " + once + ":443 by curl", "root (uid 0", "by a test allowed it (once)", "allowed it (session)", "allowed it (for 1h)"} {
		if !strings.Contains(all, want) {
			t.Errorf("the evidence does not hold %q: %s", want, all)
		}
	}
	d.Do(t, "box", "policy", "learn", "--yes")
	list := d.Do(t, "box", "policy", "list")
	for _, want := range []string{
		"{domain: " + once + ", ports: [443], protocol: https, commands: [curl]}",
		"{domain: " + while + ", ports: [443], protocol: https, commands: [python3]}",
		"{domain: " + asks + ", ports: [443], protocol: https, commands: [curl]}",
		"{domain: " + session + ", ports: [443], protocol: https, commands: [",
	} {
		if !strings.Contains(list, want) {
			t.Errorf("%s is not learnt:\n%s", want, list)
		}
	}
	p = policyNow(t, c)
	if _, err := c.ChangePolicy(t.Context(), "box", api.PolicyChange{Text: strings.Replace(p.Text, "default: ask", "default: deny", 1), Restart: true}); err != nil {
		t.Fatal(err)
	}
	// The session is over, and with it what was answered for it.
	d.Do(t, "box", "stop")
	d.Do(t, "box", "start")
	works("nothing is asked")
	if status, out, said := d.Call(t, "box", "policy", "learn"); status != 0 || !strings.Contains(said, "nothing to propose") {
		t.Errorf("%d: %s%s", status, out, said)
	}
	d.Verify(t)
}
