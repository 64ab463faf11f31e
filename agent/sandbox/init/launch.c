/* SPDX-License-Identifier: Apache-2.0
 *
 * The init's first stage. The daemon starts it as host root in the sandbox's mount, network, ipc and uts
 * namespaces, outside the sandbox's cgroup and pid namespace. It makes user namespaces for idmapped mounts
 * while the daemon composes the view, and when that is done clones PID 1 straight into both. PID 1 never
 * executes a file itself: the exec guard of the cgroup needs no exception for it.
 */
#include "init.h"

/* Clang turns loops and assignments into calls of these. */
void *memset(void *to, int byte, size_t n)
{
	char *p = to;

	while (n--)
		*p++ = (char)byte;
	return to;
}

void *memcpy(void *to, const void *from, size_t n)
{
	char *p = to;
	const char *q = from;

	while (n--)
		*p++ = *q++;
	return to;
}

int lasting;

void quit(int status)
{
	for (;;)
		SYSCALL(SYS_exit_group, status);
}

struct rights {
	struct cmsghdr head;
	int fds[MAX_FDS + 1]; /* one more keeps the size a multiple of 8 */
};

/* Reads one message; an end of file means that the daemon is gone, and so goes the sandbox, unless it lasts: then 0. */
long receive(void *buf, size_t size, int *fds, int *nfds)
{
	struct rights rights;
	struct iovec iov = {buf, size};
	struct msghdr msg = {.iov = &iov, .iov_len = 1, .control = &rights, .control_len = sizeof(rights)};
	long n;

	do
		n = SYSCALL(SYS_recvmsg, CONTROL_FD, &msg, MSG_CMSG_CLOEXEC);
	while (n == -EINTR);
	if (n <= 0 && lasting)
		return 0;
	if (n <= 0)
		quit(0);
	if (msg.flags & (MSG_TRUNC | MSG_CTRUNC))
		fail(STEP_MESSAGE, E2BIG);
	*nfds = 0;
	if (msg.control_len >= sizeof(struct cmsghdr) && rights.head.level == SOL_SOCKET &&
	    rights.head.type == SCM_RIGHTS) {
		*nfds = (int)((rights.head.len - sizeof(struct cmsghdr)) / sizeof(int));
		for (int i = 0; i < *nfds && i < MAX_FDS; i++)
			fds[i] = rights.fds[i];
	}
	return n;
}

/* Sends one reply, with a descriptor when fd >= 0. A daemon that does not listen any more is gone; a sandbox that lasts
 * says it again to the next one. */
long reply(uint32_t op, uint32_t a, uint32_t b, int fd)
{
	struct reply_msg body = {op, a, b};
	struct rights rights = {{sizeof(struct cmsghdr) + sizeof(int), SOL_SOCKET, SCM_RIGHTS}, {fd}};
	struct iovec iov = {&body, sizeof(body)};
	struct msghdr msg = {.iov = &iov, .iov_len = 1};
	long n;

	if (fd >= 0) {
		msg.control = &rights;
		msg.control_len = sizeof(struct cmsghdr) + 8;
	}
	do
		n = SYSCALL(SYS_sendmsg, CONTROL_FD, &msg, MSG_NOSIGNAL);
	while (n == -EINTR);
	if (n < 0 && !lasting)
		quit(1);
	return n;
}

void fail(enum step step, long error)
{
	reply(RE_ERROR, step, (uint32_t)error, -1);
	quit(1);
}

static char *put_text(char *to, const char *text)
{
	while (*text)
		*to++ = *text++;
	*to = 0;
	return to;
}

static char *put_number(char *to, uint32_t n)
{
	char digits[10];
	int len = 0;

	do
		digits[len++] = (char)('0' + n % 10);
	while (n /= 10);
	while (len)
		*to++ = digits[--len];
	*to = 0;
	return to;
}

static char *put_proc_path(char *to, long pid, const char *file)
{
	return put_text(put_number(put_text(to, "/proc/"), (uint32_t)pid), file);
}

static long write_map(long pid, const char *file, uint32_t disk, uint32_t host)
{
	char path[48], line[48], *end;
	long fd, n;

	put_proc_path(path, pid, file);
	fd = SYSCALL(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CLOEXEC, 0);
	if (fd < 0)
		return fd;
	end = put_text(put_number(put_text(put_number(line, disk), " "), host), " 1\n");
	n = SYSCALL(SYS_write, fd, line, end - line);
	SYSCALL(SYS_close, fd);
	return n < 0 ? n : 0;
}

/* A user namespace lives as long as a process in it or a descriptor of it: a child waits inside until it is
 * opened. */
static void make_idmap(const struct req_idmap *req)
{
	char path[48], byte;
	int hold[2];
	long pid, err, ns;

	if (SYSCALL(SYS_pipe2, hold, O_CLOEXEC) < 0)
		fail(STEP_IDMAP_CLONE, EAGAIN);
	pid = SYSCALL(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
	if (pid < 0)
		fail(STEP_IDMAP_CLONE, -pid);
	if (pid == 0) {
		SYSCALL(SYS_close, hold[1]);
		SYSCALL(SYS_read, hold[0], &byte, 1); /* end of file: not needed any more, or the parent was killed */
		quit(0);
	}
	err = write_map(pid, "/uid_map", req->disk_uid, req->host_uid);
	if (!err)
		err = write_map(pid, "/gid_map", req->disk_gid, req->host_gid);
	if (err)
		fail(STEP_IDMAP_WRITE, -err);
	put_proc_path(path, pid, "/ns/user");
	ns = SYSCALL(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
	if (ns < 0)
		fail(STEP_IDMAP_OPEN, -ns);
	reply(RE_IDMAP, 0, 0, (int)ns);
	SYSCALL(SYS_close, ns);
	SYSCALL(SYS_close, hold[0]);
	SYSCALL(SYS_close, hold[1]);
	SYSCALL(SYS_wait4, pid, 0, WAIT_ALL, 0);
}

/* PID 1 is the daemon's own child (CLONE_PARENT), so that the daemon can wait for it once this process is
 * gone. */
static void become_init(const struct req_init *req, const int *fds, int nfds)
{
	int pidfd = -1;
	struct clone_args args = {
	    .flags = CLONE_NEWPID | CLONE_PARENT | CLONE_PIDFD | CLONE_INTO_CGROUP,
	    .pidfd = (uint64_t)&pidfd,
	    .cgroup = (uint64_t)fds[0],
	};
	long pid = SYSCALL(SYS_clone3, &args, sizeof(args));

	if (pid < 0)
		fail(STEP_CLONE, -pid);
	if (pid > 0) {
		reply(RE_PID, (uint32_t)pid, 0, pidfd);
		quit(0);
	}
	set_up(req, fds, nfds > 3 ? fds[3] : -1);
	serve();
}

static void check_init(const struct req_init *req, long n, int nfds)
{
	uint64_t want = sizeof(*req) + (uint64_t)req->filter_len * 8 + req->masks_len;

	if (n < (long)sizeof(*req) || nfds < 3 || nfds > 4 || (uint64_t)n != want)
		fail(STEP_MESSAGE, EINVAL);
}

/* Static, and as large as the largest message: a stack stays small and a message needs no copy. */
static char message[MAX_MESSAGE] __attribute__((aligned(8)));

__attribute__((noreturn, used)) void launch(void)
{
	int fds[MAX_FDS], nfds;

	/* Whatever the daemon itself inherited without close-on-exec. */
	SYSCALL(SYS_close_range, CONTROL_FD + 1, ~0U, 0);
	for (;;) {
		long n = receive(message, sizeof(message), fds, &nfds);
		uint32_t op = n >= 4 ? *(uint32_t *)message : 0;

		if (op == REQ_IDMAP && n == sizeof(struct req_idmap) && nfds == 0) {
			make_idmap((const struct req_idmap *)message);
		} else if (op == REQ_INIT) {
			check_init((const struct req_init *)message, n, nfds);
			become_init((const struct req_init *)message, fds, nfds);
		} else {
			fail(STEP_MESSAGE, EINVAL);
		}
	}
}

/* The kernel enters with an aligned stack pointer and nothing else worth having. */
#if defined(__x86_64__)
__asm__(".globl _start\n_start:\n\txor %ebp, %ebp\n\tcall launch\n");
#else
__asm__(".globl _start\n_start:\n\tmov x29, #0\n\tmov x30, #0\n\tbl launch\n");
#endif
