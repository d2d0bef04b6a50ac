/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Reclaim attempts under way, and the last attempt of each thread. The programs of reclaim.bpf.c
 * write them.
 */
#ifndef MEMCG_TRACER_ATTEMPTS_H
#define MEMCG_TRACER_ATTEMPTS_H

#include "../events.h"
#include "kernel.h"

struct attempt {
	struct mem_cgroup *target;
	struct mem_cgroup *scanned_memcg;
	u64 is_written; /* the task writes a control file of the target */
	struct reclaim_event record;
};

BPF_HASH(attempts, u32, struct attempt, 8192); /* by thread id */

/*
 * The last attempt that a thread ended: an OOM kill follows it. `named` is its target, if that was
 * not inferred.
 */
struct ended {
	u64 time_ns;
	struct mem_cgroup *named;
	u32 gfp;
	u32 kind;
};

BPF_TABLE("lru_hash", u32, struct ended, last_ended, 4096);

/* Return the reclaim attempt of the current task; NULL if it does not reclaim. */
static __always_inline struct attempt *current_attempt(void)
{
	u32 pid = bpf_get_current_pid_tgid();

	return attempts.lookup(&pid);
}

#endif
