//go:build ignore
/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * tp_btf/sys_exit, for one sandbox: reports every execve that failed with EACCES, which is what Landlock answers. It is
 * attached only while a policy is learnt, because it costs every system call on the host some nanoseconds; it decides
 * nothing. The path is the caller's own word.
 */
#include "uapi.h"

#define EACCES 13
#define PATH_ROOM 256
#define RING_BYTES (256 * 1024)

struct refused_exec {
	__u64 time;
	__u32 tgid;
	__u32 length; /* of the path, with its NUL */
	char path[PATH_ROOM];
};

const struct refused_exec *unused_refused_exec __attribute__((unused)); /* keeps the type in BTF, for bpf2go */

volatile const __u64 cgroup; /* set before loading */
__u64 lost;		     /* that did not fit into the ring */

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, RING_BYTES);
} refusals SEC(".maps");

static __u64 (*bpf_get_current_pid_tgid)(void) = (void *)14;

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

#ifdef __TARGET_ARCH_x86
#define EXECVE 59
#define EXECVEAT 322

struct pt_regs {
	unsigned long si;
	unsigned long di;
	unsigned long orig_ax;
};
#else
#define EXECVE 221
#define EXECVEAT 281

struct user_pt_regs {
	__u64 regs[31];
};

struct pt_regs {
	struct user_pt_regs user_regs;
	__u64 orig_x0;
	__s32 syscallno;
};
#endif

#pragma clang attribute pop

/* The user's pointer to the path, or 0 for another system call. */
static __always_inline __u64 path_of(struct pt_regs *regs)
{
#ifdef __TARGET_ARCH_x86
	if (regs->orig_ax == EXECVE)
		return regs->di;
	if (regs->orig_ax == EXECVEAT)
		return regs->si;
#else
	if (regs->syscallno == EXECVE)
		return regs->orig_x0; /* the first register holds the answer by now */
	if (regs->syscallno == EXECVEAT)
		return regs->user_regs.regs[1];
#endif
	return 0;
}

SEC("tp_btf/sys_exit")
int refused(__u64 *ctx)
{
	struct refused_exec *e;
	__u64 path;
	long n;

	if (likely((long)ctx[1] != -EACCES))
		return 0;
	if (bpf_get_current_cgroup_id() != cgroup)
		return 0;
	path = path_of((void *)ctx[0]);
	if (!path)
		return 0;
	e = bpf_ringbuf_reserve(&refusals, sizeof(*e), 0);
	if (!e) { /* full */
		__sync_fetch_and_add(&lost, 1);
		return 0;
	}
	e->time = bpf_ktime_get_boot_ns();
	e->tgid = bpf_get_current_pid_tgid() >> 32;
	n = bpf_probe_read_user_str(e->path, sizeof(e->path), (void *)path);
	e->length = n > 0 ? n : 0;
	bpf_ringbuf_submit(e, 0);
	return 0;
}

char _license[] SEC("license") = "Dual BSD/GPL";
