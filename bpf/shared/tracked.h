/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The state that all programs share: the calibration that user space writes, the choice of traced
 * cgroups, and the count of lost records.
 *
 * The loader defines TRACE_ALL (no filter), CGROUP_V1, TRACER_CPUS (possible CPUs),
 * TRACER_COMBINE_TICKS (how long a sum of charges may wait), TRACER_TICK_NS (length of a timer
 * tick), TRACER_ACCOUNTS (sizes of maps, which the loader makes larger where there are many
 * cgroups), TRACER_ROOTS and TRACER_WANTED_PATHS (sizes of maps), PAGE_SIZE, and SAMPLES_CODE (with
 * `--stacks`).
 */
#ifndef MEMCG_TRACER_TRACKED_H
#define MEMCG_TRACER_TRACKED_H

#include "../events.h"
#include "kernel.h"
#include "settings.h"

/* The place of a counter. */
struct position {
	u64 offset_bytes; /* from the first learnt position */
	u64 mask; /* all bits; none if the position is not known */
};

/* Facts that only programs on the running kernel can find (probe.bpf.c); 0 = not known. */
struct calibration {
	u64 cgroup_root; /* struct cgroup_root of the memory controller's hierarchy */
	u32 is_primed; /* the memcgs that existed before the recording have accounts */
	u32 span_offset; /* of the first learnt position in memcg_vmstats_percpu.state, in bytes */
	u32 span_bytes; /* from there to the end of the last one */
	u32 accounts; /* the room of the ledger (accounts.h) */
	u8 pgscan_at; /* positions of the first kind of reclaim (oom.bpf.c) */
	u8 pgsteal_at;
	u8 reclaim_kinds; /* 0 = the positions are not known */
	struct position positions[CATEGORY_COUNT];
};

BPF_ARRAY(calibration, struct calibration, 1);

/* CPU -> the offset from a per-CPU pointer to the copy of that CPU. */
BPF_ARRAY(cpu_offsets, u64, TRACER_CPUS);

/*
 * Return the address of a CPU's copy of a memcg's counters (vmstats_percpu); 0 if it cannot be
 * found.
 */
static __always_inline u64 cpu_stats(u64 percpu_stats, u32 cpu)
{
	u64 *offset = cpu_offsets.lookup(&cpu);

	return offset && *offset && percpu_stats ? percpu_stats + *offset : 0;
}

BPF_PERCPU_ARRAY(lost, u64, STREAM_COUNT); /* enum stream -> records */

/* `follow` is a value of enum follow. An entry is valid for one generation (struct wanted). */
struct memcg_info {
	struct mem_cgroup *memcg; /* the key: see memcg_info */
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
	u32 root_changes; /* changes of `roots`, without those for a new cgroup that is traced */
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

/*
 * 1 while the recorder rests: it reads no ring and runs no program until the first event wakes it.
 * Each program that sends a record without waking user space, or keeps something to be sent later,
 * calls `wake_recorder` once, outside of loops: a branch in a loop takes the verifier long.
 */
BPF_ARRAY(resting, u32, 1);
BPF_RINGBUF_OUTPUT(wake_ring, SIZED_BY_LOADER);

static __always_inline void wake_recorder(void)
{
	u32 zero = 0;
	u32 *is_resting = resting.lookup(&zero);
	u64 wake = 0;

	if (!is_resting || !*is_resting)
		return;
	*is_resting = 0;
	wake_ring.ringbuf_output(&wake, sizeof(wake), BPF_RB_FORCE_WAKEUP);
}

/*
 * A traced task comes onto the CPU: user space must cut its slice. Without a filter, every task is
 * traced, the recorder included, so only what a task changes ends a rest.
 */
static __always_inline void wake_recorder_for_task(void)
{
#ifndef TRACE_ALL
	wake_recorder();
#endif
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

/* Roots have changed: a memcg that exists may not be traced any more. */
static __always_inline void change_roots(void)
{
	u32 zero = 0;
	struct wanted *now = wanted.lookup(&zero);

	if (now)
		__sync_fetch_and_add(&now->root_changes, 1);
	end_generation();
}

static __always_inline u32 root_changes(void)
{
	u32 zero = 0;
	struct wanted *now = wanted.lookup(&zero);

	return now ? now->root_changes : 0;
}

/* A search for roots at and above a cgroup. */
struct root_search {
	struct cgroup *at;
	u64 found; /* of enum follow, or-ed */
};

SUBPROGRAM(look_for_root)
{
	struct root_search *search = (struct root_search *)SECOND_ARGUMENT;
	u64 id = cgroup_id(search->at);
	u8 *follow = roots.lookup(&id);

	if (follow)
		search->found |= *follow;
	search->at = cgroup_parent(search->at);
	return search->at ? 0 : 1;
}

/* Decide by the roots at and above a cgroup. A decided root outweighs an undecided one. */
static __always_inline u8 follow_by_roots(struct cgroup *cgroup)
{
#ifdef TRACE_ALL
	return FOLLOW_YES;
#else
	struct root_search search = {.at = cgroup, .found = FOLLOW_NO};

	LOOP(look_for_root, MAX_DEPTH, &search);
	return search.found & FOLLOW_YES ? FOLLOW_YES : search.found;
#endif
}

/* Decide whether a memcg is traced, for a generation. */
SUBPROGRAM(decide_memcg)
{
	struct mem_cgroup *memcg = (struct mem_cgroup *)FIRST_ARGUMENT;
	struct cgroup *cgroup = READ(memcg, css.cgroup);
	struct memcg_info info = {
		.memcg = memcg,
		.cgroup_id = cgroup_id(cgroup),
		.follow = follow_by_roots(cgroup),
		.generation = SECOND_ARGUMENT,
	};

	memcgs.update(&memcg, &info);
	return info.follow;
}

/*
 * Return the id of a memcg and whether it is traced; zeros for NULL. The result is cached for a
 * generation.
 *
 * An LRU map gives the memory of an entry that another CPU replaces or deletes to the next key at
 * once (htab_lru_map_update_elem in kernel/bpf/hashtab.c), while a program may still read it. So an
 * entry is copied, and used only if it still has its key after that.
 */
static __always_inline struct memcg_info memcg_info(struct mem_cgroup *memcg)
{
	/* Before the look-up: a change during it makes the result stale. */
	struct memcg_info info = {.memcg = memcg, .generation = this_generation()};
	volatile struct memcg_info *known = memcg ? memcgs.lookup(&memcg) : NULL;

	if (known && known->generation == info.generation) {
		info.cgroup_id = known->cgroup_id;
		info.follow = known->follow;
		if (known->memcg == memcg)
			return info;
	}
	info.cgroup_id = memcg_id(memcg);
	info.follow = memcg ? CALL(decide_memcg, ADDRESS(memcg), info.generation) : FOLLOW_NO;
	return info;
}

static __always_inline bool is_traced(struct mem_cgroup *memcg)
{
#ifdef TRACE_ALL
	return true;
#else
	return memcg_info(memcg).follow;
#endif
}

/*
 * Return whether to record an event on a folio of this owner; NULL: it has none. Without a filter,
 * folios without an owner are also recorded.
 */
static __always_inline bool is_wanted_owner(struct memcg_info info)
{
#ifdef TRACE_ALL
	return true;
#else
	return info.follow;
#endif
}

#endif
