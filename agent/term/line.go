package term

import (
	"bytes"
	"context"
	"errors"
	"io"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNoLine says that the person closed the terminal's input (Ctrl-D) instead of answering.
var ErrNoLine = errors.New("no answer was given")

// maxLine is the longest line that a terminal takes in one piece.
const maxLine = 4096

// Line reads a line that the person types, without its newline; secret: nothing of it is shown. It ends with ctx, and
// leaves the terminal as it found it.
func (t *TTY) Line(ctx context.Context, secret bool) (string, error) {
	if secret {
		if err := t.silence(); err != nil {
			return "", err
		}
		defer func() {
			_ = t.Restore()                // it is restored, or gone
			_, _ = t.f.WriteString("\r\n") // the newline that was not shown either
		}()
	}
	stop := context.AfterFunc(ctx, func() { _ = t.f.SetReadDeadline(time.Unix(1, 0)) }) // ends the read that waits
	defer func() {
		stop()
		_ = t.f.SetReadDeadline(time.Time{})
	}()
	var line []byte
	for len(line) <= maxLine {
		b := make([]byte, maxLine)
		n, err := t.f.Read(b)
		line = append(line, b[:n]...)
		if i := bytes.IndexByte(line, '\n'); i >= 0 {
			return string(line[:i]), nil
		}
		switch {
		case ctx.Err() != nil:
			return "", ctx.Err()
		case errors.Is(err, io.EOF):
			return "", ErrNoLine
		case err != nil:
			return "", err
		}
	}
	return "", errors.New("the line is too long")
}

// Say writes to the terminal.
func (t *TTY) Say(s string) error {
	_, err := t.f.WriteString(s)
	return err
}

// silence makes the terminal show nothing of what is typed, until Restore.
func (t *TTY) silence() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	saved, err := t.termios()
	if err != nil {
		return err
	}
	quiet := *saved
	quiet.Lflag &^= unix.ECHO
	if err := t.set(&quiet); err != nil {
		return err
	}
	t.saved = saved
	return nil
}
