/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Tells the loader the identity that the kernel's own structures give to a file the loader has open. stat(2) can't:
 * on overlayfs and btrfs it reports other devices and numbers than the inode has.
 *
 * Run through BPF_PROG_RUN with {descriptor, which part}, in the caller's context, under RCU (so a descriptor table
 * that another thread enlarges meanwhile stays readable); the answer is 32 bits, hence the parts.
 */
#ifndef NEMOCLAW_IDENTIFY_H
#define NEMOCLAW_IDENTIFY_H

#include "subject.h"

enum part { PART_INODE_LOW, PART_INODE_HIGH, PART_INO_LOW, PART_INO_HIGH, PART_DEV, PART_GEN };

SEC("raw_tp")
int identify(__u64 *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u64 fd = ctx[0], part = ctx[1];
	struct files_struct *files = task->files;
	struct fdtable *table = files->fdt;
	struct file_id id = {};
	struct inode *inode;
	struct file *file;

	if (fd >= table->max_fds)
		return 0;
	if (bpf_probe_read_kernel(&file, sizeof(file), table->fd + fd) || !file)
		return 0;
	if (bpf_probe_read_kernel(&inode, sizeof(inode), __builtin_preserve_access_index(&file->f_inode)) || !inode)
		return 0;

	struct super_block *sb;

	id.inode = (__u64)inode;
	bpf_probe_read_kernel(&id.ino, sizeof(id.ino), __builtin_preserve_access_index(&inode->i_ino));
	bpf_probe_read_kernel(&id.gen, sizeof(id.gen), __builtin_preserve_access_index(&inode->i_generation));
	bpf_probe_read_kernel(&sb, sizeof(sb), __builtin_preserve_access_index(&inode->i_sb));
	bpf_probe_read_kernel(&id.dev, sizeof(id.dev), __builtin_preserve_access_index(&sb->s_dev));

	switch (part) {
	case PART_INODE_LOW:
		return id.inode;
	case PART_INODE_HIGH:
		return id.inode >> 32;
	case PART_INO_LOW:
		return id.ino;
	case PART_INO_HIGH:
		return id.ino >> 32;
	case PART_DEV:
		return id.dev;
	case PART_GEN:
		return id.gen;
	}
	return 0;
}

#endif
