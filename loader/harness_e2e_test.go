//go:build e2e

package loader

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/nemoclaw/nemoclaw/policy"
)

// privateConfig returns a configuration that no other test or agent meets, and removes everything of it at the end.
func privateConfig(t testing.TB) Config {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("these tests load BPF programs: run them as root")
	}
	fsDir, err := os.MkdirTemp("", "nemoclaw-bpffs-")
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{BPFFS: fsDir, Parent: "nemoclaw-test-" + filepath.Base(fsDir)[len("nemoclaw-bpffs-"):]}
	t.Cleanup(func() {
		if err := Unload(cfg); err != nil {
			t.Errorf("clean up: %v", err)
		}
		if err := unix.Unmount(fsDir, unix.MNT_DETACH); err != nil {
			t.Errorf("clean up: unmount %s: %v", fsDir, err)
		}
		// Another process that was copying this mount namespace keeps the mount point busy for a moment.
		for try := 0; ; try++ {
			err := os.Remove(fsDir)
			if err == nil {
				return
			}
			if try == 100 {
				mounts, _ := os.ReadFile("/proc/self/mountinfo")
				t.Errorf("clean up: %v\n%s", err, mounts)
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	})
	return cfg
}

func openLoader(t testing.TB, cfg Config) *Loader {
	t.Helper()
	l, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("close loader: %v", err)
		}
	})
	return l
}

// common is what tests share that leave it as it was: in an emulated machine each loading of the programs takes seconds.
var common struct {
	sync.Mutex
	cfg    Config
	loader *Loader
}

// commonLoader is the loader of all tests that only make boxes with it. Each of them removes what it made, and counts nothing but its own.
func commonLoader(t testing.TB) *Loader {
	t.Helper()
	common.Lock()
	defer common.Unlock()
	if common.loader == nil {
		lasting.TB = t
		common.cfg = privateConfig(&lasting)
		common.loader = openLoader(&lasting, common.cfg)
	}
	return common.loader
}

// box is a guarded cgroup and what its guard reported.
type box struct {
	*Guard
	dir *os.File

	mu     sync.Mutex
	events []Event
}

var boxes struct {
	sync.Mutex
	n int
}

// makeCgroup makes a cgroup below the loader's parent and removes it at the end.
func makeCgroup(t testing.TB, l *Loader) *os.File {
	t.Helper()
	boxes.Lock()
	boxes.n++
	path := filepath.Join(l.CgroupParent(), fmt.Sprintf("box%d", boxes.n))
	boxes.Unlock()
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		dir.Close()
		// A victim that was just killed may not have left yet.
		for try := 0; ; try++ {
			err := os.Remove(path)
			if err == nil {
				return
			}
			if try == 100 {
				t.Errorf("remove cgroup: %v", err)
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	})
	return dir
}

func newBox(t testing.TB, l *Loader, opt Options) *box {
	t.Helper()
	return newBoxWith(t, l, opt, nil)
}

// newBoxWith gives each event to on, unless it is nil, and keeps none then.
func newBoxWith(t testing.TB, l *Loader, opt Options, on func(Event)) *box {
	t.Helper()
	b := &box{dir: makeCgroup(t, l)}
	opt.OnEvent = func(e Event) {
		if on != nil {
			on(e)
			return
		}
		b.mu.Lock()
		b.events = append(b.events, e)
		b.mu.Unlock()
	}
	if opt.MaxConns == 0 {
		opt.MaxConns = 64
	}
	g, err := l.NewGuard(b.dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	b.Guard = g
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Errorf("close guard: %v", err)
		}
	})
	return b
}

// take returns the events so far and forgets them.
func (b *box) take() []Event {
	b.Drain()
	b.mu.Lock()
	defer b.mu.Unlock()
	events := b.events
	b.events = nil
	return events
}

func (b *box) count(t testing.TB, h Hook, v policy.Verdict) uint64 {
	t.Helper()
	c, err := b.Counters()
	if err != nil {
		t.Fatal(err)
	}
	return c.Of(h, v)
}

// must fails the test on an error.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func describe(events []Event) string {
	var b strings.Builder
	for _, e := range events {
		fmt.Fprintf(&b, "\n  %s %s %s rule %d %q pid %d args %q", e.Hook, e.Verdict, e.Object(), e.Rule, e.Reason, e.PID, e.Args)
	}
	return b.String()
}

// entries counts the entries of a map.
func entries(t testing.TB, m *ebpf.Map) int {
	t.Helper()
	n := 0
	key, value := make([]byte, m.KeySize()), make([]byte, m.ValueSize())
	it := m.Iterate()
	for it.Next(&key, &value) {
		n++
	}
	must(t, it.Err())
	return n
}

func itoa(n int) string { return strconv.Itoa(n) }

func inCgroup(dir *os.File) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
}

// buildStatic builds a static program that makes the file marker and ends.
func buildStatic(t testing.TB, dir, marker string) string {
	t.Helper()
	source, program := filepath.Join(dir, "static.go"), filepath.Join(dir, "static")
	must(t, os.WriteFile(source, []byte(fmt.Sprintf("package main\n\nimport \"os\"\n\nfunc main() { os.WriteFile(%q, nil, 0o644) }\n", marker)), 0o644))
	build := exec.Command("go", "build", "-o", program, source)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return program
}

// dynamicLoader returns the path of this machine's ld.so.
func dynamicLoader(t testing.TB) string {
	t.Helper()
	for _, pattern := range []string{"/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"} {
		if path, err := filepath.EvalSymlinks(pattern); err == nil {
			return path
		}
	}
	t.Fatal("no dynamic loader found")
	return ""
}
