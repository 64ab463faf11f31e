/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * LSM hooks on what no sandbox needs and what could loosen one. No policy allows it: from when a sandbox's file rules are
 * in force it is refused, and so is a task below the parent whose cgroup has no entry. The sandbox's set-up runs before.
 * The loader refuses a kernel that lacks one of the hooks.
 *
 * What has no hook here, because another one sees it:
 *
 *	what was tried				refused by
 *	the pins of this product		bpf: bpf(2) opens them, and kernelfs.h: bpffs is where they are removed
 *	what needs CAP_BPF			bpf: there is nothing else that it is for
 *	/proc/PID/mem, process_vm_*, kcmp,	ptrace_access_check
 *	  pidfd_getfd, migrate_pages of others
 *	fsopen, fspick, fsmount			sb_kern_mount, sb_remount
 *	mount_setattr, unshare, setns, swapon,	capable: SYS_ADMIN, in every user namespace
 *	  quotactl that changes something
 *	init_module, kexec_load, reboot, acct,	capable: SYS_MODULE, SYS_BOOT, SYS_PACCT, SYS_TIME, SYS_RAWIO
 *	  settimeofday, adjtimex, iopl
 *	capset, setuid of more than one has	capable: what is gained is refused when it is used, and SETUID itself
 *	cgroupfs, bpffs, sysfs, debugfs,	kernelfs.h, where files are judged: with the path in the record
 *	  /proc/sys and the like, written to
 *
 * Not refused: to read another process's limits (task_prlimit does not say whose, and /proc shows them to everybody),
 * and one's own quota. A signal by F_SETOWN goes only to who can be named, which the pid namespace bounds.
 */
#ifndef NEMOCLAW_LSMGUARD_H
#define NEMOCLAW_LSMGUARD_H

#include "event.h"
#include "judgefiles.h"

enum { PTRACE_MODE_ATTACH = 2, PTRACE_MODE_NOAUDIT = 4 };
enum { CAP_OPT_NOAUDIT = 2 };
enum { LOADING_FIRMWARE = 1 };

enum {
	CAP_SETGID = 6,
	CAP_SETUID = 7,
	CAP_SETPCAP = 8,
	CAP_NET_ADMIN = 12,
	CAP_SYS_MODULE = 16,
	CAP_SYS_RAWIO = 17,
	CAP_SYS_PTRACE = 19,
	CAP_SYS_PACCT = 20,
	CAP_SYS_ADMIN = 21,
	CAP_SYS_BOOT = 22,
	CAP_SYS_TIME = 25,
	CAP_AUDIT_CONTROL = 30,
	CAP_MAC_OVERRIDE = 32,
	CAP_MAC_ADMIN = 33,
	CAP_SYSLOG = 34,
	CAP_PERFMON = 38,
	CAP_CHECKPOINT_RESTORE = 40,
};
#define CAP(c) (1ULL << CAP_##c)

/* Of these the kernel asks for SYS_ADMIN next: the attempt is counted then. */
#define OR_SYS_ADMIN (CAP(PERFMON) | CAP(CHECKPOINT_RESTORE))

/* What nobody inside has in the initial user namespace. Those that only files need are the file rules' affair. */
#define HOST_ONLY                                                                                                      \
	(OR_SYS_ADMIN | CAP(SETGID) | CAP(SETUID) | CAP(SETPCAP) | CAP(NET_ADMIN) | CAP(SYS_MODULE) | CAP(SYS_RAWIO) | \
	 CAP(SYS_PTRACE) | CAP(SYS_PACCT) | CAP(SYS_ADMIN) | CAP(SYS_BOOT) | CAP(SYS_TIME) | CAP(AUDIT_CONTROL) |      \
	 CAP(MAC_OVERRIDE) | CAP(MAC_ADMIN) | CAP(SYSLOG))

enum { QUIET, TOLD };

/* Refuses what a task below the parent tries, unless its sandbox's rules are not in force yet. Returns the answer. */
static __noinline int forbid(__u32 op, __u32 detail, __u32 whom, __u32 told)
{
	__u64 cgid = bpf_get_current_cgroup_id();
	struct sandbox *box = sandbox_of(cgid);
	struct counters *c;
	struct subject s;
	struct event e;
	__u64 now;

	if (!box) {
		stray(HOOK_GUARD);
		return -EPERM;
	}
	if (!box->files)
		return 0;
	if (told == QUIET)
		return -EPERM;
	c = counters_of(cgid);
	count(c, HOOK_GUARD, DENY);
	now = bpf_ktime_get_boot_ns();
	if (!afford(c, HOOK_GUARD, now, BUDGET_OTHER))
		return -EPERM;
	subject_of(&s, bpf_get_current_task_btf());
	start_event(&e, box, cgid, HOOK_GUARD, &s, now);
	e.object[0] = detail;
	e.object[1] = whom;
	e.port = op;
	e.rule = RULE_BUILTIN;
	e.reason = REASON_GUARD;
	send_event(box, c, &e, &s);
	return -EPERM;
}

/* A task of another sandbox or of the host. */
static __always_inline int foreign(struct task_struct *task)
{
	return task->cgroups->dfl_cgrp->kn->id != bpf_get_current_cgroup_id();
}

/* The kernel acts for the task in somebody else's name: an overlay does in that of who mounted it. */
static __always_inline int borrowed(const struct cred *cred)
{
	struct task_struct *task = bpf_get_current_task_btf();

	return cred == task->cred && cred != task->real_cred;
}

/* A hook on what is refused whatever its arguments are; detail goes into the record. */
#define FORBID(hook, op, detail)                                                                                       \
	SEC("lsm/" #hook)                                                                                              \
	int guard_##hook(__u64 *ctx)                                                                                   \
	{                                                                                                              \
		(void)ctx;                                                                                             \
		return outside() ? 0 : forbid(op, detail, 0, TOLD);                                                    \
	}

/* A hook whose first argument is the task that something is done to. */
#define FORBID_FOREIGN(hook, op, detail)                                                                               \
	SEC("lsm/" #hook)                                                                                              \
	int guard_##hook(__u64 *ctx)                                                                                   \
	{                                                                                                              \
		struct task_struct *task = (void *)ctx[0];                                                             \
                                                                                                                       \
		return outside() || !foreign(task) ? 0 : forbid(op, detail, task->tgid, TOLD);                         \
	}

FORBID(bpf, GUARD_BPF, ctx[0])
FORBID(userns_create, GUARD_NAMESPACE, 0)
FORBID(kernel_module_request, GUARD_MODULE, 0)
FORBID(locked_down, GUARD_LOCKDOWN, ctx[0])
FORBID(perf_event_open, GUARD_PERF, 0)
FORBID(syslog, GUARD_LOG, ctx[0])
FORBID(uring_sqpoll, GUARD_URING, 0)
FORBID(uring_override_creds, GUARD_URING, 0)
FORBID(uring_cmd, GUARD_URING, 0)

FORBID(sb_mount, GUARD_MOUNT, 0)
FORBID(sb_umount, GUARD_MOUNT, 0)
FORBID(sb_remount, GUARD_MOUNT, 0)
FORBID(sb_kern_mount, GUARD_MOUNT, 0)
FORBID(sb_pivotroot, GUARD_MOUNT, 0)
FORBID(move_mount, GUARD_MOUNT, 0)

FORBID_FOREIGN(task_setrlimit, GUARD_LIMIT, ctx[1])
FORBID_FOREIGN(task_setnice, GUARD_PRIORITY, 0)
FORBID_FOREIGN(task_setioprio, GUARD_PRIORITY, 0)
FORBID_FOREIGN(task_setscheduler, GUARD_PRIORITY, 0)

/* Within a sandbox processes may look at each other, but not steer each other: that would be to borrow a command's rights. */
SEC("lsm/ptrace_access_check")
int guard_ptrace_access_check(__u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	__u32 mode = ctx[1];

	if (outside() || !(mode & PTRACE_MODE_ATTACH || foreign(task)))
		return 0;
	return forbid(GUARD_TRACE, mode, task->tgid, mode & PTRACE_MODE_NOAUDIT ? QUIET : TOLD);
}

SEC("lsm/ptrace_traceme")
int guard_ptrace_traceme(__u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];

	return outside() ? 0 : forbid(GUARD_TRACE, PTRACE_MODE_ATTACH, task->tgid, TOLD);
}

SEC("lsm/task_kill")
int guard_task_kill(__u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	__u64 cred;

	if (outside() || !foreign(task))
		return 0;
	/* Somebody else's signal, delivered while this task runs. The verifier takes the argument itself for never NULL. */
	if (bpf_probe_read_kernel(&cred, sizeof(cred), &ctx[3]) || cred)
		return 0;
	return forbid(GUARD_SIGNAL, ctx[2], task->tgid, TOLD);
}

/* A device that a sandbox may open can want its firmware then: no choice of the sandbox's. */
static __always_inline int load(__u32 what)
{
	return outside() || what == LOADING_FIRMWARE ? 0 : forbid(GUARD_LOAD, what, 0, TOLD);
}

SEC("lsm/kernel_read_file")
int guard_kernel_read_file(__u64 *ctx)
{
	return load(ctx[1]);
}

SEC("lsm/kernel_load_data")
int guard_kernel_load_data(__u64 *ctx)
{
	return load(ctx[0]);
}

SEC("lsm/key_permission")
int guard_key_permission(__u64 *ctx)
{
	if (outside() || borrowed((void *)ctx[1]))
		return 0;
	return forbid(GUARD_KEY, ctx[2], 0, TOLD) ? -EACCES : 0;
}

SEC("lsm/capable")
int guard_capable(__u64 *ctx)
{
	struct user_namespace *ns = (void *)ctx[1];
	__u32 cap = ctx[2], options = ctx[3];

	if (cap > CAP_CHECKPOINT_RESTORE || !(HOST_ONLY >> cap & 1) || outside())
		return 0;
	if ((ns->level && cap != CAP_SYS_ADMIN) || borrowed((void *)ctx[0]))
		return 0;
	return forbid(GUARD_CAPABILITY, cap, 0, options & CAP_OPT_NOAUDIT || OR_SYS_ADMIN >> cap & 1 ? QUIET : TOLD);
}

#endif
