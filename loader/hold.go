package loader

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/bpf"
	"github.com/nemoclaw/nemoclaw/policy"
)

// HeldCall names a system call that waits in the kernel for an answer: its process is stopped, all threads of it. A parent
// that waits with WUNTRACED, as a shell with job control does, sees it stop. Held calls can be compared; two are never equal,
// not even of one task that asks the same again.
type HeldCall struct {
	key   bpf.LsmHeldKey
	pid   int
	asked uint64 // CLOCK_BOOTTIME
}

// IsZero reports whether no call waits.
func (h HeldCall) IsZero() bool { return h == HeldCall{} }

// PID is the process that is stopped, in the host's pid namespace.
func (h HeldCall) PID() int { return h.pid }

// TID is the thread of it that called.
func (h HeldCall) TID() int { return int(h.key.Tid) }

// Started is when that thread began, in nanoseconds of CLOCK_BOOTTIME: no other thread with its TID began then.
func (h HeldCall) Started() uint64 { return h.key.Started }

// ErrNotHeld says that a call does not wait any more: it was answered before or a grant let it pass, it was refused because
// somebody inside made it go on again and again (which is an event), it was left by a signal's handler, or its task is dead.
var ErrNotHeld = errors.New("the call does not wait any more")

// Resume answers a held call, Allow or Deny, and returns when it was judged by that: never call it in OnEvent. It takes a millisecond
// unless the machine is busy or other threads of the process are held too, and a minute when the call does not come back for its
// answer. If it is still stopped then, because of many other threads, the answer stays for it; else, if the sandbox is frozen for
// instance, it is asked about anew when it comes.
//
// Only this call has the answer: one for others, too, is GrantFile's, before Resume. A call is answered once; whoever comes second
// gets ErrNotHeld. After a rejection the call returns EACCES, and another try asks again.
func (g *Guard) Resume(h HeldCall, v policy.Verdict) error {
	if v != policy.Allow && v != policy.Deny {
		return errors.New("answer a held call: the answer is allow or deny")
	}
	if h.IsZero() || h.key.What.Cgid != g.cgid {
		return ErrNotHeld
	}
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return errClosed
	}
	err := g.l.answer(h, v)
	g.l.waking.Add(1)
	g.mu.Unlock()
	defer g.l.waking.Done()
	if err != nil {
		return err
	}
	return g.l.wake(h)
}

// call is where the answer to a held call lies.
func (h HeldCall) call() bpf.LsmCallKey {
	return bpf.LsmCallKey{Cgid: h.key.What.Cgid, Started: h.key.Started, Asked: h.asked, Tid: h.key.Tid}
}

// waits reports whether a call waits, whether it is answered or not.
func (l *Loader) waits(h HeldCall) (bool, error) {
	var held bpf.LsmHeld
	err := l.maps.pending.Lookup(h.key, &held)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return false, fmt.Errorf("look whether a call is held: %w", err)
	}
	return err == nil && held.Asked == h.asked, nil
}

// answer puts the answer where the program that judges the call anew finds it.
func (l *Loader) answer(h HeldCall, v policy.Verdict) error {
	waits, err := l.waits(h)
	if err != nil {
		return err
	}
	if waits {
		err = l.maps.answers.Update(h.call(), bpf.LsmCallAnswer{Verdict: uint8(v)}, ebpf.UpdateNoExist)
	}
	if !waits || errors.Is(err, ebpf.ErrKeyExist) {
		return ErrNotHeld
	}
	if err != nil {
		return putError("the answer to a held call", err)
	}
	return nil
}

// judged reports whether a call was judged by its answer. ErrNotHeld: it never will be.
func (l *Loader) judged(h HeldCall) (bool, error) {
	var a bpf.LsmCallAnswer
	err := l.maps.answers.Lookup(h.call(), &a)
	switch {
	case errors.Is(err, ebpf.ErrKeyNotExist), err == nil && a.Seen != 0:
		return true, nil
	case err != nil:
		return false, fmt.Errorf("look whether a held call was judged: %w", err)
	}
	if waits, err := l.waits(h); waits || err != nil {
		return false, err
	}
	// The call takes its answer away before it stops to be pending.
	err = l.maps.answers.Delete(h.call())
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return true, nil
	}
	return false, errors.Join(ErrNotHeld, err)
}

// forget removes what is left of a call that comes back no more, and returns ErrNotHeld; nil when it was judged by its answer after all.
// If it does come back it is asked about anew.
func (l *Loader) forget(h HeldCall) error {
	waits, err := l.waits(h)
	if waits {
		err = remove(l.maps.pending, h.key)
	}
	if err != nil {
		return err
	}
	err = l.maps.answers.Delete(h.call())
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	return errors.Join(ErrNotHeld, err)
}

// How long an answered call is made to go on until it counts as one that does not come back, and how long it is waited between two SIGCONT.
const (
	wakeTime  = time.Minute
	wakeFirst = time.Millisecond
	wakeLast  = 100 * time.Millisecond
)

// wake lets an answered call go on until it was seen judged. One SIGCONT may not be enough: another held thread of the
// process stops it again, and so does a judgement that began before the answer was there.
func (l *Loader) wake(h HeldCall) error {
	pidfd, err := h.open()
	if err != nil {
		return l.forget(h)
	}
	defer unix.Close(pidfd)
	for start, pause := time.Now(), wakeFirst; time.Since(start) < wakeTime; pause = min(2*pause, wakeLast) {
		if err := l.countSignal(); err != nil {
			return err
		}
		if err := unix.PidfdSendSignal(pidfd, unix.SIGCONT, nil, 0); err != nil {
			return l.forget(h)
		}
		select {
		case <-l.lease.stop:
			return errClosed // the answer waits for the call, also when another agent lets it go on
		case <-time.After(pause):
		}
		if judged, err := l.judged(h); judged || err != nil {
			return err
		}
		if pause == wakeLast && !h.lives() {
			return l.forget(h)
		}
	}
	if state, _, err := h.stat(); err == nil && state == 'T' {
		return nil // too many other threads wait: its answer lies there until they have theirs
	}
	// A signal's handler need not return to the call, and the rules may allow by now what was asked about.
	err = l.forget(h)
	// It may have come back in this moment, and stop once more.
	_, _, _ = unix.Syscall(unix.SYS_MEMBARRIER, membarrierGlobal, 0, 0)
	_ = unix.PidfdSendSignal(pidfd, unix.SIGCONT, nil, 0)
	return err
}

// open returns a pidfd of the process, if the thread is still the one that called.
func (h HeldCall) open() (int, error) {
	pidfd, err := unix.PidfdOpen(h.pid, 0)
	if err != nil {
		return -1, err
	}
	// After it: what the pidfd refers to had this number when the thread was seen.
	if !h.lives() {
		unix.Close(pidfd)
		return -1, ErrNotHeld
	}
	return pidfd, nil
}

// lives reports whether the thread is there, dying or not.
func (h HeldCall) lives() bool {
	_, started, err := h.stat()
	return err == nil && started == h.key.Started/uint64(10*time.Millisecond) // /proc counts hundredths of a second
}

// stat returns the state of the thread that has the number of the call's, and when it began.
func (h HeldCall) stat() (state byte, started uint64, err error) {
	path := fmt.Sprintf("/proc/%d/task/%d/stat", h.pid, h.key.Tid)
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, 0, err
	}
	// 12 (name) S 1 ...: the name may have spaces and brackets. State is field 3, starttime field 22.
	_, rest, _ := bytes.Cut(text[bytes.LastIndexByte(text, ')')+1:], []byte(" "))
	fields := bytes.Fields(rest)
	if len(fields) < 20 {
		return 0, 0, fmt.Errorf("read %s: %d fields", path, len(fields))
	}
	started, err = strconv.ParseUint(string(fields[19]), 10, 64)
	return fields[0][0], started, err
}

// rejectHeld answers every call that was held for an agent that is dead. They go on while the caller does.
func (g *Guard) rejectHeld() error {
	held, err := g.l.heldOf(func(cgid uint64) bool { return cgid == g.cgid })
	if err != nil {
		return err
	}
	for _, h := range held {
		// The dead agent may have answered, and not lived to say so.
		if err := g.l.answer(h, policy.Deny); err != nil && !errors.Is(err, ErrNotHeld) {
			return err
		}
		g.l.waking.Go(func() { _ = g.l.wake(h) })
	}
	return nil
}

// heldOf returns the calls that wait in some sandboxes.
func (l *Loader) heldOf(cgroup func(id uint64) bool) ([]HeldCall, error) {
	var held []HeldCall
	keys, err := collect[bpf.LsmHeldKey, bpf.LsmHeld](l.maps.pending, func(k bpf.LsmHeldKey) bool { return cgroup(k.What.Cgid) })
	for key := range keys {
		var h bpf.LsmHeld
		if err := l.maps.pending.Lookup(key, &h); err == nil {
			held = append(held, HeldCall{key: key, pid: int(h.Pid), asked: h.Asked})
		}
	}
	return held, err
}

// sweepHeld removes the entries of tasks that died before they were answered.
func (l *Loader) sweepHeld() error {
	held, err := l.heldOf(func(id uint64) bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.guards[id] != nil
	})
	for _, h := range held {
		if !h.lives() {
			if failed := l.forget(h); !errors.Is(failed, ErrNotHeld) {
				err = errors.Join(err, failed)
			}
		}
	}
	return err
}
