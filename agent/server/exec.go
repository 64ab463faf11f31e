package server

import (
	"bufio"
	"context"
	"net/http"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/api"
	"github.com/nemoclaw/nemoclaw/api/wire"
)

// maxSignal is the last signal there is.
const maxSignal = 64

// exec starts a command with the descriptors that came with the request, and stays with it until it ends. The answer,
// 101, takes its terminal along; package wire says what follows. No byte of the command comes through here.
func (q *request) exec() (any, error) {
	q.w.Header().Set("Connection", "close") // unless it is upgraded: descriptors are taken from a connection once
	if !upgrades(q.Header) {
		return nil, invalid("an exec needs the headers `Connection: Upgrade` and `Upgrade: %s`: the command's streams are passed as descriptors", wire.Protocol)
	}
	e, err := decode[api.Exec](q)
	if err != nil {
		return nil, err
	}
	files, err := q.streams(e)
	if err != nil {
		return nil, err
	}
	c := &command{q: q, files: files}
	if err := c.start(e); err != nil {
		return nil, err
	}
	if e.Detach {
		go c.finish()
		return nil, nil
	}
	return nil, c.attend()
}

// upgrades says whether the request asks for wire.Protocol.
func upgrades(h http.Header) bool {
	for token := range strings.SplitSeq(h.Get("Connection"), ",") {
		if strings.EqualFold(strings.TrimSpace(token), "upgrade") {
			return h.Get("Upgrade") == wire.Protocol
		}
	}
	return false
}

// streams takes the descriptors that came, and puts them in their places.
func (q *request) streams(e api.Exec) (files [3]*os.File, err error) {
	came, err := q.peer.Take()
	if err != nil {
		return files, invalid("%v", err)
	}
	defer func() {
		if err != nil {
			wire.CloseAll(came)
		}
	}()
	announced := 0
	for _, is := range e.Files {
		if is {
			announced++
		}
	}
	switch {
	case len(e.Files) > len(files):
		return files, invalid("files has %d entries; a command has stdin, stdout and stderr", len(e.Files))
	case announced != len(came):
		return files, invalid("files says that %d descriptors come with the request; %d did", announced, len(came))
	case e.Shell && len(e.Args) > 0:
		return files, invalid("with shell, args must be empty")
	case !e.Shell && (len(e.Args) == 0 || e.Args[0] == ""):
		return files, invalid("args names no command")
	}
	next := came
	for i, is := range e.Files {
		if !is {
			continue
		}
		files[i], next = next[0], next[1:]
		if e.Detach && isTerminal(files[i]) {
			return [3]*os.File{}, invalid("a detached command can't have a terminal: nobody would be there to relay it; redirect its input and output")
		}
	}
	return files, nil
}

func isTerminal(f *os.File) (is bool) {
	if raw, err := f.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			_, err := unix.IoctlGetTermios(int(fd), unix.TCGETS)
			is = err == nil
		})
	}
	return is
}

// A command is one that a caller started.
type command struct {
	q       *request
	files   [3]*os.File
	process Process
}

// start has the Backend run it. ctx is of the start alone: a command that is detached outlives its request.
func (c *command) start(e api.Exec) (err error) {
	started := false
	uid := c.q.peer.caller.UID
	execs := &c.q.server.limits.execs
	if !execs.take(uid, 0) {
		wire.CloseAll(c.files[:])
		return &api.Error{Code: api.Busy, Message: "too many commands that were started from outside run: end some"}
	}
	defer func() { // also when the Backend panics
		if !started {
			wire.CloseAll(c.files[:])
			execs.give(uid)
		}
	}()
	c.process, err = c.q.server.backend.Exec(c.q.Context(), c.q.who(), c.q.name, e, c.files)
	started = err == nil
	return err
}

// finish waits for the command's end, and closes its files: they are in use until then.
func (c *command) finish() {
	<-c.process.Done()
	wire.CloseAll(c.files[:])
	c.q.server.limits.execs.give(c.q.peer.caller.UID)
}

// attend says that the command runs, passes signals on, and says how it ended.
func (c *command) attend() error {
	defer c.finish()
	terminal := c.process.Terminal()
	if terminal != nil {
		defer terminal.Close()
	}
	c.q.began = true // whatever happens now, there is nobody to answer to over HTTP
	_, buffered, err := c.q.ctl.Hijack()
	if err != nil {
		c.hangUp()
		return err
	}
	conn := c.q.peer
	defer conn.Close()
	// A server that stops lets go of its commands: they run on.
	defer context.AfterFunc(c.q.server.life, func() { conn.Close() })()
	_ = conn.SetDeadline(time.Time{})
	_ = conn.SetWriteDeadline(time.Now().Add(c.q.server.limits.stalled))
	head := []byte("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + wire.Protocol + "\r\n\r\n")
	if terminal != nil {
		err = conn.Send(head, terminal)
		terminal.Close() // the caller's copy is the only one from now on: when it goes, the command is hung up
	} else {
		err = conn.Send(head)
	}
	if err != nil {
		c.hangUp()
		return nil
	}
	go c.listen(buffered.Reader)
	<-c.process.Done()
	status, err := c.process.Wait()
	last := wire.Frame{Exit: &status}
	if err != nil {
		last = wire.Frame{Gone: err.Error()}
	}
	_ = conn.SetWriteDeadline(time.Now().Add(c.q.server.limits.stalled))
	_ = conn.Send(last.Line()) // an error is the caller's going away
	return nil
}

// listen passes the caller's signals on. When the caller goes away, or says what can't be, the command is hung up.
func (c *command) listen(r *bufio.Reader) {
	for {
		f, err := wire.ReadFrame(r)
		if err != nil || f.Signal < 1 || f.Signal > maxSignal {
			break
		}
		_ = c.process.Signal(f.Signal) // a command that can't be signalled has ended
	}
	select {
	case <-c.process.Done():
	default:
		c.hangUp()
	}
}

// hangUp ends the command of a caller that went away, but not that of a server that stops. As a terminal does, it sees to it
// that a command that is stopped hears of it.
func (c *command) hangUp() {
	if c.q.server.life.Err() == nil {
		_ = c.process.Signal(int(unix.SIGHUP))
		_ = c.process.Signal(int(unix.SIGCONT))
	}
}
