/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The maps of the file rules, apart from the others: only a kernel that fires LSM programs has them. Flat for the
 * reason that maps.h gives; a revision's entries lie beside those of the one in force until the sandbox's entry names
 * it.
 */
#ifndef NEMOCLAW_FILEMAPS_H
#define NEMOCLAW_FILEMAPS_H

#include "maps.h"

HASH(nodes, struct place, struct node, MAX_NODES);
HASH(names, struct name_key, struct node, MAX_NAMES);

#endif
