/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The maps of the file rules, apart from the others: only a kernel that fires LSM programs has them. Flat for the
 * reason that maps.h gives; a revision's entries lie beside those of the one in force until the sandbox's entry names
 * it.
 */
#ifndef NEMOCLAW_FILEMAPS_H
#define NEMOCLAW_FILEMAPS_H

#include "maps.h"

/*
 * Says of an inode, by a hash of its number and device, that it may have a node: most have none, and a look-up in a
 * hash table is most of what a step of a walk costs. These are set before the nodes and stay; one too many costs a
 * look-up, and decides nothing.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1 << ANCHOR_BITS);
	__type(key, __u32);
	__type(value, __u8);
} anchors SEC(".maps");

HASH(nodes, struct place, struct node, MAX_NODES);
HASH(names, struct name_key, struct node, MAX_NAMES);

#endif
