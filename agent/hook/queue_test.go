package hook

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/config"
	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/test/tempfile"
)

// after makes a queue that was told of these changes.
func after(c config.Hook, changes ...api.RequestChange) *queue {
	q := newQueue(c)
	for _, c := range changes {
		q.change(c)
	}
	return q
}

var (
	reset    = api.RequestChange{Reset: true}
	complete = api.RequestChange{Complete: true}
)

// taken are the ids of what there is to tell now, in that order.
func taken(q *queue) (ids []string) {
	now := time.Now()
	for {
		r, _, wait := q.take(now)
		if wait != 0 {
			return ids
		}
		ids = append(ids, r.ID)
	}
}

func refused(id string) api.RequestChange { return is(id, "box", api.Refused) }

func TestWhatIsTold(t *testing.T) {
	t.Parallel()
	began := []api.RequestChange{reset, complete}
	for _, c := range []struct {
		name    string
		hook    config.Hook
		changes []api.RequestChange
		want    []string
	}{
		{"new ones, what is held first", config.Hook{}, append(began, refused("a"), held("b"), refused("c")), []string{"b", "a", "c"}},
		{"of those that were there what is held", config.Hook{}, []api.RequestChange{reset, refused("a"), held("b"), complete, refused("a"), held("a")}, []string{"b", "a"}},
		{"one that is attempted again, not again", config.Hook{}, append(began, held("a"), held("a"), refused("a"), refused("a")), []string{"a"}},
		{"not one that was answered", config.Hook{}, append(began, held("a"), refused("b"), is("a", "box", api.Approved), is("b", "box", api.Withdrawn)), nil},
		{"not one that is gone after all were told again", config.Hook{}, append(began, held("a"), held("b"), reset, held("b"), complete), []string{"b"}},
		{"only what is held", config.Hook{States: []string{"held"}}, append(began, refused("a"), held("b"), held("c"), refused("c")), []string{"b"}},
		{"only what is refused, after it was held too", config.Hook{States: []string{"refused"}}, append(began, refused("a"), held("b"), refused("b")), []string{"a", "b"}},
		{"only of one sandbox", config.Hook{Sandboxes: []string{"other"}}, append(began, held("a"), is("b", "other", api.Held)), []string{"b"}},
	} {
		if got := taken(after(c.hook, c.changes...)); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	// What is held anew is told anew, once it has been told.
	q := after(config.Hook{}, reset, complete, held("a"))
	first := taken(q)
	for _, c := range []api.RequestChange{refused("a"), reset, refused("a"), complete, held("a"), held("a")} {
		q.change(c)
	}
	if again := taken(q); !slices.Equal(first, again) || len(again) != 1 {
		t.Errorf("%q, then %q", first, again)
	}
}

// TestRate: a sandbox that asks for much is told of as often as the hook wants, what is too much is counted, and another one is
// heard all the same.
func TestRate(t *testing.T) {
	t.Parallel()
	q := after(config.Hook{Rate: 10}, reset, complete)
	const flood = 10_000
	for i := range flood {
		q.change(refused(fmt.Sprint(i)))
	}
	q.change(is("quiet", "quiet", api.Held))
	if first, again := q.overflows(), q.overflows(); !slices.Equal(first, []string{"box"}) || again != nil {
		t.Errorf("%q overflow, and then %q", first, again)
	}
	now := time.Now()
	told, dropped := 0, uint64(0)
	turns := 0
	for {
		r, n, wait := q.take(now)
		if wait != 0 {
			if wait > time.Minute/10+time.Second || wait < 0 {
				t.Errorf("the next in %s", wait)
			}
			break
		}
		turns++
		if r.ID == "quiet" {
			if turns > 2 {
				t.Errorf("the other sandbox came after %d", turns)
			}
			continue
		}
		told++
		dropped += n
	}
	if told != 10 || dropped != flood-maxWaiting {
		t.Errorf("%d were told at once, %d dropped", told, dropped)
	}
	// Somebody waits for the answer to what is held: it takes the place of what was refused.
	for i := range maxWaiting {
		q.change(refused(fmt.Sprint("more", i)))
	}
	q.change(held("urgent"))
	if r, _, wait := q.take(now.Add(time.Minute)); wait != 0 || r.ID != "urgent" {
		t.Errorf("it was told of %q first", r.ID)
	}
	// Quiet sandboxes are forgotten.
	for _, s := range q.shares {
		s.waiting, s.dropped = nil, 0
	}
	if q.take(now.Add(time.Hour)); len(q.shares) != 0 {
		t.Errorf("%d shares are left", len(q.shares))
	}
	for i := range flood {
		q.change(is(fmt.Sprint(i), "box", api.Withdrawn))
	}
	if len(q.known) > maxWaiting+2 {
		t.Errorf("%d requests are known", len(q.known))
	}
}

// TestFlood: a flood is recorded once, and its telling does not wait for a server that does not answer.
func TestFlood(t *testing.T) {
	t.Parallel()
	hang := make(chan bool)
	url, got := server(t, func(int, http.ResponseWriter) { <-hang })
	var n notes
	tell := start(t, config.Hook{Webhook: url, SecretFile: tempfile.Write(t, 0o600, exampleKey), Rate: 600}, &n)
	const flood = 2000
	for i := range flood {
		tell(refused(fmt.Sprint(i)))
	}
	close(hang)
	told, dropped := 0, uint64(0)
	for told+int(dropped) < flood {
		told++
		dropped += next(t, got).content(t).Dropped
		if told == atOnce+maxWaiting {
			tell(refused("last")) // it carries the count
		}
	}
	if strings.Count(n.all(), "the sandbox box asks for more than the hook is told of") != 1 || strings.Contains(n.all(), "\n") {
		t.Errorf("it recorded %s", n.all())
	}
}
