//go:build ignore
/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The programs that are attached once, to the parent cgroup of all sandboxes: one header per plane. */
#include "connect.h"
#include "datagram.h"
#include "device.h"
#include "exec.h"
#include "identify.h"
#include "packet.h"
#include "socket.h"
#include "track.h"

char _license[] SEC("license") = "Dual BSD/GPL";
