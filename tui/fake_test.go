package tui

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gdamore/tcell/v2"

	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

// daemon speaks the daemon's interface as far as a console uses it, and does what a test says. The end-to-end tests have the
// real one.
type daemon struct {
	socket string
	server *http.Server

	mu        sync.Mutex
	info      api.Info
	boxes     []api.Sandbox
	grants    []api.Grant
	policy    api.PolicyText
	records   []policy.Decision
	requests  map[string]api.Request
	order     []string
	more      *sync.Cond // records or changes came
	changes   []api.RequestChange
	answers   []answered
	changed   []api.PolicyChange
	revoked   []string
	explained []string
}

type answered struct {
	ID string
	api.NewAnswer
}

func newDaemon(t testing.TB) *daemon {
	t.Helper()
	d := &daemon{
		socket: filepath.Join(t.TempDir(), "agent.sock"), requests: map[string]api.Request{},
		info:   api.Info{Version: "test", API: "v1", Level: "full", Role: "steer"},
		policy: api.PolicyText{PolicyState: api.PolicyState{Name: "box.yaml", Revision: 3}, Text: "network:\n  default: deny\n", Who: "root", What: "made"},
	}
	d.more = sync.NewCond(&d.mu)
	started := time.Now().Add(-time.Hour)
	for _, name := range []string{"alpha", "beta"} {
		d.boxes = append(d.boxes, api.Sandbox{Name: name, State: api.Running, Level: "full", Started: &started, Policy: api.PolicyState{Name: "box.yaml", Revision: 3, Hash: "abc"}})
	}
	d.start(t)
	t.Cleanup(d.stop)
	return d
}

// What each sandbox takes of a GPU.
var gpuBytes, gpuPercent = int64(7 << 30), 41

func (d *daemon) start(t testing.TB) {
	t.Helper()
	l, err := net.Listen("unix", d.socket)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/info", func(w http.ResponseWriter, _ *http.Request) { d.reply(w, func() any { return d.info }, nil) })
	mux.HandleFunc("GET /v1/sandboxes", func(w http.ResponseWriter, _ *http.Request) { d.reply(w, func() any { return d.boxes }, nil) })
	mux.HandleFunc("GET /v1/sandboxes/{name}/usage", func(w http.ResponseWriter, _ *http.Request) {
		d.reply(w, api.Usage{Memory: 5 << 20, CPU: time.Second, Processes: 3, Conns: 2, Disk: 1 << 30, Sent: 1 << 20, Received: 1 << 22,
			GPU: &api.GPUUse{Memory: &gpuBytes, Busy: &gpuPercent}}, nil)
	})
	mux.HandleFunc("GET /v1/sandboxes/{name}/grants", func(w http.ResponseWriter, _ *http.Request) { d.reply(w, func() any { return d.grants }, nil) })
	mux.HandleFunc("DELETE /v1/sandboxes/{name}/grants/{id}", d.revoke)
	mux.HandleFunc("GET /v1/sandboxes/{name}/policy", func(w http.ResponseWriter, _ *http.Request) { d.reply(w, func() any { return d.policy }, nil) })
	mux.HandleFunc("POST /v1/sandboxes/{name}/policy/changes", d.changePolicy)
	mux.HandleFunc("GET /v1/sandboxes/{name}/policy/explain", func(w http.ResponseWriter, r *http.Request) {
		d.mu.Lock()
		d.explained = append(d.explained, r.URL.RawQuery)
		d.mu.Unlock()
		d.reply(w, api.Answer{Verdict: "ask", Rule: "box.yaml:7", RuleText: "ask: {domain: x}", Reason: "the rule asks"}, nil)
	})
	mux.HandleFunc("GET /v1/events", d.events)
	mux.HandleFunc("GET /v1/approvals", d.follow)
	mux.HandleFunc("POST /v1/approvals/{id}/answer", d.answer)
	d.server = &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	go func() { _ = d.server.Serve(l) }()
}

// stop ends it as a crash does.
func (d *daemon) stop() {
	_ = d.server.Close()
	d.more.Broadcast()
}

// reply answers with a value, or with what a function returns while nothing changes.
func (d *daemon) reply(w http.ResponseWriter, v any, refusal *api.Error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if f, ok := v.(func() any); ok {
		v = f()
	}
	w.Header().Set("Content-Type", "application/json")
	if refusal != nil {
		w.WriteHeader(refusal.Code.Status())
		v = refusal
	}
	_ = json.NewEncoder(w).Encode(v)
}

// stream writes what next gives until the caller goes away.
func (d *daemon) stream(w http.ResponseWriter, r *http.Request, next func(i int) (any, bool)) {
	stop := context.AfterFunc(r.Context(), d.more.Broadcast)
	defer stop()
	enc := json.NewEncoder(w)
	for i := 0; r.Context().Err() == nil; {
		d.mu.Lock()
		v, ok := next(i)
		if !ok {
			w.(http.Flusher).Flush()
			if r.URL.Query().Get("follow") == "" {
				d.mu.Unlock()
				return
			}
			d.more.Wait()
			d.mu.Unlock()
			continue
		}
		d.mu.Unlock()
		i++
		if err := enc.Encode(v); err != nil {
			return
		}
	}
}

func (d *daemon) events(w http.ResponseWriter, r *http.Request) {
	d.stream(w, r, func(i int) (any, bool) {
		if i < len(d.records) {
			return d.records[i], true
		}
		return nil, false
	})
}

func (d *daemon) follow(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	first := []api.RequestChange{{Reset: true}}
	for _, id := range d.order {
		q := d.requests[id]
		first = append(first, api.RequestChange{Request: &q})
	}
	first = append(first, api.RequestChange{Complete: true})
	from := len(d.changes)
	d.mu.Unlock()
	d.stream(w, r, func(i int) (any, bool) {
		if i < len(first) {
			return first[i], true
		}
		if i = from + i - len(first); i < len(d.changes) {
			return d.changes[i], true
		}
		return nil, false
	})
}

func (d *daemon) answer(w http.ResponseWriter, r *http.Request) {
	var a api.NewAnswer
	_ = json.NewDecoder(r.Body).Decode(&a)
	id := r.PathValue("id")
	d.mu.Lock()
	q, ok := d.requests[id]
	d.mu.Unlock()
	result := api.AnswerResult{Request: q}
	if a.Scope == api.ScopeAlways {
		result.Policy = &api.PolicyResult{Policy: api.PolicyText{PolicyState: api.PolicyState{Revision: 4}}, Diff: "@@ -1 +1,2 @@\n network:\n+  allow: [{domain: " + q.Object + "}]\n"}
	} else if a.Scope != api.ScopeOnce {
		result.Grant = &api.Grant{Verdict: a.Verdict, Action: q.Action, Object: q.Object, Scope: a.Scope}
	}
	switch {
	case !ok:
		d.reply(w, nil, &api.Error{Code: api.NotFound, Message: "there is no request " + id})
		return
	case a.DryRun:
	case q.Dangerous && a.Verdict == "allow" && !a.Confirm:
		d.reply(w, nil, &api.Error{Code: api.Invalid, Message: "it is dangerous: confirm it"})
		return
	default:
		d.mu.Lock()
		d.answers = append(d.answers, answered{id, a})
		d.mu.Unlock()
		q.State = map[string]api.RequestState{"allow": api.Approved, "deny": api.Rejected}[a.Verdict]
		q.Answer = &api.Answered{Verdict: a.Verdict, Scope: a.Scope, Who: "root by console", When: time.Now()}
		d.request(q)
	}
	d.reply(w, result, nil)
}

func (d *daemon) revoke(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	d.revoked = append(d.revoked, r.PathValue("id"))
	d.grants = nil
	d.mu.Unlock()
	d.reply(w, api.Revoked{Closed: 1}, nil)
}

func (d *daemon) changePolicy(w http.ResponseWriter, r *http.Request) {
	var c api.PolicyChange
	_ = json.NewDecoder(r.Body).Decode(&c)
	d.mu.Lock()
	var refusal *api.Error
	result := api.PolicyResult{Diff: "-" + d.policy.Text + "+" + c.Text, Policy: api.PolicyText{PolicyState: api.PolicyState{Name: "box.yaml", Revision: d.policy.Revision + 1}, Text: c.Text}}
	switch {
	case c.Expect != d.policy.Revision:
		refusal = &api.Error{Code: api.Conflict, Message: fmt.Sprintf("the policy has revision %d", d.policy.Revision)}
	case strings.Contains(c.Text, "BROKEN"):
		refusal = &api.Error{Code: api.Invalid, Message: "box.yaml:2: BROKEN is no key"}
	case !c.DryRun:
		d.changed = append(d.changed, c)
		d.policy = result.Policy
	}
	d.mu.Unlock()
	d.reply(w, result, refusal)
}

// request tells of a request: a new one, or a change of one.
func (d *daemon) request(r api.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if waits(&r) {
		if _, known := d.requests[r.ID]; !known {
			d.order = append(d.order, r.ID)
		}
		d.requests[r.ID] = r
	} else {
		delete(d.requests, r.ID)
		for i, id := range d.order {
			if id == r.ID {
				d.order = append(d.order[:i:i], d.order[i+1:]...)
				break
			}
		}
	}
	d.changes = append(d.changes, api.RequestChange{Request: &r})
	d.more.Broadcast()
}

// record tells of a decision.
func (d *daemon) record(r policy.Decision) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r.Seq, r.Time = uint64(len(d.records)+1), time.Now()
	d.records = append(d.records, r)
	d.more.Broadcast()
}

// given waits for n answers, and returns them.
func (d *daemon) given(t *testing.T, n int) []answered {
	t.Helper()
	var got []answered
	await(t, fmt.Sprintf("%d answers", n), func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		got = append([]answered(nil), d.answers...)
		return len(got) >= n
	})
	if len(got) != n {
		t.Fatalf("%d answers came, want %d: %+v", len(got), n, got)
	}
	return got
}

func await(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited for %s", what)
		}
	}
}

// held is a request that waits.
func held(id, object string) api.Request {
	until := time.Now().Add(time.Minute)
	return api.Request{
		ID: id, Sandbox: "alpha", State: api.Held, Plane: "network", Action: "connect", Object: object, Program: "/usr/bin/curl", Args: "curl https://" + object,
		Rule: "box.yaml:7", First: time.Now(), Last: time.Now(), Until: &until, Count: 1, Held: 1,
		Offers: []api.Offer{{ID: "this", Text: "this command to " + object, Scopes: []api.Scope{api.ScopeOnce, api.ScopeSession, api.ScopeFor, api.ScopeAlways}, YAML: "network:\n  allow:\n    - domain: " + object + "\n", Deny: "network:\n  deny:\n    - domain: " + object + "\n"}},
	}
}

// sight is a console on a simulated screen.
type sight struct {
	t      testing.TB
	screen tcell.SimulationScreen
	c      *console
	done   chan struct{} // closed when it has ended
	err    error
}

// open starts a console and waits until it shows the requests.
func open(t testing.TB, d *daemon, w, h int, o Options) *sight {
	t.Helper()
	s := &sight{t: t, screen: tcell.NewSimulationScreen("UTF-8"), done: make(chan struct{})}
	o.Screen = s.screen
	client := api.Dial(d.socket)
	info, err := client.Info(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	s.c = newConsole(context.Background(), client, o, info)
	s.c.settle = 0 // tests that are about it say so
	s.screen.SetSize(w, h)
	go func() {
		defer close(s.done)
		s.err = s.c.run()
	}()
	t.Cleanup(func() {
		s.c.cancel()
		client.Close()
		s.wait()
	})
	s.see("Requests")
	return s
}

// wait waits until the console has ended.
func (s *sight) wait() {
	s.t.Helper()
	select {
	case <-s.done:
	case <-time.After(10 * time.Second):
		s.t.Fatal("the console does not end")
	}
}

// text is what the screen shows.
func (s *sight) text() string {
	var b strings.Builder
	s.c.app.QueueUpdate(func() {
		cells, w, h := s.screen.GetContents()
		for y := range h {
			var l strings.Builder
			for x := 0; x < w; x++ {
				c := cells[y*w+x]
				if len(c.Runes) == 0 {
					l.WriteByte(' ')
					continue
				}
				l.WriteString(string(c.Runes))
			}
			b.WriteString(strings.TrimRight(l.String(), " ") + "\n")
		}
	})
	return b.String()
}

func (s *sight) see(want string) {
	s.t.Helper()
	s.until("to see "+want, func(shown string) bool { return strings.Contains(shown, want) })
}

func (s *sight) lose(what string) {
	s.t.Helper()
	s.until("not to see "+what, func(shown string) bool { return !strings.Contains(shown, what) })
}

func (s *sight) until(what string, is func(string) bool) {
	s.t.Helper()
	var shown string
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if shown = s.text(); is(shown) {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("waited %s; the screen shows\n%s", what, shown)
		}
	}
}

// slow says how long something must have been on the screen before a key can answer it.
func (s *sight) slow(settle time.Duration) { s.c.app.QueueUpdate(func() { s.c.settle = settle }) }

// press presses a key as a person does: some time after the one before.
func (s *sight) press(keys ...any) {
	for _, k := range keys {
		time.Sleep(2 * burst)
		switch k := k.(type) {
		case rune:
			s.screen.InjectKey(tcell.KeyRune, k, tcell.ModNone)
		case tcell.Key:
			s.screen.InjectKey(k, 0, tcell.ModNone)
		case string:
			for _, r := range k {
				s.press(r)
			}
		}
	}
}
