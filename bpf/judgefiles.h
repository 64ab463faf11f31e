/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What every LSM hook on files ends in: a judgement by the rules, and a record of what was refused.
 *
 * A task outside of every sandbox leaves at a hook's first line. A task below the parent whose cgroup has no entry may do
 * nothing.
 */
#ifndef NEMOCLAW_JUDGEFILES_H
#define NEMOCLAW_JUDGEFILES_H

#include "event.h"
#include "files.h"
#include "kernelfs.h"

#define EPERM 1
#define EACCES 13
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

enum { ATTR_SIZE = 8, SIGNAL_UNKILLABLE = 0x40 };
enum { BUDGET_FILE = 256 };

static __always_inline int outside(void)
{
	return likely(bpf_current_task_under_cgroup(&parent, 0) != 1);
}

/* The names from a dentry up to its mount's root, on their way into a record. */
struct naming {
	struct place *place;
	struct dentry *at;
	void *text; /* has room for NAMES_KEPT */
	__u64 used;
};

static long put_name(__u32 nth, struct naming *to)
{
	struct dentry *d = to->at, *up = d->d_parent;
	struct node *n = exists(d) ? node_of(to->place, d->d_inode) : NULL;
	__u64 used = to->used;
	long len;

	/* What has no path has a name all the same. */
	if ((n && n->flags & NODE_MOUNT) || !up || (up == d && nth) || used > NAMES_KEPT - NAME_KEPT)
		return 1;
	len = bpf_probe_read_kernel_str(to->text + used, NAME_KEPT, d->d_name.name);
	if (len <= 0)
		return 1;
	to->used = used + len;
	to->at = up;
	return 0;
}

struct refusal {
	struct file_query query;
	struct file_answer answer;
	__u16 op;
	__u8 reason;
	__u8 error;
	__u32 zero;
};

/* Counts a refusal and puts it into the ring. */
static __noinline int report(struct refusal *r, struct sandbox *box, struct dentry *d)
{
	__u64 cgid = r->query.place.cgid;
	struct counters *c = counters_of(cgid);
	struct naming to = {.place = &r->query.place, .at = d};
	struct subject s;
	struct event *e;
	void *ring;
	void *record;

	count(c, HOOK_FILE, r->answer.verdict);
	if (!afford(c, HOOK_FILE, r->query.now, BUDGET_FILE))
		return 0;
	ring = ring_of(box);
	record = ring ? bpf_ringbuf_reserve(ring, sizeof(*e) + ARGS_MAX + NAMES_KEPT, 0) : NULL;
	if (!record) {
		lost(c);
		return 0;
	}
	e = record;
	subject_of(&s, bpf_get_current_task_btf());
	start_event(e, box, cgid, HOOK_FILE, &s, r->query.now);
	e->verdict = r->answer.verdict;
	e->rule = r->answer.rule;
	e->reason = r->reason;
	e->port = r->op;
	e->protocol = r->query.want;
	e->args_room = ARGS_MAX;
	e->args_len = read_args(record + sizeof(*e), ARGS_MAX, &s);
	to.text = record + sizeof(*e) + ARGS_MAX;
	bpf_loop(TREE_DEPTH, put_name, &to, 0);
	e->path_len = to.used;
	e->object[0] = r->query.place.ino;
	e->object[1] = r->query.place.ino >> 32;
	e->object[2] = r->query.place.dev;
	e->object[3] = r->query.place.gen;
	bpf_ringbuf_submit(record, 0);
	return 0;
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
	r->error = EACCES;
	return box;
}

static __always_inline int refuse(struct refusal *r, struct sandbox *box, struct dentry *d, __u32 reason, __u32 error)
{
	r->answer.verdict = DENY;
	r->answer.rule = RULE_BUILTIN;
	r->reason = reason;
	report(r, box, d);
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
	judge_file(&r.query, d, &r.answer);
	if (likely(r.answer.verdict == ALLOW))
		return 0;
	report(&r, box, d);
	return -EACCES;
}

#endif
