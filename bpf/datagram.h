/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* sendmsg4, sendmsg6: datagrams of unconnected sockets. To the sandbox itself or to the resolver, nowhere else. */
#ifndef NEMOCLAW_DATAGRAM_H
#define NEMOCLAW_DATAGRAM_H

#include "address.h"
#include "event.h"

static __always_inline int judge_sendmsg(struct bpf_sock_addr *ctx, const __u32 addr[4], const __u32 from[4])
{
	__u64 cgid = bpf_get_current_cgroup_id();
	struct sandbox *box = sandbox_of(cgid);
	__u16 port = bpf_ntohs((__u16)ctx->user_port);
	__u32 protocol = ctx->protocol;
	__u8 reason = REASON_NOT_DNS;
	struct counters *c;
	struct subject s;
	struct event e;
	__u64 now;

	if (!box)
		return stray(HOOK_SENDTO);
	c = counters_of(cgid);
	/* The source can be chosen per message (IP_PKTINFO); with AnyIP routes every address would do. */
	if (!is_own(from)) {
		reason = REASON_ADDRESS;
	} else if (is_own(addr) || port == PORT_DNS) {
		count(c, HOOK_SENDTO, ALLOW);
		return 1;
	}
	count(c, HOOK_SENDTO, DENY);
	now = bpf_ktime_get_boot_ns();
	if (!afford(c, HOOK_SENDTO, now, BUDGET_OTHER))
		return 0;
	subject_of(&s, bpf_get_current_task_btf());
	start_event(&e, box, cgid, HOOK_SENDTO, &s, now);
	memcpy(e.object, addr, sizeof(e.object));
	e.port = port;
	e.protocol = protocol;
	e.rule = RULE_BUILTIN;
	e.reason = reason;
	send_event(box, c, &e, &s);
	return 0;
}

SEC("cgroup/sendmsg4")
int sendmsg4(struct bpf_sock_addr *ctx)
{
	__u32 addr[4], from[4];

	from_ip4(addr, ctx->user_ip4);
	from_ip4(from, ctx->msg_src_ip4);
	return judge_sendmsg(ctx, addr, from);
}

SEC("cgroup/sendmsg6")
int sendmsg6(struct bpf_sock_addr *ctx)
{
	__u32 addr[4] = {ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3]};
	__u32 from[4] = {ctx->msg_src_ip6[0], ctx->msg_src_ip6[1], ctx->msg_src_ip6[2], ctx->msg_src_ip6[3]};

	return judge_sendmsg(ctx, addr, from);
}

#endif
