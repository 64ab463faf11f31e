package tui

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gdamore/tcell/v2"

	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

func TestApproveAndReject(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	for i, object := range []string{"one.example:443", "two.example:443", "three.example:443"} {
		r := held(fmt.Sprint("r", i), object)
		r.First = r.First.Add(time.Duration(i) * time.Second)
		d.request(r)
	}
	s := open(t, d, 80, 24, Options{Colours: true})
	s.see("three.example:443")
	s.press('a')
	if got := d.given(t, 1)[0]; got.ID != "r0" || got.Verdict != "allow" || got.Scope != api.ScopeOnce || got.By != "console" || got.Confirm {
		t.Fatalf("%+v", got)
	}
	s.lose("one.example:443 ")
	s.press('j')
	s.press('x')
	if got := d.given(t, 2)[1]; got.ID != "r2" || got.Verdict != "deny" {
		t.Fatalf("%+v", got)
	}
	s.see("rejected")
	s.press('r')
	if got := d.given(t, 3)[2]; got.ID != "r1" || got.Verdict != "deny" {
		t.Fatalf("%+v", got)
	}
	s.see("nothing waits for an answer")
}

// TestTooSoon presses keys before what they would answer could be read.
func TestTooSoon(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	d.request(held("r", "one.example:443"))
	s := open(t, d, 80, 24, Options{})
	s.see("one.example:443")
	s.slow(time.Hour)
	s.press('a')
	s.see("the list moved just before the key")
	s.press(tcell.KeyEnter)
	s.see("Request r")
	s.press('r')
	s.see("nothing was answered")
	d.given(t, 0)
	s.slow(0)
	s.press('r')
	if got := d.given(t, 1)[0]; got.Verdict != "deny" {
		t.Fatalf("%+v", got)
	}
}

// TestSelectionFollowsTheRequest moves the list under the cursor.
func TestSelectionFollowsTheRequest(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	first := held("mine", "mine.example:443")
	d.request(first)
	s := open(t, d, 80, 24, Options{})
	s.see(">held")
	for i := range 3 { // they wait longer, and stand before it
		other := held(fmt.Sprint("other", i), fmt.Sprintf("other%d.example:443", i))
		other.First = first.First.Add(-time.Minute)
		d.request(other)
	}
	s.see("other2.example:443")
	s.press('a')
	if got := d.given(t, 1)[0]; got.ID != "mine" {
		t.Fatalf("answered %+v", got)
	}
}

func TestDangerousIsAskedTwice(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	r := held("bad", "10.0.0.1:22")
	r.Dangerous, r.Risks = true, []api.Risk{{Code: "raw-ip", Text: "it is an address, not a name", Dangerous: true}}
	d.request(r)
	s := open(t, d, 80, 24, Options{Colours: true})
	s.see("!!")
	s.press('a')
	s.see("Allow it all the same?")
	s.see("it is an address, not a name")
	s.slow(time.Hour)
	s.press('y')
	s.see("too soon")
	s.slow(0)
	s.press('a', 'a', tcell.KeyEnter)
	d.given(t, 0)
	s.press('n')
	s.lose("all the same?")
	s.press('a')
	s.see("Allow it all the same?")
	s.press('y')
	if got := d.given(t, 1)[0]; got.ID != "bad" || !got.Confirm {
		t.Fatalf("%+v", got)
	}
	s.see("nothing waits")
}

func TestDangerousIsRejectedAtOnce(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	r := held("bad", "10.0.0.1:22")
	r.Dangerous = true
	d.request(r)
	s := open(t, d, 80, 24, Options{})
	s.see("!!")
	s.press('r')
	if got := d.given(t, 1)[0]; got.Verdict != "deny" || got.Confirm {
		t.Fatalf("%+v", got)
	}
}

// TestPaste pastes text with answering keys in it, told as such by the terminal and not.
func TestPaste(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	d.request(held("r", "one.example:443"))
	s := open(t, d, 80, 24, Options{})
	s.see("one.example")
	if err := s.screen.PostEvent(tcell.NewEventPaste(true)); err != nil {
		t.Fatal(err)
	}
	for _, r := range "aarxA\r" {
		s.screen.InjectKey(tcell.KeyRune, r, tcell.ModNone)
		time.Sleep(2 * burst)
	}
	if err := s.screen.PostEvent(tcell.NewEventPaste(false)); err != nil {
		t.Fatal(err)
	}
	d.given(t, 0)
	s.c.app.QueueUpdate(func() { s.c.burst = time.Hour }) // however slow the machine is
	s.press("ja")
	s.see("several keys came at once")
	d.given(t, 0)
}

func TestWatching(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	d.info.Role = "watch"
	d.request(held("r", "one.example:443"))
	s := open(t, d, 80, 24, Options{Shell: func(string) error { t.Error("a shell"); return nil }})
	s.see("watching only")
	s.see("one.example:443")
	for _, k := range "arxARs" {
		s.press(k)
		s.see("you may watch")
	}
	d.given(t, 0)
	s.press('p')
	s.see("default: deny")
	s.press('e')
	s.see("not change policies")
}

func TestScopes(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	d.request(held("r", "one.example:443"))
	s := open(t, d, 80, 24, Options{Colours: true})
	s.see("one.example:443")
	s.press('A')
	s.see("Approve with scope")
	s.press('G')
	s.see("A change of the policy")
	s.see("+  allow: [{domain: one.example") // by the daemon's word
	s.press(tcell.KeyEnter)
	if got := d.given(t, 1)[0]; got.Scope != api.ScopeAlways || got.Offer != "this" || got.DryRun {
		t.Fatalf("%+v", got)
	}
	s.see("in revision 4 of the policy")

	d.request(held("r2", "two.example:443"))
	s.see("two.example:443")
	s.press('R')
	s.see("Reject with scope")
	s.press('d', "45m", tcell.KeyEnter)
	s.see("for 45m")
	s.see("A grant: deny connect two.example:443")
	s.press(tcell.KeyEnter)
	if got := d.given(t, 2)[1]; got.Scope != api.ScopeFor || got.For != "45m" || got.Verdict != "deny" {
		t.Fatalf("%+v", got)
	}
}

func TestDetailAnswersItsRequest(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	r := held("r0", "xn--pple-43d.example:443")
	r.RawArgs, r.Args = []byte("curl \xff"), "curl \ufffd"
	r.Ancestors = []api.Ancestor{{PID: 12, Args: "bash -c curl"}, {PID: 11, Args: "node agent.js"}}
	d.request(r)
	s := open(t, d, 80, 40, Options{})
	s.see(">held")
	s.press(tcell.KeyEnter)
	s.see("looks like apple.example")
	s.see("11 node agent.js")
	s.see("  12 bash -c curl")
	s.see(`"curl \xff"`)
	s.see("box.yaml:7")
	s.see("to allow it always")
	earlier := held("r1", "earlier.example:443")
	earlier.First = r.First.Add(-time.Hour)
	d.request(earlier)
	s.press('a')
	if got := d.given(t, 1)[0]; got.ID != "r0" {
		t.Fatalf("%+v", got)
	}
	s.see("it is over")
	s.press('a')
	s.see("needs no answer any more")
	s.press('q')
	s.see(">held")
	s.see("earlier.example") // it waits still
	d.given(t, 1)
}

func TestGrants(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	d.grants = []api.Grant{{ID: "g1", Sandbox: "alpha", Verdict: "allow", Plane: "network", Action: "connect", Object: "one.example:443", Scope: api.ScopeSession, Who: "root"}}
	s := open(t, d, 80, 24, Options{})
	s.see("alpha")
	s.press(tcell.KeyBacktab, 'g')
	s.see("one.example:443")
	s.press('d')
	s.see("Revoke this grant?")
	s.press('y')
	s.see("1 connections were closed")
	s.see("no answer holds longer than once")
}

func TestPolicyEdit(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	s := open(t, d, 80, 24, Options{})
	s.see("alpha")
	s.press(tcell.KeyBacktab, 'p')
	s.see("   2    default: deny")
	s.press('e')
	s.see("Editing the policy")
	s.press("BROKEN", tcell.KeyCtrlS)
	s.see("BROKEN is no key")
	for range len("BROKEN") {
		s.press(tcell.KeyBackspace2)
	}
	s.press("# x", tcell.KeyEnter)
	d.mu.Lock()
	d.policy.Revision, d.policy.Who = 9, "mallory" // somebody is faster
	d.mu.Unlock()
	s.press(tcell.KeyCtrlS)
	s.see("mallory changed the policy meanwhile")
	s.press(tcell.KeyCtrlS)
	s.see("Apply this change?")
	s.see("+# x")
	s.press('y')
	s.see("revision 10")
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.changed) != 1 || d.changed[0].Expect != 9 || !strings.HasPrefix(d.changed[0].Text, "# x\n") {
		t.Fatalf("%+v", d.changed)
	}
}

func TestDecisionsFilterAndLog(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	for i := range 50 {
		d.record(policy.Decision{Sandbox: "alpha", Plane: policy.PlaneNetwork, Action: "connect", Object: fmt.Sprintf("host%02d.example:443", i), Verdict: policy.Deny, Rule: "default", Subject: policy.Subject{Exe: "/usr/bin/curl"}})
	}
	s := open(t, d, 80, 24, Options{Colours: true})
	s.see("host49.example") // the latest is seen
	s.press(tcell.KeyTab, '/', "HOST07 verdict:deny", tcell.KeyEnter)
	s.see("Decisions 1 ")
	s.see("host07.example")
	s.press('e')
	s.see("the rule asks")
	s.press('q', '/', tcell.KeyCtrlU, "plane:nowhere", tcell.KeyEnter)
	s.see("no plane")
	s.press('/', tcell.KeyCtrlU, tcell.KeyEnter)
	s.see("Decisions 50")
	s.press('l', tcell.KeyCtrlU, "host1", tcell.KeyEnter)
	s.see("10 found")
	s.press(tcell.KeyEnter)
	s.see("Decision 20")
	s.press(tcell.KeyEscape, tcell.KeyEscape)
	s.see("Requests")
}

func TestReconnect(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	d.request(held("r", "one.example:443"))
	s := open(t, d, 80, 24, Options{})
	s.see("one.example:443")
	d.stop()
	s.see("DOES NOT ANSWER")
	s.press('a')
	s.see("not answered")
	d.start(t)
	s.see("answers again")
	s.lose("DOES NOT ANSWER")
	d.request(held("r2", "two.example:443"))
	s.see("two.example:443")
}

func TestShellAndQuit(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	in := make(chan string, 1)
	s := open(t, d, 80, 24, Options{Shell: func(name string) error { in <- name; return fmt.Errorf("no shell\x1b[2J") }})
	s.see("beta")
	s.press(tcell.KeyBacktab, 'j', 's')
	s.see(`no shell\x1b[2J`)
	if name := <-in; name != "beta" {
		t.Fatalf("a shell in %q", name)
	}
	s.press('?')
	s.see("approve what waits")
	s.press('q')
	s.lose("approve what waits")
	s.press('q')
	s.wait()
	if s.err != nil {
		t.Fatal(s.err)
	}
}

func TestMouse(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	d.request(held("r1", "one.example:443"))
	second := held("r2", "two.example:443")
	second.First = second.First.Add(time.Second)
	d.request(second)
	s := open(t, d, 80, 24, Options{})
	s.see("two.example")
	lines := strings.Split(s.text(), "\n")
	for y, l := range lines {
		if strings.Contains(l, "two.example") {
			s.screen.InjectMouse(20, y, tcell.Button1, tcell.ModNone)
			s.screen.InjectMouse(20, y, tcell.ButtonNone, tcell.ModNone)
		}
	}
	s.press('a')
	if got := d.given(t, 1)[0]; got.ID != "r2" {
		t.Fatalf("%+v", got)
	}
}

// TestGPUColumns shows what a sandbox takes of its GPUs, and "-" where nobody knows.
func TestGPUColumns(t *testing.T) {
	t.Parallel()
	s := open(t, newDaemon(t), 150, 30, Options{})
	s.see("GPU MEM")
	s.see(" 41%")
	s.see("7.0 GiB")
	if busy, memory := gpuBusy(nil), gpuMemory(&api.GPUUse{}); busy != "-" || memory != "-" {
		t.Errorf("of nothing: %q, %q", busy, memory)
	}
}
