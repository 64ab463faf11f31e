package sandbox

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Usage is what a sandbox takes.
type Usage struct {
	Memory    int64         // bytes, the kernel's for it among them; 0 where no memory controller counts
	CPU       time.Duration // since the start
	Processes int           // the init among them
}

// Usage reads what the sandbox takes now.
func (s *Sandbox) Usage() (u Usage, err error) {
	procs, err := os.ReadFile(filepath.Join(s.cgroup.v2, "cgroup.procs"))
	if err != nil {
		return u, fmt.Errorf("sandbox: reading what it takes: %w", err)
	}
	u.Processes = bytes.Count(procs, []byte("\n"))
	for _, dir := range append([]string{s.cgroup.v2}, s.cgroup.v1...) {
		for _, name := range []string{"memory.current", "memory.usage_in_bytes"} {
			if n, ok := readNumber(filepath.Join(dir, name)); ok {
				u.Memory = n
			}
		}
	}
	stat, err := os.ReadFile(filepath.Join(s.cgroup.v2, "cpu.stat"))
	if err != nil {
		return u, fmt.Errorf("sandbox: reading what it takes: %w", err)
	}
	for line := range strings.Lines(string(stat)) {
		if text, ok := strings.CutPrefix(line, "usage_usec "); ok {
			n, _ := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
			u.CPU = time.Duration(n) * time.Microsecond
		}
	}
	return u, nil
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
