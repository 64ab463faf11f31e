package dnsproxy

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Bulk bytes are moved by the kernel from socket to pipe to socket, without being copied to this process and back.
const (
	spliceAfter = 2         // full reads in a row before a flow of bytes counts as bulk
	spliceBody  = 256 << 10 // bytes of a body that are worth it
	spliceMost  = 256 << 10 // bytes moved at once: the pipe's size; larger ones make the far end wait
	spliceSmall = 16 << 10  // moves below this ...
	spliceLeave = 4         // ... this often in a row: not bulk any longer
	spliceBack  = 16        // after that many full reads it is again
	pipesKept   = 16        // idle pipes of a loop
)

// pipe is an empty or filled kernel pipe.
type pipe struct {
	r, w  int
	n     int // bytes in it
	small int // small moves in a row
}

// pipe returns an empty pipe, nil when there is none to be had: bytes are copied then.
func (l *loop) pipe() *pipe {
	if n := len(l.pipes); n > 0 {
		p := l.pipes[n-1]
		l.pipes = l.pipes[:n-1]
		p.small = 0
		return p
	}
	var fds [2]int
	if unix.Pipe2(fds[:], unix.O_NONBLOCK|unix.O_CLOEXEC) != nil {
		return nil
	}
	// A smaller pipe only makes for more calls.
	_, _ = unix.FcntlInt(uintptr(fds[1]), unix.F_SETPIPE_SZ, spliceMost)
	return &pipe{r: fds[0], w: fds[1]}
}

// recycle keeps an empty pipe for the next bulk flow and closes one that still holds bytes.
func (l *loop) recycle(p *pipe) {
	if p == nil {
		return
	}
	if p.n == 0 && len(l.pipes) < pipesKept && !l.stopping {
		l.pipes = append(l.pipes, p)
		return
	}
	sysClose(p.r)
	sysClose(p.w)
}

func sysSplice(from, to, n int) (int, error) {
	for {
		m, _, e := unix.RawSyscall6(unix.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(n), unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
		if e == 0 {
			return int(m), nil
		}
		if e != unix.EINTR {
			return 0, e
		}
	}
}

// bulk returns how many of the next bytes of a direction need no look: all of them on a connection of bytes, what is left of
// a body that is worth it in HTTP. 0: none.
func (c *conn) bulk(d *dir, request bool) int64 {
	if len(d.hold) > 0 || len(d.pend) > 0 {
		return 0
	}
	if c.x == nil || c.x.tunnel {
		if d.full < spliceAfter {
			return 0
		}
		return spliceMost
	}
	b := &c.x.respBody
	if request {
		b = &c.x.body
	}
	switch b.state {
	case bodyUntilClose:
		if d.full < spliceAfter {
			return 0
		}
		return spliceMost
	case bodyLength, bodyChunkData:
		if b.left >= spliceBody && d.full >= 0 || d.pipe != nil && b.left > 0 {
			return b.left
		}
	}
	return 0
}

// took notes that bytes of a body have passed unseen.
func (c *conn) took(n int, request bool) {
	if c.x == nil || c.x.tunnel {
		return
	}
	b := &c.x.respBody
	if request {
		b = &c.x.body
	}
	if b.state == bodyUntilClose {
		return
	}
	if b.left -= int64(n); b.left > 0 {
		return
	}
	if b.state == bodyChunkData {
		b.state = bodyChunkEnd
		return
	}
	b.state = bodyDone
	if !request {
		c.x.pop()
	}
}

// splice moves bulk bytes. It returns true when the direction is to go on copying, false when it must wait or has ended.
func (c *conn) splice(d *dir, src, dst *sock, request bool) bool {
	p := d.pipe
	if p.n > 0 {
		if !c.drainPipe(p, dst) {
			return false
		}
	}
	most := c.bulk(d, request)
	if most == 0 || p.small >= spliceLeave {
		if d.full = 0; most > 0 {
			d.full = -spliceBack
		}
		c.l.recycle(p)
		d.pipe = nil
		return true
	}
	if !src.in {
		return false
	}
	n, err := sysSplice(src.fd, p.w, int(min(most, spliceMost)))
	switch {
	case errors.Is(err, unix.EAGAIN):
		src.in = false
		return false
	case errors.Is(err, unix.EINVAL): // a socket of a kind that can't
		c.l.recycle(p)
		d.pipe, d.full = nil, -1<<30
		return true
	case err != nil:
		c.abort()
		return false
	case n == 0:
		d.eof = true
		c.l.recycle(p)
		d.pipe = nil
		return true
	}
	p.n = n
	if n < spliceSmall {
		p.small++
	} else {
		p.small = 0
	}
	c.touch()
	c.took(n, request)
	return c.drainPipe(p, dst)
}

// drainPipe sends what is in the pipe; true when it is empty.
func (c *conn) drainPipe(p *pipe, dst *sock) bool {
	for p.n > 0 {
		if !dst.out {
			return false
		}
		n, err := sysSplice(p.r, dst.fd, p.n)
		if err != nil {
			if errors.Is(err, unix.EAGAIN) {
				dst.out = false
			} else {
				c.abort()
			}
			return false
		}
		p.n -= n
	}
	return true
}
