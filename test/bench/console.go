package main

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// console is a `nemoclaw term` at a terminal of 80 columns and 24 lines, and what that shows.
type console struct {
	pid    int
	master *os.File

	mu     sync.Mutex
	screen screen
	waits  map[*wait]struct{}
}

// wait is for something to be on the screen.
type wait struct {
	is  func(lines []string) bool
	was chan float64 // when it was first there
}

func (d *daemon) openConsole() *console {
	master, slave := openTerminal(d.b)
	cmd := d.Command("term")
	cmd.Env = append(cmd.Env, "TERM=xterm-256color", "LANG=C.UTF-8")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	d.b.Must(cmd.Start())
	slave.Close()
	c := &console{pid: cmd.Process.Pid, master: master, waits: map[*wait]struct{}{}}
	go c.read()
	d.b.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		master.Close()
	})
	_, err := c.shows(func(lines []string) bool { return strings.Contains(lines[0], "NemoClaw") }).wait()
	d.b.Must(err)
	return c
}

func openTerminal(b *bench) (master, slave *os.File) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	b.Must(err)
	b.Must(unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	b.Must(err)
	b.Must(unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: lines, Col: columns}))
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	b.Must(err)
	return os.NewFile(uintptr(fd), "terminal"), slave
}

// read shows what the console writes, until it ends.
func (c *console) read() {
	buf := make([]byte, 64<<10)
	for {
		n, err := c.master.Read(buf)
		at := now()
		c.mu.Lock()
		c.screen.write(buf[:n])
		if len(c.waits) > 0 {
			text := c.screen.text()
			for w := range c.waits {
				if w.is(text) {
					w.was <- at
					delete(c.waits, w)
				}
			}
		}
		c.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// shows begins to wait for something to be on the screen.
func (c *console) shows(is func(lines []string) bool) *wait {
	w := &wait{is, make(chan float64, 1)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if is(c.screen.text()) {
		w.was <- now()
	} else {
		c.waits[w] = struct{}{}
	}
	return w
}

// wait returns when it was there.
func (w *wait) wait() (float64, error) {
	select {
	case at := <-w.was:
		return at, nil
	case <-time.After(patience):
		return 0, fmt.Errorf("the console never showed what was waited for")
	}
}

// listed begins to wait for a request in a state to be listed.
func (c *console) listed(state, sandbox, object string) *wait {
	return c.shows(func(lines []string) bool {
		for _, l := range lines {
			if strings.HasPrefix(l[1:], state+" ") && strings.Contains(l, " "+sandbox+" ") && strings.Contains(l, " "+object+" ") {
				return true
			}
		}
		return false
	})
}

// press presses a key.
func (c *console) press(key string) error {
	_, err := c.master.WriteString(key)
	return err
}

// selected is which request is under the cursor: its sandbox, action and object.
func selected(lines []string) string {
	for _, l := range lines {
		if words := strings.Fields(l); strings.HasPrefix(l, ">refused ") && len(words) > 3 {
			return strings.Join(words[1:4], " ")
		}
	}
	return ""
}

// key moves the cursor to the next or the last request, and returns how long it takes until the screen shows it, in microseconds.
func (c *console) key(key string) (float64, error) {
	c.mu.Lock()
	before := selected(c.screen.text())
	c.mu.Unlock()
	w := c.shows(func(lines []string) bool {
		s := selected(lines)
		return s != "" && s != before
	})
	start := now()
	if err := c.press(key); err != nil {
		return 0, err
	}
	at, err := w.wait()
	return at - start, err
}
