/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What every LSM hook on files ends in: a judgement by the rules, and then by a person or with a record.
 *
 * A task outside of every sandbox leaves at a hook's first line. A task below the parent whose cgroup has no entry may do
 * nothing.
 */
#ifndef NEMOCLAW_JUDGEFILES_H
#define NEMOCLAW_JUDGEFILES_H

#include "hold.h"
#include "kernelfs.h"

#define EPERM 1
#define EXDEV 18

enum {
	FMODE_READ = 1,
	FMODE_WRITE = 2,
	FMODE_CREATED = 0x100000,
	FMODE_BACKING = 0x2000000,
	FMODE_NOACCOUNT = 0x20000000
};
enum { O_TRUNC = 01000, FMODE_EXEC = 0x20 /* in f_flags: opened by execve */ };
enum { S_IFMT = 0170000, S_IFDIR = 0040000, S_IFREG = 0100000, S_IFBLK = 0060000, S_IFCHR = 0020000 };
enum { PROT_EXEC = 4, F_WRLCK = 1, RENAME_EXCHANGE = 2 };
#define SB_NOUSER (1UL << 31) /* pipes, sockets, memfd: nobody has a path there */
#define NSFS_MAGIC 0x6e736673 /* namespaces: the same, but they can be mounted */

enum { ATTR_SIZE = 8, ATTR_OPEN = 1 << 15 };

static __always_inline int outside(void)
{
	return likely(bpf_current_task_under_cgroup(&parent, 0) != 1);
}

/* Starts a judgement. Returns the sandbox whose rules are in force; NULL when *verdict is the hook's answer. */
static __always_inline struct sandbox *begin(struct refusal *r, __u32 op, __u32 want, int *verdict)
{
	struct sandbox *box;

	memset(r, 0, sizeof(*r));
	r->query.place.cgid = bpf_get_current_cgroup_id();
	box = sandbox_of(r->query.place.cgid);
	if (!box) {
		stray(HOOK_FILE);
		*verdict = -EACCES;
		return NULL;
	}
	if (!box->files) {
		*verdict = 0;
		return NULL;
	}
	r->query.place.revision = box->files;
	r->query.want = want;
	r->query.now = bpf_ktime_get_boot_ns();
	r->op = op;
	return box;
}

static __always_inline int refuse(struct refusal *r, struct sandbox *box, struct dentry *d, __u32 reason, __u32 error)
{
	r->answer.verdict = DENY;
	r->answer.rule = RULE_BUILTIN;
	r->reason = reason;
	report(r, box, d, NULL, 0);
	return -(int)error;
}

/* What has no path: pipes, sockets, memfd, shared memory, namespaces. */
static __always_inline int nowhere(const struct super_block *sb)
{
	return sb->s_flags & SB_NOUSER || sb->s_magic == NSFS_MAGIC;
}

/* Judges what is wanted of d. Returns what the hook answers. */
static __noinline int judge(struct dentry *d, __u32 op, __u32 want)
{
	struct sandbox *box;
	struct refusal r;
	int verdict;

	if (nowhere(d->d_sb))
		return 0;
	box = begin(&r, op, want, &verdict);
	if (!box)
		return verdict;
	if (want & ACCESS_WRITE && unlikely(sets_kernel(d)))
		return refuse(&r, box, d, REASON_KERNEL, EACCES);
	return by_rules(&r, d) ? 0 : settle(&r, box, d);
}

#endif
