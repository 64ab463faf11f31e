/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Events: what was refused (and what was executed), for the one log that the agent keeps. */
#ifndef NEMOCLAW_EVENT_H
#define NEMOCLAW_EVENT_H

#include "sandbox.h"
#include "subject.h"

/* Events per second, CPU and sandbox; more are counted as suppressed. */
enum { BUDGET_CONNECT = 2000, BUDGET_EXEC = 4000, BUDGET_OTHER = 64 };

/* Events per second and sandbox that find room in the other half of a ring that is half full. */
enum { SPARED = 8 };

static void (*bpf_ringbuf_discard)(void *record, __u64 flags) = (void *)133;
static __u64 (*bpf_ringbuf_query)(void *ring, __u64 what) = (void *)134;
#define RING_UNREAD 0 /* BPF_RB_AVAIL_DATA */

static __always_inline void start_event(struct event *e, const struct sandbox *box, __u64 cgid, const enum hook hook,
					const struct subject *s, __u64 now)
{
	memset(e, 0, sizeof(*e));
	e->time = now;
	e->cgid = cgid;
	e->exe = s->exe;
	e->tgid = s->tgid;
	e->taint = s->taint;
	e->revision = box->revision;
	e->hook = hook;
}

/*
 * Copies the event, the command line and the path into a record with the given room. Returns 0, 1 when the ring is
 * full, 2 when the path needs more room. The rooms are constants because the ring reserves constant sizes only.
 */
static __always_inline int put_event(void *ring, const struct event *e, const struct subject *s, const __u32 args_room,
				     const char *path, const __u32 path_room)
{
	void *record = bpf_ringbuf_reserve(ring, sizeof(*e) + args_room + path_room, 0);
	struct event *out = record;

	if (!out)
		return 1;
	memcpy(out, e, sizeof(*e));
	out->args_room = args_room;
	out->args_len = read_args(record + sizeof(*e), args_room, s);
	out->path_len = 0;
	if (path_room) {
		long n = bpf_probe_read_kernel_str(record + sizeof(*e) + args_room, path_room, path);

		if (n == path_room && path_room < PATH_MAX_KEPT) {
			bpf_ringbuf_discard(record, 0);
			return 2;
		}
		if (n > 0)
			out->path_len = n - 1;
	}
	bpf_ringbuf_submit(record, 0);
	return 0;
}

/*
 * The ring, unless it has no room for this sandbox: the second half is there for those who have little to report, so that
 * one that floods the ring while nobody comes to read it takes no record away from the others.
 */
static __always_inline void *ring_of(struct sandbox *box, __u64 now)
{
	__u32 index = box->ring, window = now >> 30;
	void *ring = bpf_map_lookup_elem(&rings, &index);

	if (!ring || bpf_ringbuf_query(ring, RING_UNREAD) < RING_BYTES / 2)
		return ring;
	if (box->window != window) {
		box->window = window;
		box->spared = 0;
	}
	return box->spared++ < SPARED ? ring : NULL;
}

static __always_inline void lost(struct counters *c)
{
	if (c)
		__sync_fetch_and_add(&c->lost, 1);
}

/* Sends an event without a path. A call of its own: eight programs end with it. */
static __noinline int send_event(struct sandbox *box, struct counters *c, const struct event *e,
				 const struct subject *s)
{
	void *ring = ring_of(box, e->time);
	int failed = 1;

	if (ring) {
		if (s->args_len <= SHORT_TEXT)
			failed = put_event(ring, e, s, SHORT_TEXT, NULL, 0);
		else
			failed = put_event(ring, e, s, ARGS_MAX, NULL, 0);
	}
	if (failed)
		lost(c);
	return 0;
}

/* Sends an event with the path that was executed. */
static __always_inline void send_event_path(struct sandbox *box, struct counters *c, const struct event *e,
					    const struct subject *s, const char *path)
{
	void *ring = ring_of(box, e->time);
	int failed = 2;

	if (!ring) {
		lost(c);
		return;
	}
	if (s->args_len <= SHORT_TEXT)
		failed = put_event(ring, e, s, SHORT_TEXT, path, SHORT_TEXT);
	if (failed == 2)
		failed = put_event(ring, e, s, ARGS_MAX, path, PATH_MAX_KEPT);
	if (failed)
		lost(c);
}

#endif
