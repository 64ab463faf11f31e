//go:build e2e

package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nemoclaw/nemoclaw/test/harness"
)

func hostOwner(t *testing.T, path string) string {
	t.Helper()
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	st := fi.Sys().(*syscall.Stat_t)
	return fmt.Sprintf("%d:%d", st.Uid, st.Gid)
}

func TestSystemCalls(t *testing.T) {
	t.Parallel()
	refused := []string{
		"mount", "umount2", "pivot_root", "chroot", "fsopen", "fsmount", "fspick", "open_tree", "move_mount", "mount_setattr",
		"ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd", "kcmp", "bpf", "perf_event_open", "userfaultfd",
		"io_uring_setup", "io_uring_enter", "io_uring_register", "keyctl", "add_key", "request_key", "kexec_load", "init_module", "finit_module",
		"delete_module", "setns", "unshare-user", "unshare-net", "unshare-mount", "clone-user", "open_by_handle_at", "personality", "reboot",
		"swapon", "acct", "settimeofday", "sethostname", "quotactl", "x32-getpid", "clone3",
	}
	attempts := []string{"sys getpid"}
	for _, name := range refused {
		attempts = append(attempts, "sys "+name)
	}
	// TIOCSTI, TIOCLINUX, TIOCSETD, and the same with a bit that the kernel ignores.
	for _, request := range []uint64{0x5412, 0x541c, 0x5423} {
		attempts = append(attempts, fmt.Sprintf("ioctl 0 %#x", request), fmt.Sprintf("ioctl 0 %#x", request|1<<32))
	}
	attempts = append(attempts, "sys setuid")
	_, out := harness.W.Probe(t, harness.Box{}, attempts...)
	check(t, out[0], "")
	check(t, out[len(out)-1], "EINVAL") // no uid 0 is mapped
	for _, o := range out[1 : len(out)-1] {
		want := []string{"EPERM"}
		if strings.Contains(o.Op, "clone3") || strings.Contains(o.Op, "x32") || strings.Contains(o.Op, "io_uring") {
			want = []string{"ENOSYS", "EPERM"} // so that a libc falls back
		}
		if o.Errno != want[0] && o.Errno != want[len(want)-1] {
			t.Errorf("%q gave %q, want %v", o.Op, o.Errno, want)
		}
	}
	if o := out[len(refused)]; o.Errno != "ENOSYS" {
		t.Errorf("%q gave %q: a libc would not fall back to clone", o.Op, o.Errno)
	}
}

func TestExitStatus(t *testing.T) {
	t.Parallel()
	tests := []struct {
		argv []string
		code int
	}{
		{[]string{"/workspace/probe", "exit 0"}, 0},
		{[]string{"/workspace/probe", "exit 3"}, 3},
		{[]string{"/workspace/probe", "exit 255"}, 255},
		{[]string{"/workspace/probe", "signal 9"}, 137},
		{[]string{"/workspace/probe", "signal 15"}, 143},
		{[]string{"no-such-program"}, 127},
		{[]string{"/workspace/ca.pem"}, 126},
		{[]string{"/usr/bin/id"}, 126},
	}
	for _, tt := range tests {
		t.Run(strings.Join(tt.argv, " "), func(t *testing.T) {
			r := harness.W.Run(t, harness.Box{}, tt.argv...)
			if r.Code != tt.code {
				t.Errorf("want exit status %d\n%s", tt.code, r.Dump())
			}
			if tt.code > 125 && tt.code < 128 && !strings.Contains(r.Err, tt.argv[0]) {
				t.Errorf("the message does not name the command: %s", r.Err)
			}
		})
	}
}

func TestSignalsArePassedOn(t *testing.T) {
	t.Parallel()
	policy := harness.Files + "process:\n  allow:\n    - {command: python3}\n"
	script := "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *a: sys.exit(7))\nprint('ready', flush=True)\ntime.sleep(30)\n"
	s := harness.W.Prepare(t, harness.Box{Policy: policy}, "python3", "-c", script)
	out, err := os.Create(filepath.Join(s.Dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	s.Cmd.Stdout = out
	if err := s.Cmd.Start(); err != nil {
		t.Fatal(err)
	}
	wait(t, "the program's word", func() bool { b, _ := os.ReadFile(out.Name()); return strings.Contains(string(b), "ready") })
	if err := s.Cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if r := s.Wait(t, 20*time.Second); r.Code != 7 {
		t.Errorf("want the program's own exit status 7\n%s", r.Dump())
	}
}

// wait polls until done, and fails after thirty.
func wait(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited thirty seconds for %s", what)
		}
	}
}

func TestStandardStreams(t *testing.T) {
	t.Parallel()
	policy := harness.Files + "process:\n  allow:\n    - {command: python3}\n    - {command: /workspace/probe}\n"
	big := strings.Repeat("0123456789abcdef", 1<<16)
	r := harness.W.Run(t, harness.Box{Policy: policy, Stdin: strings.NewReader(big)}, "python3", "-c", "import sys; sys.stdout.write(sys.stdin.read()); sys.stderr.write('to stderr')")
	if r.Out != big || !strings.Contains(r.Err, "to stderr") {
		t.Errorf("%d of %d bytes came back, standard error %q", len(r.Out), len(big), r.Err)
	}
	// A socket or a device must not get in: its network namespace and cgroup are its creator's.
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	defer ours.Close()
	s := harness.W.Prepare(t, harness.Box{Policy: policy}, "/workspace/probe", "fds")
	s.Cmd.Stdin = theirs
	extra, err := os.Open("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	defer extra.Close()
	s.Cmd.ExtraFiles = []*os.File{extra}
	if err := s.Cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	r = s.Wait(t, 0)
	shown := r.Outcomes(t)[0].Out
	if strings.Contains(shown, "socket:") || strings.Contains(shown, "passwd") {
		t.Errorf("descriptors of the host inside:\n%s", shown)
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	policy := harness.Files + "process:\n  allow:\n    - {command: /workspace/probe}\n  limits: {memory: 128MiB, pids: 40, files: 100, disk: 16MiB}\n"
	r, out := harness.W.Probe(t, harness.Box{Policy: policy}, "files", "forks 100", "fill /tmp/big 64", "fill /home/agent/big 64")
	if n := number(t, out[0].Out); n >= 100 || out[0].Errno != "EMFILE" {
		t.Errorf("%d files opened, %s\n%s", n, out[0].Errno, r.Dump())
	}
	r, out = harness.W.Probe(t, harness.Box{Policy: policy}, "forks 100", "fill /tmp/big 64", "fill /home/agent/big 64")
	if n := number(t, out[0].Out); n >= 40 || out[0].Errno != "EAGAIN" {
		t.Errorf("%d children, %s\n%s", n, out[0].Errno, r.Dump())
	}
	for _, o := range out[1:] {
		if o.Errno != "ENOSPC" {
			t.Errorf("%q gave %q %q", o.Op, o.Errno, o.Out)
		}
	}
	r = harness.W.Run(t, harness.Box{Policy: policy}, "/workspace/probe", "memory 512")
	if r.Code != 137 {
		t.Errorf("512 MiB under a limit of 128: want exit status 137\n%s", r.Dump())
	}
}

func number(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestInsideIsItsOwnWorld: processes, names and namespaces of the host are not to be seen.
func TestInsideIsItsOwnWorld(t *testing.T) {
	t.Parallel()
	_, out := harness.W.Probe(t, harness.Box{}, "ls /proc", "kill 1 9", "kill -1 0", "read /proc/sys/kernel/hostname", "read /proc/net/route", "ls /")
	pids := 0
	for _, f := range strings.Fields(out[0].Out) {
		if _, err := strconv.Atoi(f); err == nil {
			pids++
		}
	}
	if pids > 3 {
		t.Errorf("%d processes are seen inside: %s", pids, out[0].Out)
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	if strings.TrimSpace(out[3].Out) == host {
		t.Error("the host's name is seen inside")
	}
	for _, dir := range strings.Fields(out[5].Out) {
		if dir == "work" || dir == "boot" || dir == "media" {
			t.Errorf("/%s is seen inside", dir)
		}
	}
}

func TestManySandboxesAtOnce(t *testing.T) {
	t.Parallel()
	a4, _ := harness.W.Addr()
	harness.W.DNS.Set("many.test", a4)
	server := harness.W.TCP(t, a4, 7000)
	policy := network(`{domain: many.test, ports: [7000], protocol: tcp}`)
	const boxes = 12
	var sessions []*harness.Session
	for i := range boxes {
		attempt := fmt.Sprintf("say many.test 7000 %s", b64(fmt.Sprint("box ", i)))
		sessions = append(sessions, harness.W.Start(t, harness.Box{Policy: policy}, "/workspace/probe", attempt, "tcp-to other.many.test 1"))
	}
	for i, s := range sessions {
		r := s.Wait(t, time.Minute)
		out := r.Outcomes(t)
		if len(out) != 2 || out[0].Out != fmt.Sprint("box ", i) || out[1].Errno != "EPERM" {
			t.Errorf("box %d\n%s", i, r.Dump())
			continue
		}
		if e := once(t, r, "network", "other.many.test:1"); e.Sandbox != s.Name {
			t.Errorf("box %d has the record of %s", i, e.Sandbox)
		}
	}
	if server.Conns() != boxes {
		t.Errorf("%d connections, want %d", server.Conns(), boxes)
	}
}
