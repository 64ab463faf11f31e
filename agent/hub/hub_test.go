package hub

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nemoclaw/nemoclaw/agent/audit"
	"github.com/nemoclaw/nemoclaw/policy"
)

func refusal(object string) policy.Decision {
	return policy.Decision{Plane: policy.PlaneNetwork, Action: "connect", Object: object, Rule: "default", Subject: policy.Subject{Exe: "/usr/bin/curl"}}
}

// rows is what the tests compare: number, object, count.
func rows(sub *Subscription) []string {
	var got []string
	for d := range sub.C {
		got = append(got, fmt.Sprintf("%d %s %d", d.Seq, d.Object, d.Count))
	}
	return got
}

func TestOrderAndNumbers(t *testing.T) {
	log, err := audit.Open(t.TempDir(), "box", audit.Options{})
	if err != nil {
		t.Fatal(err)
	}
	h := New(log)
	box := h.Sandbox("box")
	sub := h.Subscribe(1000)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 100 {
				box.Record(refusal(fmt.Sprintf("%d-%d", g, i)))
			}
		})
	}
	wg.Wait()
	h.Close()
	h.Close()
	box.Record(refusal("late"))
	n := uint64(0)
	for d := range sub.C {
		if n++; d.Seq != n || d.Sandbox != "box" || d.Time.IsZero() {
			t.Fatalf("record %d came as %+v", n, d)
		}
	}
	if err := log.Close(); err != nil || n != 400 || sub.Lost() != 0 {
		t.Fatalf("%d records, %d lost, %v", n, sub.Lost(), err)
	}
	if r, err := audit.VerifyFile(log.Path()); err != nil || r.Fault != nil || r.Lines != 400 {
		t.Errorf("audit: %+v %v %v", r, r.Fault, err)
	}
}

// TestFold shows that identical refusals are written one by one up to a limit, then counted, and that nothing is lost.
func TestFold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(nil)
		box := h.Sandbox("box")
		sub := h.Subscribe(1000)
		for range sameEach + 100 {
			box.Record(refusal("loop:443"))
		}
		box.Record(refusal("other:443"))
		box.Record(policy.Decision{Plane: policy.PlaneSystem, Action: "start"})
		time.Sleep(2 * foldTime) // the timer, not a record, ends the second
		box.Record(refusal("loop:443"))
		h.Close()
		var want []string
		for i := range sameEach {
			want = append(want, fmt.Sprintf("%d loop:443 0", i+1))
		}
		want = append(want, "33 other:443 0", "34  0", "35 loop:443 100", "36 loop:443 0")
		if diff := cmp.Diff(want, rows(sub)); diff != "" {
			t.Error(diff)
		}
		list, more := box.Refusals()
		if len(list) != 2 || more != 0 || list[0].Times != sameEach+101 {
			t.Errorf("tally %+v, %d more", list, more)
		}
		box.Decisions(func(p policy.Plane, v policy.Verdict, n uint64) {
			want := map[policy.Plane]uint64{policy.PlaneNetwork: sameEach + 102, policy.PlaneSystem: 1}[p]
			if v != policy.Deny {
				want = 0
			}
			if n != want {
				t.Errorf("%d of %s, %s; want %d", n, p, v, want)
			}
		})
		if n := box.Folded(); n != 100 {
			t.Errorf("%d folded", n)
		}
	})
}

// TestFlood has more different refusals than a second may hold: the rest is counted by kind.
func TestFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(nil)
		box := h.Sandbox("box")
		sub := h.Subscribe(allEach + 10)
		for i := range allEach + 500 {
			box.Record(refusal(fmt.Sprintf("host-%d:443", i)))
		}
		h.Close()
		got := rows(sub)
		if len(got) != allEach+1 || got[allEach] != fmt.Sprintf("%d (various) 500", allEach+1) {
			t.Errorf("%d records, the last is %s", len(got), got[len(got)-1])
		}
		if list, more := box.Refusals(); len(list) != maxRefusals || more != allEach+500-maxRefusals {
			t.Errorf("tally of %d and %d more", len(list), more)
		}
	})
}

func TestSlowSubscriber(t *testing.T) {
	h := New(nil)
	box := h.Sandbox("box")
	slow, quick := h.Subscribe(2), h.Subscribe(10)
	for i := range 5 {
		box.Record(refusal(fmt.Sprint(i)))
	}
	h.Close()
	if n := h.Lost(); n != 3 {
		t.Errorf("%d were lost in all", n)
	}
	if got := rows(slow); len(got) != 2 || slow.Lost() != 3 {
		t.Errorf("slow got %v, lost %d", got, slow.Lost())
	}
	if got := rows(quick); len(got) != 5 || quick.Lost() != 0 {
		t.Errorf("quick got %v, lost %d", got, quick.Lost())
	}
	if late := h.Subscribe(1); rows(late) != nil {
		t.Error("a subscription to a closed hub has records")
	}
}

// TestFoldOfCalls has equal model calls become one record, with sums of what can be added up and nothing of what can't.
func TestFoldOfCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(nil)
		box := h.Sandbox("box")
		sub := h.Subscribe(sameEach + 10)
		for i := range sameEach + 3 {
			box.Record(policy.Decision{Plane: policy.PlaneInference, Action: "tool-call", Object: "exec", Verdict: policy.Allow, Inference: &policy.ModelCall{
				ID: fmt.Sprint(i), Model: "corp/big", Asked: fmt.Sprint(i), TokensIn: 2, Classes: map[string]int{"pii": 1},
				Matches: []policy.Matched{{Text: "x"}}, Tool: &policy.ToolUse{Params: fmt.Sprint(i), ParamsBytes: 1},
			}})
		}
		h.Close()
		var last policy.Decision
		for d := range sub.C {
			last = d
		}
		want := &policy.ModelCall{Model: "corp/big", TokensIn: 6, Classes: map[string]int{"pii": 3}, Tool: &policy.ToolUse{ParamsBytes: 3}}
		if last.Count != 3 || !reflect.DeepEqual(last.Inference, want) {
			t.Errorf("the last record stands for %d: %+v", last.Count, last.Inference)
		}
	})
}

// TestAnswersOfModels: what a model has answered is one record each, however fast they come; what is refused is folded.
func TestAnswersOfModels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(nil)
		box := h.Sandbox("box")
		sub := h.Subscribe(3 * allEach)
		asked := func(v policy.Verdict, model string) {
			for range allEach + 100 {
				box.Record(policy.Decision{Plane: policy.PlaneInference, Action: "request", Object: "x", Verdict: v, Inference: &policy.ModelCall{Model: model}})
			}
		}
		asked(policy.Allow, "corp/big")
		asked(policy.Deny, "corp/big")
		asked(policy.Allow, "") // a list of models
		h.Close()
		count := map[string]int{}
		for d := range sub.C {
			count[d.Verdict.String()+" "+d.Inference.Model]++
		}
		if count["allow corp/big"] != allEach+100 || count["deny corp/big"] > sameEach+1 || count["allow "] > sameEach+1 {
			t.Errorf("%v", count)
		}
	})
}

func TestBound(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	many := make([]string, 1000)
	found := make([]policy.Matched, 1000)
	for i := range many {
		many[i], found[i] = long, policy.Matched{Class: long, Kind: long, Via: long, Text: long}
	}
	call := &policy.ModelCall{ID: long, Asked: long, Model: long, Route: long, Unseen: many, Matches: found, Tool: &policy.ToolUse{Through: many, Params: long, Result: long}}
	d := Bound(policy.Decision{Object: long, Reason: long, Action: long, Rule: long, Inference: call, Subject: policy.Subject{Exe: long, Args: strings.Repeat("\x00", 1<<20)}})
	if len(call.Matches) != 1000 || len(call.Tool.Params) != 1<<20 {
		t.Error("what was recorded was changed")
	}
	if n := len(audit.AppendJSON(nil, &d)); n > audit.MaxLine/8 {
		t.Errorf("a bounded record takes %d bytes", n)
	}
	if !strings.HasSuffix(d.Object, "...") || len(d.Object) != maxObject {
		t.Errorf("object of %d bytes ends in %q", len(d.Object), d.Object[len(d.Object)-5:])
	}
}

func TestEvents(t *testing.T) {
	var out bytes.Buffer
	h := New(nil)
	box := h.Sandbox("box")
	e := WriteEvents(h, &out)
	for i := range 3 {
		box.Record(refusal(fmt.Sprintf("h%d:443", i)))
	}
	h.Close()
	if err := e.Wait(time.Second); err != nil {
		t.Fatal(err)
	}
	dec := json.NewDecoder(&out)
	for i := range 3 {
		var d struct {
			Seq             int
			Object, Verdict string
		}
		if err := dec.Decode(&d); err != nil || d.Seq != i+1 || d.Object != fmt.Sprintf("h%d:443", i) || d.Verdict != "deny" {
			t.Errorf("line %d: %+v, %v", i+1, d, err)
		}
	}
}

// TestEventsSlowReader has a reader that takes nothing until the end: it learns how many records it did not get.
func TestEventsSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		h := New(nil)
		box := h.Sandbox("box")
		e := WriteEvents(h, w)
		box.Record(policy.Decision{Plane: policy.PlaneSystem, Action: "start"})
		synctest.Wait() // the writer is stuck with the first record
		const n = behind + 10
		for range n {
			box.Record(policy.Decision{Plane: policy.PlaneSystem, Action: "x"})
		}
		h.Close()
		if err := e.Wait(time.Second); err == nil || !strings.Contains(err.Error(), "did not take the last records") {
			t.Errorf("Wait: %v", err)
		}
		var lines, lost int
		for dec := json.NewDecoder(r); ; {
			var d struct {
				Action string
				Count  int
			}
			if err := dec.Decode(&d); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			if lines++; d.Action == "lost" {
				lost += d.Count
			}
		}
		if lines != 1+behind+1 || lost != 10 {
			t.Errorf("%d lines, %d told lost", lines, lost)
		}
		if err := e.Wait(time.Second); err != nil {
			t.Error(err)
		}
	})
}

func TestEventsBrokenReader(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	h := New(nil)
	box := h.Sandbox("box")
	e := WriteEvents(h, full)
	box.Record(refusal("a:1"))
	if err := e.Wait(time.Second); err == nil || !strings.Contains(err.Error(), "the run goes on without them") {
		t.Errorf("Wait: %v", err)
	}
	box.Record(refusal("b:1"))
	h.Close()
}

func BenchmarkRecord(b *testing.B) {
	log, err := audit.Open(b.TempDir(), "box", audit.Options{})
	if err != nil {
		b.Fatal(err)
	}
	h := New(log)
	box := h.Sandbox("box")
	for b.Loop() {
		box.Record(refusal("host:443"))
	}
	h.Close()
	if err := log.Close(); err != nil {
		b.Fatal(err)
	}
}

// A flood that lasts may not fill the disk: after the first second few records a second are written one by one.
func TestFoldOfALastingFlood(t *testing.T) {
	var w window
	now := time.Now()
	single, counted := 0, uint64(0)
	const seconds, each = 20, 5000
	for range seconds {
		for i := range each {
			d := &policy.Decision{Plane: policy.PlaneNetwork, Action: "connect", Object: strconv.Itoa(i)}
			if !w.fold(d, now) {
				single++
			}
		}
		for _, d := range w.next() {
			counted += d.Count
		}
		now = now.Add(foldTime)
	}
	if most := allEach + seconds*lasting; single > most || single < allEach {
		t.Errorf("%d records written one by one, want %d to %d", single, allEach, most)
	}
	if total := uint64(single) + counted; total != seconds*each {
		t.Errorf("%d attempts told of %d", total, seconds*each)
	}
}

// TestSandboxesShareOneSequence has two sandboxes at once, one of which floods: the other's records are all written one
// by one, each with its sandbox's name, under one sequence.
func TestSandboxesShareOneSequence(t *testing.T) {
	log, err := audit.Open(t.TempDir(), "agent", audit.Options{})
	if err != nil {
		t.Fatal(err)
	}
	h := New(log)
	loud, quiet := h.Sandbox("loud"), h.Sandbox("quiet")
	sub := h.Subscribe(10000)
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range 3 * allEach {
			loud.Record(refusal(fmt.Sprint(i)))
		}
	})
	const few = sameEach
	wg.Go(func() {
		for range few {
			quiet.Record(refusal("same:443"))
		}
	})
	wg.Wait()
	if n, m := loud.Refused(), quiet.Refused(); n != 3*allEach || m != few {
		t.Errorf("%d and %d refused", n, m)
	}
	quiet.Close()
	quiet.Record(refusal("late"))
	h.Close() // closes loud
	loud.Record(refusal("late"))
	h.Sandbox("new").Record(refusal("late"))
	var seq, counted uint64
	singles := 0
	for d := range sub.C {
		if seq++; d.Seq != seq {
			t.Fatalf("record %d came as %d", seq, d.Seq)
		}
		switch {
		case d.Sandbox == "quiet":
			singles++
		case d.Sandbox != "loud" || d.Object == "late":
			t.Errorf("%+v", d)
		default:
			counted += attempts(&d)
		}
	}
	if singles != few || counted != 3*allEach {
		t.Errorf("%d records of the quiet one, %d attempts of the loud one", singles, counted)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	if r, err := audit.VerifyFile(log.Path()); err != nil || r.Fault != nil || r.Head.Seq != seq {
		t.Errorf("audit: %+v %v %v", r, r.Fault, err)
	}
}

func TestCancel(t *testing.T) {
	h := New(nil)
	box := h.Sandbox("box")
	one, two := h.Subscribe(10), h.Subscribe(10)
	box.Record(refusal("a:1"))
	one.Cancel()
	one.Cancel()
	box.Record(refusal("b:1"))
	h.Close()
	two.Cancel()
	if a, b := rows(one), rows(two); len(a) != 1 || len(b) != 2 || one.Lost() != 0 {
		t.Errorf("the cancelled one got %v, the other %v", a, b)
	}
}

// TestPermit: with strict the record is on the disk when Permit returns, and what was folded before it too; where it can't be, that
// is said.
func TestPermit(t *testing.T) {
	log, err := audit.Open(t.TempDir(), "box", audit.Options{})
	if err != nil {
		t.Fatal(err)
	}
	h := New(log)
	box := h.Sandbox("box")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range sameEach {
				if err := box.Permit(refusal("loop:443"), true); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	text, err := os.ReadFile(log.Path())
	if err != nil {
		t.Fatal(err)
	}
	var attempts uint64
	for line := range bytes.Lines(text) {
		var d policy.Decision
		if err := json.Unmarshal(line, &d); err != nil {
			t.Fatal(err)
		}
		attempts += max(d.Count, 1)
	}
	if attempts != 4*sameEach {
		t.Errorf("%d attempts are written down, of %d", attempts, 4*sameEach)
	}
	if err := box.Permit(refusal("loop:443"), false); err != nil {
		t.Error(err)
	}
	h.Close()
	if err := box.Permit(refusal("late:443"), true); err == nil {
		t.Error("a closed recorder has written something down")
	}
	if err := log.Close(); err != nil {
		t.Error(err)
	}
}

// TestRedact: who listens and the log get no more than the other; what is folded is folded by what was attempted, and who is told of
// every attempt is told of that.
func TestRedact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(nil)
		box := h.Sandbox("box")
		sub := h.Subscribe(1000)
		var told []string
		box.Watch(func(d *policy.Decision) { told = append(told, d.Object) })
		box.Redact(func(d *policy.Decision) { d.Object = "[x:y]" })
		for range sameEach + 3 {
			box.Record(refusal("secret:443"))
		}
		box.Record(refusal("other:443"))
		box.Redact(nil)
		box.Record(refusal("plain:443"))
		refused, _ := box.Refusals()
		h.Close()
		got := rows(sub)
		want := []string{fmt.Sprintf("%d [x:y] 0", sameEach), fmt.Sprintf("%d [x:y] 0", sameEach+1), fmt.Sprintf("%d plain:443 0", sameEach+2), fmt.Sprintf("%d secret:443 3", sameEach+3)}
		if diff := cmp.Diff(want, got[sameEach-1:]); diff != "" {
			t.Error(diff)
		}
		if len(told) != sameEach+5 || told[0] != "secret:443" || len(refused) != 3 || refused[0].Object != "secret:443" {
			t.Errorf("told of %q, refused %+v", told, refused)
		}
	})
}

// TestRecordDoesNotAllocate: planes record on their hot paths.
func TestRecordDoesNotAllocate(t *testing.T) {
	r := New(nil).Sandbox("box")
	r.Watch(func(*policy.Decision) {})
	r.Redact(func(*policy.Decision) {})
	d := policy.Decision{Plane: policy.PlaneSystem, Action: "start", Object: "box", Verdict: policy.Allow}
	if n := testing.AllocsPerRun(1000, func() { r.Record(d) }); n != 0 {
		t.Errorf("a record is allocated %v times", n)
	}
}
