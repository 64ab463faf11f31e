//go:build ignore
/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The decision core alone, to be run through BPF_PROG_RUN by tests: with struct query as its arguments, it returns
 * the verdict in the upper two bits and the rule below. Nothing of the product loads it.
 */
#include "decide.h"

enum { QUERY_WORDS = sizeof(struct query) / sizeof(__u64) };

/* A call of its own, so that BTF knows struct query. */
static __noinline int decide_query(const struct query *q)
{
	struct answer a = {};

	decide(q, &a);
	return a.verdict << 30 | (a.rule & 0x3fffffff);
}

SEC("raw_tp")
int judge(__u64 *ctx)
{
	union {
		struct query query;
		__u64 words[QUERY_WORDS];
	} in;
	int i;

#pragma unroll
	for (i = 0; i < QUERY_WORDS; i++)
		in.words[i] = ctx[i];
	return decide_query(&in.query);
}

char _license[] SEC("license") = "Dual BSD/GPL";
