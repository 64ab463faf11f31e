package dnsproxy

import (
	"context"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/policy"
)

// Local is a name that this process answers itself: it is never resolved, and a connection to it that the policy allows never
// leaves the host.
type Local struct {
	Name string
	// Serve takes a connection over, from its first byte. It is called in a goroutine of its own.
	Serve func(c net.Conn, from Handed)
}

// Handed is what is known of a connection that is handed over.
type Handed struct {
	Port    uint16
	Subject policy.Subject // who made it
	// Its ids, where its trace is wanted; else zeros. The trace itself is over with this.
	Trace [16]byte
	Span  [8]byte
}

// local reports whether a name is answered here.
func (s *Server) local(name string) bool { return s.cfg.Local != nil && name == s.cfg.Local.Name }

// localConn is a connection that was handed over. It counts as one of the server's until it is closed.
type localConn struct {
	net.Conn
	head []byte // what was read of it already; only Read touches it
	done func()
}

func (c *localConn) Read(b []byte) (int, error) {
	if len(c.head) > 0 {
		n := copy(b, c.head)
		c.head = c.head[n:]
		return n, nil
	}
	return c.Conn.Read(b)
}

func (c *localConn) Close() error {
	c.done()
	return c.Conn.Close()
}

// handOver gives the connection to who answers for its name. The loop has nothing to do with it from here on.
func (c *conn) handOver() {
	if c.connect && !c.answer200() {
		return
	}
	if !c.recorded {
		c.recorded = true
		// Nothing leaves the host with this: whoever answers waits for the records of what does, and can say why something may not.
		d := c.record(policy.Allow, c.consent)
		c.decided(d)
		c.s.cfg.Record(d)
	}
	head := append(append([]byte(nil), c.c2u.pend...), c.c2u.hold...)
	fd := c.cl.fd
	if err := unix.EpollCtl(c.l.ep, unix.EPOLL_CTL_DEL, fd, nil); err != nil {
		c.abort()
		return
	}
	f := os.NewFile(uintptr(fd), c.to.String())
	nc, err := net.FileConn(f)
	if err != nil {
		c.abort() // closes the descriptor, which f has
		return
	}
	c.came(ConnLocal)
	c.l.socks[fd], c.cl.fd = nil, -1
	f.Close()
	c.state = stClosed
	c.c2u.free()
	c.u2c.free()
	delete(c.l.conns, c)
	s, from := c.s, Handed{Port: c.to.port, Subject: c.peer.Subject}
	if c.trace != nil {
		from.Trace, from.Span = c.trace.ID, c.trace.Span
	}
	c.traced()
	lc := &localConn{Conn: nc, head: head}
	stop := context.AfterFunc(s.ctx, func() { _ = nc.Close() })
	lc.done = sync.OnceFunc(func() {
		stop()
		s.giveConn()
	})
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		defer s.guard("connection")
		s.cfg.Local.Serve(lc, from)
	}()
}
