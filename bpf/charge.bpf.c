// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * The stream `charge`, the ledger: every change of a memcg's memory counters, by owner, process and
 * category.
 *
 * Updates are summed before they are sent. Each CPU has a small direct-mapped cache of sums by
 * (memcg, process, category). A sum is sent when it is large (256 KiB), old (10 ms), displaced by
 * another, or when user space runs `drain`. If the ring is full, the sum stays in its slot. If the
 * slot is needed for another sum, the old one is added to `residue`, by cgroup and category, which
 * user space collects. So totals stay exact: a full ring loses only the process and the time of a
 * change. `residue` can be full only with thousands of cgroups; that loss is counted.
 */

#include "shared/counters.h"
#include "shared/reclaim_counts.h"
#include "shared/stacks.h"
#include "shared/tasks.h"
#include "shared/tracked.h"

#define COMBINE_BYTES (256 << 10)
#define COMBINE_SLOTS 256
#define RING_WAKE_BYTES (CHARGE_RING_PAGES * PAGE_SIZE / 2)

BPF_RINGBUF_OUTPUT(charge_ring, CHARGE_RING_PAGES);

struct combined {
	struct mem_cgroup *memcg;
	u64 cgroup_id;
	u64 since_ticks;
	s64 delta_bytes;
	u32 tgid;
	u32 category;
	u32 updates;
	u32 generation; /* of the look-up that found `memcg` traced, with `cgroup_id` */
};

BPF_PERCPU_ARRAY(combine, struct combined, COMBINE_SLOTS);

struct residue_key {
	u64 cgroup_id;
	u64 category;
};

BPF_HASH(residue, struct residue_key, s64, 32768);

/*
 * The lock of the slots of a CPU. Programs on one CPU nest (the program of an interrupt inside the
 * program of a task, `drain` by IPI inside either) and never interleave. So a flag is enough: a
 * program that finds it set does not touch the slots.
 */
struct combine_state {
	u32 busy;
	u32 waiting; /* sums were added since the last drain */
};

BPF_PERCPU_ARRAY(combine_state, struct combine_state, 1);

static __always_inline bool send(struct combined *sum)
{
	struct charge_event *record = charge_ring.ringbuf_reserve(sizeof(*record));

	if (!record)
		return false;

	struct counter counter = read_counter(&sum->memcg->memory);

	record->time_ns = bpf_ktime_get_ns();
	record->cgroup_id = sum->cgroup_id;
	record->usage_pages = counter.usage_pages;
	record->limit_pages = counter.limit_pages;
	record->delta_bytes = sum->delta_bytes;
	record->tgid = sum->tgid;
	record->updates = sum->updates;
	record->category = sum->category;

	u64 waiting = charge_ring.ringbuf_query(BPF_RB_AVAIL_DATA);

	charge_ring.ringbuf_submit(record, wake_flag(waiting > RING_WAKE_BYTES));
	return true;
}

static __always_inline void clear(struct combined *sum)
{
	sum->delta_bytes = 0;
	sum->updates = 0;
	sum->since_ticks = 0;
}

static __always_inline void add_residue(u64 cgroup_id, u32 category, s64 delta_bytes)
{
	struct residue_key key = {.cgroup_id = cgroup_id, .category = category};
	s64 zero = 0;
	s64 *total = residue.lookup_or_try_init(&key, &zero);

	if (total)
		__sync_fetch_and_add(total, delta_bytes);
	else
		count_lost(STREAM_RESIDUE);
}

/* Send the sum in a slot, and reuse the slot for (memcg, tgid, category). */
static __always_inline void take_over(struct combined *sum, struct memcg_info *info,
				      struct mem_cgroup *memcg, u32 tgid, u32 category)
{
	if (sum->updates && !send(sum)) {
		count_lost(STREAM_CHARGE);
		add_residue(sum->cgroup_id, sum->category, sum->delta_bytes);
	}
	clear(sum);
	sum->memcg = memcg;
	sum->cgroup_id = info->cgroup_id;
	sum->generation = info->generation;
	sum->tgid = tgid;
	sum->category = category;
	see_current(tgid);
}

/* The age of a sum is in timer ticks: reading the clock would be the most expensive step. */
static __always_inline void combine_into(struct combined *sum, s64 delta_bytes)
{
	u64 now = bpf_jiffies64();

	if (!sum->updates)
		sum->since_ticks = now;
	sum->delta_bytes += delta_bytes;
	sum->updates++;
	if (sum->delta_bytes >= COMBINE_BYTES || sum->delta_bytes <= -COMBINE_BYTES ||
	    now - sum->since_ticks >= TRACER_COMBINE_TICKS) {
		if (send(sum))
			clear(sum);
	}
}

/*
 * Add an update to its slot. Return false if it was added to no slot.
 *
 * `nested`: the program runs in an interrupt that hit this CPU inside a slot, and touches no slot.
 * If the category is read from the kernel's counter, the next update of that counter, or `settle`,
 * finds the change; otherwise it is added to `residue`, without a process.
 */
static __always_inline bool combine_update(struct mem_cgroup *memcg, u32 category,
					   s64 reported_bytes, s64 coming, bool nested,
					   u64 *weight_bytes)
{
	u32 tgid = current_tgid();
	u64 mixed = ((u64)memcg >> 6) + tgid * 31 + category * 17;
	u32 slot = (mixed ^ (mixed >> 8)) & (COMBINE_SLOTS - 1);
	struct combined *sum = combine.lookup(&slot);
	struct memcg_info *info = NULL;
	bool counted = is_counted(category);
	s64 delta_bytes = reported_bytes;

	if (!sum)
		return false;

	bool ours = !nested && sum->memcg == memcg && sum->tgid == tgid &&
		    sum->category == category && sum->generation == this_generation();

	/* Most updates find their slot and need no look-up of the cgroup. */
	if (!ours || counted) {
		if (nested && counted)
			return false;
		info = memcg_info(memcg);
		if (!info || !info->follow)
			return false;
		if (nested) {
			add_residue(info->cgroup_id, category, reported_bytes);
			return false;
		}
		if (counted)
			delta_bytes = counted_bytes(memcg, category, reported_bytes, coming);
		if (!delta_bytes)
			return false;
		if (!ours)
			take_over(sum, info, memcg, tgid, category);
	}
	combine_into(sum, delta_bytes);
	*weight_bytes = sample_weight(tgid, category, delta_bytes);
	return true;
}

/* Account an update. `ctx` is the context of the program; stacks are taken from it. */
static __always_inline int account(void *ctx, struct mem_cgroup *memcg, u32 category,
				   s64 reported_bytes, s64 coming)
{
	u32 zero = 0;
	u64 weight_bytes = 0;
	volatile struct combine_state *state = combine_state.lookup(&zero);

	if (category == CATEGORY_COUNT || !state)
		return 0;

	bool nested = state->busy;

	if (!nested)
		state->busy = 1;
	if (combine_update(memcg, category, reported_bytes, coming, nested, &weight_bytes))
		state->waiting = 1;
	if (!nested)
		state->busy = 0;
	sample_stacks(ctx, memcg, category, weight_bytes);
	return 0;
}

/*
 * Both tracepoints report whole pages, whatever the unit of the counter is. Their argument is a
 * long since "mm: memcontrol: change val type to long in __mod_memcg_{lruvec_}state()", v7.1, and
 * was an int before, which arrives without sign extension to 64 bits. No update needs the upper
 * half.
 */
static __always_inline int account_pages(void *ctx, struct mem_cgroup *memcg, u32 category,
					 u64 pages)
{
	return account(ctx, memcg, category, (s64)(s32)pages * (s64)PAGE_SIZE, 0);
}

PROGRAM(mod_memcg_lruvec_state)
{
	struct mem_cgroup *memcg = (struct mem_cgroup *)ctx->args[0];

#ifdef RECLAIM_COUNTS_ARE_NODE_STATS
	count_reclaim(memcg, ctx->args[1], (s32)ctx->args[2]);
#endif
	return account_pages(ctx, memcg, category_of_lruvec_state(ctx->args[1]), ctx->args[2]);
}

PROGRAM(mod_memcg_state)
{
	return account_pages(ctx, (struct mem_cgroup *)ctx->args[0],
			     category_of_state(ctx->args[1]), ctx->args[2]);
}

/* The functions behind the tracepoints get the change in the unit of the counter. */
static __always_inline int account_units(void *ctx, struct mem_cgroup *memcg, u32 category,
					 u64 units)
{
	s64 coming = (s32)units;

	return account(ctx, memcg, category, coming * unit_bytes(category), coming);
}

static __always_inline int enter_state_of(struct mem_cgroup *memcg, struct call *call)
{
#ifdef RECLAIM_COUNTS_ARE_NODE_STATS
	count_reclaim(memcg, call->args[1], (s32)call->args[2]);
#endif
	return account_units(call->ctx, memcg, category_of_lruvec_state(call->args[1]),
			     call->args[2]);
}

static __always_inline int enter_lruvec_state(struct call *call)
{
	return enter_state_of(memcg_of_lruvec(call->args[0]), call);
}

static __always_inline int enter_node_state(struct call *call)
{
	return enter_state_of(memcg_of_node(call->args[0]), call);
}

static __always_inline int enter_memcg_state(struct call *call)
{
	return account_units(call->ctx, (struct mem_cgroup *)call->args[0],
			     category_of_state(call->args[1]), call->args[2]);
}

/*
 * Send all waiting sums. User space runs it on each CPU (BPF_PROG_TEST_RUN). `waiting` stays set if
 * a sum cannot be sent. Return 1 if this CPU was inside a slot: run it again.
 */
PROGRAM(drain)
{
	u32 zero = 0;
	volatile struct combine_state *state = combine_state.lookup(&zero);

	if (!state || state->busy)
		return 1;
	state->busy = 1;
	state->waiting = 0;
	for (u32 slot = 0; slot < COMBINE_SLOTS; slot++) {
		u32 key = slot;
		struct combined *sum = combine.lookup(&key);

		if (!sum || !sum->updates)
			continue;
		if (send(sum))
			clear(sum);
		else
			state->waiting = 1;
	}
	state->busy = 0;
	return 0;
}

static __always_inline int settle_counters(struct mem_cgroup *memcg, u64 id, bool add)
{
	struct calibration *known = calibrated();
	struct memcg_vmstats_percpu *stats = this_cpu_stats(memcg);
	struct memcg_info *info = memcg_info(memcg);
	struct counters_seen none = {};

	if (!known || !stats || !info || !info->follow || id != memcg_id(memcg))
		return 1;

	struct counters_seen *seen = counters_seen.lookup_or_try_init(&memcg, &none);

	if (!seen)
		return 1;
#pragma clang loop unroll(disable)
	for (u32 category = 0; category < CATEGORY_COUNT; category++) {
		u32 index = is_counted(category) ? known->counter_index[category] : 0;

		if (!index)
			continue;

		s64 delta_bytes = unseen_bytes(stats, seen, category, index, 0);

		if (delta_bytes && add)
			add_residue(id, category, delta_bytes);
	}
	return 0;
}

/*
 * Bring the ledger in line with this CPU's counters of a memcg: before the ledger starts, mark
 * their values as seen; at its end, add the changes that the ledger lacks, without a process. args:
 * the address of the memcg, the id of its cgroup, whether to add. User space runs it on each CPU.
 * Return 2 if this CPU was inside a slot: run it again.
 */
PROGRAM(settle)
{
	u32 zero = 0;
	volatile struct combine_state *state = combine_state.lookup(&zero);
	int refused;

	if (!state || state->busy)
		return 2;
	state->busy = 1;
	refused = settle_counters((struct mem_cgroup *)ctx->args[0], ctx->args[1], ctx->args[2]);
	state->busy = 0;
	return refused;
}
