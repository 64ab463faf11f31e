/* SPDX-License-Identifier: Apache-2.0
 *
 * System calls without a C library: the init is one small static binary for two architectures, and what it
 * may do has to be readable in a few pages. Structures are the kernel's, for 64-bit little-endian machines.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__)
enum {
	SYS_rt_sigaction = 13,
	SYS_rt_sigprocmask = 14,
	SYS_ioctl = 16,
	SYS_getpid = 39,
	SYS_sendmsg = 46,
	SYS_recvmsg = 47,
	SYS_listen = 50,
	SYS_clone = 56,
	SYS_wait4 = 61,
	SYS_kill = 62,
	SYS_fchdir = 81,
	SYS_chdir = 80,
	SYS_umask = 95,
	SYS_setsid = 112,
	SYS_setgroups = 116,
	SYS_setresuid = 117,
	SYS_setresgid = 119,
	SYS_capset = 126,
	SYS_pivot_root = 155,
	SYS_prctl = 157,
	SYS_umount2 = 166,
	SYS_exit_group = 231,
	SYS_keyctl = 250,
	SYS_openat = 257,
	SYS_ppoll = 271,
	SYS_unshare = 272,
	SYS_accept4 = 288,
	SYS_signalfd4 = 289,
	SYS_dup3 = 292,
	SYS_pipe2 = 293,
	SYS_prlimit64 = 302,
	SYS_seccomp = 317,
	SYS_read = 0,
	SYS_write = 1,
	SYS_close = 3,
	SYS_mmap = 9,
	SYS_execve = 59,
};
#elif defined(__aarch64__)
enum {
	SYS_dup3 = 24,
	SYS_ioctl = 29,
	SYS_umount2 = 39,
	SYS_pivot_root = 41,
	SYS_chdir = 49,
	SYS_fchdir = 50,
	SYS_openat = 56,
	SYS_close = 57,
	SYS_pipe2 = 59,
	SYS_read = 63,
	SYS_write = 64,
	SYS_ppoll = 73,
	SYS_signalfd4 = 74,
	SYS_capset = 91,
	SYS_exit_group = 94,
	SYS_unshare = 97,
	SYS_kill = 129,
	SYS_rt_sigaction = 134,
	SYS_rt_sigprocmask = 135,
	SYS_setresuid = 147,
	SYS_setresgid = 149,
	SYS_setsid = 157,
	SYS_setgroups = 159,
	SYS_umask = 166,
	SYS_prctl = 167,
	SYS_getpid = 172,
	SYS_listen = 201,
	SYS_sendmsg = 211,
	SYS_recvmsg = 212,
	SYS_keyctl = 219,
	SYS_clone = 220,
	SYS_execve = 221,
	SYS_mmap = 222,
	SYS_accept4 = 242,
	SYS_wait4 = 260,
	SYS_prlimit64 = 261,
	SYS_seccomp = 277,
};
#else
#error "the init is written for x86-64 and arm64"
#endif

/* Numbers since 2019 are the same everywhere. */
enum {
	SYS_open_tree = 428,
	SYS_move_mount = 429,
	SYS_fsopen = 430,
	SYS_fsconfig = 431,
	SYS_fsmount = 432,
	SYS_clone3 = 435,
	SYS_close_range = 436,
	SYS_mount_setattr = 442,
	SYS_landlock_add_rule = 445,
	SYS_landlock_restrict_self = 446,
};

enum { EINTR = 4, E2BIG = 7, EAGAIN = 11, EINVAL = 22, ENOENT = 2, EACCES = 13, ENOTDIR = 20, ESRCH = 3, ECHILD = 10 };

static inline long syscall6(long nr, long a, long b, long c, long d, long e, long f)
{
#if defined(__x86_64__)
	long ret;
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;

	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return ret;
#else
	register long x8 __asm__("x8") = nr;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = e;
	register long x5 __asm__("x5") = f;

	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
	return x0;
#endif
}

#define SYSCALL_PICK(_0, _1, _2, _3, _4, _5, _6, name, ...) name
#define SYSCALL(...) SYSCALL_PICK(__VA_ARGS__, S6, S5, S4, S3, S2, S1, S0)(__VA_ARGS__)
#define S0(n) syscall6(n, 0, 0, 0, 0, 0, 0)
#define S1(n, a) syscall6(n, (long)(a), 0, 0, 0, 0, 0)
#define S2(n, a, b) syscall6(n, (long)(a), (long)(b), 0, 0, 0, 0)
#define S3(n, a, b, c) syscall6(n, (long)(a), (long)(b), (long)(c), 0, 0, 0)
#define S4(n, a, b, c, d) syscall6(n, (long)(a), (long)(b), (long)(c), (long)(d), 0, 0)
#define S5(n, a, b, c, d, e) syscall6(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), 0)
#define S6(n, a, b, c, d, e, f) syscall6(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))

/* Flags and structures, as in the kernel's headers of the same name. */
enum { AT_FDCWD = -100, AT_EMPTY_PATH = 0x1000 };
enum { O_RDONLY = 0, O_WRONLY = 1, O_CLOEXEC = 02000000 };
enum { SIGKILL = 9, SIGTERM = 15, SIGCHLD = 17, SIGNALS = 64, SIG_SETMASK = 2, SI_USER = 0 };
enum { PROT_READ = 1, PROT_WRITE = 2, MAP_PRIVATE = 2, MAP_ANONYMOUS = 0x20 };
enum { POLLIN = 1 };
enum { WNOHANG = 1, WAIT_ALL = 0x40000000 };
enum { TIOCSCTTY = 0x540e };

enum {
	CLONE_PIDFD = 0x1000,
	CLONE_PARENT = 0x8000,
	CLONE_NEWCGROUP = 0x02000000,
	CLONE_NEWUSER = 0x10000000,
	CLONE_NEWPID = 0x20000000,
};
#define CLONE_INTO_CGROUP 0x200000000ULL

struct clone_args {
	uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size,
	    cgroup;
};

enum { FSOPEN_CLOEXEC = 1, FSCONFIG_CMD_CREATE = 6, FSMOUNT_CLOEXEC = 1 };
enum { OPEN_TREE_CLONE = 1, OPEN_TREE_CLOEXEC = O_CLOEXEC, MOVE_MOUNT_F_EMPTY_PATH = 4, MNT_DETACH = 2 };
enum { MOUNT_ATTR_RDONLY = 1, MOUNT_ATTR_NOSUID = 2, MOUNT_ATTR_NODEV = 4, MOUNT_ATTR_NOEXEC = 8 };

struct mount_attr {
	uint64_t attr_set, attr_clr, propagation, userns_fd;
};

enum { RLIMIT_CORE = 4, RLIMIT_NOFILE = 7 };

struct rlimit64 {
	uint64_t cur, max;
};

enum {
	PR_SET_DUMPABLE = 4,
	PR_CAPBSET_DROP = 24,
	PR_SET_SECUREBITS = 28,
	PR_SET_NO_NEW_PRIVS = 38,
	PR_CAP_AMBIENT = 47,
	PR_CAP_AMBIENT_CLEAR_ALL = 4,
	SECBIT_NO_SETUID_FIXUP = 1 << 2,
	/* noroot, no_setuid_fixup, keep_caps, no_cap_ambient_raise: each locked, keep_caps left off. */
	SECUREBITS_LOCKED = 0xef,
	CAPABILITY_VERSION_3 = 0x20080522,
	KEYCTL_JOIN_SESSION_KEYRING = 1,
};

enum { LANDLOCK_RULE_PATH_BENEATH = 1, LANDLOCK_ACCESS_FS_WRITE_FILE = 2, SECCOMP_SET_MODE_FILTER = 1 };

struct landlock_path_beneath_attr {
	uint64_t allowed_access;
	int32_t parent_fd;
} __attribute__((packed));

struct sock_fprog {
	uint16_t len;
	const void *filter;
};

struct iovec {
	void *base;
	size_t len;
};

struct msghdr {
	void *name;
	uint32_t name_len;
	struct iovec *iov;
	size_t iov_len;
	void *control;
	size_t control_len;
	int flags;
};

struct cmsghdr {
	size_t len;
	int level, type;
};

enum {
	SOL_SOCKET = 1,
	SCM_RIGHTS = 1,
	MSG_CTRUNC = 8,
	MSG_TRUNC = 0x20,
	MSG_NOSIGNAL = 0x4000,
	MSG_CMSG_CLOEXEC = 0x40000000
};

struct signalfd_siginfo {
	uint32_t signo;
	int32_t error, code;
	uint32_t pid;
	char rest[112];
};

struct pollfd {
	int fd;
	short events, revents;
};

struct sigaction {
	void *handler;
	unsigned long flags;
	void *restorer;
	uint64_t mask;
};
