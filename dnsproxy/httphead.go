package dnsproxy

import (
	"bytes"
	"fmt"
	"strings"
)

// Limits of an HTTP message's head. Larger ones are refused with an error that names the limit.
const (
	maxHead    = 64 << 10 // bytes of a request's or response's head
	maxHeaders = 256      // header lines
	maxLine    = 16 << 10 // bytes of a chunk-size or trailer line
)

// httpError is an HTTP message that this proxy refuses to carry because two parsers could read it differently.
type httpError struct {
	status int // what the client is answered: 400, 413, 431, 501, 505
	msg    string
}

func (e *httpError) Error() string { return e.msg }

func badRequest(format string, args ...any) error {
	return &httpError{status: 400, msg: fmt.Sprintf(format, args...)}
}

// requestHead is what a request's head says about framing and destination. Byte slices point into the parsed buffer.
type requestHead struct {
	method, target []byte
	host           string // Host's value as it stands
	length         int64  // Content-Length; 0 when absent
	chunked        bool
	websocket      bool // asks to become a WebSocket
	expect         bool // Expect: 100-continue
	http10         bool
	fields         []byte // the header lines with their CRLFs and the empty line, for rewriting
}

// headEnd returns the length of the head that b starts with, with its empty line, or 0 when it is not complete. from is how
// many bytes an earlier call has searched.
func headEnd(b []byte, from int) int {
	from = max(0, from-3)
	if i := bytes.Index(b[from:], []byte("\r\n\r\n")); i >= 0 {
		return from + i + 4
	}
	return 0
}

// parseRequestHead reads a complete head, as headEnd delimits it. What it accepts is a subset of RFC 9112 in which the end
// of every message is unambiguous.
func parseRequestHead(b []byte) (*requestHead, error) {
	h := &requestHead{}
	line, rest, err := cutLine(b)
	if err != nil {
		return nil, err
	}
	if err := h.requestLine(line); err != nil {
		return nil, err
	}
	h.fields = rest
	f, err := parseFields(rest)
	if err != nil {
		return nil, err
	}
	if f.hosts != 1 {
		return nil, badRequest("the request has %d Host headers; exactly one is needed", f.hosts)
	}
	h.host = f.host
	if f.hasLength && f.chunked {
		return nil, badRequest("the request has both Content-Length and Transfer-Encoding")
	}
	if f.chunked && h.http10 {
		return nil, badRequest("Transfer-Encoding in an HTTP/1.0 request")
	}
	h.length, h.chunked = f.length, f.chunked
	switch {
	case f.expect == "":
	case strings.EqualFold(f.expect, "100-continue"):
		h.expect = !h.http10
	default:
		return nil, &httpError{417, "the only expectation that is carried is 100-continue"}
	}
	if f.upgrade != "" || f.http2Settings {
		if !strings.EqualFold(f.upgrade, "websocket") || f.http2Settings {
			return nil, &httpError{501, "an upgrade to anything but websocket is refused (h2c included)"}
		}
		if string(h.method) != "GET" || h.length != 0 || h.chunked || h.http10 || !f.connUpgrade {
			return nil, badRequest("a websocket upgrade is a GET without a body, with Connection: Upgrade")
		}
		h.websocket = true
	}
	return h, nil
}

func (h *requestHead) requestLine(line []byte) error {
	method, rest, ok1 := bytes.Cut(line, []byte(" "))
	tgt, version, ok2 := bytes.Cut(rest, []byte(" "))
	if !ok1 || !ok2 || len(method) == 0 || len(tgt) == 0 || bytes.IndexByte(version, ' ') >= 0 {
		return badRequest("the request line is not METHOD SP TARGET SP VERSION")
	}
	if string(method) == "PRI" && string(tgt) == "*" {
		return &httpError{505, "HTTP/2 over plain TCP is refused: the Host of each request could not be checked; use HTTP/1.1"}
	}
	for _, c := range method {
		if !tokenByte[c] {
			return badRequest("the method holds a byte that no method may")
		}
	}
	for _, c := range tgt {
		if c <= ' ' || c >= 0x7f {
			return badRequest("the request target holds a space, a control or a non-ASCII byte")
		}
	}
	switch string(version) {
	case "HTTP/1.1":
	case "HTTP/1.0":
		h.http10 = true
	default:
		return &httpError{505, "the version is neither HTTP/1.1 nor HTTP/1.0"}
	}
	h.method, h.target = method, tgt
	return nil
}

// fields is what the header lines of a request or response say about framing.
type fields struct {
	hosts         int
	host          string
	hasLength     bool
	length        int64
	chunked       bool
	otherCoding   bool // a Transfer-Encoding that is not exactly "chunked"
	upgrade       string
	connUpgrade   bool
	http2Settings bool
	expect        string
}

// parseFields reads header lines up to and including the empty line, which must be the end of b.
func parseFields(b []byte) (fields, error) {
	var f fields
	for n := 0; ; n++ {
		line, rest, err := cutLine(b)
		if err != nil {
			return f, err
		}
		if len(line) == 0 {
			if len(rest) != 0 {
				return f, badRequest("bytes follow the empty line inside the head")
			}
			return f, nil
		}
		if n == maxHeaders {
			return f, &httpError{431, fmt.Sprintf("the head has more than %d lines", maxHeaders)}
		}
		name, value, err := splitField(line)
		if err != nil {
			return f, err
		}
		if err := f.note(name, value); err != nil {
			return f, err
		}
		b = rest
	}
}

// note takes in one header line that bears on framing or destination.
func (f *fields) note(name, value []byte) error {
	switch {
	case isField(name, "host"):
		f.hosts++
		f.host = string(value)
	case isField(name, "content-length"):
		n, ok := parseLength(value)
		if !ok || f.hasLength {
			return badRequest("Content-Length is not one plain decimal number")
		}
		f.hasLength, f.length = true, n
	case isField(name, "transfer-encoding"):
		if f.chunked || f.otherCoding || !bytes.EqualFold(value, []byte("chunked")) {
			f.otherCoding = true
			return &httpError{501, "Transfer-Encoding is not exactly \"chunked\", once"}
		}
		f.chunked = true
	case isField(name, "upgrade"):
		if f.upgrade != "" || len(value) == 0 {
			return badRequest("Upgrade does not hold one protocol")
		}
		f.upgrade = string(value)
	case isField(name, "http2-settings"):
		f.http2Settings = true
	case isField(name, "expect"):
		if f.expect != "" || len(value) == 0 {
			return badRequest("Expect does not hold one expectation")
		}
		f.expect = string(value)
	case isField(name, "connection"):
		for opt := range bytes.SplitSeq(value, []byte(",")) {
			opt = bytes.Trim(opt, " \t")
			switch {
			case isField(opt, "upgrade"):
				f.connUpgrade = true
			case isField(opt, "host"), isField(opt, "content-length"), isField(opt, "transfer-encoding"):
				// A server that obeys would drop the very header that was checked.
				return badRequest("Connection names a header that decides framing or destination")
			}
		}
	}
	return nil
}

// isField compares a header name without case; an underscore counts as a hyphen, since servers that hand headers to CGI
// programs make them equal.
func isField(name []byte, lower string) bool {
	if len(name) != len(lower) {
		return false
	}
	for i, c := range name {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c == '_' {
			c = '-'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// cutLine splits off the line that b starts with. The line ends with CRLF; a CR or LF elsewhere, a NUL or another control
// byte is an error.
func cutLine(b []byte) (line, rest []byte, err error) {
	i := bytes.IndexByte(b, '\n')
	if i < 1 || b[i-1] != '\r' {
		return nil, nil, badRequest("a line does not end with CRLF")
	}
	line = b[:i-1]
	for _, c := range line {
		if c < ' ' && c != '\t' || c == 0x7f {
			return nil, nil, badRequest("a line holds a control byte (0x%02x)", c)
		}
	}
	return line, b[i+1:], nil
}

// splitField splits "name: value"; the value is without surrounding spaces and tabs.
func splitField(line []byte) (name, value []byte, err error) {
	if line[0] == ' ' || line[0] == '\t' {
		return nil, nil, badRequest("a header line is folded")
	}
	name, value, ok := bytes.Cut(line, []byte(":"))
	if !ok || len(name) == 0 {
		return nil, nil, badRequest("a header line has no name or no colon")
	}
	for _, c := range name {
		if !tokenByte[c] {
			return nil, nil, badRequest("a header name holds a byte that no name may (0x%02x)", c)
		}
	}
	return name, bytes.Trim(value, " \t"), nil
}

// parseLength reads a Content-Length: digits only, at most 18 of them, so that sums cannot overflow.
func parseLength(b []byte) (int64, bool) {
	if len(b) == 0 || len(b) > 18 {
		return 0, false
	}
	var n int64
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// tokenByte marks the bytes of an RFC 9110 token.
var tokenByte = func() (t [256]bool) {
	for _, c := range "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ" {
		t[c] = true
	}
	return t
}()
