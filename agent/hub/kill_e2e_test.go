//go:build e2e

package hub

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/agent/audit"
	"github.com/nemoclaw/nemoclaw/policy"
	"github.com/nemoclaw/nemoclaw/test/harness"
)

func TestMain(m *testing.M) { harness.Mounts(m) }

const (
	sandboxes = 16
	perSecond = 120_000 // decisions of all of them
	strictly  = 500     // of so many decisions of a sandbox one waits for the disk
	kills     = 5       // with room on the disk, and so many on one that becomes full
	most      = 2 << 20 // bytes of records that a kill may cost, as docs/audit.md says
)

// ledger is what the killed process knew, in memory that outlives it.
type ledger struct {
	handed atomic.Uint64 // a number that was given, of which the log has been told
	of     [sandboxes]struct {
		decided   atomic.Uint64       // decisions that were recorded
		permitted [1024]atomic.Uint64 // by the number of the Permit that succeeded: how many decisions it and those before it were
	}
}

func openLedger(t *testing.T, name string) *ledger {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size := int(unsafe.Sizeof(ledger{}))
	if err := f.Truncate(int64(size)); err != nil {
		t.Fatal(err)
	}
	b, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Munmap(b); err != nil {
			t.Error(err)
		}
	})
	return (*ledger)(unsafe.Pointer(unsafe.SliceData(b)))
}

// open opens the chain, which the killed process and the one that looks after it share.
func open(t *testing.T, dir, key, full string) (*audit.Signer, *audit.Writer) {
	t.Helper()
	s, err := audit.OpenSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	w, err := audit.OpenChain(dir, "agent", "", audit.Options{Rotate: 8 << 20, Keep: 12, Drop: full == "drop", Signer: s})
	if err != nil {
		t.Fatal(err)
	}
	return s, w
}

// TestDecidingProcess is the process that is killed.
func TestDecidingProcess(t *testing.T) {
	round := os.Getenv("HUB_ROUND")
	if round == "" {
		return
	}
	_, log := open(t, os.Getenv("HUB_DIR"), os.Getenv("HUB_KEY"), os.Getenv("HUB_FULL"))
	l, h := openLedger(t, os.Getenv("HUB_LEDGER")), New(log)
	for i := range sandboxes {
		go decide(h.Sandbox(fmt.Sprintf("%s-%d", round, i)), l, i, log)
	}
	<-log.Failed()
	t.Fatal(log.Err())
}

// decide makes one sandbox's decisions. Those about the system are written one by one; a flood, of which most is folded, comes before
// each one that is let through.
func decide(r *Recorder, l *ledger, i int, log *audit.Writer) {
	me, began, permits := &l.of[i], time.Now(), 0
	d := policy.Decision{Object: "/usr/bin/true", Verdict: policy.Allow, Rule: "policy.yaml:7", Revision: "0123456789abcdef",
		Subject: policy.Subject{PID: 4711, Exe: "/usr/bin/bash", Args: "bash -c true"}}
	record := func(plane policy.Plane, action, object string) {
		d.Plane, d.Action, d.Object = plane, action, object
		r.Record(d)
		me.decided.Add(1)
	}
	for n := 0; log.Err() == nil; time.Sleep(time.Millisecond) {
		for due := int(time.Since(began).Seconds() * perSecond / sandboxes); n < due; n++ {
			if n%strictly != strictly/2 || permits == len(me.permitted) {
				record(policy.PlaneSystem, "command", "/usr/bin/true")
				if i == 0 {
					l.handed.Store(log.Head().Seq)
				}
				continue
			}
			for range 2 * sameEach {
				record(policy.PlaneNetwork, "connect", "flood.example.com:443")
			}
			d.Object = fmt.Sprintf("permit-%d.example.com:443", permits)
			err := r.Permit(d, true)
			all := me.decided.Add(1)
			if err == nil {
				me.permitted[permits].Store(all)
			}
			permits++
		}
	}
}

// TestKilledWhileDeciding kills a process that decides 120,000 times a second, at any moment, over and over: with room on its disk and
// while that becomes full, where a full disk ends everything and where records are counted. The next start finds a whole chain, what
// Permit said is on the disk is in it, and of the rest no more is gone than docs/audit.md says.
func TestKilledWhileDeciding(t *testing.T) {
	for _, full := range []string{"deny", "drop"} {
		t.Run(full, func(t *testing.T) {
			k := &killed{dir: harness.NewDisk(t, 192).Dir, key: t.TempDir(), full: full}
			for n := range 2 * kills {
				k.round(t, n)
			}
			if k.decided < 2*kills*10_000 || k.permitted == 0 || k.wasFull == 0 || full == "drop" && k.lost == 0 {
				t.Errorf("%d decisions, %d let through, %d times full, %d lost: that shows little", k.decided, k.permitted, k.wasFull, k.lost)
			}
			t.Logf("%d kills, %d of them on a full disk: %d decisions in %v, %d of them waited until they were on the disk; a kill cost %d bytes of the others at most, and %d were counted as lost",
				2*kills, k.wasFull, k.decided, k.time.Round(time.Millisecond), k.permitted, k.cost, k.lost)
		})
	}
}

// killed is what is known of one chain over all rounds.
type killed struct {
	dir, key, full string

	decided, permitted, lost uint64
	wasFull, cost            int
	time                     time.Duration
}

// round starts the process, kills it, and looks at what is there. The first one on a small disk waits until that is full.
func (k *killed) round(t *testing.T, n int) {
	t.Helper()
	round, small := fmt.Sprintf("round%d", n), n >= kills
	name := filepath.Join(t.TempDir(), "ledger")
	l := openLedger(t, name)
	ballast := filepath.Join(k.dir, "ballast")
	if small {
		left := 0
		if n > kills {
			left = rand.IntN(12 << 20)
		}
		f, err := os.Create(ballast)
		if err == nil {
			err = errors.Join(unix.Fallocate(int(f.Fd()), 0, 0, k.room(t)-int64(1<<20+left)), f.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	var said bytes.Buffer
	c := exec.Command(os.Args[0], "-test.run=^TestDecidingProcess$")
	c.Env = append(os.Environ(), "HUB_ROUND="+round, "HUB_DIR="+k.dir, "HUB_KEY="+k.key, "HUB_LEDGER="+name, "HUB_FULL="+k.full)
	c.Stdout, c.Stderr = &said, &said
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = c.Wait() // it is killed
		close(ended)
	}()
	for begun := false; !begun; {
		select {
		case <-ended:
			begun = true
		case <-time.After(time.Millisecond):
			begun = l.handed.Load() > 0
		}
	}
	began, lost, full := time.Now(), k.lost, false
	select {
	case <-ended:
		full = small // which ends everything, where it is to
	case <-time.After(50*time.Millisecond + time.Duration(rand.IntN(700))*time.Millisecond):
		// No longer than the files with what Permit let through are kept.
		for most := l.handed.Load() + 100_000; n == kills && !full && k.room(t) >= 64<<10 && l.handed.Load() < most; {
			select {
			case <-ended:
				full = true
			case <-time.After(time.Millisecond):
			}
		}
		_ = c.Process.Kill()
	}
	<-ended
	k.time += time.Since(began)
	if small {
		full = full || k.room(t) < 64<<10
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
	}
	if err := k.check(t, round, l); err != nil {
		t.Fatalf("%s: %v\n%s", round, err, said.Bytes())
	}
	if full || k.lost > lost { // a file that was compressed meanwhile makes room again
		k.wasFull++
	}
}

func (k *killed) room(t *testing.T) int64 {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(k.dir, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Bavail) * st.Bsize
}

// check opens the chain as the next start does, and compares it with what the killed process knew.
func (k *killed) check(t *testing.T, round string, l *ledger) error {
	t.Helper()
	key, w := open(t, k.dir, k.key, k.full)
	next := w.Head().Seq
	if err := w.Close(); err != nil {
		return err
	}
	e, err := key.Evidence(w.Path())
	if err != nil {
		return err
	}
	r, err := e.VerifyFile(w.Path())
	if err != nil {
		return err
	}
	if r.Fault != nil {
		return r.Fault
	}
	if r.Signed == nil || r.Signed.Seq != r.Head.Seq {
		return fmt.Errorf("it is not signed to its end: %+v", r)
	}
	if k.full == "deny" && r.Lost > 0 {
		return fmt.Errorf("%d records are counted as lost where all that happened must be there", r.Lost)
	}
	k.lost = max(k.lost, r.Lost) // in the files that are kept
	there, err := k.read(round)
	if err != nil {
		return err
	}
	if handed := l.handed.Load(); handed > next {
		k.cost = max(k.cost, int(handed-next)*there.line)
	}
	if k.cost > most+audit.MaxLine {
		return fmt.Errorf("a kill has cost %d bytes of records", k.cost)
	}
	for i := range sandboxes {
		of := &l.of[i]
		k.decided += of.decided.Load()
		for n := range of.permitted {
			all := of.permitted[n].Load()
			if all == 0 {
				continue
			}
			k.permitted++
			if !there.permits[fmt.Sprintf("%s-%d permit-%d.example.com:443", round, i, n)] {
				return fmt.Errorf("sandbox %d: what Permit %d said is on the disk is not there", i, n)
			}
			// With drop some of them may be counted as lost, without their sandbox's name.
			if got := there.decided[fmt.Sprintf("%s-%d", round, i)]; k.full == "deny" && got < all {
				return fmt.Errorf("sandbox %d: %d decisions are there, of %d that are on the disk as Permit %d said", i, got, all, n)
			}
		}
	}
	return nil
}

// found is what the log has of a round.
type found struct {
	decided map[string]uint64 // decisions by sandbox
	permits map[string]bool   // "SANDBOX OBJECT"
	line    int               // bytes of a line
}

func (k *killed) read(round string) (f found, err error) {
	f = found{map[string]uint64{}, map[string]bool{}, 1}
	ours := []byte(`"sandbox":"` + round + "-")
	err = audit.Query(context.Background(), k.dir, "agent", audit.Filter{}, func(_ uint64, line []byte) error {
		if !bytes.Contains(line, ours) {
			return nil
		}
		var d policy.Decision
		if err := json.Unmarshal(line, &d); err != nil {
			return err
		}
		f.decided[d.Sandbox] += max(d.Count, 1)
		if strings.HasPrefix(d.Object, "permit-") {
			f.permits[d.Sandbox+" "+d.Object] = true
		}
		f.line = len(line) + 1
		return nil
	})
	return f, err
}
