//go:build ignore
/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * sk_lookup, one per network namespace: hands what the sandbox sends to any address to the agent's sockets there.
 * Loaded at every start, so it is small and has no CO-RE. It decides nothing: connect.h and packet.h do. A slot
 * without a socket drops, it never falls through to a server of the sandbox's own.
 */
#include "address.h"

enum slot {
	SLOT_TCP4,
	SLOT_TCP6,
	SLOT_DNS_TCP4,
	SLOT_DNS_TCP6,
	SLOT_DNS_UDP4,
	SLOT_DNS_UDP6,
	SLOT_CONNECT4,
	SLOT_CONNECT6,
	SLOTS
};

struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__type(value, __u64);
} sockets SEC(".maps");

SEC("sk_lookup")
int steer(struct bpf_sk_lookup *ctx)
{
	__u32 addr[4], slot, port = ctx->local_port;
	int v6 = ctx->family == AF_INET6;
	struct bpf_sock *sk;
	long failed;

	if (v6) {
		addr[0] = ctx->local_ip6[0];
		addr[1] = ctx->local_ip6[1];
		addr[2] = ctx->local_ip6[2];
		addr[3] = ctx->local_ip6[3];
	} else {
		from_ip4(addr, ctx->local_ip4);
	}
	if (is_loopback(addr))
		return SK_PASS;
	if (ctx->protocol == IPPROTO_UDP) {
		/* Other ports pass so that replies reach unconnected clients. */
		if (port != PORT_DNS)
			return SK_PASS;
		slot = SLOT_DNS_UDP4;
	} else if (port == PORT_DNS) {
		slot = SLOT_DNS_TCP4;
	} else if (is_connect_proxy(addr, port)) {
		slot = SLOT_CONNECT4;
	} else {
		slot = SLOT_TCP4;
	}
	slot += v6; /* each IPv6 slot follows its IPv4 one */

	sk = bpf_map_lookup_elem(&sockets, &slot);
	if (!sk)
		return SK_DROP;
	failed = bpf_sk_assign(ctx, sk, BPF_SK_LOOKUP_F_NO_REUSEPORT);
	bpf_sk_release(sk);
	return failed ? SK_DROP : SK_PASS;
}

char _license[] SEC("license") = "Dual BSD/GPL";
