//go:build e2e

package sandbox

import (
	"bytes"
	"encoding/binary"
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

// buildAttack builds testdata/attack into a directory.
func buildAttack(t *testing.T, dir string) {
	t.Helper()
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "attack"), "./testdata/attack")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
}

const attackPolicy = workspaceRule + `process: {allow: [{command: /workspace/attack}, {command: sh}]}`

// attacks says what the kernel answers natively, to root in namespaces of its own, and what it answers inside. A
// native answer that differs from the one inside shows that it is the sandbox that refuses; "" is not tried natively.
var attacks = []struct{ name, native, inside string }{
	{"mount", "ok", "EPERM"}, {"bind", "ok", "EPERM"}, {"remount", "ok", "EPERM"}, {"fsopen", "ok", "EPERM"}, {"open_tree", "ok", "EPERM"},
	{"mount_setattr", "ok", "EPERM"}, {"umount", "EINVAL", "EPERM"}, {"pivot_root", "EBUSY", "EPERM"}, {"chroot", "ok", "EPERM"},
	{"unshare-user", "EINVAL", "EPERM"}, {"unshare-net", "ok", "EPERM"}, {"unshare-mnt", "ok", "EPERM"}, {"unshare-time", "ok", "EPERM"},
	{"unshare-fs", "ok", "ok"}, {"clone-user", "ok", "EPERM"}, {"clone-user-high", "ok", "EPERM"}, {"clone-net", "ok", "EPERM"}, {"clone-plain", "ok", "ok"},
	{"clone3", "EINVAL", "ENOSYS"}, {"setns", "ok", "EPERM"},
	{"ptrace", "ok", "EPERM"}, {"process_vm_readv", "ok", "EPERM"}, {"pidfd_getfd", "ok", "EPERM"}, {"kcmp", "ok", "EPERM"},
	{"init-mem", "", "EACCES"}, {"init-environ", "", "EACCES"}, {"init-fd", "", "EACCES"}, {"init-root", "", "EACCES"}, {"self-mem", "ok", "EROFS"},
	{"init-kill", "", "ok"}, // it is not an error, and it does nothing
	{"bpf", "ok", "EPERM"}, {"perf", "ok", "EPERM"}, {"userfaultfd", "ok", "EPERM"}, {"io_uring", "ok", "ENOSYS"}, {"keyctl", "ok", "EPERM"},
	{"add_key", "ok", "EPERM"}, {"personality", "ok", "EPERM"}, {"persona-ask", "ok", "ok"}, {"syslog", "ok", "EPERM"}, {"handle", "ok", "EPERM"},
	{"fanotify", "ok", "EPERM"}, {"seccomp-listener", "ok", "EPERM"}, {"landlock", "ok", "ok"},
	{"tiocsti", "", "EPERM"}, {"tiocsti-high", "", "EPERM"}, {"tiocsetd", "ok", "EPERM"}, {"tcgets", "ok", "ok"},
	{"packet", "ok", "EAFNOSUPPORT"}, {"vsock", "", "EAFNOSUPPORT"}, {"alg", "", "EAFNOSUPPORT"}, {"raw", "ok", "EPERM"}, {"raw6", "ok", "EPERM"},
	{"mptcp", "", "EPROTONOSUPPORT"}, {"sctp", "", "EPROTONOSUPPORT"}, {"netlink-audit", "", "EPROTONOSUPPORT"}, {"netlink-nf", "ok", "EPROTONOSUPPORT"},
	{"netlink-route", "ok", "ok"}, {"unix", "ok", "ok"}, {"tcp", "ok", "ok"}, {"udp6", "ok", "ok"}, {"port-80", "", "ok"}, {"route-del", "ESRCH", "EPERM"},
	{"setuid", "ok", "EINVAL"}, {"setgroups", "ok", "EPERM"}, {"mknod", "ok", "EACCES"}, {"mknod-sda", "ok", "EACCES"}, {"sethostname", "ok", "EPERM"},
	{"memfd", "ok", "EACCES"}, {"memfd-exec", "ok", "EACCES"}, {"nice", "ok", "EACCES"}, {"reboot", "EINVAL", "EPERM"}, {"swapoff", "ENOENT", "EPERM"},
	{"chown", "ok", "EINVAL"},
	{"set-id", "ok", "EPERM"}, {"set-gid", "ok", "EPERM"}, {"set-id-2", "ok", "EPERM"}, {"set-id-high", "ok", "EPERM"}, {"chmod", "ok", "ok"},
	{"core-limit", "ok", "EALREADY"}, // the call says it worked, and the limit stays
}

func TestAttacks(t *testing.T) {
	dir := workspaceOf(t, 0, 0)
	buildAttack(t, dir)
	list, err := exec.Command(filepath.Join(dir, "attack")).Output()
	if err != nil {
		t.Fatal(err)
	}
	b := start(t, attackPolicy, dir)
	tried := map[string]bool{"nothing": true, "wait": true}
	for _, a := range attacks {
		tried[a.name] = true
		if a.native != "" {
			native := exec.Command(filepath.Join(dir, "attack"), a.name)
			native.Dir = dir
			native.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWNET | unix.CLONE_NEWIPC, Unshareflags: unix.CLONE_NEWNS}
			if out, _ := native.Output(); strings.TrimSpace(string(out)) != a.native {
				t.Errorf("%s natively: %q, not %s", a.name, out, a.native)
			}
		}
		if out, _ := b.run("/workspace/attack", a.name); strings.TrimSpace(out) != a.inside {
			t.Errorf("%s inside: %q, not %s", a.name, out, a.inside)
		}
	}
	for _, name := range strings.Fields(string(list)) {
		if !tried[name] {
			t.Errorf("%s is not tried", name)
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
