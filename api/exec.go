package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/nemoclaw/nemoclaw/api/wire"
)

// ErrLost says that the daemon ended while a command ran. The command runs on; nobody will know its status.
var ErrLost = errors.New("the NemoClaw daemon ended the connection while the command ran: the command runs on, its status is not known")

// A Process is a command that was started by Exec. Its streams are the files that Exec was given; if one was a
// terminal, the command has a terminal of its own, and the caller copies between Terminal and the real one.
type Process struct {
	conn     *wire.Conn
	reader   *bufio.Reader
	terminal *os.File
	detached bool

	once   sync.Once // Wait
	status int
	err    error
}

// Exec starts a command in a sandbox and returns when it runs. files are its stdin, stdout and stderr, which the caller keeps
// and may close at once; nil ones are /dev/null. ctx bounds the start alone: see Process.Close.
func (c *Client) Exec(ctx context.Context, name string, e Exec, files [3]*os.File) (*Process, error) {
	e.Files = nil
	passed := make([]*os.File, 0, len(files))
	for _, f := range files {
		e.Files = append(e.Files, f != nil)
		if f != nil {
			passed = append(passed, f)
		}
	}
	body, err := execBody(e)
	if err != nil {
		return nil, err
	}
	unix, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	p := &Process{conn: wire.NewConn(unix, false), detached: e.Detach}
	p.reader = wire.NewReader(p.conn)
	stop := context.AfterFunc(ctx, func() { _ = p.conn.SetDeadline(time.Unix(1, 0)) })
	err = p.start(name, body, passed)
	if !stop() {
		err = ctx.Err()
	}
	if err == nil && p.detached {
		p.conn.Close()
	}
	if err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// execBody writes the request's body. JSON is UTF-8: what isn't would reach the command as something else.
func execBody(e Exec) ([]byte, error) {
	for _, list := range [][]string{e.Args, e.Set, {e.Dir}} {
		for _, text := range list {
			if !utf8.ValidString(text) {
				return nil, &Error{Invalid, fmt.Sprintf("%.80q is not UTF-8, and can't be passed to a command", text)}
			}
		}
	}
	e.Env = slices.DeleteFunc(slices.Clone(e.Env), func(v string) bool { return !utf8.ValidString(v) }) // hints only
	return json.Marshal(e)
}

// start sends the request, with the descriptors, and reads the answer, with the terminal. One message each way: a
// command's start waits for nothing else.
func (p *Process) start(name string, body []byte, files []*os.File) error {
	msg := fmt.Appendf(make([]byte, 0, 256+len(body)), "POST /v1/%s HTTP/1.1\r\nHost: nemoclaw\r\nConnection: Upgrade\r\nUpgrade: %s\r\n"+
		"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n", of(name, "exec"), wire.Protocol, len(body))
	sent := p.conn.Send(append(msg, body...), files...)
	resp, err := http.ReadResponse(p.reader, nil) // an answer may have come although not all was sent
	if err != nil {
		if sent != nil {
			err = sent
		}
		return fmt.Errorf("the NemoClaw daemon did not answer to an exec in %s: %w", name, err)
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusSwitchingProtocols:
	case http.StatusNoContent: // detached
		return nil
	default:
		return readError(resp)
	}
	came, err := p.conn.Take()
	if err == nil && len(came) > 1 {
		wire.CloseAll(came)
		err = errors.New("more than one terminal")
	}
	if err != nil {
		return fmt.Errorf("the daemon's answer to an exec in %s: %w", name, err)
	}
	if len(came) == 1 {
		p.terminal = came[0]
	}
	return nil
}

// Terminal is the master side of the command's terminal; nil when none of its streams was one. The caller copies between
// it and the real one, sets its size (TIOCSWINSZ), and closes it, or lets Close do it.
func (p *Process) Terminal() *os.File { return p.terminal }

// Signal sends a signal to the command's process group. A command that has ended gets none; that is no error.
func (p *Process) Signal(sig int) error {
	if p.detached {
		return errors.New("a detached command gets no signals from here")
	}
	err := p.conn.Send(wire.Frame{Signal: sig}.Line())
	if errors.Is(err, syscall.EPIPE) {
		return nil
	}
	return err
}

// Wait returns the command's status as a shell gives it, once it has ended. The error says that the whole sandbox ended, or
// ErrLost. A detached command is not waited for.
func (p *Process) Wait() (int, error) {
	p.once.Do(func() {
		if p.detached {
			return
		}
		switch f, err := wire.ReadFrame(p.reader); {
		case err != nil && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)):
			p.status, p.err = 1, ErrLost
		case err != nil:
			p.status, p.err = 1, fmt.Errorf("waiting for the command: %w", err)
		case f.Exit != nil:
			p.status = *f.Exit
		default:
			p.status, p.err = 128+int(syscall.SIGKILL), &Error{Conflict, f.Gone}
		}
	})
	return p.status, p.err
}

// Close hangs up: a command that runs still, and is not detached, gets SIGHUP.
func (p *Process) Close() {
	p.conn.Close()
	if p.terminal != nil {
		p.terminal.Close()
	}
}
