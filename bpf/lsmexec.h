/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * LSM hooks on execution: what may become a program, and what may be mapped to be executed. The tracepoint of exec.h
 * stays behind them: it records, and kills what came past.
 */
#ifndef NEMOCLAW_LSMEXEC_H
#define NEMOCLAW_LSMEXEC_H

#include "judgefiles.h"

/* The processes above the current one, up to a command that a program helps. */
struct lineage {
	struct task_struct *task;
	__u64 cgid;
	__u64 commands;
	__u32 found;
	__u32 zero;
};

static long look_up(__u32 nth, struct lineage *up)
{
	struct task_struct *task = up->task;
	struct exec_key key = {};
	struct exec_value *v;
	struct mm_struct *mm;
	struct file *file;

	(void)nth;
	mm = task->mm;
	file = mm ? mm->exe_file : NULL;
	if (!file)
		return 1;
	key.cgid = up->cgid;
	identify_inode(&key.file, file->f_inode);
	v = bpf_map_lookup_elem(&executables, &key);
	if (v && !(v->flags & EXEC_HELPER) && v->commands & up->commands) {
		up->found = 1;
		return 1;
	}
	up->task = task->real_parent;
	return 0;
}

/*
 * Whether one of the commands runs in this process or in one above it. Who outlives the process that started it is the
 * init's child, and nobody's helper any more.
 */
static __noinline int started_by(__u64 cgid, __u64 commands)
{
	struct lineage up = {.task = bpf_get_current_task_btf(), .cgid = cgid, .commands = commands};

	bpf_loop(ANCESTORS, look_up, &up, 0);
	return up.found;
}

/*
 * Judges what execve is about to run: the file itself, and after a script its interpreter, which is asked about again.
 * A program may run when it is in `executables`, or when a file rule says execute where it is.
 */
static __noinline int judge_program(struct linux_binprm *bprm)
{
	struct file *file = bprm->file;
	struct dentry *d = file->f_path.dentry;
	struct inode *inode = file->f_inode;
	struct exec_key key = {};
	struct exec_value *v;
	struct sandbox *box;
	struct refusal r;
	int verdict;

	box = begin(&r, OP_EXECUTE, ACCESS_EXECUTE, &verdict);
	if (!box)
		return verdict;
	if (!inode->i_nlink || nowhere(inode->i_sb))
		return refuse(&r, box, d, REASON_DELETED, EACCES);
	key.cgid = r.query.place.cgid;
	identify_inode(&key.file, inode);
	v = bpf_map_lookup_elem(&executables, &key);
	if (v && v->flags & EXEC_FILE && !(v->flags & EXEC_DENY)) {
		if (!(v->flags & EXEC_HELPER) || started_by(key.cgid, v->commands))
			return 0;
		return refuse(&r, box, d, REASON_HELPER, EACCES);
	}
	if (v && v->flags & EXEC_DENY) {
		r.answer.verdict = DENY;
		r.answer.rule = v->rule;
		return deny(&r, box, d);
	}
	if (bprm->buf[0] == '#' && bprm->buf[1] == '!')
		r.query.want = ACCESS_READ; /* what runs is the interpreter, and it only reads this */
	return by_rules(&r, d) ? 0 : settle(&r, box, d);
}

SEC("lsm/bprm_check_security")
int bprm_check_security(__u64 *ctx)
{
	return outside() ? 0 : judge_program((void *)ctx[0]);
}

/* Whether the policy names a file as a program. */
static __noinline int named_program(__u64 cgid, struct inode *inode)
{
	struct exec_key key = {.cgid = cgid};
	struct exec_value *v;

	identify_inode(&key.file, inode);
	v = bpf_map_lookup_elem(&executables, &key);
	return v && v->flags & EXEC_FILE && !(v->flags & EXEC_DENY);
}

/* A file that is mapped to be executed: what may be read, and where the policy lists what may be mapped that alone. */
static __noinline int judge_map(struct file *file)
{
	struct dentry *d = file->f_path.dentry;
	struct inode *inode = file->f_inode;
	struct sandbox *box;
	struct refusal r;
	int verdict;

	box = begin(&r, OP_MAP, ACCESS_READ, &verdict);
	if (!box)
		return verdict;
	if (nowhere(inode->i_sb) && !box->listed)
		return 0;
	if ((nowhere(inode->i_sb) || !inode->i_nlink) && box->listed)
		return refuse(&r, box, d, REASON_UNLISTED, EACCES);
	if (!by_rules(&r, d)) {
		verdict = settle(&r, box, d);
		if (verdict)
			return verdict;
	}
	if (likely(!box->listed))
		return 0;
	r.query.want = ACCESS_MAP;
	if (by_rules(&r, d) || named_program(r.query.place.cgid, inode))
		return 0; /* a program is mapped when it is executed */
	r.reason = REASON_UNLISTED;
	return deny(&r, box, d);
}

/* Memory of no file is the program's own affair: it may make code, but of no file that it may not map. */
SEC("lsm/mmap_file")
int mmap_file(__u64 *ctx)
{
	struct file *file = (void *)ctx[0];

	if (outside() || !(ctx[2] & PROT_EXEC) || !file)
		return 0;
	return judge_map(file);
}

SEC("lsm/file_mprotect")
int file_mprotect(__u64 *ctx)
{
	struct vm_area_struct *area = (void *)ctx[0];
	struct file *file;

	if (outside() || !(ctx[2] & PROT_EXEC))
		return 0;
	file = area->vm_file;
	return file ? judge_map(file) : 0;
}

#endif
