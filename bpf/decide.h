/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The decision on a connection, apart from any hook, so that connect4, connect6 and the test program judge with the
 * same code. Order: a person's grants, then the rules of the live revision, then the default.
 *
 * The loader has compiled every rule of the policy that applies to an address and port into its entry, deny before
 * ask before allow; what is left to combine here is the entry of the port with that of any port.
 */
#ifndef NEMOCLAW_DECIDE_H
#define NEMOCLAW_DECIDE_H

#include "address.h"
#include "maps.h"

struct query {
	struct file_id exe;
	__u64 cgid;
	__u64 now;
	__u32 addr[4];
	__u32 revision;
	__u16 port;
	__u8 fallback; /* the sandbox's default verdict */
	__u8 tainted;  /* other code may run as exe: only what is against exe counts */
};

struct answer {
	__u32 rule;
	__u32 verdict;
	__u32 withheld; /* a rule that would have let more through, were it not for the taint; 0: none */
};

static __always_inline int expired(__u64 expires, __u64 now)
{
	return expires && expires <= now;
}

/* Takes a grant for exe. Returns 1 when there is one. */
static __always_inline int take_grant(const struct query *q, const struct file_id *exe, struct answer *a)
{
	struct grant_key key = {.cgid = q->cgid, .port = q->port};
	struct grant *g;

	key.exe = *exe;
	memcpy(key.addr, q->addr, sizeof(key.addr));
	g = bpf_map_lookup_elem(&grants, &key);
	if (!g || expired(g->expires, q->now) || (q->tainted && exe == &q->exe && g->verdict != DENY))
		return 0;
	a->rule = g->rule;
	a->verdict = g->verdict;
	/* Of two connects that meet the same once-grant, the one whose delete succeeds has it. */
	if (g->once && bpf_map_delete_elem(&grants, &key))
		return 0;
	return 1;
}

/* Lets one entry of the rule maps take part: the more severe verdict stays. */
static __always_inline int weigh(const struct query *q, const struct rule *r, struct answer *a, int found)
{
	__u32 verdict, rule, withheld = 0;

	if (!r || expired(r->expires, q->now))
		return found;
	verdict = r->verdict;
	rule = r->rule;
	if (r->set) {
		struct member_key key = {.cgid = q->cgid, .revision = q->revision, .set = r->set};
		struct member *m;

		key.exe = q->exe;
		m = bpf_map_lookup_elem(&members, &key);
		if (m && q->tainted && m->verdict >= verdict) {
			withheld = m->verdict > verdict ? m->rule : 0;
		} else if (m) {
			verdict = m->verdict;
			rule = m->rule;
		}
	}
	if (!found || verdict < a->verdict) {
		a->verdict = verdict;
		a->rule = rule;
		a->withheld = withheld;
	}
	return 1;
}

static __always_inline void decide_rules(const struct query *q, struct answer *a)
{
	int found = 0;

	if (is_synthetic(q->addr)) {
		struct rule_key key = {.cgid = q->cgid, .revision = q->revision, .port = q->port};

		memcpy(key.addr, q->addr, sizeof(key.addr));
		found = weigh(q, bpf_map_lookup_elem(&rules, &key), a, found);
		key.port = 0;
		found = weigh(q, bpf_map_lookup_elem(&rules, &key), a, found);
	} else {
		struct prefix_key key = {
			.bits = PREFIX_BITS + 128, .cgid = q->cgid, .revision = q->revision, .port = q->port};

		key.family = is_v4(q->addr) ? AF_INET : AF_INET6;
		memcpy(key.addr, q->addr, sizeof(key.addr));
		found = weigh(q, bpf_map_lookup_elem(&prefixes, &key), a, found);
		key.port = 0;
		found = weigh(q, bpf_map_lookup_elem(&prefixes, &key), a, found);
	}
	if (!found) {
		a->verdict = q->fallback;
		a->rule = RULE_DEFAULT;
	}
}

/* A global function: the verifier looks at it once, not on every way that leads to it. */
__noinline int decide(const struct query *q, struct answer *a)
{
	struct file_id anybody = {};

	if (!q || !a)
		return 0;
	if (!take_grant(q, &q->exe, a) && !take_grant(q, &anybody, a))
		decide_rules(q, a);
	return 0;
}

#endif
