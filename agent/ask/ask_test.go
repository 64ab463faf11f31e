package ask

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nemoclaw/nemoclaw/policy"
)

// person answers from a list and remembers what it was shown; with an empty list it thinks until it is interrupted.
type person struct {
	mu      sync.Mutex
	answers []Answer
	shown   []string
	think   time.Duration

	remembered []string // by others, for the run
}

func (p *person) Prompt(ctx context.Context, q Question) (Answer, error) {
	p.mu.Lock()
	p.shown = append(p.shown, fmt.Sprintf("%s +%d", q.Object, q.More))
	var a Answer
	none := len(p.answers) == 0
	if !none {
		a, p.answers = p.answers[0], p.answers[1:]
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

func desk(p *person) (*Desk, *[]policy.Decision) {
	var records []policy.Decision
	remember := func(d policy.Decision, v policy.Verdict) {
		p.remembered = append(p.remembered, d.Object+" "+v.String())
	}
	return New(p, func(d policy.Decision) { records = append(records, d) }, remember), &records
}

func wants(object string) policy.Decision {
	return policy.Decision{Plane: policy.PlaneNetwork, Action: "connect", Object: object, Subject: policy.Subject{Exe: "/usr/bin/git", PID: 7}}
}

func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		answers []Answer
		asks    []string
		want    []policy.Verdict
		shown   []string
		told    []string
	}{
		{[]Answer{Once, Deny}, []string{"a", "a"}, []policy.Verdict{policy.Allow, policy.Deny}, []string{"a +0", "a +0"}, nil},
		{[]Answer{ForRun, Deny}, []string{"a", "a", "b"}, []policy.Verdict{policy.Allow, policy.Allow, policy.Deny}, []string{"a +0", "b +0"}, []string{"a allow"}},
		{[]Answer{Always}, []string{"a", "a"}, []policy.Verdict{policy.Allow, policy.Allow}, []string{"a +0"}, []string{"a allow"}},
		{[]Answer{DenyRun, Once}, []string{"a", "a", "b"}, []policy.Verdict{policy.Deny, policy.Deny, policy.Allow}, []string{"a +0", "b +0"}, []string{"a deny"}},
		{[]Answer{ForRun, DenyAll}, []string{"a", "b", "c", "a"}, []policy.Verdict{policy.Allow, policy.Deny, policy.Deny, policy.Allow}, []string{"a +0", "b +0"}, []string{"a allow"}},
	} {
		p := &person{answers: c.answers}
		d, records := desk(p)
		var got []policy.Verdict
		for _, a := range c.asks {
			got = append(got, d.Ask(t.Context(), wants(a)))
		}
		if !slices.Equal(got, c.want) || !slices.Equal(p.shown, c.shown) || !slices.Equal(p.remembered, c.told) {
			t.Errorf("%v to %v: verdicts %v, shown %v, told %v; want %v, %v, %v", c.answers, c.asks, got, p.shown, p.remembered, c.want, c.shown, c.told)
		}
		for _, r := range *records {
			if r.Plane != policy.PlaneSystem || r.Action != "answer" || r.Reason == "" {
				t.Errorf("recorded %+v", r)
			}
		}
	}
}

// TestEqualQuestions has three connections wait for one answer, and another program's, and one's that is tainted, which are their own questions.
func TestEqualQuestions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &person{answers: []Answer{Once, Deny, Deny, Deny}, think: time.Second}
		d, _ := desk(p)
		var mu sync.Mutex
		var got []policy.Verdict
		var wg sync.WaitGroup
		for i := range 3 {
			wg.Go(func() {
				q := wants("a")
				q.Subject.PID = i
				v := d.Ask(t.Context(), q)
				mu.Lock()
				got = append(got, v)
				mu.Unlock()
			})
		}
		synctest.Wait()
		other := wants("a")
		other.Subject.Exe = "/usr/bin/curl"
		if v := d.Ask(t.Context(), other); v != policy.Deny {
			t.Errorf("the other program got %v", v)
		}
		tainted := wants("a")
		tainted.Subject.Taint = "LD_PRELOAD"
		if v := d.Ask(t.Context(), tainted); v != policy.Deny {
			t.Errorf("one that other code may run as got %v", v)
		}
		file := wants("a")
		file.Which = "another file of this path"
		if v := d.Ask(t.Context(), file); v != policy.Deny {
			t.Errorf("another file of the same path got %v", v)
		}
		wg.Wait()
		if !slices.Equal(got, []policy.Verdict{policy.Allow, policy.Allow, policy.Allow}) || len(p.shown) != 4 {
			t.Errorf("verdicts %v, shown %v", got, p.shown)
		}
	})
}

// TestTimeout shows that the hold's end denies, withdraws the question, and that the next equal one is asked anew.
func TestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &person{}
		d, records := desk(p)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		if v := d.Ask(ctx, wants("a")); v != policy.Deny || time.Since(start) != time.Minute {
			t.Errorf("%v after %v", v, time.Since(start))
		}
		synctest.Wait()
		p.answers = []Answer{Once}
		if v := d.Ask(t.Context(), wants("a")); v != policy.Allow {
			t.Errorf("asked again: %v", v)
		}
		if len(*records) != 1 {
			t.Errorf("a question without an answer was recorded as answered: %+v", *records)
		}
	})
}

// TestQueueWithdrawn lets a question that is not shown yet run out of time: it is never shown.
func TestQueueWithdrawn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &person{answers: []Answer{Once, Once}, think: 10 * time.Second}
		d, _ := desk(p)
		go d.Ask(t.Context(), wants("a"))
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if v := d.Ask(ctx, wants("b")); v != policy.Deny {
			t.Error(v)
		}
		time.Sleep(time.Minute)
		if !slices.Equal(p.shown, []string{"a +0"}) {
			t.Errorf("shown %v", p.shown)
		}
	})
}

func TestTooManyQuestions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &person{}
		d, _ := desk(p)
		ctx, cancel := context.WithCancel(t.Context())
		for i := range maxWaiting {
			go d.Ask(ctx, wants(fmt.Sprint(i)))
		}
		synctest.Wait()
		if v := d.Ask(t.Context(), wants("one more")); v != policy.Deny {
			t.Error(v)
		}
		cancel()
		synctest.Wait()
	})
}
