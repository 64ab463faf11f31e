//go:build e2e

package attacks

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"runtime"

	"github.com/nemoclaw/nemoclaw/test/harness"
	"golang.org/x/sys/unix"
)

func processPlanes() []*plane {
	table := []attempt{
		{name: "SIGKILL to a process of the host", user: true, do: "kill {pid} 9", inside: "ESRCH", harm: dead, setup: process},
		{name: "SIGKILL through a pidfd", user: true, do: "pid-kill {pid}", inside: "ESRCH", harm: dead, setup: process},
		{name: "a signal by `F_SETOWN`", user: true, do: "sigio {pid}", inside: "ESRCH", harm: dead, setup: process},
		{name: "SIGKILL to the sandbox's init", user: true, do: "kill {first} 9", inside: "", note: "nothing happens", harm: deadOutside, setup: initOrVictim},
		{name: "ptrace of a process of the host", do: "attach {pid}", inside: "EPERM", setup: process},
		{name: "`process_vm_readv`", do: "vm-read {pid} {address}", inside: "EPERM", harm: leaked, setup: process},
		{name: "`process_vm_writev`", do: "vm-write {pid} {address} x", inside: "EPERM", setup: process},
		{name: "`/proc/PID/mem`", do: "mem-read {pid} {address}", inside: "ENOENT", harm: leaked, setup: process},
		{name: "`/proc/PID/environ`", user: true, do: "read /proc/{pid}/environ", inside: "ENOENT", harm: leaked, setup: process},
		{name: "`/proc/PID/cmdline`", user: true, do: "read /proc/{pid}/cmdline", inside: "ENOENT", harm: leaked, setup: process},
		{name: "`/proc/PID/fd`", do: "read /proc/{pid}/fd/3", inside: "ENOENT", harm: leaked, setup: process},
		{name: "`/proc/PID/cwd`", do: "read /proc/{pid}/cwd/secret", inside: "ENOENT", harm: leaked, setup: process},
		{name: "`/proc/PID/root`", do: "read /proc/{pid}/root{out}/secret", inside: "ENOENT", harm: leaked, setup: process},
		{name: "`pidfd_getfd`", do: "steal-fd {pid} 3", inside: "ESRCH", harm: leaked, setup: process},
		{name: "`prlimit` of a process of the host", user: true, do: "prlimit {pid}", inside: "ESRCH", setup: process},
		{name: "`sched_setaffinity` of a process of the host", user: true, do: "affinity {pid}", inside: "ESRCH", setup: process},
		{name: "setns into the host's network", do: "enter {pid} net", inside: "ENOENT", setup: process},
		{name: "setns through a pidfd", do: "enter-pid {pid}", inside: "ESRCH", setup: process},
		{name: "setns into the init's mount namespace", do: "enter {init} uts", inside: "EACCES"},
		{name: "another cgroup (`cgroup.procs`)", do: "join {cgroup}", inside: "ENOENT", setup: cgroup},
		{name: "a daemon that outlives the run", user: true, do: "daemon ticks && wait-for ticks", inside: "", note: "it ends with the run", harm: ticks},
		{name: "ptrace of another program inside", user: true, do: "sys ptrace-child", inside: "EPERM"},
		{name: "a descriptor of another program inside", user: true, do: "child-fd", inside: "EPERM"},
		{name: "memory of another program inside (`/proc/PID/mem`)", user: true, do: "child-mem",
			open: "all programs of a sandbox are one user, and reading needs no more; level full can refuse it", full: "EACCES"},
		{name: "`/proc/self/mem`, to write", user: true, do: "sys self-mem", inside: "EROFS"},
		{name: "`kcmp`", user: true, do: "sys kcmp", inside: "EPERM"},
		{name: "`process_madvise`", user: true, do: "sys process_madvise", inside: "EPERM"},
		{name: "an own seccomp listener", user: true, do: "no-new-privileges && sys seccomp-listener", inside: "EPERM"},
		{name: "a core dump for the host's `core_pattern` (`RLIMIT_CORE`)", user: true, do: "sys core-limit", inside: "EALREADY"},
		{name: "more priority (`nice`)", do: "sys nice", inside: "EACCES"},
		{name: "real-time scheduling", do: "sys realtime", inside: "EPERM"},
		{name: "real-time disk priority", do: "sys io-priority", inside: "EPERM"},
		{name: "`setuid(0)`", do: "sys setuid", inside: "EINVAL"},
		{name: "`setgroups`", do: "sys setgroups", inside: "EPERM"},
		{name: "`capset`", do: "sys capset", inside: "EPERM"},
		{name: "securebits", do: "sys securebits", inside: "EPERM"},
	}
	if runtime.GOARCH == "amd64" { // the others have one table of system calls
		table = append(table, attempt{name: "32-bit system calls (`int 0x80`)", user: true, do: "foreign {ws}/int80", inside: "signal: bad system call"})
	}
	return []*plane{{name: "processes", table: table, host: foreignProgram, commands: "    - {command: /workspace/int80}\n"}}
}

// deadOutside is about the native victim: the canary tells whether the sandbox's init lives.
func deadOutside(s *scene, out string) bool { return !s.inside && dead(s, out) }

func cgroup(s *scene) {
	dir := filepath.Join(harness.CgroupRoots()[0], harness.W.Parent+"-other")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		s.Fatal(err)
	}
	s.set("cgroup", dir)
}

// foreignProgram is one that ends with 42 by a 32-bit system call.
func foreignProgram(p *place) {
	var b bytes.Buffer
	const base, head = 0x400000, 120
	code := []byte{0xb8, 1, 0, 0, 0, 0xbb, 42, 0, 0, 0, 0xcd, 0x80} // mov eax, 1 (exit); mov ebx, 42; int 0x80
	b.WriteString("\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00")
	for _, field := range []any{uint16(2), uint16(62), uint32(1), uint64(base + head), uint64(64), uint64(0), uint32(0), uint16(64), uint16(56), uint16(1), uint16(0), uint16(0), uint16(0),
		uint32(1), uint32(5), uint64(0), uint64(base), uint64(base), uint64(head + len(code)), uint64(head + len(code)), uint64(0x1000)} {
		_ = binary.Write(&b, binary.LittleEndian, field)
	}
	b.Write(code)
	if err := os.WriteFile(filepath.Join(p.ws, "int80"), b.Bytes(), 0o755); err != nil {
		p.Fatal(err)
	}
}

func kernelPlanes() []*plane {
	calls := func(inside string, names ...string) (out []attempt) {
		for i := 0; i < len(names); i += 2 {
			out = append(out, attempt{name: names[i+1], do: "sys " + names[i], inside: inside})
		}
		return out
	}
	table := calls("EPERM", "mount", "mount tmpfs", "bind", "bind mount", "remount", "remount", "proc", "mount a fresh `/proc`", "cgroup2", "mount cgroup v2",
		"fsopen", "`fsopen`", "fspick", "`fspick`", "open_tree", "`open_tree`", "mount_setattr", "`mount_setattr`", "umount2", "umount of `/proc`", "chroot", "chroot",
		"quotactl", "`quotactl`", "fanotify", "fanotify",
		"unshare-user", "unshare: user namespace", "unshare-net", "unshare: network namespace", "unshare-mount", "unshare: mount namespace", "unshare-pid", "unshare: pid namespace",
		"unshare-ipc", "unshare: ipc namespace", "unshare-uts", "unshare: uts namespace", "unshare-cgroup", "unshare: cgroup namespace", "unshare-time", "unshare: time namespace",
		"clone-user", "clone: user namespace", "clone-user-high", "clone: user namespace, with a bit that the kernel ignores", "clone-net", "clone: network namespace", "setns", "setns into the own uts namespace",
		"bpf", "bpf: a map", "perf_event_open", "perf events", "userfaultfd", "userfaultfd", "keyctl", "keyctl", "add_key", "a key in the session's keyring", "personality", "personality: no address randomisation",
		"acct", "process accounting", "syslog", "the kernel's log (`syslog`)", "settimeofday", "settimeofday", "adjtimex", "adjtimex", "sethostname", "sethostname", "setdomainname", "setdomainname", "vhangup", "vhangup",
		"tiocsti", "typing for others (`TIOCSTI`)", "tiocsti-high", "`TIOCSTI` with a bit that the kernel ignores", "tiocsetd", "a line discipline (`TIOCSETD`)")
	table = append(table, calls("ENOSYS", "clone3", "clone3: network namespace", "io_uring_setup", "io_uring", "io_setup", "asynchronous I/O contexts, of which the machine has so many (`io_setup`)", "memfd_secret", "secret memory (`memfd_secret`)")...)
	if runtime.GOARCH == "amd64" {
		table = append(table, calls("EPERM", "modify_ldt", "`modify_ldt`")...)
	}
	table = append(table, attempt{name: "reboot", do: "sys restart", in: unix.CLONE_NEWPID, native: "signal: hangup", inside: "EPERM"})
	return []*plane{{name: "kernel", table: table}}
}
