//go:build ignore
/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * lsm/socket_create: proves that BPF LSM programs fire. That the kernel lists `bpf`, loads such a program and attaches it
 * proves nothing: some kernels do all that and never call it. So whoever attached it asks for a socket of a protocol that
 * there is not, and wants an answer that only this program gives.
 */
#include "uapi.h"

#define ENOANO 55 /* what no family answers */

volatile const __u32 protocol; /* set before loading, at random: nobody else meets the program */

enum { ARG_PROTOCOL = 2, ARG_VERDICT = 4 }; /* socket_create(family, type, protocol, kern), and what was said before */

SEC("lsm/socket_create")
int fire(__u64 *ctx)
{
	if ((__u32)ctx[ARG_PROTOCOL] == protocol)
		return -ENOANO;
	return (int)ctx[ARG_VERDICT];
}

char _license[] SEC("license") = "Dual BSD/GPL";
