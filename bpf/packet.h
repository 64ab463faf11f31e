/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * cgroup_skb: the backstop behind the socket hooks. A packet passes when its socket was judged, when it stays on
 * loopback, or when it is DNS. Everything else is dropped and counted: nothing should ever come here.
 *
 * The kernel runs these for packets of full sockets only; resets and TIME_WAIT answers are its own and pass.
 */
#ifndef NEMOCLAW_PACKET_H
#define NEMOCLAW_PACKET_H

#include "address.h"
#include "event.h"

struct packet {
	__u32 from[4];
	__u32 to[4];
	__u16 from_port;
	__u16 to_port;
	__u8 protocol;
};

struct ip4 {
	__u8 version_ihl;
	__u8 tos;
	__u16 len;
	__u16 id;
	__u16 fragment;
	__u8 ttl;
	__u8 protocol;
	__u16 check;
	__u32 from;
	__u32 to;
};

struct ip6 {
	__u32 flow;
	__u16 len;
	__u8 protocol;
	__u8 hops;
	__u32 from[4];
	__u32 to[4];
};

/* Fills p. A fragment or an extension header leaves the protocol at 0, which nothing allows. */
static __always_inline void parse_packet(struct __sk_buff *skb, struct packet *p)
{
	__u32 transport = 0;
	__u16 ports[2] = {};

	memset(p, 0, sizeof(*p));
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		struct ip4 h;

		if (bpf_skb_load_bytes(skb, 0, &h, sizeof(h)))
			return;
		from_ip4(p->from, h.from);
		from_ip4(p->to, h.to);
		if (h.fragment & bpf_htons(0x3fff)) /* offset, or more to come */
			return;
		p->protocol = h.protocol;
		transport = (h.version_ihl & 0xf) * 4;
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		struct ip6 h;

		if (bpf_skb_load_bytes(skb, 0, &h, sizeof(h)))
			return;
		memcpy(p->from, h.from, sizeof(p->from));
		memcpy(p->to, h.to, sizeof(p->to));
		p->protocol = h.protocol;
		transport = sizeof(h);
	}
	if (p->protocol != IPPROTO_TCP && p->protocol != IPPROTO_UDP)
		return;
	if (bpf_skb_load_bytes(skb, transport, ports, sizeof(ports))) {
		p->protocol = 0;
		return;
	}
	p->from_port = bpf_ntohs(ports[0]);
	p->to_port = bpf_ntohs(ports[1]);
}

/* Remembers who sends a DNS query. A datagram leaves in its sender's context, so current is the one who asks. */
static __always_inline void remember_asker(__u64 cgid, const struct packet *p)
{
	struct asker_key key = {.cgid = cgid, .port = p->from_port};
	struct subject s;
	struct peer *old;
	struct peer fresh;

	key.family = is_v4(p->to) ? AF_INET : AF_INET6;
	subject_of(&s, bpf_get_current_task_btf());
	memset(&fresh, 0, sizeof(fresh));
	fresh.verdict = ALLOW;
	fresh.rule = RULE_BUILTIN;
	fill_peer(&fresh, &s);
	old = bpf_map_lookup_elem(&askers, &key);
	if (old && old->tgid == fresh.tgid && old->exe.inode == fresh.exe.inode)
		return;
	bpf_map_update_elem(&askers, &key, &fresh, BPF_ANY);
}

static __always_inline int drop(struct sandbox *box, struct counters *c, __u64 cgid, const struct packet *p,
				const enum reason direction)
{
	__u64 now = bpf_ktime_get_boot_ns();
	struct subject s = {}; /* nobody: a packet can leave long after the call that caused it */
	__u8 reason = direction;
	__u8 hook = HOOK_PACKET;
	struct event e;

	/* But a datagram leaves in its sender's context: this is send(2) on a connected socket. */
	if (direction == REASON_EGRESS && p->protocol == IPPROTO_UDP) {
		subject_of(&s, bpf_get_current_task_btf());
		hook = HOOK_SENDTO;
		reason = REASON_NOT_DNS;
	}
	count(c, hook, DENY);
	if (!afford(c, hook, now, BUDGET_OTHER))
		return 0;
	start_event(&e, box, cgid, hook, &s, now);
	if (direction == REASON_EGRESS) {
		memcpy(e.object, p->to, sizeof(e.object));
		e.port = p->to_port;
	} else {
		memcpy(e.object, p->from, sizeof(e.object));
		e.port = p->from_port;
	}
	e.protocol = p->protocol;
	e.rule = RULE_BUILTIN;
	e.reason = reason;
	send_event(box, c, &e, &s);
	return 0;
}

static __always_inline int judge_packet(struct __sk_buff *skb, const enum reason direction)
{
	struct bpf_sock *sk = skb->sk;
	struct sandbox *box;
	struct counters *c;
	struct packet p;
	struct flow *f;
	__u64 cgid;

	if (!sk)
		return 0;
	sk = bpf_sk_fullsock(sk);
	if (!sk)
		return 0;
	/* Only judge_tcp makes this storage, so nothing else needs to be looked at: this is the way of all traffic. */
	f = bpf_sk_storage_get(&judged, sk, NULL, 0);
	if (f)
		return 1;

	cgid = bpf_skb_cgroup_id(skb);
	box = sandbox_of(cgid);
	if (!box)
		return stray(HOOK_PACKET);
	parse_packet(skb, &p);
	if ((p.protocol == IPPROTO_TCP || p.protocol == IPPROTO_UDP) && is_loopback(p.from) && is_loopback(p.to))
		return 1;
	c = counters_of(cgid);
	if (p.protocol == IPPROTO_UDP && direction == REASON_EGRESS && p.to_port == PORT_DNS && is_loopback(p.from)) {
		remember_asker(cgid, &p);
		return 1;
	}
	if (p.protocol == IPPROTO_UDP && direction == REASON_INGRESS && p.from_port == PORT_DNS && is_loopback(p.to))
		return 1;
	return drop(box, c, cgid, &p, direction);
}

SEC("cgroup_skb/egress")
int egress(struct __sk_buff *skb)
{
	return judge_packet(skb, REASON_EGRESS);
}

SEC("cgroup_skb/ingress")
int ingress(struct __sk_buff *skb)
{
	return judge_packet(skb, REASON_INGRESS);
}

#endif
