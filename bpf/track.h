/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * sock_ops: turns a judged socket into the connection's addresses and ports, which is what the proxy sees of it.
 * The entry is there before the SYN leaves and goes when the socket closes. Without an entry (map full, cap passed
 * by a race) the proxy finds nobody and refuses.
 *
 * A client that sends and closes at once is gone before the proxy has accepted: for that, a connection that was
 * established leaves its entry in `departed`, unless it has got an answer. The proxy finds out who is there before it
 * says anything; only the DNS server asks again at each query.
 */
#ifndef NEMOCLAW_TRACK_H
#define NEMOCLAW_TRACK_H

#include "address.h"
#include "maps.h"

static __always_inline void forget_flow(struct flow *f, int depart)
{
	__u64 cgid = f->cgid;
	__u64 *n;

	if (!f->counted)
		return;
	f->counted = 0;
	if (depart)
		bpf_map_update_elem(&departed, &f->tuple, &f->peer, BPF_ANY);
	bpf_map_delete_elem(&flows, &f->tuple);
	n = bpf_map_lookup_elem(&conns, &cgid);
	if (n)
		__sync_fetch_and_add(n, -1);
}

static __always_inline void start_flow(struct bpf_sock_ops *ctx, struct flow *f)
{
	__u64 cgid = f->cgid;
	struct sandbox *box = sandbox_of(cgid);
	__u64 *n = bpf_map_lookup_elem(&conns, &cgid);

	forget_flow(f, 0);
	if (!box || !n)
		return;
	/* The sandbox's id is in the key: two sandboxes have the same addresses in their own namespaces. */
	f->tuple.cgid = cgid;
	f->tuple.local_port = ctx->local_port;
	f->tuple.remote_port = bpf_ntohl(ctx->remote_port);
	if (f->v4) {
		from_ip4(f->tuple.local, ctx->local_ip4);
		from_ip4(f->tuple.remote, ctx->remote_ip4);
	} else {
		f->tuple.local[0] = ctx->local_ip6[0];
		f->tuple.local[1] = ctx->local_ip6[1];
		f->tuple.local[2] = ctx->local_ip6[2];
		f->tuple.local[3] = ctx->local_ip6[3];
		f->tuple.remote[0] = ctx->remote_ip6[0];
		f->tuple.remote[1] = ctx->remote_ip6[1];
		f->tuple.remote[2] = ctx->remote_ip6[2];
		f->tuple.remote[3] = ctx->remote_ip6[3];
	}
	if (__sync_fetch_and_add(n, 1) >= box->max_conns || bpf_map_update_elem(&flows, &f->tuple, &f->peer, BPF_ANY)) {
		__sync_fetch_and_add(n, -1);
		/* Who had the same addresses before must not be taken for this one. */
		bpf_map_delete_elem(&departed, &f->tuple);
		return;
	}
	f->counted = 1;
	bpf_sock_ops_cb_flags_set(ctx, BPF_SOCK_OPS_STATE_CB_FLAG);
}

SEC("sockops")
int track(struct bpf_sock_ops *ctx)
{
	struct bpf_sock *sk;
	struct flow *f;

	if (ctx->op != BPF_SOCK_OPS_TCP_CONNECT_CB && ctx->op != BPF_SOCK_OPS_STATE_CB)
		return 1;
	sk = ctx->sk;
	if (!sk)
		return 1;
	f = bpf_sk_storage_get(&judged, sk, NULL, 0);
	if (!f)
		return 1;
	if (ctx->op == BPF_SOCK_OPS_TCP_CONNECT_CB)
		start_flow(ctx, f);
	else if (ctx->args[1] == BPF_TCP_CLOSE)
		forget_flow(f, ctx->args[0] != BPF_TCP_SYN_SENT &&
				       (!ctx->bytes_received || f->tuple.remote_port == PORT_DNS));
	return 1;
}

#endif
