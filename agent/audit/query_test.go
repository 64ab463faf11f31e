package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nemoclaw/nemoclaw/policy"
)

var day = time.Date(2026, 5, 4, 0, 0, 0, 0, time.UTC)

// mixed is a record that filters tell apart; its strings look like what they look for.
func mixed(seq uint64) *policy.Decision {
	r := rand.New(rand.NewPCG(seq, 3))
	d := record(seq)
	d.Time = day.Add(time.Duration(seq)*time.Minute - time.Duration(r.IntN(300))*time.Second)
	if seq%100 > 80 { // the clock was wrong for a while
		d.Time = d.Time.Add(time.Duration(r.IntN(9)-4) * time.Hour)
	}
	d.Sandbox = []string{"one", "two", "three"}[r.IntN(3)]
	d.Plane = []policy.Plane{policy.PlaneNetwork, policy.PlaneExec, policy.PlaneFile}[r.IntN(3)]
	d.Verdict = policy.Verdict(r.IntN(3))
	d.Object = `},"verdict":"allow","plane":"exec"`
	d.Subject.Args = string(bytes.Repeat([]byte{"x\"\n\xff"[r.IntN(4)]}, r.IntN(300)))
	return d
}

// rotated writes n mixed records to a chain of small files and returns all lines.
func rotated(t *testing.T, n int, o Options) (dir string, all [][]byte) {
	t.Helper()
	dir = t.TempDir()
	w, err := OpenChain(dir, "agent", "", o)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if err := w.Append(mixed(uint64(i + 1))); err != nil {
			t.Fatal(err)
		}
		if i%3 == 0 { // batches are never split, so let there be many
			if err := w.Flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	f := files{dir, "agent"}
	unpack(t, f)
	numbers, err := f.numbers()
	if err != nil {
		t.Fatal(err)
	}
	for _, number := range append(numbers, 0) {
		for _, line := range lines(read(t, f.closed(number))) {
			all = append(all, line[:len(line)-1])
		}
	}
	return dir, all
}

// decoded is what a reader of the JSON sees of a line.
type decoded struct {
	Seq                     uint64
	Time                    time.Time
	Sandbox, Plane, Verdict string
}

// slowly is Query over decoded lines.
func slowly(all []decoded, flt Filter) (seqs []uint64) {
	for _, d := range all {
		if d.Seq > flt.Since && (flt.Sandbox == "" || d.Sandbox == flt.Sandbox) && !d.Time.Before(flt.From) &&
			(flt.To.IsZero() || !d.Time.After(flt.To)) &&
			(len(flt.Planes) == 0 || slices.Contains(flt.Planes, policy.Plane(d.Plane))) &&
			(len(flt.Verdicts) == 0 || slices.ContainsFunc(flt.Verdicts, func(v policy.Verdict) bool { return v.String() == d.Verdict })) {
			seqs = append(seqs, d.Seq)
		}
	}
	if flt.Last > 0 {
		seqs = seqs[max(0, len(seqs)-flt.Last):]
	}
	return seqs
}

func TestQueryAgainstAllLinesDecoded(t *testing.T) {
	for name, compressed := range map[string]bool{"compressed": true, "as written": false} {
		t.Run(name, func(t *testing.T) { queryAgainstAll(t, compressed) })
	}
}

func queryAgainstAll(t *testing.T, compressed bool) {
	const n = 250
	dir, all := rotated(t, n, Options{Rotate: 6000})
	if compressed {
		if err := (files{dir, "agent"}).tidy(true); err != nil {
			t.Fatal(err)
		}
	}
	if numbers, err := (files{dir, "agent"}).numbers(); err != nil || len(numbers) < 10 {
		t.Fatalf("closed files %v, %v", numbers, err)
	}
	lines := make([]decoded, len(all))
	for i := range all {
		if err := json.Unmarshal(all[i], &lines[i]); err != nil {
			t.Fatal(err)
		}
	}
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 4))
		var flt Filter
		if r.IntN(2) == 0 {
			flt.Since = r.Uint64N(n + 20)
		}
		if r.IntN(2) == 0 {
			flt.From = day.Add(time.Duration(r.IntN(n+20)) * time.Minute)
		}
		if r.IntN(2) == 0 {
			flt.To = day.Add(time.Duration(r.IntN(n+20)) * time.Minute)
		}
		flt.Sandbox = []string{"", "", "two", "none"}[r.IntN(4)]
		if r.IntN(3) == 0 {
			flt.Planes = []policy.Plane{policy.PlaneExec, policy.PlaneFile}
		}
		if r.IntN(3) == 0 {
			flt.Verdicts = []policy.Verdict{policy.Allow, policy.Ask}[:1+r.IntN(2)]
		}
		if r.IntN(2) == 0 {
			flt.Last = 1 + r.IntN(50)
		}
		var got []uint64
		err := Query(t.Context(), dir, "agent", flt, func(seq uint64, line []byte) error {
			if !bytes.Equal(line, all[seq-1]) {
				t.Errorf("record %d is %s", seq, line)
			}
			got = append(got, seq)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(slowly(lines, flt), got); diff != "" {
			t.Fatalf("%+v: %s", flt, diff)
		}
	}
}

func TestQueryErrors(t *testing.T) {
	dir, _ := rotated(t, 50, Options{Rotate: 5000})
	mine := errors.New("enough")
	calls := 0
	err := Query(t.Context(), dir, "agent", Filter{}, func(uint64, []byte) error { calls++; return mine })
	if !errors.Is(err, mine) || calls != 1 {
		t.Errorf("%v after %d calls", err, calls)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	none := func(uint64, []byte) error { return nil }
	if err := Query(ctx, dir, "agent", Filter{}, none); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if err := Query(t.Context(), dir, "other", Filter{}, none); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no such chain: %v", err)
	}
}

// TestQueryBrokenFiles has what a kill, a full disk or a careless hand leave: whatever is whole is still found.
func TestQueryBrokenFiles(t *testing.T) {
	const n = 60
	change := func(f func(files, []int) error) func(t *testing.T) []uint64 {
		return func(t *testing.T) (got []uint64) {
			dir, _ := rotated(t, n, Options{Rotate: 5000})
			of := files{dir, "agent"}
			numbers, err := of.numbers()
			if err != nil {
				t.Fatal(err)
			}
			if err := f(of, numbers); err != nil {
				t.Fatal(err)
			}
			for _, flt := range []Filter{{}, {Last: 3}, {Since: n / 2}, {From: day.Add(-time.Hour)}} {
				got = nil
				err := Query(t.Context(), dir, "agent", flt, func(seq uint64, _ []byte) error { got = append(got, seq); return nil })
				if err != nil {
					t.Errorf("%+v: %v", flt, err)
				}
			}
			return got
		}
	}
	cut := func(path string, by int64) error {
		st, err := os.Stat(path)
		if err != nil {
			return err
		}
		return os.Truncate(path, st.Size()-by)
	}
	for name, c := range map[string]struct {
		got  func(t *testing.T) []uint64
		want int
	}{
		"whole":          {change(func(files, []int) error { return nil }), n},
		"torn":           {change(func(f files, _ []int) error { return cut(f.live(), 1) }), n - 1},
		"torn, closed":   {change(func(f files, n []int) error { return cut(f.closed(n[1]), 30) }), n - 1},
		"empty live one": {change(func(f files, n []int) error { return os.Rename(f.live(), f.closed(newest(n)+1)) }), n},
		"garbage": {change(func(f files, n []int) error {
			return os.WriteFile(f.closed(newest(n)+1), []byte("\x00\n{}\n{\"seq\":x\n"), 0o600)
		}), n},
	} {
		t.Run(name, func(t *testing.T) {
			if got := c.got(t); len(got) != c.want {
				t.Errorf("%d records: %v", len(got), got)
			}
		})
	}
}

// TestFollow follows while records come, files are closed and old ones removed, from several places at once: each sees
// every record from its place on, once, in order.
func TestFollow(t *testing.T) {
	dir := t.TempDir()
	w, err := OpenChain(dir, "agent", "", Options{Rotate: 20 << 10})
	if err != nil {
		t.Fatal(err)
	}
	const n = 3000
	var wg sync.WaitGroup
	add := func(from, to int) {
		for i := from; i <= to; i++ {
			if err := w.Append(record(uint64(i))); err != nil {
				t.Error(err)
			}
			if i%50 == 0 {
				if err := w.Flush(); err != nil {
					t.Error(err)
				}
			}
		}
	}
	add(1, 500)
	follow := func(flt Filter, first uint64, slow bool) {
		next := first
		err := w.Follow(t.Context(), flt, func(seq uint64, line []byte) error {
			if seq != next || !bytes.Contains(line, fmt.Appendf(nil, `"object":"host-%d.example:443"`, seq)) {
				return fmt.Errorf("record %d where %d should be: %s", seq, next, line)
			}
			if next++; slow && seq%500 == 0 {
				time.Sleep(20 * time.Millisecond)
			}
			return nil
		})
		if err != nil || next != n+1 {
			t.Errorf("%+v: ended before record %d: %v", flt, next, err)
		}
	}
	wg.Go(func() { follow(Filter{}, 1, false) })
	wg.Go(func() { follow(Filter{}, 1, true) })
	wg.Go(func() { follow(Filter{Since: 250}, 251, false) })
	wg.Go(func() { follow(Filter{Since: 500}, 501, false) })
	wg.Go(func() { follow(Filter{Since: 2500}, 2501, false) })
	ctx, cancel := context.WithCancel(t.Context())
	wg.Go(func() {
		err := w.Follow(ctx, Filter{Last: 5}, func(seq uint64, _ []byte) error {
			if seq > 1000 {
				cancel()
			}
			return nil
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("after its context ended: %v", err)
		}
	})
	wg.Go(func() {
		add(501, n)
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	wg.Wait()
	if r, err := VerifyFile(w.Path()); err != nil || r.Fault != nil || r.Lines != n || r.Files < 20 {
		t.Errorf("%+v, %v, %v", r, r.Fault, err)
	}
}

// TestFollowWithFewKept lets files go while somebody reads: what is read is in order and ends with the last record.
func TestFollowWithFewKept(t *testing.T) {
	w, err := OpenChain(t.TempDir(), "agent", "", Options{Rotate: 5000, Keep: 2})
	if err != nil {
		t.Fatal(err)
	}
	const n = 2000
	var wg sync.WaitGroup
	wg.Go(func() {
		var last uint64
		err := w.Follow(t.Context(), Filter{}, func(seq uint64, _ []byte) error {
			if seq <= last {
				return fmt.Errorf("record %d after %d", seq, last)
			}
			last = seq
			return nil
		})
		if err != nil || last != n {
			t.Errorf("ended with record %d: %v", last, err)
		}
	})
	for i := range n {
		if err := errors.Join(w.Append(record(uint64(i+1))), w.Flush()); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if numbers, err := w.files.numbers(); err != nil || len(numbers) != 2 {
		t.Errorf("closed files %v, %v", numbers, err)
	}
	if r, err := VerifyFile(w.Path()); err != nil || r.Fault != nil || r.Files != 3 || r.First < 2 || r.Head.Seq != n {
		t.Errorf("%+v, %v, %v", r, r.Fault, err)
	}
}

// FuzzCutFields compares what is cut out of a line with what decoding it gives.
func FuzzCutFields(f *testing.F) {
	f.Add(`},"verdict":"allow"`, "a\xff\x1b\"", uint8(1))
	f.Add("x", `","plane":"exec`, uint8(2))
	f.Fuzz(func(t *testing.T, object, reason string, verdict uint8) {
		d := mixed(7)
		d.Object, d.Reason, d.Verdict, d.Subject.Args, d.Action, d.Asked = object, reason, policy.Verdict(verdict%3), reason, object, reason
		line, _ := appendLine(nil, d, genesis)
		got, ok := cutFields(line[:len(line)-1])
		if !ok || got.seq != 7 || string(got.sandbox) != d.Sandbox || string(got.plane) != string(d.Plane) || !got.when().Equal(d.Time) {
			t.Fatalf("%+v of %s", got, line)
		}
		for _, v := range []policy.Verdict{policy.Deny, policy.Ask, policy.Allow} {
			if ok := (&Filter{Verdicts: []policy.Verdict{v}}).matches(&got); ok != (v == d.Verdict) {
				t.Fatalf("verdict %v of %s", v, line)
			}
		}
		if _, ok := cutFields([]byte(object)); ok {
			t.Skip("an object that is a line")
		}
	})
}

func BenchmarkQuery(b *testing.B) {
	dir := b.TempDir()
	w, err := OpenChain(dir, "agent", "", Options{})
	if err != nil {
		b.Fatal(err)
	}
	for i := range 100000 {
		if err := w.Append(record(uint64(i + 1))); err != nil {
			b.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	st, err := os.Stat(filepath.Join(dir, "agent.jsonl"))
	if err != nil {
		b.Fatal(err)
	}
	for name, flt := range map[string]Filter{"none": {Sandbox: "none"}, "deny": {Verdicts: []policy.Verdict{policy.Allow}}, "last": {Last: 100}, "since": {Since: 99900}} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(st.Size())
			for b.Loop() {
				if err := Query(b.Context(), dir, "agent", flt, func(uint64, []byte) error { return nil }); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestHalfWritten looks for the first record of a file while it is being written: it is found or not there yet, never passed over.
func TestHalfWritten(t *testing.T) {
	file, err := os.OpenFile(filepath.Join(t.TempDir(), "live"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	one, prev := appendLine(nil, mixed(1), genesis)
	both, _ := appendLine(one, mixed(2), prev)
	for i := range 2000 {
		if err := file.Truncate(0); err != nil {
			t.Fatal(err)
		}
		half := i % min(len(one), 200)
		if _, err := file.WriteAt(both[:half], 0); err != nil {
			t.Fatal(err)
		}
		written := make(chan error)
		go func() {
			_, err := file.WriteAt(both[half:], int64(half))
			written <- err
		}()
		seq, _, err := recordAt(plain{file}, 0)
		if err != nil || seq != 1 && seq != forever {
			t.Fatalf("record %d, %v, with %d bytes at first", seq, err, half)
		}
		if err := <-written; err != nil {
			t.Fatal(err)
		}
	}
}

// TestText: letters are looked for as they stand in the line, with the last ones too.
func TestText(t *testing.T) {
	dir, _ := rotated(t, 60, Options{Rotate: 5000})
	for _, c := range []struct {
		flt  Filter
		want []uint64
	}{
		{Filter{Text: "host-17.example"}, nil},
		{Filter{Text: `},"verdict":"allow","plane":"exec"`, Since: 57}, []uint64{58, 59, 60}},
		{Filter{Text: "06Z", Last: 1}, nil},
		{Filter{Text: "/usr/bin/curl", Last: 2}, []uint64{59, 60}},
	} {
		var got []uint64
		if err := Query(t.Context(), dir, "agent", c.flt, func(seq uint64, _ []byte) error { got = append(got, seq); return nil }); err != nil {
			t.Fatal(err)
		}
		if c.want != nil && !slices.Equal(got, c.want) || c.flt.Last > 0 && len(got) > c.flt.Last {
			t.Errorf("%+v: %v, want %v", c.flt, got, c.want)
		}
	}
}

// TestTail: it says when it has handed on all there is, and only then; what comes while that takes its time is not missed.
func TestTail(t *testing.T) {
	w, err := OpenChain(t.TempDir(), "agent", "", Options{Rotate: 2000})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	write := func(from, to uint64) {
		for n := from; n <= to; n++ {
			if err := w.Append(mixed(n)); err != nil {
				t.Fatal(err)
			}
		}
	}
	write(1, 30)
	var seen, rested []uint64
	done := errors.New("enough")
	err = w.Tail(t.Context(), Filter{}, func(seq uint64, line []byte) error {
		if e, ok := ReadEntry(line); !ok || e.Seq != seq || e.Hash == "" || e.Plane != mixed(seq).Plane || e.Verdict != mixed(seq).Verdict || !e.Time.Equal(mixed(seq).Time) {
			t.Errorf("%+v of %s", e, line)
		}
		seen = append(seen, seq)
		return nil
	}, func() error {
		rested = append(rested, uint64(len(seen)))
		switch len(rested) {
		case 1:
			write(31, 60)
			return w.Flush()
		case 2:
			write(61, 61)
			return nil
		}
		return done
	})
	if !errors.Is(err, done) || len(seen) != 61 || !slices.Equal(rested, []uint64{30, 60, 61}) {
		t.Errorf("%v: %d, rested at %v", err, len(seen), rested)
	}
}

func TestGap(t *testing.T) {
	t.Parallel()
	lost := policy.Decision{Seq: 20, Plane: policy.PlaneSystem, Action: "lost", Rule: "builtin", Count: 5}
	mimic := policy.Decision{Seq: 20, Plane: policy.PlaneFile, Action: "lost", Rule: "builtin", Count: 5}
	for _, c := range []struct {
		d           policy.Decision
		before      uint64
		first, last uint64
		gone        bool
	}{
		{lost, 15, 16, 15, false}, {lost, 12, 13, 15, true}, {lost, 19, 0, 0, false}, {lost, 17, 18, 17, false},
		{mimic, 15, 16, 19, true}, {policy.Decision{Seq: 20}, 19, 0, 0, false}, {policy.Decision{Seq: 20}, 20, 0, 0, false}, {policy.Decision{Seq: 20}, 10, 11, 19, true},
	} {
		first, last, gone := Gap(c.before, AppendJSON(nil, &c.d))
		if gone != c.gone || gone && (first != c.first || last != c.last) {
			t.Errorf("%s after %d: %d to %d, %v", c.d.Action, c.before, first, last, gone)
		}
	}
}
