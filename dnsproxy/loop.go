package dnsproxy

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/policy"
)

const (
	loopBuffer = 64 << 10 // bytes read at once; shared by a loop's connections, so it stays in the processor's cache
	loopEvents = 128
	sweepEvery = int64(time.Second) // how exactly time-outs are kept
)

// loop carries connections on one thread. Everything in it but the mailbox belongs to that thread.
type loop struct {
	s        *Server
	ep, wake int
	socks    []*sock // by descriptor
	gen      int32
	conns    map[*conn]struct{}
	listens  map[*sock]struct{}
	again    []*conn            // have more to do but must let others go first
	dialing  map[*conn]struct{} // have another address to try when this one takes long
	buf      []byte
	// events is here and not on the stack of run: a stack may move, and what the kernel writes then, where it was told to,
	// is lost, and somebody else's memory.
	events   [loopEvents]unix.EpollEvent
	served   bool  // the last wait found something
	crowded  bool  // the last look found several events
	now      int64 // the server's clock when the present events were fetched
	swept    int64
	stopping bool

	sent, received atomic.Int64 // bytes that left for the upstreams, and that came from them

	mu   sync.Mutex
	mail []func()
	dead bool // its descriptors are closed
}

// sock is one descriptor in a loop, registered edge-triggered: in and out remember what the edges said.
type sock struct {
	fd       int
	gen      int32
	in, out  bool
	ended    bool  // the peer has sent its end: read until it shows
	broken   bool  // hung up or in error
	conn     *conn // nil: a listener
	explicit bool  // a listener of the explicit proxy
	paused   bool  // a listener that is out of descriptors for the moment
}

// startLoops makes the loops when the first listener needs them.
func (s *Server) startLoops() ([]*loop, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errClosed
	}
	if s.loops != nil {
		return s.loops, nil
	}
	n := s.cfg.Loops
	if n <= 0 {
		n = max(1, min(4, runtime.NumCPU()/2))
	}
	var loops []*loop
	for range n {
		l, err := newLoop(s)
		if err != nil {
			for _, l := range loops {
				l.closeFDs()
			}
			return nil, err
		}
		loops = append(loops, l)
	}
	for _, l := range loops {
		s.wg.Add(1)
		go l.run()
	}
	s.loops = loops
	return loops, nil
}

func newLoop(s *Server) (*loop, error) {
	l := &loop{s: s, conns: make(map[*conn]struct{}), listens: make(map[*sock]struct{}), dialing: make(map[*conn]struct{}), buf: make([]byte, loopBuffer)}
	var err error
	if l.ep, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("make an event loop: %w", err)
	}
	if l.wake, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err != nil {
		return nil, errors.Join(fmt.Errorf("make an event loop: %w", err), unix.Close(l.ep))
	}
	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(l.wake), Pad: -1}
	if err := unix.EpollCtl(l.ep, unix.EPOLL_CTL_ADD, l.wake, &ev); err != nil {
		l.closeFDs()
		return nil, fmt.Errorf("make an event loop: %w", err)
	}
	return l, nil
}

func (l *loop) closeFDs() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dead = true
	sysClose(l.ep)
	sysClose(l.wake)
}

// post has f run on the loop's thread; false: the loop has stopped, and f never will.
func (l *loop) post(f func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dead {
		return false
	}
	l.mail = append(l.mail, f)
	if len(l.mail) == 1 {
		signalEvent(l.wake)
	}
	return true
}

func (l *loop) readMail() {
	var b [8]byte
	_, _ = sysRead(l.wake, b[:])
	l.mu.Lock()
	mail := l.mail
	l.mail = nil
	l.mu.Unlock()
	for _, f := range mail {
		f()
	}
}

// guard is deferred around work on hostile bytes.
func (s *Server) guard(what string) {
	if r := recover(); r != nil {
		p := s.pol.Load()
		d := s.decision(p, policy.PlaneSystem, "panic", what, policy.Deny, nil, fmt.Sprintf("a fault in the proxy, please report it: %v", r))
		d.Rule = "builtin"
		s.cfg.Record(d)
	}
}

func (l *loop) run() {
	defer l.s.wg.Done()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer l.closeFDs()
	for !l.stopping || len(l.conns) > 0 {
		n := l.wait()
		l.now = l.s.now()
		mail := false
		for i := range n {
			ev := &l.events[i]
			if ev.Pad == -1 {
				mail = true
				continue
			}
			if int(ev.Fd) >= len(l.socks) {
				continue
			}
			if k := l.socks[ev.Fd]; k != nil && k.gen == ev.Pad {
				l.event(k, ev.Events)
			}
		}
		if mail {
			l.readMail()
		}
		again := l.again
		l.again = nil
		for _, c := range again {
			c.queued = false
			l.step(c)
		}
		if len(l.dialing) > 0 {
			for c := range l.dialing {
				if c.state == stDial && l.now >= c.dial.nextAt {
					l.guarded(c, c.dialNext)
				}
			}
		}
		if l.now-l.swept >= sweepEvery {
			l.swept = l.now
			l.sweep()
		}
	}
}

// silent counts the loops of all servers that wait without Go's scheduler knowing.
var silent atomic.Int32

// hush reports whether one more may: half of the processors stay with the other goroutines.
func hush() bool {
	if silent.Add(1) <= maxSilent {
		return true
	}
	silent.Add(-1)
	return false
}

var maxSilent = int32(runtime.GOMAXPROCS(0) / 2)

// wait fetches events. While Go's scheduler knows of a blocking call, its monitor thread wakes up to take the processor away and
// again when the call returns, which costs more than most connections' bytes. So after there was something to do the first
// millisecond is waited in silence; where too many do so already, a look comes first under load.
func (l *loop) wait() int {
	hushed := l.served && len(l.again) == 0 && hush()
	if hushed || l.crowded || len(l.again) > 0 {
		limit := uintptr(0)
		if hushed {
			limit = 1
		}
		n, _, e := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(l.ep), uintptr(unsafe.Pointer(&l.events[0])), loopEvents, limit, 0, 0)
		if hushed {
			silent.Add(-1)
		}
		if e != 0 {
			n = 0
		}
		l.crowded = n > 1
		if n > 0 || e != 0 || len(l.again) > 0 {
			return int(n)
		}
	}
	timeout := -1
	if l.sweeps() {
		timeout = int((l.swept + sweepEvery - l.now) / int64(time.Millisecond))
		for c := range l.dialing {
			timeout = min(timeout, int((c.dial.nextAt-l.now)/int64(time.Millisecond)))
		}
		timeout = max(timeout+1, 1)
	}
	n, _, e := unix.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(l.ep), uintptr(unsafe.Pointer(&l.events[0])), loopEvents, uintptr(timeout), 0, 0)
	if e != 0 {
		n = 0
	}
	l.crowded, l.served = n > 1, n > 0
	return int(n)
}

// sweeps reports whether there is something to sweep: an idle server sleeps.
func (l *loop) sweeps() bool {
	if len(l.conns) > 0 || l.s.full.Load() > 0 {
		return true
	}
	for k := range l.listens {
		if k.paused {
			return true
		}
	}
	return false
}

func (l *loop) event(k *sock, ev uint32) {
	if k.conn == nil {
		l.acceptFrom(k)
		return
	}
	const over = unix.EPOLLHUP | unix.EPOLLERR
	if ev&(unix.EPOLLIN|unix.EPOLLRDHUP|over) != 0 {
		k.in = true
	}
	if ev&(unix.EPOLLOUT|over) != 0 {
		k.out = true
	}
	if ev&(unix.EPOLLRDHUP|over) != 0 {
		k.ended = true
	}
	if ev&over != 0 {
		k.broken = true
	}
	if c := k.conn; c.state == stDial && k != c.cl {
		l.guarded(c, func() { c.dialEvent(k) })
		return
	}
	l.step(k.conn)
}

// step moves a connection on as far as it can go now.
func (l *loop) step(c *conn) { l.guarded(c, c.step) }

// guarded runs a piece of a connection's life. A panic, which no input should be able to cause, is recorded and costs that
// connection only.
func (l *loop) guarded(c *conn, f func()) {
	fine := false
	defer func() {
		if !fine {
			c.abort()
		}
	}()
	defer l.s.guard("connection")
	f()
	fine = true
}

// watch registers a descriptor for a connection.
func (l *loop) watch(fd int, c *conn) (*sock, error) {
	l.gen = (l.gen + 1) & 0x7fffffff
	k := &sock{fd: fd, gen: l.gen, conn: c}
	for fd >= len(l.socks) {
		l.socks = append(l.socks, make([]*sock, 256)...)
	}
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET, Fd: int32(fd), Pad: k.gen}
	if _, _, e := unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(l.ep), unix.EPOLL_CTL_ADD, uintptr(fd), uintptr(unsafe.Pointer(&ev)), 0, 0); e != 0 {
		return nil, e
	}
	l.socks[fd] = k
	return k, nil
}

// forget closes a descriptor; events of it that were fetched already find nothing.
func (l *loop) forget(k *sock) {
	if k == nil || k.fd < 0 {
		return
	}
	l.socks[k.fd] = nil
	sysClose(k.fd)
	k.fd = -1
}

// listen has a loop accept from a listening descriptor; every loop that does so has a copy of its own.
func (l *loop) listen(fd int, explicit bool) error {
	l.gen = (l.gen + 1) & 0x7fffffff
	k := &sock{fd: fd, gen: l.gen, explicit: explicit}
	for fd >= len(l.socks) {
		l.socks = append(l.socks, make([]*sock, 256)...)
	}
	if err := l.arm(k); err != nil {
		return err
	}
	l.socks[fd] = k
	l.listens[k] = struct{}{}
	return nil
}

// arm asks for a listener's events, in one loop for each connection.
func (l *loop) arm(k *sock) error {
	sysSetInt(k.fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) // what is accepted has it too
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLEXCLUSIVE, Fd: int32(k.fd), Pad: k.gen}
	return unix.EpollCtl(l.ep, unix.EPOLL_CTL_ADD, k.fd, &ev)
}

func (l *loop) acceptFrom(k *sock) {
	// One at a time: the event comes again while more wait, and asking until there is none costs a call for each.
	for {
		fd, client, err := sysAccept(k.fd)
		switch {
		case err == nil:
			l.accepted(k, fd, client)
			return
		case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ENOMEM), errors.Is(err, unix.ENOBUFS):
			// Let what is open go on; the sweep tries again.
			k.paused = true
			_ = unix.EpollCtl(l.ep, unix.EPOLL_CTL_DEL, k.fd, nil)
			return
		case errors.Is(err, unix.EAGAIN):
			return
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EBADF), errors.Is(err, unix.ENOTSOCK):
			_ = unix.EpollCtl(l.ep, unix.EPOLL_CTL_DEL, k.fd, nil)
			return
		}
	}
}

// sweep ends what has waited too long.
func (l *loop) sweep() {
	for k := range l.listens {
		if k.paused {
			k.paused = l.arm(k) != nil
		}
	}
	for c := range l.conns {
		if c.deadline != 0 && l.now >= c.deadline {
			l.guarded(c, c.timedOut)
		} else if c.headAt != 0 && c.state == stRelay && l.now-c.headAt > int64(l.s.cfg.HeaderTimeout) {
			c.abort() // a head that comes in drops; what came before it was fine and is recorded
		} else if r := c.rule.rule; r != nil && r.Expires > 0 && c.state == stRelay && l.s.expired(r) {
			l.guarded(c, func() { c.rejudge(c.pol) })
		}
	}
	if n := l.s.full.Swap(0); n > 0 {
		p := l.s.pol.Load()
		d := l.s.decision(p, policy.PlaneNetwork, "connect", "connections", policy.Deny, nil,
			fmt.Sprintf("the sandbox has %d connections open, which is its cap", l.s.cfg.MaxConns))
		d.Rule, d.Count = "builtin", n
		l.s.cfg.Record(d)
	}
}

// stop closes everything; the loop then ends.
func (l *loop) stop() {
	l.stopping = true
	for k := range l.listens {
		l.forget(k)
	}
	clear(l.listens)
	for c := range l.conns {
		c.abort()
	}
}

// ServeTCP carries the connections that a transparent listener accepts, until Close. It takes the listener over.
func (s *Server) ServeTCP(ln net.Listener) error { return s.serve(ln, false) }

// ServeConnect is the explicit proxy: CONNECT and absolute URIs, until Close. It takes the listener over.
func (s *Server) ServeConnect(ln net.Listener) error { return s.serve(ln, true) }

// serve accepts on every loop until Close.
func (s *Server) serve(ln net.Listener, explicit bool) error {
	name := ln.Addr().String()
	tl, ok := ln.(*net.TCPListener)
	if !ok {
		return fmt.Errorf("serve TCP on %s: the listener is a %T, not a TCP listener of the kernel's", name, ln)
	}
	loops, err := s.startLoops()
	if err != nil {
		return err
	}
	ended := make(chan struct{})
	done, err := s.running(func() { close(ended) })
	if err != nil {
		return err
	}
	defer done()
	fd, err := takeFD(tl)
	if err != nil {
		return fmt.Errorf("serve TCP on %s: %w", name, err)
	}
	defer sysClose(fd)
	if err := unix.SetNonblock(fd, true); err != nil {
		return fmt.Errorf("serve TCP on %s: %w", name, err)
	}
	errs := make(chan error, len(loops))
	for _, l := range loops {
		l.post(func() {
			copied, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
			if err == nil {
				if err = l.listen(copied, explicit); err != nil {
					sysClose(copied)
				}
			}
			errs <- err
		})
	}
	for range loops {
		select {
		case err := <-errs:
			if err != nil {
				return fmt.Errorf("serve TCP on %s: %w", name, err)
			}
		case <-ended:
			return errClosed
		}
	}
	<-ended
	return errClosed
}
