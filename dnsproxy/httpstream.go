package dnsproxy

import (
	"bytes"
	"errors"
)

// errPause says that a stream must wait for the other direction before it can go on.
var errPause = errors.New("waiting for the other direction")

// maxPipelined is how many requests may wait for their responses before the client's are left unread.
const maxPipelined = 64

// httpExchange follows both directions of one client connection whose requests all go to one upstream. It only finds where
// messages begin and end and has each request's head judged; every byte that goes on is the byte that came.
type httpExchange struct {
	check func(*requestHead) error // judges one request; the error refuses it
	once  bool                     // only one request may pass (an absolute-URI request through the explicit proxy)

	requests int64 // heads that have passed
	body     bodyReader
	scanned  int // bytes of an incomplete request head that headEnd has searched

	pending    [maxPipelined]pendingKind // a ring of requests that wait for their final response
	first, cnt int

	respBody    bodyReader
	respScanned int
	closing     bool // nothing more of the client's may be forwarded
	upgrading   bool // a websocket request is unanswered: the client's bytes wait
	tunnel      bool // 101 has been answered: bytes
}

type pendingKind uint8

const (
	pendingPlain pendingKind = iota
	pendingHead
	pendingUpgrade
	pendingExpect
)

// request reads the client's direction. It returns how many bytes may be forwarded; the rest must come again with more
// behind it. errPause: not before the other direction has moved. Any other error refuses what follows the n bytes.
func (x *httpExchange) request(b []byte) (n int, err error) {
	for {
		rest := b[n:]
		switch {
		case x.tunnel:
			return len(b), nil
		case x.closing, x.upgrading:
			return n, errPause
		case x.body.state != bodyDone:
			m, err := x.body.feed(rest)
			n += m
			if err != nil || x.body.state != bodyDone {
				return n, err
			}
			continue
		case len(rest) == 0:
			return n, nil
		case x.once && x.requests > 0, x.cnt == maxPipelined:
			return n, errPause
		}
		end := headEnd(rest, x.scanned)
		if end == 0 {
			x.scanned = len(rest)
			return n, earlyHeadError(rest)
		}
		x.scanned = 0
		if end > maxHead {
			return n, errHeadBig
		}
		h, err := parseRequestHead(rest[:end])
		if err != nil {
			return n, err
		}
		if err := x.check(h); err != nil {
			return n, err
		}
		x.accept(h)
		n += end
	}
}

// accept notes a request whose head goes on.
func (x *httpExchange) accept(h *requestHead) {
	kind := pendingPlain
	switch {
	case string(h.method) == "HEAD":
		kind = pendingHead
	case h.websocket:
		kind = pendingUpgrade
		x.upgrading = true
	case h.expect:
		kind = pendingExpect
	}
	x.pending[(x.first+x.cnt)%maxPipelined] = kind
	x.cnt++
	x.requests++
	if h.chunked {
		x.body = chunkedBody(true)
	} else {
		x.body = lengthBody(h.length)
	}
}

var errHeadBig = &httpError{431, "the head is longer than 64 KiB"}

// earlyHeadError refuses an incomplete head that can no longer become a good one, so that a client which speaks something
// else, or only line feeds, is told at once instead of after the header time-out.
func earlyHeadError(b []byte) error {
	if len(b) > maxHead {
		return errHeadBig
	}
	line := b
	i := bytes.IndexByte(b, '\n')
	if i >= 0 {
		line = b[:i]
		if i == 0 || b[i-1] != '\r' {
			return badRequest("a line does not end with CRLF")
		}
	}
	if m := bytes.IndexByte(line, ' '); m < 0 && len(line) > 64 || m == 0 {
		return badRequest("the first line is not a request line")
	} else if m > 0 {
		line = line[:m]
	}
	for _, c := range line {
		if !tokenByte[c] && c != '\r' {
			return badRequest("the first bytes are not an HTTP request")
		}
	}
	if bytes.HasPrefix(b, []byte("PRI * HTTP/2")) {
		return &httpError{505, "HTTP/2 over plain TCP is refused: the Host of each request could not be checked; use HTTP/1.1"}
	}
	return nil
}

// errUnasked: an upstream that sends a response nobody asked for is not spoken with any further.
var errUnasked = errors.New("the upstream sent a response that no request asked for")

// response reads the upstream's direction, with request's contract.
func (x *httpExchange) response(b []byte) (n int, err error) {
	for {
		rest := b[n:]
		if x.tunnel {
			return len(b), nil
		}
		if x.respBody.state != bodyDone {
			m, err := x.respBody.feed(rest)
			n += m
			if err != nil || x.respBody.state != bodyDone {
				return n, err
			}
			x.pop()
			continue
		}
		if len(rest) == 0 {
			return n, nil
		}
		if x.cnt == 0 {
			return n, errUnasked
		}
		end := headEnd(rest, x.respScanned)
		if end == 0 {
			x.respScanned = len(rest)
			if len(rest) > maxHead {
				return n, errHeadBig
			}
			if !bytes.HasPrefix(rest, []byte("HTTP/1.")[:min(7, len(rest))]) {
				return n, badRequest("the upstream's response does not start with HTTP/1")
			}
			return n, nil
		}
		x.respScanned = 0
		if err := x.responseHead(rest[:end]); err != nil {
			return n, err
		}
		n += end
	}
}

// responseHead takes in one complete response head and sets up its body.
func (x *httpExchange) responseHead(b []byte) error {
	line, rest, err := cutLine(b)
	if err != nil {
		return err
	}
	status, http10, err := parseStatus(line)
	if err != nil {
		return err
	}
	f, err := parseFields(rest)
	if err != nil {
		return err
	}
	if f.hasLength && f.chunked {
		return badRequest("the response has both Content-Length and Transfer-Encoding")
	}
	kind := x.pending[x.first]
	last := x.cnt == 1
	switch {
	case status == 101:
		if kind != pendingUpgrade || !last {
			return badRequest("the upstream switched protocols without being asked")
		}
		x.tunnel, x.upgrading = true, false
		return nil
	case status < 200:
		return nil // interim: the final response follows
	}
	if kind == pendingUpgrade {
		x.upgrading = false
	}
	// Servers disagree about whether a body follows when they answered before 100-continue, and anything may follow a
	// response that came before its request's body had ended. So nothing more is forwarded after it.
	if last && x.body.state != bodyDone && kind == pendingExpect {
		x.closing = true
	}
	switch {
	case kind == pendingHead, status == 204, status == 304:
		x.pop()
	case f.chunked && http10:
		return badRequest("Transfer-Encoding in an HTTP/1.0 response")
	case f.chunked:
		x.respBody = chunkedBody(false)
	case f.hasLength:
		if x.respBody = lengthBody(f.length); f.length == 0 {
			x.pop()
		}
	default:
		x.respBody = bodyReader{state: bodyUntilClose}
		x.closing = true
	}
	return nil
}

// pop ends the oldest outstanding request.
func (x *httpExchange) pop() {
	x.first = (x.first + 1) % maxPipelined
	x.cnt--
}

// idle reports whether every request that was forwarded is answered in full, so that an answer of the proxy's own can
// follow.
func (x *httpExchange) idle() bool { return x.cnt == 0 && x.respBody.state == bodyDone }

// finished reports whether the connection has served its purpose: no request may follow and none is open.
func (x *httpExchange) finished() bool {
	return !x.tunnel && x.idle() && x.requests > 0 && (x.closing || x.once && x.body.state == bodyDone)
}

// parseStatus reads "HTTP/1.x NNN reason".
func parseStatus(line []byte) (status int, http10 bool, err error) {
	if len(line) < 12 || string(line[:7]) != "HTTP/1." || line[7] != '0' && line[7] != '1' || line[8] != ' ' || len(line) > 12 && line[12] != ' ' {
		return 0, false, badRequest("the upstream's status line is malformed")
	}
	for _, c := range line[9:12] {
		if c < '0' || c > '9' {
			return 0, false, badRequest("the upstream's status line is malformed")
		}
		status = status*10 + int(c-'0')
	}
	if status < 100 {
		return 0, false, badRequest("the upstream's status is below 100")
	}
	return status, line[7] == '0', nil
}

// paused reports whether the client's direction must still wait for the upstream's.
func (x *httpExchange) paused() bool {
	return !x.tunnel && (x.closing || x.upgrading || x.once && x.requests > 0 && x.body.state == bodyDone || x.cnt == maxPipelined)
}
