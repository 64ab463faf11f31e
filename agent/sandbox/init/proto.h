/* SPDX-License-Identifier: Apache-2.0
 *
 * What the daemon and the init say to each other, one message a packet on a SOCK_SEQPACKET socket. Numbers
 * are little-endian, as both architectures are; control.go holds the same numbers, and a test compares the
 * two files.
 */
#pragma once

#include <stdint.h>

enum {
	CONTROL_FD = 3,	     /* the init's end of the socket */
	LISTEN_FD = 4,	     /* of a lasting sandbox: where the next daemon connects */
	MAX_MESSAGE = 65536, /* bytes */
	MAX_FDS = 5,	     /* descriptors in one message */
	MAX_COMMANDS = 512,  /* started by the daemon and not yet ended */
	REPORT_FD = 3,	     /* in a command before its execve: where it tells that it failed */
};

/* Daemon to init. */
enum request {
	REQ_IDMAP = 1,	/* struct req_idmap: make the user namespace of an idmapped mount */
	REQ_INIT = 2,	/* struct req_init, filter, masks; fds: cgroup, root, Landlock ruleset, and when the
			 * sandbox is to outlive the daemon a bound socket */
	REQ_MAPPED = 3, /* struct req_mapped: uid_map and gid_map are written */
	REQ_EXEC = 4,	/* struct req_exec; fds: stdin, stdout, stderr, payload, report */
	REQ_SIGNAL = 5, /* struct req_signal */
};

struct req_idmap {
	uint32_t op;
	uint32_t disk_uid, disk_gid; /* as the file system stores them */
	uint32_t host_uid, host_gid; /* as the host's kernel is to see them */
};

struct req_init {
	uint32_t op;
	uint32_t landlock_flags;
	uint64_t proc_access; /* Landlock rights below /proc; 0: none */
	uint64_t nofile;      /* RLIMIT_NOFILE; 0: left as it is */
	uint32_t id;	      /* uid and gid inside */
	uint32_t filter_len;  /* seccomp instructions of 8 bytes, right after this structure */
	uint32_t masks_len;   /* bytes after the filter: paths below /proc to hide, each 'd' or 'f', path, NUL */
	uint32_t memfd_exec;  /* 1: the kernel has no vm.memfd_noexec */
	uint32_t owner;	      /* the host's uid of the sandbox's user: the user namespace is to be its own */
	uint32_t padding;
};

struct req_mapped {
	uint32_t op;
};

struct req_exec {
	uint32_t op;
	uint32_t id;	       /* the daemon's name for the command */
	int32_t tty;	       /* descriptor 0..2 that becomes the controlling terminal; -1: none */
	uint32_t payload_size; /* bytes of the payload file: struct payload and strings */
};

/* The file of REQ_EXEC: this, then NUL-terminated strings: directory, candidates, arguments, environment. */
struct payload {
	uint32_t candidates, args, envs;
};

struct req_signal {
	uint32_t op;
	uint32_t id;
	uint32_t signal; /* to the command's process group */
};

/* Init to daemon: op, then two numbers. */
enum reply {
	RE_IDMAP = 1,	/* fd: the user namespace */
	RE_PID = 2,	/* a: process id of PID 1 as the daemon sees it; fd: pidfd */
	RE_USERNS = 3,	/* PID 1 is in its user namespace and waits for REQ_MAPPED */
	RE_READY = 4,	/* locked down; commands may be started */
	RE_EXIT = 5,	/* a: id of the command, b: status as wait(2) gives it */
	RE_ERROR = 6,	/* a: enum step, b: errno; the init is gone */
	RE_COMMAND = 7, /* a: id of a command that another daemon started and that runs; before RE_READY */
};

struct reply_msg {
	uint32_t op, a, b;
};

/* Where something failed; also the first word that a command writes to its report pipe, errno being the
 * second. */
enum step {
	STEP_MESSAGE = 1,
	STEP_IDMAP_CLONE = 2,
	STEP_IDMAP_WRITE = 3,
	STEP_IDMAP_OPEN = 4,
	STEP_CLONE = 5,
	STEP_PROC = 6,
	STEP_MEMFD_NOEXEC = 7,
	STEP_PROC_MOUNT = 8,
	STEP_PROC_MASK = 9,
	STEP_LIMITS = 10,
	STEP_CGROUP_NS = 11,
	STEP_PIVOT = 12,
	STEP_USER_NS = 13,
	STEP_IDS = 14,
	STEP_CAPABILITIES = 15,
	STEP_LANDLOCK = 16,
	STEP_SECCOMP = 17,
	STEP_SIGNALS = 18,
	STEP_FORK = 19,
	STEP_STREAMS = 20,
	STEP_TERMINAL = 21,
	STEP_DIRECTORY = 22,
	STEP_EXEC = 23,
	STEP_TOO_MANY = 24,
	STEP_LISTEN = 25,
};
