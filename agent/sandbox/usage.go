package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Usage is what a sandbox takes.
type Usage struct {
	Memory      int64         // bytes, the kernel's for it among them; 0 where no memory controller counts
	MemoryLimit int64         // bytes; 0: none
	OOMKills    int64         // processes that were killed because there was no more
	CPU         time.Duration // since the start
	Processes   int           // the init among them
	Tasks       int64         // their threads; 0 where no pids controller counts
	TaskLimit   int64         // 0: none
	Disk        *DiskUse      // since the start; nil where no controller counts it
}

// DiskUse is what was read from and written to disks, in bytes. With cgroups v1 writes that the kernel does later are nobody's.
type DiskUse struct{ Read, Written int64 }

// Usage reads what the sandbox takes now.
func (s *Sandbox) Usage() (u Usage, err error) {
	procs, err := os.ReadFile(filepath.Join(s.cgroup.v2, "cgroup.procs"))
	if err != nil {
		return u, fmt.Errorf("sandbox: reading what it takes: %w", err)
	}
	u.Processes = bytes.Count(procs, []byte("\n"))
	stat, err := os.ReadFile(filepath.Join(s.cgroup.v2, "cpu.stat"))
	if err != nil {
		return u, fmt.Errorf("sandbox: reading what it takes: %w", err)
	}
	u.CPU = time.Duration(keyed(stat, "usage_usec")) * time.Microsecond
	for _, dir := range append([]string{s.cgroup.v2}, s.cgroup.v1...) {
		u.read(dir)
	}
	return u, nil
}

// read takes what a group of either version says.
func (u *Usage) read(dir string) {
	for name, to := range map[string]*int64{
		"memory.current": &u.Memory, "memory.max": &u.MemoryLimit, "memory.usage_in_bytes": &u.Memory, "memory.limit_in_bytes": &u.MemoryLimit,
		"pids.current": &u.Tasks, "pids.max": &u.TaskLimit,
	} {
		if n, ok := readNumber(filepath.Join(dir, name)); ok && n < unlimited {
			*to = n
		}
	}
	for _, name := range []string{"memory.events", "memory.oom_control"} {
		if text, err := os.ReadFile(filepath.Join(dir, name)); err == nil {
			u.OOMKills = keyed(text, "oom_kill")
		}
	}
	for _, name := range []string{"io.stat", "blkio.throttle.io_service_bytes"} {
		if text, err := os.ReadFile(filepath.Join(dir, name)); err == nil {
			u.Disk = diskUse(string(text))
		}
	}
}

// unlimited is what version 1 shows where there is no limit, or more.
const unlimited = 1 << 62

// keyed is the number after a word that a line begins with.
func keyed(text []byte, word string) int64 {
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, word+" "); ok {
			n, _ := strconv.ParseInt(strings.TrimSpace(rest), 10, 64)
			return n
		}
	}
	return 0
}

// diskUse adds up the disks of an io.stat ("8:0 rbytes=1 wbytes=2 ...") or of its like in version 1 ("8:0 Read 1").
func diskUse(text string) *DiskUse {
	var d DiskUse
	for line := range strings.Lines(text) {
		fields := strings.Fields(strings.ReplaceAll(line, "=", " "))
		for i := 0; i+1 < len(fields); i++ {
			n, _ := strconv.ParseInt(fields[i+1], 10, 64)
			switch fields[i] {
			case "rbytes", "Read":
				d.Read += n
			case "wbytes", "Write":
				d.Written += n
			}
		}
	}
	return &d
}

func readNumber(file string) (int64, bool) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	return n, err == nil
}

// Dial connects to a TCP server inside, by an address on loopback.
func (s *Sandbox) Dial(ctx context.Context, addr string) (c net.Conn, err error) {
	err = s.inNetns(func() error {
		var d net.Dialer
		d.SetMultipathTCP(false)
		c, err = d.DialContext(ctx, "tcp", addr)
		return err
	})
	return c, err
}

// Freeze makes every process of the sandbox stand still where it is, and returns when they do; Thaw lets them go on.
func (s *Sandbox) Freeze() error {
	s.mu.Lock()
	s.still++
	err := s.cgroup.freeze()
	s.mu.Unlock()
	if err != nil {
		return errors.Join(err, s.Thaw())
	}
	deadline := time.Now().Add(freezeTime)
	for wait := 100 * time.Microsecond; ; wait = min(2*wait, 10*time.Millisecond) {
		events, err := os.ReadFile(filepath.Join(s.cgroup.v2, "cgroup.events"))
		switch {
		case err != nil:
			return errors.Join(fmt.Errorf("sandbox: freezing: %w", err), s.Thaw())
		case bytes.Contains(events, []byte("frozen 1")):
			return nil
		case time.Now().After(deadline):
			return errors.Join(errors.New("sandbox: freezing: a process does not stand still: it is in a system call that can't be interrupted"), s.Thaw())
		}
		time.Sleep(wait)
	}
}

// freezeTime is how long processes have to stand still.
const freezeTime = 5 * time.Second

// Thaw undoes one Freeze: with the last of them the sandbox goes on. One that has lost a mask meanwhile stays as it is.
func (s *Sandbox) Thaw() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.still = max(s.still-1, 0); s.still > 0 {
		return nil
	}
	if s.unmasked {
		return errors.New("sandbox: thawing: something on the host took a mask away, so nobody inside may go on")
	}
	if err := writeFile(filepath.Join(s.cgroup.v2, "cgroup.freeze"), "0"); err != nil {
		return fmt.Errorf("sandbox: thawing: %w", err)
	}
	return nil
}

// OpenRoot opens the root directory of what the sandbox sees, as its processes do.
func (s *Sandbox) OpenRoot() (*os.File, error) {
	root, err := os.OpenFile("/proc/"+strconv.Itoa(s.pid)+"/root", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, fmt.Errorf("sandbox: opening the view: %w", err)
	}
	return root, nil
}
