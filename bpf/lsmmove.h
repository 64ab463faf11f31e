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

/* Judges the removal of d, by unlink or rmdir. */
static __noinline int judge_removal(struct dentry *d)
{
	struct sandbox *box;
	struct refusal r;
	int verdict;
	__u32 marked;

	box = begin(&r, OP_REMOVE, ACCESS_WRITE, &verdict);
	if (!box)
		return verdict;
	if (unlikely(sets_kernel(d)))
		return refuse(&r, box, d, REASON_KERNEL, EACCES);
	by_rules(&r, d);
	if (final(&r.answer))
		return deny(&r, box, d);
	marked = marks(&r.query.place, d);
	if (unlikely(marked && !(marked & NODE_NAMED)))
		return refuse(&r, box, d, REASON_MARKED, EACCES);
	return likely(r.answer.verdict == ALLOW) ? 0 : settle(&r, box, d);
}

enum move { MOVE_LINK, MOVE_RENAME, MOVE_EXCHANGE };

/* What the rules say of both ends of a move. */
struct moved {
	struct file_answer here;
	struct file_answer there;
	__u8 how;    /* enum move. Narrow, as the other two: Linux 6.1 has no stack left beside this */
	__u8 gains;  /* what is allowed at the new place and not at the old */
	__u8 losses; /* the other way round */
	__u8 zero;
};

static __noinline int weigh_move(struct moved *m, struct file_query *q, struct dentry *from, struct dentry *to)
{
	struct walk w;
	__u32 here, there;

	find_rule(&w, &q->place, to);
	judge_walk(&w, q->want, q->now, &m->there);
	there = rights(&w, q->now);
	find_rule(&w, &q->place, from);
	judge_walk(&w, q->want, q->now, &m->here);
	here = rights(&w, q->now);
	m->gains = there & ~here;
	m->losses = here & ~there;
	return 0;
}

/* Judges what no answer can change: what rules deny, what is marked, what would gain. Returns 0, or what the hook answers. */
static __noinline int forbidden(struct refusal *r, struct sandbox *box, struct dentry *from, struct dentry *to,
				struct moved *m)
{
	__u32 marked;

	r->answer = m->there;
	if (final(&r->answer))
		return deny(r, box, to);
	if (m->how != MOVE_LINK) {
		r->answer = m->here;
		if (final(&r->answer))
			return deny(r, box, from);
		if (unlikely(marks(&r->query.place, from)))
			return refuse(r, box, from, REASON_MARKED, EACCES);
		marked = marks(&r->query.place, to);
		if (unlikely(marked && (m->how == MOVE_EXCHANGE || !(marked & NODE_NAMED))))
			return refuse(r, box, to, REASON_MARKED, EACCES);
	}
	/* mv(1) copies then, which is judged by itself. */
	if (unlikely(m->gains))
		return refuse(r, box, from, REASON_GAINS, EXDEV);
	if (unlikely(m->how == MOVE_EXCHANGE && m->losses))
		return refuse(r, box, to, REASON_GAINS, EXDEV);
	return 0;
}

/*
 * Judges that what is at `from` appears at `to`, in exchange for what is there or instead of it. Nothing may be allowed
 * there that is not here. No answer is used up before both are there.
 */
static __noinline int judge_move(struct dentry *from, struct dentry *to, enum move how)
{
	struct sandbox *box;
	struct refusal r;
	struct moved m;
	int verdict, also;

	box = begin(&r, how == MOVE_LINK ? OP_LINK : OP_RENAME, ACCESS_WRITE, &verdict);
	if (!box)
		return verdict;
	if (unlikely(sets_kernel(to)))
		return refuse(&r, box, to, REASON_KERNEL, EACCES);
	m.how = how;
	weigh_move(&m, &r.query, from, to);
	verdict = forbidden(&r, box, from, to, &m);
	if (verdict)
		return verdict;
	also = how != MOVE_LINK && m.here.verdict != ALLOW;
	if (m.there.verdict != ALLOW) {
		r.answer = m.here;
		if (also && !consented(&r, from)) {
			r.answer = m.here;
			return settle(&r, box, from);
		}
		r.answer = m.there;
		verdict = settle(&r, box, to);
		if (verdict == -EACCES && also)
			forget(&r, from);
		if (verdict)
			return verdict;
	}
	r.answer = m.here;
	return also ? settle(&r, box, from) : 0;
}

SEC("lsm/path_unlink")
int path_unlink(__u64 *ctx)
{
	return outside() ? 0 : judge_removal((void *)ctx[1]);
}

SEC("lsm/path_rmdir")
int path_rmdir(__u64 *ctx)
{
	return outside() ? 0 : judge_removal((void *)ctx[1]);
}

SEC("lsm/path_link")
int path_link(__u64 *ctx)
{
	return outside() ? 0 : judge_move((void *)ctx[0], (void *)ctx[2], MOVE_LINK);
}

SEC("lsm/path_rename")
int path_rename(__u64 *ctx)
{
	if (outside())
		return 0;
	return judge_move((void *)ctx[1], (void *)ctx[3], ctx[4] & RENAME_EXCHANGE ? MOVE_EXCHANGE : MOVE_RENAME);
}

#endif
