/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The part of the kernel's stable BPF interface that the programs use: contexts, constants and helper numbers.
 *
 * They are written out here instead of included from linux-libc-dev and libbpf-dev because the objects are
 * committed and CI compares them byte for byte: BTF holds whole context structures, so a newer header alone
 * would change every object. With this file, clang's version is all that matters.
 */
#ifndef NEMOCLAW_UAPI_H
#define NEMOCLAW_UAPI_H

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef int __s32;
typedef unsigned long long __u64;
typedef __u16 __be16;
typedef __u32 __be32;

#define SEC(name) __attribute__((section(name), used))
#define __always_inline inline __attribute__((always_inline))
#define __noinline __attribute__((noinline))
#define __uint(name, val) int(*name)[val]
#define __type(name, val) typeof(val) *name
#define __array(name, val) typeof(val) *name[]

#define NULL ((void *)0)
#define memset __builtin_memset
#define memcpy __builtin_memcpy
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define barrier_var(v) asm volatile("" : "+r"(v)) /* the compiler forgets what it knows of v */

/* amd64 and arm64, the targets, are little-endian; the generated loader refuses others at build time. */
#define bpf_ntohs(x) ((__u16)__builtin_bswap16(x))
#define bpf_htons(x) ((__u16)__builtin_bswap16(x))
#define bpf_ntohl(x) ((__u32)__builtin_bswap32(x))
#define bpf_htonl(x) ((__u32)__builtin_bswap32(x))

enum {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_HASH = 5,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_CGROUP_ARRAY = 8,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_LPM_TRIE = 11,
	BPF_MAP_TYPE_ARRAY_OF_MAPS = 12,
	BPF_MAP_TYPE_SOCKMAP = 15,
	BPF_MAP_TYPE_SK_STORAGE = 24,
	BPF_MAP_TYPE_RINGBUF = 27,
};

enum { BPF_ANY = 0, BPF_NOEXIST = 1 };
enum { BPF_F_NO_PREALLOC = 1 };
enum { BPF_SK_STORAGE_GET_F_CREATE = 1 };
enum { BPF_SK_LOOKUP_F_NO_REUSEPORT = 2 };
enum { SK_DROP = 0, SK_PASS = 1 };

enum { AF_INET = 2, AF_INET6 = 10 };
enum { SOCK_STREAM = 1, SOCK_DGRAM = 2 };
enum { IPPROTO_IP = 0, IPPROTO_TCP = 6, IPPROTO_UDP = 17 };
enum { ETH_P_IP = 0x0800, ETH_P_IPV6 = 0x86dd };
enum { SIGKILL = 9, SIGSTOP = 19 };

enum { BPF_SOCK_OPS_TCP_CONNECT_CB = 3, BPF_SOCK_OPS_STATE_CB = 10 };
enum { BPF_SOCK_OPS_STATE_CB_FLAG = 4 };
enum { BPF_TCP_SYN_SENT = 2, BPF_TCP_CLOSE = 7 };

enum { BPF_DEVCG_ACC_MKNOD = 1, BPF_DEVCG_ACC_READ = 2, BPF_DEVCG_ACC_WRITE = 4 };

struct bpf_sock {
	__u32 bound_dev_if;
	__u32 family;
	__u32 type;
	__u32 protocol;
	__u32 mark;
	__u32 priority;
	__u32 src_ip4;	  /* network byte order */
	__u32 src_ip6[4]; /* network byte order */
	__u32 src_port;	  /* host byte order */
	__be16 dst_port;  /* network byte order */
	__u16 : 16;
	__u32 dst_ip4;	  /* network byte order */
	__u32 dst_ip6[4]; /* network byte order */
	__u32 state;
	__s32 rx_queue_mapping;
};

struct bpf_sock_addr {
	__u32 user_family;
	__u32 user_ip4;	   /* network byte order */
	__u32 user_ip6[4]; /* network byte order */
	__u32 user_port;   /* network byte order */
	__u32 family;
	__u32 type;
	__u32 protocol;
	__u32 msg_src_ip4;    /* network byte order */
	__u32 msg_src_ip6[4]; /* network byte order */
	union {
		struct bpf_sock *sk;
		__u64 : 64;
	} __attribute__((aligned(8)));
};

struct bpf_sock_ops {
	__u32 op;
	__u32 args[4];
	__u32 family;
	__u32 remote_ip4;    /* network byte order */
	__u32 local_ip4;     /* network byte order */
	__u32 remote_ip6[4]; /* network byte order */
	__u32 local_ip6[4];  /* network byte order */
	__u32 remote_port;   /* network byte order, in the upper half of a little-endian word */
	__u32 local_port;    /* host byte order */
	__u32 is_fullsock;
	__u32 unused[23]; /* tcp_sock statistics, not read here */
	__u64 bytes_received;
	__u64 bytes_acked;
	union {
		struct bpf_sock *sk;
		__u64 : 64;
	} __attribute__((aligned(8)));
};

struct __sk_buff {
	__u32 len;
	__u32 pkt_type;
	__u32 mark;
	__u32 queue_mapping;
	__u32 protocol;	  /* network byte order */
	__u32 unused[31]; /* vlan, cb, addresses: not read here */
	union {
		void *flow_keys;
		__u64 : 64;
	} __attribute__((aligned(8)));
	__u64 tstamp;
	__u32 wire_len;
	__u32 gso_segs;
	union {
		struct bpf_sock *sk;
		__u64 : 64;
	} __attribute__((aligned(8)));
};

struct bpf_cgroup_dev_ctx {
	__u32 access_type; /* (access << 16) | type */
	__u32 major;
	__u32 minor;
};

struct bpf_sk_lookup {
	union {
		union {
			struct bpf_sock *sk;
			__u64 : 64;
		} __attribute__((aligned(8)));
		__u64 cookie;
	};
	__u32 family;
	__u32 protocol;
	__u32 remote_ip4;    /* network byte order */
	__u32 remote_ip6[4]; /* network byte order */
	__be16 remote_port;  /* network byte order */
	__u16 : 16;
	__u32 local_ip4;    /* network byte order */
	__u32 local_ip6[4]; /* network byte order */
	__u32 local_port;   /* host byte order */
	__u32 ingress_ifindex;
};

static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*bpf_map_update_elem)(void *map, const void *key, const void *value, __u64 flags) = (void *)2;
static long (*bpf_map_delete_elem)(void *map, const void *key) = (void *)3;
static long (*bpf_skb_load_bytes)(const void *skb, __u32 offset, void *to, __u32 len) = (void *)26;
static long (*bpf_current_task_under_cgroup)(void *map, __u32 index) = (void *)37;
static long (*bpf_sock_ops_cb_flags_set)(struct bpf_sock_ops *ctx, int flags) = (void *)59;
static __u64 (*bpf_skb_cgroup_id)(struct __sk_buff *skb) = (void *)79;
static __u64 (*bpf_get_current_cgroup_id)(void) = (void *)80;
static long (*bpf_sk_release)(void *sk) = (void *)86;
static struct bpf_sock *(*bpf_sk_fullsock)(struct bpf_sock *sk) = (void *)95;
static void *(*bpf_sk_storage_get)(void *map, void *sk, void *value, __u64 flags) = (void *)107;
static long (*bpf_sk_storage_delete)(void *map, void *sk) = (void *)108;
static long (*bpf_send_signal)(__u32 sig) = (void *)109;
static long (*bpf_send_signal_thread)(__u32 sig) = (void *)117;
static long (*bpf_probe_read_user)(void *to, __u32 len, const void *from) = (void *)112;
static long (*bpf_probe_read_kernel)(void *to, __u32 len, const void *from) = (void *)113;
static long (*bpf_probe_read_user_str)(void *to, __u32 len, const void *from) = (void *)114;
static long (*bpf_probe_read_kernel_str)(void *to, __u32 len, const void *from) = (void *)115;
static long (*bpf_sk_assign)(void *ctx, void *sk, __u64 flags) = (void *)124;
static __u64 (*bpf_ktime_get_boot_ns)(void) = (void *)125;
static void *(*bpf_ringbuf_reserve)(void *ringbuf, __u64 size, __u64 flags) = (void *)131;
static void (*bpf_ringbuf_submit)(void *record, __u64 flags) = (void *)132;
static void *(*bpf_get_current_task_btf)(void) = (void *)158;
static long (*bpf_loop)(__u32 n, void *callback, void *ctx, __u64 flags) = (void *)181;
static void *(*bpf_task_pt_regs)(void *task) = (void *)175;

#endif
