/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The CPU time of the tasks of each account. The scheduler brings the run time of a task up to date
 * before it reports a switch, and at each timer tick. The slice of a CPU adds up the time of one
 * account. It goes into the CPU's part of an array, which user space maps
 * (tracer/capture/rows/task_rows.py), when another account runs there, with the sums of the CPU
 * (charge.bpf.c), and before accounts are closed (`look`).
 */
#ifndef MEMCG_TRACER_TASK_TIME_H
#define MEMCG_TRACER_TASK_TIME_H

#include "sums.h"

BPF_F_TABLE("array", u32, u64, task_times, TRACER_CPUS *TRACER_ACCOUNTS, BPF_F_MMAPABLE);

static __always_inline u64 *task_time_of(u32 slot, u32 cpu)
{
	struct calibration *known = calibrated();
	u32 place = known ? cpu * known->accounts + slot : slot;

	return task_times.lookup(&place);
}

/* A traced task comes in, or goes on. */
static __always_inline void begin_task_time(struct slice *slice, struct task_struct *task)
{
	slice->pid = LOAD(task, pid);
	slice->begun_ns = LOAD(task, sum_exec_runtime);
}

/*
 * Count the run time of a traced task since it came in. If it is not the task that came in, a
 * switch between them was not reported, and its time is not known. The idle task has no run time.
 */
static __always_inline void count_task_time(struct slice *slice, struct task_struct *task)
{
	u32 pid = LOAD(task, pid);

	if (pid == slice->pid)
		slice->ran_ns += LOAD(task, sum_exec_runtime) - slice->begun_ns;
	else if (pid)
		count_lost(STREAM_TASK_TIME);
}

/* Add the time of the slice to its account, unless the slot has passed to another memcg. */
static __always_inline void add_task_time(struct slice *slice)
{
	u32 slot = slice->slot;
	u64 *time = task_time_of(slot, slice->cpu);
	struct account *account = accounts.lookup(&slot);

	if (time && account && account->memcg && account->serial == slice->traced.serial)
		*time += slice->ran_ns;
	slice->ran_ns = 0;
}

#endif
