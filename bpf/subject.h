/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Who acts: process, executable's inode and command line of the current task. Never comm, which anybody can set. */
#ifndef NEMOCLAW_SUBJECT_H
#define NEMOCLAW_SUBJECT_H

#include "kernel.h"
#include "maps.h"

struct subject {
	struct file_id exe;
	__u64 args;	/* address in the task */
	__u64 args_len; /* as long as the task says: not bounded */
	__u32 tgid;
	__u32 taint; /* the caller's to fill in, where it matters */
};

static __always_inline void identify_inode(struct file_id *id, struct inode *inode)
{
	id->inode = (__u64)inode;
	id->ino = inode->i_ino;
	id->dev = inode->i_sb->s_dev;
	id->gen = inode->i_generation;
}

static __always_inline void subject_of(struct subject *s, struct task_struct *task)
{
	struct mm_struct *mm = task->mm;

	memset(s, 0, sizeof(*s));
	s->tgid = task->tgid;
	if (!mm)
		return;
	s->args = mm->arg_start;
	if (mm->arg_end > mm->arg_start)
		s->args_len = mm->arg_end - mm->arg_start;

	struct file *file = mm->exe_file;

	if (!file)
		return;

	struct inode *inode = file->f_inode;

	if (inode)
		identify_inode(&s->exe, inode);
}

/*
 * Reads up to room bytes of the command line and returns how many. Pages of the task that are not in memory are not
 * fetched: the command line is then missing from the record. The task can change it at will: it is shown, not judged.
 */
static __always_inline __u32 read_args(void *to, const __u32 room, const struct subject *s)
{
	__u64 len = s->args_len;

	if (len > room)
		len = room;
	/* The compiler may spread that comparison so that older verifiers lose the bound: compare where it is used. */
	barrier_var(len);
	if (len > room)
		return 0;
	if (bpf_probe_read_user(to, len, (void *)s->args))
		return 0;
	return len;
}

static __always_inline void fill_peer(struct peer *p, const struct subject *s)
{
	p->exe = s->exe;
	p->tgid = s->tgid;
	p->taint = s->taint;
	p->args_len = read_args(p->args, ARGS_MAX, s);
}

#endif
