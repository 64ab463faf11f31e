// Package wire is what both ends of `nemoclaw-exec/1` share: a connection over a Unix socket that carries descriptors
// beside its bytes, and the lines that are exchanged while a command runs.
//
//	client: POST /v1/sandboxes/NAME/exec, Upgrade: nemoclaw-exec/1, an api.Exec as JSON; with these bytes the descriptors (SCM_RIGHTS)
//	server: 101 when the command runs, with these bytes its terminal's master side if it has one; 204 when it runs detached, and
//	        that is all; else an error as everywhere
//	client: {"signal":15}    as often as it likes
//	server: {"exit":0}       or {"gone":"why"}, and the end
//
// No byte of the command passes through a connection: the two ends hold its pipes, files or terminal themselves. The
// package decides nothing; it never keeps a descriptor that nobody asked for.
package wire

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Protocol is the name that the Upgrade header has.
const Protocol = "nemoclaw-exec/1"

// maxFiles is how many descriptors a connection keeps for who takes them: a command has three streams.
const maxFiles = 3

// maxLine bounds a line, its newline included.
const maxLine = 4096

// A Conn is a Unix connection that keeps the descriptors that come with its bytes until they are taken. Only Take may
// be called beside a Read.
type Conn struct {
	*net.UnixConn

	mu      sync.Mutex
	refuse  bool // descriptors are left to the kernel, which drops them
	surplus bool // more came than are kept
	files   []*os.File
	control [64]byte // room for more than maxFiles, so that surplus ones are seen
}

// NewConn wraps a connection. With refuse no descriptor is ever taken from it.
func NewConn(c *net.UnixConn, refuse bool) *Conn { return &Conn{UnixConn: c, refuse: refuse} }

// Read reads bytes, and keeps what descriptors come along.
func (c *Conn) Read(b []byte) (int, error) {
	c.mu.Lock()
	refuse := c.refuse
	c.mu.Unlock()
	if refuse {
		return c.UnixConn.Read(b) // a read without room for them makes the kernel close them
	}
	n, size, flags, _, err := c.ReadMsgUnix(b, c.control[:])
	if size > 0 || flags&unix.MSG_CTRUNC != 0 {
		c.keep(c.control[:size], flags&unix.MSG_CTRUNC != 0)
	}
	if errors.Is(err, io.EOF) {
		err = io.EOF // not wrapped, as readers expect it
	}
	return max(n, 0), err // recvmsg's -1 is no count
}

// keep takes the descriptors out of a control message. Go has made them close on exec.
func (c *Conn) keep(control []byte, truncated bool) {
	var fds []int
	messages, _ := unix.ParseSocketControlMessage(control)
	for i := range messages {
		if rights, err := unix.ParseUnixRights(&messages[i]); err == nil {
			fds = append(fds, rights...)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.surplus = c.surplus || truncated
	for _, fd := range fds {
		if c.refuse || len(c.files) == maxFiles {
			c.surplus = true
			unix.Close(fd)
			continue
		}
		c.files = append(c.files, os.NewFile(uintptr(fd), "passed"))
	}
}

// Take returns the descriptors that came, which are the caller's from now on; no more are taken from this connection.
// When more came than anybody could want it is an error, and all are closed.
func (c *Conn) Take() ([]*os.File, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	files := c.files
	c.files, c.refuse = nil, true
	if c.surplus {
		CloseAll(files)
		return nil, fmt.Errorf("more than %d descriptors were sent", maxFiles)
	}
	return files, nil
}

// Close closes the connection and what descriptors were not taken.
func (c *Conn) Close() error {
	err := c.UnixConn.Close()
	files, _ := c.Take()
	CloseAll(files)
	return err
}

// CloseAll closes files.
func CloseAll(files []*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}

// Send writes b, and with its first bytes the descriptors of files.
func (c *Conn) Send(b []byte, files ...*os.File) error {
	fds := make([]int, 0, maxFiles)
	for _, f := range files {
		raw, err := f.SyscallConn() // Fd would make the file blocking
		if err == nil {
			err = raw.Control(func(fd uintptr) { fds = append(fds, int(fd)) })
		}
		if err != nil {
			return fmt.Errorf("passing %s: %w", f.Name(), err)
		}
	}
	if len(fds) > 0 {
		n, _, err := c.WriteMsgUnix(b, unix.UnixRights(fds...), nil)
		if err != nil {
			return err
		}
		b = b[n:]
	}
	if len(b) == 0 {
		return nil
	}
	_, err := c.Write(b)
	return err
}

// A Frame is one line while a command runs.
type Frame struct {
	Signal int    `json:"signal,omitempty"` // to the command
	Exit   *int   `json:"exit,omitempty"`   // its status, as a shell gives it
	Gone   string `json:"gone,omitempty"`   // the whole sandbox ended, and why
}

// Line is the frame as it is sent.
func (f Frame) Line() []byte {
	b, err := json.Marshal(f)
	if err != nil {
		panic(err) // a number and a text can always be written
	}
	return append(b, '\n')
}

// NewReader returns a reader for ReadFrame.
func NewReader(r io.Reader) *bufio.Reader { return bufio.NewReaderSize(r, maxLine) }

// ReadFrame reads one line. The end of the connection is io.EOF.
func ReadFrame(r *bufio.Reader) (Frame, error) {
	line, err := r.ReadSlice('\n')
	if err != nil {
		if errors.Is(err, io.EOF) && len(line) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return Frame{}, err
	}
	return ParseFrame(line)
}

// ParseFrame reads a frame, in which one thing is said.
func ParseFrame(line []byte) (Frame, error) {
	var f Frame
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		return Frame{}, fmt.Errorf("%s: %w", Protocol, err)
	}
	said := 0
	for _, is := range []bool{f.Signal != 0, f.Exit != nil, f.Gone != ""} {
		if is {
			said++
		}
	}
	if _, err := d.Token(); said != 1 || !errors.Is(err, io.EOF) {
		return Frame{}, fmt.Errorf("%s: %.80q is not one frame", Protocol, line)
	}
	return f, nil
}
