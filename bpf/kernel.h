/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The few kernel structures that the programs read, and of each only the fields they read. CO-RE finds the real
 * offsets in the running kernel's BTF at load, so neither a vmlinux.h nor bpftool is needed.
 *
 * Follow pointers with plain loads, not with BPF_CORE_READ: they are about five times cheaper in a dentry walk,
 * and the kernel turns a load through a bad pointer into zero.
 */
#ifndef NEMOCLAW_KERNEL_H
#define NEMOCLAW_KERNEL_H

#include "uapi.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct super_block {
	__u32 s_dev; /* major << 20 | minor, the kernel's own encoding */
};

struct inode {
	struct super_block *i_sb;
	unsigned long i_ino;
	__u32 i_generation;
};

struct dentry {
	struct dentry *d_parent;
	struct inode *d_inode;
};

struct path {
	struct dentry *dentry;
};

struct file {
	struct inode *f_inode;
	struct path f_path;
};

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};

struct files_struct {
	struct fdtable *fdt;
};

struct mm_struct {
	struct file *exe_file;
	unsigned long arg_start;
	unsigned long arg_end;
};

struct task_struct {
	int tgid;
	struct mm_struct *mm;
	struct files_struct *files;
	struct task_struct *real_parent;
};

struct linux_binprm {
	const char *filename;
};

#pragma clang attribute pop

#endif
