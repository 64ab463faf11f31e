/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The maps. All of them are flat and keyed by cgroup id: an update of a map-in-map waits for an RCU grace period
 * (8.7 ms measured), a flat insert takes microseconds. Cgroup ids are never reused, so a stale entry is never
 * anybody else's.
 *
 * Maps that hold rules are hashes without LRU: when full, an insert fails and the loader says so; nothing is
 * silently forgotten. Forgetting an entry of the two LRU maps takes nothing but a name from a record, or refuses a
 * connection. BPF_F_NO_PREALLOC: they are sized for the worst case and mostly empty.
 */
#ifndef NEMOCLAW_MAPS_H
#define NEMOCLAW_MAPS_H

#include "abi.h"

#define HASH(name, key_type, value_type, max)                                                                          \
	struct {                                                                                                       \
		__uint(type, BPF_MAP_TYPE_HASH);                                                                       \
		__uint(map_flags, BPF_F_NO_PREALLOC);                                                                  \
		__uint(max_entries, max);                                                                              \
		__type(key, key_type);                                                                                 \
		__type(value, value_type);                                                                             \
	} name SEC(".maps")

HASH(sandboxes, __u64, struct sandbox, MAX_SANDBOXES);
HASH(conns, __u64, __u64, MAX_SANDBOXES); /* connections that count against max_conns */
HASH(rules, struct rule_key, struct rule, MAX_RULES);
HASH(members, struct member_key, struct member, MAX_MEMBERS);
HASH(grants, struct grant_key, struct grant, MAX_GRANTS);
HASH(flows, struct tuple, struct peer, MAX_FLOWS);
HASH(executables, struct exec_key, struct exec_value, MAX_EXECUTABLES);
HASH(devices, struct device_key, __u32, MAX_DEVICES);
HASH(environs, struct environ_key, __u32, MAX_ENVIRONS);

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_PREFIXES);
	__type(key, struct prefix_key);
	__type(value, struct rule);
} prefixes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_ASKERS);
	__type(key, struct asker_key);
	__type(value, struct peer);
} askers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_DEPARTED);
	__type(key, struct tuple);
	__type(value, struct peer);
} departed SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_SANDBOXES);
	__type(key, __u64);
	__type(value, struct counters);
} counts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, RINGS);
	__type(key, __u32);
	__type(value, struct identified);
} identities SEC(".maps");

/* Refusals of tasks below the parent that belong to no sandbox. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, HOOKS);
	__type(key, __u32);
	__type(value, __u64);
} strays SEC(".maps");

/* The parent cgroup, to tell a stray from a task that is none of ours. */
struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} parent SEC(".maps");

struct ring {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, RING_BYTES);
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, RINGS);
	__type(key, __u32);
	__array(values, struct ring);
} rings SEC(".maps");

/* A judged socket: who connects, and what was said. Goes with the socket. */
struct flow {
	struct peer peer;
	struct tuple tuple;
	__u64 cgid;
	__u32 v4;      /* the packets are IPv4, whatever the socket's family */
	__u32 counted; /* in `flows` and in `conns` */
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct flow);
} judged SEC(".maps");

#endif
