/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * tp_btf/sched_process_exec: what may become a program where no LSM hook can refuse it. The tracepoint runs in the
 * new program's process before its first instruction; a file that the sandbox may not execute gets SIGKILL there.
 * It judges what the kernel really mapped, mm->exe_file: for a script that is its interpreter, for a program given
 * to the dynamic loader the loader, for memfd and deleted files those inodes.
 *
 * The tracepoint is system-wide: for tasks that are not ours it costs two look-ups per exec.
 */
#ifndef NEMOCLAW_EXEC_H
#define NEMOCLAW_EXEC_H

#include "environ.h"
#include "event.h"

/* Looks for the nearest directory above file that was granted as a tree. Returns its flags, or 0. */
static __always_inline __u32 find_tree(__u64 cgid, struct file *file, __u32 *rule)
{
	struct dentry *d = file->f_path.dentry;
	struct exec_key key = {.cgid = cgid};
	struct exec_value *v;
	int i;

	for (i = 0; i < TREE_DEPTH; i++) {
		struct dentry *up = d->d_parent;
		struct inode *inode;

		if (!up || up == d)
			return 0;
		d = up;
		inode = d->d_inode;
		if (!inode)
			return 0;
		identify_inode(&key.file, inode);
		v = bpf_map_lookup_elem(&executables, &key);
		if (v && v->flags & EXEC_TREE) {
			*rule = v->rule;
			return v->flags;
		}
	}
	return 0;
}

SEC("tp_btf/sched_process_exec")
int exec(__u64 *ctx)
{
	struct task_struct *task = (void *)ctx[0];
	struct linux_binprm *bprm = (void *)ctx[2];
	__u64 cgid = bpf_get_current_cgroup_id();
	struct sandbox *box = sandbox_of(cgid);
	struct exec_key key = {.cgid = cgid};
	__u32 flags = 0, rule = RULE_DEFAULT;
	struct exec_value *v;
	struct counters *c;
	struct subject s;
	struct event e;
	__u64 now;

	if (likely(!box)) {
		if (bpf_current_task_under_cgroup(&parent, 0) == 1) {
			stray(HOOK_EXEC);
			bpf_send_signal(SIGKILL);
		}
		return 0;
	}
	c = counters_of(cgid);
	subject_of(&s, task);
	s.taint = note_environ(cgid, task);
	key.file = s.exe;
	v = bpf_map_lookup_elem(&executables, &key);
	if (v && v->flags & EXEC_FILE) {
		flags = v->flags;
		rule = v->rule;
	} else if (box->trees) {
		struct mm_struct *mm = task->mm;
		struct file *file = mm->exe_file;

		flags = find_tree(cgid, file, &rule);
	}
	/* Where files are judged, bprm_check_security has allowed it: by a file rule, or because a person did. */
	if (!flags && box->files)
		flags = EXEC_FILE;
	if (!flags || flags & EXEC_DENY) {
		bpf_send_signal(SIGKILL);
		flags = 0;
	}
	count(c, HOOK_EXEC, flags ? ALLOW : DENY);
	if (flags & EXEC_QUIET)
		return 0;
	now = bpf_ktime_get_boot_ns();
	if (!afford(c, HOOK_EXEC, now, BUDGET_EXEC))
		return 0;
	start_event(&e, box, cgid, HOOK_EXEC, &s, now);
	e.parent = task->real_parent->tgid;
	e.rule = rule;
	e.verdict = flags ? ALLOW : DENY;
	e.reason = REASON_RULE;
	send_event_path(box, c, &e, &s, bprm->filename);
	return 0;
}

#endif
