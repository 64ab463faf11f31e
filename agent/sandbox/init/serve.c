/* SPDX-License-Identifier: Apache-2.0
 *
 * PID 1 at work: it starts what the daemon asks for, reaps everything, says how the commands it started
 * ended, and when the daemon is gone it exits, and the kernel kills the rest of its pid namespace. In a sandbox
 * that lasts it waits for the next daemon instead, and tells it what runs and what has ended meanwhile. It ignores
 * what its children do to it: a pid namespace's init gets no signal from inside that it has no handler for,
 * and SIGCHLD only makes it look for children that ended. SIGTERM counts from the host alone, where it means that the
 * machine goes down, and everybody inside got one too: PID 1 exits when it has nobody left, or the machine would wait
 * for it until it is killed.
 */
#include "init.h"

/* Commands that the daemon started; pid 0 is a free place, ENDED one whose end nobody has heard of yet. */
static struct command {
	uint32_t id;
	int pid;
	int status;
} commands[MAX_COMMANDS];

enum { ENDED = -1 };

static int connected = 1;

static struct command *find(long pid)
{
	for (int i = 0; i < MAX_COMMANDS; i++)
		if (commands[i].pid == pid)
			return &commands[i];
	return 0;
}

static void report(int fd, enum step step, long error)
{
	uint32_t words[2] = {step, (uint32_t)error};

	SYSCALL(SYS_write, fd, words, sizeof(words));
}

__attribute__((noreturn)) static void give_up(enum step step, long error)
{
	report(REPORT_FD, step, error);
	quit(127);
}

static char *skip(char *text)
{
	while (*text++)
		;
	return text;
}

/* Executes the first candidate that is there; says EACCES when one was there but may not be executed. */
__attribute__((noreturn)) static void execute(char *payload)
{
	const struct payload *head = (const struct payload *)payload;
	char *directory = payload + sizeof(*head), *candidates = skip(directory), *text = candidates;
	size_t words = (size_t)head->args + head->envs + 2;
	char **argv, **envp;
	long err, refused = 0;

	argv = (char **)SYSCALL(SYS_mmap, 0, words * sizeof(*argv), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
				-1, 0);
	if ((long)argv < 0 && (long)argv > -4096)
		give_up(STEP_EXEC, -(long)argv);
	for (uint32_t i = 0; i < head->candidates; i++)
		text = skip(text);
	for (uint32_t i = 0; i < head->args; i++, text = skip(text))
		argv[i] = text;
	envp = argv + head->args + 1;
	for (uint32_t i = 0; i < head->envs; i++, text = skip(text))
		envp[i] = text;
	err = SYSCALL(SYS_chdir, directory);
	if (err < 0)
		give_up(STEP_DIRECTORY, -err);
	for (uint32_t i = 0; i < head->candidates; i++, candidates = skip(candidates)) {
		err = -SYSCALL(SYS_execve, candidates, argv, envp);
		if (err == EACCES)
			refused = err;
		else if (err != ENOENT && err != ENOTDIR)
			break;
	}
	give_up(STEP_EXEC, refused && (err == ENOENT || err == ENOTDIR) ? refused : err);
}

__attribute__((noreturn)) static void run(const struct req_exec *req, const int *fds)
{
	uint64_t none = 0;
	char *payload;
	long err;

	/* Received descriptors are above the control socket, so nothing here overwrites one that is still
	 * needed. */
	err = SYSCALL(SYS_dup3, fds[4], REPORT_FD, O_CLOEXEC);
	if (err < 0)
		quit(127);
	payload = (char *)SYSCALL(SYS_mmap, 0, req->payload_size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fds[3], 0);
	if ((long)payload < 0 && (long)payload > -4096)
		give_up(STEP_EXEC, -(long)payload);
	for (int i = 0; i < 3; i++) {
		err = SYSCALL(SYS_dup3, fds[i], i, 0);
		if (err < 0)
			give_up(STEP_STREAMS, -err);
	}
	SYSCALL(SYS_close_range, REPORT_FD + 1, ~0U, 0);
	SYSCALL(SYS_setsid);
	if (req->tty >= 0) {
		err = SYSCALL(SYS_ioctl, req->tty, TIOCSCTTY, 0);
		if (err < 0)
			give_up(STEP_TERMINAL, -err);
	}
	SYSCALL(SYS_rt_sigprocmask, SIG_SETMASK, &none, 0, sizeof(none));
	execute(payload);
}

static void start(const struct req_exec *req, const int *fds)
{
	struct command *place = find(0);
	long pid;

	if (!place) {
		report(fds[4], STEP_TOO_MANY, EAGAIN);
	} else {
		pid = SYSCALL(SYS_clone, SIGCHLD, 0, 0, 0, 0);
		if (pid == 0)
			run(req, fds);
		if (pid < 0) {
			report(fds[4], STEP_FORK, -pid);
		} else {
			place->id = req->id;
			place->pid = (int)pid;
		}
	}
	for (int i = 0; i < 5; i++)
		SYSCALL(SYS_close, fds[i]);
}

/* Signals a command's process group, which is its session's first, or the command alone if it left that
 * group. */
static void send_signal(const struct req_signal *req)
{
	for (int i = 0; i < MAX_COMMANDS; i++) {
		int pid = commands[i].pid;

		if (pid > 0 && commands[i].id == req->id && SYSCALL(SYS_kill, -pid, req->signal) == -ESRCH)
			SYSCALL(SYS_kill, pid, req->signal);
	}
}

static void report_end(struct command *command)
{
	if (reply(RE_EXIT, command->id, (uint32_t)command->status, -1) >= 0)
		command->pid = 0;
}

/* Returns whether there are children left. */
static int reap(void)
{
	struct command *command;
	int status;
	long pid;

	while ((pid = SYSCALL(SYS_wait4, -1, &status, WNOHANG | WAIT_ALL, 0)) > 0) {
		command = find(pid);
		if (!command)
			continue; /* an orphan */
		command->pid = ENDED;
		command->status = status;
		if (connected)
			report_end(command);
	}
	return pid != -ECHILD;
}

static void disconnect(void)
{
	SYSCALL(SYS_close, CONTROL_FD);
	connected = 0;
}

/* Takes the next daemon. Its socket gets the number of the one before. */
static void connect_again(void)
{
	long fd = SYSCALL(SYS_accept4, LISTEN_FD, 0, 0, O_CLOEXEC);

	if (fd < 0)
		return; /* it is gone already */
	if (fd != CONTROL_FD) {
		SYSCALL(SYS_dup3, fd, CONTROL_FD, O_CLOEXEC);
		SYSCALL(SYS_close, fd);
	}
	connected = 1;
	for (int i = 0; i < MAX_COMMANDS; i++)
		if (commands[i].pid > 0)
			reply(RE_COMMAND, commands[i].id, 0, -1);
	for (int i = 0; i < MAX_COMMANDS; i++)
		if (commands[i].pid == ENDED)
			report_end(&commands[i]);
	reply(RE_READY, 0, 0, -1);
}

static void obey(void)
{
	static char message[256] __attribute__((aligned(8)));
	int fds[MAX_FDS], nfds;
	long n = receive(message, sizeof(message), fds, &nfds);
	uint32_t op = n >= 4 ? *(uint32_t *)message : 0;

	if (n == 0) {
		disconnect();
		return;
	}
	if (op == REQ_EXEC && n == sizeof(struct req_exec) && nfds == 5)
		start((const struct req_exec *)message, fds);
	else if (op == REQ_SIGNAL && n == sizeof(struct req_signal) && nfds == 0)
		send_signal((const struct req_signal *)message);
	else
		fail(STEP_MESSAGE, EINVAL);
}

void serve(void)
{
	uint64_t heard = 1ULL << (SIGCHLD - 1) | 1ULL << (SIGTERM - 1);
	struct signalfd_siginfo info;
	struct pollfd watch[2] = {{CONTROL_FD, POLLIN, 0}, {-1, POLLIN, 0}};
	int ending = 0;
	long fd;

	SYSCALL(SYS_rt_sigprocmask, SIG_SETMASK, &heard, 0, sizeof(heard));
	fd = SYSCALL(SYS_signalfd4, -1, &heard, sizeof(heard), O_CLOEXEC);
	if (fd < 0)
		fail(STEP_SIGNALS, -fd);
	watch[1].fd = (int)fd;
	reply(RE_READY, 0, 0, -1);
	for (;;) {
		watch[0].fd = connected ? CONTROL_FD : LISTEN_FD;
		if (SYSCALL(SYS_ppoll, watch, 2, 0, 0, 0) < 0)
			continue;
		if (watch[1].revents) {
			SYSCALL(SYS_read, fd, &info, sizeof(info));
			/* No process has the number 0 here but those outside, and SI_USER can't be forged. */
			if (info.signo == SIGTERM && info.code == SI_USER && info.pid == 0)
				ending = 1;
			if (!reap() && ending)
				quit(0);
		}
		if (watch[0].revents && connected)
			obey();
		else if (watch[0].revents)
			connect_again();
	}
}
