package approvals

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nemoclaw/nemoclaw/policy"
)

// person answers from a list and remembers what it was shown; with an empty list it thinks until it is interrupted.
type person struct {
	mu      sync.Mutex
	replies []Reply
	shown   []string
	think   time.Duration
}

func (p *person) Prompt(ctx context.Context, q Question) (Reply, error) {
	p.mu.Lock()
	p.shown = append(p.shown, fmt.Sprintf("%s +%d", q.Object, q.More))
	var a Reply
	none := len(p.replies) == 0
	if !none {
		a, p.replies = p.replies[0], p.replies[1:]
	}
	p.mu.Unlock()
	if none {
		<-ctx.Done()
		return Deny, ErrNoAnswer
	}
	select {
	case <-time.After(p.think):
		return a, nil
	case <-ctx.Done():
		return Deny, ErrNoAnswer
	}
}

// attended is a desk with a person.
func attended(t *testing.T, p *person) *world {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { w.Attend(ctx, "the person", p) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		w.Close()
	})
	return w
}

func TestReplies(t *testing.T) {
	for _, c := range []struct {
		replies []Reply
		asks    []string
		want    []policy.Verdict
		shown   []string
		entered []string
	}{
		{[]Reply{Once, Deny}, []string{"a", "a"}, []policy.Verdict{policy.Allow, policy.Deny}, []string{"a +0", "a +0"}, nil},
		{[]Reply{ForRun, Deny}, []string{"a", "a", "b"}, []policy.Verdict{policy.Allow, policy.Allow, policy.Deny}, []string{"a +0", "b +0"}, []string{"+allow a session"}},
		{[]Reply{Always}, []string{"a", "a"}, []policy.Verdict{policy.Allow, policy.Allow}, []string{"a +0"}, []string{"+allow a session"}},
		{[]Reply{DenyRun, Once}, []string{"a", "a", "b"}, []policy.Verdict{policy.Deny, policy.Deny, policy.Allow}, []string{"a +0", "b +0"}, []string{"+deny a session"}},
		{[]Reply{ForRun, DenyAll}, []string{"a", "b", "c", "a"}, []policy.Verdict{policy.Allow, policy.Deny, policy.Deny, policy.Allow}, []string{"a +0", "b +0"}, []string{"+allow a session"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := &person{replies: c.replies}
			w := attended(t, p)
			var got []policy.Verdict
			for _, a := range c.asks {
				got = append(got, w.Ask(t.Context(), wants(a)))
				synctest.Wait()
			}
			if !slices.Equal(got, c.want) || !slices.Equal(p.shown, c.shown) || !slices.Equal(w.gate.did, c.entered) {
				t.Errorf("%v to %v: verdicts %v, shown %v, told %v; want %v, %v, %v", c.replies, c.asks, got, p.shown, w.gate.did, c.want, c.shown, c.entered)
			}
			for _, r := range w.records {
				if r.Plane != policy.PlaneSystem || r.Action != "answer" || !strings.HasPrefix(r.Reason, "the person ") {
					t.Errorf("recorded %+v", r)
				}
			}
		})
	}
}

// TestEqualQuestions has three connections wait for one answer, and another program's, and one's that is tainted, which are their own questions.
func TestEqualQuestions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &person{replies: []Reply{Once, Deny, Deny, Deny, Deny}, think: time.Second}
		w := attended(t, p)
		var mu sync.Mutex
		var got []policy.Verdict
		var wg sync.WaitGroup
		for i := range 3 {
			wg.Go(func() {
				q := wants("a")
				q.Subject.PID = i
				v := w.Ask(t.Context(), q)
				mu.Lock()
				got = append(got, v)
				mu.Unlock()
			})
		}
		synctest.Wait()
		other := wants("a")
		other.Subject.Exe = "/usr/bin/curl"
		if v := w.Ask(t.Context(), other); v != policy.Deny {
			t.Errorf("the other program got %v", v)
		}
		sameName := wants("a")
		sameName.Subject.File.Ino = 9
		if v := w.Ask(t.Context(), sameName); v != policy.Deny {
			t.Errorf("another program of the same path got %v", v)
		}
		tainted := wants("a")
		tainted.Subject.Taint = "LD_PRELOAD"
		if v := w.Ask(t.Context(), tainted); v != policy.Deny {
			t.Errorf("one that other code may run as got %v", v)
		}
		file := wants("a")
		file.Target = policy.Target{File: policy.Identity{Ino: 7}, Access: policy.Write}
		if v := w.Ask(t.Context(), file); v != policy.Deny {
			t.Errorf("another file of the same path got %v", v)
		}
		wg.Wait()
		if !slices.Equal(got, []policy.Verdict{policy.Allow, policy.Allow, policy.Allow}) || len(p.shown) != 5 {
			t.Errorf("verdicts %v, shown %v", got, p.shown)
		}
	})
}

// TestKeys: what an answer would let through tells attempts apart, whatever they look like.
func TestKeys(t *testing.T) {
	at := func(exe, ino uint64, name string, missing policy.Access) policy.Decision {
		return policy.Decision{
			Plane: policy.PlaneFile, Action: "write", Object: "/workspace/a", Subject: policy.Subject{Exe: "/usr/bin/tee", File: policy.Identity{Inode: exe << 20, Ino: exe}},
			Target: policy.Target{File: policy.Identity{Inode: ino, Ino: ino, Dev: 1}, Name: name, Access: missing},
		}
	}
	seen := map[key]policy.Decision{}
	for _, d := range []policy.Decision{
		at(1, 2, "", policy.Write), at(1, 2, "", policy.Read|policy.Write), at(1, 3, "", policy.Write), at(1, 2, "new", policy.Write),
		at(1, 2, "new 2", policy.Write), at(4, 2, "", policy.Write),
	} {
		if other, there := seen[keyOf(d)]; there {
			t.Errorf("%+v is taken for %+v", d, other)
		}
		seen[keyOf(d)] = d
	}
	again := at(1, 2, "", policy.Write)
	again.Subject.File.Inode, again.Target.File.Inode, again.Subject.Exe = 9, 9, "" // it has ended, and its path can't be told
	if _, there := seen[keyOf(again)]; !there {
		t.Error("a program and a file that the kernel has read again are others")
	}
}

// TestTimeout shows that the hold's end denies, that the question is withdrawn, and that the next equal one is asked anew.
func TestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &person{}
		w := attended(t, p)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		if v := w.Ask(ctx, wants("a")); v != policy.Deny || time.Since(start) != time.Minute {
			t.Errorf("%v after %v", v, time.Since(start))
		}
		synctest.Wait()
		p.mu.Lock()
		p.replies = []Reply{Once}
		p.mu.Unlock()
		if v := w.Ask(t.Context(), wants("a")); v != policy.Allow {
			t.Errorf("asked again: %v", v)
		}
		if len(w.records) != 1 {
			t.Errorf("a question without an answer was recorded as answered: %+v", w.records)
		}
	})
}

// TestQueueWithdrawn lets a question that is not shown yet run out of time: it is never shown.
func TestQueueWithdrawn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &person{replies: []Reply{Once, Once}, think: 10 * time.Second}
		w := attended(t, p)
		go w.Ask(t.Context(), wants("a"))
		synctest.Wait()
		time.Sleep(time.Millisecond)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if v := w.Ask(ctx, wants("b")); v != policy.Deny {
			t.Error(v)
		}
		time.Sleep(time.Minute)
		if !slices.Equal(p.shown, []string{"a +0"}) {
			t.Errorf("shown %v", p.shown)
		}
	})
}

// TestCantWait: what could not wait is asked about once each time that it is attempted, and the answer is for the next.
func TestCantWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &person{replies: []Reply{Deny, Once}}
		w := attended(t, p)
		d := wants("a")
		d.Verdict = policy.Ask
		w.Refused(d)
		synctest.Wait()
		w.Refused(d)
		synctest.Wait()
		if !slices.Equal(p.shown, []string{"a +0", "a +0"}) || !slices.Equal(w.gate.did, []string{"+allow a once"}) {
			t.Errorf("shown %v, entered %v", p.shown, w.gate.did)
		}
		if !w.Granted(d) || w.Granted(d) {
			t.Error("what was allowed once is not let through once")
		}
	})
}
