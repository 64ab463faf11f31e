package approvals

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"

	"github.com/nemoclaw/nemoclaw/agent/approvals/offer"
	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

// gate notes what is entered and withdrawn.
type gate struct {
	mu  sync.Mutex
	did []string
	err error
}

func (g *gate) note(what string, gr Grant) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.did = append(g.did, fmt.Sprintf("%s%s %s %s", what, gr.Decided, gr.Decision.Object, gr.Scope))
}

func (g *gate) Enter(gr Grant) error {
	if g.err != nil {
		return g.err
	}
	g.note("+", gr)
	return nil
}

func (g *gate) Withdraw(gr Grant) (int, error) {
	if !gr.Once() {
		g.note("-", gr)
	}
	return 2, nil
}

// world is a desk of a sandbox that runs.
type world struct {
	*Desk
	q    *Queue
	gate *gate

	mu      sync.Mutex
	records []policy.Decision
	rules   []string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := openWorld(t, New(), "")
	w.Begin(w.gate)
	return w
}

func openWorld(t *testing.T, q *Queue, file string) *world {
	t.Helper()
	w := &world{q: q, gate: &gate{}}
	var grants, journal string
	if file != "" {
		grants, journal = file+".grants", file+".journal"
	}
	var err error
	w.Desk, err = q.Open(Config{
		Sandbox: "box", File: file, Grants: grants, Journal: journal,
		Record: func(d policy.Decision) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.records = append(w.records, d)
		},
		Look: func(d policy.Decision) Described {
			all := []api.Scope{api.ScopeOnce, api.ScopeSession, api.ScopeFor, api.ScopeAlways}
			x := Described{Offers: []offer.Offer{
				{Offer: api.Offer{ID: offer.This, Text: "this", Scopes: all}, Allow: &policy.RuleSpec{Domain: d.Object}, Deny: &policy.RuleSpec{Verdict: "deny", Domain: d.Object}},
				{Offer: api.Offer{ID: offer.Subdomains, Text: "all", Scopes: []api.Scope{api.ScopeFor, api.ScopeAlways}}, Allow: &policy.RuleSpec{Domain: "*." + d.Object}},
			}}
			if strings.HasPrefix(d.Object, "danger") {
				x.Risks = []api.Risk{{Code: "lookalike", Text: "it looks like another", Dangerous: true}}
			}
			if strings.HasPrefix(d.Object, "never") {
				x.Offers = nil
			}
			return x
		},
		Rule: func(_ context.Context, who Answerer, d policy.Decision, r policy.RuleSpec, _ *policy.RuleSpec, a api.NewAnswer) (api.PolicyResult, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.rules = append(w.rules, strings.TrimSpace(fmt.Sprintf("%s %s %s dry=%t", r.Verdict, r.Domain, r.Expires, a.DryRun)))
			return api.PolicyResult{Live: true}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func wants(object string) policy.Decision {
	return policy.Decision{Plane: policy.PlaneNetwork, Action: "connect", Object: object, Rule: "default",
		Subject: policy.Subject{Exe: "/usr/bin/git", PID: 7}}
}

// only is the one request that there is.
func (w *world) only(t *testing.T) api.Request {
	t.Helper()
	list := w.q.List("")
	if len(list) != 1 {
		t.Fatalf("%d requests: %+v", len(list), list)
	}
	return list[0]
}

// TestWaited: what is recorded is how long who waits has waited, not how long ago the same was refused.
func TestWaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		w.Refused(wants("a"))
		time.Sleep(time.Hour)
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() { w.Ask(t.Context(), wants("a")) })
			time.Sleep(5 * time.Second)
		}
		if _, err := w.q.Answer(t.Context(), "me", w.only(t).ID, api.NewAnswer{Verdict: "allow"}); err != nil {
			t.Error(err)
		}
		wg.Wait()
		w.mu.Lock()
		defer w.mu.Unlock()
		if last := w.records[len(w.records)-1]; !strings.Contains(last.Reason, "after 10s: ") {
			t.Errorf("%q", last.Reason)
		}
	})
}

// TestCounts: how long each attempt waited, by how that ended, and how many wait now.
func TestCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		var wg sync.WaitGroup
		for _, object := range []string{"a", "a", "b", "c"} {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				w.Ask(ctx, wants(object))
			})
		}
		time.Sleep(3 * time.Second)
		if c := w.Counts(); c.Held != 4 || c.Open != 3 {
			t.Errorf("%+v", c)
		}
		for object, verdict := range map[string]string{"a": "allow", "b": "deny"} {
			for _, r := range w.list() {
				if r.Object != object {
					continue
				}
				if _, err := w.q.Answer(t.Context(), "me", r.ID, api.NewAnswer{Verdict: verdict}); err != nil {
					t.Error(err)
				}
			}
		}
		wg.Wait()
		c := w.Counts()
		for outcome, want := range map[Outcome]struct {
			n   uint64
			sum time.Duration
		}{Allowed: {2, 6 * time.Second}, Denied: {1, 3 * time.Second}, Unanswered: {1, 20 * time.Second}} {
			if got := c.Waited[outcome]; got.Count() != want.n || got.Sum != want.sum {
				t.Errorf("%s: %d in %v, want %d in %v", outcome, got.Count(), got.Sum, want.n, want.sum)
			}
		}
		if c.Held != 0 || c.Open != 1 {
			t.Errorf("%+v", c)
		}
	})
}

// TestAnswer: each kind of answer does what it says, once.
func TestAnswer(t *testing.T) {
	for name, c := range map[string]struct {
		a       api.NewAnswer
		refused bool // nothing waits
		want    policy.Verdict
		did     string
		rule    string
		err     string
	}{
		"once":            {a: api.NewAnswer{Verdict: "allow"}, want: policy.Allow},
		"the next":        {a: api.NewAnswer{Verdict: "allow"}, refused: true, did: "+allow a once"},
		"session":         {a: api.NewAnswer{Verdict: "allow", Scope: api.ScopeSession}, want: policy.Allow, did: "+allow a session"},
		"for":             {a: api.NewAnswer{Verdict: "allow", Scope: api.ScopeFor, For: "2h"}, want: policy.Allow, did: "+allow a for"},
		"always":          {a: api.NewAnswer{Verdict: "allow", Scope: api.ScopeAlways}, want: policy.Allow, rule: "a  dry=false"},
		"wider":           {a: api.NewAnswer{Verdict: "allow", Scope: api.ScopeFor, For: "2h", Offer: offer.Subdomains}, want: policy.Allow, rule: "*.a 2h dry=false"},
		"deny":            {a: api.NewAnswer{Verdict: "deny"}},
		"deny session":    {a: api.NewAnswer{Verdict: "deny", Scope: api.ScopeSession}, did: "+deny a session"},
		"deny always":     {a: api.NewAnswer{Verdict: "deny", Scope: api.ScopeAlways}, rule: "deny a  dry=false"},
		"dismiss":         {a: api.NewAnswer{Verdict: "deny"}, refused: true},
		"no verdict":      {a: api.NewAnswer{}, err: "want allow or deny"},
		"no such scope":   {a: api.NewAnswer{Verdict: "allow", Scope: "ever"}, err: "once, session, for or always"},
		"not of that":     {a: api.NewAnswer{Verdict: "allow", Offer: offer.Subdomains}, err: "can be answered with for or always"},
		"no such offer":   {a: api.NewAnswer{Verdict: "allow", Offer: "all"}, err: "has this or subdomains"},
		"no such rule":    {a: api.NewAnswer{Verdict: "deny", Scope: api.ScopeAlways, Offer: offer.Subdomains}, err: "no rule of a policy can say"},
		"no time":         {a: api.NewAnswer{Verdict: "allow", Scope: api.ScopeFor}, err: "want a duration"},
		"too long a time": {a: api.NewAnswer{Verdict: "allow", Scope: api.ScopeFor, For: "99999h"}, err: "want a duration"},
		"a stray time":    {a: api.NewAnswer{Verdict: "allow", For: "1h"}, err: "goes with the scope for"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				defer w.Close()
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				got := make(chan policy.Verdict, 1)
				if c.refused {
					w.Refused(wants("a"))
				} else {
					go func() { got <- w.Ask(ctx, wants("a")) }()
				}
				synctest.Wait()
				r := w.only(t)
				dry := c.a
				dry.DryRun = true
				_, _ = w.q.Answer(t.Context(), "me", r.ID, dry)
				if len(w.gate.did) > 0 || w.only(t).ID != r.ID {
					t.Errorf("a dry run did %v", w.gate.did)
				}
				w.rules = nil
				res, err := w.q.Answer(t.Context(), "me", r.ID[:4], c.a)
				if c.err != "" {
					if err == nil || !strings.Contains(err.Error(), c.err) {
						t.Errorf("%v, want %q", err, c.err)
					}
					if w.only(t).State != api.Held {
						t.Error("an answer that can't be has ended the request")
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				if !c.refused {
					if v := <-got; v != c.want {
						t.Errorf("it got %v", v)
					}
				}
				synctest.Wait()
				if s := strings.Join(w.gate.did, ","); s != c.did || strings.Join(w.rules, ",") != c.rule {
					t.Errorf("entered %q, rules %q", s, w.rules)
				}
				if len(w.records) != 1 || !strings.HasPrefix(w.records[0].Reason, "me ") || w.records[0].Action != "answer" || w.records[0].Object != "a" {
					t.Errorf("records %+v", w.records)
				}
				if res.Request.Answer == nil || res.Request.Answer.Who != "me" || len(w.q.List("")) != 0 {
					t.Errorf("%+v", res)
				}
				var e *api.Error
				if _, err := w.q.Answer(t.Context(), "you", r.ID, c.a); !errors.As(err, &e) || e.Code != api.Conflict || !strings.Contains(err.Error(), "me ") {
					t.Errorf("answered again: %v", err)
				}
			})
		})
	}
}

// TestDangerous: what is dangerous is allowed only when that is confirmed, and denied at once.
// TestNotWrittenDown: nothing goes on because of an answer that can't be written down first. A denial needs no such thing.
func TestNotWrittenDown(t *testing.T) {
	for _, scope := range []api.Scope{api.ScopeOnce, api.ScopeSession, api.ScopeAlways} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			defer w.Close()
			w.c.Permit = func(policy.Decision) error { return errors.New("make room") }
			ctx, cancel := context.WithCancel(t.Context())
			got := make(chan policy.Verdict, 1)
			go func() { got <- w.Ask(ctx, wants("a")) }()
			synctest.Wait()
			_, err := w.q.Answer(t.Context(), "me", w.only(t).ID, api.NewAnswer{Verdict: "allow", Scope: scope})
			if err == nil || !strings.Contains(err.Error(), "could not be written down, so nothing goes on because of it: make room") {
				t.Errorf("%s: %v", scope, err)
			}
			if len(w.gate.did) > 0 || len(w.rules) > 0 || w.only(t).State != api.Held {
				t.Errorf("%s: it did %v %v", scope, w.gate.did, w.rules)
			}
			if _, err := w.q.Answer(t.Context(), "me", w.only(t).ID, api.NewAnswer{Verdict: "deny"}); err != nil {
				t.Errorf("a denial: %v", err)
			}
			if v := <-got; v != policy.Deny {
				t.Errorf("%s: it went on with %s", scope, v)
			}
			cancel()
		})
	}
}

func TestDangerous(t *testing.T) {
	w := newWorld(t)
	defer w.Close()
	w.Refused(wants("danger"))
	r := w.only(t)
	if !r.Dangerous {
		t.Errorf("%+v", r)
	}
	var e *api.Error
	if _, err := w.q.Answer(t.Context(), "me", r.ID, api.NewAnswer{Verdict: "allow"}); !errors.As(err, &e) || e.Code != api.NeedsConfirm {
		t.Errorf("%v", err)
	}
	if _, err := w.q.Answer(t.Context(), "me", r.ID, api.NewAnswer{Verdict: "allow", Confirm: true}); err != nil {
		t.Error(err)
	}
}

// TestCoalesced: 500 identical attempts are one request with a count, and one answer is theirs.
func TestCoalesced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		var wg sync.WaitGroup
		for range 500 {
			wg.Go(func() {
				if w.Ask(t.Context(), wants("a")) != policy.Allow {
					t.Error("denied")
				}
			})
		}
		synctest.Wait()
		r := w.only(t)
		if r.Count != 500 || r.Held != 500 {
			t.Errorf("%+v", r)
		}
		if _, err := w.q.Answer(t.Context(), "me", r.ID, api.NewAnswer{Verdict: "allow"}); err != nil {
			t.Error(err)
		}
		wg.Wait()
	})
}

// TestManyAnswers answers 10,000 attempts at once: each goes on with its own answer, and no request is answered twice.
func TestManyAnswers(t *testing.T) {
	const each, sandboxes = 200, 50
	q := New()
	var waiting, answering sync.WaitGroup
	var mu sync.Mutex
	wrong, answered := 0, map[string]int{}
	for n := range sandboxes {
		k, err := q.Open(Config{Sandbox: fmt.Sprint("box-", n), Record: func(policy.Decision) {}, Look: func(policy.Decision) Described {
			return Described{Offers: []offer.Offer{{Offer: api.Offer{ID: offer.This, Scopes: []api.Scope{api.ScopeOnce}}}}}
		}})
		if err != nil {
			t.Fatal(err)
		}
		for i := range each {
			waiting.Go(func() {
				object := fmt.Sprintf("%d.test:443", i)
				if v := k.Ask(t.Context(), wants(object)); v != policy.Deny && i%2 == 1 || v != policy.Allow && i%2 == 0 {
					mu.Lock()
					wrong++
					mu.Unlock()
				}
			})
		}
	}
	for begin := time.Now(); len(q.List("")) < each*sandboxes; time.Sleep(time.Millisecond) {
		if time.Since(begin) > time.Minute {
			t.Fatalf("%d requests", len(q.List("")))
		}
	}
	for _, r := range q.List("") {
		for range 2 { // two consoles
			answering.Go(func() {
				a := api.NewAnswer{Verdict: "deny"}
				if n := r.Object[len(strings.TrimSuffix(r.Object, ".test:443"))-1]; n%2 == 0 {
					a.Verdict = "allow"
				}
				if _, err := q.Answer(t.Context(), "me", r.ID, a); err == nil {
					mu.Lock()
					answered[r.ID]++
					mu.Unlock()
				}
			})
		}
	}
	answering.Wait()
	waiting.Wait()
	if wrong > 0 || len(answered) != each*sandboxes {
		t.Errorf("%d got another's answer, %d answered", wrong, len(answered))
	}
	for id, n := range answered {
		if n != 1 {
			t.Errorf("%s was answered %d times", id, n)
		}
	}
}

// TestGrants: they end by themselves, by hand, with the sandbox; connections are closed, and each end is recorded.
func TestGrants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		give := func(object string, a api.NewAnswer) {
			t.Helper()
			w.Refused(wants(object))
			if _, err := w.q.Answer(t.Context(), "me", w.only(t).ID, a); err != nil {
				t.Fatal(err)
			}
		}
		give("a", api.NewAnswer{Verdict: "allow", Scope: api.ScopeFor, For: "1h"})
		give("b", api.NewAnswer{Verdict: "allow", Scope: api.ScopeSession})
		give("c", api.NewAnswer{Verdict: "allow", Scope: api.ScopeSession})
		other := wants("a")
		other.Subject.Exe = "/usr/bin/curl"
		again := w.Granted(wants("a"))
		if !w.Granted(wants("a")) || !again || w.Granted(other) {
			t.Error("a grant is for equal attempts, all of them")
		}
		w.mu.Lock()
		w.records = nil
		w.mu.Unlock()
		time.Sleep(time.Hour)
		synctest.Wait()
		if w.Granted(wants("a")) {
			t.Error("its time is over")
		}
		b := w.Grants()[slices.IndexFunc(w.Grants(), func(g api.Grant) bool { return g.Object == "b" })]
		if res, err := w.Revoke("me", b.ID); err != nil || res.Closed != 2 || w.Granted(wants("b")) {
			t.Errorf("%+v, %v", res, err)
		}
		if _, err := w.Revoke("me", b.ID); err == nil {
			t.Error("revoked twice")
		}
		if got := strings.Join(w.gate.did, ","); got != "+allow a for,+allow b session,+allow c session,-allow a for,-allow b session" {
			t.Error(got)
		}
		if len(w.records) != 2 || w.records[0].Action != "expired" || w.records[1].Action != "revoke" || !strings.Contains(w.records[0].Reason, "2 connections closed") {
			t.Errorf("%+v", w.records)
		}
		w.Stop()
		w.Begin(w.gate)
		if len(w.Grants()) != 0 || w.Granted(wants("c")) {
			t.Error("an answer for the sandbox's last life holds in the next")
		}
	})
}

// TestNotEntered: an answer that can't be put into force is no answer.
func TestNotEntered(t *testing.T) {
	w := newWorld(t)
	defer w.Close()
	w.gate.err = ErrNoGate
	w.Refused(wants("a"))
	if _, err := w.q.Answer(t.Context(), "me", w.only(t).ID, api.NewAnswer{Verdict: "allow", Scope: api.ScopeSession}); err == nil || !strings.Contains(err.Error(), "always") {
		t.Error(err)
	}
	if w.Granted(wants("a")) || w.only(t).State != api.Refused || len(w.records) != 2 || w.records[1].Verdict != policy.Deny {
		t.Errorf("%+v %+v", w.only(t), w.records)
	}
	w.Stop()
	if _, err := w.q.Answer(t.Context(), "me", w.only(t).ID, api.NewAnswer{Verdict: "allow"}); err == nil || !strings.Contains(err.Error(), "can be answered with always") {
		t.Error(err)
	}
}

// TestFlood: neither a million attempts nor a million different ones cost more than the bounds; all are counted.
func TestFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		for i := range 100_000 {
			w.Refused(wants(fmt.Sprintf("%d.test", i)))
			if i%1000 == 0 {
				time.Sleep(time.Second)
			}
		}
		list := w.q.List("box")
		sum := w.unlisted
		for _, r := range list {
			sum += r.Count
		}
		if len(list) != maxRequests || sum != 100_000 {
			t.Errorf("%d requests, %d attempts", len(list), sum)
		}
		w.Refused(wants("never"))
		if w.unlisted != 100_000-maxRequests+1 {
			t.Errorf("%d unlisted", w.unlisted)
		}
	})
}

// TestKept: requests, and answers for a time, are there after the daemon was killed; what was held is refused.
func TestKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "approvals.json")
		w := openWorld(t, New(), file)
		w.Begin(w.gate)
		evil := wants("a\xff\n")
		evil.Subject.File = policy.Identity{Inode: 1, Ino: 2, Dev: 3, Gen: 4}
		evil.Target = policy.Target{Name: "x", Access: policy.Write}
		go w.Ask(t.Context(), evil)
		w.Refused(wants("b"))
		synctest.Wait()
		b := w.q.List("")[1]
		if _, err := w.q.Answer(t.Context(), "me", b.ID, api.NewAnswer{Verdict: "allow", Scope: api.ScopeFor, For: "1h"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(saveAfter)
		synctest.Wait()

		next := openWorld(t, New(), file) // the first is as if it had been killed
		r := next.only(t)
		if r.State != api.Refused || string(r.RawObject) != "a\xff\n" || r.Count != 1 || next.requests[keyOf(evil)] == nil {
			t.Errorf("%+v", r)
		}
		if err := next.Resume(next.gate); err != nil || !next.Granted(wants("b")) || strings.Join(next.gate.did, ",") != "+allow b for" {
			t.Errorf("%v, %v", err, next.gate.did)
		}
		next.Close()
		w.Close()
	})
}

// TestWatch: who watches is told all there is, then each change, counts now and then; one that is slow is told all anew.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		w.Refused(wants("a"))
		watch := w.q.Watch("box")
		defer watch.Close()
		told := func() string {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			list, err := watch.Next(ctx)
			if err != nil {
				return err.Error()
			}
			var words []string
			for _, c := range list {
				switch {
				case c.Reset:
					words = append(words, "reset")
				case c.Complete:
					words = append(words, "complete")
				case c.Request != nil:
					words = append(words, fmt.Sprintf("%s %s %d", c.Request.Object, c.Request.State, c.Request.Count))
				default:
					words = append(words, fmt.Sprint(c.Unlisted))
				}
			}
			return strings.Join(words, ", ")
		}
		want := func(s string) {
			t.Helper()
			if got := told(); got != s {
				t.Errorf("told %q, want %q", got, s)
			}
		}
		want("reset, a refused 1, complete")
		for range 9 {
			w.Refused(wants("a"))
		}
		want("a refused 10")
		w.Refused(wants("b"))
		want("b refused 1")
		want("b refused 1") // its count, which is told later
		id := w.q.List("")[0].ID
		if _, err := w.q.Answer(t.Context(), "me", id, api.NewAnswer{Verdict: "deny"}); err != nil {
			t.Fatal(err)
		}
		if got := told(); !strings.HasSuffix(got, "rejected 1") {
			t.Error(got)
		}
		w.Reconsider(func(policy.Decision) (policy.Verdict, bool) { return policy.Allow, true })
		want("a withdrawn 10")
		want("context deadline exceeded")
		for i := range maxBehind + 2 {
			w.refused = rate.NewLimiter(newRate, newBurst)
			w.Refused(wants(fmt.Sprint(i)))
			if len(w.requests) == maxRequests {
				w.Reconsider(func(policy.Decision) (policy.Verdict, bool) { return policy.Deny, true })
			}
		}
		if got := told(); !strings.HasPrefix(got, "reset, ") || !strings.Contains(got, "complete") {
			t.Errorf("%.200s", got)
		}
	})
}

// TestPolicyAnswers: what waits goes on when a change of the policy answers it.
func TestPolicyAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		got := make(chan policy.Verdict)
		go func() { got <- w.Ask(t.Context(), wants("a")) }()
		synctest.Wait()
		w.Reconsider(func(d policy.Decision) (policy.Verdict, bool) { return policy.Allow, d.Object == "a" })
		if v := <-got; v != policy.Allow {
			t.Error(v)
		}
	})
}
