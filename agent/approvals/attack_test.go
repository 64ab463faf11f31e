package approvals

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

// kernel is a gate that has entries, as the kernel has.
type kernel struct {
	mu       sync.Mutex
	entries  map[string]bool
	entering func() // nil: nothing
}

// entry is what the kernel knows a grant by: less than the desk does.
func entry(g Grant) string { return g.Decision.Object }

func (k *kernel) Enter(g Grant) error {
	if k.entering != nil {
		k.entering()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.entries[entry(g)] = true
	return nil
}

func (k *kernel) Withdraw(g Grant) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.entries, entry(g))
	return 0, nil
}

func (k *kernel) has() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.entries)
}

// reads is an attempt that the kernel judges by itself.
func reads(path string) policy.Decision {
	return policy.Decision{Plane: policy.PlaneFile, Action: "read", Object: path, Rule: "p:3", Verdict: policy.Ask, Time: time.Now(),
		Subject: policy.Subject{Exe: "/usr/bin/cat", PID: 7}}
}

// answerLast answers the latest request.
func (w *world) answerLast(t *testing.T, a api.NewAnswer) api.AnswerResult {
	t.Helper()
	res, err := w.q.Answer(t.Context(), "me", w.q.List("")[0].ID, a)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// TestNextLife: the machine went down, or the daemon was killed while it stopped the sandbox. What was answered until the sandbox
// stops does not hold in its next life, though it still stands on the disk.
func TestNextLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "approvals.json")
		w := openWorld(t, New(), file)
		w.Begin(w.gate)
		w.Refused(wants("a"))
		w.answerLast(t, api.NewAnswer{Verdict: "allow", Scope: api.ScopeSession})
		other := wants("b")
		other.Subject.File = policy.Identity{Ino: 2}
		w.Refused(other)
		time.Sleep(2 * saveAfter)
		synctest.Wait()

		next := openWorld(t, New(), file)
		next.Begin(next.gate) // not Resume: it was started anew
		if next.Granted(wants("a")) || len(next.Grants()) != 0 {
			t.Error("an answer of the last life holds in the next")
		}
		if r := next.only(t); strings.Contains(fmt.Sprint(r.Offers[0].Scopes), "session") {
			t.Errorf("a grant can be made for a file of the last life: %+v", r.Offers)
		}
		next.Close()
		w.Close()
	})
}

// TestRevokedWhileEntered: a grant that is taken back while it comes into force is not in force afterwards.
func TestRevokedWhileEntered(t *testing.T) {
	w := newWorld(t)
	defer w.Close()
	var revoking sync.WaitGroup
	k := &kernel{entries: map[string]bool{}}
	k.entering = func() {
		id := w.Grants()[0].ID
		begun := make(chan struct{})
		revoking.Go(func() {
			close(begun)
			if _, err := w.Revoke("you", id); err != nil {
				t.Error(err)
			}
		})
		<-begun
		time.Sleep(10 * time.Millisecond) // it may be through by then
	}
	w.Begin(k)
	w.Refused(wants("a"))
	w.answerLast(t, api.NewAnswer{Verdict: "allow", Scope: api.ScopeSession})
	revoking.Wait()
	if len(w.Grants()) != 0 || k.has() != 0 {
		t.Errorf("revoked, and in the kernel: %v", k.entries)
	}
}

// TestOnceJoined: an attempt that comes to wait while the answer for once is carried out is the one attempt.
func TestOnceJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		joined := make(chan policy.Verdict, 1)
		record := w.c.Record
		w.c.Record = func(d policy.Decision) { // between the answer and its grant
			record(d)
			if d.Action == "answer" {
				go func() { joined <- w.Ask(t.Context(), wants("a")) }()
				time.Sleep(time.Millisecond)
			}
		}
		w.Refused(wants("a"))
		w.answerLast(t, api.NewAnswer{Verdict: "allow"})
		if v := <-joined; v != policy.Allow {
			t.Errorf("what waited got %v", v)
		}
		if w.Granted(wants("a")) {
			t.Error("an answer for once let two attempts through")
		}
	})
}

// TestOnceInKernel: the kernel has given away what was allowed once when it asks, or refuses, again: the desk does not give it a
// second time, and lists the next attempt.
func TestOnceInKernel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		k := &kernel{entries: map[string]bool{}}
		w.Begin(k)
		allow := func() {
			t.Helper()
			time.Sleep(time.Second)
			w.Refused(reads("/a"))
			w.answerLast(t, api.NewAnswer{Verdict: "allow"})
			if k.has() != 1 || len(w.Grants()) != 1 {
				t.Fatalf("%v", k.entries)
			}
			time.Sleep(time.Second)
			clear(k.entries) // the kernel has taken it
		}
		allow()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if v := w.Ask(ctx, reads("/a")); v != policy.Deny {
			t.Errorf("the second attempt got %v", v)
		}
		w.answerLast(t, api.NewAnswer{Verdict: "deny"})
		allow()
		w.Refused(reads("/a"))
		if n := len(w.q.List("")); n != 1 {
			t.Errorf("the second attempt was refused, and %d requests are listed", n)
		}
	})
}

// TestOnceOvertaken: a refusal from before the grant was in force does not take it away.
func TestOnceOvertaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		before := reads("/a")
		w.Refused(before)
		time.Sleep(time.Second)
		w.answerLast(t, api.NewAnswer{Verdict: "allow"})
		w.Refused(before) // the kernel told it late
		if len(w.Grants()) != 1 || len(w.q.List("")) != 0 {
			t.Errorf("%v, %v", w.Grants(), w.q.List(""))
		}
	})
}

// TestSharedEntries: two tainted programs are nobody to the kernel, so what each may is one entry there. When one is taken back, or
// used up, the other's stays.
func TestSharedEntries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		k := &kernel{entries: map[string]bool{}}
		w.Begin(k)
		as := func(taint string) policy.Decision {
			d := wants("a")
			d.Subject.Taint = taint
			return d
		}
		for _, x := range []struct {
			taint string
			scope api.Scope
		}{{"X", api.ScopeSession}, {"Y", api.ScopeSession}, {"Z", api.ScopeOnce}} {
			w.Refused(as(x.taint))
			w.answerLast(t, api.NewAnswer{Verdict: "allow", Scope: x.scope})
			time.Sleep(time.Second)
		}
		if _, err := w.Revoke("me", w.Grants()[1].ID); err != nil || k.has() != 1 {
			t.Errorf("%v, %v", k.entries, err)
		}
		if !w.Granted(as("Z")) {
			t.Error("what was allowed once is not")
		}
		synctest.Wait()
		if k.has() != 1 || !w.Granted(as("X")) || w.Granted(as("Y")) || w.Granted(as("Z")) {
			t.Errorf("%v, %v", k.entries, w.Grants())
		}
		if _, err := w.Revoke("me", w.Grants()[0].ID); err != nil || k.has() != 0 {
			t.Errorf("%v, %v", k.entries, err)
		}
	})
}

// TestCrowded: whatever is refused, what waits for an answer is listed.
func TestCrowded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.Close()
		flood := func() {
			for i := range 4 * maxRequests {
				w.Refused(wants(fmt.Sprintf("%d.test", i)))
			}
		}
		flood() // as many as there may be at once
		ctx, cancel := context.WithCancel(t.Context())
		go w.Ask(ctx, wants("held-1"))
		synctest.Wait()
		if r := w.q.List("")[0]; r.Object != "held-1" {
			t.Errorf("what waits is not listed: %+v", r)
		}
		for range 60 {
			time.Sleep(time.Second)
			flood() // as many as there may be
		}
		go w.Ask(ctx, wants("held-2"))
		synctest.Wait()
		list := w.q.List("")
		if len(list) != maxRequests || list[1].State != api.Held || list[2].State == api.Held {
			t.Errorf("%d requests, %+v", len(list), list[:3])
		}
		sum := w.unlisted
		for _, r := range list {
			sum += r.Count
		}
		if want := uint64(61*4*maxRequests + 2); sum != want {
			t.Errorf("%d attempts are counted, not %d", sum, want)
		}
		cancel()
		synctest.Wait()
	})
}

// TestStopsLeaveNothing: requests that differed by what ended with the sandbox are one, and nothing is left of the other.
func TestStopsLeaveNothing(t *testing.T) {
	w := newWorld(t)
	for life := range 20 {
		for i := range 5 {
			d := wants("a")
			d.Subject.File = policy.Identity{Ino: uint64(1 + life*5 + i)}
			w.Refused(d)
		}
		w.Stop()
		w.Begin(w.gate)
	}
	if r := w.only(t); r.Count != 100 {
		t.Errorf("%d attempts", r.Count)
	}
	if n := len(w.q.requests); n != 1 {
		t.Errorf("%d requests are kept for one that is listed", n)
	}
	w.Close()
	if n := len(w.q.requests); n != 0 {
		t.Errorf("%d are left", n)
	}
}

// TestSaves: however fast requests come, the disk is not written all the time.
func TestSaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "approvals.json")
		w := openWorld(t, New(), file)
		w.Begin(w.gate)
		defer w.Close()
		var inode os.FileInfo
		saves := 0
		for i := range 1000 {
			w.Refused(wants(fmt.Sprintf("%d.test", i)))
			time.Sleep(10 * time.Millisecond)
			synctest.Wait()
			if now, err := os.Stat(file); err == nil && (inode == nil || !os.SameFile(now, inode) || !now.ModTime().Equal(inode.ModTime())) {
				inode = now
				saves++
			}
		}
		if saves < 5 || saves > 101 {
			t.Errorf("%d saves in 10 s", saves)
		}
	})
}

// TestPrefix: the beginning of an id names no other request when the one it was meant for is gone.
func TestPrefix(t *testing.T) {
	q := New()
	add := func(id string) *request {
		r := &request{id: id, done: make(chan struct{})}
		q.requests[id] = r
		return r
	}
	meant := add("3f00000000")
	if r, err := q.find("3"); err != nil || r != meant {
		t.Fatal(r, err)
	}
	q.remove(meant, "it is over")
	add("3a00000000")
	var e *api.Error
	if r, err := q.find("3"); !errors.As(err, &e) || e.Code != api.Conflict {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := q.find("3a"); err != nil {
		t.Error(err)
	}
}

// TestStopWhileAnswered: a sandbox that is stopped and started while an answer is carried out does not get the answer's grant, which is
// for files of its last life. Run it with -race too.
func TestStopWhileAnswered(t *testing.T) {
	w := newWorld(t)
	defer w.Close()
	next := &kernel{entries: map[string]bool{}}
	record := w.c.Record
	w.c.Record = func(d policy.Decision) {
		record(d)
		if d.Action == "answer" && d.Verdict == policy.Allow {
			done := make(chan struct{})
			go func() {
				defer close(done)
				w.Stop()
				w.Begin(next)
			}()
			<-done
		}
	}
	d := wants("a")
	d.Subject.File = policy.Identity{Ino: 2}
	w.Refused(d)
	if _, err := w.q.Answer(t.Context(), "me", w.only(t).ID, api.NewAnswer{Verdict: "allow", Scope: api.ScopeSession}); err == nil {
		t.Error("it was answered")
	}
	if len(w.Grants()) != 0 || next.has() != 0 {
		t.Errorf("%v %v", w.Grants(), next.entries)
	}
}

// TestNoOffers: what no answer could allow any more is not listed after a restart of the daemon.
func TestNoOffers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "approvals.json")
		w := openWorld(t, New(), file)
		w.Begin(w.gate)
		w.Refused(wants("a"))
		time.Sleep(2 * saveAfter)
		synctest.Wait()
		was, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		w.Close()
		never := strings.ReplaceAll(strings.ReplaceAll(string(was), `"object":"a"`, `"object":"never"`), `"object_bytes":"YQ=="`, `"object_bytes":"bmV2ZXI="`)
		if err := os.WriteFile(file, []byte(never), 0o600); err != nil || never == string(was) {
			t.Fatal(err, never)
		}
		next := openWorld(t, New(), file)
		defer next.Close()
		if list := next.q.List(""); len(list) != 0 {
			t.Errorf("%+v", list)
		}
	})
}

// TestForgedBy: what a caller says that it answers with reads as nobody's account.
func TestForgedBy(t *testing.T) {
	w := newWorld(t)
	defer w.Close()
	w.Refused(wants("a"))
	res := w.answerLast(t, api.NewAnswer{Verdict: "deny", By: "it\", root (uid 0, pts/3) \x1b[31m"})
	if want := `me, by "it', root (uid 0, pts/3) \x1b[31m"`; res.Request.Answer.Who != want {
		t.Errorf("%s, want %s", res.Request.Answer.Who, want)
	}
}

// TestShownIsGiven: an answer gives what an attempt lacked, so that is what is shown, not what it was called.
func TestShownIsGiven(t *testing.T) {
	w := newWorld(t)
	defer w.Close()
	for access, want := range map[policy.Access]string{
		policy.Read: "read", policy.Write: "write", policy.Read | policy.Write: "read and write", 0: "write",
	} {
		d := reads("/a")
		d.Action, d.Target.Access = "write", access
		w.Refused(d)
		if r := w.q.List("")[0]; r.Action != want {
			t.Errorf("%s of what lacks %s", r.Action, access)
		}
		w.answerLast(t, api.NewAnswer{Verdict: "deny"})
		ctx, cancel := context.WithCancel(t.Context())
		asked := make(chan policy.Verdict)
		go func() { asked <- w.Ask(ctx, d) }()
		for len(w.q.List("")) == 0 {
			time.Sleep(time.Millisecond)
		}
		if r := w.only(t); r.Action != want {
			t.Errorf("%s of what lacks %s", r.Action, access)
		}
		w.answerLast(t, api.NewAnswer{Verdict: "deny"})
		<-asked
		cancel()
	}
}
