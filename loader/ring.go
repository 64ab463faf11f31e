package loader

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"
)

// ring is the event ring that this process has claimed. All its sandboxes write to it.
type ring struct {
	index  uint32
	dir    string   // of the pins that are this process's alone
	claim  *os.File // dir, locked: the claim ends with the process
	reader *ringbuf.Reader
	begin  <-chan struct{} // closed when delivery begins
	flush  chan chan struct{}
	done   chan struct{}
}

// claimRing claims a free event ring, first (from 1) before others, and reads it once begin is closed. What an owner
// before left in it is read too, and dropped by dispatch unless those sandboxes were adopted.
func claimRing(pins string, first int, begin <-chan struct{}, deliver func(raw []byte)) (*ring, error) {
	start := os.Getpid() % rings
	if first > 0 {
		start = first - 1
	}
	for i := range rings {
		index := (start + i) % rings
		dir := filepath.Join(pins, ringsDir, strconv.Itoa(index))
		claim, err := lockDir(dir, unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("claim an event ring: %w", err)
		}
		r, err := openRing(filepath.Join(dir, ringPin), begin, deliver)
		if err != nil {
			claim.Close()
			return nil, err
		}
		r.index, r.dir, r.claim = uint32(index), dir, claim
		return r, nil
	}
	return nil, fmt.Errorf("claim an event ring: all %d are taken by running agents: end one, or run sandboxes under one agent", rings)
}

func openRing(pin string, begin <-chan struct{}, deliver func(raw []byte)) (*ring, error) {
	m, err := ebpf.LoadPinnedMap(pin, nil)
	if err != nil {
		return nil, fmt.Errorf("open pinned event ring %s: %w", pin, err)
	}
	defer m.Close()
	reader, err := ringbuf.NewReader(m)
	if err != nil {
		return nil, fmt.Errorf("read event ring %s: %w", pin, err)
	}
	return startRing(reader, begin, deliver), nil
}

// startRing delivers what is read, once begin is closed.
func startRing(reader *ringbuf.Reader, begin <-chan struct{}, deliver func(raw []byte)) *ring {
	r := &ring{reader: reader, begin: begin, flush: make(chan chan struct{}, 1), done: make(chan struct{})}
	go func() {
		<-begin
		r.run(deliver)
	}()
	return r
}

func (r *ring) run(deliver func(raw []byte)) {
	defer close(r.done)
	// The kernel wakes a reader only when it had read everything before; what an owner before left is in the way.
	_ = r.reader.Flush()
	var rec ringbuf.Record
	var waiting chan struct{}
	for {
		err := r.reader.ReadInto(&rec)
		switch {
		case err == nil:
			deliver(rec.RawSample)
		case errors.Is(err, ringbuf.ErrFlushed):
			// This flush may have begun before the waiter came, so a waiter is answered by the next one.
			if waiting != nil {
				close(waiting)
				waiting = nil
			}
			select {
			case waiting = <-r.flush:
				_ = r.reader.Flush()
			default:
			}
		default:
			return // closed, or a ring that nobody can read any more
		}
	}
}

// drain returns when every event that the kernel wrote before the call has been delivered; at once when delivery has not begun.
func (r *ring) drain() {
	select {
	case <-r.begin:
	default:
		return
	}
	waiter := make(chan struct{})
	select {
	case r.flush <- waiter:
	case <-r.done:
		return
	}
	if r.reader.Flush() != nil {
		return
	}
	select {
	case <-waiter:
	case <-r.done:
	}
}

func (r *ring) close() error {
	r.drain()
	err := r.reader.Close()
	<-r.done
	return errors.Join(err, r.claim.Close())
}
