/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Tells the loader the identity that the kernel's own structures give to files the loader has open. stat(2) can't: on
 * overlayfs and btrfs it reports other devices and numbers than the inode has.
 *
 * Run through BPF_PROG_RUN with {index of the loader's ring, descriptors...}, in the caller's context, under RCU (so a
 * descriptor table that another thread enlarges meanwhile stays readable). The answer is in `identities`; a
 * descriptor that is not open gets zeros.
 */
#ifndef NEMOCLAW_IDENTIFY_H
#define NEMOCLAW_IDENTIFY_H

#include "subject.h"

static __always_inline void identify_fd(struct file_id *id, struct fdtable *table, __u64 fd)
{
	struct super_block *sb;
	struct inode *inode;
	struct file *file;

	memset(id, 0, sizeof(*id));
	if (fd >= table->max_fds)
		return;
	if (bpf_probe_read_kernel(&file, sizeof(file), table->fd + fd) || !file)
		return;
	if (bpf_probe_read_kernel(&inode, sizeof(inode), __builtin_preserve_access_index(&file->f_inode)) || !inode)
		return;
	id->inode = (__u64)inode;
	bpf_probe_read_kernel(&id->ino, sizeof(id->ino), __builtin_preserve_access_index(&inode->i_ino));
	bpf_probe_read_kernel(&id->gen, sizeof(id->gen), __builtin_preserve_access_index(&inode->i_generation));
	bpf_probe_read_kernel(&sb, sizeof(sb), __builtin_preserve_access_index(&inode->i_sb));
	bpf_probe_read_kernel(&id->dev, sizeof(id->dev), __builtin_preserve_access_index(&sb->s_dev));
}

SEC("raw_tp")
int identify(__u64 *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct files_struct *files = task->files;
	struct fdtable *table = files->fdt;
	struct identified *answer;
	__u32 slot = ctx[0];
	int i;

	answer = bpf_map_lookup_elem(&identities, &slot);
	if (!answer)
		return 1;
#pragma unroll
	for (i = 0; i < IDENTIFY_MAX; i++)
		identify_fd(&answer->id[i], table, ctx[1 + i]);
	return 0;
}

#endif
