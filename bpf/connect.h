/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * connect4, connect6: every connect(2), and the first sendto(2) with MSG_FASTOPEN, which LSM's socket_connect does
 * not see. TCP is judged; what UDP sends is packet.h's to judge. Refused: EPERM and an event. Passed: the socket carries
 * its subject and verdict on, for the packet programs (packet.h) and for the proxy (track.h).
 */
#ifndef NEMOCLAW_CONNECT_H
#define NEMOCLAW_CONNECT_H

#include "decide.h"
#include "environ.h"
#include "event.h"

static __always_inline int refuse_connect(struct sandbox *box, struct counters *c, __u64 cgid, __u64 now,
					  const struct subject *s, const __u32 addr[4], __u16 port, __u8 protocol,
					  __u32 rule, __u8 reason)
{
	struct event e;

	count(c, HOOK_CONNECT, DENY);
	if (!afford(c, HOOK_CONNECT, now, BUDGET_CONNECT))
		return 0;
	start_event(&e, box, cgid, HOOK_CONNECT, s, now);
	memcpy(e.object, addr, sizeof(e.object));
	e.port = port;
	e.protocol = protocol;
	e.rule = rule;
	e.reason = reason;
	send_event(box, c, &e, s);
	return 0;
}

/* True when one more connection is within the sandbox's cap. Connections are counted when they start (track.h). */
static __always_inline int has_room(const struct sandbox *box, __u64 cgid)
{
	__u64 *n = bpf_map_lookup_elem(&conns, &cgid);

	return n && *n < box->max_conns;
}

static __always_inline int judge_tcp(struct sandbox *box, struct counters *c, struct bpf_sock *sk, __u64 cgid,
				     const __u32 addr[4], __u16 port)
{
	struct answer a = {.rule = RULE_BUILTIN, .verdict = ALLOW};
	__u64 now = bpf_ktime_get_boot_ns();
	__u8 reason = REASON_RULE;
	struct subject s;
	struct flow *f;

	subject_of(&s, bpf_get_current_task_btf());
	s.taint = taint_of(cgid, s.tgid);
	/* Whatever its address, port 53 is the resolver, and 3128 of this address the CONNECT proxy: steer.c. */
	if (port != PORT_DNS && !is_connect_proxy(addr, port)) {
		struct query q = {.cgid = cgid, .now = now, .revision = box->revision, .port = port};

		q.exe = s.exe;
		q.fallback = box->verdict;
		q.tainted = s.taint != TAINT_NONE;
		memcpy(q.addr, addr, sizeof(q.addr));
		if (is_reserved(addr)) {
			a.verdict = DENY;
			reason = REASON_RESERVED;
		} else {
			decide(&q, &a);
			if (a.verdict == DENY && a.withheld) {
				a.rule = a.withheld;
				reason = REASON_TAINTED;
			}
		}
	}
	if (a.verdict == DENY) {
		bpf_sk_storage_delete(&judged, sk);
		return refuse_connect(box, c, cgid, now, &s, addr, port, IPPROTO_TCP, a.rule, reason);
	}
	if (!has_room(box, cgid)) {
		bpf_sk_storage_delete(&judged, sk);
		return refuse_connect(box, c, cgid, now, &s, addr, port, IPPROTO_TCP, RULE_BUILTIN, REASON_CONNECTIONS);
	}
	f = bpf_sk_storage_get(&judged, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!f)
		return refuse_connect(box, c, cgid, now, &s, addr, port, IPPROTO_TCP, RULE_BUILTIN, REASON_NO_MEMORY);
	fill_peer(&f->peer, &s);
	f->peer.rule = a.rule;
	f->peer.revision = box->revision;
	f->peer.verdict = a.verdict;
	f->cgid = cgid;
	f->v4 = is_v4(addr);
	count(c, HOOK_CONNECT, a.verdict);
	return 1;
}

static __always_inline int judge_connect(struct bpf_sock_addr *ctx, const __u32 addr[4])
{
	__u64 cgid = bpf_get_current_cgroup_id();
	struct sandbox *box = sandbox_of(cgid);
	__u16 port = bpf_ntohs((__u16)ctx->user_port);
	__u32 protocol = ctx->protocol;
	struct bpf_sock *sk = ctx->sk;
	struct counters *c;
	struct subject s;

	if (!box || !sk)
		return stray(HOOK_CONNECT);
	c = counters_of(cgid);
	if (is_own(addr)) {
		/* The sandbox's own servers. A verdict that the socket got for another address must not stay. */
		if (protocol == IPPROTO_TCP)
			bpf_sk_storage_delete(&judged, sk);
		count(c, HOOK_CONNECT, ALLOW);
		return 1;
	}
	if (protocol == IPPROTO_TCP)
		return judge_tcp(box, c, sk, cgid, addr, port);
	/*
	 * To connect sends nothing, and resolvers do it with every address that a name has, to see which source address
	 * they would get (RFC 6724): that is no attempt to be refused. What is sent then meets packet.h.
	 */
	if (protocol == IPPROTO_UDP) {
		count(c, HOOK_CONNECT, ALLOW);
		return 1;
	}
	subject_of(&s, bpf_get_current_task_btf());
	return refuse_connect(box, c, cgid, bpf_ktime_get_boot_ns(), &s, addr, port, protocol, RULE_BUILTIN,
			      REASON_PROTOCOL);
}

SEC("cgroup/connect4")
int connect4(struct bpf_sock_addr *ctx)
{
	__u32 addr[4];

	from_ip4(addr, ctx->user_ip4);
	return judge_connect(ctx, addr);
}

/* ::ffff:a.b.c.d comes here too; in this layout it is the IPv4 address already. */
SEC("cgroup/connect6")
int connect6(struct bpf_sock_addr *ctx)
{
	__u32 addr[4] = {ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3]};

	return judge_connect(ctx, addr);
}

#endif
