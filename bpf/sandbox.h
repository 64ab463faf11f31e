/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Which sandbox a task belongs to, its exact counters, and the budget that keeps a flood out of the ring. */
#ifndef NEMOCLAW_SANDBOX_H
#define NEMOCLAW_SANDBOX_H

#include "maps.h"

static __always_inline struct sandbox *sandbox_of(__u64 cgid)
{
	return bpf_map_lookup_elem(&sandboxes, &cgid);
}

static __always_inline struct counters *counters_of(__u64 cgid)
{
	return bpf_map_lookup_elem(&counts, &cgid);
}

static __always_inline void count(struct counters *c, const enum hook hook, __u32 verdict)
{
	/* Constant offsets in each branch: a computed index into the value would need a bound for the verifier. */
	if (!c)
		return;
	if (verdict == ALLOW)
		__sync_fetch_and_add(&c->n[hook][ALLOW], 1);
	else if (verdict == ASK)
		__sync_fetch_and_add(&c->n[hook][ASK], 1);
	else
		__sync_fetch_and_add(&c->n[hook][DENY], 1);
}

/* Counts the refusal of a task that is below the parent but in no sandbox, and refuses it. */
static __always_inline int stray(const enum hook hook)
{
	__u32 key = hook;
	__u64 *n = bpf_map_lookup_elem(&strays, &key);

	if (n)
		__sync_fetch_and_add(n, 1);
	return 0;
}

/*
 * True when one more event of this hook fits the budget of this CPU's current second. The counters stay exact; what
 * the budget keeps back is counted too. Without it a loop of refused calls would fill the disk with records. Two
 * tasks that preempt each other here can spend one event too many, which harms nobody.
 */
static __always_inline int afford(struct counters *c, const enum hook hook, __u64 now, __u64 limit)
{
	__u64 window = now >> 30; /* 1.07 s */

	if (!c)
		return 1;
	if (c->window[hook] != window) {
		c->window[hook] = window;
		c->spent[hook] = 0;
	}
	if (c->spent[hook] >= limit) {
		__sync_fetch_and_add(&c->suppressed, 1);
		return 0;
	}
	c->spent[hook]++;
	return 1;
}

#endif
