package forward

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/agent/config"
	"github.com/nemoclaw/nemoclaw/agent/sink"
	"github.com/nemoclaw/nemoclaw/policy"
)

const (
	dialTime   = 10 * time.Second
	writeTime  = 30 * time.Second // for 64 KiB
	settleTime = 30 * time.Second
)

// syslog is a server of RFC 5424's messages, each with its length before it (RFC 6587, RFC 5425), over TCP or TLS.
//
// The protocol has no acknowledgements. What the kernel has sent may lie unread at the other side, and be lost with the program there.
// So a connection is closed our way when its records are to count as delivered: a server that has read all of it, up to that end, closes
// its way too; one that dies, or closes with something unread, makes the kernel reset the connection, and all is sent again.
type syslog struct {
	address string
	tls     func() (*tls.Config, error) // nil: there is none
	host    string

	conn      net.Conn
	unsettled bool // something was sent since all was settled
	buf       []byte
}

func newSyslog(c config.Forward) (*syslog, error) {
	s := &syslog{address: c.Address(), host: hostname()}
	if strings.HasPrefix(c.Syslog, "tls:") {
		host, _, _ := net.SplitHostPort(s.address)
		s.tls = sink.TLS(c.Server, host)
		if _, err := s.tls(); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// hostname is this host's, as a header's field or a label.
func hostname() string {
	name, _ := os.Hostname()
	return headerWord(name, 255)
}

func (s *syslog) send(ctx context.Context, batch []record) error {
	s.buf = s.buf[:0]
	for i := range batch {
		s.buf = appendFrame(s.buf, s.host, &batch[i])
	}
	if s.conn == nil {
		conn, err := s.dial(ctx)
		if err != nil {
			return err
		}
		s.conn, s.unsettled = conn, false // what a connection of before had is sent anew
	}
	s.unsettled = true
	conn := s.conn // what ends with ctx runs beside us, and maybe when s has none any more
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Now()) })
	defer stop()
	const part = 64 << 10
	for b := s.buf; len(b) > 0; {
		n := min(part, len(b))
		conn.SetWriteDeadline(time.Now().Add(writeTime))
		err := ctx.Err() // its deadline may have been taken back just now
		if err == nil {
			_, err = conn.Write(b[:n])
		}
		if err != nil {
			s.hangUp()
			return fmt.Errorf("%s: %w", s.address, bare(err))
		}
		b = b[n:]
	}
	return nil
}

func (s *syslog) dial(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	var conn net.Conn
	var err error
	d := &net.Dialer{}
	d.SetMultipathTCP(false)
	if s.tls == nil {
		conn, err = d.DialContext(ctx, "tcp", s.address)
	} else {
		var c *tls.Config
		if c, err = s.tls(); err == nil {
			conn, err = (&tls.Dialer{NetDialer: d, Config: c}).DialContext(ctx, "tcp", s.address)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.address, bare(err))
	}
	return conn, nil
}

// settle closes our way, and waits for the server's to be closed.
func (s *syslog) settle(ctx context.Context) error {
	if s.conn == nil {
		if s.unsettled {
			return fmt.Errorf("%s: the connection broke before all was read", s.address)
		}
		return nil
	}
	defer s.hangUp()
	conn := s.conn
	conn.SetDeadline(time.Now().Add(settleTime))
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Now()) })
	defer stop()
	if err := s.closeBoth(ctx); err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = errors.New("it does not close the connection when we do, so nobody knows what it has read")
		}
		return fmt.Errorf("%s: %w", s.address, bare(err))
	}
	s.unsettled = false
	return nil
}

// closeBoth closes the connection, us first.
func (s *syslog) closeBoth(ctx context.Context) error {
	plain := s.conn
	t, ok := plain.(*tls.Conn)
	if ok {
		plain = t.NetConn()
	}
	tcp := plain.(*net.TCPConn)
	if state, err := tcpState(tcp); err != nil {
		return err
	} else if state != established {
		return errors.New("it closed the connection, and nobody knows what it had read")
	}
	if ok {
		if err := t.CloseWrite(); err != nil {
			return err
		}
	}
	if err := tcp.CloseWrite(); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, io.LimitReader(s.conn, 1<<20)); err != nil { // nothing is said there
		return err
	}
	// It may have closed just before our records came. The kernel there has refused them then, which it says after the end that was read.
	for end := time.Now().Add(settleTime); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(time.Millisecond) {
		if state, err := tcpState(tcp); err != nil || state == closed {
			return err
		}
	}
	return os.ErrDeadlineExceeded
}

// States of a TCP connection, as the kernel numbers them.
const (
	established = 1
	closed      = 7
)

// tcpState is what the kernel knows of a connection, or the error that it ended with.
func tcpState(c *net.TCPConn) (state uint8, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	e := raw.Control(func(fd uintptr) {
		var info *unix.TCPInfo
		if info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err != nil {
			return
		}
		state = info.State
		// After the state: a reset that comes in between would leave a connection that is closed, and seems to have ended well.
		var n int
		if n, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR); err == nil && n != 0 {
			err = syscall.Errno(n)
		}
	})
	return state, errors.Join(e, err)
}

func (s *syslog) hangUp() {
	s.conn.Close()
	s.conn = nil
}

// bare is an error without the addresses that package net puts before it.
func bare(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

// The parts of a message's head. Facility 13 is "log audit". 32473 is the enterprise number that RFC 5612 keeps for who has none.
const (
	facility    = 13
	application = "nemoclaw-agent"
	element     = "nemoclaw@32473"
)

// maxMessage bounds a message: what is longer is cut, and says so. Records are shorter, but for those that keep what was found torn.
const maxMessage = 192 << 10

// appendFrame appends a message with its length.
func appendFrame(dst []byte, host string, r *record) []byte {
	m := appendMessage(nil, host, r)
	dst = append(strconv.AppendInt(dst, int64(len(m)), 10), ' ')
	return append(dst, m...)
}

// appendMessage appends a message of RFC 5424.
func appendMessage(dst []byte, host string, r *record) []byte {
	severity := map[policy.Verdict]int{policy.Deny: 4, policy.Ask: 5, policy.Allow: 6}[r.Verdict]
	dst = fmt.Appendf(dst, "<%d>1 ", facility*8+severity)
	if y := r.Time.Year(); r.Time.IsZero() || y < 0 || y > 9999 {
		dst = append(dst, '-')
	} else {
		dst = r.Time.UTC().AppendFormat(dst, "2006-01-02T15:04:05.000000Z")
	}
	dst = fmt.Appendf(dst, " %s %s - %s [%s", host, application, headerWord(string(r.Plane), 32), element)
	body := r.body
	dst = parameter(dst, "seq", strconv.FormatUint(r.Seq, 10))
	dst = parameter(dst, "hash", r.Hash)
	dst = parameter(dst, "sandbox", r.Sandbox)
	dst = parameter(dst, "verdict", r.Verdict.String())
	if len(body) > maxMessage {
		dst = parameter(dst, "cut", strconv.Itoa(len(body)))
		body = body[:maxMessage]
		for len(body) > 0 && !utf8.RuneStart(r.body[len(body)]) {
			body = body[:len(body)-1]
		}
	}
	dst = append(dst, ']', ' ')
	return appendOneLine(dst, string(body))
}

// headerWord is a field of the head: visible ASCII, "-" where there is none.
func headerWord(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return '_'
		}
		return r
	}, s)
	if s == "" {
		return "-"
	}
	return s[:min(len(s), limit)]
}

// parameter appends one of the structured data.
func parameter(dst []byte, name, value string) []byte {
	dst = append(append(append(dst, ' '), name...), '=', '"')
	for _, c := range appendOneLine(nil, value) {
		if c == '"' || c == '\\' || c == ']' {
			dst = append(dst, '\\')
		}
		dst = append(dst, c)
	}
	return append(dst, '"')
}

// appendOneLine appends a text: every character that isn't printable is a blank, so that a server that splits at line ends, or a
// terminal, is told nothing by it. The log's own lines have none.
func appendOneLine(dst []byte, s string) []byte {
	for _, r := range s {
		if !unicode.IsPrint(r) {
			r = ' '
		}
		dst = utf8.AppendRune(dst, r) // what is not UTF-8 is the replacement character
	}
	return dst
}
