package forward

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/audit"
	"github.com/nemoclaw/nemoclaw/agent/config"
	"github.com/nemoclaw/nemoclaw/policy"
)

// decision is a record with what comes from inside of a sandbox: bytes of somebody hostile.
func decision(seq uint64) *policy.Decision {
	evil := []string{"/x", "]\" [a@1 seq=\"1\"] {\"seq\":1}\n9 <0>1", "\x00\r\n\x1b[2J\u2028\u202e\u200b\ufeff\U000e0041\xff", `","hash":"0"}]}],"x":[{"`, strings.Repeat("\\\"]", 500)}
	return &policy.Decision{
		Seq: seq, Time: time.Unix(1_700_000_000+int64(seq), 123456789), Sandbox: "box", Plane: policy.Planes()[seq%7], Action: "open", Object: evil[seq%5],
		Subject: policy.Subject{PID: 7, Exe: "/bin/x", Args: evil[(seq+1)%5]}, Verdict: policy.Verdict(seq % 3), Rule: "p.yaml:1", Revision: "aa",
	}
}

// trail is a log that is written.
type trail struct {
	*audit.Writer
	t   *testing.T
	dir string
}

func newTrail(t *testing.T, o audit.Options) *trail {
	t.Helper()
	dir := t.TempDir()
	w, err := audit.OpenChain(dir, "agent", "", o)
	if err != nil {
		t.Fatal(err)
	}
	tr := &trail{w, t, dir}
	t.Cleanup(func() { _ = tr.Close() })
	return tr
}

// write appends n records.
func (tr *trail) write(n int) {
	tr.t.Helper()
	for range n {
		if err := tr.Append(decision(tr.Head().Seq + 1)); err != nil {
			tr.t.Fatal(err)
		}
	}
}

// notes keeps what was recorded.
type notes struct {
	mu   sync.Mutex
	list []string
}

func (n *notes) note(action, object, reason string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.list = append(n.list, action+" "+object+": "+reason)
}

func (n *notes) with(part string) (count int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, one := range n.list {
		if strings.Contains(one, part) {
			count++
		}
	}
	return count
}

// open makes a hasty stream to one receiver.
func open(t *testing.T, c config.Forward, dir string, n *notes) Streams {
	t.Helper()
	c.Name = "one"
	all, err := Open([]config.Forward{c}, dir, n.note)
	if err != nil {
		t.Fatal(err)
	}
	s := all[0]
	s.pace, s.first, s.longest, s.patience = 2*time.Millisecond, time.Millisecond, 20*time.Millisecond, 0
	return all
}

// start runs streams until what it returns is called.
func start(t *testing.T, all Streams, w *audit.Writer) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { all.Run(ctx, w); close(ended) }()
	return func() { cancel(); <-ended }
}

func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it never came about: %s", what)
		}
	}
}

// got is what a receiver has.
type got struct {
	mu     sync.Mutex
	order  []uint64 // by first arrival
	hashes map[uint64]string
	dups   int
	bad    []string // what can't be
}

func (g *got) add(seq uint64, hash string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.hashes == nil {
		g.hashes = map[uint64]string{}
	}
	was, again := g.hashes[seq]
	if again {
		g.dups++
		if was != hash {
			g.bad = append(g.bad, fmt.Sprintf("record %d is two", seq))
		}
		return
	}
	g.hashes[seq] = hash
	g.order = append(g.order, seq)
}

func (g *got) fault(format string, args ...any) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.bad = append(g.bad, fmt.Sprintf(format, args...))
}

func (g *got) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.order)
}

// check compares it with the log: the same records, with their hashes, in order, but for those that may be missing.
func (g *got) check(t *testing.T, tr *trail, missing ...uint64) {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, b := range g.bad[:min(len(g.bad), 5)] {
		t.Error(b)
	}
	var want []uint64
	if err := tr.Query(t.Context(), audit.Filter{}, func(seq uint64, line []byte) error {
		if slices.Contains(missing, seq) {
			return nil
		}
		e, _ := audit.ReadEntry(line)
		want = append(want, seq)
		if g.hashes[seq] != e.Hash {
			t.Errorf("record %d has the hash %q, want %q", seq, g.hashes[seq], e.Hash)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(g.order, want) {
		t.Errorf("%d records came, want %d; in order: %v", len(g.order), len(want), slices.IsSorted(g.order))
	}
}

// TestItGoesOnWhereItWas: from daemon to daemon, and over rotation and compression, nothing is sent twice that was acknowledged.
func TestItGoesOnWhereItWas(t *testing.T) {
	t.Parallel()
	tr := newTrail(t, audit.Options{Rotate: 20_000})
	var g got
	c := config.Forward{Loki: lokiServer(t, &g, nil)}
	dir := t.TempDir()
	tr.write(700)
	for range 3 {
		var n notes
		all := open(t, c, dir, &n)
		stop := start(t, all, tr.Writer)
		tr.write(300)
		until(t, "all is there", func() bool { return all.Forwarded() == tr.Head().Seq })
		stop()
		if s := all.States()[0]; s.Error != "" || s.Behind != 0 || s.Seq != tr.Head().Seq || len(n.list) > 0 {
			t.Errorf("%+v, %q", s, n.list)
		}
	}
	g.check(t, tr)
	if g.dups > 0 {
		t.Errorf("%d came twice", g.dups)
	}
}

// TestFilter: what nobody wants does not hold up retention.
func TestFilter(t *testing.T) {
	t.Parallel()
	tr := newTrail(t, audit.Options{})
	var g got
	var n notes
	all := open(t, config.Forward{Loki: lokiServer(t, &g, nil), Verdicts: []string{"deny"}, Planes: []string{"dns", "file"}}, t.TempDir(), &n)
	defer start(t, all, tr.Writer)()
	tr.write(210)
	until(t, "all is looked at", func() bool { return all.Forwarded() == 210 })
	if n := g.count(); n != 20 {
		t.Errorf("%d came", n)
	}
	for _, seq := range g.order {
		if d := decision(seq); d.Verdict != policy.Deny || d.Plane != policy.PlaneDNS && d.Plane != policy.PlaneFile {
			t.Errorf("%d came", seq)
		}
	}
}

// TestAnotherLog: one that was begun anew is sent whole.
func TestAnotherLog(t *testing.T) {
	t.Parallel()
	for name, records := range map[string]int{"shorter": 5, "longer": 50} {
		dir := t.TempDir()
		if err := (cursor{20, strings.Repeat("ab", 32)}).write(filepath.Join(dir, "one")); err != nil {
			t.Fatal(err)
		}
		tr := newTrail(t, audit.Options{})
		tr.write(records)
		var g got
		var n notes
		all := open(t, config.Forward{Loki: lokiServer(t, &g, nil)}, dir, &n)
		stop := start(t, all, tr.Writer)
		until(t, name, func() bool { return g.count() == records })
		stop()
		g.check(t, tr)
		if n.with("another one than that of which the receiver has the records up to 20") != 1 {
			t.Errorf("%s: %q", name, n.list)
		}
	}
}

// TestRemovedBefore: what audit_max_total removed before it was sent is counted and told, once; the rest is sent.
func TestRemovedBefore(t *testing.T) {
	t.Parallel()
	var all Streams
	var g got
	var n notes
	var down sync.Mutex
	down.Lock()
	url := lokiServer(t, &g, func() int {
		if down.TryLock() {
			down.Unlock()
			return 204
		}
		return 503
	})
	all = open(t, config.Forward{Loki: url}, t.TempDir(), &n)
	tr := newTrail(t, audit.Options{Rotate: 20_000, MaxTotal: 60_000, Forwarded: all.Forwarded, Unforwarded: all.Removed})
	tr.write(10)
	stop := start(t, all, tr.Writer)
	defer stop()
	for range 40 {
		tr.write(200)
		if err := tr.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "it is told", func() bool { return n.with("were removed from the log before the receiver had them") > 0 })
	until(t, "it is seen that nothing arrives", func() bool { return all.States()[0].Error != "" && all.States()[0].Behind > 0 })
	down.Unlock()
	until(t, "the rest is there", func() bool { return all.Forwarded() == tr.Head().Seq })
	s := all.States()[0]
	if got := uint64(g.count()); s.Removed == 0 || s.Removed+got < tr.Head().Seq || s.Error != "" {
		t.Errorf("%+v, %d of %d came", s, got, tr.Head().Seq)
	}
	if n.with("records don't arrive; the log keeps them") != 1 || n.with("records arrive again") != 1 {
		t.Errorf("%q", n.list)
	}
}

// TestCursorThatIsNone is refused: to send all of a log again, or none of it, is nobody's guess.
func TestCursorThatIsNone(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "x\n", "7", "-1:a\n"} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "one"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open([]config.Forward{{Name: "one", Loki: "http://127.0.0.1:1"}}, dir, nil); err == nil || !strings.Contains(err.Error(), "forward one: ") || !strings.Contains(err.Error(), "does not say how far") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// nowhere is an address where nobody listens.
func nowhere(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
