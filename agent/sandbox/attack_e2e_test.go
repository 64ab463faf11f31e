//go:build e2e

package sandbox

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// buildProbe builds the attacker of the end-to-end tests into a directory.
func buildProbe(t *testing.T, dir string) {
	t.Helper()
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "probe"), "github.com/nemoclaw/nemoclaw/test/probe")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
}

// errnoOf is what the probe says that an attempt gave; "ok" is success.
func errnoOf(said string) string {
	var o struct{ Errno string }
	if err := json.Unmarshal([]byte(said), &o); err != nil {
		return said
	}
	if o.Errno == "" {
		return "ok"
	}
	return o.Errno
}

const attackPolicy = workspaceRule + `process: {allow: [{command: /workspace/probe}, {command: sh}]}`

// attacks says what the kernel answers natively, to root in namespaces of its own, and what it answers inside. A
// native answer that differs from the one inside shows that it is the sandbox that refuses; "" is not tried natively.
var attacks = []struct{ attempt, native, inside string }{
	{"sys mount", "ok", "EPERM"}, {"sys bind", "ok", "EPERM"}, {"sys remount", "ok", "EPERM"}, {"sys fsopen", "ok", "EPERM"}, {"sys open_tree", "ok", "EPERM"},
	{"sys mount_setattr", "ok", "EPERM"}, {"sys umount2", "ok", "EPERM"}, {"sys pivot_root", "EBUSY", "EPERM"}, {"sys chroot", "ok", "EPERM"},
	{"sys unshare-user", "ok", "EPERM"}, {"sys unshare-net", "ok", "EPERM"}, {"sys unshare-mount", "ok", "EPERM"}, {"sys unshare-time", "ok", "EPERM"},
	{"sys unshare-fs", "ok", "ok"}, {"sys clone-user", "ok", "EPERM"}, {"sys clone-user-high", "ok", "EPERM"}, {"sys clone-net", "ok", "EPERM"}, {"sys clone-plain", "ok", "ok"},
	{"sys clone3", "ok", "ENOSYS"}, {"sys setns", "ok", "EPERM"},
	{"sys ptrace", "ok", "EPERM"}, {"sys ptrace-child", "ok", "EPERM"}, {"sys process_vm_readv", "ok", "EPERM"}, {"sys pidfd_getfd", "ok", "EPERM"}, {"sys kcmp", "ok", "EPERM"},
	{"sys init-mem", "", "EACCES"}, {"sys init-environ", "", "EACCES"}, {"sys init-fd", "", "EACCES"}, {"sys init-root", "", "EACCES"}, {"sys self-mem", "ok", "EROFS"},
	{"sys init-kill", "", "ok"}, // it is not an error, and it does nothing
	{"sys bpf", "ok", "EPERM"}, {"sys perf_event_open", "ok", "EPERM"}, {"sys userfaultfd", "ok", "EPERM"}, {"sys io_uring_setup", "ok", "ENOSYS"}, {"sys io_setup", "ok", "ENOSYS"}, {"sys keyctl", "ok", "EPERM"},
	{"sys add_key", "ok", "EPERM"}, {"sys personality", "ok", "EPERM"}, {"sys persona-ask", "ok", "ok"}, {"sys syslog", "ok", "EPERM"}, {"sys open_by_handle_at", "ok", "EPERM"},
	{"sys fanotify", "ok", "EPERM"}, {"sys seccomp-listener", "ok", "EPERM"}, {"sys landlock", "ok", "ok"},
	{"sys tiocsti", "", "EPERM"}, {"sys tiocsti-high", "", "EPERM"}, {"sys tiocsetd", "ok", "EPERM"}, {"sys tcgets", "ok", "ok"},
	{"socket 17 3 0", "ok", "EAFNOSUPPORT"}, {"socket 40 1 0", "", "EAFNOSUPPORT"}, {"socket 38 5 0", "", "EAFNOSUPPORT"}, {"socket 2 3 1", "ok", "EPERM"}, {"socket 10 524291 255", "ok", "EPERM"},
	{"socket 2 1 262", "", "EPROTONOSUPPORT"}, {"socket 2 5 132", "", "EPROTONOSUPPORT"}, {"socket 16 3 9", "", "EPROTONOSUPPORT"}, {"socket 16 3 12", "ok", "EPROTONOSUPPORT"},
	{"socket 16 3 0", "ok", "ok"}, {"socket 1 1 0", "ok", "ok"}, {"socket 2 1 0", "ok", "ok"}, {"socket 10 2 0", "ok", "ok"}, {"listen 127.0.0.1 80", "", "ok"}, {"sys route-del", "ESRCH", "EPERM"},
	{"sys setuid", "ok", "EINVAL"}, {"sys setgroups", "ok", "EPERM"}, {"mknod node", "ok", "EACCES"}, {"sys sethostname", "ok", "EPERM"},
	{"run-memory /usr/bin/id", "ok", "EACCES"}, {"sys nice", "ok", "EACCES"}, {"sys reboot", "EINVAL", "EPERM"}, {"sys swapoff", "ENOENT", "EPERM"},
	{"write c x && chown c", "ok", "EINVAL"},
	{"sys set-id", "ok", "EPERM"}, {"sys set-gid", "ok", "EPERM"}, {"sys set-id-2", "ok", "EPERM"}, {"sys set-id-high", "ok", "EPERM"}, {"sys sticky", "ok", "ok"},
	{"sys core-limit", "ok", "EALREADY"}, // the call says it worked, and the limit stays
}

func TestAttacks(t *testing.T) {
	dir := workspaceOf(t, 0, 0)
	buildProbe(t, dir)
	b := start(t, attackPolicy, dir)
	for _, a := range attacks {
		if a.native != "" {
			native := exec.Command(filepath.Join(dir, "probe"), a.attempt)
			native.Dir = dir
			native.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWNET | unix.CLONE_NEWIPC, Unshareflags: unix.CLONE_NEWNS}
			if out, _ := native.Output(); errnoOf(string(out)) != a.native {
				t.Errorf("%s natively: %q, not %s", a.attempt, out, a.native)
			}
			_ = os.Remove(filepath.Join(dir, "node"))
		}
		if out, _ := b.run("/workspace/probe", a.attempt); errnoOf(out) != a.inside {
			t.Errorf("%s inside: %q, not %s", a.attempt, out, a.inside)
		}
	}
	b.want("echo alive", "alive", 0)
}

// elfOf makes a static x86-64 program of machine code.
func elfOf(code []byte) []byte {
	var b bytes.Buffer
	const base = 0x400000
	b.WriteString("\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00")
	for _, field := range []any{uint16(2), uint16(62), uint32(1), uint64(base + 120), uint64(64), uint64(0), uint32(0), uint16(64), uint16(56), uint16(1), uint16(0), uint16(0), uint16(0),
		uint32(1), uint32(5), uint64(0), uint64(base), uint64(base), uint64(120 + len(code)), uint64(120 + len(code)), uint64(0x1000)} {
		_ = binary.Write(&b, binary.LittleEndian, field)
	}
	b.Write(code)
	return b.Bytes()
}

// TestForeignCalls makes system calls of other architectures: 32-bit ones, and x32's.
func TestForeignCalls(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Log("amd64 only: the other architectures have no second table")
		return
	}
	programs := map[string]struct {
		code           []byte
		native, inside int
	}{
		// mov eax, 1 (exit); mov ebx, 42; int 0x80
		"int80": {[]byte{0xb8, 1, 0, 0, 0, 0xbb, 42, 0, 0, 0, 0xcd, 0x80}, 42, 128 + int(unix.SIGSYS)},
		// mov eax, 0x40000027 (x32 getpid); syscall; cmp eax, -38; sete dil; movzx edi, dil; mov eax, 60; syscall:
		// 1 says that x32 is not there. The kernel here has no x32, so natively it is not there either.
		"x32": {[]byte{0xb8, 0x27, 0, 0, 0x40, 0x0f, 5, 0x83, 0xf8, 0xda, 0x40, 0x0f, 0x94, 0xc7, 0x40, 0x0f, 0xb6, 0xff, 0xb8, 60, 0, 0, 0, 0x0f, 5}, 1, 1},
	}
	dir := workspaceOf(t, 0, 0)
	for name, p := range programs {
		if err := os.WriteFile(filepath.Join(dir, name), elfOf(p.code), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	b := start(t, workspaceRule+"process: {allow: [{command: /workspace/int80}, {command: /workspace/x32}]}", dir)
	for name, p := range programs {
		native := exec.Command(filepath.Join(dir, name))
		_ = native.Run()
		if status := native.ProcessState.ExitCode(); status != p.native {
			t.Errorf("%s natively: %d, not %d", name, status, p.native)
		}
		if _, status := b.run("/workspace/" + name); status != p.inside {
			t.Errorf("%s inside: %d, not %d", name, status, p.inside)
		}
	}
}

// TestEscapes tries ways to files that need no special system call.
func TestEscapes(t *testing.T) {
	dir := workspaceOf(t, 0, 0)
	outside := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(outside, []byte("secret"), 0o666); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"abs": outside, "up": "../../../../.." + outside, "proc": "/proc/1/root" + outside} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	setuid := filepath.Join(dir, "setuid")
	image, err := os.ReadFile("/usr/bin/id")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(setuid, image, 0o755), os.Chmod(setuid, 0o755|os.ModeSetuid)); err != nil {
		t.Fatal(err)
	}
	b := start(t, workspaceRule+tools+"", dir)
	for _, line := range []string{"cat abs", "cat up", "cat proc", "cat /proc/self/root" + outside, "cat /proc/self/cwd/../.." + outside, "cat /workspace/.." + outside,
		"ln /usr/bin/id hard", "ln -s /etc/shadow s && cat s",
		"python3 -c 'import os; os.rename(\"/usr/share\", \"/workspace/u\")'", "python3 -c 'import os; os.rename(\"/workspace\", \"/home/agent/w\")'"} {
		if out, status := b.sh(line + " 2>/dev/null"); status == 0 || out != "" {
			t.Errorf("%s: %q", line, out)
		}
	}
	// A set-user-id bit does nothing: no_new_privs and nosuid.
	s2 := start(t, workspaceRule+"process: {allow: [{command: /workspace/setuid}]}", dir)
	if out, _ := s2.run("/workspace/setuid", "-u"); strings.TrimSpace(out) != "1000" {
		t.Errorf("a set-user-id program ran as %q", out)
	}
}

// TestBuiltPrograms shows what Landlock alone does about programs that were made inside: it lets files of trees that
// can be written be executed, because scripts have to. The exec guard of the loader stops what is no script.
func TestNoExecInShm(t *testing.T) {
	b := start(t, workspaceRule+tools, workspaceOf(t, 0, 0))
	b.refused("cat /usr/bin/id > /dev/shm/id; chmod +x /dev/shm/id 2>/dev/null; python3 -c \"import os; os.chmod('/dev/shm/id', 0o755); os.execv('/dev/shm/id', ['id'])\"", "Permission denied")
}
