package dnsproxy

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/policy"
)

type connState uint8

const (
	stProxyHead connState = iota // reading the explicit proxy's first request
	stHead                       // reading the ClientHello or the first request
	stWait                       // a goroutine works for it: asking, resolving, dialling
	stDial                       // connecting
	stRelay                      // bytes flow
	stLinger                     // a last answer was sent; what the client still sends is thrown away
	stClosed
)

// conn is one connection of the sandbox's. It belongs to its loop's thread.
//
// Its life: aim (whither, by address, CONNECT or URI) -> judge -> perhaps ask -> proceed: what is left of {read and check the
// head, resolve and check the addresses, record, connect} in the order that the way in needs -> relay.
type conn struct {
	l      *loop
	s      *Server
	state  connState
	queued bool // in the loop's again list

	cl, up   *sock
	client   netip.AddrPort
	wanted   netip.AddrPort // where the client connected to
	peer     Peer
	pol      *policy.Compiled // judged by
	to       target
	rule     ruling
	consent  string // how it came to be allowed when not by an allow rule: "approved", "granted"
	waited   bool   // a person was asked, and has answered or not
	explicit bool
	connect  bool // CONNECT, not an absolute URI
	answered bool // CONNECT was answered with 200
	bySNI    bool // a literal that no rule covers: the ClientHello's name decides
	headOK   bool
	resolved bool
	viaProxy bool // the host's own proxy is to be used
	recorded bool // its one decision is made
	addrs    []netip.Addr

	counted  bool  // what became of it is
	began    int64 // when it came, later by what a person took to answer
	deadline int64 // of the state it is in; 0: none
	headAt   int64 // when a later request's head began that is not complete; 0: none is open
	cancel   context.CancelFunc
	dial     *dialing

	c2u, u2c dir
	x        *httpExchange // nil: bytes
	retry    *helloRetry   // nil: no second ClientHello can come
	denial   *denial       // a refusal that waits until it can be said
	trace    *ConnTrace    // nil: nobody wants to know
}

const lingerFor = 2 * time.Second

// accepted starts a connection's life.
func (l *loop) accepted(k *sock, fd int, client netip.AddrPort) {
	s := l.s
	if !s.takeConn() {
		s.full.Add(1)
		s.stats.conns[ConnFull].Add(1)
		sysReset(fd)
		sysClose(fd)
		return
	}
	c := &conn{l: l, s: s, client: client, explicit: k.explicit, pol: s.pol.Load(), state: stWait, began: l.now}
	cl, err := l.watch(fd, c)
	if err != nil {
		s.giveConn()
		sysClose(fd)
		return
	}
	c.cl = cl
	cl.out = true // what came along is an event already
	l.conns[c] = struct{}{}
	if s.cfg.Trace != nil {
		c.trace = s.cfg.Trace()
	}
	if c.trace != nil {
		c.trace.Began, c.trace.began = time.Now(), s.now() // the server's clock knows nothing of a host that slept
	}
	l.guarded(c, c.begin)
}

func (s *Server) takeConn() bool {
	if s.conns.Add(1) > int64(s.cfg.MaxConns) {
		s.conns.Add(-1)
		return false
	}
	if !s.cfg.Shared.take() {
		s.conns.Add(-1)
		return false
	}
	return true
}

func (s *Server) giveConn() {
	s.conns.Add(-1)
	s.cfg.Shared.give()
}

// begin finds out who is there and where it wants to go.
func (c *conn) begin() {
	local, err := c.s.wanted(c.cl.fd, c.client)
	if err != nil {
		c.abort()
		return
	}
	c.wanted = local
	c.to = target{addr: local.Addr(), port: local.Port()}
	peer, ok := c.s.cfg.Identify(c.client, local)
	if !ok {
		c.rule.mode = policy.TCP
		c.refuse("builtin", "the kernel did not note who made this connection, so nothing can be allowed for it", alertAccess)
		return
	}
	c.peer = peer
	if c.explicit {
		c.readHead(stProxyHead)
		return
	}
	if !isSynthetic(local.Addr()) {
		c.aim(c.to)
		return
	}
	name, ok := c.s.book.name(local.Addr())
	if !ok {
		c.rule.mode = policy.TCP
		why := "the address is synthetic and belongs to no name: only addresses that the sandbox's resolver has given out lead anywhere"
		if _, ok := indexOf(local.Addr()); !ok {
			why = "the address is the proxy's own"
		}
		c.refuse("builtin", why, alertAccess)
		return
	}
	c.aim(target{name: name, port: local.Port()})
}

// aim judges a destination and goes on as the verdict says.
func (c *conn) aim(t target) {
	c.enter(StepDecide)
	c.to = t
	c.rule = c.s.judge(c.pol, t, c.peer.Caller)
	if c.granted() {
		c.consent = "granted by a person"
		c.proceed()
		return
	}
	if t.name == "" && c.rule.rule == nil && !c.connect && !c.bySNI && isTLS(c.rule.mode) {
		c.bySNI = true
		c.readHead(stHead)
		return
	}
	switch c.rule.verdict {
	case policy.Allow:
		c.proceed()
	case policy.Ask:
		c.ask()
	default:
		by, why := c.rule.rule, "no rule allows it"
		switch {
		case c.rule.withheld != nil:
			by, why = c.rule.withheld, c.peer.Subject.Withheld()
		case by != nil:
			why = "a deny rule forbids it"
		}
		c.refuse(rulePos(c.pol, by), why, alertAccess)
	}
}

// granted reports whether a person has let through what no rule does, and none denies.
func (c *conn) granted() bool {
	asks := c.rule.verdict == policy.Ask || c.rule.verdict == policy.Deny && c.rule.rule == nil
	return asks && c.s.cfg.Granted != nil && c.s.cfg.Granted(c.record(c.rule.verdict, ""))
}

// record makes this connection's decision record.
func (c *conn) record(v policy.Verdict, reason string) policy.Decision {
	d := c.s.decision(c.pol, policy.PlaneNetwork, "connect", c.to.String(), v, c.rule.rule, reason)
	d.Subject, d.Waited = c.peer.Subject, c.waited
	return d
}

// ask holds the connection until a person has answered.
func (c *conn) ask() {
	if c.s.cfg.Ask == nil {
		c.refuse(rulePos(c.pol, c.rule.rule), "it has to be asked about, and nobody is there to answer", alertAccess)
		return
	}
	hold := c.pol.Hold
	if hold <= 0 {
		hold = time.Minute
	}
	d := c.record(policy.Ask, "held until a person answers")
	var verdict policy.Verdict
	asked := c.l.now
	why := "it was asked about, and was denied"
	c.enter(StepAsk)
	trace := c.trace
	c.work(hold, func(ctx context.Context) {
		if trace != nil {
			ctx = context.WithValue(ctx, traceKey{}, trace)
		}
		if verdict = c.s.cfg.Ask(ctx, d); ctx.Err() != nil {
			why = "it was asked about, and nobody answered in time"
		}
	}, func() {
		c.began += c.l.now - asked
		if c.waited = true; verdict != policy.Allow {
			c.refuse(rulePos(c.pol, c.rule.rule), why, alertAccess)
			return
		}
		c.consent = "approved by a person"
		c.proceed()
	}, nil)
}

// work runs f in a goroutine and then after on the loop's thread. When the connection has ended by then, f's context is
// cancelled and drop is called instead, if there is one.
func (c *conn) work(limit time.Duration, f func(context.Context), after, drop func()) {
	ctx, cancel := context.WithTimeout(c.s.ctx, limit)
	c.state, c.deadline, c.cancel = stWait, 0, cancel
	c.s.wg.Add(1)
	go func() {
		defer c.s.wg.Done()
		defer cancel()
		func() {
			defer c.s.guard("connection")
			f(ctx)
		}()
		posted := c.l.post(func() {
			switch {
			case c.state == stWait:
				c.cancel = nil
				c.l.guarded(c, after)
			case drop != nil:
				drop()
			}
		})
		if !posted && drop != nil {
			drop()
		}
	}()
}

// proceed takes the next of the steps that are left before bytes may flow.
func (c *conn) proceed() {
	head := c.rule.mode != policy.TCP && !c.headOK
	switch {
	case c.s.local(c.to.name):
		c.handOver()
	case c.explicit && !c.connect && isTLS(c.rule.mode):
		c.refuse(rulePos(c.pol, c.rule.rule), "the rule asks for TLS, and the request came in plain HTTP; use https (CONNECT)", 0)
	case c.connect && !c.resolved: // so that a name that leads nowhere can still be answered in HTTP
		c.resolve()
	case head:
		if c.connect && !c.answer200() {
			return
		}
		c.readHead(stHead)
	case !c.resolved:
		c.resolve()
	default:
		c.startDial()
	}
}

// answer200 tells a CONNECT client to go on.
func (c *conn) answer200() bool {
	if c.answered {
		return true
	}
	c.answered = true
	ok := "HTTP/1.1 200 Connection established\r\n\r\n"
	if n, err := sysWrite(c.cl.fd, []byte(ok)); err != nil || n != len(ok) {
		c.abort()
		return false
	}
	return true
}

// allowed records the decision to let the connection through; from here on bytes leave the host. It refuses it, and returns false,
// where it has to be on the disk first and can't be.
func (c *conn) allowed() bool {
	if c.recorded {
		return true
	}
	c.recorded = true
	d := c.record(policy.Allow, c.consent)
	c.decided(d)
	c.enter(StepRecord)
	if c.s.cfg.Permit == nil {
		c.s.cfg.Record(d)
		return true
	}
	if err := c.s.cfg.Permit(d); err != nil {
		c.refuse("builtin", "it is allowed, and could not be written down before: "+err.Error(), alertAccess)
		return false
	}
	return true
}

// step is called when a socket of the connection's has become ready, or when its turn has come again.
func (c *conn) step() {
	switch c.state {
	case stProxyHead, stHead:
		c.readHead(c.state)
	case stRelay:
		c.relay()
	case stLinger:
		c.drain()
	case stWait, stDial:
		if c.cl.broken {
			c.abort()
		}
	}
}

// timedOut is called when the state's deadline has passed.
func (c *conn) timedOut() {
	switch c.state {
	case stProxyHead, stHead:
		if c.denial != nil {
			c.answer(c.denial)
			return
		}
		what := "the head of its request"
		if c.headIsTLS() {
			what = "its ClientHello"
		}
		if len(c.c2u.hold) == 0 {
			c.close() // connected, said nothing: nothing was attempted
			return
		}
		c.refuse("builtin", fmt.Sprintf("the client did not send %s within %s", what, c.s.cfg.HeaderTimeout), alertAccess)
	case stDial:
		c.fail(fmt.Sprintf("no address of %s answered within %s", c.to, c.s.cfg.DialTimeout))
	case stRelay:
		c.abort() // idle for too long
	default:
		c.close()
	}
}

func sameProtocol(a, b policy.Protocol) bool {
	return a == b || isTLS(a) && isTLS(b)
}

func isTLS(p policy.Protocol) bool { return p == policy.TLS || p == policy.HTTPS }

// close ends the connection in an orderly way.
func (c *conn) close() { c.end(false) }

// abort ends it with resets, so that neither side takes what it got for the whole.
func (c *conn) abort() { c.end(true) }

func (c *conn) end(reset bool) {
	if c.state == stClosed {
		return
	}
	c.came(ConnAbandoned)
	c.state = stClosed
	if c.cancel != nil {
		c.cancel()
	}
	c.dropDials()
	for _, k := range []*sock{c.cl, c.up} {
		if k != nil && k.fd >= 0 {
			if reset {
				sysReset(k.fd)
			}
			c.l.forget(k)
		}
	}
	c.c2u.free()
	c.u2c.free()
	delete(c.l.conns, c)
	c.s.giveConn()
	c.traced()
}

// again reports whether a call would have had to wait.
func again(err error) bool { return errors.Is(err, unix.EAGAIN) }
