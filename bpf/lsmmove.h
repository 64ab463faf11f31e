/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * LSM hooks on what takes a name from a file or gives it another: nothing gains rights by it, and what a rule is
 * anchored to stays where it is.
 */
#ifndef NEMOCLAW_LSMMOVE_H
#define NEMOCLAW_LSMMOVE_H

#include "judgefiles.h"

static __always_inline __u32 rights(const struct walk *w, __u64 now)
{
	return w->found ? allowed(&w->node, now) | w->node.ask : 0;
}

/* Whether d itself, or what is below it, has a rule that is anchored to its inode. */
static __always_inline __u32 marks(struct place *p, struct dentry *d)
{
	struct node *n = exists(d) ? node_of(p, d->d_inode) : NULL;

	return n ? n->flags | NODE_RULES : 0;
}

/* Judges the removal of d: by unlink, rmdir, or something that takes its name. */
static __noinline int judge_removal(struct dentry *d, __u32 op)
{
	struct sandbox *box;
	struct refusal r;
	int verdict;
	__u32 marked;

	box = begin(&r, op, ACCESS_WRITE, &verdict);
	if (!box)
		return verdict;
	if (unlikely(sets_kernel(d)))
		return refuse(&r, box, d, REASON_KERNEL, EACCES);
	judge_file(&r.query, d, &r.answer);
	if (r.answer.verdict != ALLOW) {
		report(&r, box, d);
		return -EACCES;
	}
	marked = marks(&r.query.place, d);
	if (unlikely(marked && !(marked & NODE_NAMED)))
		return refuse(&r, box, d, REASON_MARKED, EACCES);
	return 0;
}

/* Judges that what is at `from` appears at `to`, by link or rename. Nothing may be allowed there that is not here. */
static __noinline int judge_move(struct dentry *from, struct dentry *to, __u32 op)
{
	struct sandbox *box;
	struct refusal r;
	struct walk w;
	__u32 there;
	int verdict;

	box = begin(&r, op, ACCESS_WRITE, &verdict);
	if (!box)
		return verdict;
	if (unlikely(sets_kernel(to)))
		return refuse(&r, box, to, REASON_KERNEL, EACCES);
	find_rule(&w, &r.query.place, to);
	judge_walk(&w, ACCESS_WRITE, r.query.now, &r.answer);
	if (r.answer.verdict != ALLOW) {
		report(&r, box, to);
		return -EACCES;
	}
	there = rights(&w, r.query.now);
	find_rule(&w, &r.query.place, from);
	if (op == OP_RENAME) {
		judge_walk(&w, ACCESS_WRITE, r.query.now, &r.answer);
		if (r.answer.verdict != ALLOW) {
			report(&r, box, from);
			return -EACCES;
		}
		if (unlikely(marks(&r.query.place, from)))
			return refuse(&r, box, from, REASON_MARKED, EACCES);
	}
	if (unlikely(there & ~rights(&w, r.query.now)))
		return refuse(&r, box, from, REASON_GAINS, EXDEV); /* mv(1) copies then, which is judged by itself */
	return 0;
}

SEC("lsm/path_unlink")
int path_unlink(__u64 *ctx)
{
	return outside() ? 0 : judge_removal((void *)ctx[1], OP_REMOVE);
}

SEC("lsm/path_rmdir")
int path_rmdir(__u64 *ctx)
{
	return outside() ? 0 : judge_removal((void *)ctx[1], OP_REMOVE);
}

SEC("lsm/path_link")
int path_link(__u64 *ctx)
{
	return outside() ? 0 : judge_move((void *)ctx[0], (void *)ctx[2], OP_LINK);
}

SEC("lsm/path_rename")
int path_rename(__u64 *ctx)
{
	struct dentry *from = (void *)ctx[1], *to = (void *)ctx[3];
	int verdict;

	if (outside())
		return 0;
	verdict = judge_move(from, to, OP_RENAME);
	if (verdict || !exists(to))
		return verdict;
	if (ctx[4] & RENAME_EXCHANGE)
		return judge_move(to, from, OP_RENAME);
	return judge_removal(to, OP_RENAME);
}

#endif
