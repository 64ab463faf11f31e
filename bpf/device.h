/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* cgroup/dev: which device nodes a sandbox may open or make. */
#ifndef NEMOCLAW_DEVICE_H
#define NEMOCLAW_DEVICE_H

#include "event.h"

static __always_inline int device_allowed(const struct device_key *key, __u32 access)
{
	__u32 *allowed = bpf_map_lookup_elem(&devices, key);

	return allowed && (access & ~*allowed) == 0;
}

SEC("cgroup/dev")
int device(struct bpf_cgroup_dev_ctx *ctx)
{
	__u64 cgid = bpf_get_current_cgroup_id();
	struct sandbox *box = sandbox_of(cgid);
	__u32 access = ctx->access_type >> 16;
	struct device_key key = {
		.cgid = cgid, .type = ctx->access_type & 0xffff, .major = ctx->major, .minor = ctx->minor};
	struct counters *c;
	struct subject s;
	struct event e;
	__u64 now;

	if (!box)
		return stray(HOOK_DEVICE);
	c = counters_of(cgid);
	if (device_allowed(&key, access)) {
		count(c, HOOK_DEVICE, ALLOW);
		return 1;
	}
	key.minor = ANY_MINOR;
	if (device_allowed(&key, access)) {
		count(c, HOOK_DEVICE, ALLOW);
		return 1;
	}
	count(c, HOOK_DEVICE, DENY);
	now = bpf_ktime_get_boot_ns();
	if (!afford(c, HOOK_DEVICE, now, BUDGET_OTHER))
		return 0;
	subject_of(&s, bpf_get_current_task_btf());
	start_event(&e, box, cgid, HOOK_DEVICE, &s, now);
	e.object[0] = key.type;
	e.object[1] = ctx->major;
	e.object[2] = ctx->minor;
	e.object[3] = access;
	e.rule = RULE_BUILTIN;
	e.reason = REASON_RULE;
	send_event(box, c, &e, &s);
	return 0;
}

#endif
