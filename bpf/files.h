/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The decision on a file, apart from any hook, so that the LSM programs and the test program judge with the same code.
 *
 * A rule is anchored to an inode, and to a name in a directory where the rule's own path can be given to another inode
 * or need not exist yet. What is judged is a dentry: the walk goes upward, and the nearest rule decides. The root of
 * every mount of a sandbox's view has a rule, so the walk never leaves a mount; what leads to no rule is denied. No
 * path is compared, so links, chroot, length and mount namespaces do not matter.
 *
 * An inode is known by device, number and generation: unlike its address these stay its own when nobody has it open,
 * so the rules hold while no agent runs. The loader refuses file systems where they are ambiguous.
 *
 * The loader has compiled every rule of the policy that applies to a path into its entry, deny before ask before
 * allow: nothing is combined here.
 */
#ifndef NEMOCLAW_FILES_H
#define NEMOCLAW_FILES_H

#include "filemaps.h"
#include "kernel.h"

/* The address of the kernel's rename_lock, set before loading; 0 where it is not known, for tests. */
volatile const __u64 rename_lock;

/* looks at rename_lock until a move is over */

struct file_query {
	struct place place; /* the sandbox and the revision; the rest is the walk's */
	__u64 now;
	__u32 want; /* of enum access */
	__u32 zero;
};

struct file_answer {
	__u32 rule;
	__u32 verdict;
	__u32 missing; /* what is wanted and not allowed */
	__u32 zero;
};

static __always_inline void place_inode(struct place *p, struct inode *inode)
{
	p->ino = inode->i_ino;
	p->dev = inode->i_sb->s_dev;
	p->gen = inode->i_generation;
}

/*
 * Whether d has an inode yet. The verifiers of Linux 6.4 to 6.14 take it for granted of what a hook is given: they
 * remove a comparison of d->d_inode with NULL, and what makes a load through it safe.
 */
static __always_inline int exists(struct dentry *d)
{
	__u64 inode = 0;

	bpf_probe_read_kernel(&inode, sizeof(inode), __builtin_preserve_access_index(&d->d_inode));
	return inode != 0;
}

/* Multiplicative hashing, by 2^64 divided by the golden ratio (Knuth, volume 3, 6.4). bpf.Anchor is the same in Go. */
static __always_inline __u32 anchor_of(__u64 ino, __u32 dev)
{
	return ((ino ^ (__u64)dev << 32) * 0x9e3779b97f4a7c15ULL) >> (64 - ANCHOR_BITS);
}

static __always_inline struct node *node_of(struct place *p, struct inode *inode)
{
	__u32 anchor;
	__u8 *set;

	if (!inode)
		return NULL;
	anchor = anchor_of(inode->i_ino, inode->i_sb->s_dev);
	set = bpf_map_lookup_elem(&anchors, &anchor);
	if (!set || !*set)
		return NULL;
	place_inode(p, inode);
	return bpf_map_lookup_elem(&nodes, p);
}

/* The rule of d's name in the directory that dir names, or NULL. */
static __noinline struct node *name_of(const struct place *dir, struct dentry *d)
{
	struct name_key key = {.dir = *dir};

	if (d->d_name.len >= sizeof(key.name))
		return NULL; /* longer than any name that has a rule, which ends with a zero */
	if (bpf_probe_read_kernel_str(key.name, sizeof(key.name), d->d_name.name) <= 0)
		return NULL;
	return bpf_map_lookup_elem(&names, &key);
}

/* A walk from a dentry to the rule that decides on it. A loop of the kernel's own: the verifier looks at one step. */
struct walk {
	struct place place; /* sandbox and revision are the caller's; the rest changes */
	struct dentry *from;
	struct dentry *at;
	struct node node; /* the rule, when found */
	__u32 found;
	__u32 still; /* nothing was moved meanwhile */
};

static __always_inline long keep(struct walk *w, const struct node *n)
{
	w->node = *n;
	w->found = 1;
	return 1;
}

static long step_up(__u32 nth, struct walk *w)
{
	struct dentry *d = w->at, *up = d->d_parent;
	struct node *above;

	(void)nth;
	if (!up || up == d)
		return 1;
	above = node_of(&w->place, up->d_inode);
	if (above && above->flags & NODE_NAMES) {
		struct node *named = name_of(&w->place, d);

		if (named)
			return keep(w, named);
	}
	if (above && above->flags & NODE_RULES)
		return keep(w, above);
	w->at = up;
	return 0;
}

/* The address of the kernel's sequence of moves is known: it is odd while something is moved. */
static __always_inline __u32 rename_sequence(void)
{
	__u32 seq = 0;

	if (rename_lock)
		bpf_probe_read_kernel(&seq, sizeof(seq), (void *)rename_lock);
	return seq;
}

/* What was read before is read before what is read after. x86 does so by itself; an exchange is a full barrier. */
static __always_inline void in_order(void)
{
#ifdef __TARGET_ARCH_arm64
	__u32 barrier = 0;

	__sync_lock_test_and_set(&barrier, 1);
#endif
}

static long walk_once(__u32 nth, struct walk *w)
{
	__u32 seq = rename_sequence();
	struct dentry *d = w->from;
	struct node *n;

	(void)nth;
	if (unlikely(seq & 1))
		return 0;
	in_order();
	w->found = 0;
	n = exists(d) ? node_of(&w->place, d->d_inode) : NULL;
	if (n && n->flags & NODE_RULES) {
		keep(w, n);
	} else {
		w->at = d;
		bpf_loop(TREE_DEPTH, step_up, w, 0);
	}
	in_order();
	w->still = rename_sequence() == seq;
	return w->still;
}

/*
 * Finds the nearest rule at or above d, in a tree that held still meanwhile: a directory that somebody moves during the
 * walk could otherwise lend a file the rules of a place where it never was. When every walk is disturbed there is none.
 */
static __noinline void find_rule(struct walk *w, const struct place *sandbox, struct dentry *d)
{
	w->place = *sandbox;
	w->from = w->at = d;
	w->still = 0;
	bpf_loop(WALKS, walk_once, w, 0);
	if (unlikely(!w->still))
		w->found = 0;
}

/* What a rule allows at this time. */
static __always_inline __u32 allowed(const struct node *n, __u64 now)
{
	return n->until && n->until <= now ? n->later : n->allow;
}

static __always_inline void judge_walk(const struct walk *w, __u32 want, __u64 now, struct file_answer *a)
{
	const struct node *n = &w->node;
	__u32 missing, ask;

	if (!w->found) {
		a->rule = RULE_DEFAULT;
		a->verdict = DENY;
		a->missing = want;
		return;
	}
	missing = want & ~allowed(n, now);
	a->missing = missing;
	ask = n->until && n->until <= now ? 0 : n->ask;
	a->verdict = !missing ? ALLOW : missing & ~ask ? DENY : ASK;
	if (!missing)
		missing = want;
	else if (missing & ~ask)
		missing &= ~ask;
	a->rule = missing & (ACCESS_READ | ACCESS_LIST) ? n->rule[0] : missing & ACCESS_WRITE ? n->rule[1] : n->rule[2];
}

static __always_inline void judge_file(struct file_query *q, struct dentry *d, struct file_answer *a)
{
	struct walk w;

	find_rule(&w, &q->place, d);
	judge_walk(&w, q->want, q->now, a);
}

#endif
