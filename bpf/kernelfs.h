/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The file systems that the kernel is configured by. No rule of a policy allows to write there, be it one on "/". */
#ifndef NEMOCLAW_KERNELFS_H
#define NEMOCLAW_KERNELFS_H

#include "kernel.h"

enum { PROC_DEPTH = 16 };

/* In proc who may write may write what is below a process: that of others is theirs by user and pid namespace. */
static __noinline int sets_kernel(struct dentry *d)
{
	char first = 0;
	int i;

	switch ((__u32)d->d_sb->s_magic) {
	case 0x9fa0: /* proc */
		break;
	case 0x62656572: /* sysfs */
	case 0x63677270: /* cgroup2 */
	case 0x27e0eb:	 /* cgroup */
	case 0xcafe4a11: /* bpf */
	case 0x64626720: /* debugfs */
	case 0x74726163: /* tracefs */
	case 0x73636673: /* securityfs */
	case 0xf97cff8c: /* selinuxfs */
	case 0x43415d53: /* smackfs */
	case 0x62656570: /* configfs */
	case 0xde5e81e4: /* efivarfs */
	case 0x42494e4d: /* binfmt_misc */
	case 0x07655821: /* resctrl */
	case 0x6165676c: /* pstore */
	case 0x6e667364: /* nfsd */
		return 1;
	default:
		return 0;
	}
	for (i = 0; i < PROC_DEPTH; i++) {
		struct dentry *up = d->d_parent;

		if (!up || up == d)
			return 1;
		if (up->d_parent == up) {
			bpf_probe_read_kernel(&first, sizeof(first), d->d_name.name);
			return first < '1' || first > '9';
		}
		d = up;
	}
	return 1;
}

#endif
