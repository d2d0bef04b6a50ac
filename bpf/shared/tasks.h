/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The stream `task`: a process is named when it first acts on traced memory. */
#ifndef MEMCG_TRACER_TASKS_H
#define MEMCG_TRACER_TASKS_H

#include "inodes.h"
#include "slices.h"
#include "tracked.h"

BPF_RINGBUF_OUTPUT(task_ring, SIZED_BY_LOADER);
BPF_TABLE("lru_hash", u32, u64, seen_tasks, 16384); /* tgid -> start */

/* Return the program that the current task executes; NULL: it executes none, or has ended. */
static __always_inline struct inode *current_program(void)
{
	return cached_inode(READ(READ(current_task(), mm), exe_file));
}

/* Send the current process. The argument is the event. */
SUBPROGRAM(emit_task)
{
	struct task_struct *task = current_task();
	struct task_struct *leader = READ(task, group_leader);
	struct task_event *record =
		or_count_lost(task_ring.ringbuf_reserve(sizeof(*record)), STREAM_TASK);

	if (!record)
		return 0;
	CLEAR(record);
	record->time_ns = bpf_ktime_get_ns();
	record->start_ns = process_start(task);
	record->cgroup_id = memcg_id(task_memcg(task));
	record->exe_inode_id = inode_id(current_program());
	record->start_code = READ(READ(task, mm), start_code);
	record->start_stack = READ(READ(task, mm), start_stack);
	record->tgid = READ(leader, tgid);
	record->ppid = READ(READ(leader, real_parent), tgid);
	record->uid = READ(READ(leader, cred), uid);
	record->event = FIRST_ARGUMENT;
	bpf_probe_read_kernel(record->comm, sizeof(record->comm), &leader->comm);
	task_ring.ringbuf_submit(record, BPF_RB_NO_WAKEUP);
	wake_recorder();
	return 0;
}

/* Send the current process, unless it was sent before. */
SUBPROGRAM(see_task)
{
	struct slice *slice = this_slice();
	u32 tgid = FIRST_ARGUMENT;
	u64 start = process_start(current_task());
	u64 *seen = seen_tasks.lookup(&tgid);

	if (seen && *seen == start)
		return 0;
	seen_tasks.update(&tgid, &start);
	CALL(emit_task, TASK_SEEN, 0);
	if (slice)
		slice->is_unnamed = 1;
	return 0;
}

/*
 * Send the current process, unless it was sent before. Its program is named when it leaves the CPU
 * (charge.bpf.c).
 */
static __always_inline void see_current(u32 tgid)
{
	struct slice *slice = this_slice();
	u64 now = (u64)this_generation() << 32 | tgid;

	if (!slice || slice->last_seen == now)
		return;
	slice->last_seen = now;
	CALL(see_task, tgid, 0);
}

#endif
