package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// DefaultSocket is where the daemon listens unless its configuration says otherwise.
const DefaultSocket = "/run/nemoclaw/agent.sock"

// ErrNotRunning says that nobody listens at the socket.
var ErrNotRunning = errors.New("the NemoClaw daemon does not run")

// base is the address of every request: the socket says where it goes, so the host's name is nobody's.
const base = "http://nemoclaw/v1/"

// maxAnswer bounds an answer that is held in memory.
const maxAnswer = 64 << 20

// A Client talks to one daemon. Its methods may be called from several goroutines. What the daemon refuses is an
// *Error; that nobody listens is ErrNotRunning.
type Client struct {
	socket string
	http   *http.Client
}

// Dial returns the client of the daemon that listens at socket. Nothing is connected before the first call, and
// connections are kept and used again.
func Dial(socket string) *Client {
	c := &Client{socket: socket}
	c.http = &http.Client{Transport: &http.Transport{
		DialContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx) },
		DisableCompression:  true,
		MaxIdleConnsPerHost: 4,
		IdleConnTimeout:     30 * time.Second,
	}}
	return c
}

// Close closes the connections that no call uses.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// dial connects, and says what to do when that is not possible.
func (c *Client) dial(ctx context.Context) (*net.UnixConn, error) {
	var d net.Dialer
	for wait := time.Millisecond; ; wait *= 2 {
		conn, err := d.DialContext(ctx, "unix", c.socket)
		if err == nil {
			return conn.(*net.UnixConn), nil
		}
		// The queue of those who wait to be accepted is full: connect doesn't wait for room by itself.
		if !errors.Is(err, syscall.EAGAIN) || wait > time.Second {
			return nil, c.unreachable(err)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// unreachable says why the socket can't be used, and what to do.
func (c *Client) unreachable(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: there is no socket %s; start it: systemctl start nemoclaw-agent", ErrNotRunning, c.socket)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w: nobody listens at %s; start it: systemctl start nemoclaw-agent", ErrNotRunning, c.socket)
	case errors.Is(err, fs.ErrPermission):
		return &Error{Forbidden, fmt.Sprintf("connecting to %s: %s", c.socket, mayConnect(c.socket))}
	}
	return fmt.Errorf("connecting to the NemoClaw daemon at %s: %w", c.socket, err)
}

// mayConnect says who may connect to a socket. What stands in the way is the socket's mode or that of its directory.
func mayConnect(socket string) string {
	for _, name := range []string{socket, filepath.Dir(socket)} {
		st, err := os.Stat(name)
		if err != nil {
			continue
		}
		owner, ok := st.Sys().(*syscall.Stat_t)
		if !ok || owner.Gid == 0 {
			continue
		}
		group := strconv.Itoa(int(owner.Gid))
		if g, err := user.LookupGroupId(group); err == nil {
			group = g.Name
		}
		return fmt.Sprintf("only root and members of the group %s may; as root, `usermod -aG %s USER`, then log in again", group, group)
	}
	return "only root may; use sudo, or name a group as steer_group in the daemon's configuration"
}

// call sends one request with a JSON body (nil: none) and reads the JSON answer into answer (nil: there is none).
func (c *Client) call(ctx context.Context, method, path string, body, answer any) error {
	var send io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("%s %s: %w", method, path, err)
		}
		send = bytes.NewReader(b)
	}
	resp, err := c.send(ctx, method, path, "application/json", send)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err == nil && answer != nil {
		err = json.Unmarshal(b, answer)
	}
	if err != nil {
		return fmt.Errorf("the daemon's answer to %s %s: %w", method, path, err)
	}
	return nil
}

// send sends one request and returns the answer, whose body the caller closes, or the error that it is.
func (c *Client) send(ctx context.Context, method, path, kind string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, base+path, body)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	if body != nil {
		req.Header.Set("Content-Type", kind)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.transport(err)
	}
	if resp.StatusCode >= 300 {
		defer resp.Body.Close()
		return nil, readError(resp)
	}
	return resp, nil
}

// transport takes net/http's own words ("Get http://...") off an error.
func (c *Client) transport(err error) error {
	var refused *Error
	switch inner := errors.Unwrap(err); {
	case errors.As(err, &refused):
		return refused
	case errors.Is(err, ErrNotRunning) && inner != nil:
		return inner
	case errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, io.EOF) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET):
		return fmt.Errorf("the NemoClaw daemon at %s ended the connection without an answer: it stops, or it has too many connections: %w", c.socket, err)
	}
	return fmt.Errorf("asking the NemoClaw daemon at %s: %w", c.socket, err)
}

// readError reads an answer that is an error. What is no *Error comes from net/http: the request was malformed.
func readError(resp *http.Response) error {
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	var e Error
	if err == nil && json.Unmarshal(b, &e) == nil && e.Code != "" {
		return &e
	}
	return &Error{Internal, fmt.Sprintf("the daemon answered %s: %q", resp.Status, strings.TrimSpace(string(b)))}
}

// ErrorTrailer is the trailer of a stream (events, a download) that failed after it had begun: an Error as JSON.
const ErrorTrailer = "Nemoclaw-Error"

// streamError returns the error that the end of a stream brought along. It is called after the stream's last byte.
func streamError(resp *http.Response) error {
	text := resp.Trailer.Get(ErrorTrailer)
	if text == "" {
		return nil
	}
	var e Error
	if err := json.Unmarshal([]byte(text), &e); err != nil {
		return &Error{Internal, fmt.Sprintf("the daemon's stream failed: %q", text)}
	}
	return &e
}
