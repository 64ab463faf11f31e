/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What the programs and the loader share: keys, values and events. bpf2go turns these into Go types, so there is
 * one definition. Every structure is laid out without holes (a hole would be uninitialised bytes in a key).
 *
 * Addresses are 16 bytes in network order, IPv4 as ::ffff:a.b.c.d. Ports are in host order. Times are nanoseconds
 * of CLOCK_BOOTTIME, which goes on while the machine sleeps.
 */
#ifndef NEMOCLAW_ABI_H
#define NEMOCLAW_ABI_H

#include "uapi.h"

enum {
	ARGS_MAX = 256,	     /* bytes of a command line that are kept */
	PATH_MAX_KEPT = 256, /* bytes of an executed path that are kept */
	NAMES_KEPT = 512,    /* bytes of a refused file's names that are kept */
	NAME_KEPT = 128,     /* bytes of each that are kept */
	SHORT_TEXT = 64,     /* most command lines and paths fit: their events take a quarter of the ring */
	RINGS = 64,	     /* event rings, hence agents that can run at the same time */
	RING_BYTES = 256 * 1024,
	MAX_SANDBOXES = 4096,
	MAX_RULES = 1 << 19,
	MAX_PREFIXES = 1 << 18,
	MAX_GRANTS = 1 << 16,
	MAX_MEMBERS = 1 << 16,
	MAX_FLOWS = 1 << 18,
	MAX_EXECUTABLES = 1 << 17,
	MAX_DEVICES = 1 << 16,
	MAX_NODES = 1 << 18,
	MAX_NAMES = 1 << 16,
	MAX_FILE_GRANTS = 1 << 16,
	MAX_PENDING = 1 << 14,
	ANCHOR_BITS = 18,
	NAME_ROOM = 64, /* of a name and a zero; longer names have no rules of their own */
	MAX_ASKERS = 4096,
	MAX_DEPARTED = 4096,
	WALKS = 1024,	 /* up a tree that others change meanwhile */
	ANCESTORS = 64,	 /* processes that a helper's command is looked for upward */
	TREE_DEPTH = 64, /* directories that an execute grant on a tree is looked for upward */
	MAX_ENVIRONS = 1 << 18,
	VARIABLE_ROOM = 24,   /* of a variable's name and a zero */
	VARIABLES = 29,	      /* that taint */
	ENVIRON_PART = 128,   /* bytes of an environment that are read at a time */
	ENVIRON_PARTS = 4096, /* a variable takes at least one */
};

/* As policy.Verdict: the smaller, the more severe. */
enum verdict { DENY, ASK, ALLOW, VERDICTS };

/* Rules that no policy file wrote. RULE_DEFAULT is policy's rule 0. */
enum { RULE_DEFAULT = 0 };
#define RULE_BUILTIN 0xffffffffU

/* The hooks, as the index of the counters and the kind of an event. */
enum hook {
	HOOK_SOCKET,
	HOOK_CONNECT,
	HOOK_SENDTO,
	HOOK_BIND,
	HOOK_PACKET,
	HOOK_DEVICE,
	HOOK_EXEC,
	HOOK_FILE,
	HOOK_GUARD,
	HOOKS
};

enum reason {
	REASON_RULE,	    /* a rule, a grant or the default decided */
	REASON_CONNECTIONS, /* the sandbox has as many connections as it may */
	REASON_NOT_DNS,	    /* UDP to another port than 53 */
	REASON_PROTOCOL,    /* neither TCP nor UDP */
	REASON_ADDRESS,	    /* a local address that is neither any nor loopback */
	REASON_EGRESS,	    /* an outgoing packet of a socket that nothing allowed */
	REASON_INGRESS,	    /* an incoming packet for a socket that nothing allowed */
	REASON_NO_MEMORY,   /* the kernel had none left to remember who connects */
	REASON_RESERVED,    /* one of the agent's own addresses */
	REASON_MARKED,	    /* a rule is anchored to the file, or to what is below it */
	REASON_GAINS,	    /* more would be allowed at the new place than at the old */
	REASON_DELETED,	    /* a program without a name: removed, or never in a file system */
	REASON_FOREIGN,	    /* a socket that the host made */
	REASON_HELPER,	    /* a helper that its command did not start */
	REASON_KERNEL,	    /* a file that sets something of the kernel */
	REASON_GUARD,	    /* what no sandbox may do, whatever its policy */
	REASON_TAINTED,	    /* the rule is for a command, and other code may run as it */
	REASON_UNLISTED,    /* a library that the policy does not list */
	REASON_RESUMED, /* a call that waited was made to go on too often, or nobody is there any more who answers */
};

/*
 * A file, by the kernel's own identity. Number and device alone are ambiguous on btrfs (each subvolume counts its
 * inodes anew under one device) and on an overlay over two file systems, so an attacker who can write files could
 * make one that has the number of an allowed program; the inode's address is not to be forged. It stands for the
 * file only while somebody holds the file open: whoever puts a file_id into a map keeps an O_PATH descriptor.
 */
struct file_id {
	__u64 inode; /* address in the kernel */
	__u64 ino;
	__u32 dev;
	__u32 gen;
};

/* identities: index of a ring -> answers for the agent that has the ring. */
enum { IDENTIFY_MAX = 11 };

struct identified {
	struct file_id id[IDENTIFY_MAX];
};

/* sandboxes: cgroup id -> this. A cgroup below the parent that has no entry may do nothing. */
struct sandbox {
	__u32 revision;
	__u32 ring;
	__u32 max_conns;
	__u32 files;  /* the revision of `nodes` and `names` in force; 0: none yet, files are not judged */
	__u32 owner;  /* the agent that answers what is held: as in the lease of the ring */
	__u8 verdict; /* network default: DENY or ASK */
	__u8 trees;   /* 1: `executables` has TREE entries of this sandbox */
	__u8 hold;    /* 1: what a file rule asks about waits for the answer */
	__u8 listed;  /* 1: only files with ACCESS_MAP are mapped to be executed, and programs */
	__u32 window; /* the second that `spared` is about */
	__u32 spared; /* events that it has put into a ring that was half full */
};

/* rules: what may be done to a synthetic address, which stands for one name. Port 0: any port. */
struct rule_key {
	__u64 cgid;
	__u32 addr[4];
	__u32 revision;
	__u16 port;
	__u16 zero;
};

struct rule {
	__u64 expires; /* 0: never; an expired rule is no rule */
	__u32 rule;
	__u32 set; /* not 0: ask `members` first; verdict and rule are for executables that are not in the set */
	__u8 verdict;
	__u8 zero[7];
};

/* prefixes: longest-prefix match for literal addresses; the bits before addr are always compared in full. */
struct prefix_key {
	__u32 bits; /* PREFIX_BITS + prefix length of the 16-byte address */
	__u32 revision;
	__u64 cgid;
	__u16 port;
	__u16 family; /* AF_INET or AF_INET6: ::/0 says nothing about IPv4 */
	__u32 addr[4];
	__u32 zero;
};
enum { PREFIX_BITS = 8 * (4 + 8 + 4) };

/* members: a command set's answer for one executable. */
struct member_key {
	__u64 cgid;
	struct file_id exe;
	__u32 revision;
	__u32 set;
};

struct member {
	__u32 rule;
	__u8 verdict;
	__u8 zero[3];
};

/* grants: a person's answers, looked up before every rule. exe all zero: any executable. */
struct grant_key {
	__u64 cgid;
	struct file_id exe;
	__u32 addr[4];
	__u32 port;
	__u32 zero;
};

struct grant {
	__u64 expires; /* 0: never */
	__u32 rule;
	__u8 verdict;
	__u8 once; /* 1: the first use takes it away */
	__u16 zero;
};

/* flows: an established or starting connection -> who started it. */
struct tuple {
	__u64 cgid;
	__u32 local[4];
	__u32 remote[4];
	__u16 local_port;
	__u16 remote_port;
	__u32 zero;
};

struct peer {
	struct file_id exe;
	__u32 tgid;
	__u32 rule;
	__u32 revision;
	__u8 verdict;
	__u8 taint;
	__u16 args_len;
	__u8 args[ARGS_MAX]; /* arguments, each ended by NUL */
};

/*
 * environs: a process of a sandbox -> what is known of the environment that its program was started with. From
 * TAINT_VARIABLE on it is one of `variables` in environ.h.
 */
enum taint { TAINT_NONE, TAINT_UNKNOWN, TAINT_UNREAD, TAINT_LONG, TAINT_VARIABLE };

struct environ_key {
	__u64 cgid;
	__u32 tgid;
	__u32 zero;
};

/* askers: UDP source port of a DNS query -> who asked. Informational: the oldest are forgotten. */
struct asker_key {
	__u64 cgid;
	__u32 port;
	__u32 family;
};

/* executables: what a sandbox may execute. */
enum { EXEC_FILE = 1, EXEC_TREE = 2, EXEC_QUIET = 4, EXEC_DENY = 8, EXEC_HELPER = 16 };

struct exec_key {
	__u64 cgid;
	struct file_id file;
};

struct exec_value {
	__u32 rule;
	__u32 flags;
	__u64 commands; /* one bit for each command with helpers: which it is, or (EXEC_HELPER) which it helps */
};

/* What may be done with a file, as policy.Access. Write is also to create, remove, rename and change attributes. */
enum access { ACCESS_READ = 1, ACCESS_WRITE = 2, ACCESS_EXECUTE = 4, ACCESSES = 3 };

/* To list a directory: who may read may do that too, but the directories that lead to a mount can only be listed. */
enum { ACCESS_LIST = 8 };

/* To map a file to execute what is in it, where the sandbox is `listed`; elsewhere who may read may do that. */
enum { ACCESS_MAP = 16 };

/* What was attempted, in an event of HOOK_FILE. */
enum file_op {
	OP_OPEN,
	OP_CREATE,
	OP_REMOVE,
	OP_RENAME,
	OP_LINK,
	OP_TRUNCATE,
	OP_ATTRIBUTES,
	OP_EXECUTE,
	OP_MAP, /* to execute what is in it, as a library is */
	OP_RECEIVE,
	OP_CONNECT, /* to a unix socket */
	OP_WATCH,
	OP_LOCK,
	OP_CONTROL, /* ioctl */
	OP_ROOT,    /* chroot */
};

/* What was attempted, in an event of HOOK_GUARD. */
enum guard_op {
	GUARD_BPF,	  /* bpf(2); object: the command */
	GUARD_TRACE,	  /* object: the mode, as the kernel's PTRACE_MODE_* */
	GUARD_SIGNAL,	  /* object: the signal */
	GUARD_LIMIT,	  /* of another sandbox or the host; object: the resource */
	GUARD_PRIORITY,	  /* nice, I/O priority, scheduler and processors of another sandbox or the host */
	GUARD_MOUNT,	  /* to make, move, change or take away a mount */
	GUARD_NAMESPACE,  /* a user namespace */
	GUARD_LOAD,	  /* code into the kernel: a module, another kernel; object: the kernel's LOADING_* */
	GUARD_MODULE,	  /* what makes the kernel look for a module */
	GUARD_LOCKDOWN,	  /* what a kernel that is locked down refuses to root; object: the kernel's LOCKDOWN_* */
	GUARD_PERF,	  /* perf_event_open(2) */
	GUARD_LOG,	  /* the kernel's log */
	GUARD_KEY,	  /* a key or keyring; object: the kernel's KEY_NEED_* */
	GUARD_URING,	  /* what io_uring does in a thread of the kernel, as another user, or past the system calls */
	GUARD_CAPABILITY, /* object: the capability */
};

/* nodes: a file or directory, in one revision of a sandbox's rules -> what may be done at and below it. */
struct place {
	__u64 cgid;
	__u64 ino;
	__u32 dev;
	__u32 gen;
	__u32 revision;
	__u32 zero;
};

/* names: a name in a directory, whatever inode has it -> the same. */
struct name_key {
	struct place dir;
	__u8 name[NAME_ROOM]; /* then zeros */
};

/* A node without NODE_RULES says nothing of what may be done: it only must not be moved or removed from inside. */
enum {
	NODE_RULES = 1,
	NODE_NAMES = 2,	 /* `names` has entries of this directory */
	NODE_MOUNT = 4,	 /* the root of a mount of the view */
	NODE_NAMED = 8,	 /* its name has the same rules: it may be removed or replaced by who may write it */
	NODE_SOCKET = 16 /* a unix socket of the host that may be connected to */
};

struct node {
	__u64 until; /* 0: for ever. From then on `later` is what is allowed, and nothing is asked */
	__u32 rule[ACCESSES];
	__u8 allow;
	__u8 ask;
	__u8 later;
	__u8 flags;
};

/* What is asked about: a file, or for one that does not exist yet its name in a directory. */
struct asked {
	__u64 cgid;
	__u64 ino;
	__u32 dev;
	__u32 gen;
	__u32 access; /* what is wanted and not allowed, in full */
	__u32 zero;
	__u8 name[NAME_ROOM]; /* then zeros; all zero: ino is the file's own */
};

/* file_grants: a person's answers about files, looked up before anything is refused. exe all zero: any executable. */
struct file_grant_key {
	struct file_id exe;
	struct asked what;
};

/* pending: calls that wait for an answer. One task can have several: a signal's handler may ask in the middle of a call. */
struct held_key {
	__u64 started; /* of the task, CLOCK_BOOTTIME: with tid it is never another's */
	__u32 tid;
	__u32 op;
	struct asked what;
};

struct held {
	__u64 asked; /* when: tells a call from the next one of the same task that asks the same */
	__u32 pid;
	__u32 signals; /* of the lease, when it was judged last */
	__u32 judged;  /* again and without an answer since then */
	__u32 zero;
};

/*
 * answers: of calls that wait. In a map of their own, so that each has one writer: `pending` is the calling task's, and
 * an answer the agent's until the task takes it away.
 */
struct call_key {
	__u64 cgid;
	__u64 started;
	__u64 asked;
	__u32 tid;
	__u32 zero;
};

struct call_answer {
	__u8 verdict;
	__u8 seen; /* 1: the call was judged by it, and it lies here until the rest is allowed too */
	__u8 zero[6];
};

/* leases: index of a ring -> until when there is somebody who answers. */
struct lease {
	__u64 until;
	__u32 owner;
	__u32 signals; /* that were sent with answers: each lets a whole process go on for a moment */
};

/* devices: what a sandbox may open. */
#define ANY_MINOR 0xffffffffU

struct device_key {
	__u64 cgid;
	__u32 type; /* 1: block, 2: character */
	__u32 major;
	__u32 minor;
	__u32 zero;
};

/* counters: per CPU and sandbox. Added to atomically: a program may be preempted by another on its CPU. */
struct counters {
	__u64 n[HOOKS][VERDICTS];
	__u64 lost;	  /* events that the ring had no room for */
	__u64 suppressed; /* events over the budget of their hook */
	__u64 window[HOOKS];
	__u64 spent[HOOKS];
};

/*
 * An event. After it come args_len bytes of arguments, in room for args_room; then path_len bytes of path.
 * object is an address (connect, sendto, bind, packet); {family, type, protocol} (socket); {type, major, minor,
 * access} (device); the inode number's halves, device and generation of the mount's root (file). A file's path is its
 * names below that root, the last first, each with its NUL; port is its enum file_op, protocol what was wanted. For a
 * guard port is its enum guard_op, and object {detail, tgid of whom it was tried on, or 0}.
 */
struct event {
	__u64 time;
	__u64 cgid;
	struct file_id exe;
	__u32 object[4];
	__u32 tgid;
	__u32 parent; /* tgid of the parent (exec) */
	__u32 rule;
	__u32 revision;
	__u16 port;
	__u8 hook;
	__u8 verdict;
	__u8 reason;
	__u8 protocol;
	__u16 args_room;
	__u16 args_len;
	__u16 path_len;
	__u32 taint;
};

/* An event of HOOK_FILE: what a grant and an answer need to name. Then arguments and names, as in any event. */
struct file_event {
	struct event event;
	__u64 started;
	__u64 asked; /* when the call began to wait, or to wait in vain; 0: it has not waited */
	__u64 ino;
	__u32 dev;
	__u32 gen;
	__u32 tid;
	__u8 missing; /* of what was wanted; 0: no grant can give it */
	__u8 named;   /* 1: ino is the directory that the last name is in */
	__u8 zero[2];
};

#endif
