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
	unsigned long s_flags;
	unsigned long s_magic;
};

struct inode {
	__u16 i_mode;
	unsigned int i_nlink;
	struct super_block *i_sb;
	unsigned long i_ino;
	__u32 i_generation;
};

struct qstr {
	__u32 len;
	const unsigned char *name;
};

struct dentry {
	struct dentry *d_parent;
	struct qstr d_name;
	struct inode *d_inode;
	struct super_block *d_sb;
};

struct path {
	struct dentry *dentry;
};

struct file {
	__u32 f_mode;
	unsigned int f_flags;
	struct inode *f_inode;
	struct path f_path;
};

struct vm_area_struct {
	struct file *vm_file;
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
	unsigned long env_start;
	unsigned long env_end;
};

typedef struct {
	int counter;
} atomic_t;

struct signal_struct {
	atomic_t live; /* threads that have not ended */
	unsigned int flags;
};

struct user_namespace {
	int level; /* 0: the initial one */
};

struct cred;

struct kernfs_node {
	__u64 id;
};

struct cgroup {
	struct kernfs_node *kn;
};

struct css_set {
	struct cgroup *dfl_cgrp; /* in cgroup v2 */
};

struct task_struct {
	unsigned int flags;
	int pid;
	int tgid;
	__u64 start_boottime;
	struct signal_struct *signal;
	struct mm_struct *mm;
	struct files_struct *files;
	struct css_set *cgroups;
	struct task_struct *real_parent;
	const struct cred *real_cred;
	const struct cred *cred; /* another while the kernel does something for the task in somebody else's name */
};

struct linux_binprm {
	struct file *file;
	const char *filename;
	char buf[2]; /* the file's first bytes; more of them in the kernel's own */
};

struct iattr {
	unsigned int ia_valid;
};

struct sock_cgroup_data {
	struct cgroup *cgroup;
};

struct sock {
	struct sock_cgroup_data sk_cgrp_data;
};

struct socket {
	struct sock *sk;
};

struct unix_sock {
	struct path path;
};

struct pt_regs {
#if defined(__TARGET_ARCH_x86)
	unsigned long orig_ax;
#elif defined(__TARGET_ARCH_arm64)
	int syscallno;
#endif
};

#pragma clang attribute pop

#endif
