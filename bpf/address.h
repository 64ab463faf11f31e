/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Addresses: 16 bytes in network order, IPv4 as ::ffff:a.b.c.d. loader/address.go has the same constants. */
#ifndef NEMOCLAW_ADDRESS_H
#define NEMOCLAW_ADDRESS_H

#include "uapi.h"

enum { PORT_DNS = 53, PORT_CONNECT_PROXY = 3128 };

#define MAPPED bpf_htonl(0x0000ffff)	 /* third word of ::ffff:a.b.c.d */
#define SYNTHETIC4 bpf_htonl(0xc6120000) /* 198.18.0.0/15 */
#define SYNTHETIC4_MASK bpf_htonl(0xfffe0000)
#define SYNTHETIC6_0 bpf_htonl(0xfd6e656d) /* fd6e:656d:6f63::/64 */
#define SYNTHETIC6_1 bpf_htonl(0x6f630000)
#define RESERVED4_MASK bpf_htonl(0xffffff00) /* 198.18.0.0/24; in IPv6 fd6e:656d:6f63::/112 */
#define CONNECT_PROXY4 bpf_htonl(0xc6120003) /* 198.18.0.3 */
#define CONNECT_PROXY6_3 bpf_htonl(3)	     /* fd6e:656d:6f63::3 */

static __always_inline void from_ip4(__u32 addr[4], __u32 ip4)
{
	addr[0] = 0;
	addr[1] = 0;
	addr[2] = MAPPED;
	addr[3] = ip4;
}

static __always_inline int is_v4(const __u32 addr[4])
{
	return addr[0] == 0 && addr[1] == 0 && addr[2] == MAPPED;
}

static __always_inline int is_loopback4(__u32 ip4)
{
	return (ip4 & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
}

static __always_inline int is_loopback6(const __u32 addr[4])
{
	return addr[0] == 0 && addr[1] == 0 && addr[2] == 0 && addr[3] == bpf_htonl(1);
}

static __always_inline int is_loopback(const __u32 addr[4])
{
	return is_v4(addr) ? is_loopback4(addr[3]) : is_loopback6(addr);
}

/* The wildcard address: as a destination the kernel takes it for loopback. */
static __always_inline int is_any(const __u32 addr[4])
{
	return addr[3] == 0 && addr[0] == 0 && addr[1] == 0 && (addr[2] == 0 || addr[2] == MAPPED);
}

static __always_inline int is_own(const __u32 addr[4])
{
	return is_any(addr) || is_loopback(addr);
}

/* True for an address that stands for a name, or for one of the agent's own servers. */
static __always_inline int is_synthetic(const __u32 addr[4])
{
	if (is_v4(addr))
		return (addr[3] & SYNTHETIC4_MASK) == SYNTHETIC4;
	return addr[0] == SYNTHETIC6_0 && addr[1] == SYNTHETIC6_1;
}

/* True for the agent's own addresses; the rest of the synthetic ones stand for names. */
static __always_inline int is_reserved(const __u32 addr[4])
{
	if (is_v4(addr))
		return (addr[3] & RESERVED4_MASK) == SYNTHETIC4;
	return addr[0] == SYNTHETIC6_0 && addr[1] == SYNTHETIC6_1 && addr[2] == 0 &&
	       (addr[3] & bpf_htonl(0xffff0000)) == 0;
}

static __always_inline int is_connect_proxy(const __u32 addr[4], __u16 port)
{
	if (port != PORT_CONNECT_PROXY)
		return 0;
	if (is_v4(addr))
		return addr[3] == CONNECT_PROXY4;
	return addr[0] == SYNTHETIC6_0 && addr[1] == SYNTHETIC6_1 && addr[2] == 0 && addr[3] == CONNECT_PROXY6_3;
}

#endif
