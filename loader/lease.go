package loader

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/nemoclaw/nemoclaw/bpf"
)

// How long a lease is good for, how often it is renewed, and how often, with that, what dead tasks left is removed.
const (
	leaseTime   = 10 * time.Second
	leaseRenew  = time.Second
	sweepRenews = 10
)

// lease says to the programs that this process is there to answer what they hold. When it ends they hold nothing more.
type lease struct {
	stop chan struct{}
	done chan struct{}

	mu    sync.Mutex
	value bpf.LsmLease
}

// startLease begins the lease of the claimed ring, and keeps it until endLease.
func (l *Loader) startLease() error {
	// Sandboxes that another agent left on this ring have another owner: nobody reads what they ask before they are adopted.
	l.lease = &lease{stop: make(chan struct{}), done: make(chan struct{}), value: bpf.LsmLease{Owner: rand.Uint32() | 1}}
	if err := l.renew(leaseTime, 0); err != nil {
		l.lease = nil
		return err
	}
	go l.keepLease()
	return nil
}

func (l *Loader) keepLease() {
	defer close(l.lease.done)
	tick := time.NewTicker(leaseRenew)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-l.lease.stop:
			return
		case <-tick.C:
		}
		// Neither can fail while the maps are open; if it did, nothing would be held, and nothing allowed.
		_ = l.renew(leaseTime, 0)
		if n%sweepRenews == 0 {
			_ = l.sweepHeld()
		}
	}
}

// renew writes the lease, and how many signals were sent.
func (l *Loader) renew(d time.Duration, signals uint32) error {
	l.lease.mu.Lock()
	defer l.lease.mu.Unlock()
	if d > 0 {
		l.lease.value.Until = bootNow() + uint64(d)
	}
	l.lease.value.Signals += signals
	if err := l.maps.leases.Put(l.ring.index, l.lease.value); err != nil {
		return fmt.Errorf("tell the BPF programs that somebody answers: %w", err)
	}
	return nil
}

// countSignal tells the programs that calls may be judged again because another one was answered.
func (l *Loader) countSignal() error { return l.renew(0, 1) }

// owner is what a sandbox's entry has to name for its calls to be held for this process.
func (l *Loader) owner() uint32 {
	if l.lease == nil {
		return 0
	}
	return l.lease.value.Owner // never changes
}

func (l *Loader) endLease() error {
	if l.lease == nil {
		return nil
	}
	close(l.lease.stop)
	<-l.lease.done
	l.lease.mu.Lock()
	l.lease.value.Until = 0
	l.lease.mu.Unlock()
	return l.renew(0, 0)
}
