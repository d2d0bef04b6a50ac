/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The state that all programs share: the calibration that user space writes, the choice of traced
 * cgroups, and the count of lost records.
 *
 * The loader defines TRACE_ALL (no filter), CGROUP_V1, TRACER_CPUS (possible CPUs),
 * TRACER_COMBINE_TICKS (how long a sum of charges may wait), TRACER_TICK_NS (length of a timer
 * tick), TRACER_ROOTS and TRACER_WANTED_PATHS (sizes of maps), PAGE_SIZE, the sizes of the rings,
 * LEDGER_BY_FUNCTION (the ledger hooks functions), and STACKS_BYTES (with `--stacks`).
 */
#ifndef MEMCG_TRACER_TRACKED_H
#define MEMCG_TRACER_TRACKED_H

#include "../events.h"
#include "kernel.h"

/* Facts that only programs on the running kernel can find (probe.bpf.c); 0 = not known. */
struct calibration {
	u64 cgroup_root; /* struct cgroup_root of the memory controller's hierarchy */
	u64 regs_offset; /* from the bottom of a task's kernel stack to its struct pt_regs */
	u8 counter_index[CATEGORY_COUNT]; /* position + 1 in memcg_vmstats_percpu.state */
};

BPF_ARRAY(calibration, struct calibration, 1);

/* CPU -> the offset from a per-CPU pointer to the copy of that CPU. */
BPF_ARRAY(cpu_offsets, u64, TRACER_CPUS);

BPF_PERCPU_ARRAY(lost, u64, STREAM_COUNT); /* enum stream -> records */

/* `follow` is of enum follow. An entry is valid for one generation (struct wanted). */
struct memcg_info {
	u64 cgroup_id;
	u32 follow;
	u32 generation;
};

/*
 * Id of a cgroup that is traced with its descendants -> enum follow. User space fills and prunes
 * the map. A new cgroup enters it before its first charge (follow_new in identity.bpf.c).
 */
BPF_HASH(roots, u64, u8, TRACER_ROOTS);

/*
 * How to treat new cgroups. A generation ends when a cgroup is made, because its memcg may have the
 * address of a removed one, and when user space changes `roots`. Everything that is cached by the
 * address of a memcg is then stale.
 */
struct wanted {
	u32 generation;
	u32 is_open; /* user space may want any new cgroup: each is undecided */
};

BPF_ARRAY(wanted, struct wanted, 1);

struct cgroup_path {
	char text[TRACER_PATH_LEN];
};

/* Paths at which a new cgroup is traced. */
BPF_HASH(wanted_paths, struct cgroup_path, u8, TRACER_WANTED_PATHS);

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

/* Return a record that a ring reserved. NULL means that it had no room: count a lost record. */
static __always_inline void *or_count_lost(void *record, u32 stream)
{
	if (!record)
		count_lost(stream);
	return record;
}

/* Return the flag with which submitting a record wakes user space, or does not wake it. */
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

/* Decide by the roots at and above a cgroup. A decided root outweighs an undecided one. */
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

/* Return the id of a memcg and whether it is traced. The result is cached for a generation. */
static __always_inline struct memcg_info *memcg_info(struct mem_cgroup *memcg)
{
	struct memcg_info *info = memcgs.lookup(&memcg);
	/* Before the look-up: a change during it makes the result stale. */
	u32 generation = this_generation();

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

/*
 * Return whether to record an event on a folio of this owner; NULL: it has none. Without a filter,
 * folios without an owner are also recorded.
 */
static __always_inline bool is_wanted_owner(struct memcg_info *info)
{
#ifdef TRACE_ALL
	return true;
#else
	return info && info->follow;
#endif
}

#endif
