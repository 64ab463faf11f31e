package approvals

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/policy"
)

// TestKilledAtOnce: what a watcher was told of is listed by the next daemon, though this one is killed in the same moment, and however
// many came before; what was answered and saved is not.
func TestKilledAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "approvals.json")
		q := New()
		w := openWorld(t, q, file)
		defer w.Close()
		w.Begin(w.gate)
		var known []string
		for n := range 30 {
			name := fmt.Sprintf("a%d\xff\n", n)
			w.Refused(wants(name))
			known = append(known, name)
			if n%10 == 7 { // a save in between
				synctest.Wait()
			}
			if n == 20 {
				time.Sleep(2 * saveAfter)
				synctest.Wait()
			}
			next := openWorld(t, New(), copied(t, file)) // as if the first had been killed
			if got := len(next.q.List("")); got != len(known) {
				t.Fatalf("after %d requests the next daemon knows %d", len(known), got)
			}
			for _, name := range known {
				if r := next.requests[keyOf(wants(name))]; r == nil || r.count != 1 || r.first.IsZero() || r.last.IsZero() {
					t.Fatalf("%q: %+v", name, r)
				}
			}
			next.Close()
		}
		// What was answered a moment ago is not there again, though no save has heard of it.
		for n, r := range w.q.List("") {
			if _, err := w.q.Answer(t.Context(), "me", r.ID, api.NewAnswer{Verdict: "deny", Scope: api.ScopeOnce, Confirm: true}); err != nil {
				t.Fatal(err)
			}
			if n == 9 {
				break
			}
		}
		some := openWorld(t, New(), copied(t, file))
		if n := len(some.q.List("")); n != 20 {
			t.Errorf("%d requests are there, want the 20 that were not answered", n)
		}
		some.Close()
		w.Reconsider(func(policy.Decision) (policy.Verdict, bool) { return policy.Allow, true })
		time.Sleep(2 * saveAfter)
		synctest.Wait()
		next := openWorld(t, New(), copied(t, file))
		defer next.Close()
		if n := len(next.q.List("")); n != 0 {
			t.Errorf("%d requests are there again", n)
		}
	})
}

// TestTornJournal: a kill may cut the last line.
func TestTornJournal(t *testing.T) {
	name := filepath.Join(t.TempDir(), "journal")
	j := &journal{name: name}
	for n := range 3 {
		j.add(journalLine{Request: &keptRequest{ID: fmt.Sprint(n), Decision: keep(wants(fmt.Sprint(n))), Count: 1}})
	}
	text, err := os.ReadFile(j.file(0))
	if err != nil {
		t.Fatal(err)
	}
	for cut := range text {
		if err := os.WriteFile(j.file(0), text[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		list, _, err := (&journal{name: name}).read()
		if err != nil || len(list) > 2 && cut < len(text)-1 || len(list) < 2 && cut > 2*len(text)/3 {
			t.Fatalf("cut at %d of %d: %d requests, %v", cut, len(text), len(list), err)
		}
	}
}

// copied is a copy of what a desk keeps.
func copied(t *testing.T, file string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "approvals.json")
	for _, end := range []string{"", ".grants", ".journal0", ".journal1"} {
		text, err := os.ReadFile(file + end)
		if os.IsNotExist(err) {
			continue
		}
		if err == nil {
			err = os.WriteFile(to+end, text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return to
}
