// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * The names behind ids, recorded where user space could miss them: cgroups that are made, removed
 * or renamed (the stream `cgroup`), processes that execute a program or exit (the stream `task`).
 * shared/tasks.h and shared/inodes.h name processes and files when they are first seen.
 */

#include "shared/accounts.h"
#include "shared/tasks.h"
#include "shared/tracked.h"

BPF_RINGBUF_OUTPUT(cgroup_ring, SIZED_BY_LOADER);
#define CGROUP_WAKE_BYTES (SETTING(cgroup_ring_bytes) / 4)

/*
 * Wake user space if it has to act, or if the ring is a quarter full. An event of an untraced
 * cgroup is read early enough with the next record of another ring, except a renaming: the new name
 * may be a requested one.
 */
static __always_inline u64 cgroup_wake_flag(bool is_urgent)
{
	if (is_urgent)
		return BPF_RB_FORCE_WAKEUP;
	return wake_flag(cgroup_ring.ringbuf_query(BPF_RB_AVAIL_DATA) > CGROUP_WAKE_BYTES);
}

static __always_inline struct mem_cgroup *cgroup_memcg(struct cgroup *cgroup)
{
	return memcg_from_css(READ(cgroup, subsys[KERNEL_ENUM_memory_cgrp_id]));
}

BPF_PERCPU_ARRAY(new_path, struct cgroup_path, 1); /* scratch: too large for the stack */

static __always_inline bool is_wanted_path(const char *path)
{
	u32 zero = 0;
	struct cgroup_path *key = new_path.lookup(&zero);

	if (!key)
		return false;
	CLEAR(key);
	bpf_probe_read_kernel_str(key->text, sizeof(key->text), path);
	return wanted_paths.lookup(key);
}

/*
 * Decide whether to trace a new cgroup. Nothing has been charged to it: no task can be in it yet.
 */
static __always_inline u8 follow_new(struct cgroup *cgroup, const char *path)
{
#ifdef TRACE_ALL
	return FOLLOW_YES;
#else
	u32 zero = 0;
	u64 id = cgroup_id(cgroup);
	struct wanted *now = wanted.lookup(&zero);
	u8 follow = FOLLOW_NO;

	if (is_wanted_path(path))
		follow = FOLLOW_YES;
	else if (follow_by_roots(cgroup) == FOLLOW_YES)
		return FOLLOW_YES;
	else if (now && now->is_open)
		follow = FOLLOW_UNDECIDED;
	if (follow && roots.update(&id, &follow)) {
		count_lost(STREAM_CGROUP);
		return FOLLOW_NO;
	}
	return follow;
#endif
}

static __always_inline int emit_cgroup(struct cgroup *cgroup, const char *path, u32 event)
{
	struct calibration *known = calibrated();

	/*
	 * Each v1 hierarchy numbers its directories independently: ids of other hierarchies are
	 * ignored.
	 */
	if (!known || (u64)READ(cgroup, root) != known->cgroup_root)
		return 0;

	struct mem_cgroup *memcg = cgroup_memcg(cgroup);
	struct ledger *head = the_ledger();
	u8 follow;

	if (event == CGROUP_MKDIR) {
		follow = follow_new(cgroup, path);
		if (follow && memcg)
			publish(cgroup_id(cgroup), new_account(memcg, cgroup_id(cgroup)));
		end_generation();
	} else {
		follow = follow_by_roots(cgroup);
		if (event == CGROUP_RMDIR && follow && head)
			head->removed_ns = bpf_ktime_get_ns();
	}

	struct cgroup_event *record =
		or_count_lost(cgroup_ring.ringbuf_reserve(sizeof(*record)), STREAM_CGROUP);

	if (!record) {
		u64 id = cgroup_id(cgroup);

		if (event == CGROUP_MKDIR &&
		    follow == FOLLOW_UNDECIDED) { /* user space never decides */
			roots.delete(&id);
			change_roots();
		}
		return 0;
	}
	CLEAR(record);
	record->time_ns = bpf_ktime_get_ns();
	record->cgroup_id = cgroup_id(cgroup);
	if (memcg && memcg_parent(memcg))
		record->parent_id = memcg_id(memcg_parent(memcg));
	record->memcg = (u64)memcg;
	record->event = event;
	record->follow = follow;
	bpf_probe_read_kernel_str(record->path, sizeof(record->path), path);
	cgroup_ring.ringbuf_submit(record, cgroup_wake_flag(follow || event == CGROUP_RENAME));
	return 0;
}

PROGRAM(cgroup_mkdir)
{
	return emit_cgroup((struct cgroup *)ctx->args[0], (const char *)ctx->args[1], CGROUP_MKDIR);
}

PROGRAM(cgroup_rmdir)
{
	return emit_cgroup((struct cgroup *)ctx->args[0], (const char *)ctx->args[1], CGROUP_RMDIR);
}

/* Only cgroup v1 has renaming. A renamed cgroup keeps its parent and its id. */
PROGRAM(cgroup_rename)
{
	return emit_cgroup((struct cgroup *)ctx->args[0], (const char *)ctx->args[1],
			   CGROUP_RENAME);
}

PROGRAM(sched_process_exec)
{
	struct task_struct *task = (struct task_struct *)ctx->args[0];
	struct memcg_info info = memcg_info(task_memcg(task));
	u64 start = process_start(task);
	u32 tgid = READ(task, tgid);

	if (!info.follow)
		return 0;
	seen_tasks.update(&tgid, &start);
	CALL(emit_task, TASK_EXEC, 0);
	see_file(current_program(), &info, tgid); /* it may end before it leaves the CPU */
	return 0;
}

/*
 * A thread exits. Its process ends with the last thread, which need not be the leader: do_exit() in
 * kernel/exit.c has already lowered the count of threads. If two threads exit together, both may
 * find that they are the last.
 */
PROGRAM(sched_process_exit)
{
	struct task_struct *task = (struct task_struct *)ctx->args[0];
	u32 tgid = READ(task, tgid);

	/* The process stays in seen_tasks: it still frees memory after this event. */
	if (!READ(READ(task, signal), counter) && seen_tasks.lookup(&tgid))
		CALL(emit_task, TASK_EXIT, 0);
	return 0;
}
