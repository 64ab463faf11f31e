/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What the rules do not allow, a person may: by a grant, or by the answer to this very call, which waits for it.
 *
 * To wait, the process is stopped and the hook returns -ERESTARTNOINTR: the kernel stops the task on its way out of
 * the call, and when it goes on makes the same call again, which is judged anew. Nothing is between check and use, and
 * the task holds no lock meanwhile. All its threads stop. Whoever makes it go on without an answer, from inside or to
 * answer another thread, gains nothing: it is judged, has no answer, and stops again; in the end it is refused. A parent
 * that waits with WUNTRACED, as a shell with job control does, sees the stop.
 *
 * Only calls are held that do nothing before they are judged, made by a task that returns to its program. Elsewhere
 * asking means to refuse and to record: the caller can try again when there is a grant.
 */
#ifndef NEMOCLAW_HOLD_H
#define NEMOCLAW_HOLD_H

#include "fileevent.h"

#define ERESTARTNOINTR 513

HASH(file_grants, struct file_grant_key, struct grant, MAX_FILE_GRANTS);

/* When they are full nothing more is held. The agent removes the entries of tasks that died. */
HASH(pending, struct held_key, struct held, MAX_PENDING);
HASH(answers, struct call_key, struct call_answer, MAX_PENDING);

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, RINGS);
	__type(key, __u32);
	__type(value, struct lease);
} leases SEC(".maps");

enum { JUDGED_MAX = 8 }; /* how often a call may be made to go on without an answer */
enum { PF_EXITING = 4, PF_IO_WORKER = 0x10, SIGNAL_UNKILLABLE = 0x40 };

/* Operations whose hook is one at which a restart is clean. Others never ask by these numbers. */
enum {
	HOLDABLE = 1 << OP_OPEN | 1 << OP_CREATE | 1 << OP_REMOVE | 1 << OP_RENAME | 1 << OP_LINK | 1 << OP_EXECUTE |
		   1 << OP_WATCH
};

#if defined(__TARGET_ARCH_x86)
enum {
	NR_OPEN = 2,
	NR_BIND = 49,
	NR_EXECVE = 59,
	NR_RENAME = 82,
	NR_MKDIR = 83,
	NR_RMDIR = 84,
	NR_CREAT = 85,
	NR_LINK = 86,
	NR_UNLINK = 87,
	NR_SYMLINK = 88,
	NR_MKNOD = 133,
	NR_INOTIFY_ADD_WATCH = 254,
	NR_OPENAT = 257,
	NR_MKDIRAT = 258,
	NR_MKNODAT = 259,
	NR_UNLINKAT = 263,
	NR_RENAMEAT = 264,
	NR_LINKAT = 265,
	NR_SYMLINKAT = 266,
	NR_OPEN_BY_HANDLE_AT = 304,
	NR_RENAMEAT2 = 316,
	NR_EXECVEAT = 322,
	NR_OPENAT2 = 437,
};
#define system_call(regs) ((long)(regs)->orig_ax)
#elif defined(__TARGET_ARCH_arm64)
enum {
	NR_INOTIFY_ADD_WATCH = 27,
	NR_MKNODAT = 33,
	NR_MKDIRAT = 34,
	NR_UNLINKAT = 35,
	NR_SYMLINKAT = 36,
	NR_LINKAT = 37,
	NR_RENAMEAT = 38,
	NR_OPENAT = 56,
	NR_BIND = 200,
	NR_EXECVE = 221,
	NR_OPEN_BY_HANDLE_AT = 265,
	NR_RENAMEAT2 = 276,
	NR_EXECVEAT = 281,
	NR_OPENAT2 = 437,
};
#define system_call(regs) ((long)(regs)->syscallno)
#endif

/* Whether a system call can be made again. What a file is opened for otherwise (io_uring, a core dump, acct) is none. */
static __always_inline int restarts(long nr)
{
	switch (nr) {
#if defined(__TARGET_ARCH_x86)
	case NR_OPEN:
	case NR_CREAT:
	case NR_RENAME:
	case NR_MKDIR:
	case NR_RMDIR:
	case NR_LINK:
	case NR_UNLINK:
	case NR_SYMLINK:
	case NR_MKNOD:
#endif
	case NR_BIND:
	case NR_EXECVE:
	case NR_INOTIFY_ADD_WATCH:
	case NR_OPENAT:
	case NR_MKDIRAT:
	case NR_MKNODAT:
	case NR_UNLINKAT:
	case NR_RENAMEAT:
	case NR_LINKAT:
	case NR_SYMLINKAT:
	case NR_OPEN_BY_HANDLE_AT:
	case NR_RENAMEAT2:
	case NR_EXECVEAT:
	case NR_OPENAT2:
		return 1;
	}
	return 0;
}

/* Names what is asked. Returns 0 when the name is too long to be given to anybody. */
static __noinline int ask_of(struct held_key *key, struct refusal *r, struct dentry *d)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct inode *inode;
	struct place p = {};
	int named = 1;

	memset(key, 0, sizeof(*key));
	key->started = task->start_boottime;
	key->tid = task->pid;
	key->op = r->op;
	key->what.cgid = r->query.place.cgid;
	key->what.access = r->answer.missing;
	if (exists(d)) {
		inode = d->d_inode;
	} else {
		inode = d->d_parent->d_inode;
		named = d->d_name.len < sizeof(key->what.name) &&
			bpf_probe_read_kernel_str(key->what.name, sizeof(key->what.name), d->d_name.name) > 0;
	}
	if (!inode)
		return 0;
	place_inode(&p, inode);
	key->what.ino = p.ino;
	key->what.dev = p.dev;
	key->what.gen = p.gen;
	return named;
}

/* Takes a grant into r->answer. Returns 1 when there is one. A use of it uses up what was for once. */
static __noinline int grant_of(struct refusal *r, const struct held_key *ask, int anybody, int use)
{
	struct file_grant_key key = {.what = ask->what};
	struct subject s;
	struct grant *g;

	if (!anybody) {
		subject_of(&s, bpf_get_current_task_btf());
		key.exe = s.exe;
	}
	g = bpf_map_lookup_elem(&file_grants, &key);
	if (!g || (g->expires && g->expires <= r->query.now))
		return 0;
	/* Of two who meet the same once-grant, the one whose delete succeeds has it. */
	if (use && g->once && bpf_map_delete_elem(&file_grants, &key))
		return 0;
	r->answer.rule = g->rule;
	r->answer.verdict = g->verdict;
	return 1;
}

enum { NOBODY, A_GRANT, THE_CALL };

/* Finds the answer to the very call, if there is one. */
static __always_inline struct call_answer *answer_of(struct call_key *key, const struct held_key *ask,
						     const struct held *p)
{
	key->cgid = ask->what.cgid;
	key->started = ask->started;
	key->asked = p->asked;
	key->tid = ask->tid;
	key->zero = 0;
	return bpf_map_lookup_elem(&answers, key);
}

/* Takes the answer to the very call into r->answer, and with use away. Returns 0 when there is none. */
static __noinline int call_answered(struct refusal *r, const struct held_key *ask, const struct held *p, int use)
{
	struct call_key key;
	struct call_answer *a = answer_of(&key, ask, p);

	if (!a)
		return 0;
	r->answer.verdict = a->verdict;
	if (!use) {
		a->seen = 1;
		return 1;
	}
	/* In this order: while the call is pending its answer is not there only when the call has taken it. */
	bpf_map_delete_elem(&answers, &key);
	bpf_map_delete_elem(&pending, ask);
	return 1;
}

/* Looks for an answer, into r->answer. Says what answered. */
static __noinline int answered(struct refusal *r, const struct held_key *ask, int use)
{
	struct held *p = bpf_map_lookup_elem(&pending, ask);

	if (p && call_answered(r, ask, p, use))
		return THE_CALL;
	if (!grant_of(r, ask, 0, use) && !grant_of(r, ask, 1, use))
		return NOBODY;
	if (!p)
		return A_GRANT;
	if (use)
		bpf_map_delete_elem(&pending, ask);
	return THE_CALL;
}

/* A rule that denies is no question, whoever has answered it before. What no rule says can be granted. */
static __always_inline int final(const struct file_answer *a)
{
	return a->verdict == DENY && a->rule != RULE_DEFAULT;
}

static __always_inline int deny(struct refusal *r, struct sandbox *box, struct dentry *d)
{
	report(r, box, d, NULL, 0);
	return -EACCES;
}

/* Whether a person allows d, beside which something else is asked: looks, and uses nothing up. */
static __noinline int consented(struct refusal *r, struct dentry *d)
{
	struct held_key ask;

	return ask_of(&ask, r, d) && answered(r, &ask, 0) && r->answer.verdict == ALLOW;
}

/* Drops the answer for d: the call has failed because of what else it needs. */
static __noinline int forget(struct refusal *r, struct dentry *d)
{
	struct held_key ask;
	struct held *p = ask_of(&ask, r, d) ? bpf_map_lookup_elem(&pending, &ask) : NULL;

	return p ? call_answered(r, &ask, p, 1) : 0;
}

static __always_inline struct lease *lease_of(const struct sandbox *box, __u64 now)
{
	__u32 index = box->ring;
	struct lease *l = bpf_map_lookup_elem(&leases, &index);

	return l && l->owner == box->owner && now < l->until ? l : NULL;
}

/* The first process of a pid namespace: a sandbox's init, which is ours and hands on what the agent gives it. */
static __always_inline int is_init(void)
{
	struct task_struct *task = bpf_get_current_task_btf();

	return task->signal->flags & SIGNAL_UNKILLABLE;
}

/* Whether the current task can be stopped and made to call again. An init would stop all of its sandbox. */
static __always_inline int stoppable(void)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct pt_regs *regs = bpf_task_pt_regs(task);

	return !(task->flags & (PF_EXITING | PF_IO_WORKER)) && !is_init() && restarts(system_call(regs));
}

/* Stops a call that waits already and was made to go on without an answer. Returns 0 when that was too often. */
static __always_inline int wait_again(struct held *p, struct lease *l)
{
	if (!l)
		return 0;
	if (p->signals != l->signals) {
		p->signals = l->signals;
		p->judged = 0;
	}
	return p->judged++ < JUDGED_MAX && stop();
}

/* Enters a call that is to wait, in a frame of its own: hold needs the stack. Returns 0 when there is no room. */
static __noinline int enter(const struct held_key *ask, const struct lease *l, __u64 now)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct held fresh = {.asked = now, .pid = task->tgid, .signals = l->signals};

	return !bpf_map_update_elem(&pending, ask, &fresh, BPF_NOEXIST);
}

/* Asks. Returns what the hook answers. */
static __noinline int hold(struct refusal *r, struct sandbox *box, struct dentry *d, const struct held_key *ask)
{
	struct lease *l = lease_of(box, r->query.now);
	struct held *p = bpf_map_lookup_elem(&pending, ask);
	int waits;

	if (p) {
		if (wait_again(p, l))
			return -ERESTARTNOINTR;
		r->answer.verdict = DENY;
		r->reason = REASON_RESUMED;
		report(r, box, d, ask, p->asked);
		bpf_map_delete_elem(&pending, ask);
		return -EACCES;
	}
	waits = l && stoppable() && enter(ask, l, r->query.now);
	if (report(r, box, d, ask, waits ? r->query.now : 0))
		return -ERESTARTNOINTR;
	if (waits)
		bpf_map_delete_elem(&pending, ask);
	return -EACCES;
}

/* Ends a judgement that r->answer has not allowed by the rules. Returns what the hook answers. */
static __noinline int settle(struct refusal *r, struct sandbox *box, struct dentry *d)
{
	struct held_key ask;
	int named = ask_of(&ask, r, d);
	int who;

	if (final(&r->answer))
		return deny(r, box, d);
	who = named ? answered(r, &ask, 1) : NOBODY;
	if (who != NOBODY && r->answer.verdict == ALLOW)
		return 0;
	if (who == THE_CALL)
		return -EACCES; /* its record is the one of the question */
	if (who == NOBODY && named && r->answer.verdict == ASK && box->hold && HOLDABLE >> r->op & 1)
		return hold(r, box, d, &ask);
	report(r, box, d, named ? &ask : NULL, 0);
	return -EACCES;
}

#endif
