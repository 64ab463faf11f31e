package dnsproxy

import (
	"errors"
	"net/http"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/policy"
)

const (
	fairShare = 8         // reads of one connection before the others of its loop have their turn
	maxHold   = 128 << 10 // bytes a direction may keep; the parsers give up well before
)

// dir is one direction of a relayed connection.
type dir struct {
	pend    []byte // must go out before anything else is read: back-pressure
	hold    []byte // came in and may not go out yet: an incomplete head
	scanned int    // of hold, by headEnd, before the relay starts
	fresh   bool   // hold has to be looked at before more is read
	stalled bool   // waits for the other direction (errPause)
	eof     bool   // the source has ended
	done    bool   // and the destination was told
}

// consume drops n bytes from the front of hold.
func (d *dir) consume(n int) {
	d.hold = append(d.hold[:0], d.hold[n:]...)
	if len(d.hold) == 0 {
		d.hold = nil // an idle connection keeps no buffer
	}
}

func (d *dir) free() { d.pend, d.hold = nil, nil }

// startRelay lets bytes flow.
func (c *conn) startRelay() {
	if c.connect && !c.answer200() {
		return
	}
	c.state = stRelay
	c.dialled()
	c.enter(StepRelay)
	c.came(ConnRelayed)
	c.s.stats.setup.Observe(time.Duration(c.l.now - c.began))
	c.touch()
	if c.rule.mode == policy.HTTP && c.x == nil {
		c.x = &httpExchange{check: c.checkRequest}
	}
	c.c2u.fresh = len(c.c2u.hold) > 0
	c.relay()
}

// touch starts the idle time anew.
func (c *conn) touch() {
	limit := c.s.cfg.IdleTimeout
	if c.c2u.done || c.u2c.done {
		limit = c.s.cfg.HalfIdle
	}
	c.deadline = c.l.now + int64(limit)
}

// later gives the other connections of the loop a turn and comes back.
func (l *loop) later(c *conn) {
	if !c.queued {
		c.queued = true
		l.again = append(l.again, c)
	}
}

// relay moves what can be moved in both directions.
func (c *conn) relay() {
	for {
		c.pump(&c.c2u, c.cl, c.up, true)
		if c.state != stRelay {
			return
		}
		c.pump(&c.u2c, c.up, c.cl, false)
		if c.state != stRelay {
			break
		}
		if c.retry != nil && c.retry.decided && (c.c2u.stalled || c.retry.over && !c.c2u.fresh) {
			c.c2u.stalled, c.c2u.fresh = false, true
			continue
		}
		if c.x == nil {
			break
		}
		if c.afterExchange() {
			return
		}
		if !c.c2u.stalled || c.x.paused() {
			break
		}
		c.c2u.stalled, c.c2u.fresh = false, len(c.c2u.hold) > 0
	}
	switch {
	case c.state != stRelay:
	case c.c2u.done && c.u2c.done:
		c.close()
	case c.u2c.done && c.c2u.stalled: // the upstream has ended while the client's next request could not go out
		c.linger(nil)
	}
}

// afterExchange does what the end of an HTTP exchange makes due; true when the connection has left the relay.
func (c *conn) afterExchange() bool {
	if len(c.u2c.pend) > 0 {
		return false
	}
	if c.denial != nil && c.x.idle() {
		c.answer(c.denial)
		return true
	}
	if c.x.finished() && len(c.c2u.pend) == 0 {
		c.linger(nil)
		return true
	}
	return false
}

// pump moves bytes from src to dst until one of them is not ready, or its share is used up.
//
// Bytes are copied, not spliced. Measured on loopback, bodies of 16 MiB: splice(2) through a pipe halves this process's
// time, but both ends then spend as much more on the many small fragments, and the whole takes 1.2 times as long.
func (c *conn) pump(d *dir, src, dst *sock, request bool) {
	for range fairShare {
		if len(d.pend) > 0 && !c.flush(d, dst) {
			return
		}
		switch {
		case d.done, d.stalled:
			return
		case d.fresh:
			d.fresh = false
			if !c.pass(d, dst, d.hold, true, request) {
				return
			}
			continue
		case d.eof:
			d.done = true
			if c.c2u.done && c.u2c.done {
				return // both are about to be closed, which says it too
			}
			sysShutdown(dst.fd, unix.SHUT_WR)
			c.touch()
			return
		case !src.in:
			return
		}
		n, err := sysRead(src.fd, c.l.buf)
		if err != nil {
			if again(err) {
				src.in = false
			} else {
				c.abort() // a reset goes on as a reset
			}
			return
		}
		if n == 0 {
			d.eof = true
			continue
		}
		if n < len(c.l.buf) && !src.ended {
			src.in = false // an edge will tell when there is more
		}
		c.touch()
		if c.retry == nil && (c.x == nil || c.x.tunnel) {
			if !c.send(d, dst, c.l.buf[:n]) {
				return
			}
			continue
		}
		data, held := c.l.buf[:n], false
		if len(d.hold) > 0 {
			if len(d.hold)+n > maxHold+loopBuffer {
				c.abort()
				return
			}
			d.hold = append(d.hold, data...)
			data, held = d.hold, true
		}
		if !c.pass(d, dst, data, held, request) {
			return
		}
	}
	c.l.later(c)
}

// pass sends as much of data as HTTP's framing and the policy let through and keeps the rest. held: data is d.hold.
func (c *conn) pass(d *dir, dst *sock, data []byte, held, request bool) bool {
	n, err := len(data), error(nil)
	switch {
	case c.retry != nil:
		n, err = c.passHello(data, request)
	case c.x == nil:
	case request:
		n, err = c.x.request(data)
	default:
		n, err = c.x.response(data)
	}
	ok := n == 0 || c.send(d, dst, data[:n])
	if c.state != stRelay {
		return false
	}
	switch {
	case held:
		d.consume(n)
	case n < len(data):
		d.hold = append(d.hold, data[n:]...)
	}
	if request {
		switch {
		case len(d.hold) == 0 || err != nil:
			c.headAt = 0
		case c.headAt == 0 || n > 0:
			c.headAt = c.l.now
		}
	}
	switch {
	case err == nil:
		return ok
	case errors.Is(err, errPause):
		d.stalled = true
	case errors.Is(err, errHelloShort):
		return ok
	case c.retry != nil:
		c.cut(err.Error())
	case request:
		c.badRequest(d, err)
	default:
		c.badResponse(err)
	}
	return false
}

// passHello is pass for the start of a TLS connection.
func (c *conn) passHello(data []byte, request bool) (n int, err error) {
	n = len(data)
	if request {
		n, err = c.retry.fromClient(data)
	} else {
		c.retry.fromServer(data)
	}
	if c.retry.over && (request || len(c.c2u.hold) == 0) { // what is held goes on by it
		c.retry = nil
	}
	return n, err
}

// send writes b and keeps what does not fit.
func (c *conn) send(d *dir, dst *sock, b []byte) bool {
	n, err := sysWrite(dst.fd, b)
	c.count(dst, n)
	if err != nil && !again(err) {
		c.abort()
		return false
	}
	if n < len(b) {
		d.pend = append(d.pend, b[n:]...)
		dst.out = false
		return false
	}
	return true
}

// count adds what was written to the traffic.
func (c *conn) count(dst *sock, n int) {
	moved := int64(max(n, 0))
	if dst == c.up {
		c.l.sent.Add(moved)
	} else {
		c.l.received.Add(moved)
	}
	if t := c.trace; t == nil {
		return
	} else if dst == c.up {
		t.Sent += moved
	} else {
		t.Received += moved
	}
}

// flush sends what had to wait; true when all of it is out.
func (c *conn) flush(d *dir, dst *sock) bool {
	if !dst.out {
		return false
	}
	n, err := sysWrite(dst.fd, d.pend)
	c.count(dst, n)
	if err != nil && !again(err) {
		c.abort()
		return false
	}
	if n < len(d.pend) {
		d.pend = append(d.pend[:0], d.pend[n:]...)
		dst.out = false
		return false
	}
	d.pend = nil
	return true
}

// badRequest refuses a request in the middle of a connection. The refusal is sent when all earlier ones are answered; when
// that can't be, since it was the body of one of them that went wrong, the connection is cut.
func (c *conn) badRequest(d *dir, err error) {
	den := c.requestDenial(nil, err)
	d.stalled = true
	d.hold = nil
	inBody := c.x.body.state != bodyDone
	switch {
	case c.x.idle(), inBody && c.x.cnt == 1 && c.x.respBody.state == bodyDone && len(c.u2c.pend) == 0:
		c.answer(den)
	case inBody:
		c.abort()
	default:
		c.x.closing = true
		c.denial = den
	}
}

// badResponse ends a connection whose upstream's framing can't be trusted.
func (c *conn) badResponse(err error) {
	if errors.Is(err, errUnasked) && len(c.u2c.pend) == 0 {
		c.linger(nil) // often a 408 on an idle connection; for the client it has simply ended
		return
	}
	if c.x.respBody.state != bodyDone || c.x.cnt == 0 || len(c.u2c.pend) > 0 {
		c.abort()
		return
	}
	c.answer(&denial{status: http.StatusBadGateway, Error: "the upstream's response was refused", Tried: "request to " + c.to.String(), Reason: err.Error(),
		Next: []string{"Tell whoever runs the server; its response could be read in two ways."}})
}
