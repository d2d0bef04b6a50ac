/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The state of each CPU: the task that runs on it, and the sums that it holds. */
#ifndef MEMCG_TRACER_SLICES_H
#define MEMCG_TRACER_SLICES_H

#include "tracked.h"

#define COMBINE_SLOTS 64 /* sums of charges (sums.h) */

/* A memcg, known by the serial number of its css, which no two memcgs share, in a generation. */
struct memcg_key {
	u64 serial;
	u64 generation;
};

#define UNTRACED_SLOTS 8

/* The task on this CPU, as it came in, and some memcgs. */
struct slice {
	u32 is_running; /* the memcg of the task is `traced` */
	u32 tgid; /* of the task that came in; 0 = not known */
	struct memcg_key traced; /* the last that was traced, with its account */
	u64 stats; /* this CPU's copy of its counters */
	u32 slot;
	u32 cpu;
	u32 is_busy; /* a program that can be interrupted has claimed the sums */
	u32 is_unnamed; /* the program of the present task may have to be named */
	u64 begun_ns; /* the run time of the task when it came in, or was last counted */
	u32 pid; /* of that task, if it is traced (task_time.h) */
	u32 waiting; /* the number of slots in `filled` */
	u64 ran_ns; /* by tasks of `traced`, not added to `task_times` yet */
	u32 cut_ticks; /* when a timer last cut it, in timer ticks */
	u32 wait_slots; /* a bit for each sum of waits that is to be sent (file_waits.h) */
	u64 last_seen; /* generation << 32 | tgid of the process that acted last (tasks.h) */
	struct memcg_key untraced[UNTRACED_SLOTS]; /* memcgs that are not traced */
	u8 filled[COMBINE_SLOTS]; /* the slots of `combine` that have a sum, or had one */
};

BPF_PERCPU_ARRAY(slices, struct slice, 1);

static __always_inline struct slice *this_slice(void)
{
	u32 zero = 0;

	return slices.lookup(&zero);
}

/*
 * Claim the sums of this CPU for a program that can be interrupted. Return false if the program has
 * interrupted another such program. A flag is enough: between its test and its change, another
 * program can only come and go.
 */
static __always_inline bool claim(struct slice *slice)
{
	volatile u32 *is_busy = &slice->is_busy;

	if (*is_busy)
		return false;
	*is_busy = 1;
	return true;
}

static __always_inline void release(struct slice *slice)
{
	*(volatile u32 *)&slice->is_busy = 0;
}

#endif
