/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Differences, summed before they are sent. Each CPU has a small direct-mapped cache of sums by
 * (cgroup, process). A sum is sent when it is old (10 ms), displaced by another, when more is added
 * to a large one (256 KiB), or when user space runs `tick`. If the ring is full, the sum stays in
 * its slot. If the slot is needed for another sum, the old one is added to `residue`, by cgroup,
 * which user space collects. So totals stay exact: a full ring loses only the process and the time
 * of a change. `residue` can be full only with thousands of cgroups; that loss is counted.
 */
#ifndef MEMCG_TRACER_SUMS_H
#define MEMCG_TRACER_SUMS_H

#include "accounts.h"
#include "slices.h"
#include "tasks.h"

#define LARGE_SHIFT 18 /* 256 KiB: what is freed next is no longer set off against so much */
#define RING_WAKE_BYTES (SETTING(charge_ring_bytes) / 2)

BPF_RINGBUF_OUTPUT(charge_ring, SIZED_BY_LOADER);

struct combined {
	struct mem_cgroup *memcg;
	u64 cgroup_id;
	u64 since_ticks;
	u32 tgid;
	u32 updates; /* 0 = the slot is free */
	u64 is_listed; /* in `filled` of the slice */
	u64 magnitude; /* all bits of the largest size that it had in a category, in bytes */
	struct category_values delta; /* in the kernel's units */
};

BPF_PERCPU_ARRAY(combine, struct combined, COMBINE_SLOTS);
/* cgroup id -> units of the kernel */
BPF_HASH(residue, u64, struct category_values, TRACER_ACCOUNTS);

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
	record->tgid = sum->tgid;
	record->updates = sum->updates;
#pragma unroll
	for (u32 category = 0; category < CATEGORY_COUNT; category++)
		record->delta_bytes[category] = sum->delta.values[category] * unit_bytes(category);

	u64 waiting = charge_ring.ringbuf_query(BPF_RB_AVAIL_DATA);

	charge_ring.ringbuf_submit(record, wake_flag(waiting > RING_WAKE_BYTES));
	return true;
}

static __always_inline void clear(struct combined *sum)
{
	CLEAR(&sum->delta);
	sum->magnitude = 0;
	sum->updates = 0;
}

static __always_inline void add_residue(struct combined *sum)
{
	u64 id = sum->cgroup_id;
	struct category_values *total = residue.lookup(&id);

	if (!total && !residue.insert(&id, &sum->delta))
		return;
	total = residue.lookup(&id);
	if (!total) {
		count_lost(STREAM_RESIDUE);
		return;
	}
#pragma unroll
	for (u32 category = 0; category < CATEGORY_COUNT; category++)
		__sync_fetch_and_add(&total->values[category], sum->delta.values[category]);
}

/* Empty the slot of a sum that is old, or whose slot is `taken` for another. */
static __always_inline void empty(struct combined *sum, bool is_taken)
{
	bool is_sent = send(sum);

	if (!is_sent && is_taken) {
		count_lost(STREAM_CHARGE);
		add_residue(sum);
	}
	if (is_sent || is_taken)
		clear(sum);
}

/*
 * Return the sum of a process in an account, with its slot in the list of those to be sent; NULL is
 * for the verifier. Ages are in timer ticks: reading the clock is slower.
 */
static __always_inline struct combined *sum_of(struct slice *slice, struct account *account,
					       u32 tgid)
{
	u64 mixed = account->cgroup_id * 7 + tgid;
	u32 slot = (mixed ^ (mixed >> 6)) & (COMBINE_SLOTS - 1);
	struct combined *sum = combine.lookup(&slot);
	u64 now = bpf_jiffies64();

	if (!sum)
		return NULL;

	bool is_taken = sum->cgroup_id != account->cgroup_id || sum->tgid != tgid;

	if (sum->updates && (is_taken || sum->magnitude >> LARGE_SHIFT ||
			     now - sum->since_ticks >= TRACER_COMBINE_TICKS))
		empty(sum, is_taken);
	if (is_taken) {
		sum->memcg = account->memcg;
		sum->cgroup_id = account->cgroup_id;
		sum->tgid = tgid;
		/* The slice may have begun before user space refused the cgroup. */
		if (tgid && is_traced(account->memcg))
			see_current(tgid);
	}
	if (!sum->updates)
		sum->since_ticks = now;
	if (!sum->is_listed) {
		sum->is_listed = 1;
		slice->filled[slice->waiting & (COMBINE_SLOTS - 1)] = slot;
		slice->waiting++;
	}
	sum->updates++;
	return sum;
}

static __always_inline bool differs(struct cpu_counters *now, struct calibration *known,
				    struct category_values *seen)
{
	u64 changed = 0;

#pragma unroll
	for (u32 category = 0; category < CATEGORY_COUNT; category++) {
		changed |= value_of(now, known, category) ^ seen->values[category];
		asm volatile(
			""
			: "+r"(changed)); /* no branch for each: the verifier follows them all */
	}
	return changed;
}

BPF_PERCPU_ARRAY(changed_values, struct category_values, 1); /* scratch: large for the stack */

/*
 * Add the changes of an account to the sum of a process. The arguments are a CPU << 32 | the slot
 * of the account, and the tgid; 0 = it is not known which process made the changes. Return whether
 * the memcg of the account is gone.
 */
SUBPROGRAM(add_changes)
{
	u32 slot = FIRST_ARGUMENT, cpu = FIRST_ARGUMENT >> 32;
	struct slice *slice = this_slice();
	struct calibration *known = calibrated();
	struct account *account = accounts.lookup(&slot);
	struct category_values *seen = seen_of(slot, cpu);
	u32 zero = 0;
	struct category_values *values = changed_values.lookup(&zero);
	struct combined *sum;
	struct cpu_counters *now;

	if (!slice || !known || !account || !seen || !values)
		return 0;
	now = find_counters(known, cpu_stats(account->stats, cpu));
	if (!now)
		return 0;
#pragma unroll
	for (u32 category = 0; category < CATEGORY_COUNT; category++)
		values->values[category] = value_of(now, known, category);
	if (!exists(account))
		return 1;
	sum = sum_of(slice, account, SECOND_ARGUMENT);
	if (!sum)
		return 0;
#pragma unroll
	for (u32 category = 0; category < CATEGORY_COUNT; category++) {
		s64 value = values->values[category];
		s64 delta = sum->delta.values[category] + value - seen->values[category];
		s64 bytes = delta * unit_bytes(category);

		sum->delta.values[category] = delta;
		seen->values[category] = value;
		sum->magnitude |= bytes ^ (bytes >> 63);
	}
	return 0;
}

#endif
