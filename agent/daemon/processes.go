package daemon

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nemoclaw/nemoclaw/agent/text"
	"github.com/nemoclaw/nemoclaw/api"
)

// What is told of the processes above one that attempts something.
const (
	maxAncestors = 16
	maxCommand   = 256 // bytes
)

// A patience bounds how long the daemon waits for what processes inside tell of themselves: to read a command line takes locks and
// pages of the process that it is of, so the process can make it slow. It is a tenth of the time, and no more than most at once.
type patience struct {
	mu     sync.Mutex
	left   time.Duration
	filled time.Time
	busy   atomic.Bool // a read that nobody waits for any more has not ended
}

const most = 200 * time.Millisecond

// read returns what f does, or nothing when there is no patience left. f may go on meanwhile, once.
func (p *patience) read(f func() []api.Ancestor) []api.Ancestor {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.left = min(most, p.left+now.Sub(p.filled)/10)
	p.filled = now
	if p.left <= 0 || !p.busy.CompareAndSwap(false, true) {
		return nil
	}
	got := make(chan []api.Ancestor, 1)
	go func() {
		list := f()
		p.busy.Store(false)
		got <- list
	}()
	enough := time.NewTimer(p.left)
	defer enough.Stop()
	defer func() { p.left -= time.Since(now) }()
	select {
	case list := <-got:
		return list
	case <-enough.C:
		return nil
	}
}

// ancestors are the parents of a process inside, the nearest first, up to the sandbox's init; none when the process has ended, or when
// they can't be read in time. The caller may hold the desk's lock.
func (b *box) ancestors(pid int) []api.Ancestor {
	b.mu.Lock()
	i := b.instance
	b.mu.Unlock()
	if i == nil || pid == 0 {
		return nil
	}
	top := i.Box().InitPID()
	return b.patience.read(func() []api.Ancestor { return readAncestors(pid, top) })
}

func readAncestors(pid, top int) (list []api.Ancestor) {
	for range maxAncestors {
		stat, err := readStat(pid)
		switch {
		case err != nil || stat.parent <= 1:
			return nil // it has ended, and its number may be another's, of the host
		case stat.parent == top:
			return list
		}
		pid = stat.parent
		f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/cmdline")
		if err != nil {
			return nil
		}
		command := make([]byte, maxCommand)
		n, _ := f.Read(command) // of one that has just ended there is nothing to read
		f.Close()
		args := strings.ReplaceAll(strings.TrimRight(string(command[:n]), "\x00"), "\x00", " ")
		list = append(list, api.Ancestor{PID: pid, Args: text.Valid(args)})
	}
	return list
}

// stat is what proc_pid_stat(5) says of a process.
type stat struct {
	parent   int
	terminal uint32 // its number; 0: none
}

func readStat(pid int) (s stat, err error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return s, err
	}
	// After the name, which may hold anything: state, parent, group, session, terminal.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 5 {
		return s, fmt.Errorf("/proc/%d/stat: %q", pid, text)
	}
	s.parent, _ = strconv.Atoi(fields[1])
	n, _ := strconv.ParseInt(fields[4], 10, 64)
	s.terminal = uint32(n)
	return s, nil
}

// terminalOf is the controlling terminal of a process, "" when it has none.
func terminalOf(pid int) string {
	s, err := readStat(pid)
	if err != nil || s.terminal == 0 {
		return ""
	}
	major, minor := s.terminal>>8&0xfff, s.terminal&0xff|s.terminal>>12&0xfff00
	switch {
	case major >= 136 && major <= 143: // Documentation/admin-guide/devices.txt
		return fmt.Sprintf("pts/%d", (major-136)<<20|minor)
	case major == 4 && minor < 64:
		return fmt.Sprintf("tty%d", minor)
	case major == 4:
		return fmt.Sprintf("ttyS%d", minor-64)
	}
	return fmt.Sprintf("terminal %d:%d", major, minor)
}
