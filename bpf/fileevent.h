/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What was refused of a file, or waits for an answer: the record of it. */
#ifndef NEMOCLAW_FILEEVENT_H
#define NEMOCLAW_FILEEVENT_H

#include "event.h"
#include "files.h"

#define EACCES 13

/* Asks get a larger share of the ring than refusals: one that has no record is refused. */
enum { BUDGET_FILE = 256, BUDGET_ASK = 20000 };

struct refusal {
	struct file_query query;
	struct file_answer answer;
	__u16 op;
	__u8 reason;
	__u8 zero[5];
};

/* By the rules, in a frame of its own: what comes after it needs the stack. */
static __noinline int by_rules(struct refusal *r, struct dentry *d)
{
	judge_file(&r->query, d, &r->answer);
	return likely(r->answer.verdict == ALLOW);
}

/* The names from a dentry up to its mount's root, on their way into a record. */
struct naming {
	struct place place;
	struct dentry *at;
	void *text; /* has room for NAMES_KEPT */
	__u64 used;
};

static long put_name(__u32 nth, struct naming *to)
{
	struct dentry *d = to->at, *up = d->d_parent;
	struct node *n = exists(d) ? node_of(&to->place, d->d_inode) : NULL;
	__u64 used = to->used;
	long len;

	/* What has no path has a name all the same. */
	if ((n && n->flags & NODE_MOUNT) || !up || (up == d && nth) || used > NAMES_KEPT - NAME_KEPT)
		return 1;
	len = bpf_probe_read_kernel_str(to->text + used, NAME_KEPT, d->d_name.name);
	if (len <= 0)
		return 1;
	to->used = used + len;
	to->at = up;
	return 0;
}

/*
 * Fills in who acts. In a frame of its own, as the next: what comes before needs the stack. Both are given values: Linux
 * 7.3 refuses to read through a pointer to the stack that three calls have handed on.
 */
static __noinline int put_subject(struct file_event *f, const struct sandbox *box, __u64 cgid, __u64 now)
{
	struct event *e = &f->event;
	struct subject s;

	subject_of(&s, bpf_get_current_task_btf());
	start_event(e, box, cgid, HOOK_FILE, &s, now);
	e->args_room = ARGS_MAX;
	e->args_len = read_args(f + 1, ARGS_MAX, &s);
	return 0;
}

/* Fills in the names up to a mount's root, and what that is. */
static __noinline int put_names(struct file_event *f, __u64 cgid, __u32 revision, struct dentry *d)
{
	struct naming to = {.at = d, .text = (void *)(f + 1) + ARGS_MAX};
	struct event *e = &f->event;

	to.place.cgid = cgid;
	to.place.revision = revision;
	bpf_loop(TREE_DEPTH, put_name, &to, 0);
	e->path_len = to.used;
	e->object[0] = to.place.ino;
	e->object[1] = to.place.ino >> 32;
	e->object[2] = to.place.dev;
	e->object[3] = to.place.gen;
	return 0;
}

/* Fills in what was tried. key is NULL where no answer could help. */
static __always_inline void write_record(struct file_event *f, struct refusal *r, const struct sandbox *box,
					 struct dentry *d, const struct held_key *key)
{
	struct event *e = &f->event;

	memset(f, 0, sizeof(*f));
	put_subject(f, box, r->query.place.cgid, r->query.now);
	e->verdict = r->answer.verdict;
	e->rule = r->answer.rule;
	e->reason = r->reason;
	e->port = r->op;
	e->protocol = r->query.want;
	put_names(f, r->query.place.cgid, r->query.place.revision, d);
	if (key) {
		f->started = key->started;
		f->tid = key->tid;
		f->ino = key->what.ino;
		f->dev = key->what.dev;
		f->gen = key->what.gen;
		f->missing = key->what.access;
		f->named = key->what.name[0] != 0;
	}
}

/*
 * Stops the process, all threads of it, when the current one leaves the call. The signal is this thread's own: one of the
 * process that is there already, for another thread, would not make this one look, and it would leave with the error
 * that asks for the restart.
 */
static __always_inline int stop(void)
{
	return !bpf_send_signal_thread(SIGSTOP);
}

/*
 * Counts a refusal and puts it into the ring. asked is when a call was asked about that waited, and 0 for others. If it is
 * now, the process is stopped, between the record's reservation and its submission: an answer that came before the stop
 * would be lost. Returns 1 when it is stopped. When it is not, the record says so, if there is one.
 */
static __noinline int report(struct refusal *r, struct sandbox *box, struct dentry *d, const struct held_key *key,
			     __u64 asked)
{
	struct counters *c = counters_of(r->query.place.cgid);
	int waits = asked == r->query.now;
	struct file_event *f;
	void *ring;

	count(c, HOOK_FILE, r->answer.verdict);
	if (!afford(c, HOOK_FILE, r->query.now, waits ? BUDGET_ASK : BUDGET_FILE))
		return 0;
	ring = ring_of(box, r->query.now);
	f = ring ? bpf_ringbuf_reserve(ring, sizeof(*f) + ARGS_MAX + NAMES_KEPT, 0) : NULL;
	if (!f) {
		lost(c);
		return 0;
	}
	write_record(f, r, box, d, key);
	if (waits && !stop())
		waits = asked = 0;
	f->asked = asked;
	bpf_ringbuf_submit(f, 0);
	return waits;
}

#endif
