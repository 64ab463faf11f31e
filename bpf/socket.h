/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * sock_create: plain TCP and UDP over IPv4 and IPv6. Not MPTCP (its subflows connect past connect4), raw, ping,
 * SCTP or UDP-Lite sockets. Families that the kernel has no such hook for (packet, vsock, ...) are seccomp's.
 *
 * bind4, bind6: to any address or loopback. AnyIP routes make every address local, so a sandbox could otherwise
 * serve as one that stands for a name.
 */
#ifndef NEMOCLAW_SOCKET_H
#define NEMOCLAW_SOCKET_H

#include "address.h"
#include "event.h"

SEC("cgroup/sock_create")
int sock_create(struct bpf_sock *ctx)
{
	__u64 cgid = bpf_get_current_cgroup_id();
	struct sandbox *box = sandbox_of(cgid);
	__u32 family = ctx->family, type = ctx->type, protocol = ctx->protocol;
	struct counters *c;
	struct subject s;
	struct event e;
	__u64 now;

	if (!box)
		return stray(HOOK_SOCKET);
	c = counters_of(cgid);
	if ((family == AF_INET || family == AF_INET6) &&
	    ((type == SOCK_STREAM && protocol == IPPROTO_TCP) || (type == SOCK_DGRAM && protocol == IPPROTO_UDP))) {
		count(c, HOOK_SOCKET, ALLOW);
		return 1;
	}
	count(c, HOOK_SOCKET, DENY);
	now = bpf_ktime_get_boot_ns();
	if (!afford(c, HOOK_SOCKET, now, BUDGET_OTHER))
		return 0;
	subject_of(&s, bpf_get_current_task_btf());
	start_event(&e, box, cgid, HOOK_SOCKET, &s, now);
	e.object[0] = family;
	e.object[1] = type;
	e.object[2] = protocol;
	e.protocol = protocol;
	e.rule = RULE_BUILTIN;
	e.reason = REASON_PROTOCOL;
	send_event(box, c, &e, &s);
	return 0;
}

static __always_inline int judge_bind(struct bpf_sock_addr *ctx, const __u32 addr[4])
{
	__u64 cgid = bpf_get_current_cgroup_id();
	struct sandbox *box = sandbox_of(cgid);
	__u32 protocol = ctx->protocol;
	struct counters *c;
	struct subject s;
	struct event e;
	__u64 now;

	if (!box)
		return stray(HOOK_BIND);
	c = counters_of(cgid);
	if (is_own(addr)) {
		count(c, HOOK_BIND, ALLOW);
		return 1;
	}
	count(c, HOOK_BIND, DENY);
	now = bpf_ktime_get_boot_ns();
	if (!afford(c, HOOK_BIND, now, BUDGET_OTHER))
		return 0;
	subject_of(&s, bpf_get_current_task_btf());
	start_event(&e, box, cgid, HOOK_BIND, &s, now);
	memcpy(e.object, addr, sizeof(e.object));
	e.port = bpf_ntohs((__u16)ctx->user_port);
	e.protocol = protocol;
	e.rule = RULE_BUILTIN;
	e.reason = REASON_ADDRESS;
	send_event(box, c, &e, &s);
	return 0;
}

SEC("cgroup/bind4")
int bind4(struct bpf_sock_addr *ctx)
{
	__u32 addr[4];

	from_ip4(addr, ctx->user_ip4);
	return judge_bind(ctx, addr);
}

SEC("cgroup/bind6")
int bind6(struct bpf_sock_addr *ctx)
{
	__u32 addr[4] = {ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3]};

	return judge_bind(ctx, addr);
}

#endif
