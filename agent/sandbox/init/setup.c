/* SPDX-License-Identifier: Apache-2.0
 *
 * What must be done inside the pid namespace, in this order: proc, sysctl, cgroup namespace, pivot, and the
 * user namespace last. So mounts, network namespace and proc belong to the host's user namespace, and nothing
 * inside can change them. After that PID 1 gives up everything and restricts itself: each command inherits
 * its restrictions, and no command can be started without them.
 */
#include "init.h"

static long move_onto(int tree, int dir, const char *path)
{
	return SYSCALL(SYS_move_mount, tree, "", dir, path, MOVE_MOUNT_F_EMPTY_PATH);
}

/* A new file system of a kind that needs no device; a negative errno when it can't be had. */
static long new_mount(const char *type, uint64_t attributes)
{
	long fs = SYSCALL(SYS_fsopen, type, FSOPEN_CLOEXEC);
	long err;

	if (fs < 0)
		return fs;
	err = SYSCALL(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, 0, 0, 0);
	if (err >= 0)
		err = SYSCALL(SYS_fsmount, fs, FSMOUNT_CLOEXEC, attributes);
	SYSCALL(SYS_close, fs);
	return err;
}

/* Hides files of proc behind the view's own /dev/null, and directories behind an empty one. */
static void mask_proc(int root, int proc, const char *mask, const char *end)
{
	while (mask < end) {
		struct mount_attr attr = {
		    .attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC,
		};
		long tree, err;

		if (*mask == 'd')
			tree = new_mount("tmpfs", MOUNT_ATTR_NODEV);
		else
			tree = SYSCALL(SYS_open_tree, root, "dev/null", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
		err = tree;
		if (err >= 0)
			err = SYSCALL(SYS_mount_setattr, tree, "", AT_EMPTY_PATH, &attr, sizeof(attr));
		if (err >= 0)
			err = move_onto((int)tree, proc, mask + 1);
		if (err < 0)
			fail(STEP_PROC_MASK, -err);
		SYSCALL(SYS_close, tree);
		while (*mask++)
			;
	}
}

static void forbid_executable_memfds(int proc)
{
	long fd = SYSCALL(SYS_openat, proc, "sys/vm/memfd_noexec", O_WRONLY | O_CLOEXEC, 0);
	long n = fd;

	if (fd >= 0)
		n = SYSCALL(SYS_write, fd, "2", 1);
	if (n < 0)
		fail(STEP_MEMFD_NOEXEC, -n);
	SYSCALL(SYS_close, fd);
}

/* Returns proc's mount. It is made here because proc shows the pid namespace of whoever makes it. */
static int mount_proc(const struct req_init *req, int root)
{
	/* Who may write there at all needs a mount that lets it. */
	uint64_t attributes = req->proc_access & LANDLOCK_ACCESS_FS_WRITE_FILE ? 0 : MOUNT_ATTR_RDONLY;
	struct mount_attr readonly = {.attr_set = attributes};
	long proc = new_mount("proc", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
	long err;

	if (proc < 0)
		fail(STEP_PROC, -proc);
	if (!req->memfd_exec)
		forbid_executable_memfds((int)proc);
	err = SYSCALL(SYS_mount_setattr, proc, "", AT_EMPTY_PATH, &readonly, sizeof(readonly));
	if (err >= 0)
		err = move_onto((int)proc, root, "proc");
	if (err < 0)
		fail(STEP_PROC_MOUNT, -err);
	return (int)proc;
}

/* The view's proc did not exist when the daemon made the ruleset. */
static void allow_proc(int ruleset, int proc, uint64_t access)
{
	struct landlock_path_beneath_attr attr = {access, proc};
	long err;

	if (!access)
		return;
	err = SYSCALL(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &attr, 0);
	if (err < 0)
		fail(STEP_LANDLOCK, -err);
}

static void set_limits(uint64_t nofile)
{
	/* 1 and not 0: it is what stops a host's core_pattern pipe from being started by a crash inside. */
	struct rlimit64 core = {1, 1}, files = {nofile, nofile};
	long err = SYSCALL(SYS_prlimit64, 0, RLIMIT_CORE, &core, 0);

	if (err >= 0 && nofile)
		err = SYSCALL(SYS_prlimit64, 0, RLIMIT_NOFILE, &files, 0);
	if (err < 0)
		fail(STEP_LIMITS, -err);
}

/* The old root is stacked below the new one at "." and taken away as a whole. */
static void enter_root(int root)
{
	long err = SYSCALL(SYS_fchdir, root);

	if (err >= 0)
		err = SYSCALL(SYS_pivot_root, ".", ".");
	if (err >= 0)
		err = SYSCALL(SYS_umount2, ".", MNT_DETACH);
	if (err >= 0)
		err = SYSCALL(SYS_chdir, "/");
	if (err < 0)
		fail(STEP_PIVOT, -err);
}

/*
 * What the kernel counts per user (inotify instances, ...) is charged to the namespace's owner as well. It is not root, or
 * a sandbox could use up what root has. The capabilities stay: hosts ask for them where user namespaces are restricted.
 */
static void enter_user_namespace(uint32_t owner)
{
	struct req_mapped req;
	int fds[MAX_FDS], nfds;
	long err = SYSCALL(SYS_prctl, PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0);

	if (err >= 0)
		err = SYSCALL(SYS_setresuid, -1, owner, -1);
	if (err >= 0)
		err = SYSCALL(SYS_unshare, CLONE_NEWUSER);
	if (err < 0)
		fail(STEP_USER_NS, -err);
	reply(RE_USERNS, 0, 0, -1);
	if (receive(&req, sizeof(req), fds, &nfds) != sizeof(req) || req.op != REQ_MAPPED)
		fail(STEP_MESSAGE, EINVAL);
}

static void drop_privileges(uint32_t id)
{
	struct {
		uint32_t version;
		int pid;
	} head = {CAPABILITY_VERSION_3, 0};
	uint32_t none[6] = {0};
	long err;

	err = SYSCALL(SYS_setresgid, id, id, id);
	if (err >= 0)
		err = SYSCALL(SYS_setresuid, id, id, id);
	if (err < 0)
		fail(STEP_IDS, -err);
	err = SYSCALL(SYS_prctl, PR_SET_SECUREBITS, SECUREBITS_LOCKED, 0, 0, 0);
	for (long cap = 0; err >= 0; cap++)
		err = SYSCALL(SYS_prctl, PR_CAPBSET_DROP, cap, 0, 0, 0);
	if (err == -EINVAL) /* past the last capability */
		err = SYSCALL(SYS_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	if (err >= 0)
		err = SYSCALL(SYS_capset, &head, none);
	if (err >= 0)
		err = SYSCALL(SYS_prctl, PR_SET_DUMPABLE, 0, 0, 0, 0);
	if (err >= 0)
		err = SYSCALL(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	if (err < 0)
		fail(STEP_CAPABILITIES, -err);
}

static void reset_signals(void)
{
	struct sigaction standard = {0};
	uint64_t none = 0;

	for (int i = 1; i <= SIGNALS; i++)
		SYSCALL(SYS_rt_sigaction, i, &standard, 0, sizeof(none)); /* SIGKILL and SIGSTOP refuse: as they are */
	SYSCALL(SYS_rt_sigprocmask, SIG_SETMASK, &none, 0, sizeof(none));
}

/*
 * Says who listens, for the daemon that connects: the kernel takes it from whoever calls listen. Descriptors below are
 * taken, so the number is free once the others are closed.
 */
static void keep_listening(int fd)
{
	long err = SYSCALL(SYS_listen, fd, 1);

	if (err >= 0 && fd != LISTEN_FD)
		err = SYSCALL(SYS_dup3, fd, LISTEN_FD, O_CLOEXEC);
	if (err >= 0)
		err = SYSCALL(SYS_close_range, LISTEN_FD + 1, ~0U, 0);
	if (err < 0)
		fail(STEP_LISTEN, -err);
	lasting = 1;
}

void set_up(const struct req_init *req, const int *fds, int listener)
{
	int root = fds[1], ruleset = fds[2], proc;
	const char *filter = (const char *)(req + 1);
	const char *masks = filter + (size_t)req->filter_len * 8;
	struct sock_fprog program = {(uint16_t)req->filter_len, filter};
	uint32_t id = req->id, landlock_flags = req->landlock_flags, owner = req->owner;
	long err;

	reset_signals();
	SYSCALL(SYS_setsid); /* leaves the daemon's session, and with it its terminal */
	SYSCALL(SYS_umask, 022);
	proc = mount_proc(req, root);
	mask_proc(root, proc, masks, masks + req->masks_len);
	allow_proc(ruleset, proc, req->proc_access);
	set_limits(req->nofile);
	SYSCALL(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0); /* leaves root's; ENOSYS: there are none */
	SYSCALL(SYS_setgroups, 0, 0);
	err = SYSCALL(SYS_unshare, CLONE_NEWCGROUP);
	if (err < 0)
		fail(STEP_CGROUP_NS, -err);
	enter_root(root);
	enter_user_namespace(owner);
	drop_privileges(id);
	err = SYSCALL(SYS_landlock_restrict_self, ruleset, landlock_flags);
	if (err < 0)
		fail(STEP_LANDLOCK, -err);
	err = SYSCALL(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program);
	if (err < 0)
		fail(STEP_SECCOMP, -err);
	if (listener >= 0)
		keep_listening(listener);
	else
		SYSCALL(SYS_close_range, CONTROL_FD + 1, ~0U, 0);
}
