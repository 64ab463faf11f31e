//go:build ignore
/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The LSM programs: attached to the whole system, where the kernel fires them. One header per plane. */
#include "lsmexec.h"
#include "lsmfile.h"
#include "lsmguard.h"
#include "lsmmove.h"
#include "lsmsocket.h"

char _license[] SEC("license") = "Dual BSD/GPL";
