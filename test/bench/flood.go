package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/api"
	nemoclaw "github.com/nemoclaw/nemoclaw/policy"
)

// A flood is so many refused attempts a second, for as many seconds.
const (
	floodRate = 10000
	floodTime = 60
)

// flooding makes refused attempts to connect for n seconds, every other one the same and the rest all different, and returns how
// many it made. It never makes more than floodRate a second.
func flooding(addr string, n int) (float64, error) {
	same, err := netip.ParseAddrPort(addr)
	if err != nil {
		return 0, err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	to := &unix.SockaddrInet4{Addr: same.Addr().As4()}
	start, made := time.Now(), 0
	for passed := time.Duration(0); passed < time.Duration(n)*time.Second; passed = time.Since(start) {
		due := int(passed.Seconds() * floodRate)
		for made < due && time.Since(start) < time.Duration(n)*time.Second { // it may be that it can't be made so fast here
			to.Port = int(same.Port())
			if made%2 == 1 {
				const ports = 50000
				to.Port = 10000 + made%ports
				to.Addr[3] = byte(made / ports)
			}
			if err := unix.Connect(fd, to); !errors.Is(err, unix.EPERM) {
				return 0, fmt.Errorf("attempt %d, to port %d: %w", made, to.Port, err)
			}
			to.Addr = same.Addr().As4()
			made++
		}
		time.Sleep(time.Millisecond)
	}
	return float64(made), nil
}

// flood has one sandbox make more attempts than anybody could look at, while the console is used and others attempt something.
func (k *desk) flood() {
	ws := k.b.TempDir()
	k.b.InstallSelf(filepath.Join(ws, "bench"))
	k.make(api.Create{Name: "flood", Policy: asking("deny"), Workspace: ws})
	w := k.worker("flood")
	quiet := k.keys(20 * time.Second)
	before := k.sizes()
	most, made := before, make(chan float64, 1)
	go func() { made <- w.do("flood", floodTime, "198.51.100.1:80") }()

	over := time.Now().Add(floodTime * time.Second)
	var keys, lines []float64
	for time.Now().Before(over) {
		keys = append(keys, k.keys(2*time.Second)...)
		line, _ := k.denials("refused", 10, nil) // of the console only the last few rows are seen
		lines = append(lines, line...)
		most = most.max(k.sizes())
	}
	attempts := <-made
	k.b.distribution("a key until the screen shows it", "", nil, quiet)
	k.b.distribution("during the flood", "100 ms", quiet, keys)
	k.b.distribution("from another sandbox's attempt to the line, during the flood", "50 ms", nil, lines)
	k.b.fact("the flood", fmt.Sprintf("%.0f attempts, %.0f a second; %s", attempts, attempts/floodTime, k.counted(attempts)))
	k.b.fact("memory of the daemon and of the console", fmt.Sprintf("%s before, %s at most, %s a while after", before, most, k.sizes()))
}

// keys moves the cursor up and down for a while, as somebody who looks through the list.
func (k *desk) keys(long time.Duration) (samples []float64) {
	key := []string{"j", "k"}
	k.b.Must(k.console.press("0"))
	time.Sleep(200 * time.Millisecond)
	for end := time.Now().Add(long); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		took, err := k.console.key(key[len(samples)%2])
		k.b.Must(err)
		samples = append(samples, took)
	}
	return samples
}

// sizes are what the daemon and the console have in memory, in KiB.
type sizes struct{ daemon, console int64 }

func (k *desk) sizes() sizes {
	of := func(pid int) int64 { return k.b.fields(fmt.Sprintf("/proc/%d/status", pid))["VmRSS"] }
	return sizes{of(k.PID()), of(k.console.pid)}
}

func (s sizes) max(o sizes) sizes { return sizes{max(s.daemon, o.daemon), max(s.console, o.console)} }

func (s sizes) String() string { return fmt.Sprintf("%d and %d MiB", s.daemon>>10, s.console>>10) }

// counted says whether all of the flood's attempts are counted: in requests, as not listed, or as what the kernel could not report.
func (k *desk) counted(attempts float64) string {
	ctx := context.Background()
	s, err := k.Get(ctx, "flood")
	k.b.Must(err)
	time.Sleep(2 * time.Second) // counts are told now and then
	k.follow.mu.Lock()
	listed, unlisted, requests := uint64(0), k.follow.unlisted["flood"], 0
	for _, r := range k.follow.requests {
		if r.Sandbox == "flood" {
			listed += r.Count
			requests++
		}
	}
	k.follow.mu.Unlock()
	_, err = k.Stop(ctx, "flood")
	k.b.Must(err)
	lost := uint64(0)
	k.b.Must(k.Events(ctx, api.Events{Sandbox: "flood", Planes: []string{"system"}}, func(_ []byte, d nemoclaw.Decision) error {
		if d.Action == "lost" && d.Object == "events" {
			_, err := fmt.Sscan(d.Reason, &lost)
			return err
		}
		return nil
	}))
	told := fmt.Sprintf("%d are in %d requests, %d counted as not listed, %d recorded as refused and not reported by the kernel, %d refused by its own count",
		listed, requests, unlisted, lost, s.Refused)
	if sum := listed + unlisted + lost; sum != uint64(attempts) || s.Refused != sum {
		return told + ": NOT EXACT"
	}
	return told + ": exact"
}
