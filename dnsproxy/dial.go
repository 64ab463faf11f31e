package dnsproxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// stagger is RFC 8305's Connection Attempt Delay.
const stagger = 250 * time.Millisecond

// dialing is a race of connection attempts to addresses that have been checked.
type dialing struct {
	left     []netip.Addr
	attempts []*sock
	nextAt   int64 // when the next attempt starts, on the server's clock, if any are left
	err      error // the last attempt's
}

// startDial records the decision and connects.
func (c *conn) startDial() {
	if p := c.s.pol.Load(); p != c.pol { // it changed while the head was read or the name resolved
		if c.rejudge(p); c.state == stClosed {
			return
		}
	}
	if !c.allowed() {
		return
	}
	c.enter(StepDial)
	if c.viaProxy || c.s.cfg.Dial != nil {
		c.dialElsewhere()
		return
	}
	c.state = stDial
	c.deadline = c.l.now + int64(c.s.cfg.DialTimeout)
	c.dial = &dialing{left: c.addrs}
	c.dialNext()
}

// dialNext starts the next attempt. With none left to start and none under way the connection has failed.
func (c *conn) dialNext() {
	d := c.dial
	for len(d.left) > 0 {
		to := netip.AddrPortFrom(d.left[0], c.to.port)
		d.left = d.left[1:]
		fd, err := sysDial(to)
		if err != nil && !errors.Is(err, unix.EINPROGRESS) {
			d.err = fmt.Errorf("%s: %w", to, err)
			continue
		}
		k, werr := c.l.watch(fd, c)
		if werr != nil {
			sysClose(fd)
			d.err = werr
			continue
		}
		if err == nil {
			c.connected(k)
			return
		}
		d.attempts = append(d.attempts, k)
		if len(d.left) > 0 {
			d.nextAt = c.l.now + int64(stagger)
			c.l.dialing[c] = struct{}{}
		} else {
			delete(c.l.dialing, c)
		}
		return
	}
	delete(c.l.dialing, c)
	if len(d.attempts) == 0 {
		c.fail(fmt.Sprintf("none of its addresses could be reached (%v)", d.err))
	}
}

// dialEvent is called when an attempt has come to an end.
func (c *conn) dialEvent(k *sock) {
	if !k.out && !k.broken {
		return
	}
	if k.broken {
		c.dial.err = sysError(k.fd)
		for i, a := range c.dial.attempts {
			if a == k {
				c.dial.attempts = append(c.dial.attempts[:i], c.dial.attempts[i+1:]...)
				break
			}
		}
		c.l.forget(k)
		c.dialNext() // no reason to wait for the stagger
		return
	}
	c.connected(k)
}

// connected ends the race and lets bytes flow.
func (c *conn) connected(k *sock) {
	for i, a := range c.dial.attempts {
		if a == k {
			c.dial.attempts = append(c.dial.attempts[:i], c.dial.attempts[i+1:]...)
			break
		}
	}
	c.dropDials()
	k.out = true
	c.up = k
	c.startRelay()
}

// dropDials closes the attempts that did not win.
func (c *conn) dropDials() {
	if c.dial == nil {
		return
	}
	for _, k := range c.dial.attempts {
		c.l.forget(k)
	}
	delete(c.l.dialing, c)
	c.dial = nil
}

// dialElsewhere connects with Config.Dial or through the host's own proxy, in a goroutine.
func (c *conn) dialElsewhere() {
	var nc net.Conn
	var err error
	c.work(c.s.cfg.DialTimeout, func(ctx context.Context) {
		if c.viaProxy {
			nc, err = c.s.dialHostProxy(ctx, c.to)
		} else {
			nc, err = c.s.race(ctx, c.addrs, c.to.port)
		}
	}, func() {
		if err != nil {
			c.fail(err.Error())
			return
		}
		c.adopt(nc)
	}, func() {
		if nc != nil {
			_ = nc.Close()
		}
	})
}

// adopt takes a connection that Go's poller holds over into the loop.
func (c *conn) adopt(nc net.Conn) {
	tc, ok := nc.(*net.TCPConn)
	if !ok {
		_ = nc.Close()
		c.fail(fmt.Sprintf("the dialler gave a %T, not a TCP connection of the kernel's", nc))
		return
	}
	fd, err := takeFD(tc)
	if err != nil {
		c.fail(err.Error())
		return
	}
	sysSetInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	k, err := c.l.watch(fd, c)
	if err != nil {
		sysClose(fd)
		c.fail(err.Error())
		return
	}
	k.in, k.out = true, true
	c.up = k
	c.startRelay()
}

// race dials addresses one after the other, RFC 8305's delay apart or as soon as one fails, and returns the first connection.
func (s *Server) race(ctx context.Context, addrs []netip.Addr, port uint16) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		c   net.Conn
		err error
	}
	results := make(chan result)
	running, next := 0, 0
	start := func() {
		to := netip.AddrPortFrom(addrs[next], port)
		next++
		running++
		go func() {
			c, err := s.cfg.Dial(ctx, to)
			select {
			case results <- result{c, err}:
			case <-ctx.Done():
				if err == nil {
					_ = c.Close()
				}
			}
		}()
	}
	start()
	timer := time.NewTimer(stagger)
	defer timer.Stop()
	var errs []error
	for {
		select {
		case r := <-results:
			if r.err == nil {
				return r.c, nil
			}
			errs = append(errs, r.err)
			running--
		case <-timer.C:
		case <-ctx.Done():
			return nil, errors.Join(append(errs, ctx.Err())...)
		}
		if next < len(addrs) {
			start()
			timer.Reset(stagger)
		} else if running == 0 {
			return nil, fmt.Errorf("none of its addresses could be reached: %w", errors.Join(errs...))
		}
	}
}
