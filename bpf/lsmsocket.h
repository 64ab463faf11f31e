/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* LSM hooks on connecting, and sending, to unix sockets. */
#ifndef NEMOCLAW_LSMSOCKET_H
#define NEMOCLAW_LSMSOCKET_H

#include "judgefiles.h"

static void *(*bpf_skc_to_unix_sock)(void *sk) = (void *)178;

/* A socket that was made inside may be reached by who can name it; one of the host's only when a rule names it. */
static __noinline int judge_socket(struct sock *other)
{
	struct unix_sock *named;
	struct sandbox *box;
	struct refusal r;
	struct dentry *d;
	struct node *n;
	int verdict;

	if (!other)
		return -EACCES;
	named = bpf_skc_to_unix_sock(other);
	if (!named)
		return -EACCES;
	d = named->path.dentry;
	if (!d)
		return 0; /* abstract: its network namespace has nobody else */
	box = begin(&r, OP_CONNECT, ACCESS_WRITE, &verdict);
	if (!box)
		return verdict;
	if (other->sk_cgrp_data.cgroup->kn->id == r.query.place.cgid)
		return 0;
	n = node_of(&r.query.place, d->d_inode);
	if (n && n->flags & NODE_SOCKET)
		return 0;
	return refuse(&r, box, d, REASON_FOREIGN, EACCES);
}

SEC("lsm/unix_stream_connect")
int unix_stream_connect(__u64 *ctx)
{
	return outside() ? 0 : judge_socket((void *)ctx[1]);
}

SEC("lsm/unix_may_send")
int unix_may_send(__u64 *ctx)
{
	struct socket *other = (void *)ctx[1];

	return outside() ? 0 : judge_socket(other->sk);
}

#endif
