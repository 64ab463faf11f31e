/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What a program was started with: variables that make the dynamic loader, a library or an interpreter load code from
 * where they say. With one of them a process may be anybody's code under a command's name, so what the policy lets that
 * command alone do is not for it (decide.h).
 *
 * The environment is read at sched_process_exec: execve has copied it, nobody else has the new memory, and not one
 * instruction of the program has run. Later the process may write there what it likes. What was found goes with the
 * process: a fork has it from its parent, the next execve finds anew. A process of which nothing is known is tainted.
 */
#ifndef NEMOCLAW_ENVIRON_H
#define NEMOCLAW_ENVIRON_H

#include "kernel.h"
#include "sandbox.h"

union variable {
	char text[VARIABLE_ROOM];
	__u64 word[VARIABLE_ROOM / sizeof(__u64)];
};

/* As loader.variables. */
static const union variable variables[VARIABLES] = {
	{"LD_PRELOAD"},
	{"LD_AUDIT"},
	{"LD_LIBRARY_PATH"},
	{"GCONV_PATH"},
	{"OPENSSL_CONF"},
	{"OPENSSL_ENGINES"},
	{"OPENSSL_MODULES"},
	{"NODE_OPTIONS"},
	{"NODE_PATH"},
	{"BUN_OPTIONS"},
	{"PYTHONSTARTUP"},
	{"PYTHONPATH"},
	{"PYTHONHOME"},
	{"PYTHONUSERBASE"},
	{"PYTHONPLATLIBDIR"},
	{"RUBYOPT"},
	{"RUBYLIB"},
	{"PERL5OPT"},
	{"PERL5LIB"},
	{"PERLLIB"},
	{"BASH_ENV"},
	{"LUA_INIT"},
	{"PHPRC"},
	{"PHP_INI_SCAN_DIR"},
	{"JAVA_TOOL_OPTIONS"},
	{"JDK_JAVA_OPTIONS"},
	{"_JAVA_OPTIONS"},
	{"CLASSPATH"},
	{"DOTNET_STARTUP_HOOKS"},
};

struct environ_scan {
	__u64 at;
	__u64 end;
	__u32 taint;
	__u32 within; /* at is in the middle of a variable */
};

/* A part of an environment. */
union part {
	char text[ENVIRON_PART];
	__u64 word[ENVIRON_PART / sizeof(__u64)];
};

#define EACH_BYTE 0x0101010101010101ULL

/* The first byte of a word that is '=', as its lowest bit; 0: none is. */
static __always_inline __u64 find_sign(__u64 word)
{
	__u64 x = word ^ EACH_BYTE * '=', found = (x - EACH_BYTE) & ~x & EACH_BYTE << 7;

	return (found & -found) >> 7;
}

/*
 * What the variable at the beginning of a part taints with. One without a value says nothing to any program. A global
 * function: the verifier looks at it once, and not at what each answer leads to.
 */
__noinline int taint_of_variable(const union part *p)
{
	union variable name = {};
	__u64 sign, value = 0;
	__u32 i, found = 0;

	if (!p)
		return TAINT_UNREAD;
#pragma unroll
	for (i = 0; i < VARIABLE_ROOM / sizeof(__u64); i++) {
		__u64 word = p->word[i];

		if (found)
			break;
		sign = find_sign(word);
		found = sign != 0;
		name.word[i] = word & (sign - 1); /* all of it where there is none */
		/* The byte after the sign, or the first of the next word. */
		value = (word & sign * 0xff << 8) | (sign >> 56 ? p->word[i + 1] & 0xff : 0);
	}
	if (!found || !value)
		return TAINT_NONE;
#pragma unroll
	for (i = 0; i < VARIABLES; i++)
		if (!((name.word[0] ^ variables[i].word[0]) | (name.word[1] ^ variables[i].word[1]) |
		      (name.word[2] ^ variables[i].word[2])))
			return TAINT_VARIABLE + i;
	return TAINT_NONE;
}

static long scan_environ(__u32 nth, struct environ_scan *s)
{
	union part part;
	long n;

	(void)nth;
	if (s->at >= s->end)
		return 1;
	n = bpf_probe_read_user_str(part.text, sizeof(part.text), (void *)s->at);
	if (n < 0) {
		s->taint = TAINT_UNREAD;
		return 1;
	}
	if (!n) {
		n = 1; /* so says Linux before 6.13 of an empty one */
	} else if (!s->within) {
		s->taint = taint_of_variable(&part);
		if (s->taint)
			return 1;
	}
	/* What fills the room is cut, or ends there: then the rest is empty. */
	s->within = n == sizeof(part.text);
	s->at += n - s->within;
	return 0;
}

/* Reads the environment of a program that was just started. */
static __noinline __u32 read_environ(struct task_struct *task)
{
	struct environ_scan s = {};
	struct mm_struct *mm = task->mm;

	s.at = mm->env_start;
	s.end = mm->env_end;
	bpf_loop(ENVIRON_PARTS, scan_environ, &s, 0);
	if (!s.taint && s.at != s.end)
		return TAINT_LONG;
	return s.taint;
}

/* Remembers what the program that the current process has become was started with. */
static __always_inline __u32 note_environ(__u64 cgid, struct task_struct *task)
{
	struct environ_key key = {.cgid = cgid, .tgid = task->tgid};
	__u32 taint = read_environ(task);

	if (bpf_map_update_elem(&environs, &key, &taint, BPF_ANY))
		bpf_map_delete_elem(&environs, &key); /* what it was before says nothing */
	return taint;
}

static __always_inline __u32 taint_of(__u64 cgid, __u32 tgid)
{
	struct environ_key key = {.cgid = cgid, .tgid = tgid};
	__u32 *taint = bpf_map_lookup_elem(&environs, &key);

	return taint ? *taint : TAINT_UNKNOWN;
}

/* Before the child runs. A thread is its process; a child that starts in another cgroup has nothing there. */
SEC("tp_btf/sched_process_fork")
int forked(__u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0], *child = (void *)ctx[1];
	struct environ_key key = {};
	__u32 taint;

	if (likely(bpf_current_task_under_cgroup(&parent, 0) != 1) || task->tgid == child->tgid)
		return 0;
	key.cgid = bpf_get_current_cgroup_id();
	taint = taint_of(key.cgid, task->tgid);
	key.tgid = child->tgid;
	if (bpf_map_update_elem(&environs, &key, &taint, BPF_ANY))
		bpf_map_delete_elem(&environs, &key);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int ended(__u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	struct environ_key key = {};

	if (likely(bpf_current_task_under_cgroup(&parent, 0) != 1) || task->signal->live.counter)
		return 0; /* not the last thread */
	key.cgid = bpf_get_current_cgroup_id();
	key.tgid = task->tgid;
	bpf_map_delete_elem(&environs, &key);
	return 0;
}

#endif
