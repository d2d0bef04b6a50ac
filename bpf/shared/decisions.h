/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* The decisions of the OOM killer that are being made, and whose limit caused them. */
#ifndef MEMCG_TRACER_DECISIONS_H
#define MEMCG_TRACER_DECISIONS_H

#include "attempts.h"
#include "limits.h"

/* A thread inside out_of_memory(). */
struct decision {
	u64 time_ns;
	struct oom_control *control;
	struct task_struct *weighed; /* while inside oom_badness() */
};

BPF_HASH(decisions, u32, struct decision, 1024); /* by thread id */

static __always_inline u8 constraint_of(u32 number)
{
	switch (number) {
	case KERNEL_ENUM_CONSTRAINT_MEMCG:
		return CONSTRAINT_MEMCG;
	case KERNEL_ENUM_CONSTRAINT_CPUSET:
		return CONSTRAINT_CPUSET;
	case KERNEL_ENUM_CONSTRAINT_MEMORY_POLICY:
		return CONSTRAINT_MEMPOLICY;
	}
	return CONSTRAINT_GLOBAL;
}

/*
 * Return the memcg whose limit caused the kill, as the kernel decided. Without the decision, it is
 * the target of the trigger's last reclaim attempt, if the kernel named the target. Otherwise it is
 * inferred from the page counters and that attempt. A task that lowers a limit below usage is not
 * in that memcg. NULL: no memcg's limit caused the kill.
 */
static __always_inline struct mem_cgroup *kill_owner(struct decision *decision, struct ended *ended,
						     struct mem_cgroup *trigger)
{
	if (decision)
		return constraint_of(READ(decision->control, constraint)) == CONSTRAINT_MEMCG
			       ? READ(decision->control, memcg)
			       : NULL;
	if (ended && ended->kind == RECLAIM_MEMCG && ended->named)
		return ended->named;

	/* After a failed charge, an exiting task may have made room. */
	struct limits limits = limits_above(trigger);
	bool is_refused = ended && ended->kind == RECLAIM_MEMCG;

	return limits.least <= NEAR_LIMIT_PAGES || is_refused ? limits.tightest : NULL;
}

#endif
