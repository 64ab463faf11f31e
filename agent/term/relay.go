package term

import (
	"errors"
	"os"
	"sync"
	"time"
)

// A Relay connects the person's terminal with the master of a sandbox's pseudo-terminal: raw bytes both ways, and the
// window's size. It can lend the terminal to a question: the output waits meanwhile, in the pseudo-terminal and then
// in the program that writes.
type Relay struct {
	tty    *TTY
	master *os.File
	resize func(rows, cols uint16)

	out   sync.Mutex // held by whoever writes to the terminal: the output, or a question
	typed chan []byte
	done  chan struct{} // the output ended

	mu      sync.Mutex
	awake   sync.Cond // reading may have changed
	reading bool      // the terminal is ours to read
	closed  bool
	keys    chan<- []byte // where keys go while a question is shown
}

// typeAhead is how many reads of the keyboard wait for a program that does not read. What comes then is dropped, so
// that a program can't keep a question's keys from being read.
const typeAhead = 64

// NewRelay starts to relay between tty and master. resize tells the sandbox's side of a new size. The relay owns
// neither; Close it before them.
func NewRelay(tty *TTY, master *os.File, resize func(rows, cols uint16)) *Relay {
	r := &Relay{tty: tty, master: master, resize: resize, typed: make(chan []byte, typeAhead), done: make(chan struct{})}
	r.awake.L = &r.mu
	r.Resize()
	r.Continue()
	go r.show()
	go r.listen()
	go r.deliver()
	return r
}

// Resize passes the terminal's size on: call it on SIGWINCH.
func (r *Relay) Resize() { r.resize(r.tty.Size()) }

// Suspend gives the terminal back as it was, until Continue: for a stop by job control.
func (r *Relay) Suspend() {
	r.mu.Lock()
	r.reading = false
	r.mu.Unlock()
	_ = r.tty.f.SetReadDeadline(time.Unix(1, 0)) // ends the read that waits
	_ = r.tty.Restore()                          // if it can't be restored, it is gone
}

// Continue takes the terminal again, if it is this job's to take: call it on SIGCONT.
func (r *Relay) Continue() {
	if !r.tty.Foreground() || r.tty.Raw() != nil {
		return // output goes on; a later SIGCONT in the foreground brings the keys
	}
	_ = r.tty.f.SetReadDeadline(time.Time{})
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reading = true
	r.awake.Broadcast()
}

// Done is closed when the sandbox's side has been closed by everyone and all its output is written.
func (r *Relay) Done() <-chan struct{} { return r.done }

// Close ends the relay and restores the terminal. Output that was not written yet is lost: wait for Done before.
func (r *Relay) Close() {
	r.mu.Lock()
	r.closed, r.reading = true, false
	r.awake.Broadcast()
	r.mu.Unlock()
	_ = r.tty.f.SetReadDeadline(time.Unix(1, 0))
	_ = r.tty.Restore()
}

// show copies from the sandbox to the terminal, until the last process inside has closed it (EIO).
func (r *Relay) show() {
	defer close(r.done)
	buf := make([]byte, 32<<10)
	gone := false
	for {
		n, err := r.master.Read(buf)
		if n > 0 && !gone {
			r.out.Lock()
			_, werr := r.tty.f.Write(buf[:n])
			r.out.Unlock()
			// Without a terminal the output is read and dropped: the program meets a hang-up, not a stop.
			gone = werr != nil
		}
		if err != nil {
			return
		}
	}
}

// listen reads the keyboard for the program inside, or for the question that is shown.
func (r *Relay) listen() {
	defer close(r.typed)
	for {
		r.mu.Lock()
		for !r.reading && !r.closed {
			r.awake.Wait()
		}
		if r.closed {
			if r.keys != nil {
				close(r.keys)
				r.keys = nil
			}
			r.mu.Unlock()
			return
		}
		r.mu.Unlock()
		b := make([]byte, 4096)
		n, err := r.tty.f.Read(b)
		if err != nil {
			r.mu.Lock()
			r.closed = r.closed || !errors.Is(err, os.ErrDeadlineExceeded)
			r.mu.Unlock()
			continue
		}
		r.mu.Lock()
		keys := r.keys
		if keys == nil {
			select {
			case r.typed <- b[:n]:
			default:
			}
		} else {
			// The channel has room for more than a person types between two looks; a paste into it is no answer.
			select {
			case keys <- b[:n]:
			default:
			}
		}
		r.mu.Unlock()
	}
}

// deliver writes what was typed to the sandbox.
func (r *Relay) deliver() {
	for b := range r.typed {
		if _, err := r.master.Write(b); err != nil {
			return // the other side is gone; typed has room for the rest, and drops it
		}
	}
}

// lend gives the terminal to a question.
func (r *Relay) lend() (<-chan []byte, func([]byte), error) {
	r.out.Lock()
	keys := make(chan []byte, typeAhead)
	r.mu.Lock()
	if r.closed || !r.reading {
		r.mu.Unlock()
		r.out.Unlock()
		return nil, nil, errors.New("the terminal is not this job's to read")
	}
	r.keys = keys
	r.mu.Unlock()
	return keys, func(pass []byte) {
		r.mu.Lock()
		r.keys = nil
		if len(pass) > 0 && !r.closed {
			select {
			case r.typed <- pass:
			default:
			}
		}
		r.mu.Unlock()
		r.out.Unlock()
		// A program that draws the whole screen does it again when the size changes; others don't notice.
		rows, cols := r.tty.Size()
		r.resize(max(rows-1, 1), cols)
		r.resize(rows, cols)
	}, nil
}
