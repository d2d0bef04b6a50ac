/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The stream `task`: a process is named when it first acts on traced memory. */
#ifndef MEMCG_TRACER_TASKS_H
#define MEMCG_TRACER_TASKS_H

#include "tracked.h"

BPF_RINGBUF_OUTPUT(task_ring, TASK_RING_PAGES);
BPF_TABLE("lru_hash", u32, u64, seen_tasks, 16384); /* tgid -> start */
BPF_PERCPU_ARRAY(last_task, u64, 1); /* generation << 32 | tgid */

static __always_inline void emit_task(struct task_struct *task, u64 cgroup_id, u32 event)
{
	struct task_struct *leader = READ(task, group_leader);
	struct task_event *record =
		or_count_lost(task_ring.ringbuf_reserve(sizeof(*record)), STREAM_TASK);

	if (!record)
		return;
	CLEAR(record);
	record->time_ns = bpf_ktime_get_ns();
	record->start_ns = READ(leader, start_boottime);
	record->cgroup_id = cgroup_id;
	record->tgid = READ(leader, tgid);
	record->ppid = READ(READ(leader, real_parent), tgid);
	record->uid = READ(READ(leader, cred), uid);
	record->event = event;
	bpf_probe_read_kernel(record->comm, sizeof(record->comm), &leader->comm);
	task_ring.ringbuf_submit(record, BPF_RB_NO_WAKEUP);
}

/* Send the current process, unless it was sent before. */
static __always_inline void see_current(u32 tgid)
{
	u32 zero = 0;
	u64 *last = last_task.lookup(&zero);
	u64 now = (u64)this_generation() << 32 | tgid;

	if (!last || *last == now)
		return;
	*last = now;

	struct task_struct *task = current_task();
	u64 start = READ(READ(task, group_leader), start_boottime);
	u64 *seen = seen_tasks.lookup(&tgid);

	if (seen && *seen == start)
		return;
	seen_tasks.update(&tgid, &start);
	emit_task(task, memcg_id(task_memcg(task)), TASK_SEEN);
}

#endif
