/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * LSM hooks on files. Which hook sees which operation: shared/reference lists it per kernel; the path_* hooks are
 * chosen over inode_* where both fire, because a file system of two layers calls only the latter on its layers.
 *
 * Inside, what is not judged here by its rules is not judged at all: stat(2) and what is read or written through a
 * descriptor that was opened when it was allowed.
 */
#ifndef NEMOCLAW_LSMFILE_H
#define NEMOCLAW_LSMFILE_H

#include "judgefiles.h"

enum {
	FIONREAD = 0x541b,
	FIONBIO = 0x5421,
	FIOCLEX = 0x5451,
	FIONCLEX = 0x5450,
	FIOASYNC = 0x5452,
	TCGETS = 0x5401,
	TIOCGWINSZ = 0x5413,
	FIGETBSZ = 2,
	FS_IOC_GETFLAGS = 0x80086601,
	FS_IOC_FIEMAP = 0xc020660b,
	FICLONE = 0x40049409,
	FICLONERANGE = 0x4020940d,
};

/* What the modes of an open file let its holder do. */
static __always_inline __u32 wanted(const struct file *file, const struct inode *inode)
{
	__u32 mode = file->f_mode, want = 0;

	if ((inode->i_mode & S_IFMT) == S_IFDIR)
		return ACCESS_LIST;
	if (mode & FMODE_READ || !(mode & FMODE_WRITE))
		want |= ACCESS_READ;
	if (mode & FMODE_WRITE || file->f_flags & O_TRUNC)
		want |= ACCESS_WRITE;
	return want;
}

/* That, or a layer of a file that is judged by itself. */
static __always_inline int unjudged(const struct file *file, const struct inode *inode)
{
	return file->f_mode & (FMODE_BACKING | FMODE_NOACCOUNT) || nowhere(inode->i_sb);
}

SEC("lsm/file_open")
int file_open(__u64 *ctx)
{
	struct file *file = (void *)ctx[0];
	struct inode *inode;

	if (outside())
		return 0;
	inode = file->f_inode;
	/* What execve opens is judged at bprm_check_security, when it is known what for; a new file where it was made. */
	if (file->f_flags & FMODE_EXEC || file->f_mode & FMODE_CREATED || unjudged(file, inode))
		return 0;
	return judge(file->f_path.dentry, OP_OPEN, wanted(file, inode));
}

SEC("lsm/file_receive")
int file_receive(__u64 *ctx)
{
	struct file *file = (void *)ctx[0];
	struct inode *inode;
	__u32 kind;

	if (outside() || is_init())
		return 0;
	inode = file->f_inode;
	kind = inode->i_mode & S_IFMT;
	if (unjudged(file, inode) || (kind != S_IFREG && kind != S_IFDIR && kind != S_IFBLK && kind != S_IFCHR))
		return 0;
	return judge(file->f_path.dentry, OP_RECEIVE, wanted(file, inode));
}

SEC("lsm/path_mknod")
int path_mknod(__u64 *ctx)
{
	return outside() ? 0 : judge((void *)ctx[1], OP_CREATE, ACCESS_WRITE);
}

SEC("lsm/path_mkdir")
int path_mkdir(__u64 *ctx)
{
	return outside() ? 0 : judge((void *)ctx[1], OP_CREATE, ACCESS_WRITE);
}

SEC("lsm/path_symlink")
int path_symlink(__u64 *ctx)
{
	return outside() ? 0 : judge((void *)ctx[1], OP_CREATE, ACCESS_WRITE);
}

/* chmod, chown, utimensat, truncate and ftruncate. */
static __always_inline int set_attributes(struct dentry *d, struct iattr *attributes)
{
	if (attributes->ia_valid & ATTR_OPEN)
		return 0; /* by open(2) with O_TRUNC, which was judged by it: an answer for once is used up */
	return judge(d, attributes->ia_valid & ATTR_SIZE ? OP_TRUNCATE : OP_ATTRIBUTES, ACCESS_WRITE);
}

SEC("lsm/inode_setattr")
int inode_setattr(__u64 *ctx)
{
	return outside() ? 0 : set_attributes((void *)ctx[1], (void *)ctx[2]);
}

/* The same before Linux 6.9. The loader takes one of the two. */
SEC("lsm/inode_setattr")
int inode_setattr_2(__u64 *ctx)
{
	return outside() ? 0 : set_attributes((void *)ctx[0], (void *)ctx[1]);
}

SEC("lsm/inode_setxattr")
int inode_setxattr(__u64 *ctx)
{
	return outside() ? 0 : judge((void *)ctx[1], OP_ATTRIBUTES, ACCESS_WRITE);
}

SEC("lsm/inode_removexattr")
int inode_removexattr(__u64 *ctx)
{
	return outside() ? 0 : judge((void *)ctx[1], OP_ATTRIBUTES, ACCESS_WRITE);
}

/* ACLs have hooks of their own since Linux 6.2; before that they are attributes like others, and these are not loaded. */
SEC("lsm/inode_set_acl")
int inode_set_acl(__u64 *ctx)
{
	return outside() ? 0 : judge((void *)ctx[1], OP_ATTRIBUTES, ACCESS_WRITE);
}

SEC("lsm/inode_remove_acl")
int inode_remove_acl(__u64 *ctx)
{
	return outside() ? 0 : judge((void *)ctx[1], OP_ATTRIBUTES, ACCESS_WRITE);
}

SEC("lsm/path_notify")
int path_notify(__u64 *ctx)
{
	struct path *path = (void *)ctx[0];

	/* What may only be read is the host's own: who watches it learns what others do there. */
	return outside() ? 0 : judge(path->dentry, OP_WATCH, ACCESS_WRITE);
}

SEC("lsm/path_chroot")
int path_chroot(__u64 *ctx)
{
	struct path *path = (void *)ctx[0];
	struct sandbox *box;
	struct refusal r;
	int verdict;

	if (outside())
		return 0;
	box = begin(&r, OP_ROOT, 0, &verdict);
	return box ? refuse(&r, box, path->dentry, REASON_RULE, EPERM) : verdict;
}

SEC("lsm/file_lock")
int file_lock(__u64 *ctx)
{
	struct file *file = (void *)ctx[0];

	/* fcntl(2) wants a descriptor to write with; flock(2) does not. */
	if (outside() || (__u32)ctx[1] != F_WRLCK || file->f_mode & FMODE_WRITE || unjudged(file, file->f_inode))
		return 0;
	return judge(file->f_path.dentry, OP_LOCK, ACCESS_WRITE);
}

/* What only reads, or says something of the descriptor. */
static __always_inline int harmless(__u32 command)
{
	return command == FIONREAD || command == FIONBIO || command == FIOCLEX || command == FIONCLEX ||
	       command == FIOASYNC || command == FIGETBSZ || command == FS_IOC_GETFLAGS || command == FS_IOC_FIEMAP ||
	       command == FICLONE || command == FICLONERANGE || command == TCGETS || command == TIOCGWINSZ;
}

SEC("lsm/file_ioctl")
int file_ioctl(__u64 *ctx)
{
	struct file *file = (void *)ctx[0];
	struct inode *inode;
	__u32 kind;

	if (outside())
		return 0;
	inode = file->f_inode;
	kind = inode->i_mode & S_IFMT;
	/* Devices are the device program's affair. FICLONE wants a descriptor to write with. */
	if ((kind != S_IFREG && kind != S_IFDIR) || harmless(ctx[1]) || unjudged(file, inode))
		return 0;
	return judge(file->f_path.dentry, OP_CONTROL, ACCESS_WRITE);
}

#endif
