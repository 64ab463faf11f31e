package dnsproxy

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/policy"
)

const headRead = 16 << 10 // bytes read at once while a head is not complete; bounds what a connection may hold

// readHead reads until the head that the state asks for is complete, and has it judged.
func (c *conn) readHead(st connState) {
	if c.state != st {
		c.enter(StepHead)
		c.state = st
		c.c2u.scanned = 0
		c.deadline = c.l.now + int64(c.s.cfg.HeaderTimeout)
	}
	for tried := 0; ; {
		if n := len(c.c2u.hold); n > tried {
			if c.tryHead() || c.state == stClosed {
				return
			}
			tried = n
		}
		if !c.cl.in {
			return
		}
		n, err := sysRead(c.cl.fd, c.l.buf[:headRead])
		switch {
		case err != nil && again(err):
			c.cl.in = false
			return
		case err != nil:
			c.abort()
			return
		case n == 0:
			c.close() // gone before it had said anything that could be judged
			return
		}
		if n < headRead && !c.cl.ended {
			c.cl.in = false
		}
		c.c2u.hold = append(c.c2u.hold, c.l.buf[:n]...)
	}
}

// tryHead judges the head if it is complete. true: the connection has moved on; false: more bytes are needed.
func (c *conn) tryHead() bool {
	switch {
	case c.state == stProxyHead:
		return c.tryProxyHead()
	case c.headIsTLS():
		return c.tryHello()
	default:
		return c.tryRequest()
	}
}

func (c *conn) headIsTLS() bool { return c.state == stHead && isTLS(c.rule.mode) }

// tryHello checks the ClientHello against the name that was judged.
func (c *conn) tryHello() bool {
	h, err := parseClientHello(c.c2u.hold)
	if errors.Is(err, errHelloShort) {
		return false
	}
	c.retry = newHelloRetry(h)
	pos := rulePos(c.pol, c.rule.rule)
	switch {
	case err != nil:
		c.refuse(pos, "the rule asks for TLS, and "+err.Error(), alertDecode)
	case h.ech && !c.rule.ech:
		c.refuse(pos, "the ClientHello has an encrypted part (ECH, or the imitation of it that browsers send), which could name any server; turn it off in the client, or say `ech: allow` in the rule", alertAccess)
	case c.to.name == "" && c.bySNI:
		c.aimBySNI(h)
	case c.to.name == "":
		c.checkLiteralSNI(h)
	case h.name == "":
		c.refuse(pos, "the ClientHello names no server (no SNI), so it can't be told that it is meant for "+c.to.name, alertUnrecognize)
	case h.name != c.to.name:
		c.refuse(pos, fmt.Sprintf("the ClientHello names %s, but the connection was made to %s", h.name, c.to.name), alertUnrecognize)
	default:
		c.headOK = true
		c.proceed()
	}
	return true
}

// aimBySNI judges a TLS connection to an address that no rule covers by the name it asks for; if that is allowed, that name
// is resolved and dialled, not the address.
func (c *conn) aimBySNI(h hello) {
	if h.name == "" {
		c.refuse("default", "no rule covers the address, and the ClientHello names no server", alertUnrecognize)
		return
	}
	c.aim(target{name: h.name, port: c.to.port})
}

// checkLiteralSNI lets a TLS connection to an address that a rule covers go on, unless it asks for a name that is denied.
func (c *conn) checkLiteralSNI(h hello) {
	if h.name != "" {
		if v, rule := c.pol.Network.Judge(c.s.live(c.pol.Network.Match(h.name)), c.to.port, c.peer.Caller); rule != nil && v == policy.Deny {
			c.refuse(rulePos(c.pol, rule), "the ClientHello names "+h.name+", which a deny rule forbids", alertUnrecognize)
			return
		}
	}
	c.headOK = true
	c.proceed()
}

// requestEnd finds the end of the head that is held; 0 while it is not all there, and then whether what is there was
// refused already.
func (c *conn) requestEnd() (end int, refused bool) {
	b := c.c2u.hold
	if end = headEnd(b, c.c2u.scanned); end > 0 {
		return end, false
	}
	c.c2u.scanned = len(b)
	if err := earlyHeadError(b); err != nil {
		c.refuseRequest(nil, err)
		return 0, true
	}
	return 0, false
}

// tryRequest checks the first request's Host. Later ones are checked as they come (relay).
func (c *conn) tryRequest() bool {
	b := c.c2u.hold
	end, refused := c.requestEnd()
	if end == 0 {
		return refused
	}
	if c.denial != nil {
		c.answer(c.denial)
		return true
	}
	h, err := parseRequestHead(b[:end])
	if err == nil {
		err = c.checkRequest(h)
	}
	if err != nil {
		c.refuseRequest(h, err)
		return true
	}
	c.headOK = true
	c.proceed()
	return true
}

// errRequest is a request that the policy, not the protocol, refuses.
type errRequest struct{ msg string }

func (e *errRequest) Error() string { return e.msg }

// checkRequest judges one request on a connection whose destination is known: it must be for that destination.
func (c *conn) checkRequest(h *requestHead) error {
	if string(h.method) == "CONNECT" {
		return &errRequest{"CONNECT inside a connection is refused: it would lead past the check of the name"}
	}
	if !c.hostMatches(h.host) {
		return &errRequest{fmt.Sprintf("the request's Host is %q, but the connection was made to %s", clip(h.host), c.to)}
	}
	t := string(h.target)
	switch {
	case strings.HasPrefix(t, "/"):
	case t == "*" && string(h.method) == "OPTIONS":
	default:
		u, err := parseURI(t)
		if err != nil {
			return err
		}
		if u.to != c.to {
			return &errRequest{fmt.Sprintf("the request's URI is for %s, but the connection was made to %s", u.to, c.to)}
		}
	}
	return nil
}

// hostMatches compares a Host header with the connection's destination. The port may be left out, as old clients do.
func (c *conn) hostMatches(host string) bool {
	t, err := parseAuthority(host, c.to.port)
	return err == nil && t == c.to
}

// uri is an absolute http URI, cut where its authority ends.
type uri struct {
	to   target
	path string // with query; starts with a slash
}

func parseURI(s string) (uri, error) {
	const scheme = "http://"
	if len(s) < len(scheme) || !strings.EqualFold(s[:len(scheme)], scheme) {
		return uri{}, badRequest("the request target is neither a path nor an http:// URI")
	}
	rest := s[len(scheme):]
	path := "/"
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		rest, path = rest[:i], rest[i:]
	}
	if strings.IndexByte(path, '#') >= 0 {
		return uri{}, badRequest("the request target has a fragment")
	}
	if path[0] == '?' {
		path = "/" + path
	}
	t, err := parseAuthority(rest, 80)
	if err != nil {
		return uri{}, badRequest("the URI's authority: %v", err)
	}
	return uri{t, path}, nil
}

// tryProxyHead reads what a client that was told of the proxy wants.
func (c *conn) tryProxyHead() bool {
	b := c.c2u.hold
	end, refused := c.requestEnd()
	if end == 0 {
		return refused
	}
	h, err := parseRequestHead(b[:end])
	if err != nil {
		c.refuseRequest(h, err)
		return true
	}
	if string(h.method) == "CONNECT" {
		c.proxyConnect(h, end)
	} else {
		c.proxyURI(h, end)
	}
	return true
}

func (c *conn) proxyConnect(h *requestHead, end int) {
	t, err := parseAuthority(string(h.target), 0)
	if err == nil && (h.length != 0 || h.chunked) {
		err = errors.New("CONNECT has no body")
	}
	if err == nil {
		if ht, herr := parseAuthority(h.host, t.port); herr != nil || ht.host() != t.host() {
			err = errors.New("the Host header and the target disagree")
		}
	}
	if err == nil {
		t, err = c.unSynthetic(t)
	}
	if err != nil {
		c.refuseRequest(h, badRequest("CONNECT %s: %v", clip(string(h.target)), err))
		return
	}
	c.connect = true
	c.c2u.consume(end)
	c.aim(t)
}

// proxyURI carries one request with an absolute URI. The connection ends with its response, since the next request might be
// for somebody else.
func (c *conn) proxyURI(h *requestHead, end int) {
	u, err := parseURI(string(h.target))
	if err != nil {
		c.refuseRequest(h, err)
		return
	}
	if t, herr := parseAuthority(h.host, u.to.port); herr != nil || t != u.to {
		c.refuseRequest(h, badRequest("the request's Host is %q, but its URI is for %s", clip(h.host), u.to))
		return
	}
	if u.to, err = c.unSynthetic(u.to); err != nil {
		c.refuseRequest(h, badRequest("%v", err))
		return
	}
	c.x = &httpExchange{check: c.checkRequest, once: true}
	c.x.accept(h)
	c.c2u.pend = rewriteRequest(h, u.path)
	c.c2u.consume(end)
	c.headOK = true
	c.aim(u.to)
}

// unSynthetic turns an address that the sandbox's resolver gave out back into its name, for clients that resolve first.
func (c *conn) unSynthetic(t target) (target, error) {
	if t.name != "" || !isSynthetic(t.addr) {
		return t, nil
	}
	name, ok := c.s.book.name(t.addr)
	if !ok {
		return t, fmt.Errorf("%s is synthetic and belongs to no name", t.addr)
	}
	return target{name: name, port: t.port}, nil
}

// rewriteRequest makes the request that an origin server expects of one with an absolute URI.
func rewriteRequest(h *requestHead, path string) []byte {
	var out bytes.Buffer
	out.Write(h.method)
	out.WriteString(" " + path + " ")
	if h.http10 {
		out.WriteString("HTTP/1.0\r\n")
	} else {
		out.WriteString("HTTP/1.1\r\n")
	}
	for line := range bytes.SplitSeq(bytes.TrimSuffix(h.fields, []byte("\r\n\r\n")), []byte("\r\n")) {
		name, _, _ := bytes.Cut(line, []byte(":"))
		if isField(name, "proxy-connection") || isField(name, "proxy-authorization") || isField(name, "connection") || isField(name, "keep-alive") {
			continue
		}
		out.Write(line)
		out.WriteString("\r\n")
	}
	if h.websocket {
		out.WriteString("Connection: Upgrade\r\n\r\n")
	} else {
		out.WriteString("Connection: close\r\n\r\n")
	}
	return out.Bytes()
}

// clip shortens what a client sent for use in a message.
func clip(s string) string {
	if len(s) > 200 {
		return s[:200] + "..."
	}
	return s
}

// drain throws away what a client still sends after its last answer, so that the answer is not lost to a reset.
func (c *conn) drain() {
	for range fairShare {
		if !c.cl.in {
			return
		}
		n, err := sysRead(c.cl.fd, c.l.buf)
		switch {
		case err != nil && again(err):
			c.cl.in = false
			return
		case err != nil, n == 0:
			c.close()
			return
		}
	}
	c.l.later(c)
}

// linger sends the last bytes a client will get and waits for it to leave.
func (c *conn) linger(last []byte) {
	if n, err := sysWrite(c.cl.fd, last); err != nil || n != len(last) {
		c.abort()
		return
	}
	c.leave()
	sysShutdown(c.cl.fd, unix.SHUT_WR)
	if c.up != nil {
		c.l.forget(c.up)
	}
	c.dropDials()
	c.state = stLinger
	c.deadline = c.l.now + int64(lingerFor)
	c.drain()
}
