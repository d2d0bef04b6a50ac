/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What all programs share: the calibration that user space wrote, which cgroups are traced, the
 * count of lost records.
 *
 * The loader defines: TRACE_ALL (no filter), CGROUP_V1, TRACER_CPUS (possible CPUs),
 * TRACER_COMBINE_TICKS (how long a sum of charges may wait), TRACER_TICK_NS (the timer's),
 * TRACER_ROOTS and TRACER_WANTED_PATHS (room for what is asked for), PAGE_SIZE, the rings' sizes,
 * LEDGER_BY_FUNCTION where functions are hooked for it, and STACKS_BYTES where stacks are asked
 * for.
 */
#ifndef MEMCG_TRACER_TRACKED_H
#define MEMCG_TRACER_TRACKED_H

#include "../events.h"
#include "kernel.h"

/* What can only be learnt by running on this kernel (bpf/probe.bpf.c); 0 = not known. */
struct calibration {
	u64 cgroup_root; /* struct cgroup_root of the memory controller's hierarchy */
	u64 regs_offset; /* from the bottom of a task's kernel stack to its struct pt_regs */
	u8 counter_index[CATEGORY_COUNT]; /* position + 1 in memcg_vmstats_percpu.state */
};

BPF_ARRAY(calibration, struct calibration, 1);
BPF_ARRAY(cpu_offsets, u64, TRACER_CPUS); /* what to add to a per-CPU pointer for that CPU's copy */
BPF_PERCPU_ARRAY(lost, u64, STREAM_COUNT);

/* `follow`: of enum follow. It holds for one generation (struct wanted). */
struct memcg_info {
	u64 cgroup_id;
	u32 follow;
	u32 generation;
};

/*
 * Cgroup ids that are traced with all below them, and whether that is decided (enum follow). User
 * space fills and prunes it; a cgroup that is made comes in here before its first charge
 * (follow_new in identity.bpf.c).
 */
BPF_HASH(roots, u64, u8, TRACER_ROOTS);

/*
 * What user space wants of cgroups to come. A generation ends when a cgroup is made, whose memcg
 * can have the address of an earlier one, and when user space changes `roots`: what was remembered
 * of a memcg by its address is then wrong.
 */
struct wanted {
	u32 generation;
	u32 is_open; /* some are wanted by what only user space knows: each new one is undecided */
};

BPF_ARRAY(wanted, struct wanted, 1);

struct cgroup_path {
	char text[TRACER_PATH_LEN];
};

BPF_HASH(wanted_paths, struct cgroup_path, u8,
	 TRACER_WANTED_PATHS); /* a cgroup made there is wanted */
BPF_TABLE("lru_hash", struct mem_cgroup *, struct memcg_info, memcgs, 16384);

static __always_inline void count_lost_records(u32 stream, u64 records)
{
	u64 *count = lost.lookup(&stream);

	if (count)
		*count += records;
}

static __always_inline void count_lost(u32 stream)
{
	count_lost_records(stream, 1);
}

/* Return a record that a ring reserved. NULL, for which it had no room, is counted as lost. */
static __always_inline void *or_count_lost(void *record, u32 stream)
{
	if (!record)
		count_lost(stream);
	return record;
}

/* The flag by which submitting a record wakes user space, or does not. */
static __always_inline u64 wake_flag(bool wakes)
{
	return wakes ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;
}

static __always_inline struct calibration *calibrated(void)
{
	u32 zero = 0;

	return calibration.lookup(&zero);
}

static __always_inline u32 this_generation(void)
{
	u32 zero = 0;
	struct wanted *now = wanted.lookup(&zero);

	return now ? now->generation : 0;
}

static __always_inline void end_generation(void)
{
	u32 zero = 0;
	struct wanted *now = wanted.lookup(&zero);

	if (now)
		__sync_fetch_and_add(&now->generation, 1);
}

/* By the roots that a cgroup is at or below: one that is decided counts more than one that is not.
 */
static __always_inline u8 follow_by_roots(struct cgroup *cgroup)
{
#ifdef TRACE_ALL
	return FOLLOW_YES;
#else
	u8 found = FOLLOW_NO;

	for (int depth = 0; depth < MAX_DEPTH; depth++) {
		u64 id = cgroup_id(cgroup);
		u8 *follow = roots.lookup(&id);

		if (follow && *follow == FOLLOW_YES)
			return FOLLOW_YES;
		if (follow)
			found = FOLLOW_UNDECIDED;
		cgroup = cgroup_parent(cgroup);
		if (!cgroup)
			break;
	}
	return found;
#endif
}

/* The id of a memcg and whether it is traced, remembered until that can be another answer. */
static __always_inline struct memcg_info *memcg_info(struct mem_cgroup *memcg)
{
	struct memcg_info *info = memcgs.lookup(&memcg);
	u32 generation =
		this_generation(); /* before looking: a change meanwhile makes the answer stale */

	if (!memcg || (info && info->generation == generation))
		return info;

	struct memcg_info fresh = {.generation = generation};
	struct cgroup *cgroup = READ(memcg, css.cgroup);

	fresh.cgroup_id = cgroup_id(cgroup);
	fresh.follow = follow_by_roots(cgroup);

	memcgs.update(&memcg, &fresh);
	return memcgs.lookup(&memcg);
}

static __always_inline bool is_traced(struct mem_cgroup *memcg)
{
#ifdef TRACE_ALL
	return true;
#else
	struct memcg_info *info = memcg_info(memcg);

	return info && info->follow;
#endif
}

/* Without a filter, a folio that nobody owns is wanted too. */
static __always_inline bool is_wanted_owner(struct memcg_info *info)
{
#ifdef TRACE_ALL
	return true;
#else
	return info && info->follow;
#endif
}

#endif
