//go:build ignore
/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The decision on files alone, to be run through BPF_PROG_RUN by tests where no LSM program can be attached: with a
 * descriptor, a number and a struct file_query, it judges that often what the descriptor was opened at. Nothing of the
 * product loads it. Needs Linux 6.2.
 */
#include "files.h"

static __u64 (*bpf_ktime_get_ns)(void) = (void *)5;

/* Gives a pointer that was read out of memory its type: what an LSM program is given has one. */
extern void *bpf_rdonly_cast(const void *object, __u32 type) __attribute__((section(".ksyms")));
#define typed(type, object) ((type *)bpf_rdonly_cast(object, __builtin_btf_type_id(*(type *)0, 1)))

enum { QUERY_WORDS = sizeof(struct file_query) / sizeof(__u64) };

/* What the last run found. */
struct judged_file {
	struct file_answer answer;
	__u64 ns; /* of all its decisions */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct judged_file);
} last SEC(".maps");

struct run {
	struct file_query query;
	struct file_answer answer;
	struct file *file;
};

static long judge_once(__u32 nth, struct run *run)
{
	struct file *file = typed(struct file, run->file);

	(void)nth;
	judge_file(&run->query, file->f_path.dentry, &run->answer);
	return 0;
}

SEC("raw_tp")
int judge(__u64 *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct files_struct *files = task->files;
	struct fdtable *table = files->fdt;
	__u64 fd = ctx[0], start;
	struct judged_file *out;
	struct run run = {};
	__u32 zero = 0;
	int i;

	out = bpf_map_lookup_elem(&last, &zero);
	if (!out || fd >= table->max_fds)
		return 1;
	if (bpf_probe_read_kernel(&run.file, sizeof(run.file), table->fd + fd) || !run.file)
		return 1;
#pragma unroll
	for (i = 0; i < QUERY_WORDS; i++)
		((__u64 *)&run.query)[i] = ctx[2 + i];
	start = bpf_ktime_get_ns();
	bpf_loop(ctx[1], judge_once, &run, 0);
	out->ns = bpf_ktime_get_ns() - start;
	out->answer = run.answer;
	return 0;
}

char _license[] SEC("license") = "Dual BSD/GPL";
