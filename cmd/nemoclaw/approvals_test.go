package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/api"
)

// odd is what a program inside may call a file.
const odd = "/tmp/\x1b]0;x\a[red]\u202e\n\xff"

func oddRequest(now time.Time) api.Request {
	until := now.Add(52 * time.Second)
	return api.Request{
		ID: "7f3a91c2", Sandbox: "box", State: api.Held, Plane: "file", Action: "read", Object: strings.ToValidUTF8(odd, "\ufffd"), RawObject: []byte(odd),
		Program: "/usr/bin/\x1b[2Jcat", Args: "cat \x1b[2J", PID: 4711, Taint: "LD_PRELOAD=\x1b[2J", Rule: "box.yaml:7", First: now.Add(-time.Minute), Last: now, Until: &until,
		Count: 3, Held: 2, Dangerous: true, Ancestors: []api.Ancestor{{PID: 4700, Args: "sh -c \x1b[2J"}}, Risks: []api.Risk{{Code: "credentials", Text: "keys \x1b[2J", Dangerous: true}, {Code: "raw-ip", Text: "no name"}},
		Offers: []api.Offer{{ID: "this", Text: "this file", Scopes: []api.Scope{api.ScopeOnce, api.ScopeAlways}, YAML: "filesystem:\n  allow:\n    - path: \"\\x1b\x1b[2J\"\n"}},
	}
}

// TestShowRequest: all of it is there, and nothing of it reaches the terminal as it is.
func TestShowRequest(t *testing.T) {
	now := time.Now()
	r := oddRequest(now)
	var out bytes.Buffer
	showRequest(&out, r, now)
	for _, want := range []string{
		"7f3a91c2: held, 52 s left\n", "  sandbox    box\n", `  attempted  file read /tmp/\x1b]0;x\x07[red]\u202e\n\xff`, `  by         /usr/bin/\x1b[2Jcat [4711]`, `  command    cat \x1b[2J`,
		`  taint      LD_PRELOAD=\x1b[2J`, `  started by sh -c \x1b[2J [4700]`, "  rule       box.yaml:7\n", "  times      3, first 1 min ago, last 0 s ago; 2 wait now\n",
		`  !! risk    keys \x1b[2J (credentials)`, "  risk       no name (raw-ip)\n", "  offer      this: this file (once, always)\n", "                   - path: ",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
	for _, bad := range []string{"\x1b", "\a", "\u202e", "\xff"} {
		if strings.Contains(out.String(), bad) {
			t.Errorf("%q reached the terminal:\n%q", bad, out.String())
		}
	}
	r.State, r.Answer = api.Rejected, &api.Answered{Verdict: "deny", Scope: api.ScopeOnce, Who: "root\x1b", When: now}
	out.Reset()
	showRequest(&out, r, now)
	if !strings.Contains(out.String(), `answer     deny, once, by root\x1b at `) || strings.Contains(out.String(), "offer") {
		t.Errorf("of an answered request it shows\n%s", out.String())
	}
}

func TestAttempt(t *testing.T) {
	r := oddRequest(time.Now())
	if got, want := string(attempt(r)), `!! file read /tmp/\x1b]0;x\x07[red]\u202e\n\xff by /usr/bin/\x1b[2Jcat`; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	r = api.Request{Plane: "exec", Action: "exec", Object: "/" + strings.Repeat("x", 500), Program: "/" + strings.Repeat("x", 500)}
	if got := string(attempt(r)); len(got) > 120 || !strings.HasSuffix(got, "...") || strings.Contains(got, " by ") {
		t.Errorf("%d bytes: %q", len(got), got)
	}
	for object, want := range map[string]string{
		"xn--pple-43d.com:443": "network connect xn--pple-43d.com (\u0430pple.com, looks like apple.com):443", "a.test:443": "network connect a.test:443",
		"[2001:db8::1]:443": "network connect [2001:db8::1]:443", "/run/\x1b.sock": `network connect /run/\x1b.sock`,
	} {
		if got := string(attempt(api.Request{Plane: "network", Action: "connect", Object: object})); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestFollowing: a line for a request that is new or has another state, none for one that is told again.
func TestFollowing(t *testing.T) {
	var out, errs bytes.Buffer
	f := following{out: &out, errs: &errs}
	tell := func(want string, changes ...api.RequestChange) {
		t.Helper()
		out.Reset()
		for _, c := range changes {
			if err := f.change(c); err != nil {
				t.Fatal(err)
			}
		}
		if got := out.String(); want == "" && got != "" || !strings.HasSuffix(got, want) || strings.Count(got, "\n") != strings.Count(want, "\n") {
			t.Errorf("it said %q, want %q", got, want)
		}
	}
	is := func(id string, s api.RequestState, count uint64) api.RequestChange {
		return api.RequestChange{Request: &api.Request{ID: id, Sandbox: "box", State: s, Plane: "network", Action: "connect", Object: "a.test:443", Count: count}}
	}
	reset, complete := api.RequestChange{Reset: true}, api.RequestChange{Complete: true}
	tell(" one box held: network connect a.test:443\n", reset, is("one", api.Held, 1), complete)
	tell("", is("one", api.Held, 500))
	tell(" one box refused: network connect a.test:443\n", is("one", api.Refused, 500))
	// The daemon was restarted: what is as it was is not said again, also when that happens in the middle.
	tell("", reset, is("one", api.Refused, 500), reset, is("one", api.Refused, 501), complete)
	approved := is("one", api.Approved, 501)
	approved.Request.Answer = &api.Answered{Who: "root\x1b"}
	tell(` one box approved (root\x1b): network connect a.test:443`+"\n", approved)
	if len(f.seen) != 0 {
		t.Errorf("it remembers %v", f.seen)
	}
	if tell("", api.RequestChange{Unlisted: map[string]uint64{"box": 1200}}); !strings.Contains(errs.String(), "nemoclaw: box: 1200 attempts were denied and are in no request") {
		t.Errorf("%q", errs.String())
	}
}

func TestAnswered(t *testing.T) {
	until := time.Date(2026, 5, 4, 12, 0, 0, 0, time.Local)
	r := api.Request{State: api.Approved, Plane: "network", Action: "connect", Object: "a.test:443"}
	for want, a := range map[string]api.AnswerResult{
		"approved once: network connect a.test:443": {Request: with(r, api.Answered{Scope: api.ScopeOnce})},
		"approved once, for the next attempt: network connect a.test:443; to take it back: nemoclaw box policy revoke 2c9d": { // nothing waited
			Request: with(r, api.Answered{Scope: api.ScopeOnce}), Grant: &api.Grant{ID: "2c9d", Sandbox: "box"}},
		"approved until 2026-05-04 12:00:00: network connect a.test:443; to take it back: nemoclaw box policy revoke 2c9d": {
			Request: with(r, api.Answered{Scope: api.ScopeFor, Until: &until}), Grant: &api.Grant{ID: "2c9d", Sandbox: "box"}},
		"approved until the sandbox stops: network connect a.test:443": {Request: with(r, api.Answered{Scope: api.ScopeSession})},
		"approved always: network connect a.test:443":                  {Request: with(r, api.Answered{Scope: api.ScopeAlways})},
	} {
		if got := string(answered(a)); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func with(r api.Request, a api.Answered) api.Request {
	r.Answer = &a
	return r
}

func TestShowGrants(t *testing.T) {
	until := time.Date(2026, 5, 4, 12, 0, 0, 0, time.Local)
	var out bytes.Buffer
	if err := showGrants(&out, []api.Grant{
		{ID: "2c9d", Verdict: "allow", Plane: "network", Action: "connect", Object: "a.test:443", Program: "/usr/bin/curl", Scope: api.ScopeFor, Until: &until, Who: "root"},
		{ID: "77e0", Verdict: "deny", Plane: "file", Action: "read", Object: odd, Taint: "LD_PRELOAD", Scope: api.ScopeSession, Who: "root"},
		{ID: "a0a0", Verdict: "allow", Plane: "exec", Action: "exec", Object: "/usr/bin/id", Program: "/usr/bin/id", Scope: api.ScopeOnce, Who: "root"},
	}); err != nil {
		t.Fatal(err)
	}
	golden(t, "grants", out.String())
}
