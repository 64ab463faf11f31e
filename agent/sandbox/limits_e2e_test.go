//go:build e2e

package sandbox

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func limited(t *testing.T, limits string) *box {
	t.Helper()
	return start(t, workspaceRule+strings.Replace(tools, "process: {", "process: {limits: {"+limits+"}, ", 1), workspaceOf(t, 0, 0))
}

func TestLimitPIDs(t *testing.T) {
	b := limited(t, "pids: 20")
	out, _ := b.run("python3", "-c", `
import os, time
n = 0
try:
    while n < 100:
        if os.fork() == 0:
            time.sleep(2)
            os._exit(0)
        n += 1
except OSError as e:
    print(n, e.errno)`)
	f := strings.Fields(out)
	if len(f) != 2 || f[1] != "11" {
		t.Fatal(out)
	}
	if n, _ := strconv.Atoi(f[0]); n < 10 || n > 20 {
		t.Errorf("%d processes under a limit of 20", n)
	}
}

// A fork bomb ends at the default limit, and the sandbox still closes.
func TestForkBomb(t *testing.T) {
	b := start(t, workspaceRule+tools, workspaceOf(t, 0, 0))
	if _, err := b.Exec(ExecRequest{Args: []string{"sh", "-c", "f() { f & f & }; f"}}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(500 * time.Millisecond)
	started := time.Now()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	t.Log("closed after", time.Since(started))
}

func TestLimitMemory(t *testing.T) {
	b := limited(t, "memory: 64MiB")
	b.want("python3 -c 'b = bytearray(20 << 20); print(len(b))'", "20971520", 0)
	if out, status := b.sh("python3 -c 'b = bytearray(200 << 20); print(len(b))'"); status == 0 || strings.Contains(out, "2097") {
		t.Errorf("%q %d", out, status)
	}
	// What is written to /tmp is memory as well.
	if out, status := b.sh("head -c 200000000 /dev/zero > /tmp/big"); status == 0 {
		t.Errorf("%q", out)
	}
}

func TestLimitCPU(t *testing.T) {
	busy := "import time\nend = time.monotonic() + 1\nwhile time.monotonic() < end: pass\nprint(time.process_time())"
	b := limited(t, "cpus: 0.2")
	out, _ := b.run("python3", "-c", busy)
	used, err := strconv.ParseFloat(strings.TrimSpace(out), 64)
	if err != nil || used > 0.4 {
		t.Errorf("%q seconds of a processor in one second with cpus: 0.2, %v", out, err)
	}
}

func TestLimitFiles(t *testing.T) {
	b := limited(t, "files: 50")
	b.want("python3 -c 'import resource; print(*resource.getrlimit(resource.RLIMIT_NOFILE), *resource.getrlimit(resource.RLIMIT_CORE))'", "50 50 1 1", 0)
	b.refused("python3 -c 'l = [open(\"/dev/null\") for _ in range(60)]'", "Too many open files")
}

func TestLimitDisk(t *testing.T) {
	b := limited(t, "disk: 10MiB")
	b.want("head -c 5000000 /dev/zero > /tmp/a && echo ok", "ok", 0)
	b.refused("head -c 8000000 /dev/zero > $HOME/b", "No space left")
	b.refused("head -c 8000000 /dev/zero > /dev/shm/c", "No space left")
	// Files without content count as well.
	b.refused("python3 -c 'import os; [os.mknod(\"/tmp/%d\" % i) for i in range(5000)]'", "No space left")
}

func TestLimitThatCannotBe(t *testing.T) {
	spec := testSpec(t, workspaceRule+"process: {limits: {files: 1048576}}", "")
	spec.Policy.Limits.Files = 1 << 31 // more than fs.nr_open lets any process have
	s, err := Prepare(spec)
	if err != nil {
		t.Fatal(err)
	}
	err = s.Start()
	if err == nil || !strings.Contains(err.Error(), "limits.files") {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestPrivateSize(t *testing.T) {
	b := start(t, workspaceRule+tools, "")
	out, _ := b.run("python3", "-c", "import os; s = os.statvfs('/tmp'); print(s.f_frsize * s.f_blocks)")
	if size, err := strconv.ParseInt(strings.TrimSpace(out), 10, 64); err != nil || size > DefaultDisk || size < 1<<20 {
		t.Error(fmt.Sprint(out), err)
	}
}

// TestCountsOfItsOwn: what the kernel counts per user, a sandbox can't use up for the host's root.
func TestCountsOfItsOwn(t *testing.T) {
	b := start(t, workspaceRule+tools, workspaceOf(t, 0, 0))
	inR, inW := pipes(t)
	outR, outW := pipes(t)
	const use = "import ctypes, sys\nl = ctypes.CDLL(None)\nn = 0\nwhile n < 1 << 16 and l.inotify_init1(0) >= 0: n += 1\nprint(n, flush=True)\nsys.stdin.read()"
	p := b.exec(ExecRequest{Args: []string{"python3", "-c", use}, Stdin: inR, Stdout: outW})
	outW.Close()
	inR.Close()
	var n int
	if _, err := fmt.Fscan(outR, &n); err != nil || n < 1 || n == 1<<16 {
		t.Errorf("%d inotify instances inside, %v", n, err)
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		t.Errorf("the host has none left: %v", err)
	} else {
		unix.Close(fd)
	}
	inW.Close()
	if status(t, p) != 0 {
		t.Error("the program failed")
	}
}
