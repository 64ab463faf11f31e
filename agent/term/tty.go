// Package term owns the person's terminal for the time of a run: raw mode and its end, the relay between it and the
// sandbox's pseudo-terminal, and the questions that are asked on it. It shows nothing from inside a sandbox outside the
// relay without escaping it, and takes no key as an answer that was typed before the question could be read.
package term

import (
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// A TTY is a terminal, opened for this process alone: making it non-blocking changes nothing for other processes that
// share the terminal's open file, such as the shell.
type TTY struct {
	f     *os.File
	mu    sync.Mutex
	saved *unix.Termios // what Restore puts back; nil when not raw
}

// Open opens the terminal at path: /dev/tty for the controlling one.
func Open(path string) (*TTY, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open the terminal: %w", err)
	}
	t := &TTY{f: f}
	if _, err := t.termios(); err != nil {
		f.Close()
		return nil, fmt.Errorf("open the terminal: %s: %w", path, err)
	}
	return t, nil
}

// Is reports whether f is a terminal.
func Is(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// Foreground reports whether this process may read the terminal: it belongs to the job in the foreground, or the
// terminal isn't its controlling one, and then no job control stands in the way.
func (t *TTY) Foreground() bool {
	fg := 0
	err := t.control(func(fd int) (err error) {
		fg, err = unix.IoctlGetInt(fd, unix.TIOCGPGRP)
		return err
	})
	return err != nil || fg == unix.Getpgrp()
}

// Size returns the terminal's size; 24 by 80 when it has none.
func (t *TTY) Size() (rows, cols uint16) {
	err := t.control(func(fd int) error {
		ws, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ)
		if err == nil {
			rows, cols = ws.Row, ws.Col
		}
		return err
	})
	if err != nil || rows == 0 || cols == 0 {
		return 24, 80
	}
	return rows, cols
}

// Raw makes the terminal pass every byte as it comes. Only what was not raw before is changed by Restore.
func (t *TTY) Raw() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.saved != nil {
		return nil
	}
	saved, err := t.termios()
	if err != nil {
		return err
	}
	raw := *saved
	raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	raw.Oflag &^= unix.OPOST
	raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	raw.Cflag = raw.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	if err := t.set(&raw); err != nil {
		return err
	}
	t.saved = saved
	return nil
}

// Restore ends Raw.
func (t *TTY) Restore() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.saved == nil {
		return nil
	}
	err := t.set(t.saved)
	t.saved = nil
	return err
}

// Close restores the terminal and ends reads that wait.
func (t *TTY) Close() error {
	err := t.Restore()
	if e := t.f.Close(); err == nil {
		err = e
	}
	return err
}

// discard drops what was typed and not read yet.
func (t *TTY) discard() error {
	return t.control(func(fd int) error { return unix.IoctlSetInt(fd, unix.TCFLSH, unix.TCIFLUSH) })
}

func (t *TTY) termios() (tio *unix.Termios, err error) {
	err = t.control(func(fd int) error {
		tio, err = unix.IoctlGetTermios(fd, unix.TCGETS)
		return err
	})
	return tio, err
}

func (t *TTY) set(tio *unix.Termios) error {
	return t.control(func(fd int) error { return unix.IoctlSetTermios(fd, unix.TCSETS, tio) })
}

// control runs f on the descriptor without taking it out of the poller, as File.Fd would.
func (t *TTY) control(f func(fd int) error) error {
	c, err := t.f.SyscallConn()
	if err != nil {
		return err
	}
	var in error
	if err := c.Control(func(fd uintptr) { in = f(int(fd)) }); err != nil {
		return err
	}
	return in
}
